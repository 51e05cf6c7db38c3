/**
 * The place in the tenant's log that an account has certainly recorded. Everything that it published and may not have
 * recorded, because the process died in between, is after this place. So it can be found again by reading from there.
 */

import { fromBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import type { Client } from "@fanfare-dev/client";
import { Realtime } from "./gen/fanfare/v1/realtime_pb.js";
import { idempotencyKey } from "./ids.js";
import { MessageEditedSchema, MessageStatusChangedSchema, NewChatSchema, NewMessageSchema } from "./gen/messenger/v1/messenger_pb.js";

/** An event that was begun and is not recorded. */
export interface Mark {
  after: string;
}

export class Place {
  #cursor: string;
  #seq = 0n;
  readonly #open = new Set<Mark>();

  constructor(cursor: string) {
    this.#cursor = cursor;
  }

  /** The log is known from here on. */
  start(cursor: string): void {
    this.#cursor = cursor;
  }

  /** An event is about to be published. */
  begin(): Mark {
    const mark = { after: this.#cursor };
    this.#open.add(mark);
    return mark;
  }

  /** An event is in the log here. */
  reached(cursor: string, seq: bigint): void {
    if (seq <= this.#seq) return;
    this.#cursor = cursor;
    this.#seq = seq;
  }

  /** The event is recorded. */
  end(mark: Mark): void {
    this.#open.delete(mark);
  }

  /** Sets are in order of insertion, and later events begin at later places. */
  get safe(): string {
    for (const mark of this.#open) return mark.after;
    return this.#cursor;
  }
}

/** Names an event of the log, so that it is not published again. */
export const tags = {
  chat: (chat: bigint) => `chat ${chat}`,
  message: (message: bigint) => `message ${message}`,
  /** The channel's clock may give two changes the same time. */
  edit: (message: bigint, at: number, content: string) => `edit ${message} ${at} ${idempotencyKey(content)}`,
  status: (message: bigint, status: number) => `status ${message} ${status}`,
};

function tagOf(type: string, value: Uint8Array): string | undefined {
  switch (type.slice(type.lastIndexOf("/") + 1)) {
    case NewChatSchema.typeName:
      return tags.chat(fromBinary(NewChatSchema, value).id);
    case NewMessageSchema.typeName:
      return tags.message(fromBinary(NewMessageSchema, value).id);
    case MessageEditedSchema.typeName: {
      const { messageId, editedAt, content } = fromBinary(MessageEditedSchema, value);
      return tags.edit(messageId, editedAt ? timestampMs(editedAt) : 0, content);
    }
    case MessageStatusChangedSchema.typeName: {
      const { messageId, status } = fromBinary(MessageStatusChangedSchema, value);
      return tags.status(messageId, status);
    }
    default:
      return undefined;
  }
}

/** The cursor of the end of the log. Throws what the server refuses with. */
export async function endOfLog(client: Client, tenant: string, signal: AbortSignal): Promise<string> {
  const stop = new AbortController();
  const answers = createClient(Realtime, client.transport).subscribe({ rooms: ["org"], tenant }, { signal: AbortSignal.any([signal, stop.signal]) });
  try {
    for await (const { kind } of answers) if (kind.case === "position") return kind.value.cursor;
    return "";
  } finally {
    stop.abort();
  }
}

/** The tags of all events after a cursor, up to now. Throws what the server refuses with. */
export async function readBack(client: Client, tenant: string, after: string, signal: AbortSignal): Promise<Set<string>> {
  const found = new Set<string>();
  const end = await endOfLog(client, tenant, signal);
  const stop = new AbortController();
  const answers = createClient(Realtime, client.transport).subscribe({ rooms: ["org"], tenant, after }, { signal: AbortSignal.any([signal, stop.signal]) });
  let begun = false;
  try {
    for await (const { kind } of answers) {
      if (kind.case === "position") {
        // The first says where the reading begins. The next comes with the heartbeat, when nothing is left to read.
        if (begun || kind.value.cursor === end) break;
        begun = true;
      } else if (kind.case === "event" && kind.value.seq > 0n) {
        const { id, payload } = kind.value;
        const tag = payload && tagOf(payload.typeUrl, payload.value);
        if (tag) found.add(tag);
        if (id === end) break;
      }
    }
  } finally {
    stop.abort();
  }
  return found;
}
