// The token that the console calls with: given by `fanfare dev`, else pasted by a person and kept for this tab.

import { Store } from "./store";

const KEPT_AS = "fanfare-admin-token";
/** A development token is fetched again this long before it ends, in milliseconds. */
const RENEW_EARLY_MS = 60_000;
/** `setTimeout` cannot wait longer. */
const WAIT_MAX_MS = 2 ** 31 - 1;
const RETRY_MS = 2000;

export type Access =
  | { state: "loading"; problem?: string }
  | { state: "signed-out"; problem?: string }
  | { state: "signed-in"; token: string; development: boolean };

export const access = new Store<Access>({ state: "loading" });

interface Config {
  development: boolean;
  token?: string;
  /** Where the bridge serves Socket.IO. */
  socketioPath: string;
}

/** Where the embedded clients connect. */
let path = "/socket.io/";
export const socketioPath = (): string => path;

let timer: ReturnType<typeof setTimeout> | undefined;

/** What a token says of itself; nothing is verified here. */
export function claimsOf(token: string): Record<string, unknown> | undefined {
  const part = token.split(".")[1];
  if (part === undefined) return undefined;
  try {
    const bytes = Uint8Array.from(atob(part.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
    const claims: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return typeof claims === "object" && claims !== null ? (claims as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** When a token ends, in milliseconds since 1970. */
export function expiryOf(token: string): number | undefined {
  const exp = claimsOf(token)?.["exp"];
  return typeof exp === "number" ? exp * 1000 : undefined;
}

/** The bridge answered, and lets nobody in this way. */
class Refusal extends Error {}

async function config(): Promise<Config> {
  const response = await fetch("/console/config.json", { cache: "no-store" });
  const said = (await response.json().catch(() => ({}))) as Config & { message?: string };
  if (!response.ok) throw new Refusal(said.message ?? `The bridge answered ${response.status}.`);
  return said;
}

/** Asks how this Fanfare lets people in, until it answers. */
export async function enter(): Promise<void> {
  clearTimeout(timer);
  try {
    const { development, token, socketioPath } = await config();
    path = socketioPath;
    if (development && token) {
      access.set({ state: "signed-in", token, development: true });
      renewBefore(expiryOf(token));
      return;
    }
  } catch (cause) {
    const problem = cause instanceof Refusal ? cause.message : "The bridge does not answer. Trying again…";
    if (access.get().state !== "signed-in") access.set({ state: "loading", problem });
    timer = setTimeout(() => void enter(), RETRY_MS);
    return;
  }
  const kept = sessionStorage.getItem(KEPT_AS);
  access.set(kept ? { state: "signed-in", token: kept, development: false } : { state: "signed-out" });
}

function renewBefore(end: number | undefined): void {
  if (end === undefined) return;
  const left = end - Date.now();
  const wait = Math.max(RETRY_MS, left > 2 * RENEW_EARLY_MS ? left - RENEW_EARLY_MS : left / 2);
  timer = setTimeout(() => void enter(), Math.min(wait, WAIT_MAX_MS));
}

export function signIn(token: string): void {
  sessionStorage.setItem(KEPT_AS, token);
  access.set({ state: "signed-in", token, development: false });
}

export function signOut(problem?: string): void {
  sessionStorage.removeItem(KEPT_AS);
  access.set({ state: "signed-out", ...(problem ? { problem } : {}) });
}

/** The server refused the token: a development token is fetched anew, a person asked again. */
export function refused(problem: string): void {
  const now = access.get();
  if (now.state !== "signed-in") return;
  if (now.development) {
    clearTimeout(timer);
    timer = setTimeout(() => void enter(), RETRY_MS);
  } else {
    signOut(problem);
  }
}
