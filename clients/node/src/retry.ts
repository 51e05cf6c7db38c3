/** How long to go on trying, and how long to wait in between. All times in milliseconds. */

import { setTimeout as sleepFor } from "node:timers/promises";
import { FanfareError } from "./error.js";

/** The first and the longest pause between two tries. */
export const PAUSE_MIN = 100;
export const PAUSE_MAX = 5_000;
/** One try takes at most so long: a server that hangs costs no more than this. */
export const ATTEMPT_MAX = 5_000;
/** All tries together, unless told otherwise. */
export const DEADLINE = 15_000;

/** Pauses that double from try to try, each of random length, so that many producers do not come back at once. */
export class Backoff {
  #next = PAUSE_MIN;

  /** The next pause: between half and the whole of the step that has been reached. */
  pause(): number {
    const step = this.#next;
    this.#next = Math.min(step * 2, PAUSE_MAX);
    return step / 2 + (Math.random() * step) / 2;
  }

  reset(): void {
    this.#next = PAUSE_MIN;
  }
}

/** The tries of one call, within one deadline. */
export class Attempts {
  readonly #end: number;
  readonly #backoff = new Backoff();
  #renewed = false;

  constructor(deadline: number) {
    this.#end = performance.now() + deadline;
  }

  remaining(): number {
    return Math.max(Math.ceil(this.#end - performance.now()), 1);
  }

  /** How long to wait before the next try; undefined when there shall be none. */
  pauseAfter(error: FanfareError): number | undefined {
    if (!error.retryable) return undefined;
    const pause = Math.max(this.#backoff.pause(), error.retryAfterMs);
    return performance.now() + pause < this.#end ? pause : undefined;
  }

  /** Whether it is worth while to ask for another token: once a call. */
  mayRenew(error: FanfareError): boolean {
    const renew = error.isTokenRefused && !this.#renewed;
    this.#renewed ||= renew;
    return renew;
  }
}

/** Waits; false when the signal ended it before. */
export async function sleep(ms: number, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    await sleepFor(ms, undefined, signal ? { signal } : {});
    return true;
  } catch {
    return false;
  }
}
