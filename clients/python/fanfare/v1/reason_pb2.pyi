from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_SHUTDOWN: _ClassVar[Reason]
    REASON_UNAVAILABLE: _ClassVar[Reason]
    REASON_SLOW: _ClassVar[Reason]
    REASON_RESET: _ClassVar[Reason]
    REASON_LIMIT: _ClassVar[Reason]
    REASON_INTERNAL: _ClassVar[Reason]
    REASON_TIMEOUT: _ClassVar[Reason]
    REASON_RECONNECT: _ClassVar[Reason]
    REASON_ABORTED: _ClassVar[Reason]
    REASON_NO_TOKEN: _ClassVar[Reason]
    REASON_INVALID_TOKEN: _ClassVar[Reason]
    REASON_TOKEN_EXPIRED: _ClassVar[Reason]
    REASON_FORBIDDEN: _ClassVar[Reason]
    REASON_INVALID_ARGUMENT: _ClassVar[Reason]
    REASON_UNKNOWN_EVENT: _ClassVar[Reason]
    REASON_TOO_LARGE: _ClassVar[Reason]
    REASON_PROTOCOL: _ClassVar[Reason]
    REASON_INVALID_NAMESPACE: _ClassVar[Reason]
    REASON_DISCONNECTED: _ClassVar[Reason]
    REASON_ABUSE: _ClassVar[Reason]
    REASON_NOT_FOUND: _ClassVar[Reason]
    REASON_FAILED_PRECONDITION: _ClassVar[Reason]
    REASON_ALREADY_EXISTS: _ClassVar[Reason]
    REASON_UNIMPLEMENTED: _ClassVar[Reason]
    REASON_TOKEN_REVOKED: _ClassVar[Reason]
    REASON_REVISION: _ClassVar[Reason]
REASON_UNSPECIFIED: Reason
REASON_SHUTDOWN: Reason
REASON_UNAVAILABLE: Reason
REASON_SLOW: Reason
REASON_RESET: Reason
REASON_LIMIT: Reason
REASON_INTERNAL: Reason
REASON_TIMEOUT: Reason
REASON_RECONNECT: Reason
REASON_ABORTED: Reason
REASON_NO_TOKEN: Reason
REASON_INVALID_TOKEN: Reason
REASON_TOKEN_EXPIRED: Reason
REASON_FORBIDDEN: Reason
REASON_INVALID_ARGUMENT: Reason
REASON_UNKNOWN_EVENT: Reason
REASON_TOO_LARGE: Reason
REASON_PROTOCOL: Reason
REASON_INVALID_NAMESPACE: Reason
REASON_DISCONNECTED: Reason
REASON_ABUSE: Reason
REASON_NOT_FOUND: Reason
REASON_FAILED_PRECONDITION: Reason
REASON_ALREADY_EXISTS: Reason
REASON_UNIMPLEMENTED: Reason
REASON_TOKEN_REVOKED: Reason
REASON_REVISION: Reason
