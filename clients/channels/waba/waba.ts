/** WhatsApp by the Cloud API: a webhook with signed requests, and sending by the Graph API. */

import { createHmac } from "node:crypto";
import type { Channel, Desk, Outbound } from "../common/channel.js";
import { Channel as Name } from "../common/gen/messenger/v1/messenger_pb.js";
import { aborted } from "../common/retry.js";
import type { ChannelModule } from "../common/run.js";
import { type AccountValues, SettingsError } from "../common/settings.js";
import { equalSecret, type Request } from "../common/webhooks.js";
import { GraphApi } from "./api.js";
import { MEDIA_SCHEME, meanings, type Notification } from "./notification.js";

export const waba: ChannelModule = {
  channel: "waba",
  settings: [
    { name: "phone-number-id", help: "The id of the phone number, not the number itself." },
    { name: "token", help: "The access token for the Graph API.", secret: true },
    { name: "app-secret", help: "The app's secret, with which Meta signs webhooks.", secret: true },
    { name: "verify-token", help: "What Meta sends when the webhook is registered; of your choice.", secret: true },
    { name: "api", help: "The Graph API's address.", default: "https://graph.facebook.com" },
    { name: "version", help: "The version of the Graph API.", default: "v23.0" },
    { name: "timeout", help: "How long the Graph API may take to answer.", default: "15s" },
    { name: "rate", help: "Messages per second.", default: "50" },
  ],
  open: (account) => new Waba(account),
};

class Waba implements Channel {
  readonly kind = Name.WABA;
  readonly textMax = 4_096;
  readonly captionMax = 1_024;
  readonly templates = true;
  readonly mediaScheme = MEDIA_SCHEME;
  readonly rate: number;
  readonly #api: GraphApi;
  readonly #phoneNumberId: string;
  readonly #appSecret: string;
  readonly #verifyToken: string;
  #desk: Desk | undefined;

  constructor({ values }: AccountValues) {
    this.rate = values.count("rate", 1_000);
    this.#phoneNumberId = values.required("phone-number-id");
    if (!/^\d{1,32}$/.test(this.#phoneNumberId)) throw new SettingsError(`${values.where}phone-number-id must be digits; it is not the phone number`);
    const version = values.required("version");
    if (!/^v\d{1,3}\.\d{1,2}$/.test(version)) throw new SettingsError(`${values.where}version must be e.g. "v23.0"`);
    this.#appSecret = values.secret("app-secret");
    this.#verifyToken = values.secret("verify-token");
    this.#api = new GraphApi(values.url("api"), version, this.#phoneNumberId, values.secret("token"), values.duration("timeout"));
  }

  refuse({ text, media }: Pick<Outbound, "text" | "media">): { path: string; why: string } | undefined {
    const isAudio = media?.type.startsWith("audio/");
    return isAudio && text ? { path: "text", why: "audio has no caption in WhatsApp; send the text as a message of its own" } : undefined;
  }

  async run(desk: Desk): Promise<void> {
    this.#desk = desk;
    desk.report(undefined);
    await aborted(desk.signal);
  }

  send({ number, chatId, text, media, template }: Outbound): Promise<string> {
    // Meta gives the callback data back with each status, so that a message is known even if the answer is lost.
    const message = { messaging_product: "whatsapp", recipient_type: "individual", to: chatId, biz_opaque_callback_data: String(number) };
    if (template) return this.#api.send({ ...message, type: "template", template: templateOf(template) });
    if (media) return this.#api.send({ ...message, ...mediaOf(media, text) });
    return this.#api.send({ ...message, type: "text", text: { body: text, preview_url: false } });
  }

  async webhook(request: Request): Promise<{ status: number; text?: string }> {
    if (request.method === "GET") return this.#verify(request.query);
    if (request.method !== "POST") return { status: 405, text: "want GET or POST" };
    const signature = `sha256=${createHmac("sha256", this.#appSecret).update(request.body).digest("hex")}`;
    if (!equalSecret(request.header("x-hub-signature-256"), signature)) return { status: 401, text: "the signature is wrong" };
    if (!this.#desk) return { status: 503, text: "starting; send it again" };
    let found;
    try {
      found = meanings(JSON.parse(request.body.toString("utf8")) as Notification, this.#phoneNumberId);
    } catch {
      return { status: 400, text: "the body is no notification" };
    }
    for (const one of found) {
      if (one.kind === "message") await this.#desk.receive(one.message);
      else if (one.kind === "status") await this.#desk.status(one.change);
      else this.#desk.ignore(one.what);
    }
    return { status: 200 };
  }

  #verify(query: URLSearchParams): { status: number; text?: string } {
    if (query.get("hub.mode") !== "subscribe" || !equalSecret(query.get("hub.verify_token") ?? "", this.#verifyToken)) {
      return { status: 403, text: "the verify token is wrong" };
    }
    const challenge = query.get("hub.challenge") ?? "";
    return /^[\w-]{1,128}$/.test(challenge) ? { status: 200, text: challenge } : { status: 400, text: "hub.challenge is malformed" };
  }
}

function mediaOf({ url, type, fileName }: NonNullable<Outbound["media"]>, caption: string): Record<string, unknown> {
  const kind = ["image", "video", "audio"].find((one) => type.startsWith(`${one}/`)) ?? "document";
  const file = url.startsWith(MEDIA_SCHEME) ? { id: url.slice(MEDIA_SCHEME.length) } : { link: url };
  const named = kind === "document" && fileName ? { filename: fileName } : {};
  return { type: kind, [kind]: { ...file, ...named, ...(caption ? { caption } : {}) } };
}

function templateOf({ name, language, parameters }: NonNullable<Outbound["template"]>): Record<string, unknown> {
  const body = { type: "body", parameters: parameters.map((text) => ({ type: "text", text })) };
  return { name, language: { code: language }, ...(parameters.length > 0 ? { components: [body] } : {}) };
}
