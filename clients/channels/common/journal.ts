/**
 * Publishes an account's events and records them: each is in the log once. Three things keep it so: the store says what
 * was recorded, the idempotency key covers a repetition soon after, and reading the log back covers one after a long stop.
 */

import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { type Client, FanfareError } from "@fanfare-dev/client";
import { idempotencyKey } from "./ids.js";
import { log } from "./log.js";
import { endOfLog, Place, readBack } from "./place.js";
import { EventRefused, type Publisher } from "./publisher.js";
import { Backoff, sleep } from "./retry.js";
import type { Store } from "./store.js";

interface PlaceRecord {
  cursor: string;
  /** When it was written, in milliseconds since 1970. */
  at: number;
}

export class Journal {
  readonly #place: Place;
  #known = new Set<string>();

  constructor(
    readonly account: string,
    readonly publisher: Publisher,
    readonly store: Store,
  ) {
    this.#place = new Place(store.get<PlaceRecord>("place", "log")?.cursor ?? "");
  }

  /**
   * Connects, and after a stop of at least `afterMs` finds out what was published but not recorded. Tries again until
   * the server answers or the service stops.
   */
  async open(afterMs: number): Promise<void> {
    const backoff = new Backoff();
    const { client, tenant, signal } = this.publisher;
    while (!signal.aborted) {
      try {
        await this.#read(client, tenant, signal, afterMs);
        return this.publisher.succeeded();
      } catch (error) {
        if (signal.aborted) return;
        this.publisher.failed(error);
        await sleep(backoff.pause(), signal);
      }
    }
  }

  async #read(client: Client, tenant: string, signal: AbortSignal, afterMs: number): Promise<void> {
    const record = this.store.get<PlaceRecord>("place", "log");
    if (!record || Date.now() - record.at < afterMs) {
      const cursor = await endOfLog(client, tenant, signal);
      if (!record && cursor) await this.#start(cursor);
      return;
    }
    try {
      this.#known = await readBack(client, tenant, record.cursor, signal);
      log.info("read the log back", { account: this.account, events: this.#known.size });
    } catch (error) {
      if (FanfareError.of(error).reason !== "REASON_RESET") throw error;
      log.warn("the log no longer reaches back to the last stop; an event that was in flight then may be published again", { account: this.account });
      await this.#start(await endOfLog(client, tenant, signal));
    }
  }

  async #start(cursor: string): Promise<void> {
    this.#place.start(cursor);
    await this.store.put("place", "log", { cursor, at: Date.now() } satisfies PlaceRecord);
  }

  /**
   * Publishes an event and then records it. `tag` names the event in the log, `key` its origin in the channel. `record`
   * writes what shows that it was published. Throws EventRefused, Stopped, or what the store throws.
   */
  async publish<Desc extends DescMessage>(
    schema: Desc,
    event: MessageInitShape<Desc>,
    { tag, key = tag, rooms = [], record }: { tag: string; key?: string; rooms?: string[]; record(): Promise<void> },
  ): Promise<void> {
    // The log has it from before the stop.
    if (this.#known.delete(tag)) return record();
    const mark = this.#place.begin();
    try {
      const { id, seq } = await this.publisher.publish(schema, event, idempotencyKey(this.account, key), rooms);
      this.#place.reached(id, seq);
    } catch (error) {
      if (error instanceof EventRefused) this.#place.end(mark);
      // Otherwise the event may be in the log: the place stays before it.
      throw error;
    }
    const recorded = record();
    const safe: PlaceRecord = { cursor: this.#place.safe, at: Date.now() };
    if (safe.cursor) await Promise.all([recorded, this.store.put("place", "log", safe)]);
    else await recorded;
    this.#place.end(mark);
  }
}
