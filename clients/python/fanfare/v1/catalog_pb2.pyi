from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Transport(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRANSPORT_UNSPECIFIED: _ClassVar[Transport]
    TRANSPORT_SOCKETIO: _ClassVar[Transport]
    TRANSPORT_WEBSOCKET: _ClassVar[Transport]
    TRANSPORT_SSE: _ClassVar[Transport]
    TRANSPORT_POLL: _ClassVar[Transport]
    TRANSPORT_GRPC: _ClassVar[Transport]

class Access(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCESS_UNSPECIFIED: _ClassVar[Access]
    ACCESS_TENANT: _ClassVar[Access]
    ACCESS_CLAIM: _ClassVar[Access]
    ACCESS_MEMBERS: _ClassVar[Access]

class Presence(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRESENCE_UNSPECIFIED: _ClassVar[Presence]
    PRESENCE_CONNECTED: _ClassVar[Presence]
    PRESENCE_ONLINE: _ClassVar[Presence]
    PRESENCE_OFFLINE: _ClassVar[Presence]
    PRESENCE_JOINED: _ClassVar[Presence]
    PRESENCE_LEFT: _ClassVar[Presence]

class Fill(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILL_UNSPECIFIED: _ClassVar[Fill]
    FILL_EVENT_ID: _ClassVar[Fill]
    FILL_TIME: _ClassVar[Fill]
    FILL_USER_ID: _ClassVar[Fill]
    FILL_USER_NAME: _ClassVar[Fill]
    FILL_SESSION_ID: _ClassVar[Fill]
    FILL_MEMBER_ID: _ClassVar[Fill]
    FILL_MEMBER_NAME: _ClassVar[Fill]
    FILL_MEMBER_ONLINE: _ClassVar[Fill]
    FILL_HISTORY_CURSOR: _ClassVar[Fill]
    FILL_HISTORY_MORE: _ClassVar[Fill]
TRANSPORT_UNSPECIFIED: Transport
TRANSPORT_SOCKETIO: Transport
TRANSPORT_WEBSOCKET: Transport
TRANSPORT_SSE: Transport
TRANSPORT_POLL: Transport
TRANSPORT_GRPC: Transport
ACCESS_UNSPECIFIED: Access
ACCESS_TENANT: Access
ACCESS_CLAIM: Access
ACCESS_MEMBERS: Access
PRESENCE_UNSPECIFIED: Presence
PRESENCE_CONNECTED: Presence
PRESENCE_ONLINE: Presence
PRESENCE_OFFLINE: Presence
PRESENCE_JOINED: Presence
PRESENCE_LEFT: Presence
FILL_UNSPECIFIED: Fill
FILL_EVENT_ID: Fill
FILL_TIME: Fill
FILL_USER_ID: Fill
FILL_USER_NAME: Fill
FILL_SESSION_ID: Fill
FILL_MEMBER_ID: Fill
FILL_MEMBER_NAME: Fill
FILL_MEMBER_ONLINE: Fill
FILL_HISTORY_CURSOR: Fill
FILL_HISTORY_MORE: Fill
TRANSPORT_FIELD_NUMBER: _ClassVar[int]
transport: _descriptor.FieldDescriptor
NAMESPACE_FIELD_NUMBER: _ClassVar[int]
namespace: _descriptor.FieldDescriptor
ROOM_FIELD_NUMBER: _ClassVar[int]
room: _descriptor.FieldDescriptor
EVENT_FIELD_NUMBER: _ClassVar[int]
event: _descriptor.FieldDescriptor
CLIENT_FIELD_NUMBER: _ClassVar[int]
client: _descriptor.FieldDescriptor
NOTIFY_FIELD_NUMBER: _ClassVar[int]
notify: _descriptor.FieldDescriptor
FILL_FIELD_NUMBER: _ClassVar[int]
fill: _descriptor.FieldDescriptor
FILL_CLAIM_FIELD_NUMBER: _ClassVar[int]
fill_claim: _descriptor.FieldDescriptor
FILL_TEXT_FIELD_NUMBER: _ClassVar[int]
fill_text: _descriptor.FieldDescriptor
INTERNAL_FIELD_NUMBER: _ClassVar[int]
internal: _descriptor.FieldDescriptor
TEXT_FIELD_NUMBER: _ClassVar[int]
text: _descriptor.FieldDescriptor

class RoomOptions(_message.Message):
    __slots__ = ("kind", "access", "publish", "reason")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    kind: str
    access: Access
    publish: Access
    reason: str
    def __init__(self, kind: _Optional[str] = ..., access: _Optional[_Union[Access, str]] = ..., publish: _Optional[_Union[Access, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class EventOptions(_message.Message):
    __slots__ = ("name", "rooms", "ephemeral", "presence", "binary", "state")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROOMS_FIELD_NUMBER: _ClassVar[int]
    EPHEMERAL_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    BINARY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    rooms: _containers.RepeatedScalarFieldContainer[str]
    ephemeral: bool
    presence: Presence
    binary: bool
    state: StateOptions
    def __init__(self, name: _Optional[str] = ..., rooms: _Optional[_Iterable[str]] = ..., ephemeral: bool = ..., presence: _Optional[_Union[Presence, str]] = ..., binary: bool = ..., state: _Optional[_Union[StateOptions, _Mapping]] = ...) -> None: ...

class StateOptions(_message.Message):
    __slots__ = ("key", "delete", "ttl_seconds")
    KEY_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    key: str
    delete: bool
    ttl_seconds: int
    def __init__(self, key: _Optional[str] = ..., delete: bool = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class NotifyOptions(_message.Message):
    __slots__ = ("rooms",)
    ROOMS_FIELD_NUMBER: _ClassVar[int]
    rooms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, rooms: _Optional[_Iterable[str]] = ...) -> None: ...

class ClientOptions(_message.Message):
    __slots__ = ("on", "join", "leave", "reply", "publish", "except_caller", "query", "upstream", "binary", "history", "state", "upstream_optional")
    ON_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    EXCEPT_CALLER_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    BINARY_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    on: str
    join: str
    leave: str
    reply: str
    publish: str
    except_caller: bool
    query: str
    upstream: str
    binary: bool
    history: HistoryOptions
    state: bool
    upstream_optional: bool
    def __init__(self, on: _Optional[str] = ..., join: _Optional[str] = ..., leave: _Optional[str] = ..., reply: _Optional[str] = ..., publish: _Optional[str] = ..., except_caller: bool = ..., query: _Optional[str] = ..., upstream: _Optional[str] = ..., binary: bool = ..., history: _Optional[_Union[HistoryOptions, _Mapping]] = ..., state: bool = ..., upstream_optional: bool = ...) -> None: ...

class HistoryOptions(_message.Message):
    __slots__ = ("room", "limit", "before", "default_limit")
    ROOM_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    room: str
    limit: str
    before: str
    default_limit: int
    def __init__(self, room: _Optional[str] = ..., limit: _Optional[str] = ..., before: _Optional[str] = ..., default_limit: _Optional[int] = ...) -> None: ...
