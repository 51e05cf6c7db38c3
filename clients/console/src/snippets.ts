// Code that a person can paste: producers in five languages and listeners in the browser, with real names and sample values.

import { ScalarType, type DescEnum, type DescField, type DescFile, type DescMessage, type JsonValue } from "@bufbuild/protobuf";
import { enumText, isInternal, isJsNumber, isKnown, isLong, type Call, type Catalog, type CatalogEvent } from "./catalog";
import { Transport } from "./gen/fanfare/v1/catalog_pb";
import { isFields, MapDraft, renderRoom, sampleOf, type Draft, type Fields } from "./values";

export interface Around {
  /** Where gRPC is, e.g. "http://127.0.0.1:50051". */
  grpc: string;
  /** Where browsers connect. */
  origin: string;
  tenant: string;
  /** The tools sign their own tokens; else they need the key. */
  development: boolean;
}
export interface Snippet {
  key: string;
  text: string;
  code: string;
}

const WHO = { userId: "42" };
/** Where an event goes whose type declares no rooms. */
export const ROOM = "user:42";
const TIMESTAMP = "google.protobuf.Timestamp";

const camel = (name: string) => name.replace(/_+([a-zA-Z0-9])/g, (_, c: string) => c.toUpperCase());
const pascal = (name: string) => camel(`_${name}`);
const snake = (name: string) => name.replace(/([a-z0-9])([A-Z])/g, "$1_$2").toLowerCase();
const quote = (text: string) => JSON.stringify(text);
const indent = (text: string, by = "    ") => text.replace(/\n(?!$)/g, `\n${by}`);
const numeric = (draft: Draft) => String(draft).trim() || "0";

/** How one language writes values. */
interface Dialect {
  message(type: DescMessage, fields: [DescField, string][]): string;
  timestamp: string;
  enumValue(type: DescEnum, text: string): string;
  scalar(field: DescField, scalar: ScalarType, value: Draft): string;
  list(items: string[], field: DescField): string;
  map(entries: [string, string][], field: DescField): string;
  /** Around the value of a field with presence. */
  present(field: DescField, value: string): string;
}

function write(dialect: Dialect, type: DescMessage, draft: Fields): string {
  const fields: [DescField, string][] = [];
  for (const field of type.fields) {
    const value = draft[field.jsonName];
    if (value === undefined) continue;
    if (field.message && isKnown(field.message) && field.message.typeName !== TIMESTAMP) continue;
    const one = (element: Draft): string => {
      if (field.enum) return dialect.enumValue(field.enum, String(element));
      if (field.message?.typeName === TIMESTAMP) return dialect.timestamp;
      if (field.message) return isFields(element) ? write(dialect, field.message, element) : "";
      return dialect.scalar(field, field.scalar!, element);
    };
    if (field.fieldKind === "list") fields.push([field, dialect.list((value as Draft[]).map(one), field)]);
    else if (field.fieldKind === "map" && value instanceof MapDraft) fields.push([field, dialect.map(value.entries.map(([key, element]) => [key, one(element)]), field)]);
    else fields.push([field, dialect.present(field, one(value))]);
  }
  return dialect.message(type, fields);
}

const valueOf = (type: DescEnum, text: string) => type.values.find((value) => enumText(value) === text) ?? type.values[0]!;
/** An enum value's name without the enum's own name in front. */
const shortName = (type: DescEnum, text: string) => {
  const { name } = valueOf(type, text);
  const prefix = `${snake(type.name).toUpperCase()}_`;
  return name.startsWith(prefix) ? name.slice(prefix.length) : name;
};
const block = (open: string, fields: string[], close: string) =>
  fields.join(", ").length + open.length < 72 && !fields.some((f) => f.includes("\n")) ? `${open}${fields.join(", ")}${close}` : `${open}\n${fields.map((f) => `    ${indent(f)},\n`).join("")}${close}`;

const fileStem = (file: DescFile) => file.name.split("/").at(-1)!;
const PYTHON_WORDS = new Set("False None True and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or pass raise return try while with yield".split(" "));

