/** What the library's events mean. Pure: no network, no state. */

import type { Edit, Inbound, StatusChange } from "../common/channel.js";
import type { Content, Key, Media, WebMessage } from "./library.js";

export const MEDIA_SCHEME = "whatsapp:";

export type Meaning = { kind: "message"; message: Inbound } | { kind: "edit"; edit: Edit } | { kind: "ignored"; what: string };

/** The number of a status in the library: 0 error, 1 pending, 2 taken by WhatsApp, 3 delivered, 4 read, 5 played. */
const STATUSES: Record<number, StatusChange["status"]> = { 0: "failed", 2: "sent", 3: "delivered", 4: "read", 5: "read" };

export function meaning({ key, message, messageTimestamp, pushName }: WebMessage): Meaning {
  const { remoteJid: chatId, id } = key;
  if (!chatId || !id || !message) return { kind: "ignored", what: "empty" };
  // Stories and channels are no chats.
  if (chatId === "status@broadcast" || chatId.endsWith("@newsletter")) return { kind: "ignored", what: "broadcast" };
  const at = Number(messageTimestamp ?? 0) * 1_000;
  const isGroup = chatId.endsWith("@g.us");
  const name = key.fromMe || isGroup ? "" : (pushName ?? "");
  const chat = { id: chatId, name: name || (isGroup ? "Group" : `+${chatId.split("@")[0]}`) };
  const change = message.protocolMessage;
  if (change) {
    const text = change.editedMessage ? contentOf(change.editedMessage) : undefined;
    if (!text || !change.key?.id) return { kind: "ignored", what: "protocol" };
    const changed = Number(change.timestampMs ?? at) || at;
    return { kind: "edit", edit: { chat, id: change.key.id, text: text.text, at: changed, order: 0 } };
  }
  const content = contentOf(message, id);
  if (!content) return { kind: "ignored", what: "other" };
  const senderName = key.fromMe ? "" : (pushName ?? "");
  return { kind: "message", message: { chat, id, at, ...content, fromMe: key.fromMe ?? false, ...(senderName ? { senderName } : {}) } };
}

function contentOf(message: Content, id = ""): Pick<Inbound, "text" | "media"> | undefined {
  const inner = message.ephemeralMessage?.message ?? message.documentWithCaptionMessage?.message;
  if (inner) return contentOf(inner, id);
  const file = fileOf(message);
  if (file) return { text: file[0].caption ?? "", media: { url: MEDIA_SCHEME + id, type: file[0].mimetype ?? file[1] } };
  const { locationMessage: place, contactMessage, reactionMessage } = message;
  if (place) return { text: `geo:${place.degreesLatitude ?? 0},${place.degreesLongitude ?? 0}` };
  const text = message.conversation ?? message.extendedTextMessage?.text ?? contactMessage?.displayName ?? reactionMessage?.text;
  return text === undefined || text === null ? undefined : { text };
}

function fileOf({ imageMessage, videoMessage, audioMessage, documentMessage, stickerMessage }: Content): [Media, string] | undefined {
  if (imageMessage) return [imageMessage, "image/jpeg"];
  if (videoMessage) return [videoMessage, "video/mp4"];
  if (audioMessage) return [audioMessage, "audio/ogg"];
  if (documentMessage) return [documentMessage, "application/octet-stream"];
  return stickerMessage ? [stickerMessage, "image/webp"] : undefined;
}

/** A status of one of our own messages. */
export function statusOf(key: Key, status: number | null | undefined): StatusChange | undefined {
  const known = STATUSES[status ?? -1];
  if (!key.fromMe || !key.id || !known) return undefined;
  return { channelId: key.id, status: known, error: known === "failed" ? "WhatsApp refused the message" : undefined };
}
