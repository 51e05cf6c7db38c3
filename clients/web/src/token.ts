// What a JWT says to its bearer. Whether it is genuine is the server's business.

import { TIMER_MAX_MS } from "./retry.js";

type Claims = Readonly<Record<string, unknown>>;

function claimsOf(token: string): Claims | undefined {
  try {
    const body = token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(body), (byte) => byte.charCodeAt(0));
    const claims: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return claims && typeof claims === "object" ? (claims as Claims) : undefined;
  } catch {
    return undefined;
  }
}

/** When a token expires, in Unix milliseconds; `undefined` when it does not say. */
export function expiresAt(token: string): number | undefined {
  const exp = claimsOf(token)?.exp;
  return typeof exp === "number" ? exp * 1000 : undefined;
}

/** Whether two tokens say the same of their bearer, whenever they were made. */
export function sameBearer(one: string, other: string): boolean {
  const lasting = (token: string): string => JSON.stringify({ ...claimsOf(token), exp: 0, iat: 0, nbf: 0, jti: 0 });
  return lasting(one) === lasting(other);
}

/** Closer to the end it is left to the server to end the session, which is as exact and cannot go round in circles. */
const REFRESH_MIN_MS = 1000;

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