const pythonModule = (file: DescFile, main: DescFile) => (file === main ? "pb" : `${fileStem(file)}_pb2`);
const python = (main: DescFile): Dialect => ({
  message: (type, fields) => {
    const plain = fields.filter(([field]) => !PYTHON_WORDS.has(field.name)).map(([field, value]) => `${field.name}=${value}`);
    const special = fields.filter(([field]) => PYTHON_WORDS.has(field.name)).map(([field, value]) => `${quote(field.name)}: ${value}`);
    return block(`${pythonModule(type.file, main)}.${type.parent ? `${type.parent.name}.` : ""}${type.name}(`, special.length > 0 ? [...plain, `**{${special.join(", ")}}`] : plain, ")");
  },
  timestamp: "now",
  enumValue: (type, text) => `${pythonModule(type.file, main)}.${type.parent ? `${type.parent.name}.` : ""}${valueOf(type, text).name}`,
  scalar: (_, scalar, value) => (scalar === ScalarType.STRING ? quote(String(value)) : scalar === ScalarType.BOOL ? (value ? "True" : "False") : scalar === ScalarType.BYTES ? `b"hello"` : numeric(value)),
  list: (items) => `[${items.join(", ")}]`,
  map: (entries, field) => `{${entries.map(([key, value]) => `${mapKey(field, key, "True", "False")}: ${value}`).join(", ")}}`,
  present: (_, value) => value,
});

function mapKey(field: DescField, key: string, yes = "true", no = "false"): string {
  if (field.fieldKind !== "map" || field.mapKey === ScalarType.STRING) return quote(key);
  return field.mapKey === ScalarType.BOOL ? (key === "true" ? yes : no) : key;
}

const GO_SCALARS = new Map<ScalarType, string>([
  [ScalarType.STRING, "string"], [ScalarType.BOOL, "bool"], [ScalarType.BYTES, "[]byte"], [ScalarType.DOUBLE, "float64"], [ScalarType.FLOAT, "float32"],
  [ScalarType.INT32, "int32"], [ScalarType.SINT32, "int32"], [ScalarType.SFIXED32, "int32"], [ScalarType.UINT32, "uint32"], [ScalarType.FIXED32, "uint32"],
  [ScalarType.INT64, "int64"], [ScalarType.SINT64, "int64"], [ScalarType.SFIXED64, "int64"], [ScalarType.UINT64, "uint64"], [ScalarType.FIXED64, "uint64"],
]);
const goPackage = (file: DescFile, main: DescFile) => (file === main ? "pb" : fileStem(file));
const goName = (type: DescMessage | DescEnum): string => (type.parent ? `${goName(type.parent)}_` : "") + pascal(type.name);
function goElement(field: DescField, main: DescFile): string {
  if (field.message) return `*${field.message.typeName === TIMESTAMP ? "timestamppb.Timestamp" : `${goPackage(field.message.file, main)}.${goName(field.message)}`}`;
  if (field.enum) return `${goPackage(field.enum.file, main)}.${goName(field.enum)}`;
  return GO_SCALARS.get(field.scalar!) ?? "any";
}
const go = (main: DescFile): Dialect => ({
  message: (type, fields) =>
    block(`&${goPackage(type.file, main)}.${goName(type)}{`, fields.map(([field, value]) => (field.oneof ? `${pascal(field.oneof.name)}: &${goPackage(type.file, main)}.${goName(type)}_${pascal(field.name)}{${pascal(field.name)}: ${value}}` : `${pascal(field.name)}: ${value}`)), "}"),
  timestamp: "timestamppb.Now()",
  enumValue: (type, text) => `${goPackage(type.file, main)}.${type.parent ? goName(type.parent) : goName(type)}_${valueOf(type, text).name}`,
  scalar: (_, scalar, value) => (scalar === ScalarType.STRING ? quote(String(value)) : scalar === ScalarType.BOOL ? String(value) : scalar === ScalarType.BYTES ? `[]byte("hello")` : numeric(value)),
  list: (items, field) => `[]${goElement(field, main)}{${items.join(", ")}}`,
  map: (entries, field) =>
    `map[${field.fieldKind === "map" ? GO_SCALARS.get(field.mapKey) : "string"}]${goElement(field, main)}{${entries.map(([key, value]) => `${mapKey(field, key)}: ${value}`).join(", ")}}`,
  present: (field, value) => (field.proto.proto3Optional && field.fieldKind !== "message" ? (field.enum ? `${value}.Enum()` : `proto.${pascal(GO_SCALARS.get(field.scalar!) ?? "String")}(${value})`) : value),
});

const typescript: Dialect = {
  message: (_, fields) => block("{ ", fields.map(([field, value]) => (field.oneof ? `${field.oneof.localName}: { case: ${quote(field.localName)}, value: ${value} }` : `${field.localName}: ${value}`)), " }").replace(/^\{ \n/, "{\n").replace(/\n \}$/, "\n}"),
  timestamp: "timestampNow()",
  enumValue: (type, text) => `${type.name}.${valueOf(type, text).localName}`,
  scalar: (_, scalar, value) => (scalar === ScalarType.STRING ? quote(String(value)) : scalar === ScalarType.BOOL ? String(value) : scalar === ScalarType.BYTES ? "new Uint8Array([1, 2, 3])" : isLong(scalar) ? `${numeric(value)}n` : numeric(value)),
  list: (items) => `[${items.join(", ")}]`,
  map: (entries) => `{ ${entries.map(([key, value]) => `${quote(key)}: ${value}`).join(", ")} }`,
  present: (_, value) => value,
};

