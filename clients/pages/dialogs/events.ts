// Made by `fanfare types --package dialogs.v1`. Do not edit: change the catalog and run it again.

/** What the server sends over Socket.IO, for `Socket<ServerToClientEvents, ClientToServerEvents>`. Stored events have their cursor behind the payload. */
export interface ServerToClientEvents {
  /** A call failed that has no callback, or the session is ended for good. */
  error: (event: Failure) => void;
}

/** What browsers may emit over Socket.IO. */
export interface ClientToServerEvents {
}

/** What `/ws`, `/events` and `/poll` send: an event's name as `type`, and its payload beside it. With `after` in the query of `/ws`, stored events have a `cursor`. */
export type WebSocketEvents =
  /** The connection is ready. To the session alone when it connects; never stored. */
  | ({ type: "connected"; cursor?: string } & Connected)
  /** A dialog changed; only what changed is set. To the user. */
  | ({ type: "dialog_update"; cursor?: string } & DialogUpdate)
  /** A message came into a dialog. To the user. */
  | ({ type: "new_message"; cursor?: string } & NewMessage)
  /** The answer to a ping. To the user; never stored. */
  | ({ type: "pong" } & Pong)
  /**
   * The subscription is in force: of one dialog, or of all when none is named. To the user;
   * never stored.
   */
  | ({ type: "subscribed" } & Subscribed)
  | { type: "ack"; ref: number; data: Pong | Subscribed }
  | { type: "reset"; cursor: string }
  /** A stream of `/events` ends and `EventSource` comes back by itself: close it when the reason is final. */
  | ({ type: "end" } & Failure)
  | ({ type: "error"; ref?: number } & Failure);

/** What browsers may send over `/ws`. A call with a `ref` is answered by `ack` or `error` with the same `ref`. */
export type WebSocketCalls =
  /** Answered by `pong`. */
  | ({ type: "ping"; ref?: number })
  /**
   * Answered by `subscribed`. A session gets the events of all of its user's dialogs from the start; this confirms
   * it, for one dialog or for all.
   */
  | ({ type: "subscribe"; ref?: number } & SubscribeDialogRequest)
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

/** The connection is ready. To the session alone when it connects; never stored. */
export interface Connected {
  /** The user whose connection it is, who gets it. */
  userId: string;
}

/** A dialog; besides id and updatedAt only what changed is set. */
export interface Dialog {
  /** The dialog's id. */
  id: string;
  /** The product's own word; not interpreted. */
  status?: string;
  /** Messages the user has not read; 0 when all are. */
  unreadCount?: number;
  /** The text of its newest message. */
  lastMessage?: string;
  /** When the dialog changed. */
  updatedAt?: string;
}

/** A dialog changed; only what changed is set. To the user. */
export interface DialogUpdate {
  /** What changed, and of which dialog. */
  dialog?: Dialog;
}

/** A message of a dialog. */
export interface Message {
  /** The message's id. */
  id: string;
  /** What was written. */
  text: string;
  /** Who wrote it. */
  from: string;
  /** When it was written. */
  createdAt?: string;
}

/** A message came into a dialog. To the user. */
export interface NewMessage {
  /** The dialog it came into. */
  dialogId: string;
  /** The message. */
  message?: Message;
}

/** `ping` has no fields. */
export type PingRequest = { [key: string]: never };

/** The answer to a ping. To the user; never stored. */
export interface Pong {
  /** When the ping was answered. */
  timestamp?: string;
}

/** What to follow. */
export interface SubscribeDialogRequest {
  /** The dialog. Absent: all dialogs of the user. */
  dialogId?: string;
}

/**
 * The subscription is in force: of one dialog, or of all when none is named. To the user;
 * never stored.
 */
export interface Subscribed {
  /** The dialog. Absent: all dialogs of the user. */
  dialogId?: string;
}
