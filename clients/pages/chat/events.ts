// Made by `fanfare types --package chat.v1`. Do not edit: change the catalog and run it again.

/** What the server sends over Socket.IO, for `Socket<ServerToClientEvents, ClientToServerEvents>`. Stored events have their cursor behind the payload. */
export interface ServerToClientEvents {
  /** Who is online. To the user who asked; never stored. */
  active_users: (event: ActiveUsers) => void;
  /** Who is in a chat. To the user who asked; never stored. */
  chat_info: (event: ChatInfo) => void;
  /** The session is ready. To the session alone when it connects; never stored. */
  connected: (event: Connected) => void;
  /** A call failed that has no callback, or the session is ended for good. */
  error: (event: Failure) => void;
  /** The message is in. To its sender. */
  message_sent: (event: MessageSent, cursor?: string) => void;
  /** Messages were read. To the chat. */
  messages_read: (event: MessagesRead, cursor: string) => void;
  /** A message was written. To the chat and, where given, to the recipient, once a session. */
  new_message: (event: NewMessage, cursor: string) => void;
  /** The answer to a ping. To the user who asked; never stored. */
  pong: (event: Pong) => void;
  /** Somebody opened a chat. To the chat. */
  user_joined_chat: (event: UserJoinedChat, cursor: string) => void;
  /** Somebody left a chat. To the chat. */
  user_left_chat: (event: UserLeftChat, cursor: string) => void;
  /** A user's last session closed. To everybody in the tenant. */
  user_offline: (event: UserOffline, cursor: string) => void;
  /** A user's first session opened. To everybody in the tenant. */
  user_online: (event: UserOnline, cursor: string) => void;
}

/** What browsers may emit over Socket.IO. */
export interface ClientToServerEvents {
  /** Answered by `active_users`, as event and as acknowledgement. */
  get_active_users: (request?: GetActiveUsersRequest, acknowledge?: (answer: Answer<ActiveUsers>) => void) => void;
  /** A page of what happened in the chat, the newest first. */
  get_chat_history: (request: GetChatHistoryRequest, acknowledge?: (answer: Answer<ChatHistory>) => void) => void;
  /** Answered by `chat_info`, as event and as acknowledgement. */
  get_chat_info: (request: ChatRef, acknowledge?: (answer: Answer<ChatInfo>) => void) => void;
  /** Enters a chat's room. */
  join_chat: (request: ChatRef, acknowledge?: (answer: Answer<ChatRef>) => void) => void;
  /** Leaves it. */
  leave_chat: (request: ChatRef, acknowledge?: (answer: Answer<ChatRef>) => void) => void;
  /** Tells the chat, the caller too, what the caller has read. */
  mark_messages_read: (request: MarkMessagesReadRequest, acknowledge?: (answer: Answer<MessagesRead>) => void) => void;
  /** Answered by `pong`, as event and as acknowledgement. */
  ping: (request?: PingRequest, acknowledge?: (answer: Answer<Pong>) => void) => void;
  /**
   * Sends a message to the chat and, where given, to a recipient who may not be in it. Answered by
   * `message_sent`, as event and as acknowledgement.
   */
  send_message: (request: SendMessageRequest, acknowledge?: (answer: Answer<MessageSent>) => void) => void;
}

/** What `/ws`, `/events` and `/poll` send: an event's name as `type`, and its payload beside it. With `after` in the query of `/ws`, stored events have a `cursor`. */
export type WebSocketEvents =
  /** Who is online. To the user who asked; never stored. */
  | ({ type: "active_users" } & ActiveUsers)
  /** Who is in a chat. To the user who asked; never stored. */
  | ({ type: "chat_info" } & ChatInfo)
  /** The session is ready. To the session alone when it connects; never stored. */
  | ({ type: "connected"; cursor?: string } & Connected)
  /** The message is in. To its sender. */
  | ({ type: "message_sent"; cursor?: string } & MessageSent)
  /** Messages were read. To the chat. */
  | ({ type: "messages_read"; cursor?: string } & MessagesRead)
  /** A message was written. To the chat and, where given, to the recipient, once a session. */
  | ({ type: "new_message"; cursor?: string } & NewMessage)
  /** The answer to a ping. To the user who asked; never stored. */
  | ({ type: "pong" } & Pong)
  /** Somebody opened a chat. To the chat. */
  | ({ type: "user_joined_chat"; cursor?: string } & UserJoinedChat)
  /** Somebody left a chat. To the chat. */
  | ({ type: "user_left_chat"; cursor?: string } & UserLeftChat)
  /** A user's last session closed. To everybody in the tenant. */
  | ({ type: "user_offline"; cursor?: string } & UserOffline)
  /** A user's first session opened. To everybody in the tenant. */
  | ({ type: "user_online"; cursor?: string } & UserOnline)
  | { type: "ack"; ref: number; data: ActiveUsers | ChatHistory | ChatInfo | ChatRef | MessageSent | MessagesRead }
  | { type: "reset"; cursor: string }
  /** A stream of `/events` ends and `EventSource` comes back by itself: close it when the reason is final. */
  | ({ type: "end" } & Failure)
  | ({ type: "error"; ref?: number } & Failure);

