// Made by `fanfare types --package todo.v1`. Do not edit: change the catalog and run it again.

/** What the server sends over Socket.IO, for `Socket<ServerToClientEvents, ClientToServerEvents>`. Stored events have their cursor behind the payload. */
export interface ServerToClientEvents {
  /**
   * A request of the user failed. To that user; never stored.
   *
   * A call failed that has no callback, or the session is ended for good.
   */
  error: (event: Error | Failure) => void;
  /**
   * The answer to `join`, to the caller alone; never stored. It declares no rooms: a
   * producer that sends it names them in `target.rooms`.
   */
  joined: (event: Joined) => void;
  /** An item was completed. To its owner. */
  "todo:completed": (event: Completed, cursor: string) => void;
  /** An item was created. To its owner. */
  "todo:created": (event: Created, cursor: string) => void;
  /** An item was deleted. To its owner. */
  "todo:deleted": (event: Deleted, cursor: string) => void;
  /** An item was changed. To its owner. */
  "todo:updated": (event: Updated, cursor: string) => void;
}

/** What browsers may emit over Socket.IO. */
export interface ClientToServerEvents {
  /** Answered by the event `joined` and, if a callback is given, by the same as acknowledgement. */
  join: (request?: JoinRequest, acknowledge?: (answer: Answer<Joined>) => void) => void;
}

/** What `/ws`, `/events` and `/poll` send: an event's name as `type`, and its payload beside it. With `after` in the query of `/ws`, stored events have a `cursor`. */
export type WebSocketEvents =
  /** A request of the user failed. To that user; never stored. */
  | ({ type: "error" } & Error)
  /**
   * The answer to `join`, to the caller alone; never stored. It declares no rooms: a
   * producer that sends it names them in `target.rooms`.
   */
  | ({ type: "joined" } & Joined)
  /** An item was completed. To its owner. */
  | ({ type: "todo:completed"; cursor?: string } & Completed)
  /** An item was created. To its owner. */
  | ({ type: "todo:created"; cursor?: string } & Created)
  /** An item was deleted. To its owner. */
  | ({ type: "todo:deleted"; cursor?: string } & Deleted)
  /** An item was changed. To its owner. */
  | ({ type: "todo:updated"; cursor?: string } & Updated)
  | { type: "ack"; ref: number; data: Joined }
  | { type: "reset"; cursor: string }
  /** A stream of `/events` ends and `EventSource` comes back by itself: close it when the reason is final. */
  | ({ type: "end" } & Failure)
  | ({ type: "error"; ref?: number } & Failure);

/** What browsers may send over `/ws`. A call with a `ref` is answered by `ack` or `error` with the same `ref`. */
export type WebSocketCalls =
  /** Answered by the event `joined` and, if a callback is given, by the same as acknowledgement. */
  | ({ type: "join"; ref?: number })
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

/** An item was completed. To its owner. */
export interface Completed {
  /** The item's id. */
  id: string;
  /** The item's one-line text. */
  title: string;
  /** More about it, if its owner wrote more. */
  description?: string;
  /** Whether it is done. */
  completed: boolean;
  /** How urgent its owner finds it. */
  priority: Priority;
  /** By when it is to be done. */
  dueDate?: string;
  /** The owner, who gets the event. */
  userId: string;
  /** When the item was created. */
  createdAt?: string;
  /** When it was last changed; equal to createdAt in a new item. */
  updatedAt?: string;
}

/** An item was created. To its owner. */
export interface Created {
  /** The item's id. */
  id: string;
  /** The item's one-line text. */
  title: string;
  /** More about it, if its owner wrote more. */
  description?: string;
  /** Whether it is done. */
  completed: boolean;
  /** How urgent its owner finds it. */
  priority: Priority;
  /** By when it is to be done. */
  dueDate?: string;
  /** The owner, who gets the event. */
  userId: string;
  /** When the item was created. */
  createdAt?: string;
  /** When it was last changed; equal to createdAt in a new item. */
  updatedAt?: string;
}

/** An item was deleted. To its owner. */
export interface Deleted {
  /** The id of the item that is gone. */
  id: string;
}

/** A request of the user failed. To that user; never stored. */
export interface Error {
  /** What went wrong, for display. */
  message: string;
  /** A stable word for programs, e.g. "not_found". */
  code?: string;
}

/** `join` has no payload. */
export type JoinRequest = { [key: string]: never };

/**
 * The answer to `join`, to the caller alone; never stored. It declares no rooms: a
 * producer that sends it names them in `target.rooms`.
 */
export interface Joined {
  /** The greeting, for display. */
  message: string;
  /** The caller, as the token names them. */
  user?: User;
}

/** How urgent an item is. */
export type Priority =
  | "low"
  | "medium"
  | "high";

/** An item was changed. To its owner. */
export interface Updated {
  /** The item's id. */
  id: string;
  /** The item's one-line text. */
  title: string;
  /** More about it, if its owner wrote more. */
  description?: string;
  /** Whether it is done. */
  completed: boolean;
  /** How urgent its owner finds it. */
  priority: Priority;
  /** By when it is to be done. */
  dueDate?: string;
  /** The owner, who gets the event. */
  userId: string;
  /** When the item was created. */
  createdAt?: string;
  /** When it was last changed; equal to createdAt in a new item. */
  updatedAt?: string;
}

/** The caller. */
export interface User {
  /** The user's id. */
  id: string;
  /** The user's name. */
  username: string;
  /** The token's claim `email`. */
  email: string;
}
