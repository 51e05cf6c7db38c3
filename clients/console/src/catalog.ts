// The loaded catalogs as the console shows them, read from the descriptors that the server sends.

import { createFileRegistry, fromBinary, getOption, hasOption, ScalarType } from "@bufbuild/protobuf";
import type { DescEnum, DescEnumValue, DescField, DescFile, DescMessage, DescMethod, DescOneof, DescService, FileRegistry } from "@bufbuild/protobuf";
import { FieldOptions_JSType, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import type { ListCatalogsResponse } from "./gen/fanfare/v1/admin_pb";
import {
  client as clientOption, event as eventOption, Fill, fill as fillOption, fill_claim, fill_text, internal as internalOption, notify as notifyOption,
  Presence, text as textOption, Transport, transport as transportOption, type ClientOptions, type EventOptions,
} from "./gen/fanfare/v1/catalog_pb";

export interface CatalogEvent {
  catalog: Catalog;
  name: string;
  type: DescMessage;
  options: EventOptions;
  comment: string;
  jsonSchema: string;
  /** The typed method that publishes it alone, where there is one. */
  publisher?: Producer;
}

/** What browsers may emit. */
export interface Call {
  catalog: Catalog;
  method: DescMethod;
  options: ClientOptions;
  comment: string;
}

/** A method by which services publish. */
export interface Producer {
  service: DescService;
  method: DescMethod;
  target: DescField;
  /** More than one: members of a oneof. */
  events: { field: DescField; type: DescMessage }[];
  /** Where it publishes instead of where the types declare. */
  rooms: string[];
  comment: string;
}

export interface Catalog {
  package: string;
  comment: string;
  transport: Transport;
  events: CatalogEvent[];
  calls: Call[];
  producers: Producer[];
  /** The method for consumers. */
  subscribe?: DescMethod;
  typescript: string;
  files: DescFile[];
}

export interface Catalogs {
  registry: FileRegistry;
  list: Catalog[];
}

export function readCatalogs(response: ListCatalogsResponse): Catalogs {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, response.descriptors));
  const packages = new Map<string, DescFile[]>();
  for (const file of registry.files) {
    const name = file.proto.package;
    packages.set(name, [...(packages.get(name) ?? []), file]);
  }
  const list: Catalog[] = [];
  for (const [name, files] of [...packages].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (!files.some((file) => messagesOf(file).some((message) => hasOption(message, eventOption)))) continue;
    list.push(catalogOf(name, files, response));
  }
  return { registry, list };
}

function messagesOf(owner: DescFile | DescMessage): DescMessage[] {
  const own = owner.kind === "file" ? owner.messages : owner.nestedMessages;
  return own.flatMap((message) => [message, ...messagesOf(message)]);
}

function catalogOf(name: string, files: DescFile[], response: ListCatalogsResponse): Catalog {
  const info = response.catalogs.find((c) => c.package === name);
  const main = files.find((file) => file.services.length > 0) ?? files[0]!;
  const catalog: Catalog = {
    package: name,
    comment: locationComment(main, [2]) || locationComment(main, [12]),
    transport: getOption(main, transportOption),
    events: [],
    calls: [],
    producers: [],
    typescript: info?.typescript ?? "",
    files,
  };
  for (const type of files.flatMap(messagesOf)) {
    if (!hasOption(type, eventOption)) continue;
    const options = getOption(type, eventOption);
    const jsonSchema = info?.events.find((e) => e.type === type.typeName)?.jsonSchema ?? "";
    catalog.events.push({ catalog, name: options.name, type, options, comment: commentOf(type), jsonSchema });
  }
  for (const method of files.flatMap((file) => file.services).flatMap((service) => service.methods)) {
    const comment = commentOf(method);
    if (hasOption(method, clientOption)) {
      catalog.calls.push({ catalog, method, options: getOption(method, clientOption), comment });
    } else if (method.methodKind === "server_streaming") {
      catalog.subscribe ??= method;
    } else if (method.methodKind === "unary") {
      const target = method.input.fields.find((f) => f.message?.typeName === "fanfare.v1.Target");
      const events = method.input.fields.flatMap((field) => (field.fieldKind === "message" && hasOption(field.message, eventOption) ? [{ field, type: field.message }] : []));
      if (!target || events.length === 0) continue;
      const producer = { service: method.parent, method, target, events, rooms: getOption(method, notifyOption).rooms, comment };
      catalog.producers.push(producer);
      if (events.length === 1) {
        const event = catalog.events.find((e) => e.type === events[0]!.type);
        if (event) event.publisher ??= producer;
      }
    }
  }
  return catalog;
}

