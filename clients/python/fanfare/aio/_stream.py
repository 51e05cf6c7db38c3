"""A stream of events that outlives its connection.

Invariant: what was sent and not answered is in `_unanswered`, in order. A new connection begins with all of it, each event under
the key it had, so that the log has each event once and in the order in which it was sent.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from fanfare._errors import Error
from fanfare._requests import notify_request
from fanfare._retry import Backoff, is_token_refused
from fanfare.v1 import realtime_pb2 as pb

UNANSWERED_MAX = 1024
"""Events that were sent and are not answered, at most."""


class Stream:
    """Publishes events in order, many at a time. Made by `Client.stream`; an async context manager.

    `send` gives the answer as a future. The first event that is refused ends the stream: its future has the reason, those behind it were
    not published.
    """

    def __init__(self, method: Callable[..., Any], unanswered_max: int, patience: float, *, renewable: bool) -> None:
        if unanswered_max < 1:
            raise ValueError(f"unanswered_max is {unanswered_max}: want at least 1")
        self._method = method
        self._unanswered_max = unanswered_max
        self._patience = patience
        self._renewable = renewable
        self._unanswered: deque[tuple[pb.NotifyRequest, asyncio.Future[pb.NotifyResponse]]] = deque()
        # How many of them the present connection has taken.
        self._sent = 0
        self._connections = 0
        self._closed = False
        self._failure: Error | None = None
        self._sending = asyncio.Lock()
        self._room = asyncio.Event()
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._backoff = Backoff()
        # Since when nothing was answered that could have been.
        self._since = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._late = False

    async def send(
        self,
        event: Message,
        *,
        tenant: str = "",
        rooms: Iterable[str] = (),
        idempotency_key: str | None = None,
        except_sessions: Iterable[str] = (),
    ) -> asyncio.Future[pb.NotifyResponse]:
        """Sends an event as soon as there is room for it, and gives its answer as a future.

        The answers come in the order of the events. Raises `Error` when the stream has ended.
        """
        request = notify_request(event, tenant, rooms, idempotency_key, except_sessions)
        async with self._sending:
            while not self._ended() and len(self._unanswered) >= self._unanswered_max:
                self._room.clear()
                await self._room.wait()
            if self._failure is not None:
                raise _behind(self._failure)
            if self._closed:
                raise RuntimeError("the stream is closed")
            answer: asyncio.Future[pb.NotifyResponse] = asyncio.get_running_loop().create_future()
            if not self._unanswered:
                self._since = time.monotonic()
            self._unanswered.append((request, answer))
            self._work.set()
            if self._task is None:
                self._task = asyncio.create_task(self._run())
            return answer

    async def close(self) -> None:
        """Waits until everything is answered. Raises the `Error` that ended the stream, if one did."""
        self._closed = True
        self._room.set()
        self._work.set()
        if self._task is not None:
            await self._task
        if self._failure is not None:
            raise self._failure

    async def abort(self) -> None:
        """Ends the stream without waiting. What is not answered may be published or not."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail(Error(grpc.StatusCode.CANCELLED, "the stream was aborted", retryable=False))

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        await (self.close() if kind is None else self.abort())

    def _ended(self) -> bool:
        return self._closed or self._failure is not None

    async def _run(self) -> None:
        renewed = False
        while self._unanswered or not self._closed:
            if not self._unanswered:
                # Without anything to say there is no need of a connection.
                await self._wait_for_work()
                continue
            answered = False
            try:
                async for answer in self._connection():
                    answered = True
                    self._answered(answer)
            except Error as error:
                if not self._unanswered:
                    continue
                renewed = renewed and not answered
                if self._renewable and is_token_refused(error) and not renewed:
                    renewed = True
                elif not await self._is_patient(error):
                    self._fail(error)
                    return

    async def _connection(self) -> AsyncIterator[pb.NotifyResponse]:
        """The answers of one connection; ends in an error unless everything is done."""
        self._connections += 1
        self._sent = 0
        call = self._method(self._requests(self._connections))
        self._watch_over(call)
        try:
            async for answer in call:
                yield answer
        except grpc.RpcError as failure:
            raise Error.of(failure) from failure
        except asyncio.CancelledError:
            if not self._late:
                raise
            self._late = False
            message = f"nothing was answered within {self._patience:g} s"
            raise Error(grpc.StatusCode.DEADLINE_EXCEEDED, message) from None
        finally:
            call.cancel()
            if self._watch is not None:
                self._watch.cancel()
        raise Error(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")

    def _left(self) -> float:
        """How long to be patient yet, in seconds."""
        return self._since + self._patience - time.monotonic()

    def _watch_over(self, call: Any) -> None:
        """Ends a connection over which nothing is answered for too long."""
        left = self._left() if self._unanswered else self._patience
        if left > 0:
            self._watch = asyncio.get_running_loop().call_later(left, self._watch_over, call)
        else:
            self._late = True
            call.cancel()

    async def _requests(self, connection: int) -> AsyncIterator[pb.NotifyRequest]:
        while self._connections == connection:
            if self._sent < len(self._unanswered):
                request, _ = self._unanswered[self._sent]
                self._sent += 1
                yield request
            elif self._closed:
                return
            else:
                await self._wait_for_work()

    async def _wait_for_work(self) -> None:
        self._work.clear()
        await self._work.wait()

    def _answered(self, answer: pb.NotifyResponse) -> None:
        _, future = self._unanswered.popleft()
        self._sent -= 1
        self._since = time.monotonic()
        self._backoff.reset()
        self._room.set()
        if not future.done():
            future.set_result(answer)

    async def _is_patient(self, error: Error) -> bool:
        """Waits before the next try, unless there shall be none."""
        if not error.retryable:
            return False
        pause = max(self._backoff.pause(), error.retry_after)
        if pause >= self._left():
            return False
        await asyncio.sleep(pause)
        return True

    def _fail(self, error: Error) -> None:
        self._failure = self._failure or error
        self._room.set()
        for at, (_, future) in enumerate(self._unanswered):
            if not future.done():
                future.set_exception(error if at == 0 or error.retryable else _behind(error))
                # Whoever looks at no answer learns of it from `close`.
                future.exception()
        self._unanswered.clear()


def _behind(error: Error) -> Error:
    message = f"not published, because the stream ended before: {error.message}"
    return Error(grpc.StatusCode.ABORTED, message, retryable=error.retryable)