/** What browsers may send over `/ws`. A call with a `ref` is answered by `ack` or `error` with the same `ref`. */
export type WebSocketCalls =
  /** Answered by `active_users`, as event and as acknowledgement. */
  | ({ type: "get_active_users"; ref?: number })
  /** A page of what happened in the chat, the newest first. */
  | ({ type: "get_chat_history"; ref?: number } & GetChatHistoryRequest)
  /** Answered by `chat_info`, as event and as acknowledgement. */
  | ({ type: "get_chat_info"; ref?: number } & ChatRef)
  /** Enters a chat's room. */
  | ({ type: "join_chat"; ref?: number } & ChatRef)
  /** Leaves it. */
  | ({ type: "leave_chat"; ref?: number } & ChatRef)
  /** Tells the chat, the caller too, what the caller has read. */
  | ({ type: "mark_messages_read"; ref?: number } & MarkMessagesReadRequest)
  /**
   * Sends a message to the chat and, where given, to a recipient who may not be in it. Answered by
   * `message_sent`, as event and as acknowledgement.
   */
  | ({ type: "send_message"; ref?: number } & SendMessageRequest)
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

/** Somebody who is online. */
export interface ActiveUser {
  /** The user's id. */
  userId: string;
  /** The user's name, where known. */
  name?: string;
}

/** Who is online. To the user who asked; never stored. */
export interface ActiveUsers {
  /** Each user with at least one session, once. */
  users: ActiveUser[];
}

/** A stored event of a chat. */
export type ChatEntry = {
  /** The event's id. */
  id: string;
  /** When the server accepted it. */
  time?: string;
} & (
  | {
      newMessage: NewMessage;
      messagesRead?: never;
    }
  | {
      newMessage?: never;
      messagesRead: MessagesRead;
    }
  | { newMessage?: never; messagesRead?: never }
);

/** What happened in a chat. */
export interface ChatHistory {
  chatId: string;
  /** The newest first. */
  entries: ChatEntry[];
  /** Where the page of older entries begins; empty: there are none. */
  next: string;
  /** There may be older entries. */
  more: boolean;
}

/** Who is in a chat. To the user who asked; never stored. */
export interface ChatInfo {
  /** The chat that was asked about. */
  chatId: string;
  /** Each member once. */
  members: Member[];
}

/** A chat of the caller's own tenant; as response it repeats the request. */
export interface ChatRef {
  /** The chat's id. */
  chatId: string;
}

/** The session is ready. To the session alone when it connects; never stored. */
export interface Connected {
  /** The user whose session it is, who gets it. */
  userId: string;
  /** The session's id, as `Target.except_sessions` names it. */
  sessionId: string;
}

/** `get_active_users` has no fields. */
export type GetActiveUsersRequest = { [key: string]: never };

export interface GetChatHistoryRequest {
  /** The chat's id. */
  chatId: string;
  /** At most so many entries: 1 to 200, absent means 50. */
  limit: number;
  /** `next` of the page before; absent: the newest entries. */
  before: string;
}

/** Messages that the caller has read. */
export interface MarkMessagesReadRequest {
  /** The chat they were written in. */
  chatId: string;
  /** Their ids. */
  messageIds: string[];
}

/** Somebody in a chat. */
export interface Member {
  /** The member's id. */
  userId: string;
  /** The member's name, where known. */
  name?: string;
  /** Whether the member has a session now; somebody who was cut off a moment ago may have none. */
  online: boolean;
}

/** The message is in. To its sender. */
export interface MessageSent {
  /** The message's id, as in its new_message. */
  id: string;
  /** The chat it was written in. */
  chatId: string;
  /** What the sender called it before it had an id. */
  clientMessageId?: string;
  /** When it was accepted, as in its new_message. */
  timestamp?: string;
}

/** Messages were read. To the chat. */
export interface MessagesRead {
  /** The chat, whose room gets it. */
  chatId: string;
  /** The messages' ids; an empty list stays a list in JSON. */
  messageIds: string[];
  /** Who read them. */
  readBy: string;
  /** When they were read. */
  timestamp?: string;
}

/** A message was written. To the chat and, where given, to the recipient, once a session. */
export interface NewMessage {
  /** The message's id; what messages_read lists in messageIds. */
  id: string;
  /** The chat it was written in, whose room gets it. */
  chatId: string;
  /** Who wrote it. */
  senderId: string;
  /** The writer's name, for display. */
  senderName?: string;
  /** What was written. */
  content: string;
  /** When it was accepted. */
  timestamp?: string;
}

/** `ping` has no fields. */
export type PingRequest = { [key: string]: never };

/** The answer to a ping. To the user who asked; never stored. */
export interface Pong {
  /** When the ping was answered. */
  timestamp?: string;
}

/** A message to be sent. Who sends it says the token. */
export interface SendMessageRequest {
  /** The chat. */
  chatId: string;
  /** What is written. */
  content: string;
  /** A user who gets it although they may not be in the chat. */
  recipientId?: string;
  /** What the sender calls it until it has an id; message_sent gives it back. */
  clientMessageId?: string;
}

/** Somebody opened a chat. To the chat. */
export interface UserJoinedChat {
  /** The chat, whose room gets it. */
  chatId: string;
  /** Who did. */
  userId: string;
}

/** Somebody left a chat. To the chat. */
export interface UserLeftChat {
  /** The chat, whose room gets it. */
  chatId: string;
  /** Who did. */
  userId: string;
}

/** A user's last session closed. To everybody in the tenant. */
export interface UserOffline {
  /** Whose session it was. */
  userId: string;
  /** When that session closed. */
  lastSeen?: string;
}

/** A user's first session opened. To everybody in the tenant. */
export interface UserOnline {
  /** Whose session it was. */
  userId: string;
}
