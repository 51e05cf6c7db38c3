// The connection: a token before each attempt, when to try again and when not, and the change of a token before it expires. It
// knows nothing of calls and rooms.

import { io, type ManagerOptions, type Socket, type SocketOptions } from "socket.io-client";
import { type Reason, isFinal } from "./errors.js";
import { type RetryOptions, inTime, pauseMs } from "./retry.js";
import { INITIAL, type Status } from "./status.js";
import { type Store, source } from "./store.js";
import { expiresAt, refreshInMs, sameBearer } from "./token.js";

export interface ConnectionOptions {
  /** Where the bridge is, e.g. "https://realtime.example.com". */
  url: string;
  /**
   * Gives a token; asked before each connection and before the token expires. `null` means that nobody is signed in: the
   * connection ends. When it rejects, it is asked again after a pause.
   */
  token: () => Promise<string | null>;
  /** How long before its end a token is changed, in milliseconds (at most a fifth of its time). 60,000 */
  refreshLeadMs?: number;
  /** How long one attempt, and one call of `token`, may take, in milliseconds. 20,000 */
  attemptTimeoutMs?: number;
  retry?: RetryOptions;
  /** Options for the stock client: path, transports … Its own reconnection and `auth` are not used. */
  socket?: Omit<Partial<ManagerOptions & SocketOptions>, "auth" | "autoConnect" | "forceNew" | "reconnection">;
}

/** What the connection tells its owner. */
export interface ConnectionHooks {
  /** A session is there, the same as before if it was recovered; `asBefore`: and its token allows what the one before did. */
  connected(recovered: boolean, asBefore: boolean): void;
  /** The connection is lost, or it is over. */
  lost(): void;
  /** The connection is about to be changed: resolves when that disturbs nobody. */
  drained(): Promise<void>;
}

const CLOSED: Reason = { code: "closed", message: "closed by the application" };
const SIGNED_OUT: Reason = { code: "no_token", message: "nobody is signed in" };
const GONE: Reason = { code: "disconnected", message: "the server ended the session" };
/** A connection that lasted so long was a good one: the next pauses are short again. */
const STABLE_MS = 5000;
/** How long the change of a token may take before it counts as a loss. */
const CHANGE_MAX_MS = 3000;
/** So often in a row a new token may be too old already, before something is wrong with it, or with the clock of who made it. */
const EXPIRED_MAX = 3;

type Phase = "idle" | "waiting" | "token" | "opening" | "open";

export class Connection {
  readonly socket: Socket;
  readonly #status = source<Status>(INITIAL);
  readonly status: Store<Status> = this.#status;
  readonly #options: ConnectionOptions;
  readonly #hooks: ConnectionHooks;
  #phase: Phase = "idle";
  /** Counts what happens, so that whoever waited knows that the world has changed meanwhile. */
  #turn = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #attempt = 0;
  #expired = 0;
  /** Not before this time, in Unix milliseconds, because the server said so. */
  #notBefore = 0;
  #connectedAt = 0;
  #token = "";
  /** The token of the session before. */
  #tokenBefore = "";
  /** The token for which the connection is being changed. */
  #next: string | undefined;
  /** What the server said last; followed by a disconnect, it is the reason. */
  #farewell: Reason | undefined;
  #everConnected = false;

