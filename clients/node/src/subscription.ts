/** A subscription that resumes by itself with the cursor it has reached. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { FanfareError } from "./error.js";
import type { Event, SubscribeRequestSchema, SubscribeResponse } from "./gen/fanfare/v1/realtime_pb.js";
import { Backoff, sleep } from "./retry.js";

export interface SubscribeOptions {
  /** Resume after this cursor: an event's id, or what `Subscription.cursor` was. */
  after?: string;
  /** For tokens of all tenants; otherwise the tenant is the token's. */
  tenant?: string;
}

type Open = (request: MessageInitShape<typeof SubscribeRequestSchema>, signal: AbortSignal) => AsyncIterable<SubscribeResponse>;

/**
 * The events, each once and in log order; made by `Client.subscribe`, for one reader: `for await (const event of subscription)`.
 *
 * It connects and resumes as often as needed. It ends with a FanfareError that trying again does not mend, such as REASON_RESET: the log
 * does not reach back to the cursor. Then read current state elsewhere and subscribe again after `error.cursor`.
 */
export class Subscription implements AsyncIterableIterator<Event> {
  /** The place reached; resumes there when given as `after`. Empty before the first answer. */
  cursor: string;
  readonly #open: Open;
  readonly #rooms: string[];
  readonly #tenant: string;
  readonly #renewable: boolean;
  readonly #closed = new AbortController();
  readonly #backoff = new Backoff();
  #renewed = false;
  #answers: AsyncIterator<SubscribeResponse> | undefined;

  constructor(open: Open, rooms: string[], { after = "", tenant = "" }: SubscribeOptions, renewable: boolean) {
    this.#open = open;
    this.#rooms = rooms;
    this.#tenant = tenant;
    this.#renewable = renewable;
    this.cursor = after;
  }

  /** Waits until the subscription stands, so that it gets whatever is published from now on; gives the cursor. */
  async start(): Promise<string> {
    // Without a cursor the first answer is a position, never an event.
    while (!this.cursor && !this.#closed.signal.aborted) await this.#step();
    return this.cursor;
  }

  async next(): Promise<IteratorResult<Event, undefined>> {
    while (!this.#closed.signal.aborted) {
      const event = await this.#step();
      if (event) return { done: false, value: event };
    }
    return { done: true, value: undefined };
  }

  /** Ends it. */
  close(): void {
    this.#closed.abort();
  }

  async return(): Promise<IteratorResult<Event, undefined>> {
    this.close();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async #step(): Promise<Event | undefined> {
    try {
      return this.#taken(await this.#receive());
    } catch (failure) {
      if (this.#closed.signal.aborted) return undefined;
      this.#answers = undefined;
      const error = FanfareError.of(failure);
      if (this.#renewable && error.isTokenRefused && !this.#renewed) {
        this.#renewed = true;
        return undefined;
      }
      if (!error.retryable) throw error;
      await sleep(Math.max(this.#backoff.pause(), error.retryAfterMs), this.#closed.signal);
      return undefined;
    }
  }

  async #receive(): Promise<SubscribeResponse> {
    const request = { rooms: this.#rooms, tenant: this.#tenant, after: this.cursor };
    this.#answers ??= this.#open(request, this.#closed.signal)[Symbol.asyncIterator]();
    const { done, value } = await this.#answers.next();
    if (done) throw new FanfareError("the server ended the stream", Code.Unavailable);
    this.#backoff.reset();
    this.#renewed = false;
    return value;
  }

  #taken({ kind }: SubscribeResponse): Event | undefined {
    if (kind.case === "position") this.cursor = kind.value.cursor;
    if (kind.case !== "event") return undefined;
    // Ephemeral events are no places in the log.
    if (kind.value.seq > 0n) this.cursor = kind.value.id;
    return kind.value;
  }
}
