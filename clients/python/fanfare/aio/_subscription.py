"""A subscription that resumes by itself with the cursor it has reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from fanfare._errors import Error
from fanfare._retry import Backoff, is_token_refused
from fanfare.v1 import realtime_pb2 as pb


class Subscription:
    """An async iterator of `fanfare.v1.Event`, each once and in log order. Made by `Client.subscribe`.

    It connects and resumes as often as needed. It ends with an `Error` that trying again does not mend, such as REASON_RESET: the log
    does not reach back to the cursor. Then read current state elsewhere and subscribe again after `error.cursor`.
    """

    cursor: str
    """The place reached; resumes there when given as `after`. Empty before the first answer."""

    def __init__(self, method: Callable[..., Any], request: pb.SubscribeRequest, *, renewable: bool) -> None:
        self._method = method
        self._request = request
        self._renewable = renewable
        self._renewed = False
        self._call: Any = None
        self._answers: Any = None
        self._backoff = Backoff()
        self.cursor = request.after

    async def start(self) -> str:
        """Waits until the subscription stands, so that it gets whatever is published from now on; gives the cursor."""
        while not self.cursor:
            # Without a cursor the first answer is a position, never an event.
            await self._step()
        return self.cursor

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> pb.Event:
        while True:
            event = await self._step()
            if event is not None:
                return event

    async def close(self) -> None:
        """Ends it."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _step(self) -> pb.Event | None:
        try:
            return self._taken(await self._receive())
        except grpc.RpcError as failure:
            error = Error.of(failure)
            await self.close()
            if self._renewable and is_token_refused(error) and not self._renewed:
                self._renewed = True
                return None
            if not error.retryable:
                raise error from failure
            await asyncio.sleep(max(self._backoff.pause(), error.retry_after))
            return None

    async def _receive(self) -> pb.SubscribeResponse:
        if self._call is None:
            self._request.after = self.cursor
            self._call = self._method(self._request)
            self._answers = aiter(self._call)
        try:
            response: pb.SubscribeResponse = await anext(self._answers)
        except StopAsyncIteration:
            raise Error(grpc.StatusCode.UNAVAILABLE, "the server ended the stream") from None
        self._backoff.reset()
        self._renewed = False
        return response

    def _taken(self, response: pb.SubscribeResponse) -> pb.Event | None:
        if response.WhichOneof("kind") == "event":
            # Ephemeral events are no places in the log.
            if response.event.seq > 0:
                self.cursor = response.event.id
            return response.event
        if response.WhichOneof("kind") == "position":
            self.cursor = response.position.cursor
        return None
