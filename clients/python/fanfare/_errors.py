"""What can go wrong, as one exception with the server's own reason."""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2, status_pb2

from fanfare.v1 import reason_pb2

_DETAILS = "grpc-status-details-bin"
# What a broken connection looks like. INTERNAL is among them only because gRPC libraries report a reset stream so; the
# server's own INTERNAL has a reason.
_BROKEN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
}
_FINAL_FROM = 2000


class Error(grpc.RpcError):  # type: ignore[misc]
    """A call was refused, or could not be made in time.

    It is a `grpc.RpcError`, so that code written for plain stubs catches it.
    """

    message: str
    """What was wrong, for people."""
    reason: str | None
    """The server's reason, e.g. "REASON_FORBIDDEN" (see docs/errors.md); None when the connection failed."""
    retryable: bool
    """Whether the same request may succeed later. Publishing again is safe under the same idempotency key only."""
    metadata: dict[str, str]
    """More of the server, e.g. `path`: the field that is wrong."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str | None = None,
        metadata: dict[str, str] | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self._code = code
        self.message = message
        self.reason = reason
        self.metadata = metadata or {}
        self.retryable = _is_retryable(code, reason) if retryable is None else retryable

    @classmethod
    def of(cls, error: BaseException) -> Error:
        """The error that a call of grpcio ended with."""
        if isinstance(error, Error):
            return error
        if not isinstance(error, grpc.RpcError):
            raise error
        reason, metadata = _error_info(error)
        return cls(error.code(), error.details() or "no reason was given", reason=reason, metadata=metadata)

    def code(self) -> grpc.StatusCode:
        """The gRPC status code."""
        return self._code

    def details(self) -> str:
        """As `message`; what `grpc.Call` calls it."""
        return self.message

    @property
    def cursor(self) -> str | None:
        """With REASON_RESET: from where a fresh subscription can start."""
        return self.metadata.get("cursor")

    @property
    def retry_after(self) -> float:
        """How long the server asks to wait, in seconds; 0 when it does not."""
        try:
            return int(self.metadata.get("retry_after_millis", "0")) / 1000
        except ValueError:
            return 0.0

    def __str__(self) -> str:
        return f"{self.reason or self._code.name}: {self.message}"


def _error_info(error: grpc.RpcError) -> tuple[str | None, dict[str, str]]:
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS:
            continue
        info = error_details_pb2.ErrorInfo()
        for detail in status_pb2.Status.FromString(value).details:
            if detail.Unpack(info) and info.domain == "fanfare":
                return info.reason, dict(info.metadata)
    return None, {}


def _is_retryable(code: grpc.StatusCode, reason: str | None) -> bool:
    try:
        number = reason_pb2.Reason.Value(reason or "")
    except ValueError:
        # None, or one that only a newer server knows.
        return code in _BROKEN
    return number < _FINAL_FROM and number != reason_pb2.REASON_RESET
