/** Publishes events, and tries again until Fanfare answers. */

import { readFileSync } from "node:fs";
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { type Client, connect, type FanfareError } from "@fanfare-dev/client";
import { addSecret, describe, log } from "./log.js";
import { publishes, retries } from "./metrics.js";
import { Backoff, sleep } from "./retry.js";

/** How long a token from a file is used before the file is read again, in milliseconds. */
const TOKEN_MS = 30_000;
/** The longest pause between two tries, in milliseconds. */
const PAUSE_MAX = 5_000;

/** Fanfare will never accept the event. */
export class EventRefused extends Error {}

/** The service stops; nothing is known about the event. */
export class Stopped extends Error {
  constructor() {
    super("the service stops");
  }
}

/** A token, or the file that has it. */
export function tokenSource(token: string | undefined, file: string | undefined): string | (() => string) {
  if (token !== undefined) {
    addSecret(token);
    return token;
  }
  let [text, until] = ["", 0];
  return () => {
    if (Date.now() > until) {
      text = readFileSync(file!, "utf8").trim();
      addSecret(text);
      until = Date.now() + TOKEN_MS;
    }
    return text;
  };
}

/** Publishes for one account. */
export class Publisher {
  readonly client: Client;
  /** Why the last try failed. */
  problem: string | undefined = "not tried yet";

  constructor(
    url: string,
    token: string | (() => string),
    readonly account: string,
    readonly tenant: string,
    readonly signal: AbortSignal,
  ) {
    this.client = connect(url, token);
  }

  /** Publishes one event; resolves once it is in the log. Throws EventRefused or Stopped. */
  async publish<Desc extends DescMessage>(schema: Desc, event: MessageInitShape<Desc>, idempotencyKey: string, rooms: string[] = []): Promise<{ id: string; seq: bigint }> {
    const backoff = new Backoff(200, PAUSE_MAX);
    for (;;) {
      if (this.signal.aborted) throw new Stopped();
      try {
        const { id, seq } = await this.client.notify(schema, event, { tenant: this.tenant, idempotencyKey, rooms, signal: this.signal });
        this.succeeded();
        publishes({ account: this.account, event: schema.name });
        return { id, seq };
      } catch (failure) {
        if (this.signal.aborted) throw new Stopped();
        const error = failure as FanfareError;
        if (["REASON_INVALID_ARGUMENT", "REASON_TOO_LARGE"].includes(error.reason ?? "")) throw new EventRefused(describe(error));
        this.failed(error);
        await sleep(Math.max(backoff.pause(), error.retryAfterMs || 0), this.signal);
      }
    }
  }

  succeeded(): void {
    if (this.problem && this.problem !== "not tried yet") log.info("Fanfare answers again", { account: this.account });
    this.problem = undefined;
  }

  failed(error: unknown): void {
    const problem = describe(error);
    if (problem !== this.problem) log.warn("Fanfare does not take an event; trying again", { account: this.account, error: problem });
    this.problem = problem;
    retries({ account: this.account, cause: "fanfare" });
  }

  close(): void {
    this.client.close();
  }
}
