from fanfare.v1 import catalog_pb2 as _catalog_pb2
from fanfare.v1 import realtime_pb2 as _realtime_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Channel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANNEL_UNSPECIFIED: _ClassVar[Channel]
    CHANNEL_WHATSAPP: _ClassVar[Channel]
    CHANNEL_WABA: _ClassVar[Channel]
    CHANNEL_TELEGRAM: _ClassVar[Channel]

class ChatStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHAT_STATUS_UNSPECIFIED: _ClassVar[ChatStatus]
    CHAT_STATUS_NEW: _ClassVar[ChatStatus]
    CHAT_STATUS_OPEN: _ClassVar[ChatStatus]
    CHAT_STATUS_PENDING: _ClassVar[ChatStatus]
    CHAT_STATUS_CLOSED: _ClassVar[ChatStatus]

class MessageStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MESSAGE_STATUS_UNSPECIFIED: _ClassVar[MessageStatus]
    MESSAGE_STATUS_PENDING: _ClassVar[MessageStatus]
    MESSAGE_STATUS_SENT: _ClassVar[MessageStatus]
    MESSAGE_STATUS_DELIVERED: _ClassVar[MessageStatus]
    MESSAGE_STATUS_READ: _ClassVar[MessageStatus]
    MESSAGE_STATUS_FAILED: _ClassVar[MessageStatus]
CHANNEL_UNSPECIFIED: Channel
CHANNEL_WHATSAPP: Channel
CHANNEL_WABA: Channel
CHANNEL_TELEGRAM: Channel
CHAT_STATUS_UNSPECIFIED: ChatStatus
CHAT_STATUS_NEW: ChatStatus
CHAT_STATUS_OPEN: ChatStatus
CHAT_STATUS_PENDING: ChatStatus
CHAT_STATUS_CLOSED: ChatStatus
MESSAGE_STATUS_UNSPECIFIED: MessageStatus
MESSAGE_STATUS_PENDING: MessageStatus
MESSAGE_STATUS_SENT: MessageStatus
MESSAGE_STATUS_DELIVERED: MessageStatus
MESSAGE_STATUS_READ: MessageStatus
MESSAGE_STATUS_FAILED: MessageStatus

class SendMessageRequest(_message.Message):
    __slots__ = ("chat_id", "text", "client_message_id", "media", "template")
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    chat_id: int
    text: str
    client_message_id: str
    media: MediaReference
    template: Template
    def __init__(self, chat_id: _Optional[int] = ..., text: _Optional[str] = ..., client_message_id: _Optional[str] = ..., media: _Optional[_Union[MediaReference, _Mapping]] = ..., template: _Optional[_Union[Template, _Mapping]] = ...) -> None: ...

class MediaReference(_message.Message):
    __slots__ = ("url", "type", "file_name")
    URL_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    url: str
    type: str
    file_name: str
    def __init__(self, url: _Optional[str] = ..., type: _Optional[str] = ..., file_name: _Optional[str] = ...) -> None: ...

class Template(_message.Message):
    __slots__ = ("name", "language", "parameters")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    language: str
    parameters: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., language: _Optional[str] = ..., parameters: _Optional[_Iterable[str]] = ...) -> None: ...

class SendMessageResponse(_message.Message):
    __slots__ = ("chat_id", "message_id", "client_message_id", "duplicate")
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    chat_id: int
    message_id: int
    client_message_id: str
    duplicate: bool
    def __init__(self, chat_id: _Optional[int] = ..., message_id: _Optional[int] = ..., client_message_id: _Optional[str] = ..., duplicate: bool = ...) -> None: ...

class ChatRef(_message.Message):
    __slots__ = ("chat_id",)
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    chat_id: int
    def __init__(self, chat_id: _Optional[int] = ...) -> None: ...

class GetMessagesRequest(_message.Message):
    __slots__ = ("chat_id", "limit", "before")
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    chat_id: int
    limit: int
    before: str
    def __init__(self, chat_id: _Optional[int] = ..., limit: _Optional[int] = ..., before: _Optional[str] = ...) -> None: ...

