/** How fast an account may send: a steady rate with a burst of one second, and pauses that the channel asks for. */

import { sleep } from "./retry.js";

export class Pace {
  #next = 0;
  #pausedUntil = 0;

  constructor(readonly perSecond: number) {}

  /** Nothing is sent for so long, in milliseconds. */
  pause(ms: number): void {
    this.#pausedUntil = Math.max(this.#pausedUntil, Date.now() + ms);
  }

  /** Waits until one more message may be sent; gives false when the service stops. */
  async take(signal: AbortSignal): Promise<boolean> {
    const now = Date.now();
    // What was not used within the last second is the burst.
    this.#next = Math.max(this.#next, now - 1_000) + 1_000 / this.perSecond;
    let wait = Math.max(this.#next, this.#pausedUntil) - now;
    while (wait > 0) {
      if (!(await sleep(wait, signal))) return false;
      // A pause may have begun in the meantime.
      wait = this.#pausedUntil - Date.now();
    }
    return !signal.aborted;
  }
}
