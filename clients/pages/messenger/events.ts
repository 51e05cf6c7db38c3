// Made by `fanfare types --package messenger.v1`. Do not edit: change the catalog and run it again.

/** What the server sends over Socket.IO, for `Socket<ServerToClientEvents, ClientToServerEvents>`. Stored events have their cursor behind the payload. */
export interface ServerToClientEvents {
  /** A chat was deleted. To the organization. */
  "chat:deleted": (event: ChatDeleted, cursor: string) => void;
  /** A chat was created. To the organization. */
  "chat:new": (event: NewChat, cursor: string) => void;
  /** Something about a chat changed; only what changed is set. To the organization. */
  "chat:updated": (event: ChatUpdated, cursor: string) => void;
  /** A call failed that has no callback, or the session is ended for good. */
  error: (event: Failure) => void;
  /** The customer changed the text of a message. To the organization and the chat. */
  "message:edited": (event: MessageEdited, cursor: string) => void;
  /** A message came in or went out. To the organization and the chat, once a session. */
  "message:new": (event: NewMessage, cursor: string) => void;
  /** The delivery status of a message changed. To the organization and the chat. */
  "message:status": (event: MessageStatusChanged, cursor: string) => void;
  /** Messages of a chat were read. To the organization. */
  "messages:read": (event: MessagesRead, cursor: string) => void;
  /** An operator opened a chat. To the chat. */
  "operator:joined": (event: OperatorJoined, cursor: string) => void;
  /** An operator left a chat. To the chat. */
  "operator:left": (event: OperatorLeft, cursor: string) => void;
  /**
   * Another operator types. To the chat, never stored. A producer keeps it from the one who
   * types by naming their sessions in `target.except_sessions`.
   */
  "typing:start": (event: TypingStart) => void;
  /** The operator stopped typing. To the chat like typing:start, never stored. */
  "typing:stop": (event: TypingStop) => void;
  /** A personal notice. To that user alone. */
  "user:notification": (event: UserNotification, cursor: string) => void;
  /** An operator's last session closed. To the organization. */
  "user:offline": (event: UserOffline, cursor: string) => void;
  /** An operator's first session opened. To the organization. */
  "user:online": (event: UserOnline, cursor: string) => void;
}

/** What browsers may emit over Socket.IO. */
export interface ClientToServerEvents {
  /** A page of the chat's messages, the newest first. */
  "message:history": (request: GetMessagesRequest, acknowledge?: (answer: Answer<MessageHistory>) => void) => void;
  /**
   * Sends a message to the customer of a chat. The service of the channels does it: without the server's setting
   * `--upstream channels=URL` the call is refused with FAILED_PRECONDITION. The acknowledgement means that the
   * message is stored for sending and is in the log as `message:new`. `message:status` says how far it comes.
   */
  "message:send": (request: SendMessageRequest, acknowledge?: (answer: Answer<SendMessageResponse>) => void) => void;
  /** Enters the room of a chat of the caller's own organization. */
  "subscribe:chat": (request: ChatRef, acknowledge?: (answer: Answer<ChatRef>) => void) => void;
  /** Tells the others in the chat that the caller types. */
  "typing:start": (request: ChatRef, acknowledge?: (answer: Answer<ChatRef>) => void) => void;
  /** Tells them that the caller has stopped. */
  "typing:stop": (request: ChatRef, acknowledge?: (answer: Answer<ChatRef>) => void) => void;
  /** Leaves it. */
  "unsubscribe:chat": (request: ChatRef, acknowledge?: (answer: Answer<ChatRef>) => void) => void;
}

