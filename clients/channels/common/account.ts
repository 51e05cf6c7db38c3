/** One account of a channel: what customers write becomes events, what operators write goes to the outbox. */

import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Channel, ChatInfo, Desk, Edit, Inbound, StatusChange } from "./channel.js";
import { ChatStatus, MessageEditedSchema, NewChatSchema, NewMessageSchema, UserNotificationSchema } from "./gen/messenger/v1/messenger_pb.js";
import { number } from "./ids.js";
import { Journal } from "./journal.js";
import { Lanes } from "./lanes.js";
import { log } from "./log.js";
import { outboxMessages, ready, received, storeBytes } from "./metrics.js";
import { type Draft, Outbox } from "./outbox.js";
import { tags } from "./place.js";
import { EventRefused, type Publisher } from "./publisher.js";
import type { Store } from "./store.js";

/** How long a message is recognised when the channel sends it again: 7 days in milliseconds, as long as Meta repeats. */
const SEEN_MS = 7 * 24 * 3600 * 1000;
const SEEN_MAX = 200_000;
const CHATS_MAX = 1_000_000;
/** Messages from customers that wait to be published. */
const JOBS_MAX = 1_000;
/** Longest text from a customer, in characters. Channels have smaller bounds of their own. */
const TEXT_CHARS_MAX = 65_536;

interface StoredChat {
  number: string;
  at: number;
}

interface Seen {
  at: number;
  /** Of edits: when and in what order. */
  edit?: [number, number];
}

export interface AccountOptions {
  name: string;
  tenant: string;
  outboxMax: number;
  sendTimeoutMs: number;
}

/** What was published before the last stop is not known yet. */
export class Starting extends Error {
  constructor() {
    super("the service is starting and Fanfare has not answered yet; try again");
  }
}

export class Account implements Desk {
  readonly outbox: Outbox;
  readonly journal: Journal;
  readonly #lanes = new Lanes(JOBS_MAX);
  readonly #chatIds = new Map<string, string>();
  #problem: string | undefined = "not connected yet";
  #isOpen = false;

  constructor(
    readonly options: AccountOptions,
    readonly channel: Channel,
    readonly store: Store,
    readonly publisher: Publisher,
    readonly signal: AbortSignal,
  ) {
    this.journal = new Journal(options.name, publisher, store);
    this.outbox = new Outbox(options.name, channel, store, this.journal, options, signal);
    for (const [id, { number }] of store.all<StoredChat>("chat")) this.#chatIds.set(number, id);
  }

  /** Why the account cannot work at present. */
  get problem(): string | undefined {
    if (this.store.failed) return "the data folder cannot be written";
    return this.#problem ?? this.publisher.problem;
  }

  /** Connects to Fanfare and goes on with what was not finished. Before that nothing is taken. */
  async open(readBackAfterMs: number): Promise<void> {
    await this.journal.open(readBackAfterMs);
    if (this.signal.aborted) return;
    this.#isOpen = true;
    this.outbox.resume();
  }

