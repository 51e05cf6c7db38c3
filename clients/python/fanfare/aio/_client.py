"""Connects, and publishes one by one."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from fanfare._errors import Error
from fanfare._requests import CHANNEL_OPTIONS, Details, address, authorized, keyed, notify_request
from fanfare._retry import DEADLINE, Attempts
from fanfare.aio._stream import UNANSWERED_MAX, Stream
from fanfare.aio._subscription import Subscription
from fanfare.v1 import realtime_pb2 as pb
from fanfare.v1 import realtime_pb2_grpc

Token = str | Callable[[], str | Awaitable[str]]
"""A token, or a function, also an async one, that gives the one to use now; it is asked before every try, so it should cache."""


def connect(url: str, token: Token, *, deadline: float = DEADLINE, root_certificates: bytes | None = None) -> Client:
    """Prepares a connection to e.g. "http://127.0.0.1:50051"; it is made when it is first used.

    `deadline` is what a call may take with all its tries, in seconds, unless the call says otherwise; and how long a stream tries
    to come back.
    """
    host, tls = address(url)
    source = _TokenSource(token)
    interceptors = [
        _UnaryUnary(source, deadline),
        _UnaryStream(source),
        _StreamUnary(source),
        _StreamStream(source),
    ]
    if tls:
        credentials = grpc.ssl_channel_credentials(root_certificates)
        channel = grpc.aio.secure_channel(host, credentials, options=CHANNEL_OPTIONS, interceptors=interceptors)
    else:
        channel = grpc.aio.insecure_channel(host, options=CHANNEL_OPTIONS, interceptors=interceptors)
    return Client(channel, deadline, renewable=source.renewable)


class Client:
    """Publishes and subscribes. Made by `connect`; an async context manager that closes the connection."""

    channel: grpc.aio.Channel
    """For the stubs of a catalog: their calls get the token, a deadline, an idempotency key and retries."""

    def __init__(self, channel: grpc.aio.Channel, deadline: float, *, renewable: bool) -> None:
        self.channel = channel
        self._deadline = deadline
        self._renewable = renewable
        self._realtime = realtime_pb2_grpc.RealtimeStub(channel)

    async def notify(
        self,
        event: Message,
        *,
        tenant: str = "",
        rooms: Iterable[str] = (),
        idempotency_key: str | None = None,
        except_sessions: Iterable[str] = (),
        deadline: float | None = None,
    ) -> pb.NotifyResponse:
        """Publishes one event of any catalog, as `fanfare.Client.notify` does."""
        request = notify_request(event, tenant, rooms, idempotency_key, except_sessions)
        response: pb.NotifyResponse = await self._realtime.Notify(request, timeout=deadline)
        return response

    def stream(self, *, unanswered_max: int = UNANSWERED_MAX, deadline: float | None = None) -> Stream:
        """A stream of events that outlives its connection; at most `unanswered_max` of them are without an answer.

        `deadline`: how long it goes on trying while nothing is answered, in seconds.
        """
        patience = self._deadline if deadline is None else deadline
        return Stream(self._realtime.NotifyStream, unanswered_max, patience, renewable=self._renewable)

    def subscribe(self, rooms: Iterable[str], *, after: str = "", tenant: str = "") -> Subscription:
        """The events of some rooms, after the cursor `after` or from now on. Needs the scope `subscribe`."""
        if isinstance(rooms, str):
            raise TypeError('rooms is a list of names, e.g. ["chat:7"]')
        request = pb.SubscribeRequest(tenant=tenant, rooms=rooms, after=after)
        return Subscription(self._realtime.Subscribe, request, renewable=self._renewable)

    async def close(self) -> None:
        """Closes the connection and ends what runs over it."""
        await self.channel.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _TokenSource:
    def __init__(self, token: Token) -> None:
        self._token = token
        self.renewable = not isinstance(token, str)

    async def details(self, details: Any, timeout: float | None) -> _Details:
        """The call's details with the token and a timeout."""
        token = self._token if isinstance(self._token, str) else self._token()
        if inspect.isawaitable(token):
            token = await token
        metadata = grpc.aio.Metadata(*authorized(details.metadata, token))
        return _Details(details.method, timeout, metadata, details.credentials, details.wait_for_ready)


class _Details(Details, grpc.aio.ClientCallDetails):  # type: ignore[misc]
    pass


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    def __init__(self, source: _TokenSource, deadline: float) -> None:
        self._source = source
        self._deadline = deadline

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        request, repeatable = keyed(request)
        attempts = Attempts(self._deadline if details.timeout is None else details.timeout)
        while True:
            timeout = attempts.timeout() if repeatable else attempts.remaining()
            try:
                call = await continuation(await self._source.details(details, timeout), request)
                await call
                return call
            except grpc.RpcError as failure:
                error = Error.of(failure)
                if self._source.renewable and attempts.may_renew(error):
                    continue
                pause = attempts.pause_after(error) if repeatable else None
                if pause is None:
                    raise error from failure
            await asyncio.sleep(pause)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    def __init__(self, source: _TokenSource) -> None:
        self._source = source

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(await self._source.details(details, details.timeout), request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    def __init__(self, source: _TokenSource) -> None:
        self._source = source

    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(await self._source.details(details, details.timeout), requests)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    def __init__(self, source: _TokenSource) -> None:
        self._source = source

    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(await self._source.details(details, details.timeout), requests)
