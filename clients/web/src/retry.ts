// When to try again, and when to change a token.

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

/** When a JWT expires, in Unix milliseconds; `undefined` when it does not say. The signature is the server's business. */
export function expiresAt(token: string): number | undefined {
  try {
    const body = token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/");
    const { exp } = JSON.parse(atob(body)) as { exp?: unknown };
    return typeof exp === "number" ? exp * 1000 : undefined;
  } catch {
    return undefined;
  }
}

/** Closer to the end it is left to the server to end the session, which is as exact and cannot go round in circles. */
const REFRESH_MIN_MS = 1000;
/** Longer timers would come at once. */
export const TIMER_MAX_MS = 2 ** 31 - 1;

/**
 * How long a token can be used before it should be changed: until `leadMs` before its end, or a fifth of its time if that is shorter. `undefined`:
 * not at all, because it has no end, or the end is near or past by this machine's clock.
 */
export function refreshInMs(token: string, leadMs: number, now = Date.now()): number | undefined {
  const end = expiresAt(token);
  if (end === undefined) return undefined;
  const left = end - now;
  const wait = left - Math.min(leadMs, left / 5);
  return wait < REFRESH_MIN_MS ? undefined : Math.min(wait, TIMER_MAX_MS);
}

/** The result of a promise, or a rejection when it takes too long. */
export function inTime<T>(promise: Promise<T>, ms: number, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${what} took more than ${ms} ms`)), ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
