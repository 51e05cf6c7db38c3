/** What a webhook of the Cloud API means. Pure: no network, no state. */

import type { Inbound, StatusChange } from "../common/channel.js";

interface Media {
  id?: string;
  mime_type?: string;
  caption?: string;
}

interface Message {
  id: string;
  from: string;
  timestamp: string;
  type: string;
  text?: { body?: string };
  image?: Media;
  video?: Media;
  audio?: Media;
  document?: Media;
  sticker?: Media;
  location?: { latitude: number; longitude: number };
  contacts?: { name?: { formatted_name?: string }; phones?: { phone?: string }[] }[];
  button?: { text?: string };
  interactive?: { button_reply?: { title?: string }; list_reply?: { title?: string } };
  reaction?: { emoji?: string };
}

interface StatusNotice {
  id: string;
  status: string;
  /** What we gave with the message: its number. */
  biz_opaque_callback_data?: string;
  errors?: { code?: number; title?: string; message?: string; error_data?: { details?: string } }[];
}

interface Value {
  metadata?: { phone_number_id?: string };
  contacts?: { wa_id?: string; profile?: { name?: string } }[];
  messages?: Message[];
  statuses?: StatusNotice[];
}

export interface Notification {
  object?: string;
  entry?: { changes?: { field?: string; value?: Value }[] }[];
}

export const MEDIA_SCHEME = "waba:";

export type Meaning = { kind: "message"; message: Inbound } | { kind: "status"; change: StatusChange } | { kind: "ignored"; what: string };

/** Everything that a webhook says, in its order. Of other phone numbers only that there is something. */
export function meanings(notification: Notification, phoneNumberId: string): Meaning[] {
  const found: Meaning[] = [];
  for (const change of (notification.entry ?? []).flatMap((entry) => entry.changes ?? [])) {
    const { value } = change;
    if (change.field !== "messages" || !value) found.push({ kind: "ignored", what: "other_field" });
    else if (value.metadata?.phone_number_id !== phoneNumberId) found.push({ kind: "ignored", what: "other_number" });
    else {
      for (const message of value.messages ?? []) found.push(messageOf(message, value));
      for (const status of value.statuses ?? []) found.push(statusOf(status));
    }
  }
  return found;
}

function messageOf(message: Message, { contacts = [] }: Value): Meaning {
  const { id, from, timestamp } = message;
  const at = Number(timestamp) * 1_000;
  if (typeof id !== "string" || !/^\d{1,20}$/.test(from) || !Number.isSafeInteger(at)) return { kind: "ignored", what: "malformed" };
  const name = contacts.find((contact) => contact.wa_id === from)?.profile?.name ?? "";
  return { kind: "message", message: { chat: { id: from, name: name || `+${from}` }, id, at, ...contentOf(message), ...(name ? { senderName: name } : {}) } };
}

function contentOf(message: Message): Pick<Inbound, "text" | "media"> {
  const [file, type] = fileOf(message);
  if (file?.id) return { text: file.caption ?? "", media: { url: MEDIA_SCHEME + file.id, type: file.mime_type ?? type } };
  const { text, location, contacts, button, interactive, reaction } = message;
  if (location) return { text: `geo:${location.latitude},${location.longitude}` };
  const people = contacts?.map((contact) => [contact.name?.formatted_name, contact.phones?.[0]?.phone].filter(Boolean).join(" ")).join("\n");
  // A type that is not known must not be lost: the operator sees that there is something.
  return { text: text?.body ?? people ?? button?.text ?? interactive?.button_reply?.title ?? interactive?.list_reply?.title ?? reaction?.emoji ?? `[${message.type}]` };
}

function fileOf({ image, video, audio, document, sticker }: Message): [Media | undefined, string] {
  if (image) return [image, "image/jpeg"];
  if (video) return [video, "video/mp4"];
  if (audio) return [audio, "audio/ogg"];
  if (document) return [document, "application/octet-stream"];
  return [sticker, "image/webp"];
}

function statusOf({ id, status, biz_opaque_callback_data: own, errors = [] }: StatusNotice): Meaning {
  if (status !== "sent" && status !== "delivered" && status !== "read" && status !== "failed") return { kind: "ignored", what: "status" };
  const { code, title, message, error_data: data } = errors[0] ?? {};
  const error = [code, message ?? title, data?.details].filter((part) => part !== undefined).join(" ");
  const number = own !== undefined && /^\d{1,16}$/.test(own) ? BigInt(own) : undefined;
  return { kind: "status", change: { number, channelId: id, status, error } };
}
