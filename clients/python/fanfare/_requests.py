"""What every request gets: an event in its envelope, an idempotency key, a token."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from google.protobuf.message import Message

from fanfare.v1 import realtime_pb2 as pb

_TARGET = "fanfare.v1.Target"
_AUTHORIZATION = "authorization"
M = TypeVar("M", bound=Message)

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    # How soon a connection is tried again, and how long a try may take (`min`). Calls have pauses of their own.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A server that is gone without a word is noticed after 20 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # One event of the largest size that a server can be configured for.
    ("grpc.max_receive_message_length", 64 << 20),
]


class Details(NamedTuple):
    """What grpcio's interceptors hand on, changed."""

    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any = None


def address(url: str) -> tuple[str, bool]:
    """The host and port of a URL, and whether to speak TLS with it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query:
        raise ValueError(
            f'{url!r} is no server URL: want e.g. "http://127.0.0.1:50051" or "https://fanfare.example.com"'
        )
    tls = parts.scheme == "https"
    return (parts.netloc if parts.port else f"{parts.netloc}:{443 if tls else 80}"), tls


def notify_request(
    event: Message, tenant: str, rooms: Iterable[str], idempotency_key: str | None, except_sessions: Iterable[str]
) -> pb.NotifyRequest:
    """The request that publishes an event."""
    if isinstance(rooms, str) or isinstance(except_sessions, str):
        raise TypeError('rooms and except_sessions are lists of names, e.g. rooms=["chat:7"]')
    target = pb.Target(
        tenant=tenant, rooms=rooms, idempotency_key=idempotency_key or new_key(), except_sessions=except_sessions
    )
    request = pb.NotifyRequest(target=target)
    request.event.Pack(event)
    return request


def new_key() -> str:
    """An idempotency key that nobody else has."""
    return str(uuid.uuid4())


def keyed(request: M) -> tuple[M, bool]:
    """The request with an idempotency key, and whether it can have one: whether repeating it is safe."""
    field = next((f for f in request.DESCRIPTOR.fields if f.message_type and f.message_type.full_name == _TARGET), None)
    if field is None:
        return request, False
    if not getattr(request, field.name).idempotency_key:
        copy = type(request)()
        copy.CopyFrom(request)
        getattr(copy, field.name).idempotency_key = new_key()
        request = copy
    return request, True


def authorized(metadata: Any, token: str) -> list[tuple[str, Any]]:
    """The metadata with the token, unless the caller gave one."""
    found = list(metadata or ())
    if not any(key == _AUTHORIZATION for key, _ in found):
        found.append((_AUTHORIZATION, f"Bearer {token}"))
    return found