  constructor(options: ConnectionOptions, hooks: ConnectionHooks) {
    this.#options = options;
    this.#hooks = hooks;
    this.socket = io(options.url, {
      transports: ["websocket", "polling"],
      tryAllTransports: true,
      ...options.socket,
      autoConnect: false,
      forceNew: true,
      reconnection: false,
    });
    this.socket.on("connect", () => this.#connected());
    this.socket.on("disconnect", (reason) => this.#disconnected(reason));
    this.socket.on("connect_error", (error: Error & { data?: { code?: unknown; retryAfterMs?: unknown } }) => {
      const { code, retryAfterMs } = error.data ?? {};
      if (typeof code !== "string") return this.#failed({ code: "unreachable", message: error.message });
      this.#failed({ code, message: error.message }, typeof retryAfterMs === "number" ? retryAfterMs : 0);
    });
    this.socket.on("error", (error: Partial<Reason> | undefined) => {
      if (typeof error?.code === "string") this.#farewell = { code: error.code, message: String(error.message) };
    });
  }

  get isOpen(): boolean {
    return this.#phase === "open";
  }

  /** Begins, also again after an end. */
  open(): void {
    if (this.#phase !== "idle") return;
    this.#attempt = this.#expired = this.#notBefore = 0;
    this.#token = "";
    listen("add", this.#told);
    void this.#try();
    this.#status.set(INITIAL);
  }

  /** Ends, until it is opened again. */
  close(): void {
    if (this.#phase !== "idle") this.#end(CLOSED);
  }

  /** One attempt: a token, then the connection. */
  async #try(): Promise<void> {
    const turn = this.#enter("token");
    let token;
    try {
      token = await this.#ask();
    } catch (error) {
      if (turn === this.#turn) this.#retry({ code: "token_unavailable", message: String(error) });
      return;
    }
    if (turn !== this.#turn) return;
    if (!token) return this.#end(SIGNED_OUT);
    // The very token that was refused would be refused again.
    if (this.#expired > 0 && token === this.#token) {
      return this.#end({ code: "token_expired", message: "the token has expired, and there is no newer one" });
    }
    this.#open(token);
  }

  #ask(): Promise<string | null> {
    const { token, attemptTimeoutMs = 20_000 } = this.#options;
    return inTime(new Promise((resolve) => resolve(token())), attemptTimeoutMs, "getting a token");
  }

  #open(token: string, timeoutMs = this.#options.attemptTimeoutMs ?? 20_000): void {
    this.#enter("opening");
    this.#token = token;
    this.#farewell = undefined;
    this.socket.auth = { token };
    this.#timer = setTimeout(() => {
      this.socket.disconnect();
      this.#failed({ code: "unreachable", message: "no answer" });
    }, timeoutMs);
    this.socket.connect();
  }

  #connected(): void {
    const turn = this.#enter("open");
    this.#connectedAt = Date.now();
    this.#expired = 0;
    this.#everConnected = true;
    this.#planRefresh();
    const recovered = Boolean(this.socket.recovered);
    this.#status.set({ state: "connected", recovered });
    const asBefore = sameBearer(this.#token, this.#tokenBefore);
    this.#tokenBefore = this.#token;
    // Whoever was told may have ended it.
    if (turn === this.#turn) this.#hooks.connected(recovered, asBefore);
  }

  #disconnected(how: string): void {
    if (this.#phase !== "open" && this.#phase !== "opening") return;
    // What was not sent stays unsent: its callers are told, and decide.
    this.socket.sendBuffer.length = 0;
    if (this.#phase === "open" && Date.now() - this.#connectedAt > STABLE_MS) this.#attempt = 0;
    const next = this.#next;
    this.#next = undefined;
    const turn = this.#enter("waiting");
    this.#hooks.lost();
    if (turn !== this.#turn) return;
    if (next !== undefined) {
      // The stock client is still busy with closing.
      queueMicrotask(() => turn === this.#turn && this.#open(next, CHANGE_MAX_MS));
    } else if (how === "io server disconnect") {
      this.#decide(this.#farewell ?? GONE);
    } else {
      this.#retry({ code: "connection_lost", message: how });
    }
  }

  /** An attempt failed. */
  #failed(reason: Reason, retryAfterMs = 0): void {
    if (this.#phase === "opening") this.#decide(reason, retryAfterMs);
  }

  /** Whether to try again is what the reason says. */
  #decide(reason: Reason, retryAfterMs = 0): void {
    if (reason.code === "token_expired" && this.#expired < EXPIRED_MAX) {
      this.#expired += 1;
      return this.#retry(reason, 0, this.#expired === 1);
    }
    if (isFinal(reason.code)) return this.#end(reason);
    this.#retry(reason, retryAfterMs);
  }

  #retry(cause: Reason, retryAfterMs = 0, now = false): void {
    this.#enter("waiting");
    const pause = now ? 0 : Math.max(retryAfterMs, pauseMs(this.#attempt, this.#options.retry));
    this.#notBefore = Date.now() + retryAfterMs;
    this.#attempt += 1;
    this.#timer = setTimeout(() => void this.#try(), pause);
    this.#tell(cause);
  }

  #tell(cause: Reason): void {
    const offline = globalThis.navigator?.onLine === false;
    const state = offline ? "offline" : this.#everConnected ? "reconnecting" : "connecting";
    this.#status.set({ state, attempt: this.#attempt, cause });
  }

  #end(reason: Reason): void {
    this.#enter("idle");
    this.#next = undefined;
    listen("remove", this.#told);
    this.socket.disconnect();
    this.socket.sendBuffer.length = 0;
    this.#status.set({ state: "ended", reason });
    this.#hooks.lost();
  }

  /** Plans the change of the token. While that fails, the session goes on, and the plan is repeated with less time. */
  #planRefresh(): void {
    const wait = refreshInMs(this.#token, this.#options.refreshLeadMs ?? 60_000);
    if (wait !== undefined) this.#timer = setTimeout(() => void this.#refresh(), wait);
  }

  /** Changes the token: a session belongs to one, so it goes on over another connection, by recovery. */
  async #refresh(): Promise<void> {
    const turn = this.#turn;
    const token = await this.#ask().catch(() => this.#token);
    if (turn !== this.#turn) return;
    if (!token) return this.#end(SIGNED_OUT);
    if ((expiresAt(token) ?? Infinity) <= (expiresAt(this.#token) ?? Infinity)) return this.#planRefresh();
    await this.#hooks.drained();
    if (turn !== this.#turn) return;
    this.#next = token;
    this.socket.io.engine.close();
  }

  #enter(phase: Phase): number {
    clearTimeout(this.#timer);
    this.#phase = phase;
    return ++this.#turn;
  }

  /** No reason to wait longer. */
  #wake(): void {
    if (this.#phase !== "waiting" || Date.now() < this.#notBefore) return;
    this.#attempt = 0;
    void this.#try();
  }

  /** What the browser tells of the network, and that somebody looks. */
  readonly #told = ({ type }: { type: string }): void => {
    if (type === "online" && this.#phase === "opening") {
      // What was begun without a network may hang.
      this.socket.disconnect();
      this.#enter("waiting");
    }
    if (type === "online" || (type === "visibilitychange" && document.visibilityState === "visible")) this.#wake();
    const status = this.#status.getSnapshot();
    if (type === "offline" && this.#phase === "waiting" && "attempt" in status) {
      this.#tell(status.cause ?? { code: "connection_lost", message: "the network is gone" });
    }
  };
}

/** Listens to the browser, where there is one. */
function listen(how: "add" | "remove", listener: (event: { type: string }) => void): void {
  const method = `${how}EventListener` as const;
  // Some that are no browsers have a window without events.
  globalThis.window?.[method]?.("online", listener);
  globalThis.window?.[method]?.("offline", listener);
  globalThis.document?.[method]?.("visibilitychange", listener);
}