const rustModule = (file: DescFile, main: DescFile) => (file.proto.package === main.proto.package ? "" : `${file.proto.package.replace(/\./g, "::")}::`);
const RUST_WORDS = new Set("as async await box break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self static struct super trait true type unsafe use where while".split(" "));
const rust = (main: DescFile): Dialect => ({
  message: (type, fields) => {
    const written = fields.map(([field, value]) => {
      const name = RUST_WORDS.has(field.name) ? `r#${field.name}` : field.name;
      return field.oneof ? `${field.oneof.name}: Some(${snake(type.name)}::${pascal(field.oneof.name)}::${pascal(field.name)}(${value}))` : `${name}: ${value}`;
    });
    const open = `${rustModule(type.file, main)}${type.parent ? `${snake(type.parent.name)}::` : ""}${type.name} { `;
    const rest = fields.length < type.fields.length ? ["..Default::default()"] : [];
    return block(open, [...written, ...rest], " }").replace(/ \n/, "\n").replace(/\n \}$/, "\n}").replace(/Default::default\(\),\n/, "Default::default()\n");
  },
  timestamp: "SystemTime::now().into()",
  enumValue: (type, text) => `${rustModule(type.file, main)}${type.name}::${pascal(shortName(type, text).toLowerCase())} as i32`,
  scalar: (_, scalar, value) => (scalar === ScalarType.STRING ? `${quote(String(value))}.into()` : scalar === ScalarType.BOOL ? String(value) : scalar === ScalarType.BYTES ? `b"hello".to_vec()` : scalar === ScalarType.DOUBLE || scalar === ScalarType.FLOAT ? `${numeric(value)}.0` : numeric(value)),
  list: (items) => `vec![${items.join(", ")}]`,
  map: (entries, field) => `[${entries.map(([key, value]) => `(${mapKey(field, key)}${field.fieldKind === "map" && field.mapKey === ScalarType.STRING ? ".into()" : ""}, ${value})`).join(", ")}].into()`,
  present: (field, value) => (field.oneof ? value : field.message || field.proto.proto3Optional ? `Some(${value})` : value),
});

/** The message as JSON: as browsers have it, or with protobuf's own enum names for other tools. */
function json(type: DescMessage, draft: Draft, names: "browser" | "canonical"): JsonValue {
  if (!isFields(draft) || isKnown(type)) return type.typeName === TIMESTAMP ? "2026-01-31T12:00:00Z" : draft instanceof MapDraft ? {} : (draft as JsonValue);
  const fields: Record<string, JsonValue> = {};
  for (const field of type.fields) {
    const value = draft[field.jsonName];
    if (value === undefined) continue;
    const one = (element: Draft): JsonValue => {
      if (field.enum) return names === "browser" ? String(element) : valueOf(field.enum, String(element)).name;
      if (field.message) return json(field.message, element, names);
      const isNumber = field.scalar !== ScalarType.STRING && field.scalar !== ScalarType.BYTES && field.scalar !== ScalarType.BOOL;
      return isNumber && (!isLong(field.scalar!) || isJsNumber(field)) ? Number(element) : (element as JsonValue);
    };
    if (Array.isArray(value)) fields[field.jsonName] = value.map(one);
    else if (value instanceof MapDraft) fields[field.jsonName] = Object.fromEntries(value.entries.map(([key, element]) => [key, one(element)]));
    else fields[field.jsonName] = one(value);
  }
  return fields;
}