/** What `/ws`, `/events` and `/poll` send: an event's name as `type`, and its payload beside it. With `after` in the query of `/ws`, stored events have a `cursor`. */
export type WebSocketEvents =
  /** A chat was deleted. To the organization. */
  | ({ type: "chat:deleted"; cursor?: string } & ChatDeleted)
  /** A chat was created. To the organization. */
  | ({ type: "chat:new"; cursor?: string } & NewChat)
  /** Something about a chat changed; only what changed is set. To the organization. */
  | ({ type: "chat:updated"; cursor?: string } & ChatUpdated)
  /** The customer changed the text of a message. To the organization and the chat. */
  | ({ type: "message:edited"; cursor?: string } & MessageEdited)
  /** A message came in or went out. To the organization and the chat, once a session. */
  | ({ type: "message:new"; cursor?: string } & NewMessage)
  /** The delivery status of a message changed. To the organization and the chat. */
  | ({ type: "message:status"; cursor?: string } & MessageStatusChanged)
  /** Messages of a chat were read. To the organization. */
  | ({ type: "messages:read"; cursor?: string } & MessagesRead)
  /** An operator opened a chat. To the chat. */
  | ({ type: "operator:joined"; cursor?: string } & OperatorJoined)
  /** An operator left a chat. To the chat. */
  | ({ type: "operator:left"; cursor?: string } & OperatorLeft)
  /**
   * Another operator types. To the chat, never stored. A producer keeps it from the one who
   * types by naming their sessions in `target.except_sessions`.
   */
  | ({ type: "typing:start" } & TypingStart)
  /** The operator stopped typing. To the chat like typing:start, never stored. */
  | ({ type: "typing:stop" } & TypingStop)
  /** A personal notice. To that user alone. */
  | { type: "user:notification"; cursor?: string; payload: UserNotification }
  /** An operator's last session closed. To the organization. */
  | ({ type: "user:offline"; cursor?: string } & UserOffline)
  /** An operator's first session opened. To the organization. */
  | ({ type: "user:online"; cursor?: string } & UserOnline)
  | { type: "ack"; ref: number; data: ChatRef | MessageHistory | SendMessageResponse }
  | { type: "reset"; cursor: string }
  /** A stream of `/events` ends and `EventSource` comes back by itself: close it when the reason is final. */
  | ({ type: "end" } & Failure)
  | ({ type: "error"; ref?: number } & Failure);

/** What browsers may send over `/ws`. A call with a `ref` is answered by `ack` or `error` with the same `ref`. */
export type WebSocketCalls =
  /** A page of the chat's messages, the newest first. */
  | ({ type: "message:history"; ref?: number } & GetMessagesRequest)
  /**
   * Sends a message to the customer of a chat. The service of the channels does it: without the server's setting
   * `--upstream channels=URL` the call is refused with FAILED_PRECONDITION. The acknowledgement means that the
   * message is stored for sending and is in the log as `message:new`. `message:status` says how far it comes.
   */
  | ({ type: "message:send"; ref?: number } & SendMessageRequest)
  /** Enters the room of a chat of the caller's own organization. */
  | ({ type: "subscribe:chat"; ref?: number } & ChatRef)
  /** Tells the others in the chat that the caller types. */
  | ({ type: "typing:start"; ref?: number } & ChatRef)
  /** Tells them that the caller has stopped. */
  | ({ type: "typing:stop"; ref?: number } & ChatRef)
  /** Leaves it. */
  | ({ type: "unsubscribe:chat"; ref?: number } & ChatRef)
  | { type: "auth"; token: string };

/** What a call is answered: its response, or why it was refused. */
export type Answer<T> = T | Refused;

/** The acknowledgement of a call that was refused. */
export interface Refused {
  error: Failure;
}

/** Why something was refused or ended. */
export interface Failure {
  /** For programs. */
  code: Code;
  /** For people. */
  message: string;
  /** The field that it is about, e.g. "chatId". */
  path?: string;
  /** When the same may be tried again. */
  retryAfterMs?: number;
}

/**
 * Calls whose acknowledgement is not optional: the types of socket.io-client see it only then in `emitWithAck` and after
 * `timeout`. E.g. `const asking: Socket<ServerToClientEvents, Acknowledged<ClientToServerEvents>> = socket`.
 */
export type Acknowledged<Calls> = {
  [Name in keyof Calls]: Calls[Name] extends (...parameters: infer P) => void ? (...parameters: Required<P>) => void : never;
};

