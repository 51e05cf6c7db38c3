/** What every request gets: an event in its envelope, and an idempotency key. */

import { randomUUID } from "node:crypto";
import { clone, create, type DescMessage, isMessage, type Message as AnyMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { type NotifyRequest, NotifyRequestSchema, type Target } from "./gen/fanfare/v1/realtime_pb.js";

const TARGET = "fanfare.v1.Target";

/** An event with its schema, as `protoc-gen-es` generates them. */
export type Message<Desc extends DescMessage> = MessageInitShape<Desc>;

/** Where an event goes. */
export interface TargetOptions {
  /** For tokens of all tenants; otherwise the tenant is the token's. */
  tenant?: string;
  /** Exactly these rooms, instead of those that the event's type declares. */
  rooms?: string[];
  /**
   * Where the event has an identity of its own that outlives this process, such as the number of a row. Otherwise it is random.
   */
  idempotencyKey?: string;
  /** Sessions that do not get the event. */
  exceptSessions?: string[];
}

/** The request that publishes an event. */
export function notifyRequest<Desc extends DescMessage>(schema: Desc, event: Message<Desc>, to: TargetOptions): NotifyRequest {
  const message = create(schema, event);
  const target = { tenant: to.tenant ?? "", rooms: to.rooms ?? [], idempotencyKey: to.idempotencyKey || randomUUID(), exceptSessions: to.exceptSessions ?? [] };
  return create(NotifyRequestSchema, { target, event: anyPack(schema, message) });
}

/** The request with an idempotency key; undefined when it cannot have one, so that repeating it is not safe. */
export function keyed<Desc extends DescMessage>(schema: Desc, input: MessageInitShape<Desc>): MessageShape<Desc> | undefined {
  const field = schema.fields.find((f) => f.fieldKind === "message" && f.message.typeName === TARGET);
  if (field?.fieldKind !== "message") return undefined;
  // The caller's message is not ours to change.
  const message = isMessage(input, schema) ? clone(schema, input as MessageShape<Desc>) : create(schema, input);
  const fields = message as AnyMessage & Record<string, Target | undefined>;
  const target = (fields[field.localName] ??= create(field.message) as Target);
  target.idempotencyKey ||= randomUUID();
  return message;
}
