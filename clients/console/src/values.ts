// Values of a message while a person composes them: made, checked field by field, and turned into bytes or browser JSON.
//
// A draft is browser JSON with two liberties: numbers may be the text that was typed, and maps are lists of entries.

import { fromJson, ScalarType, toBinary, type DescEnum, type DescField, type DescMessage, type FileRegistry, type JsonValue } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { enumText, isInternal, isJsNumber, isKnown, isLong } from "./catalog";

export type Draft = string | number | boolean | null | MapDraft | Draft[] | { [field: string]: Draft };
export class MapDraft {
  constructor(readonly entries: [string, Draft][]) {}
}
export type Fields = { [field: string]: Draft };
/** Why a field is refused, by its path as browsers name it: `users[2].userId`. */
export type Problems = Map<string, string>;

/** Who sees the message: services see internal fields, browsers do not. */
export type Side = "service" | "browser";
export const fieldsFor = (type: DescMessage, side: Side): DescField[] => type.fields.filter((field) => side === "service" || !isInternal(field));

export const isFields = (draft: Draft | undefined): draft is Fields =>
  typeof draft === "object" && draft !== null && !Array.isArray(draft) && !(draft instanceof MapDraft);

export const at = (path: string, field: string): string => (path ? `${path}.${field}` : field);

/** A field's value when it is added or not set. */
export function emptyValue(field: DescField, side: Side): Draft {
  if (field.fieldKind === "list") return [];
  if (field.fieldKind === "map") return new MapDraft([]);
  return emptyElement(field, side);
}

/** Of a list or map, one element; else the field itself. */
export function emptyElement(field: DescField, side: Side): Draft {
  if (field.enum) return enumText(field.enum.values[0]!);
  if (field.message) return emptyMessage(field.message, side);
  if (field.scalar === ScalarType.BOOL) return false;
  if (field.scalar === ScalarType.STRING || field.scalar === ScalarType.BYTES) return "";
  return "0";
}

export function emptyMessage(type: DescMessage, side: Side): Draft {
  switch (type.typeName) {
    case "google.protobuf.Timestamp":
      return new Date().toISOString();
    case "google.protobuf.Duration":
      return "1s";
    case "google.protobuf.ListValue":
      return [];
    case "google.protobuf.BoolValue":
      return false;
    case "google.protobuf.Value":
      return null;
    case "google.protobuf.Struct":
    case "google.protobuf.Empty":
    case "google.protobuf.Any":
      return {};
  }
  if (isKnown(type)) return type.typeName.endsWith("StringValue") || type.typeName.endsWith("BytesValue") || type.typeName.endsWith("FieldMask") ? "" : "0";
  const fields: Fields = {};
  for (const field of fieldsFor(type, side)) if (isAlwaysThere(field)) fields[field.jsonName] = emptyValue(field, side);
  return fields;
}

/** Has no presence: it is there with its default. */
export const isAlwaysThere = (field: DescField): boolean =>
  field.oneof === undefined && field.presence !== FeatureSet_FieldPresence.EXPLICIT;

export interface Identity {
  userId: string;
}

/** A message that looks like a real one: what a person would first want to send. */
export function sampleOf(type: DescMessage, side: Side, who: Identity): Fields {
  return sample(type, side, who, 0);
}

function sample(type: DescMessage, side: Side, who: Identity, depth: number): Fields {
  const fields: Fields = {};
  const chosen = new Set<string>();
  for (const field of fieldsFor(type, side)) {
    if (field.oneof) {
      if (chosen.has(field.oneof.name)) continue;
      chosen.add(field.oneof.name);
    } else if (field.presence === FeatureSet_FieldPresence.EXPLICIT && (field.fieldKind !== "message" || field.proto.proto3Optional)) {
      continue;
    }
    if (field.fieldKind === "message" && depth >= 3) continue;
    if (field.fieldKind === "list" || field.fieldKind === "map") {
      const one = sampleElement(field, side, who, depth);
      fields[field.jsonName] = field.fieldKind === "list" ? [one] : new MapDraft([[field.mapKey === ScalarType.STRING ? "key" : field.mapKey === ScalarType.BOOL ? "true" : "1", one]]);
    } else {
      fields[field.jsonName] = sampleElement(field, side, who, depth);
    }
  }
  return fields;
}