/** Why something was refused or ended: below 2000 in `fanfare.v1.Reason` it may be tried again. */
export type Code =
  /** The process shuts down or drains; connect again, to any other. */
  | "shutdown"
  /** No server is reachable for the bridge, or the engine does not answer. */
  | "unavailable"
  /** The session or stream did not read fast enough. */
  | "slow"
  /** The log no longer reaches back to the cursor, or its epoch changed. */
  | "reset"
  /** A bound that frees itself was reached (rate, number of sessions). */
  | "limit"
  /** Something that should not happen; the log has the details. */
  | "internal"
  /** A step did not finish within its time. */
  | "timeout"
  /** An administrator asked the session to connect again. */
  | "reconnect"
  /** An upstream gave up because of something that happened at the same time. */
  | "aborted"
  /** No token was presented. */
  | "no_token"
  /** The token is malformed, forged, for another audience, or not yet valid. */
  | "invalid_token"
  /** The token has expired; come back with a new one. */
  | "token_expired"
  /** The token does not allow this. */
  | "forbidden"
  /** The request breaks a rule of the contract; the message says which. */
  | "invalid_argument"
  /** No catalog knows this event, method or type. */
  | "unknown_event"
  /** Larger than the configured bound. */
  | "too_large"
  /** Bytes that are not the protocol they claim to be. */
  | "protocol"
  /** No catalog is served in this Socket.IO namespace. There are "/" and one for each catalog. */
  | "invalid_namespace"
  /** An administrator ended the session. */
  | "disconnected"
  /** The session went on although it was told again and again that it exceeds a limit. */
  | "abuse"
  /** An upstream does not know what the call names. */
  | "not_found"
  /** An upstream says that the call makes no sense as things are. */
  | "failed_precondition"
  /** An upstream has what the call would make. */
  | "already_exists"
  /** An upstream does not implement the method. */
  | "unimplemented"
  /** The token was revoked by Admin.Revoke. */
  | "token_revoked"
  /** The state has another revision than the producer expects. Read it, and make another request. */
  | "revision";

/** Any JSON. */
export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;

/** Any JSON object. */
export interface JsonObject {
  [key: string]: JsonValue;
}

export type Channel =
  /** WhatsApp, linked by QR code. */
  | "whatsapp"
  /** WhatsApp Business API. */
  | "waba"
  | "telegram";

/** A chat was deleted. To the organization. */
export interface ChatDeleted {
  /** The chat that is gone. */
  chatId: number;
}

/** A chat of the caller's own organization; as response it repeats the request. */
export interface ChatRef {
  /** The chat's number within the organization. */
  chatId: number;
}

/** How far a chat is. */
export type ChatStatus =
  | "new"
  | "open"
  | "pending"
  | "closed";

/** Something about a chat changed; only what changed is set. To the organization. */
export interface ChatUpdated {
  /** The chat's number within the organization. */
  id: number;
  /** The new status. */
  status?: ChatStatus | "CHAT_STATUS_UNSPECIFIED";
  /** The new priority, in the product's own word. */
  priority?: string;
  /** The operator who answers for it now. */
  assignedUserId?: number;
  /** Messages that no operator has read; 0 when all are. */
  unreadCount?: number;
  /** When its newest message was written. */
  lastMessageAt?: string;
}

/** Where a chat's customer writes. */
export interface GetMessagesRequest {
  /** The chat's number within the organization. */
  chatId: number;
  /** At most so many messages: 1 to 200, absent means 50. */
  limit: number;
  /** `next` of the page before; absent: the newest messages. */
  before: string;
}

/** An attachment that the channel fetches or already has. */
export interface MediaReference {
  /** An `https` URL, or the reference that a `message:new` of the same channel had as `mediaUrl`, e.g. "telegram:AgACAgIA". */
  url: string;
  /** Its type, e.g. "image/png". It decides how the channel shows the attachment. */
  type: string;
  /** The file's name as the customer sees it. */
  fileName?: string;
}

/** The customer changed the text of a message. To the organization and the chat. */
export interface MessageEdited {
  /** The message's number. */
  messageId: number;
  /** The chat it belongs to, whose room gets the event. */
  chatId: number;
  /** The new text; empty for media without a caption. */
  content: string;
  /** When it was changed. */
  editedAt?: string;
}

/** Messages of a chat. */
export interface MessageHistory {
  chatId: number;
  /** The newest first. */
  messages: NewMessage[];
  /** Where the page of older messages begins; empty: there are none. */
  next: string;
}

/** How far a message has come to its reader. */
export type MessageStatus =
  /** Not yet taken by the channel. */
  | "pending"
  /** Taken by the channel. */
  | "sent"
  /** On the customer's device. */
  | "delivered"
  /** Read by the customer. */
  | "read"
  /** Given up. */
  | "failed";

/** The delivery status of a message changed. To the organization and the chat. */
export interface MessageStatusChanged {
  /** The message's number. */
  messageId: number;
  /** The new status. */
  status: MessageStatus;
  /** The chat it belongs to, whose room gets the event. */
  chatId: number;
  /** Why it failed, for operators. */
  error?: string;
}

