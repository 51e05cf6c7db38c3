// Rooms: who wants to be in which, and whether the session is. However many want a room, it is entered once and left when the last one goes.

import { CallError } from "./errors.js";
import { pauseMs } from "./retry.js";
import { Signal, type Source, type Store, source } from "./store.js";

/** Whether the session is in a room. Refused: the server said no, and the same again would be pointless. */
export type RoomStatus =
  | { readonly state: "joining" | "joined" }
  | { readonly state: "refused"; readonly error: CallError };

export const JOINING: RoomStatus = Object.freeze({ state: "joining" });
const JOINED: RoomStatus = Object.freeze({ state: "joined" });

export interface RoomOptions {
  /**
   * Called whenever the session has come into the room, at first and after every loss that was not recovered: the room's events are certain
   * from now on, and those before may be missed. The place to read current state.
   */
  onJoined?: () => void;
}

/** Somebody's wish to be in a room. */
export interface Room {
  readonly status: Store<RoomStatus>;
  /** Resolves when the session is in the room, rejects with a CallError when it was refused or this wish was given up. */
  whenJoined(): Promise<void>;
  /** Gives the wish up. */
  leave(): void;
}

interface Entry {
  key: string;
  join: string;
  leave: string | undefined;
  request: unknown;
  wanted: number;
  /** Whether the session is in it; `undefined`: nobody knows, because an answer was lost. */
  inside: boolean | undefined;
  status: Source<RoomStatus>;
  joined: Signal<[]>;
  working: Promise<void> | undefined;
}

/** So many joins are under way at once. */
const PARALLEL_MAX = 8;
/** After a refusal for too many calls all wait so long and go on one by one: a session that is refused often is ended. */
const LIMITED_PAUSE_MS = 1000;
/** How long one that was refused for the moment may hold up those who wait for all rooms. */
const REJOIN_MAX_MS = 5000;

/** What makes a call. */
type Caller = (name: string, request: unknown) => Promise<unknown>;

export class Rooms {
  readonly #entries = new Map<string, Entry>();
  readonly #call: Caller;
  readonly #isOpen: () => boolean;
  readonly #queue: (() => void)[] = [];
  #running = 0;
  #parallel = PARALLEL_MAX;
  /** No call before this time, in Unix milliseconds. */
  #notBefore = 0;

  constructor(call: Caller, isOpen: () => boolean) {
    this.#call = call;
    this.#isOpen = isOpen;
  }

  enter(calls: { join: string; leave?: string | undefined }, request: unknown, { onJoined }: RoomOptions = {}): Room {
    const entry = this.#entry(calls, request);
    entry.wanted += 1;
    const off = onJoined && entry.joined.add(onJoined);
    const wish = { over: false, ended: new Signal<[]>() };
    if (entry.inside && onJoined) queueMicrotask(() => wish.over || onJoined());
    this.#settle(entry);
    return {
      status: entry.status,
      whenJoined: () => joined(entry, wish),
      leave: () => {
        if (wish.over) return;
        wish.over = true;
        wish.ended.emit();
        off?.();
        entry.wanted -= 1;
        // Whoever comes in the same moment keeps it: a component that is mounted anew.
        setTimeout(() => this.#settle(entry));
      },
    };
  }

  /**
   * A session is there. A recovered one is in its rooms, unless its token allows something else than before; any other must enter them. Resolves
   * when it has, or has been refused.
   */
  async resume(recovered: boolean, asBefore: boolean): Promise<void> {
    for (const entry of [...this.#entries.values()]) {
      if (!recovered) entry.inside = false;
      else if (!asBefore) entry.inside &&= undefined;
      if (!entry.inside && entry.wanted > 0) entry.status.set(JOINING);
      this.#settle(entry);
    }
    const all = Promise.all([...this.#entries.values()].map((entry) => entry.working));
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, REJOIN_MAX_MS)));
    await Promise.race([all, late]);
    clearTimeout(timer);
  }

  #entry({ join, leave }: { join: string; leave?: string | undefined }, request: unknown): Entry {
    const key = keyOf(join, request);
    let entry = this.#entries.get(key);
    if (!entry) {
      const [status, signal] = [source<RoomStatus>(JOINING), new Signal<[]>()];
      entry = { key, join, leave, request, wanted: 0, inside: false, status, joined: signal, working: undefined };
      this.#entries.set(key, entry);
    }
    entry.leave ??= leave;
    return entry;
  }

