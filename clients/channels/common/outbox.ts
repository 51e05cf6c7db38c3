/**
 * An account's messages to customers: stored, published, sent in order per chat, and their statuses published in order.
 * Each is in the log once. The channel gets a message again only when its answer was lost.
 */

import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Channel, type Outbound, SendError, STATUSES, type Status, type StatusChange } from "./channel.js";
import { MessageStatus, MessageStatusChangedSchema, NewMessageSchema } from "./gen/messenger/v1/messenger_pb.js";
import { number } from "./ids.js";
import type { Journal } from "./journal.js";
import { Lanes, Slots } from "./lanes.js";
import { describe, log } from "./log.js";
import { retries, sends } from "./metrics.js";
import { Pace } from "./pace.js";
import { EventRefused, Stopped } from "./publisher.js";
import { Backoff, sleep } from "./retry.js";
import type { Store } from "./store.js";
import { tags } from "./place.js";

/** How long statuses of a message are accepted, and its repetition is recognised, in milliseconds: 7 days. */
const KEPT_MS = 7 * 24 * 3600 * 1000;
/** Messages that are remembered, the newest. */
const KEPT_MAX = 100_000;
/** Messages that are sent at the same time. */
const SENDS_MAX = 16;
/** Jobs that wait, beyond two per message of the outbox. */
const JOBS_MAX = 20_000;

/** A message in the store. */
interface Stored {
  chat: string;
  chatNumber: string;
  content: Omit<Outbound, "number" | "chatId">;
  user: string;
  userName: string;
  at: number;
  status: Status;
  /** The last status that was published. */
  publishedStatus: Status | null;
  /** It is in the log as message:new: a number that grows in the order of the log, or 0. */
  published: number;
  channelId: string;
  error: string;
}

export interface Draft {
  chat: { id: string; number: bigint };
  user: string;
  userName: string;
  clientMessageId: string;
  content: Stored["content"];
}

/** The outbox has as many messages as it may. */
export class OutboxFull extends Error {}

export class Outbox {
  readonly #waiting = new Set<string>();
  readonly #byChannelId = new Map<string, string>();
  readonly #messages: Lanes;
  readonly #order: Lanes;
  readonly #chats: Lanes;
  readonly #slots = new Slots(SENDS_MAX);
  readonly #pace: Pace;
  #lastPublished = 0;