const shellQuote = (text: string) => `'${text.replace(/'/g, `'\\''`)}'`;

/** How services publish an event. */
export function producerSnippets(event: CatalogEvent, around: Around): Snippet[] {
  const { type, catalog, publisher } = event;
  const draft = sampleOf(type, "service", WHO);
  const address = around.grpc.replace(/^https?:\/\//, "");
  // The tool takes what browsers see: rooms that depend on other fields must be named.
  const seen = sampleOf(type, "browser", WHO);
  const isHidden = event.options.rooms.some((room) => renderRoom(room, type, seen) === undefined && renderRoom(room, type, draft) !== undefined);
  const named = event.options.rooms.length === 0 && !publisher?.rooms.length ? [ROOM] : [];
  const rooms = named.length > 0 ? [` --room ${ROOM}`] : isHidden ? event.options.rooms.flatMap((room) => renderRoom(room, type, draft) ?? []).map((room) => ` --room ${room}`) : [];
  const key = around.development ? "" : ' --jwt-secret "$SECRET"';
  const notify = `fanfare notify ${type.typeName} --server ${around.grpc}${key} --tenant ${around.tenant}${rooms.join("")} \\\n  ${shellQuote(JSON.stringify(json(type, seen, "browser")))}`;
  if (!publisher) {
    return [{ key: "shell", text: "Shell", code: `# The catalog has no Notify method for this event alone; fanfare.v1.Realtime/Notify takes it all the same.\n${notify}\n` }];
  }
  const { service, method, target, events } = publisher;
  const [pythonTarget, goTarget, typescriptTarget, rustTarget] =
    named.length > 0
      ? [
          `, ${target.name}=realtime_pb2.Target(rooms=[${named.map(quote).join(", ")}])`,
          `\t${pascal(target.name)}: &fanfare.Target{Rooms: []string{${named.map(quote).join(", ")}}},\n`,
          `${target.localName}: { rooms: [${named.map(quote).join(", ")}] }, `,
          `Some(fanfare::v1::Target { rooms: vec![${named.map((room) => `${quote(room)}.into()`).join(", ")}], ..Default::default() })`,
        ]
      : ["", "", "", "None"];
  const main = method.input.file;
  const field = events[0]!.field;
  const path = main.name;
  const folder = path.slice(0, Math.max(0, path.lastIndexOf("/")));
  const stem = fileStem(main);
  const request = { ...(named.length > 0 ? { [target.jsonName]: { rooms: named } } : {}), [field.jsonName]: json(type, draft, "canonical") };
  const usesNow = (code: string, mark: string) => code.includes(mark);

  const py = write(python(main), type, draft);
  const pyOthers = [...new Set([...py.matchAll(/\b(\w+_pb2)\./g)].map((m) => m[1]!))].map((module) => {
    const other = catalog.files.concat(main).find((file) => `${fileStem(file)}_pb2` === module);
    return `from ${(other?.name ?? module).split("/").slice(0, -1).join(".") || "."} import ${module}\n`;
  });
  const pyCode = `${usesNow(py, "now") ? "import time\n" : ""}import grpc
${usesNow(py, "now") ? "from google.protobuf.timestamp_pb2 import Timestamp\n" : ""}from ${folder.replace(/\//g, ".")} import ${stem}_pb2 as pb, ${stem}_pb2_grpc
${pyOthers.join("")}${named.length > 0 ? "from fanfare.v1 import realtime_pb2\n" : ""}
stub = ${stem}_pb2_grpc.${service.name}Stub(grpc.insecure_channel(${quote(address)}))
${usesNow(py, "now") ? "now = Timestamp(seconds=int(time.time()))\n" : ""}event = ${py}
answer = stub.${method.name}(
    pb.${method.input.name}(${field.name}=event${pythonTarget}),
    metadata=[("authorization", "Bearer " + TOKEN)],
)
print(answer.id)
`;

  const goEvent = write(go(main), type, draft).replace(/ {4}/g, "\t");
  const goImports = [
    '"context"', '"log"', "", '"google.golang.org/grpc"', '"google.golang.org/grpc/credentials/insecure"', '"google.golang.org/grpc/metadata"',
    ...(goEvent.includes("proto.") ? ['"google.golang.org/protobuf/proto"'] : []),
    ...(goEvent.includes("timestamppb.") ? ['"google.golang.org/protobuf/types/known/timestamppb"'] : []),
    "", ...(named.length > 0 ? ['fanfare "example.com/your/gen/fanfare/v1"'] : []), `pb "example.com/your/gen/${folder}"`,
  ];
  const goCode = `import (
${goImports.map((line) => (line ? `\t${line}` : "")).join("\n")}
)

conn, err := grpc.NewClient(${quote(address)}, grpc.WithTransportCredentials(insecure.NewCredentials()))
if err != nil {
\tlog.Fatal(err)
}
ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token)
answer, err := pb.New${service.name}Client(conn).${method.name}(ctx, &pb.${method.input.name}{
${goTarget}\t${pascal(field.name)}: ${indent(goEvent, "\t")},
})
if err != nil {
\tlog.Fatal(err)
}
log.Print(answer.GetId())
`;

  const ts = write(typescript, type, draft);
  const enums = [...new Set([...ts.matchAll(/\b([A-Z]\w*)\.[A-Z_]+\b/g)].map((m) => m[1]!))];
  const tsCode = `import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
${ts.includes("timestampNow") ? 'import { timestampNow } from "@bufbuild/protobuf/wkt";\n' : ""}import { ${[service.name, ...enums].join(", ")} } from "./gen/${path}_pb.js";

const transport = createGrpcTransport({ baseUrl: ${quote(around.grpc)} });
const client = createClient(${service.name}, transport);
const answer = await client.${method.localName}(
    { ${typescriptTarget}${field.localName}: ${indent(ts)} },
    { headers: { authorization: \`Bearer \${token}\` } },
);
console.log(answer.id);
`.replace(/ {4}/g, "  ");

  const rs = write(rust(main), type, draft);
  const rsModule = main.proto.package.replace(/\./g, "::");
  const rustCode = `${rs.includes("SystemTime") ? "use std::time::SystemTime;\n" : ""}use ${rsModule}::{${snake(service.name)}_client::${service.name}Client, *};

let mut client = ${service.name}Client::connect(${quote(around.grpc)}).await?;
let event = ${rs};
let mut request = tonic::Request::new(${method.input.name} { ${field.name}: Some(event), ${target.name}: ${rustTarget} });
request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
let answer = client.${snake(method.name)}(request).await?.into_inner();
println!("{}", answer.id);
`;

  const shell = `${notify}

# or with grpcurl, through reflection
grpcurl -plaintext -H "authorization: Bearer $(fanfare token${key} --scope notify --tenant ${around.tenant} --user me)" \\
  -d ${shellQuote(JSON.stringify(request))} \\
  ${address} ${service.typeName}/${method.name}
`;
  return [
    { key: "python", text: "Python", code: pyCode },
    { key: "go", text: "Go", code: goCode },
    { key: "node", text: "Node", code: tsCode },
    { key: "rust", text: "Rust", code: rustCode },
    { key: "shell", text: "Shell", code: shell },
  ];
}

