// The events of a catalog's Subscribe, over whatever breaks: resumed at the cursor, so that each comes once.

import type { CallOptions } from "@connectrpc/connect";
import { refusal } from "./error-info.js";
import { CallError } from "./errors.js";
import { type RetryOptions, inTime, pauseMs } from "./retry.js";

export { CallError } from "./errors.js";

/** A Subscribe method of a client that @connectrpc/connect makes: a catalog's, or fanfare.v1.Realtime's. */
export type Subscribe<M extends object> = (
  request: { rooms: string[]; after?: string; tenant?: string },
  options?: CallOptions,
) => AsyncIterable<M>;

export interface SubscribeOptions {
  /** 1 to 256 rooms, e.g. "org" and "chat:7". */
  rooms: string[];
  /** Resume after this cursor. Without it: from now on. */
  after?: string;
  /** Empty: the token's. */
  tenant?: string;
  /** Gives a token; asked before each connection. `null`: nobody is signed in, which ends the subscription. */
  token: () => Promise<string | null>;
  /** Ends the subscription: the loop is over. */
  signal?: AbortSignal;
  /** A stream that is silent for so long is lost, in milliseconds. The server says every 10 s (`--heartbeat-interval`) that it lives. 30,000 */
  silenceMs?: number;
  retry?: RetryOptions;
  /** Told why a stream was lost, before the next attempt. */
  onRetry?: (error: CallError) => void;
}

/** The oneof of events in a response. */
type EventsOf<M> = { [K in keyof M]-?: NonNullable<M[K]> extends { case: string | undefined; value?: unknown } ? NonNullable<M[K]> : never }[keyof M];
/** The metadata of an event: fanfare.v1.Event. */
export interface Meta {
  readonly id: string;
  readonly seq: bigint;
}

/** What fanfare.v1.Realtime's responses hold besides events. State comes only on request, and is not asked for here. */
type NoEvent = { $typeName: "fanfare.v1.Position" | "fanfare.v1.StateSnapshot" };

/** What a subscription gives. */
export type Item<M extends object> =
  /** An event. `cursor` is the place behind it; events that are never stored have none. */
  | { type: "event"; event: Exclude<EventsOf<M>, { case: undefined } | { value: NoEvent }>; message: M; cursor: string | undefined }
  /** Nothing happened up to this place: first of all without `after`, then from time to time. */
  | { type: "position"; cursor: string }
  /** The log does not reach back: events were missed. Read current state; what comes after `cursor` follows. */
  | { type: "reset"; cursor: string };

const SILENCE_MS = 30_000;
const TOKEN_MS = 20_000;
/** So often in a row a new token may be too old already. */
const EXPIRED_MAX = 3;

/**
 * Reads the events of some rooms until the signal or the caller ends it. Streams that break are resumed behind the last event, with pauses that
 * grow; a refusal for good is thrown as a CallError.
 */
export async function* subscribe<M extends object>(open: Subscribe<M>, options: SubscribeOptions): AsyncGenerator<Item<M>, void, void> {
  const { signal, silenceMs = SILENCE_MS, retry, onRetry } = options;
  let after = options.after ?? "";
  let attempt = 0;
  let expired = 0;
  let resets = 0;
  let last = "";
  while (!signal?.aborted) {
    const stop = new AbortController();
    const aborted = (): void => stop.abort();
    signal?.addEventListener("abort", aborted);
    try {
      const token = await tokenOf(options);
      const stale = expired > 0 && token === last;
      if (stale) {
        expired = EXPIRED_MAX;
        throw new CallError("token_expired", "the token has expired, and there is no newer one");
      }
      last = token;
      const request = { rooms: options.rooms, ...(after && { after }), ...(options.tenant && { tenant: options.tenant }) };
      const stream = open(request, { signal: stop.signal, headers: { authorization: `Bearer ${token}` } });
      for await (const message of watched(stream, silenceMs, stop)) {
        attempt = expired = resets = 0;
        const item = itemOf(message as M);
        if (item.cursor) after = item.cursor;
        yield item;
        if (signal?.aborted) return;
      }
      throw new CallError("unreachable", "the stream ended");
    } catch (thrown) {
      if (signal?.aborted) return;
      const { error, cursor } = thrown instanceof CallError ? { error: thrown, cursor: undefined } : refusal(thrown);
      if (error.code === "reset" && cursor) {
        after = cursor;
        yield { type: "reset", cursor };
        if (resets++ === 0) continue;
      } else if (error.code === "reset") {
        throw error;
      }
      const outlived = error.code === "token_expired" && expired++ < EXPIRED_MAX;
      if (!outlived && !error.retry) throw error;
      onRetry?.(error);
      // The end of a token is no fault: the next one resumes at once.
      if (!outlived || expired > 1) await pause(error.retryAfterMs ?? pauseMs(attempt++, retry), signal);
    } finally {
      signal?.removeEventListener("abort", aborted);
      stop.abort();
    }
  }
}

async function tokenOf({ token }: SubscribeOptions): Promise<string> {
  const asked = inTime(new Promise<string | null>((resolve) => resolve(token())), TOKEN_MS, "getting a token");
  const given = await asked.catch((cause: unknown) => {
    throw new CallError("token_unavailable", String(cause), { cause });
  });
  if (!given) throw new CallError("no_token", "nobody is signed in");
  return given;
}

/** A stream that is given up when it is silent for too long. Only while it is waited for: who reads slowly is no reason. */
async function* watched<M>(stream: AsyncIterable<M>, silenceMs: number, stop: AbortController): AsyncGenerator<M, void, void> {
  const messages = stream[Symbol.asyncIterator]();
  for (;;) {
    const next = messages.next();
    next.catch(() => {});
    const silent = new CallError("unreachable", `the stream was silent for ${silenceMs} ms`);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => (timer = setTimeout(() => reject(silent), silenceMs)));
    try {
      const { done, value } = await Promise.race([next, late]);
      if (done) return;
      yield value;
    } catch (error) {
      stop.abort();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Sorts the fields of a response by what they are; their names are the catalog's affair. */
function itemOf<M extends object>(message: M): Item<M> {
  let meta: Meta | undefined;
  let event: { case?: string | undefined; value?: { $typeName?: string; id?: string; cursor?: string } } | undefined;
  for (const value of Object.values(message)) {
    if (value?.$typeName === "fanfare.v1.Event") meta = value;
    else if (value && typeof value === "object" && "case" in value) event = value;
  }
  const inner = event?.value;
  if (inner?.$typeName === "fanfare.v1.Position") return { type: "position", cursor: inner.cursor ?? "" };
  // The general Subscribe has the event itself in its oneof.
  if (inner?.$typeName === "fanfare.v1.Event") meta ??= inner as unknown as Meta;
  if (event?.case === undefined) return { type: "position", cursor: meta?.id ?? "" };
  // The id of an event that is not stored is no place in the log.
  const cursor = meta && meta.seq > 0n ? meta.id : undefined;
  return { type: "event", event: event as Extract<Item<M>, { type: "event" }>["event"], message, cursor };
}

/** Waits, unless it is over or the network is back. */
function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      globalThis.window?.removeEventListener?.("online", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
    globalThis.window?.addEventListener?.("online", done);
  });
}
