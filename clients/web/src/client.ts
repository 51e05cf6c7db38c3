// The client: connection, calls, rooms and handlers put together, with the types of a catalog.

import type { Socket } from "socket.io-client";
import { type CallOptions, CallQueue } from "./calls.js";
import { Connection, type ConnectionOptions } from "./connection.js";
import { CallError, report } from "./errors.js";
import { type Room, type RoomOptions, Rooms } from "./rooms.js";
import type { Status } from "./status.js";
import { Signal, type Store } from "./store.js";
import type { AnswerOf, Arguments, Calls, Events, Handler, Name, RequestOf, SameRequest } from "./types.js";

export interface ConnectOptions extends ConnectionOptions {
  /** Connect at once. Otherwise `open()` does. true */
  autoConnect?: boolean;
}

/** The calls that enter and leave a room; both take the same request. */
export interface RoomCalls<C, J extends Name<C>> {
  join: J;
  leave?: SameRequest<C, J>;
}

/** What the client needs of a handler, whatever its event. */
type AnyHandler = (...parameters: unknown[]) => void;

/** A connection to Fanfare. `S` maps the events that come, `C` the calls that go. */
export class Fanfare<S = Events, C = Calls> {
  readonly #connection: Connection;
  readonly #calls: CallQueue;
  readonly #rooms: Rooms;
  readonly #handlers = new Map<string, { handler: AnyHandler; once: boolean }[]>();
  readonly #missed = new Signal<[]>();
  readonly #recovered = new Signal<[]>();
  #hadSession = false;
  /** Events may have been missed, and nobody has been told yet. */
  #hole = false;
  #sessions = 0;

  constructor(options: ConnectionOptions) {
    this.#connection = new Connection(options, {
      connected: (recovered, asBefore) => void this.#connected(recovered, asBefore),
      lost: () => this.#lost(),
      drained: () => this.#calls.drained(),
    });
    this.#calls = new CallQueue(this.#connection.socket);
    const call = (name: string, request: unknown): Promise<unknown> => this.#calls.call(name, request, {}, true);
    this.#rooms = new Rooms(call, () => this.#connection.isOpen);
    // One listener for all: an exception in a handler would otherwise cost the stock client its place in the log.
    this.#connection.socket.onAny((name: string, ...parameters: unknown[]) => this.#dispatch(name, parameters));
  }

  /** How the connection is; for useSyncExternalStore and the like. */
  get status(): Store<Status> {
    return this.#connection.status;
  }

  /** Whether the present session is the one before, with everything that it missed. */
  get recovered(): boolean {
    const status = this.status.getSnapshot();
    return status.state === "connected" && status.recovered;
  }

  /** The stock client, for what this one does not do. */
  get socket(): Socket {
    return this.#connection.socket;
  }

  /** Connects, also after an end. */
  open(): void {
    this.#connection.open();
  }

  /** Ends the session. Rooms and handlers stay for the next `open`. */
  close(): void {
    this.#connection.close();
  }

  /** Handles an event until the returned function is called. A stored event comes with its cursor. */
  on<N extends Name<S>>(name: N, handler: Handler<S, N>): () => void {
    return this.#add(name, handler as AnyHandler, false);
  }

  /** Handles the next one of these events. */
  once<N extends Name<S>>(name: N, handler: Handler<S, N>): () => void {
    return this.#add(name, handler as AnyHandler, true);
  }

  /** Takes a handler away. */
  off<N extends Name<S>>(name: N, handler: Handler<S, N>): void {
    const entry = this.#handlers.get(name)?.find((one) => one.handler === handler);
    if (entry) this.#remove(name, entry);
  }

  /**
   * Calls, and gives what is acknowledged; rejects with a CallError. Without a session the call waits for one. It is sent at most once: when its
   * answer is lost, it is for the caller to decide whether to call again.
   */
  call<N extends Name<C>>(name: N, ...[request, options]: Arguments<RequestOf<C, N>, CallOptions>): Promise<AnswerOf<C, N>> {
    const status = this.status.getSnapshot();
    if (status.state === "ended") {
      return Promise.reject(new CallError("not_connected", `${name} was not sent: ${status.reason.message}`));
    }
    return this.#calls.call(name, request, options) as Promise<AnswerOf<C, N>>;
  }

  /**
   * Wants to be in a room until `leave()`. Any number may want the same room: it is entered once, again after a loss that was not recovered, and
   * left with the last one.
   */
  room<J extends Name<C>>(calls: RoomCalls<C, J>, request: RequestOf<C, J>, options?: RoomOptions): Room {
    return this.#rooms.enter(calls, request, options);
  }

  /**
   * Called when events may have been missed: the session before could not be recovered, and the new one is in its rooms, so that what is
   * read now has no hole towards what comes. Read current state.
   */
  onMissed(handler: () => void): () => void {
    return this.#missed.add(handler);
  }

  /** Called when a lost session goes on; what it missed follows, once and in order. */
  onRecovered(handler: () => void): () => void {
    return this.#recovered.add(handler);
  }

  async #connected(recovered: boolean, asBefore: boolean): Promise<void> {
    const session = ++this.#sessions;
    this.#hole ||= this.#hadSession && !recovered;
    this.#hadSession = true;
    this.#calls.begin();
    const inRooms = this.#rooms.resume(recovered, asBefore);
    // Whoever was told of a room may have ended it.
    if (session !== this.#sessions) return;
    this.#calls.flush();
    if (recovered) this.#recovered.emit();
    if (!this.#hole) return;
    await inRooms;
    if (session !== this.#sessions) return;
    this.#hole = false;
    this.#missed.emit();
  }

  #lost(): void {
    this.#sessions += 1;
    this.#calls.lost();
    const status = this.status.getSnapshot();
    if (status.state === "ended") this.#calls.ended(status.reason.message);
  }

  #add(name: string, handler: AnyHandler, once: boolean): () => void {
    const entry = { handler, once };
    this.#handlers.set(name, [...(this.#handlers.get(name) ?? []), entry]);
    return () => this.#remove(name, entry);
  }

  #remove(name: string, entry: object): void {
    const left = this.#handlers.get(name)?.filter((one) => one !== entry) ?? [];
    if (left.length > 0) this.#handlers.set(name, left);
    else this.#handlers.delete(name);
  }

  #dispatch(name: string, parameters: unknown[]): void {
    for (const entry of this.#handlers.get(name) ?? []) {
      if (entry.once) this.#remove(name, entry);
      try {
        entry.handler(...parameters);
      } catch (error) {
        report(error);
      }
    }
  }
}

/** Connects to Fanfare. */
export function connect<S = Events, C = Calls>({ autoConnect = true, ...options }: ConnectOptions): Fanfare<S, C> {
  const client = new Fanfare<S, C>(options);
  if (autoConnect) client.open();
  return client;
}