const word = (name: string) => {
  const last = camel((name.split(/[^A-Za-z0-9_]+/)[0] ?? "").toLowerCase());
  return /^[a-z]\w*$/.test(last) ? last : "payload";
};

/** The kind of the rooms an event goes to, e.g. "chat". */
const kinds = (event: CatalogEvent) => event.options.rooms.map((room) => room.split(":")[0]!);

/** How a browser receives an event, and enters its room where it must. */
export function listenerSnippet(event: CatalogEvent, around: Around): string {
  const { catalog } = event;
  const join = catalog.calls.find((call) => call.options.join && kinds(event).includes(call.options.join.split(":")[0]!) && !kinds(event).some((kind) => kind === "org" || kind === "user"));
  if (catalog.transport === Transport.WEBSOCKET) {
    return `const socket = new WebSocket(${quote(`${around.origin.replace(/^http/, "ws")}/ws?token=`)} + token);
socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  if (message.type === ${quote(event.name)}) console.log(message);
};
`;
  }
  const file = catalog.package.split(".")[0]!;
  const [imported, kind] = catalog.typescript
    ? [`{ io, type Socket } from "socket.io-client";\n// fanfare types --package ${catalog.package} --out ${file}.ts\nimport type { ClientToServerEvents, ServerToClientEvents } from "./${file}";`, ": Socket<ServerToClientEvents, ClientToServerEvents>"]
    : [`{ io } from "socket.io-client";`, ""];
  return `import ${imported}

const socket${kind} = io(${quote(around.origin)}, { auth: { token } });
${join ? `${emitSnippet(join)}` : ""}socket.on(${quote(event.name)}, (${word(event.name)}) => {
  console.log(${word(event.name)});
});
`;
}

/** How a browser makes a call. */
export function emitSnippet(call: Call): string {
  const draft = sampleOf(call.method.input, "browser", WHO);
  const request = json(call.method.input, draft, "browser");
  const args = call.method.input.fields.some((field) => !isInternal(field)) ? `, ${JSON.stringify(request).replace(/"(\w+)":/g, " $1: ").replace(/\}$/, " }").replace(/,(?= \w+:)/g, ",")}` : "";
  if (call.catalog.transport === Transport.WEBSOCKET) {
    return `socket.send(JSON.stringify({ type: ${quote(call.options.on)}, ref: 1${Object.entries(request as object).map(([key, value]) => `, ${key}: ${JSON.stringify(value)}`).join("")} }));\n`;
  }
  return `socket.emit(${quote(call.options.on)}${args}, (answer) => {
  if (answer.error) console.error(answer.error.message);
});
`;
}

export const catalogFiles = (catalog: Catalog): string[] => catalog.files.map((file) => `${file.name}.proto`);
