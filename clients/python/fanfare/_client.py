"""The client for ordinary, blocking code. It may be used by many threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from google.protobuf.message import Message

from fanfare._errors import Error
from fanfare._requests import CHANNEL_OPTIONS, Details, address, authorized, keyed, notify_request
from fanfare._retry import DEADLINE, Attempts
from fanfare.v1 import realtime_pb2 as pb
from fanfare.v1 import realtime_pb2_grpc

Token = str | Callable[[], str]
"""A token, or a function that gives the one to use now; it is asked before every try, so it should cache."""


def connect(url: str, token: Token, *, deadline: float = DEADLINE, root_certificates: bytes | None = None) -> Client:
    """Prepares a connection to e.g. "http://127.0.0.1:50051"; it is made when it is first used.

    `deadline` is what a call may take with all its tries, in seconds, unless the call says otherwise.
    """
    host, tls = address(url)
    if tls:
        credentials = grpc.ssl_channel_credentials(root_certificates)
        channel = grpc.secure_channel(host, credentials, CHANNEL_OPTIONS)
    else:
        channel = grpc.insecure_channel(host, CHANNEL_OPTIONS)
    return Client(channel, token, deadline)


class Client:
    """Publishes events. Made by `connect`; a context manager that closes the connection."""

    channel: grpc.Channel
    """For the stubs of a catalog: their calls get the token, a deadline, an idempotency key and retries."""

    def __init__(self, channel: grpc.Channel, token: Token, deadline: float) -> None:
        self.channel = grpc.intercept_channel(channel, _Interceptor(token, deadline))
        self._realtime = realtime_pb2_grpc.RealtimeStub(self.channel)

    def notify(
        self,
        event: Message,
        *,
        tenant: str = "",
        rooms: Iterable[str] = (),
        idempotency_key: str | None = None,
        except_sessions: Iterable[str] = (),
        deadline: float | None = None,
    ) -> pb.NotifyResponse:
        """Publishes one event of any catalog. Answered once it is in the log.

        Without `tenant` it is the token's, without `rooms` those that the event's type declares. Give `idempotency_key` where the
        event has an identity of its own that outlives this process, such as the number of a row; otherwise it is random. Raises `Error`.
        """
        request = notify_request(event, tenant, rooms, idempotency_key, except_sessions)
        response: pb.NotifyResponse = self._realtime.Notify(request, timeout=deadline)
        return response

    def close(self) -> None:
        """Closes the connection."""
        self.channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Details(Details, grpc.ClientCallDetails):  # type: ignore[misc]
    pass


class _Interceptor(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    def __init__(self, token: Token, deadline: float) -> None:
        self._token = token
        self._deadline = deadline

    def token(self) -> str:
        return self._token if isinstance(self._token, str) else self._token()

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        request, repeatable = keyed(request)
        attempts = Attempts(self._deadline if details.timeout is None else details.timeout)
        while True:
            timeout = attempts.timeout() if repeatable else attempts.remaining()
            call = continuation(self._authorized(details, timeout), request)
            failure = call.exception()
            if failure is None:
                return call
            error = Error.of(failure)
            if not isinstance(self._token, str) and attempts.may_renew(error):
                continue
            pause = attempts.pause_after(error) if repeatable else None
            if pause is None:
                raise error from failure
            time.sleep(pause)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._authorized(details, details.timeout), request)

    def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(self._authorized(details, details.timeout), requests)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(self._authorized(details, details.timeout), requests)

    def _authorized(self, details: Any, timeout: float | None) -> _Details:
        return _Details(
            details.method,
            timeout,
            authorized(details.metadata, self.token()),
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
