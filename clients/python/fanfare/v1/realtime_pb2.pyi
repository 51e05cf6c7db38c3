from fanfare.v1 import catalog_pb2 as _catalog_pb2
from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Target(_message.Message):
    __slots__ = ("tenant", "rooms", "idempotency_key", "except_sessions", "expected_revision")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ROOMS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    EXCEPT_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    rooms: _containers.RepeatedScalarFieldContainer[str]
    idempotency_key: str
    except_sessions: _containers.RepeatedScalarFieldContainer[str]
    expected_revision: int
    def __init__(self, tenant: _Optional[str] = ..., rooms: _Optional[_Iterable[str]] = ..., idempotency_key: _Optional[str] = ..., except_sessions: _Optional[_Iterable[str]] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class NotifyRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: Target
    event: _any_pb2.Any
    def __init__(self, target: _Optional[_Union[Target, _Mapping]] = ..., event: _Optional[_Union[_any_pb2.Any, _Mapping]] = ...) -> None: ...

class NotifyResponse(_message.Message):
    __slots__ = ("id", "seq", "time", "duplicate")
    ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    id: str
    seq: int
    time: _timestamp_pb2.Timestamp
    duplicate: bool
    def __init__(self, id: _Optional[str] = ..., seq: _Optional[int] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., duplicate: bool = ...) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ("tenant", "rooms", "after", "with_state")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ROOMS_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    WITH_STATE_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    rooms: _containers.RepeatedScalarFieldContainer[str]
    after: str
    with_state: bool
    def __init__(self, tenant: _Optional[str] = ..., rooms: _Optional[_Iterable[str]] = ..., after: _Optional[str] = ..., with_state: bool = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("event", "position", "state")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    event: Event
    position: Position
    state: StateSnapshot
    def __init__(self, event: _Optional[_Union[Event, _Mapping]] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., state: _Optional[_Union[StateSnapshot, _Mapping]] = ...) -> None: ...

class StateSnapshot(_message.Message):
    __slots__ = ("entries", "first")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[StateEntry]
    first: bool
    def __init__(self, entries: _Optional[_Iterable[_Union[StateEntry, _Mapping]]] = ..., first: bool = ...) -> None: ...

class StateEntry(_message.Message):
    __slots__ = ("room", "key", "event", "expires_at")
    ROOM_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    room: str
    key: str
    event: Event
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, room: _Optional[str] = ..., key: _Optional[str] = ..., event: _Optional[_Union[Event, _Mapping]] = ..., expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetStateRequest(_message.Message):
    __slots__ = ("tenant", "rooms", "page_size", "page_token")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ROOMS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    rooms: _containers.RepeatedScalarFieldContainer[str]
    page_size: int
    page_token: str
    def __init__(self, tenant: _Optional[str] = ..., rooms: _Optional[_Iterable[str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class GetStateResponse(_message.Message):
    __slots__ = ("entries", "cursor", "next_page_token")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[StateEntry]
    cursor: str
    next_page_token: str
    def __init__(self, entries: _Optional[_Iterable[_Union[StateEntry, _Mapping]]] = ..., cursor: _Optional[str] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("cursor",)
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    def __init__(self, cursor: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("id", "seq", "tenant", "rooms", "time", "sender", "payload")
    ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ROOMS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    id: str
    seq: int
    tenant: str
    rooms: _containers.RepeatedScalarFieldContainer[str]
    time: _timestamp_pb2.Timestamp
    sender: str
    payload: _any_pb2.Any
    def __init__(self, id: _Optional[str] = ..., seq: _Optional[int] = ..., tenant: _Optional[str] = ..., rooms: _Optional[_Iterable[str]] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., sender: _Optional[str] = ..., payload: _Optional[_Union[_any_pb2.Any, _Mapping]] = ...) -> None: ...

class GetPresenceRequest(_message.Message):
    __slots__ = ("tenant", "room", "after_user_id", "limit")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    AFTER_USER_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    room: str
    after_user_id: str
    limit: int
    def __init__(self, tenant: _Optional[str] = ..., room: _Optional[str] = ..., after_user_id: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class GetPresenceResponse(_message.Message):
    __slots__ = ("users", "user_count", "session_count", "more")
    USERS_FIELD_NUMBER: _ClassVar[int]
    USER_COUNT_FIELD_NUMBER: _ClassVar[int]
    SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[UserPresence]
    user_count: int
    session_count: int
    more: bool
    def __init__(self, users: _Optional[_Iterable[_Union[UserPresence, _Mapping]]] = ..., user_count: _Optional[int] = ..., session_count: _Optional[int] = ..., more: bool = ...) -> None: ...

class UserPresence(_message.Message):
    __slots__ = ("user_id", "user_name", "online", "sessions")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    USER_NAME_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    user_name: str
    online: bool
    sessions: _containers.RepeatedCompositeFieldContainer[SessionPresence]
    def __init__(self, user_id: _Optional[str] = ..., user_name: _Optional[str] = ..., online: bool = ..., sessions: _Optional[_Iterable[_Union[SessionPresence, _Mapping]]] = ...) -> None: ...

class SessionPresence(_message.Message):
    __slots__ = ("session_id", "transport", "connected_at", "bridge", "rooms")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_AT_FIELD_NUMBER: _ClassVar[int]
    BRIDGE_FIELD_NUMBER: _ClassVar[int]
    ROOMS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    transport: _catalog_pb2.Transport
    connected_at: _timestamp_pb2.Timestamp
    bridge: str
    rooms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., transport: _Optional[_Union[_catalog_pb2.Transport, str]] = ..., connected_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., bridge: _Optional[str] = ..., rooms: _Optional[_Iterable[str]] = ...) -> None: ...

class DisconnectRequest(_message.Message):
    __slots__ = ("tenant", "user_id", "session_id", "everybody", "message", "reconnect")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EVERYBODY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user_id: str
    session_id: str
    everybody: bool
    message: str
    reconnect: bool
    def __init__(self, tenant: _Optional[str] = ..., user_id: _Optional[str] = ..., session_id: _Optional[str] = ..., everybody: bool = ..., message: _Optional[str] = ..., reconnect: bool = ...) -> None: ...

class DisconnectResponse(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: int
    def __init__(self, sessions: _Optional[int] = ...) -> None: ...

class Caller(_message.Message):
    __slots__ = ("tenant", "user_id", "user_name", "session_id", "claims_json", "rooms", "rooms_restricted", "transport", "namespace")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    USER_NAME_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_JSON_FIELD_NUMBER: _ClassVar[int]
    ROOMS_FIELD_NUMBER: _ClassVar[int]
    ROOMS_RESTRICTED_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user_id: str
    user_name: str
    session_id: str
    claims_json: bytes
    rooms: _containers.RepeatedScalarFieldContainer[str]
    rooms_restricted: bool
    transport: _catalog_pb2.Transport
    namespace: str
    def __init__(self, tenant: _Optional[str] = ..., user_id: _Optional[str] = ..., user_name: _Optional[str] = ..., session_id: _Optional[str] = ..., claims_json: _Optional[bytes] = ..., rooms: _Optional[_Iterable[str]] = ..., rooms_restricted: bool = ..., transport: _Optional[_Union[_catalog_pb2.Transport, str]] = ..., namespace: _Optional[str] = ...) -> None: ...

class GetHistoryRequest(_message.Message):
    __slots__ = ("tenant", "room", "limit", "before")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    room: str
    limit: int
    before: str
    def __init__(self, tenant: _Optional[str] = ..., room: _Optional[str] = ..., limit: _Optional[int] = ..., before: _Optional[str] = ...) -> None: ...

class GetHistoryResponse(_message.Message):
    __slots__ = ("events", "next", "more")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    next: str
    more: bool
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., next: _Optional[str] = ..., more: bool = ...) -> None: ...

class RemoveFromRoomRequest(_message.Message):
    __slots__ = ("tenant", "user_id", "room")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user_id: str
    room: str
    def __init__(self, tenant: _Optional[str] = ..., user_id: _Optional[str] = ..., room: _Optional[str] = ...) -> None: ...

class RemoveFromRoomResponse(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: int
    def __init__(self, sessions: _Optional[int] = ...) -> None: ...
