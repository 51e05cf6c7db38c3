/** Telegram by the Bot API: long polling or a webhook, and sending. */

import { type Channel, type Desk, type Outbound, SendError } from "../common/channel.js";
import { Channel as Name } from "../common/gen/messenger/v1/messenger_pb.js";
import { describe, log } from "../common/log.js";
import { retries } from "../common/metrics.js";
import { aborted, Backoff, sleep } from "../common/retry.js";
import type { ChannelModule } from "../common/run.js";
import { SettingsError, type Values } from "../common/settings.js";
import { equalSecret, type Request } from "../common/webhooks.js";
import { Api } from "./api.js";
import { ALLOWED_UPDATES, MEDIA_SCHEME, meaning, type Update } from "./updates.js";

/** How long Telegram holds a poll without updates, in seconds. */
const POLL_SECONDS = 25;
/** Updates per poll: the most that Telegram gives. */
const POLL_UPDATES = 100;

export const telegram: ChannelModule = {
  channel: "telegram",
  settings: [
    { name: "token", help: "The bot's token.", secret: true },
    { name: "mode", help: "polling, or webhook.", default: "polling" },
    { name: "webhook-url", help: "The public URL of the account's webhook, which is registered with Telegram, e.g. https://example.com/telegram." },
    { name: "webhook-secret", help: "What Telegram sends back with each webhook: 16 to 256 of A-Z, a-z, 0-9, '_' and '-'.", secret: true },
    { name: "api", help: "The Bot API's address.", default: "https://api.telegram.org" },
    { name: "timeout", help: "How long the Bot API may take to answer.", default: "15s" },
    { name: "rate", help: "Messages per second.", default: "25" },
  ],
  open: ({ name, values }) => {
    const mode = values.required("mode");
    if (mode !== "polling" && mode !== "webhook") throw new SettingsError(`${values.where}mode must be polling or webhook`);
    const api = new Api(values.url("api"), values.secret("token"), values.duration("timeout"));
    return mode === "polling" ? new TelegramPolling(api, name, values) : new TelegramWebhook(api, name, values);
  },
};

abstract class Telegram implements Channel {
  readonly kind = Name.TELEGRAM;
  readonly textMax = 4_096;
  readonly captionMax = 1_024;
  readonly templates = false;
  readonly mediaScheme = MEDIA_SCHEME;
  readonly rate: number;

  constructor(
    readonly api: Api,
    readonly account: string,
    values: Values,
  ) {
    this.rate = values.count("rate", 1_000);
  }

  abstract run(desk: Desk): Promise<void>;

  async send({ chatId, text, media }: Outbound): Promise<string> {
    const [method, parameters] = media ? mediaCall(media, text) : ["sendMessage", { text }];
    const { message_id: id } = await this.api.call<{ message_id: number }>(method, { chat_id: Number(chatId), ...parameters });
    return `${chatId}/${id}`;
  }

  /** Hands an update over; resolves once Fanfare has answered. */
  protected async take(desk: Desk, update: Update): Promise<void> {
    let found;
    try {
      found = meaning(update);
    } catch (error) {
      // Telegram would send it again for ever.
      log.error("an update cannot be read; it is left out", { account: this.account, update: update.update_id, error: describe(error) });
      return desk.ignore("malformed");
    }
    if (found.kind === "message") await desk.receive(found.message);
    else if (found.kind === "edit") await desk.edit(found.edit);
    else desk.ignore(found.what);
  }

  /** Calls a method until it succeeds; gives undefined when the service stops. */
  protected async insist(desk: Desk, method: string, parameters: Record<string, unknown>): Promise<void> {
    const backoff = new Backoff();
    while (!desk.signal.aborted) {
      try {
        await this.api.call(method, parameters, { signal: desk.signal });
        return desk.report(undefined);
      } catch (error) {
        await this.recover(desk, error, backoff);
      }
    }
  }