function sampleElement(field: DescField, side: Side, who: Identity, depth: number): Draft {
  if (field.enum) return enumText(field.enum.values[1] ?? field.enum.values[0]!);
  if (field.message) return isKnown(field.message) ? emptyMessage(field.message, side) : sample(field.message, side, who, depth + 1);
  return sampleScalar(field.scalar, field.name, who);
}

/** Words for texts by what their field is called. */
const WORDS: [RegExp, string][] = [
  [/^(content|text|message|body|last_message)$/, "Hello from the console"],
  [/title|subject/, "Water the plants"],
  [/name|^from$/, "Grace Hopper"],
  [/url|link/, "https://example.com/picture.png"],
  [/mail/, "grace@example.com"],
  [/currency/, "EUR"],
  [/priority/, "high"],
  [/status/, "open"],
  [/^(type|kind)$/, "info"],
];

function sampleScalar(scalar: ScalarType, name: string, who: Identity): Draft {
  const person = /user|owner|sender|recipient|read_by|customer|author/.test(name) && !/name/.test(name);
  if (scalar === ScalarType.STRING) {
    if (person) return who.userId;
    if (/(^|_)ids?$/.test(name)) return /chat|dialog|room|order/.test(name) ? "7" : "1";
    return WORDS.find(([pattern]) => pattern.test(name))?.[1] ?? "text";
  }
  if (scalar === ScalarType.BOOL) return false;
  if (scalar === ScalarType.BYTES) return "aGVsbG8=";
  if (person && /^\d+$/.test(who.userId)) return who.userId;
  if (/_id$/.test(name)) return "7";
  return "1";
}

/** Browser JSON as a draft. */
export function draftOf(type: DescMessage, json: JsonValue): Draft {
  if (isKnown(type) || typeof json !== "object" || json === null || Array.isArray(json)) return json as Draft;
  const fields: Fields = {};
  for (const [key, value] of Object.entries(json)) {
    const field = type.fields.find((f) => f.jsonName === key);
    fields[key] = field ? fieldDraft(field, value) : (value as Draft);
  }
  return fields;
}

function fieldDraft(field: DescField, json: JsonValue): Draft {
  const one = (value: JsonValue): Draft => (field.message ? draftOf(field.message, value) : (value as Draft));
  if (field.fieldKind === "list" && Array.isArray(json)) return json.map(one);
  if (field.fieldKind === "map" && typeof json === "object" && json !== null && !Array.isArray(json)) {
    return new MapDraft(Object.entries(json).map(([key, value]) => [key, one(value)]));
  }
  return one(json);
}

export interface Checked {
  problems: Problems;
  /** As browsers see and emit it. */
  json: JsonValue;
  /** The protobuf bytes, when nothing is wrong. */
  bytes?: Uint8Array;
}

/** Checks every field. */
export function check(type: DescMessage, draft: Draft, side: Side, registry: FileRegistry): Checked {
  const checker = new Checker(side);
  const { json, canonical } = checker.message(type, draft, "");
  const { problems } = checker;
  if (problems.size > 0) return { problems, json };
  try {
    return { problems, json, bytes: toBinary(type, fromJson(type, canonical, { registry })) };
  } catch (error) {
    problems.set("", error instanceof Error ? error.message : String(error));
    return { problems, json };
  }
}

/** A value twice: as browsers have it, and in protobuf's own JSON. */
interface Both {
  json: JsonValue;
  canonical: JsonValue;
}
const same = (json: JsonValue): Both => ({ json, canonical: json });

