// When to try again, and for how long to wait.

export interface RetryOptions {
  /** The first pause, in milliseconds. 500 */
  minMs?: number;
  /** The longest one. 20,000 */
  maxMs?: number;
}

/** The pause before a further attempt: doubled each time, and spread, so that those who were lost together do not come back together. */
export function pauseMs(attempt: number, { minMs = 500, maxMs = 20_000 }: RetryOptions = {}): number {
  const longest = Math.min(maxMs, minMs * 2 ** Math.min(attempt, 30));
  return longest * (0.5 + Math.random() / 2);
}

/** Longer timers would come at once. */
export const TIMER_MAX_MS = 2 ** 31 - 1;

/** The result of a promise, or a rejection when it takes too long. */
export function inTime<T>(promise: Promise<T>, ms: number, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${what} took more than ${ms} ms`)), ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