  constructor(
    readonly account: string,
    readonly channel: Channel,
    readonly store: Store,
    readonly journal: Journal,
    readonly limits: { outboxMax: number; sendTimeoutMs: number },
    readonly signal: AbortSignal,
  ) {
    this.#pace = new Pace(channel.rate);
    this.#messages = new Lanes(2 * limits.outboxMax + JOBS_MAX);
    this.#order = new Lanes(2 * limits.outboxMax + JOBS_MAX);
    this.#chats = new Lanes(limits.outboxMax + SENDS_MAX);
    for (const [id, stored] of store.all<Stored>("out")) this.#index(id, stored);
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Whether a message has this id in the channel. */
  has(channelId: string): boolean {
    return this.#byChannelId.has(channelId);
  }

  /** Goes on with what was not finished when the process ended. */
  resume(): void {
    const open = [...this.store.all<Stored>("out")].filter(([, stored]) => stored.status === "pending" || stored.publishedStatus !== stored.status || !stored.published);
    // Those of a chat are sent in the order in which operators see them.
    open.sort(([, one], [, other]) => (one.published || Infinity) - (other.published || Infinity) || one.at - other.at);
    for (const [id] of open) void this.#finish(id);
  }

  /** Stores a message and publishes it; it is sent afterwards. Throws OutboxFull, EventRefused, Stopped. */
  async accept(draft: Draft): Promise<{ number: bigint; duplicate: boolean }> {
    const named = number(this.account, "out", draft.chat.id, draft.user, draft.clientMessageId);
    const id = String(named);
    const duplicate = await this.#messages.run(id, async () => {
      const before = this.#stored(id);
      if (!before) {
        if (this.#waiting.size >= this.limits.outboxMax) throw new OutboxFull(`${this.limits.outboxMax} messages wait to be sent already (setting outbox-max)`);
        await this.#put(id, {
          chat: draft.chat.id, chatNumber: String(draft.chat.number), content: draft.content, user: draft.user, userName: draft.userName,
          at: Date.now(), status: "pending", publishedStatus: null, published: 0, channelId: this.channel.plannedId?.(named) ?? "", error: "",
        });
      }
      await this.#publishInOrder(id);
      return before !== undefined;
    });
    if (!duplicate) void this.#finish(id);
    return { number: named, duplicate };
  }

  /** Takes what the channel says of a message; gives false when it is none of ours. */
  async status({ number, channelId, status, error = "" }: StatusChange): Promise<boolean> {
    const id = number === undefined ? this.#byChannelId.get(channelId ?? "") : String(number);
    if (id === undefined || !this.#stored(id)) return false;
    await this.#advance(id, status, { channelId: channelId ?? "", error });
    return true;
  }

  prune(): void {
    const old = Date.now() - KEPT_MS;
    this.store.prune<Stored>("out", KEPT_MAX, ({ at }) => at < old, ({ status, publishedStatus }) => status !== "pending" && publishedStatus === status);
    for (const [channelId, id] of this.#byChannelId) if (!this.#stored(id)) this.#byChannelId.delete(channelId);
  }

  #stored(id: string): Stored | undefined {
    return this.store.get<Stored>("out", id);
  }

  #index(id: string, { status, channelId, published }: Stored): void {
    this.#lastPublished = Math.max(this.#lastPublished, published);
    if (status === "pending") this.#waiting.add(id);
    else this.#waiting.delete(id);
    if (channelId) this.#byChannelId.set(channelId, id);
  }

  #put(id: string, stored: Stored): Promise<void> {
    this.#index(id, stored);
    return this.store.put("out", id, stored);
  }

  #nextPublished(): number {
    this.#lastPublished = Math.max(this.#lastPublished + 1, Date.now() * 1_000);
    return this.#lastPublished;
  }

  /** Publishes those of a chat one after the other, so that they are sent in the order of the log. */
  async #publishInOrder(id: string): Promise<void> {
    const stored = this.#stored(id);
    if (stored && !stored.published) await this.#order.run(stored.chat, () => this.#publish(id));
  }

  /** Publishes message:new, once. Runs in the message's lane. */
  async #publish(id: string): Promise<void> {
    const stored = this.#stored(id);
    if (!stored || stored.published) return;
    const { content, user, userName } = stored;
    const event = {
      id: BigInt(id), chatId: BigInt(stored.chatNumber), content: content.text || (content.template ? `[template ${content.template.name}]` : ""),
      fromMe: true, timestamp: timestampFromMs(stored.at), channel: this.channel.kind,
      ...(isInt64(user) ? { senderUserId: BigInt(user) } : {}),
      ...(userName ? { senderName: userName } : {}),
      ...(content.media ? { mediaUrl: content.media.url, mediaType: content.media.type } : {}),
    };
    try {
      await this.journal.publish(NewMessageSchema, event, {
        tag: tags.message(BigInt(id)),
        record: () => this.#put(id, { ...this.#stored(id)!, published: this.#nextPublished() }),
      });
    } catch (error) {
      // The caller gets the refusal. Nothing of the message is in the log, so it has no status either.
      if (error instanceof EventRefused) {
        this.#waiting.delete(id);
        await this.store.put("out", id, null);
      }
      throw error;
    }
  }

  /** Brings a message from any state to its end. */
  async #finish(id: string): Promise<void> {
    try {
      await this.#messages.run(id, () => this.#publishInOrder(id));
      const stored = this.#stored(id);
      if (!stored) return;
      if (stored.status === "pending") await this.#chats.run(stored.chat, () => this.#send(id));
      else await this.#messages.run(id, () => this.#publishStatus(id));
    } catch (error) {
      if (error instanceof Stopped) return;
      log.error("a message to a customer stays as it is until the service is started again", { account: this.account, message: id, error: describe(error) });
    }
  }

  /** Sends a message and repeats that until it is clear how it ended. Runs in the chat's lane. */
  async #send(id: string): Promise<void> {
    await this.#messages.run(id, () => this.#publishStatus(id));
    const backoff = new Backoff();
    for (;;) {
      const stored = this.#stored(id);
      // A status may have come although the answer was lost.
      if (!stored || stored.status !== "pending" || !(await this.#pace.take(this.signal))) return;
      try {
        const outbound: Outbound = { number: BigInt(id), chatId: stored.chat, ...stored.content };
        const channelId = await this.#slots.run(() => this.channel.send(outbound));
        return await this.#advance(id, "sent", { channelId, error: "" });
      } catch (failure) {
        if (this.signal.aborted || failure instanceof Stopped) return;
        const error = failure instanceof SendError ? failure : new SendError(describe(failure), { label: "internal", cause: failure });
        if (error.final || Date.now() - stored.at > this.limits.sendTimeoutMs) {
          return await this.#advance(id, "failed", { channelId: "", error: describe(error) });
        }
        const pause = Math.max(backoff.pause(), error.retryAfterMs);
        retries({ account: this.account, cause: error.label });
        log.warn("a message could not be sent; trying again", { account: this.account, message: id, error: describe(error), pause_ms: Math.round(pause) });
        if (error.accountWide) this.#pace.pause(pause);
        await sleep(pause, this.signal);
      }
    }
  }

  /** Takes a status if it is further than the one before, and publishes it. */
  #advance(id: string, status: Status, { channelId, error }: { channelId: string; error: string }): Promise<void> {
    return this.#messages.run(id, async () => {
      const stored = this.#stored(id);
      if (!stored) return;
      const further = isFurther(stored.status, status);
      if (!further && (!channelId || stored.channelId)) return this.#publishStatus(id);
      await this.#put(id, { ...stored, channelId: stored.channelId || channelId, ...(further ? { status, error } : {}) });
      if (further && (stored.status === "pending" || status === "failed")) {
        sends({ account: this.account, outcome: status === "failed" ? "failed" : "sent" });
      }
      if (status === "failed") log.warn("a message failed", { account: this.account, message: id, error });
      await this.#publishStatus(id);
    });
  }

  /** Publishes the present status, if it was not published. Runs in the message's lane. */
  async #publishStatus(id: string): Promise<void> {
    const stored = this.#stored(id);
    if (!stored || stored.publishedStatus === stored.status) return;
    const status = MessageStatus[stored.status.toUpperCase() as keyof typeof MessageStatus];
    const event = { messageId: BigInt(id), chatId: BigInt(stored.chatNumber), status, ...(stored.error ? { error: stored.error } : {}) };
    await this.journal.publish(MessageStatusChangedSchema, event, {
      tag: tags.status(BigInt(id), status),
      record: () => this.#put(id, { ...this.#stored(id)!, publishedStatus: stored.status }),
    });
  }
}

/** Statuses move forward only, and a message that was delivered cannot fail any more. */
export function isFurther(from: Status, to: Status): boolean {
  if (from === "failed") return false;
  if (to === "failed") return from === "pending" || from === "sent";
  return STATUSES.indexOf(to) > STATUSES.indexOf(from);
}

const isInt64 = (text: string) => /^\d{1,15}$/.test(text);