class MessageHistory(_message.Message):
    __slots__ = ("chat_id", "messages", "next")
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    chat_id: int
    messages: _containers.RepeatedCompositeFieldContainer[NewMessage]
    next: str
    def __init__(self, chat_id: _Optional[int] = ..., messages: _Optional[_Iterable[_Union[NewMessage, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class NewChat(_message.Message):
    __slots__ = ("id", "name", "channel", "status", "priority", "external_id", "assigned_user_id", "created_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_ID_FIELD_NUMBER: _ClassVar[int]
    ASSIGNED_USER_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    channel: Channel
    status: ChatStatus
    priority: str
    external_id: str
    assigned_user_id: int
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., channel: _Optional[_Union[Channel, str]] = ..., status: _Optional[_Union[ChatStatus, str]] = ..., priority: _Optional[str] = ..., external_id: _Optional[str] = ..., assigned_user_id: _Optional[int] = ..., created_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class NewMessage(_message.Message):
    __slots__ = ("id", "chat_id", "content", "from_me", "timestamp", "channel", "sender_user_id", "sender_name", "media_url", "media_type")
    ID_FIELD_NUMBER: _ClassVar[int]
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    FROM_ME_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    SENDER_USER_ID_FIELD_NUMBER: _ClassVar[int]
    SENDER_NAME_FIELD_NUMBER: _ClassVar[int]
    MEDIA_URL_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    id: int
    chat_id: int
    content: str
    from_me: bool
    timestamp: _timestamp_pb2.Timestamp
    channel: Channel
    sender_user_id: int
    sender_name: str
    media_url: str
    media_type: str
    def __init__(self, id: _Optional[int] = ..., chat_id: _Optional[int] = ..., content: _Optional[str] = ..., from_me: bool = ..., timestamp: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., channel: _Optional[_Union[Channel, str]] = ..., sender_user_id: _Optional[int] = ..., sender_name: _Optional[str] = ..., media_url: _Optional[str] = ..., media_type: _Optional[str] = ...) -> None: ...

class ChatUpdated(_message.Message):
    __slots__ = ("id", "status", "priority", "assigned_user_id", "unread_count", "last_message_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    ASSIGNED_USER_ID_FIELD_NUMBER: _ClassVar[int]
    UNREAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_MESSAGE_AT_FIELD_NUMBER: _ClassVar[int]
    id: int
    status: ChatStatus
    priority: str
    assigned_user_id: int
    unread_count: int
    last_message_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[int] = ..., status: _Optional[_Union[ChatStatus, str]] = ..., priority: _Optional[str] = ..., assigned_user_id: _Optional[int] = ..., unread_count: _Optional[int] = ..., last_message_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class MessagesRead(_message.Message):
    __slots__ = ("chat_id", "read_by_user_id")
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    READ_BY_USER_ID_FIELD_NUMBER: _ClassVar[int]
    chat_id: int
    read_by_user_id: int
    def __init__(self, chat_id: _Optional[int] = ..., read_by_user_id: _Optional[int] = ...) -> None: ...

class MessageStatusChanged(_message.Message):
    __slots__ = ("message_id", "status", "chat_id", "error")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    message_id: int
    status: MessageStatus
    chat_id: int
    error: str
    def __init__(self, message_id: _Optional[int] = ..., status: _Optional[_Union[MessageStatus, str]] = ..., chat_id: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class MessageEdited(_message.Message):
    __slots__ = ("message_id", "chat_id", "content", "edited_at")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    EDITED_AT_FIELD_NUMBER: _ClassVar[int]
    message_id: int
    chat_id: int
    content: str
    edited_at: _timestamp_pb2.Timestamp
    def __init__(self, message_id: _Optional[int] = ..., chat_id: _Optional[int] = ..., content: _Optional[str] = ..., edited_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ChatDeleted(_message.Message):
    __slots__ = ("chat_id",)
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    chat_id: int
    def __init__(self, chat_id: _Optional[int] = ...) -> None: ...

class UserNotification(_message.Message):
    __slots__ = ("user_id", "type", "message", "data")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    type: str
    message: str
    data: _struct_pb2.Struct
    def __init__(self, user_id: _Optional[str] = ..., type: _Optional[str] = ..., message: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class TypingStart(_message.Message):
    __slots__ = ("chat_id", "user_id")
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    chat_id: int
    user_id: str
    def __init__(self, chat_id: _Optional[int] = ..., user_id: _Optional[str] = ...) -> None: ...

class TypingStop(_message.Message):
    __slots__ = ("chat_id", "user_id")
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    chat_id: int
    user_id: str
    def __init__(self, chat_id: _Optional[int] = ..., user_id: _Optional[str] = ...) -> None: ...

class OperatorJoined(_message.Message):
    __slots__ = ("chat_id", "user_id")
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    chat_id: int
    user_id: str
    def __init__(self, chat_id: _Optional[int] = ..., user_id: _Optional[str] = ...) -> None: ...

class OperatorLeft(_message.Message):
    __slots__ = ("chat_id", "user_id")
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    chat_id: int
    user_id: str
    def __init__(self, chat_id: _Optional[int] = ..., user_id: _Optional[str] = ...) -> None: ...

class UserOnline(_message.Message):
    __slots__ = ("user_id",)
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    def __init__(self, user_id: _Optional[str] = ...) -> None: ...

class UserOffline(_message.Message):
    __slots__ = ("user_id",)
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    def __init__(self, user_id: _Optional[str] = ...) -> None: ...

class NotifyNewChatRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: NewChat
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[NewChat, _Mapping]] = ...) -> None: ...

class NotifyNewMessageRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: NewMessage
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[NewMessage, _Mapping]] = ...) -> None: ...

class NotifyChatUpdatedRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: ChatUpdated
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[ChatUpdated, _Mapping]] = ...) -> None: ...

class NotifyMessagesReadRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: MessagesRead
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[MessagesRead, _Mapping]] = ...) -> None: ...

class NotifyMessageEditedRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: MessageEdited
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[MessageEdited, _Mapping]] = ...) -> None: ...

class NotifyMessageStatusRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: MessageStatusChanged
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[MessageStatusChanged, _Mapping]] = ...) -> None: ...

class NotifyChatDeletedRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: ChatDeleted
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[ChatDeleted, _Mapping]] = ...) -> None: ...

class NotifyUserRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: UserNotification
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[UserNotification, _Mapping]] = ...) -> None: ...

class BroadcastToOrganizationRequest(_message.Message):
    __slots__ = ("target", "new_chat", "new_message", "chat_updated", "messages_read", "message_status_changed", "chat_deleted", "user_notification", "typing_start", "typing_stop", "operator_joined", "operator_left", "user_online", "user_offline", "message_edited")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    NEW_CHAT_FIELD_NUMBER: _ClassVar[int]
    NEW_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CHAT_UPDATED_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_READ_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_STATUS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    CHAT_DELETED_FIELD_NUMBER: _ClassVar[int]
    USER_NOTIFICATION_FIELD_NUMBER: _ClassVar[int]
    TYPING_START_FIELD_NUMBER: _ClassVar[int]
    TYPING_STOP_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_JOINED_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_LEFT_FIELD_NUMBER: _ClassVar[int]
    USER_ONLINE_FIELD_NUMBER: _ClassVar[int]
    USER_OFFLINE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_EDITED_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    new_chat: NewChat
    new_message: NewMessage
    chat_updated: ChatUpdated
    messages_read: MessagesRead
    message_status_changed: MessageStatusChanged
    chat_deleted: ChatDeleted
    user_notification: UserNotification
    typing_start: TypingStart
    typing_stop: TypingStop
    operator_joined: OperatorJoined
    operator_left: OperatorLeft
    user_online: UserOnline
    user_offline: UserOffline
    message_edited: MessageEdited
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., new_chat: _Optional[_Union[NewChat, _Mapping]] = ..., new_message: _Optional[_Union[NewMessage, _Mapping]] = ..., chat_updated: _Optional[_Union[ChatUpdated, _Mapping]] = ..., messages_read: _Optional[_Union[MessagesRead, _Mapping]] = ..., message_status_changed: _Optional[_Union[MessageStatusChanged, _Mapping]] = ..., chat_deleted: _Optional[_Union[ChatDeleted, _Mapping]] = ..., user_notification: _Optional[_Union[UserNotification, _Mapping]] = ..., typing_start: _Optional[_Union[TypingStart, _Mapping]] = ..., typing_stop: _Optional[_Union[TypingStop, _Mapping]] = ..., operator_joined: _Optional[_Union[OperatorJoined, _Mapping]] = ..., operator_left: _Optional[_Union[OperatorLeft, _Mapping]] = ..., user_online: _Optional[_Union[UserOnline, _Mapping]] = ..., user_offline: _Optional[_Union[UserOffline, _Mapping]] = ..., message_edited: _Optional[_Union[MessageEdited, _Mapping]] = ...) -> None: ...

class NotifyTypingStartRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: TypingStart
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[TypingStart, _Mapping]] = ...) -> None: ...

class NotifyTypingStopRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: TypingStop
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[TypingStop, _Mapping]] = ...) -> None: ...

class NotifyOperatorJoinedRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: OperatorJoined
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[OperatorJoined, _Mapping]] = ...) -> None: ...

class NotifyOperatorLeftRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: OperatorLeft
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[OperatorLeft, _Mapping]] = ...) -> None: ...

class NotifyUserOnlineRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: UserOnline
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[UserOnline, _Mapping]] = ...) -> None: ...

class NotifyUserOfflineRequest(_message.Message):
    __slots__ = ("target", "event")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    target: _realtime_pb2.Target
    event: UserOffline
    def __init__(self, target: _Optional[_Union[_realtime_pb2.Target, _Mapping]] = ..., event: _Optional[_Union[UserOffline, _Mapping]] = ...) -> None: ...

class MessengerEvent(_message.Message):
    __slots__ = ("meta", "new_chat", "new_message", "chat_updated", "messages_read", "message_status_changed", "chat_deleted", "user_notification", "typing_start", "typing_stop", "operator_joined", "operator_left", "user_online", "user_offline", "message_edited")
    META_FIELD_NUMBER: _ClassVar[int]
    NEW_CHAT_FIELD_NUMBER: _ClassVar[int]
    NEW_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CHAT_UPDATED_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_READ_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_STATUS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    CHAT_DELETED_FIELD_NUMBER: _ClassVar[int]
    USER_NOTIFICATION_FIELD_NUMBER: _ClassVar[int]
    TYPING_START_FIELD_NUMBER: _ClassVar[int]
    TYPING_STOP_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_JOINED_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_LEFT_FIELD_NUMBER: _ClassVar[int]
    USER_ONLINE_FIELD_NUMBER: _ClassVar[int]
    USER_OFFLINE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_EDITED_FIELD_NUMBER: _ClassVar[int]
    meta: _realtime_pb2.Event
    new_chat: NewChat
    new_message: NewMessage
    chat_updated: ChatUpdated
    messages_read: MessagesRead
    message_status_changed: MessageStatusChanged
    chat_deleted: ChatDeleted
    user_notification: UserNotification
    typing_start: TypingStart
    typing_stop: TypingStop
    operator_joined: OperatorJoined
    operator_left: OperatorLeft
    user_online: UserOnline
    user_offline: UserOffline
    message_edited: MessageEdited
    def __init__(self, meta: _Optional[_Union[_realtime_pb2.Event, _Mapping]] = ..., new_chat: _Optional[_Union[NewChat, _Mapping]] = ..., new_message: _Optional[_Union[NewMessage, _Mapping]] = ..., chat_updated: _Optional[_Union[ChatUpdated, _Mapping]] = ..., messages_read: _Optional[_Union[MessagesRead, _Mapping]] = ..., message_status_changed: _Optional[_Union[MessageStatusChanged, _Mapping]] = ..., chat_deleted: _Optional[_Union[ChatDeleted, _Mapping]] = ..., user_notification: _Optional[_Union[UserNotification, _Mapping]] = ..., typing_start: _Optional[_Union[TypingStart, _Mapping]] = ..., typing_stop: _Optional[_Union[TypingStop, _Mapping]] = ..., operator_joined: _Optional[_Union[OperatorJoined, _Mapping]] = ..., operator_left: _Optional[_Union[OperatorLeft, _Mapping]] = ..., user_online: _Optional[_Union[UserOnline, _Mapping]] = ..., user_offline: _Optional[_Union[UserOffline, _Mapping]] = ..., message_edited: _Optional[_Union[MessageEdited, _Mapping]] = ...) -> None: ...