  /** Throws Starting before the account is open. */
  checkOpen(): void {
    if (!this.#isOpen) throw new Starting();
  }

  /** The channel's id of a chat by its number. */
  chatId(number: bigint): string | undefined {
    return this.#chatIds.get(String(number));
  }

  async receive(message: Inbound): Promise<void> {
    this.checkOpen();
    const { chat, id } = message;
    const key = `${chat.id}/${id}`;
    await this.#lanes.run(chat.id, async () => {
      if (this.store.get<Seen>("seen", key)) return this.#count("message", "duplicate");
      const chatId = await this.#chat(chat, message.at);
      const event = {
        id: this.#message(chat, id), chatId, content: message.text.slice(0, TEXT_CHARS_MAX), fromMe: message.fromMe ?? false,
        timestamp: timestampFromMs(message.at), channel: this.channel.kind,
        ...(message.senderName ? { senderName: message.senderName } : {}),
        ...(message.media ? { mediaUrl: message.media.url, mediaType: message.media.type } : {}),
      };
      const record = () => this.store.put("seen", key, { at: Date.now() } satisfies Seen);
      await this.#publish("message", () => this.journal.publish(NewMessageSchema, event, { tag: tags.message(event.id), record }), record);
    });
  }

  async edit({ chat, id, text, at, order }: Edit): Promise<void> {
    this.checkOpen();
    const key = `${chat.id}/${id}/edit`;
    await this.#lanes.run(chat.id, async () => {
      const before = this.store.get<Seen>("seen", key)?.edit;
      if (before && (before[0] > at || (before[0] === at && before[1] >= order))) return this.#count("edit", "duplicate");
      const event = { messageId: this.#message(chat, id), chatId: await this.#chat(chat, at), content: text.slice(0, TEXT_CHARS_MAX), editedAt: timestampFromMs(at) };
      const record = () => this.store.put("seen", key, { at: Date.now(), edit: [at, order] } satisfies Seen);
      const tag = tags.edit(event.messageId, at, event.content);
      const publish = () => this.journal.publish(MessageEditedSchema, event, { tag, key: `${tag} ${order}`, record });
      await this.#publish("edit", publish, record);
    });
  }

  /** Stores and publishes a message of an operator. Throws what Outbox.accept throws, and Starting. */
  async send(draft: Draft): Promise<{ number: bigint; duplicate: boolean }> {
    this.checkOpen();
    return this.outbox.accept(draft);
  }

  async status(change: StatusChange): Promise<void> {
    this.checkOpen();
    const known = await this.outbox.status(change);
    this.#count("status", known ? "published" : "ignored");
  }

  isOwn(channelId: string): boolean {
    return this.outbox.has(channelId);
  }

  ignore(kind: string): void {
    this.#count(kind, "ignored");
  }

  report(problem: string | undefined): void {
    if (problem === this.#problem) return;
    if (problem) log.warn("the channel does not answer as it should", { account: this.options.name, error: problem });
    else log.info("channel connected", { account: this.options.name });
    this.#problem = problem;
  }

  async notice(users: string[], type: string, text: string, data: Record<string, string>, key: string): Promise<void> {
    for (const userId of users) {
      const event = { userId, type, message: text, data };
      await this.journal.publish(UserNotificationSchema, event, { tag: `notice ${userId} ${key}`, record: async () => {} });
    }
  }

  /** Sets the gauges. */
  observe(): void {
    const account = { account: this.options.name };
    outboxMessages(account, this.outbox.size);
    storeBytes(account, this.store.bytes);
    ready(account, this.problem ? 0 : 1);
  }

  /** Forgets what is too old. Called now and then. */
  prune(): void {
    const old = Date.now() - SEEN_MS;
    this.store.prune<Seen>("seen", SEEN_MAX, ({ at }) => at < old);
    this.store.prune<StoredChat>("chat", CHATS_MAX, () => false);
    this.outbox.prune();
  }

  /** Publishes what a customer did. An event that can never be published must not stop those after it. */
  async #publish(kind: string, publish: () => Promise<void>, skip: () => Promise<void>): Promise<void> {
    try {
      await publish();
      this.#count(kind, "published");
    } catch (error) {
      if (!(error instanceof EventRefused)) throw error;
      log.error("Fanfare refuses an event of a customer for good; it is left out", { account: this.options.name, error: error.message });
      this.#count(kind, "refused");
      await skip();
    }
  }

  /** The chat's number; publishes chat:new when the chat is new. Runs in the chat's lane. */
  async #chat({ id, name }: ChatInfo, at: number): Promise<bigint> {
    const known = this.store.get<StoredChat>("chat", id);
    if (known) return BigInt(known.number);
    const chat = number(this.options.name, "chat", id);
    const event = { id: chat, name: name || id, channel: this.channel.kind, status: ChatStatus.NEW, externalId: id, createdAt: timestampFromMs(at) };
    const record = async () => {
      this.#chatIds.set(String(chat), id);
      await this.store.put("chat", id, { number: String(chat), at: Date.now() } satisfies StoredChat);
    };
    await this.journal.publish(NewChatSchema, event, { tag: tags.chat(chat), record });
    return chat;
  }

  #message(chat: ChatInfo, id: string): bigint {
    return number(this.options.name, "in", chat.id, id);
  }

  #count(kind: string, outcome: string): void {
    received({ account: this.options.name, kind, outcome });
  }
}