  /** Brings about what is wanted; does nothing when somebody is at it. */
  #settle(entry: Entry): void {
    if (!this.#isOpen()) {
      if (entry.wanted === 0 && entry.inside === false) this.#forget(entry);
      return;
    }
    entry.working ??= this.#work(entry).finally(() => (entry.working = undefined));
  }

  /** Whoever came since has another entry. */
  #forget(entry: Entry): void {
    if (this.#entries.get(entry.key) === entry) this.#entries.delete(entry.key);
  }

  async #work(entry: Entry): Promise<void> {
    for (let attempt = 0; this.#isOpen(); attempt += 1) {
      const wanted = entry.wanted > 0;
      if (wanted && (entry.inside || entry.status.getSnapshot().state === "refused")) return;
      if (!wanted && entry.inside === false) return this.#forget(entry);
      const error = await (wanted ? this.#join(entry) : this.#leave(entry));
      // A limit is waited for in `inTurn`, a lost connection by `resume`.
      if (error?.retry && error.code !== "limit" && this.#isOpen()) await sleep(pauseMs(attempt));
    }
  }

  async #join(entry: Entry): Promise<CallError | undefined> {
    entry.inside = undefined;
    const error = await this.#inTurn(() => this.#call(entry.join, entry.request));
    if (!error) {
      entry.inside = true;
      entry.status.set(JOINED);
      entry.joined.emit();
    } else if (!error.retry) {
      entry.inside = false;
      entry.status.set({ state: "refused", error });
    }
    return error;
  }

  async #leave(entry: Entry): Promise<CallError | undefined> {
    entry.inside = undefined;
    entry.status.set(JOINING);
    const { leave } = entry;
    const error = leave === undefined ? undefined : await this.#inTurn(() => this.#call(leave, entry.request));
    if (!error?.retry) entry.inside = false;
    return error;
  }

  /** Runs a call when its turn comes; gives why it failed. */
  async #inTurn(call: () => Promise<unknown>): Promise<CallError | undefined> {
    if (this.#running >= this.#parallel) await new Promise<void>((resolve) => this.#queue.push(resolve));
    this.#running += 1;
    try {
      while (this.#notBefore > Date.now()) await sleep(this.#notBefore - Date.now());
      await call();
      return undefined;
    } catch (thrown) {
      const error = thrown instanceof CallError ? thrown : new CallError("internal", String(thrown), { cause: thrown });
      if (error.code === "limit") {
        this.#parallel = 1;
        this.#notBefore = Date.now() + Math.max(error.retryAfterMs ?? 0, LIMITED_PAUSE_MS);
      }
      return error;
    } finally {
      this.#running -= 1;
      if (this.#running === 0 && this.#queue.length === 0) this.#parallel = PARALLEL_MAX;
      if (this.#running < this.#parallel) this.#queue.shift()?.();
    }
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The same room has the same key, however its request is written. */
export function keyOf(join: string, request: unknown): string {
  const sorted = (_: string, value: unknown): unknown =>
    value && typeof value === "object" && !Array.isArray(value) ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) : value;
  return `${join} ${JSON.stringify(request ?? {}, sorted)}`;
}

/** What became of somebody's wish. */
function joined(entry: Entry, wish: { over: boolean; ended: Signal<[]> }): Promise<void> {
  return new Promise((resolve, reject) => {
    const offs: (() => void)[] = [];
    const look = (): void => {
      const status = entry.status.getSnapshot();
      if (wish.over) reject(new CallError("not_connected", "the room was given up"));
      else if (status.state === "joined") resolve();
      else if (status.state === "refused") reject(status.error);
      else return;
      offs.forEach((off) => off());
    };
    offs.push(entry.status.subscribe(look), wish.ended.add(look));
    look();
  });
}
