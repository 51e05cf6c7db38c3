/** What an update of the Bot API means. Pure: no network, no state. */

import type { ChatInfo, Edit, Inbound } from "../common/channel.js";

interface User {
  first_name?: string;
  last_name?: string;
  username?: string;
}

interface File {
  file_id: string;
  mime_type?: string;
}

export interface Message {
  message_id: number;
  date: number;
  edit_date?: number;
  chat: User & { id: number; title?: string };
  from?: User;
  text?: string;
  caption?: string;
  photo?: File[];
  document?: File;
  audio?: File;
  video?: File;
  video_note?: File;
  voice?: File;
  animation?: File;
  sticker?: File & { emoji?: string };
  location?: { latitude: number; longitude: number };
  contact?: { phone_number: string; first_name: string };
}

export interface Update {
  update_id: number;
  message?: Message;
  edited_message?: Message;
}

/** The updates that we ask for. */
export const ALLOWED_UPDATES = ["message", "edited_message"];
export const MEDIA_SCHEME = "telegram:";

export type Meaning = { kind: "message"; message: Inbound } | { kind: "edit"; edit: Edit } | { kind: "ignored"; what: string };

/** Throws TypeError for an update that is none. */
export function meaning(update: Update): Meaning {
  const { message, edited_message: edited } = update;
  const found = message ?? edited;
  if (!found) return { kind: "ignored", what: "other" };
  if (!Number.isSafeInteger(found.chat?.id) || !Number.isSafeInteger(found.message_id) || !Number.isSafeInteger(found.date)) {
    throw new TypeError("the update has a message without chat, message_id or date");
  }
  const content = contentOf(found);
  if (!content) return { kind: "ignored", what: "service_message" };
  const [chat, id] = [chatOf(found), String(found.message_id)];
  if (edited) return { kind: "edit", edit: { chat, id, text: content.text, at: (found.edit_date ?? found.date) * 1_000, order: update.update_id } };
  const senderName = nameOf(found.from ?? found.chat);
  return { kind: "message", message: { chat, id, at: found.date * 1_000, ...content, ...(senderName ? { senderName } : {}) } };
}

function contentOf(message: Message): Pick<Inbound, "text" | "media"> | undefined {
  const file = fileOf(message);
  if (file) return { text: message.caption ?? message.sticker?.emoji ?? "", media: { url: MEDIA_SCHEME + file[0].file_id, type: file[0].mime_type ?? file[1] } };
  if (message.text !== undefined) return { text: message.text };
  if (message.location) return { text: `geo:${message.location.latitude},${message.location.longitude}` };
  if (message.contact) return { text: `${message.contact.first_name} ${message.contact.phone_number}` };
  return undefined;
}

/** The file of a message and its type where Telegram does not say it. */
function fileOf({ photo, document, audio, video, video_note, voice, animation, sticker }: Message): [File, string] | undefined {
  // Photos come in several sizes, the largest last.
  const largest = photo?.at(-1);
  if (largest) return [largest, "image/jpeg"];
  // An animation is also given as a document.
  if (animation) return [animation, "video/mp4"];
  if (document) return [document, "application/octet-stream"];
  if (audio) return [audio, "audio/mpeg"];
  if (video) return [video, "video/mp4"];
  if (video_note) return [video_note, "video/mp4"];
  if (voice) return [voice, "audio/ogg"];
  if (sticker) return [sticker, "image/webp"];
  return undefined;
}

function chatOf({ chat }: Message): ChatInfo {
  return { id: String(chat.id), name: chat.title ?? nameOf(chat) };
}

function nameOf({ first_name, last_name, username }: User): string {
  return [first_name, last_name].filter(Boolean).join(" ") || username || "";
}