type Commented = DescMessage | DescEnum | DescService | DescMethod | DescField | DescOneof | DescEnumValue;

/** Where an element stands in its file's descriptor, as source positions name it. */
function pathOf(desc: Commented): number[] {
  switch (desc.kind) {
    case "message":
      return desc.parent ? [...pathOf(desc.parent), 3, desc.parent.proto.nestedType.indexOf(desc.proto)] : [4, desc.file.proto.messageType.indexOf(desc.proto)];
    case "enum":
      return desc.parent ? [...pathOf(desc.parent), 4, desc.parent.proto.enumType.indexOf(desc.proto)] : [5, desc.file.proto.enumType.indexOf(desc.proto)];
    case "service":
      return [6, desc.file.proto.service.indexOf(desc.proto)];
    case "rpc":
      return [...pathOf(desc.parent), 2, desc.parent.proto.method.indexOf(desc.proto)];
    case "field":
      return [...pathOf(desc.parent), 2, desc.parent.proto.field.indexOf(desc.proto)];
    case "oneof":
      return [...pathOf(desc.parent), 8, desc.parent.proto.oneofDecl.indexOf(desc.proto)];
    case "enum_value":
      return [...pathOf(desc.parent), 2, desc.parent.proto.value.indexOf(desc.proto)];
  }
}

const located = new WeakMap<DescFile, Map<string, string>>();

function locationComment(file: DescFile, path: number[]): string {
  let comments = located.get(file);
  if (!comments) {
    comments = new Map();
    for (const { path: at, leadingComments, trailingComments } of file.proto.sourceCodeInfo?.location ?? []) {
      const text = (leadingComments || trailingComments).trim();
      if (text) comments.set(at.join("."), text.split("\n").map((line) => line.trim()).join("\n"));
    }
    located.set(file, comments);
  }
  return comments.get(path.join(".")) ?? "";
}

/** What the .proto says of an element. */
export function commentOf(desc: Commented): string {
  const file = desc.kind === "field" || desc.kind === "oneof" || desc.kind === "enum_value" || desc.kind === "rpc" ? desc.parent.file : desc.file;
  return locationComment(file, pathOf(desc));
}

/** A value's text in browser JSON. */
export const enumText = (value: DescEnumValue): string => (hasOption(value, textOption) ? getOption(value, textOption) : value.name);
export const isInternal = (field: DescField): boolean => getOption(field, internalOption);
/** A 64-bit integer that is a number in browser JSON. */
export const isJsNumber = (field: DescField): boolean => field.proto.options?.jstype === FieldOptions_JSType.JS_NUMBER;

const FILLS: Record<Fill, string> = {
  [Fill.UNSPECIFIED]: "",
  [Fill.EVENT_ID]: "the event's id",
  [Fill.TIME]: "the time",
  [Fill.USER_ID]: "the caller's user id",
  [Fill.USER_NAME]: "the caller's name",
  [Fill.SESSION_ID]: "the caller's session id",
  [Fill.MEMBER_ID]: "a member's user id",
  [Fill.MEMBER_NAME]: "a member's name",
  [Fill.MEMBER_ONLINE]: "whether the member is online",
  [Fill.HISTORY_CURSOR]: "where the next page begins",
  [Fill.HISTORY_MORE]: "whether there may be older events",
};

/** What the server writes into the field when a browser's call makes the message. */
export function stampOf(field: DescField): string {
  const claim = getOption(field, fill_claim);
  if (claim) return `the claim ${claim}`;
  const text = getOption(field, fill_text);
  if (text) return `“${text}”`;
  return FILLS[getOption(field, fillOption)] ?? "";
}

export const PRESENCES: Record<Presence, string> = {
  [Presence.UNSPECIFIED]: "",
  [Presence.CONNECTED]: "a session is ready",
  [Presence.ONLINE]: "a user's first session is ready",
  [Presence.OFFLINE]: "a user's last session is gone",
  [Presence.JOINED]: "a user enters the room",
  [Presence.LEFT]: "a user leaves the room",
};