/** Messages of a chat were read. To the organization. */
export interface MessagesRead {
  /** The chat whose messages were read. */
  chatId: number;
  /** The operator who read them. */
  readByUserId: number;
}

/** A chat was created. To the organization. */
export interface NewChat {
  /** The chat's number within the organization; what other events call chatId. */
  id: number;
  /** What operators see as its title, e.g. the customer's name. */
  name: string;
  /** Where the customer writes. */
  channel: Channel;
  /** How far the chat is. */
  status: ChatStatus;
  /** The product's own word, e.g. "high"; not interpreted. */
  priority?: string;
  /** The chat's id in its channel. */
  externalId?: string;
  /** The operator who answers for it. Absent: nobody yet. */
  assignedUserId?: number;
  /** When the chat was created. */
  createdAt?: string;
}

/** A message came in or went out. To the organization and the chat, once a session. */
export interface NewMessage {
  /** The message's number; what message:status calls messageId. */
  id: number;
  /** The chat it belongs to, whose room gets it. */
  chatId: number;
  /** The text; empty for media without a caption. */
  content: string;
  /** Written by an operator, not by the customer. */
  fromMe: boolean;
  /** When the message was written. */
  timestamp?: string;
  /** The chat's channel. */
  channel: Channel;
  /** The operator who wrote it. Absent: the customer did. */
  senderUserId?: number;
  /** The writer's name, for display. */
  senderName?: string;
  /** Where the attachment can be read. */
  mediaUrl?: string;
  /** The attachment's type in the product's own words, e.g. "image/png". */
  mediaType?: string;
}

/** An operator opened a chat. To the chat. */
export interface OperatorJoined {
  /** The chat, whose room gets it. */
  chatId: number;
  /** The operator. */
  userId: string;
}

/** An operator left a chat. To the chat. */
export interface OperatorLeft {
  /** The chat, whose room gets it. */
  chatId: number;
  /** The operator. */
  userId: string;
}

/** A message to the customer of a chat: a text, an attachment with the text as its caption, or a template. */
export interface SendMessageRequest {
  /** The chat's number within the organization. */
  chatId: number;
  /** At most 4096 characters, or 1024 as a caption. Empty where an attachment or a template stands alone. */
  text: string;
  /**
   * Names the message among those of this operator in this chat, e.g. a UUID: 1 to 128 bytes. Repeating a call with
   * the same value sends nothing again and gets the first answer.
   */
  clientMessageId: string;
  /** An attachment. */
  media?: MediaReference;
  /** A message that WhatsApp has approved, for customers who have not written for 24 hours. Channel `waba` only. */
  template?: Template;
}

/** The message is stored for sending and is in the log. */
export interface SendMessageResponse {
  /** The chat's number within the organization. */
  chatId: number;
  /** The message's number; what message:status calls messageId. */
  messageId: number;
  /** The value of the request. */
  clientMessageId: string;
  /** An earlier call with this client_message_id had stored it. */
  duplicate: boolean;
}

/** An approved message of the WhatsApp Business API. */
export interface Template {
  /** The template's name. */
  name: string;
  /** Its language, e.g. "en_US". */
  language: string;
  /** The texts of its body's placeholders, in order. At most 32. */
  parameters: string[];
}

/**
 * Another operator types. To the chat, never stored. A producer keeps it from the one who
 * types by naming their sessions in `target.except_sessions`.
 */
export interface TypingStart {
  /** The chat in which they type, whose room gets it. */
  chatId: number;
  /** The operator. */
  userId: string;
}

/** The operator stopped typing. To the chat like typing:start, never stored. */
export interface TypingStop {
  /** The chat in which they type, whose room gets it. */
  chatId: number;
  /** The operator. */
  userId: string;
}

/** A personal notice. To that user alone. */
export interface UserNotification {
  /** What kind of notice, in the product's own word, e.g. "info". */
  type: string;
  /** The notice's text. */
  message: string;
  /** Any JSON object. */
  data?: JsonObject;
}

/** An operator's last session closed. To the organization. */
export interface UserOffline {
  /** The operator. */
  userId: string;
}

/** An operator's first session opened. To the organization. */
export interface UserOnline {
  /** The operator. */
  userId: string;
}
