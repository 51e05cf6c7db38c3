// Fanfare in a browser. See README.md.

export { type ConnectOptions, Fanfare, type RoomCalls, connect } from "./client.js";
export type { CallOptions } from "./calls.js";
export type { ConnectionOptions } from "./connection.js";
export { CallError, type Reason, isFinal } from "./errors.js";
export { type Presence, type PresenceOptions, presence } from "./presence.js";
export type { RetryOptions } from "./retry.js";
export type { Room, RoomOptions, RoomStatus } from "./rooms.js";
export type { Status } from "./status.js";
export type { Store } from "./store.js";
export type {
  Answer, AnswerOf, AnyCalls, AnyEvents, Calls, Events, Handler, Name, Payload, Refused, Register, RequestOf,
} from "./types.js";
