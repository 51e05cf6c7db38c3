/** Emits to rooms. */

import { randomUUID } from "node:crypto";
import { Connection, type Token } from "./connection.js";

/** Rooms of one event, and sessions that do not get it, at most. */
const ROOMS_MAX = 64;

/** By package, the full type name of each event: what `fanfare types --format names` writes. */
export type EventNames = Readonly<Record<string, Readonly<Record<string, string>>>>;

/** Events of any name. `fanfare types` declares those of a catalog in `ServerToClientEvents`. */
type Events = Record<string, (event: object) => void>;

/** What an event carries, by the type of its listener. */
export type Payload<Listener> = Listener extends (event: infer P, ...rest: never[]) => void ? P : never;

/** The answer to an event. */
export interface Published {
  /** The event's id; for stored events also its cursor. */
  id: string;
  /** An earlier try had been successful. */
  duplicate?: boolean;
}

export interface EmitterOptions {
  /** The server, e.g. "http://127.0.0.1:50051". */
  url: string;
  /** A token with the scope `notify`, or a function that gives one; for `disconnectSockets` with `admin`. */
  token: Token;
  /** What `fanfare types --format names` writes. */
  events: EventNames;
  /** The tenant. Absent: the token's. */
  tenant?: string;
  /** What an event may take with all its tries, in milliseconds. Default: 15,000. */
  deadlineMs?: number;
  /** Events that wait for the server, at most. Default: 10,000. */
  queueMax?: number;
  /** Gets every failure, so that `emit` need not be awaited. Default: prints it to standard error. */
  onError?: (error: unknown, event: string) => void;
}

interface Shared {
  connection: Connection;
  events: EventNames;
  onError: (error: unknown, event: string) => void;
}

/** Where an event goes. Each step gives a new one, so that one can be kept and used again. */
export class Operator<E extends object = Events> {
  readonly #shared: Shared;
  readonly #namespace: string;
  readonly #tenant: string;
  readonly #rooms: readonly string[];
  readonly #except: readonly string[];

  /** Made by `Emitter`. */
  constructor(shared: Shared, namespace: string, tenant: string, rooms: readonly string[] = [], except: readonly string[] = []) {
    if (rooms.length > ROOMS_MAX || except.length > ROOMS_MAX) throw new RangeError(`an event has at most ${ROOMS_MAX} rooms and ${ROOMS_MAX} exceptions`);
    this.#shared = shared;
    this.#namespace = namespace;
    this.#tenant = tenant;
    this.#rooms = rooms;
    this.#except = except;
  }