const RANGES = new Map<ScalarType, [bigint, bigint]>([
  [ScalarType.INT32, [-(2n ** 31n), 2n ** 31n - 1n]],
  [ScalarType.SINT32, [-(2n ** 31n), 2n ** 31n - 1n]],
  [ScalarType.SFIXED32, [-(2n ** 31n), 2n ** 31n - 1n]],
  [ScalarType.UINT32, [0n, 2n ** 32n - 1n]],
  [ScalarType.FIXED32, [0n, 2n ** 32n - 1n]],
  [ScalarType.INT64, [-(2n ** 63n), 2n ** 63n - 1n]],
  [ScalarType.SINT64, [-(2n ** 63n), 2n ** 63n - 1n]],
  [ScalarType.SFIXED64, [-(2n ** 63n), 2n ** 63n - 1n]],
  [ScalarType.UINT64, [0n, 2n ** 64n - 1n]],
  [ScalarType.FIXED64, [0n, 2n ** 64n - 1n]],
]);
const SAFE = BigInt(Number.MAX_SAFE_INTEGER);
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/;
const DURATION = /^-?\d+(\.\d{1,9})?s$/;
const BASE64 = /^[A-Za-z0-9+/_-]*={0,2}$/;

class Checker {
  readonly problems: Problems = new Map();

  constructor(private readonly side: Side) {}

  private refuse(path: string, why: string, value: JsonValue = null): Both {
    if (!this.problems.has(path)) this.problems.set(path, why);
    return same(value);
  }

  message(type: DescMessage, draft: Draft, path: string): Both {
    if (isKnown(type)) return this.known(type, draft, path);
    if (!isFields(draft)) return this.refuse(path, `Give an object with the fields of ${type.name}.`, plain(draft));
    const json: Record<string, JsonValue> = {};
    const canonical: Record<string, JsonValue> = {};
    const fields = fieldsFor(type, this.side);
    const chosen = new Map<string, string>();
    for (const [key, value] of Object.entries(draft)) {
      const field = fields.find((f) => f.jsonName === key);
      if (!field) {
        const hint = fields.length > 0 ? `Fields are ${fields.map((f) => f.jsonName).join(", ")}.` : "It has no fields.";
        this.refuse(at(path, key), `${type.name} has no field “${key}”. ${hint}`);
        json[key] = plain(value);
        continue;
      }
      if (field.oneof) {
        const other = chosen.get(field.oneof.name);
        if (other) this.refuse(at(path, key), `Only one of ${field.oneof.name} can be set, and ${other} is.`);
        chosen.set(field.oneof.name, key);
      }
      const both = this.field(field, value, at(path, key));
      json[key] = both.json;
      canonical[key] = both.canonical;
    }
    return { json, canonical };
  }

  private field(field: DescField, draft: Draft, path: string): Both {
    if (field.fieldKind === "list") {
      if (!Array.isArray(draft)) return this.refuse(path, "Give a list.", plain(draft));
      const all = draft.map((element, index) => this.element(field, element, `${path}[${index}]`));
      return { json: all.map((b) => b.json), canonical: all.map((b) => b.canonical) };
    }
    if (field.fieldKind === "map") {
      if (!(draft instanceof MapDraft)) return this.refuse(path, "Give an object, one entry a key.", plain(draft));
      const both = { json: {} as Record<string, JsonValue>, canonical: {} as Record<string, JsonValue> };
      for (const [key, value] of draft.entries) {
        const where = at(path, key);
        if (key in both.json) this.refuse(where, `The key “${key}” is there twice.`);
        if (field.mapKey === ScalarType.BOOL && key !== "true" && key !== "false") this.refuse(where, "The key must be true or false.");
        const range = RANGES.get(field.mapKey);
        if (range) this.integer(key, range, where, "The key");
        const one = this.element(field, value, where);
        both.json[key] = one.json;
        both.canonical[key] = one.canonical;
      }
      return both;
    }
    return this.element(field, draft, path);
  }

  private element(field: DescField, draft: Draft, path: string): Both {
    if (field.enum) return this.enum(field.enum, draft, path);
    if (field.message) return this.message(field.message, draft, path);
    if (field.scalar === undefined) return same(plain(draft));
    return this.scalar(field.scalar, draft, path, isJsNumber(field));
  }

  private enum(type: DescEnum, draft: Draft, path: string): Both {
    const value = type.values.find((v) => enumText(v) === draft || v.name === draft || v.number === draft);
    if (value) return { json: enumText(value), canonical: value.name };
    return this.refuse(path, `${JSON.stringify(plain(draft))} is no ${type.name}: give one of ${type.values.map(enumText).join(", ")}.`, plain(draft));
  }