/** What a call does, in the order in which it happens: `what`, and the room, event or service that it concerns. */
export interface Effect {
  kind: string;
  what: string;
  of: string;
  more?: string;
}

export function effectsOf({ options }: Call): Effect[] {
  const effects: Effect[] = [];
  if (options.upstream) effects.push({ kind: "upstream", what: "asks the service", of: options.upstream });
  if (options.query) effects.push({ kind: "query", what: "lists who is in", of: options.query });
  if (options.history) effects.push({ kind: "history", what: "gives stored events of", of: options.history.room });
  if (options.publish) effects.push({ kind: "publish", what: "publishes", of: options.publish, ...(options.exceptCaller ? { more: "except to the caller" } : {}) });
  if (options.reply) effects.push({ kind: "reply", what: "answers with", of: options.reply });
  if (options.join) effects.push({ kind: "join", what: "enters", of: options.join, ...(options.state ? { more: "and gets its state" } : {}) });
  if (options.leave) effects.push({ kind: "leave", what: "leaves", of: options.leave });
  return effects;
}

const LONG = new Set([ScalarType.INT64, ScalarType.UINT64, ScalarType.SINT64, ScalarType.FIXED64, ScalarType.SFIXED64]);
export const isLong = (scalar: ScalarType): boolean => LONG.has(scalar);

/** Messages whose JSON is not an object of their fields. */
const KNOWN: Record<string, string> = {
  "google.protobuf.Timestamp": "string, a time",
  "google.protobuf.Duration": "string, e.g. “1.5s”",
  "google.protobuf.Struct": "object",
  "google.protobuf.Value": "any JSON",
  "google.protobuf.ListValue": "array",
  "google.protobuf.FieldMask": "string",
  "google.protobuf.Any": "object with @type",
  "google.protobuf.Empty": "{}",
  "google.protobuf.StringValue": "string",
  "google.protobuf.BytesValue": "string, base64",
  "google.protobuf.BoolValue": "boolean",
  "google.protobuf.Int32Value": "number",
  "google.protobuf.UInt32Value": "number",
  "google.protobuf.FloatValue": "number",
  "google.protobuf.DoubleValue": "number",
  "google.protobuf.Int64Value": "string, an integer",
  "google.protobuf.UInt64Value": "string, an integer",
};
export const isKnown = (type: DescMessage): boolean => type.typeName in KNOWN;

function scalarText(scalar: ScalarType, number: boolean): string {
  if (scalar === ScalarType.STRING) return "string";
  if (scalar === ScalarType.BYTES) return "string, base64";
  if (scalar === ScalarType.BOOL) return "boolean";
  if (isLong(scalar)) return number ? "number" : "string, an integer";
  return "number";
}

const enumUnion = (type: DescEnum): string => type.values.map((value) => `"${enumText(value)}"`).join(" | ");

function singular(field: DescField): string {
  if (field.enum) return field.enum.values.length <= 8 ? enumUnion(field.enum) : field.enum.name;
  if (field.message) return KNOWN[field.message.typeName] ?? field.message.name;
  const scalar = field.fieldKind === "list" || field.fieldKind === "map" || field.fieldKind === "scalar" ? field.scalar : undefined;
  return scalar === undefined ? "" : scalarText(scalar, isJsNumber(field));
}

/** A field's type as browsers see it. */
export function browserType(field: DescField): string {
  const one = singular(field);
  if (field.fieldKind === "map") return `{ [${scalarText(field.mapKey, false)}]: ${one} }`;
  if (field.fieldKind === "list") return one.includes("|") || one.includes(",") ? `(${one})[]` : `${one}[]`;
  return one;
}

/** Message types that a type's fields hold, each once. */
export function heldTypes(type: DescMessage): DescMessage[] {
  const found: DescMessage[] = [];
  const visit = (message: DescMessage) => {
    for (const { message: held } of message.fields) {
      if (!held || isKnown(held) || held === type || found.includes(held)) continue;
      found.push(held);
      visit(held);
    }
  };
  visit(type);
  return found;
}
