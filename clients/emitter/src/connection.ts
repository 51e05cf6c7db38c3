/** Requests to the server: one at a time and in order, each tried again until it has an answer. */

import { setTimeout as sleep } from "node:timers/promises";
import { EmitterError } from "./error.js";

/** A token, or a function that gives the one to use now; it is asked before every try, so it should cache. */
export type Token = string | (() => string | Promise<string>);

/** One try takes at most so long, in milliseconds. */
const ATTEMPT_MAX = 5_000;
/** The first and the longest pause between two tries, in milliseconds. */
const PAUSE_MIN = 100;
const PAUSE_MAX = 5_000;

export class Connection {
  readonly #url: string;
  readonly #token: Token;
  readonly #deadline: number;
  readonly #queueMax: number;
  #waiting = 0;
  /** Settles when the last request that was given has its answer. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(url: string, token: Token, deadline: number, queueMax: number) {
    const { protocol, origin, pathname } = new URL(url);
    if (!["http:", "https:"].includes(protocol) || pathname !== "/") {
      throw new TypeError(`${JSON.stringify(url)} is no server URL: want e.g. "http://127.0.0.1:50051"`);
    }
    this.#url = origin;
    this.#token = token;
    this.#deadline = deadline;
    this.#queueMax = queueMax;
  }

  /** Calls a unary method after everything that was given before. The request must be safe to repeat. */
  call<T>(method: string, request: unknown): Promise<T> {
    if (this.#waiting >= this.#queueMax) {
      return Promise.reject(new EmitterError(`${this.#queueMax} events wait already (option queueMax)`, "resource_exhausted"));
    }
    // As the caller has it now.
    let body: string;
    try {
      body = JSON.stringify(request);
    } catch (error) {
      return Promise.reject(error);
    }
    this.#waiting++;
    const answer = this.#last.then(() => this.#patient<T>(method, body)).finally(() => this.#waiting--);
    this.#last = answer.catch(() => {});
    return answer;
  }

  /** Resolves when nothing waits. */
  async drained(): Promise<void> {
    while (this.#waiting > 0) await this.#last;
  }

  async #patient<T>(method: string, body: string): Promise<T> {
    const end = performance.now() + this.#deadline;
    for (let step = PAUSE_MIN; ; step = Math.min(step * 2, PAUSE_MAX)) {
      try {
        return await this.#attempt<T>(method, body, Math.min(ATTEMPT_MAX, Math.max(end - performance.now(), 1)));
      } catch (error) {
        if (!(error instanceof EmitterError) || !error.retryable) throw error;
        const pause = Math.max(step / 2 + (Math.random() * step) / 2, error.retryAfterMs);
        if (performance.now() + pause >= end) throw error;
        await sleep(pause);
      }
    }
  }

  async #attempt<T>(method: string, body: string, timeout: number): Promise<T> {
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
    try {
      const signal = AbortSignal.timeout(timeout);
      const response = await fetch(`${this.#url}/${method}`, { method: "POST", headers, body, signal });
      if (!response.ok) throw await EmitterError.of(response);
      return (await response.json()) as T;
    } catch (cause) {
      if (cause instanceof EmitterError) throw cause;
      const { message } = (cause as Error).cause instanceof Error ? ((cause as Error).cause as Error) : (cause as Error);
      throw new EmitterError(`the server cannot be reached: ${message}`, "unavailable", undefined, {}, { cause });
    }
  }
}