  private integer(draft: Draft, [least, most]: [bigint, bigint], path: string, what: string): bigint | undefined {
    const text = typeof draft === "number" ? String(draft) : draft;
    if (typeof text !== "string" || !/^-?\d+$/.test(text.trim())) {
      this.refuse(path, `${what} must be a whole number.`);
      return undefined;
    }
    const value = BigInt(text.trim());
    if (value < least || value > most) {
      this.refuse(path, `${what} must be from ${least} to ${most}.`);
      return undefined;
    }
    return value;
  }

  private scalar(scalar: ScalarType, draft: Draft, path: string, number: boolean): Both {
    switch (scalar) {
      case ScalarType.STRING:
        return typeof draft === "string" ? same(draft) : this.refuse(path, "Give a text.", plain(draft));
      case ScalarType.BOOL:
        return typeof draft === "boolean" ? same(draft) : this.refuse(path, "Give true or false.", plain(draft));
      case ScalarType.BYTES:
        return typeof draft === "string" && BASE64.test(draft) ? same(draft) : this.refuse(path, "Give base64, e.g. aGVsbG8=.", plain(draft));
      case ScalarType.FLOAT:
      case ScalarType.DOUBLE: {
        if (draft === "NaN" || draft === "Infinity" || draft === "-Infinity") return same(draft);
        const value = typeof draft === "number" ? draft : typeof draft === "string" && draft.trim() !== "" ? Number(draft) : NaN;
        return Number.isFinite(value) ? same(value) : this.refuse(path, "Give a number.", plain(draft));
      }
    }
    let range = RANGES.get(scalar)!;
    if (number) range = [range[0] < 0n ? -SAFE : 0n, SAFE];
    const value = this.integer(draft, range, path, "It");
    if (value === undefined) return same(plain(draft));
    if (!isLong(scalar) || number) return same(Number(value));
    return same(String(value));
  }

  private known(type: DescMessage, draft: Draft, path: string): Both {
    const value = FREE.has(type.typeName) ? typed(draft) : plain(draft);
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    switch (type.typeName) {
      case "google.protobuf.Timestamp":
        if (typeof value === "string" && TIME.test(value) && !Number.isNaN(Date.parse(value))) return same(value);
        return this.refuse(path, "Give a time such as 2026-01-31T12:00:00Z.", value);
      case "google.protobuf.Duration":
        return typeof value === "string" && DURATION.test(value) ? same(value) : this.refuse(path, "Give seconds such as 1.5s.", value);
      case "google.protobuf.Struct":
        return isObject ? same(value) : this.refuse(path, "Give a JSON object.", value);
      case "google.protobuf.ListValue":
        return Array.isArray(value) ? same(value) : this.refuse(path, "Give a JSON list.", value);
    }
    return same(value);
  }
}

/** Messages that hold JSON of any shape, which people type as a text. */
const FREE = new Set(["Struct", "Value", "ListValue", "Any"].map((name) => `google.protobuf.${name}`));

function typed(draft: Draft): JsonValue {
  if (typeof draft !== "string") return plain(draft);
  try {
    return JSON.parse(draft) as JsonValue;
  } catch {
    return draft;
  }
}

/** A draft as JSON, without checks. */
function plain(draft: Draft): JsonValue {
  if (draft instanceof MapDraft) return Object.fromEntries(draft.entries.map(([key, value]) => [key, plain(value)]));
  if (Array.isArray(draft)) return draft.map(plain);
  if (typeof draft === "object" && draft !== null) return Object.fromEntries(Object.entries(draft).map(([key, value]) => [key, plain(value)]));
  return draft;
}

/** Where a template such as `chat:{chat_id}` sends a message, or nothing where its field is not set. */
export function renderRoom(template: string, type: DescMessage, draft: Draft): string | undefined {
  let missing = false;
  const room = template.replace(/\{([^}]+)\}/g, (_, name: string) => {
    let [value, holder]: [Draft | undefined, DescMessage | undefined] = [draft, type];
    for (const part of name.split(".")) {
      const field: DescField | undefined = holder?.fields.find((f) => f.name === part);
      value = field && isFields(value) ? value[field.jsonName] : undefined;
      holder = field?.message;
    }
    if (value === undefined || value === "" || typeof value === "object") missing = true;
    return String(value);
  });
  return missing ? undefined : room;
}
