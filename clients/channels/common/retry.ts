/** Pauses between tries, and waits that a signal ends. All times in milliseconds. */

import { once } from "node:events";
import { setTimeout as sleepFor } from "node:timers/promises";

/** The first pause, and the longest. */
const PAUSE_MIN = 200;
const PAUSE_MAX = 30_000;

/** Pauses that double, each of random length between the half and the whole of its step. */
export class Backoff {
  #step: number;

  constructor(
    readonly least = PAUSE_MIN,
    readonly most = PAUSE_MAX,
  ) {
    this.#step = least;
  }

  pause(): number {
    const step = this.#step;
    this.#step = Math.min(step * 2, this.most);
    return step / 2 + (Math.random() * step) / 2;
  }

  reset(): void {
    this.#step = this.least;
  }
}

/** Resolves when the signal is aborted. */
export async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, "abort");
}

/** Waits; gives false when the signal ended the wait. */
export async function sleep(ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await sleepFor(ms, undefined, { signal });
    return true;
  } catch {
    return false;
  }
}