  /** To these rooms too, e.g. "chat:7", "user:42" or "org" (everybody in the tenant). */
  to(rooms: string | readonly string[]): Operator<E> {
    return new Operator(this.#shared, this.#namespace, this.#tenant, union(this.#rooms, rooms), this.#except);
  }

  /** The same as `to`. */
  in(rooms: string | readonly string[]): Operator<E> {
    return this.to(rooms);
  }

  /** Not to these sessions (`socket.id`). Rooms cannot be left out. */
  except(sessions: string | readonly string[]): Operator<E> {
    const room = [sessions].flat().find((text) => text === "org" || text.includes(":"));
    if (room !== undefined) throw new TypeError(`except(${JSON.stringify(room)}): only sessions can be left out, not rooms`);
    return new Operator(this.#shared, this.#namespace, this.#tenant, this.#rooms, union(this.#except, sessions));
  }

  /** In this tenant. Tokens for all tenants must name one. */
  tenant(tenant: string): Operator<E> {
    return new Operator(this.#shared, this.#namespace, tenant, this.#rooms, this.#except);
  }

  /** The catalog says by `ephemeral` which events are volatile. */
  get volatile(): this {
    return this;
  }

  /** The bridge's setting says what is compressed. */
  compress(_compress: boolean): this {
    return this;
  }

  /**
   * Publishes an event. Without `to`, it goes to the rooms that the event's type declares. Events are published in
   * the order of the calls. Resolves once the event is in the log. A failure goes to `onError`
   * too, and need not be caught.
   */
  emit<Name extends keyof E & string>(event: Name, payload: Payload<E[Name]>): Promise<Published> {
    const published = this.#emit(event, payload);
    published.catch((error: unknown) => this.#shared.onError(error, event));
    return published;
  }

  async #emit(event: string, payload: unknown): Promise<Published> {
    if (typeof payload !== "object" || payload === null) throw new TypeError(`${event}: the payload must be an object, as the catalog declares it`);
    const type = fullName(this.#shared.events, this.#namespace, event);
    const target = { tenant: this.#tenant, rooms: this.#rooms, idempotencyKey: randomUUID(), exceptSessions: this.#except };
    const request = { target, event: { ...payload, "@type": `type.googleapis.com/${type}` } };
    return this.#shared.connection.call<Published>("fanfare.v1.Realtime/Notify", request);
  }

  /**
   * Ends the sessions of users (`in("user:42")`) or of everybody in the tenant (`in("org")`), on every bridge; they
   * stay away. Resolves to how many there were. Needs the scope `admin`.
   */
  async disconnectSockets(_close = false): Promise<number> {
    const whom = this.#rooms.map((room) => {
      if (room === "org") return { everybody: true };
      if (room.startsWith("user:")) return { userId: room.slice("user:".length) };
      throw new TypeError(`disconnectSockets: sessions of ${JSON.stringify(room)} cannot be ended together: want in("user:ID") or in("org")`);
    });
    if (whom.length === 0) throw new TypeError('disconnectSockets: want in("user:ID") or in("org")');
    if (this.#except.length > 0) throw new TypeError("disconnectSockets: no session can be left out");
    let sessions = 0;
    for (const one of whom) {
      const answer = await this.#shared.connection.call<{ sessions?: number }>("fanfare.v1.Realtime/Disconnect", { tenant: this.#tenant, ...one });
      sessions += answer.sessions ?? 0;
    }
    return sessions;
  }

  /** Not possible: browsers enter rooms by calls of their catalog, whose rules the server checks. */
  socketsJoin(_rooms: string | readonly string[]): never {
    throw new TypeError("socketsJoin: sessions enter rooms by calls of their catalog (docs/migrating.md)");
  }

  /** Not possible: browsers leave rooms by calls of their catalog. */
  socketsLeave(_rooms: string | readonly string[]): never {
    throw new TypeError("socketsLeave: sessions leave rooms by calls of their catalog (docs/migrating.md)");
  }

  /** Not possible: servers share their log, not messages of applications. */
  serverSideEmit(..._parameters: unknown[]): never {
    throw new TypeError("serverSideEmit: back ends read events by subscribing (docs/migrating.md)");
  }

  /** The same in a namespace: events of its catalog, e.g. of `messenger.v1` in "/messenger". */
  protected within<F extends object>(namespace: string): Operator<F> {
    return new Operator<F>(this.#shared, namespace, this.#tenant);
  }

  /** Resolves when everything that was emitted has its answer. */
  protected drained(): Promise<void> {
    return this.#shared.connection.drained();
  }
}

/** Publishes with the API of the Socket.IO emitter. `E` is `ServerToClientEvents` of `fanfare types`. */
export class Emitter<E extends object = Events> extends Operator<E> {
  constructor({ url, token, events, tenant = "", deadlineMs = 15_000, queueMax = 10_000, onError = report }: EmitterOptions) {
    super({ connection: new Connection(url, token, deadlineMs, queueMax), events, onError }, "/", tenant);
  }

  /** A namespace: events of one catalog, e.g. of `messenger.v1` in "/messenger". */
  of<F extends object = E>(namespace: string): Operator<F> {
    return this.within<F>(namespace.startsWith("/") ? namespace : `/${namespace}`);
  }

  /** Resolves when everything that was emitted has its answer: call it before the process ends. */
  close(): Promise<void> {
    return this.drained();
  }
}

function report(error: unknown, event: string): void {
  console.error(`fanfare: ${event} was not published:`, error);
}

function union(all: readonly string[], more: string | readonly string[]): string[] {
  return [...new Set([...all, ...[more].flat()])];
}

/** The full name of an event's type. */
function fullName(events: EventNames, namespace: string, event: string): string {
  const packages = Object.keys(events).filter((name) => namespace === "/" || `/${name.split(".")[0]}` === namespace);
  if (packages.length === 0) throw new TypeError(`no catalog in \`events\` has the namespace ${namespace}: there are ${Object.keys(events).join(", ")}`);
  const found = packages.flatMap((name) => (Object.hasOwn(events[name]!, event) ? [events[name]![event]!] : []));
  if (found.length === 1) return found[0]!;
  if (found.length > 1) throw new TypeError(`${JSON.stringify(event)} is the name of several events (${found.join(", ")}): choose a catalog by of("/NAME")`);
  throw new TypeError(`no event ${JSON.stringify(event)} in ${packages.join(", ")}`);
}
