// Calls and their acknowledgements. A call waits for a session until its time is over; it is sent at most once.

import type { Socket } from "socket.io-client";
import { CallError } from "./errors.js";
import { TIMER_MAX_MS } from "./retry.js";
import type { Refused } from "./types.js";

export interface CallOptions {
  /** How long it may wait for a session and for its answer together, in milliseconds. 10,000 */
  timeout?: number;
  /** Stops waiting. Whether the call has run is not known then. */
  signal?: AbortSignal;
}

const TIMEOUT_MS = 10_000;
/** As many as the server lets wait. */
const WAITING_MAX = 128;
/** How long calls under way may hold up the change of a token. */
const DRAIN_MAX_MS = 3000;

interface Call {
  name: string;
  request: unknown;
  sent: boolean;
  settle(answer: unknown, error?: CallError): void;
}

export class CallQueue {
  readonly #socket: Socket;
  /** In the order in which they were made, sent or not. */
  readonly #calls = new Set<Call>();
  #open = false;
  #held = false;
  #whenIdle: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** `first`: before those that wait for the connection to be changed. */
  call(name: string, request: unknown, { timeout = TIMEOUT_MS, signal }: CallOptions = {}, first = false): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#calls.size >= WAITING_MAX) throw new CallError("not_connected", `${WAITING_MAX} calls wait already: ${name} was not sent`);
      const stop = (why: string): void =>
        call.settle(undefined, call.sent ? new CallError("no_answer", `${name}: ${why}`) : new CallError("not_connected", `${name} was not sent: ${why}`));
      const timer = setTimeout(() => stop(`no answer within ${timeout} ms`), Math.min(timeout, TIMER_MAX_MS));
      const aborted = (): void => stop("given up by the caller");
      const call: Call = {
        name,
        request,
        sent: false,
        settle: (answer, error) => {
          clearTimeout(timer);
          signal?.removeEventListener("abort", aborted);
          this.#calls.delete(call);
          if (this.#inFlight === 0) this.#whenIdle?.();
          if (error) reject(error);
          else resolve(answer);
        },
      };
      if (signal?.aborted) return aborted();
      signal?.addEventListener("abort", aborted);
      this.#calls.add(call);
      if (this.#open && (!this.#held || first)) this.#send(call);
    });
  }

  /** There is a session: sends what waits. */
  flush(): void {
    this.#open = true;
    this.#held = false;
    for (const call of [...this.#calls]) if (!call.sent) this.#send(call);
  }

  /** A session is there, and only what is called now is sent to it. */
  begin(): void {
    this.#open = true;
    this.#held = true;
  }

  /** The session is lost, and with it the answers to what was sent. */
  lost(): void {
    this.#open = false;
    for (const call of [...this.#calls]) {
      if (call.sent) call.settle(undefined, new CallError("no_answer", `${call.name}: the connection was lost before the answer`));
    }
  }

  /** There will be no session. */
  ended(why: string): void {
    for (const call of [...this.#calls]) call.settle(undefined, new CallError("not_connected", `${call.name} was not sent: ${why}`));
  }

  /** Holds new calls back and waits for the answers to those that were sent. */
  drained(): Promise<void> {
    this.#held = true;
    if (this.#inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#whenIdle = undefined;
        resolve();
      };
      const timer = setTimeout(done, DRAIN_MAX_MS);
      this.#whenIdle = done;
    });
  }

  get #inFlight(): number {
    let count = 0;
    for (const call of this.#calls) if (call.sent) count += 1;
    return count;
  }

  #send(call: Call): void {
    call.sent = true;
    this.#socket.emit(call.name, call.request ?? {}, (answer: unknown) => {
      const refused = (answer as Partial<Refused> | null | undefined)?.error;
      if (typeof refused?.code !== "string") return call.settle(answer);
      call.settle(undefined, new CallError(refused.code, refused.message, refused));
    });
  }
}