  protected async recover(desk: Desk, error: unknown, backoff: Backoff): Promise<void> {
    if (desk.signal.aborted) return;
    desk.report(describe(error));
    const known = error instanceof SendError ? error : undefined;
    retries({ account: this.account, cause: known?.label ?? "fanfare" });
    await sleep(Math.max(backoff.pause(), known?.retryAfterMs ?? 0), desk.signal);
  }
}

/** Telegram takes a file by its id or by a URL in the same parameter. */
function mediaCall({ url, type }: NonNullable<Outbound["media"]>, caption: string): [string, Record<string, unknown>] {
  const file = url.startsWith(MEDIA_SCHEME) ? url.slice(MEDIA_SCHEME.length) : url;
  const [method, field] = { image: ["sendPhoto", "photo"], video: ["sendVideo", "video"], audio: ["sendAudio", "audio"] }[type.split("/")[0]!] ?? ["sendDocument", "document"];
  return [method!, { [field!]: file, ...(caption ? { caption } : {}) }];
}

class TelegramPolling extends Telegram {
  /** Asks for updates after the last that Fanfare has answered: the next request acknowledges them to Telegram. */
  async run(desk: Desk): Promise<void> {
    // A webhook that is still registered makes getUpdates fail.
    await this.insist(desk, "deleteWebhook", { drop_pending_updates: false });
    const backoff = new Backoff();
    let offset: number | undefined;
    while (!desk.signal.aborted) {
      try {
        const asked = { timeout: POLL_SECONDS, limit: POLL_UPDATES, allowed_updates: ALLOWED_UPDATES, ...(offset === undefined ? {} : { offset }) };
        const updates = await this.api.call<Update[]>("getUpdates", asked, { waitMs: POLL_SECONDS * 1_000, signal: desk.signal });
        desk.report(undefined);
        const last = await this.#takeAll(desk, updates);
        if (last !== undefined) offset = last + 1;
        backoff.reset();
      } catch (error) {
        await this.recover(desk, error, backoff);
      }
    }
  }

  /** Chats at the same time, the updates of a chat in order. Gives the id of the last one once all are answered. */
  async #takeAll(desk: Desk, updates: Update[]): Promise<number | undefined> {
    const chats = new Map<number | undefined, Update[]>();
    for (const update of updates) {
      const chat = (update.message ?? update.edited_message)?.chat?.id;
      chats.set(chat, [...(chats.get(chat) ?? []), update]);
    }
    await Promise.all(
      [...chats.values()].map(async (list) => {
        for (const update of list) await this.take(desk, update);
      }),
    );
    return updates.at(-1)?.update_id;
  }
}

class TelegramWebhook extends Telegram {
  readonly #secret: string;
  readonly #url: string;
  #desk: Desk | undefined;

  constructor(api: Api, account: string, values: Values) {
    super(api, account, values);
    this.#url = values.url("webhook-url");
    this.#secret = values.secret("webhook-secret");
    if (!/^[A-Za-z0-9_-]{16,256}$/.test(this.#secret)) throw new SettingsError(`${values.where}webhook-secret must be 16 to 256 of A-Z, a-z, 0-9, '_' and '-'`);
  }

  async run(desk: Desk): Promise<void> {
    this.#desk = desk;
    await this.insist(desk, "setWebhook", { url: this.#url, secret_token: this.#secret, allowed_updates: ALLOWED_UPDATES });
    await aborted(desk.signal);
  }

  async webhook({ method, header, body }: Request): Promise<{ status: number; text?: string }> {
    if (method !== "POST") return { status: 405, text: "want POST" };
    if (!equalSecret(header("x-telegram-bot-api-secret-token"), this.#secret)) return { status: 401, text: "the secret token is wrong" };
    if (!this.#desk) return { status: 503, text: "starting; send it again" };
    let update: Update;
    try {
      update = JSON.parse(body.toString("utf8"));
    } catch {
      return { status: 400, text: "the body is no JSON" };
    }
    if (!Number.isSafeInteger(update?.update_id)) return { status: 400, text: "the body is no update" };
    await this.take(this.#desk, update);
    return { status: 200 };
  }
}
