/** What a channel is to the shared code, and what the shared code is to a channel. */

import type { Channel as ChannelName } from "./gen/messenger/v1/messenger_pb.js";
import type { Request } from "./webhooks.js";

/** A chat as the channel knows it. */
export interface ChatInfo {
  /** Its id in the channel. */
  id: string;
  /** What operators see as its title. */
  name: string;
}

/** A message from a customer. */
export interface Inbound {
  chat: ChatInfo;
  /** The message's id in the channel; unique within the chat. */
  id: string;
  text: string;
  /** When it was written, in milliseconds since 1970. */
  at: number;
  senderName?: string;
  media?: { url: string; type: string };
  /** Written on the customer side of the desk's own account, e.g. with its phone. */
  fromMe?: boolean;
}

/** A customer changed a message. */
export interface Edit {
  chat: ChatInfo;
  id: string;
  text: string;
  /** When, in milliseconds since 1970. */
  at: number;
  /** Orders the changes of one message that happened at the same time. */
  order: number;
}

/** In the order in which a message passes through them; `failed` ends it before `delivered`. */
export const STATUSES = ["pending", "sent", "delivered", "read", "failed"] as const;
export type Status = (typeof STATUSES)[number];

/** The channel says how far a message has come. */
export interface StatusChange {
  /** The message's number, if the channel gives it back; else its id in the channel. */
  number?: bigint | undefined;
  channelId?: string | undefined;
  status: Status;
  error?: string | undefined;
}

/** A message to a customer. */
export interface Outbound {
  number: bigint;
  /** The chat's id in the channel. */
  chatId: string;
  text: string;
  media?: { url: string; type: string; fileName?: string };
  template?: { name: string; language: string; parameters: string[] };
}

/** A message could not be sent. `final`: trying again does not help. */
export class SendError extends Error {
  readonly final: boolean;
  /** Wait at least so long, in milliseconds. */
  readonly retryAfterMs: number;
  /** The limit is that of the whole account, not of the chat. */
  readonly accountWide: boolean;
  /** What failed, as the label of a metric. */
  readonly label: string;

  constructor(message: string, options: { final?: boolean; retryAfterMs?: number; accountWide?: boolean; label: string; cause?: unknown }) {
    super(message, { cause: options.cause });
    this.final = options.final ?? false;
    this.retryAfterMs = options.retryAfterMs ?? 0;
    this.accountWide = options.accountWide ?? false;
    this.label = options.label;
  }
}

/** What a channel gives to and asks of the shared code. `receive`, `edit` and `status` resolve once Fanfare has answered. */
export interface Desk {
  receive(message: Inbound): Promise<void>;
  edit(edit: Edit): Promise<void>;
  status(change: StatusChange): Promise<void>;
  /** Whether the message with this id in the channel is from the outbox. */
  isOwn(channelId: string): boolean;
  /** Counts something that has no event, e.g. "a member joined". */
  ignore(kind: string): void;
  /** The channel answers, or why it does not. */
  report(problem: string | undefined): void;
  /** A notice to operators. The `key` makes it unique. */
  notice(users: string[], type: string, text: string, data: Record<string, string>, key: string): Promise<void>;
  /** Ends when the service stops. */
  readonly signal: AbortSignal;
}

export interface Channel {
  readonly kind: ChannelName;
  /** Longest text and caption, in characters. */
  readonly textMax: number;
  readonly captionMax: number;
  readonly templates: boolean;
  /** What the account's own media references begin with, e.g. "telegram:". */
  readonly mediaScheme: string;
  /** Messages per second that the account may send. */
  readonly rate: number;
  /** The id in the channel that a message will have, where the channel lets us choose it. */
  plannedId?(number: bigint): string;
  /** Why the channel cannot send this, and the field that it is about. */
  refuse?(content: Pick<Outbound, "text" | "media" | "template">): { path: string; why: string } | undefined;
  /** Sends one message; gives its id in the channel. Throws SendError. */
  send(message: Outbound): Promise<string>;
  /** Answers a request at the account's webhook path. Absent: the account has no webhook. */
  webhook?(request: Request): Promise<{ status: number; text?: string }>;
  /** Runs until the signal of the desk ends it. */
  run(desk: Desk): Promise<void>;
}
