// Publishing by plain HTTP: the Connect protocol with curl and with @connectrpc/connect-node, on the port of gRPC.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { execFileSync, execFile } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { create, createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { anyPack, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import { compressionGzip, createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { DEADLINE, get, QUIET, ROOT, startServer, within } from "./lib/fanfare.js";
import { PYTHON } from "./lib/producer.js";
import { producer, token, soon, user } from "./lib/tokens.js";

const MESSAGE = { id: 1, chatId: 7, content: "Hello", fromMe: true, channel: "whatsapp", timestamp: "2026-01-31T12:00:00Z" };
const NOTIFY = "/messenger.v1.Messenger/NotifyNewMessage";
const ADMIN = token({ sub: "operator", tenant: "*", scopes: ["admin"], exp: soon() });

let server, registry;

before(async () => {
  const out = path.join(ROOT, "target/tests");
  mkdirSync(out, { recursive: true });
  const file = path.join(out, "connect-descriptors.bin");
  const protos = ["fanfare/v1/realtime.proto", "fanfare/v1/admin.proto", "messenger/v1/messenger.proto"];
  const args = ["-m", "grpc_tools.protoc", `-I${ROOT}/proto`, "--include_imports", `--descriptor_set_out=${file}`, ...protos];
  execFileSync(PYTHON, args, { timeout: DEADLINE });
  registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(file)));
  server = await startServer([...QUIET, "--grpc-request-timeout", "1s", "--cors-origin", "https://app.example.com"]);
});
after(() => server?.stop());

/** A POST as any HTTP client makes it. */
async function post(method, body, { bearer = producer("1"), headers = {}, type = "application/json" } = {}) {
  const all = { "content-type": type, ...(bearer && { authorization: `Bearer ${bearer}` }), ...headers };
  const response = await get(server.url + method, { method: "POST", headers: all, body });
  const text = await response.text();
  return { status: response.status, type: response.headers.get("content-type"), headers: response.headers, json: text ? JSON.parse(text) : null };
}

/** A refusal's code, and the reason in its google.rpc.ErrorInfo. */
function refusal({ status, type, json }) {
  assert.equal(type, "application/json");
  const info = json.details?.find((detail) => detail.type === "google.rpc.ErrorInfo");
  return [status, json.code, info?.debug.reason];
}

const interceptors = (bearer) => [(next) => (request) => {
  request.header.set("authorization", `Bearer ${bearer}`);
  return next(request);
}];
const client = (service, transport) => createClient(registry.getService(service), transport);
const grpc = (bearer, more) => createGrpcTransport({ baseUrl: server.url, interceptors: interceptors(bearer), ...more });
const connect = (bearer, more) =>
  createConnectTransport({ baseUrl: server.url, httpVersion: "1.1", interceptors: interceptors(bearer), jsonOptions: { registry }, ...more });

/** The stored events of rooms, read over gRPC. */
async function stored(rooms, count) {
  const events = [];
  const call = client("fanfare.v1.Realtime", grpc(producer("1"))).subscribe({ rooms, after: stored.start });
  await within((async () => {
    for await (const response of call) {
      if (response.kind.case === "event") events.push(response.kind.value);
      if (events.length === count) return;
    }
  })(), "the events");
  return events;
}

test("curl publishes what a subscriber receives", async () => {
  const realtime = client("fanfare.v1.Realtime", grpc(producer("1")));
  const abort = new AbortController();
  const positions = realtime.subscribe({ rooms: ["org"] }, { signal: abort.signal })[Symbol.asyncIterator]();
  stored.start = (await within(positions.next(), "the first position")).value.kind.value.cursor;
  abort.abort();
  const { stdout } = await promisify(execFile)("curl", [
    "-sS", "--max-time", "20", "-w", "\n%{http_code} %{content_type}",
    "-H", `Authorization: Bearer ${producer("1")}`, "-H", "Content-Type: application/json",
    "-d", JSON.stringify({ event: MESSAGE, target: { idempotencyKey: "curl-1" } }), server.url + NOTIFY,
  ]);
  const [body, answered] = stdout.split("\n");
  assert.equal(answered, "200 application/json");
  const { id, seq, duplicate } = JSON.parse(body);
  assert.deepStrictEqual([seq, duplicate], ["1", false]);
  const [event] = await stored(["chat:7"], 1);
  assert.deepStrictEqual([event.id, event.rooms, event.payload.typeUrl], [id, ["chat:7", "org"], "type.googleapis.com/messenger.v1.NewMessage"]);
  // The same key again is the first answer again.
  const again = await post(NOTIFY, JSON.stringify({ event: MESSAGE, target: { idempotencyKey: "curl-1" } }));
  assert.deepStrictEqual([again.status, again.json.id, again.json.duplicate], [200, id, true]);
});

test("connect-node calls every kind of unary method, in JSON and binary, over HTTP/1.1 and HTTP/2, compressed and not", async () => {
  const NewMessage = registry.getMessage("messenger.v1.NewMessage");
  for (const useBinaryFormat of [false, true]) {
    for (const httpVersion of ["1.1", "2"]) {
      for (const sendCompression of [null, compressionGzip]) {
        const options = { useBinaryFormat, httpVersion, sendCompression, compressMinBytes: 0 };
        const as = (bearer) => connect(bearer, options);
        const event = { id: 2n, chatId: 8n, content: "x".repeat(5000), channel: 1 };
        const typed = await client("messenger.v1.Messenger", as(producer("1"))).notifyNewMessage({ event });
        assert.ok(typed.seq > 0n && typed.time.seconds > 0n);
        const any = anyPack(NewMessage, create(NewMessage, event));
        const generic = await client("fanfare.v1.Realtime", as(producer("1"))).notify({ event: any });
        assert.equal(generic.seq, typed.seq + 1n);
        const presence = await client("fanfare.v1.Realtime", as(producer("1"))).getPresence({});
        assert.equal(presence.userCount, 0n);
        const about = await client("fanfare.v1.Admin", as(ADMIN)).getServer({});
        assert.equal(about.engine, process.env.FANFARE_TEST_ENGINE ?? "memory");
        const catalogs = await client("fanfare.v1.Admin", as(ADMIN)).listCatalogs({});
        assert.ok(catalogs.descriptors.length > 1000 && catalogs.catalogs.some((c) => c.package === "messenger.v1"));
        const called = await client("messenger.v1.MessengerClient", as(user(42, 1))).startTyping({ chatId: 7n });
        assert.equal(called.chatId, 7n);
      }
    }
  }
});

test("gRPC takes compressed requests, and refuses those that grow beyond the limit", async () => {
  const compressed = grpc(producer("1"), { sendCompression: compressionGzip, compressMinBytes: 0 });
  const publish = (content) => client("messenger.v1.Messenger", compressed).notifyNewMessage({ event: { id: 3n, chatId: 9n, content, channel: 1 } });
  assert.ok((await publish("x".repeat(5000))).seq > 0n);
  await assert.rejects(publish("x".repeat(5 << 20)), (error) => [Code.OutOfRange, Code.ResourceExhausted].includes(error.code));
});

test("JSON sets internal fields, takes both texts of an enum, and an Any with its type last", async () => {
  const notice = { userId: "42", type: "info", message: "Yours", data: { n: 1 } };
  assert.equal((await post("/messenger.v1.Messenger/NotifyUser", JSON.stringify({ event: notice }))).status, 200);
  const any = { ...MESSAGE, chatId: "42", channel: "CHANNEL_TELEGRAM", "@type": "type.googleapis.com/messenger.v1.NewMessage" };
  assert.equal((await post("/fanfare.v1.Realtime/Notify", JSON.stringify({ event: any }))).status, 200);
  const events = await stored(["user:42", "chat:42"], 2);
  assert.deepStrictEqual(events.map((e) => e.rooms), [["user:42"], ["chat:42", "org"]]);
});

test("refusals have a code, a status and the stable reason", async () => {
  const body = JSON.stringify({ event: MESSAGE });
  const raw = (reason) => `REASON_${reason}`;
  assert.deepStrictEqual(refusal(await post(NOTIFY, body, { bearer: null })), [401, "unauthenticated", raw("NO_TOKEN")]);
  assert.deepStrictEqual(refusal(await post(NOTIFY, body, { bearer: "garbage" })), [401, "unauthenticated", raw("INVALID_TOKEN")]);
  assert.deepStrictEqual(refusal(await post(NOTIFY, body, { bearer: user(42, 1) })), [403, "permission_denied", raw("FORBIDDEN")]);
  assert.deepStrictEqual(refusal(await post("/fanfare.v1.Admin/GetServer", "{}")), [403, "permission_denied", raw("FORBIDDEN")]);
  const wrong = await post(NOTIFY, JSON.stringify({ event: { ...MESSAGE, chatId: "x" } }));
  assert.deepStrictEqual(refusal(wrong), [400, "invalid_argument", raw("INVALID_ARGUMENT")]);
  assert.match(wrong.json.message, /event\.chatId: want an integer/);
  assert.equal(wrong.json.details[0].debug.metadata.path, "event.chatId");
  assert.equal(Buffer.from(wrong.json.details[0].value, "base64").includes("fanfare"), true);
  const unknown = await post(NOTIFY, JSON.stringify({ event: { ...MESSAGE, chatld: 1 } }));
  assert.match(unknown.json.message, /no field "chatld" \(did you mean "chatId"\?\)/);
  const large = await post(NOTIFY, JSON.stringify({ event: { ...MESSAGE, content: "x".repeat(70_000) } }));
  assert.deepStrictEqual(refusal(large), [429, "resource_exhausted", raw("TOO_LARGE")]);
  assert.deepStrictEqual(refusal(await post("/messenger.v1.Messenger/Nothing", "{}")).slice(0, 2), [501, "unimplemented"]);
  const stream = await post("/messenger.v1.Messenger/Subscribe", JSON.stringify({ rooms: ["org"] }));
  assert.deepStrictEqual([stream.status, stream.json.message], [501, "/messenger.v1.Messenger/Subscribe is a stream: call it over gRPC or gRPC-Web"]);
  const nested = (type) => ({ "@type": `type.googleapis.com/${type}` });
  const twice = { ...nested("fanfare.v1.NotifyRequest"), event: { ...nested("messenger.v1.NewMessage"), ...MESSAGE } };
  assert.deepStrictEqual(refusal(await post("/fanfare.v1.Realtime/Notify", JSON.stringify({ event: twice }))).slice(0, 2), [400, "invalid_argument"]);
});

test("what is not the protocol is refused with what would be right", async () => {
  const body = JSON.stringify({ event: MESSAGE });
  const form = await post(NOTIFY, body, { type: "application/x-www-form-urlencoded" });
  assert.deepStrictEqual([form.status, form.headers.get("accept-post")], [415, "application/json, application/proto"]);
  assert.match(form.json.message, /want application\/json/);
  assert.equal((await post(NOTIFY, body, { headers: { "connect-protocol-version": "2" } })).status, 400);
  assert.equal((await post(NOTIFY, body, { headers: { "connect-protocol-version": "1" } })).status, 200);
  assert.equal((await post(NOTIFY, body, { headers: { "content-encoding": "br" } })).status, 501);
  assert.match((await post(NOTIFY, body, { headers: { "content-encoding": "gzip" } })).json.message, /not valid gzip/);
  const bomb = gzipSync(Buffer.alloc(5 << 20, 32));
  assert.deepStrictEqual(refusal(await post(NOTIFY, bomb, { headers: { "content-encoding": "gzip" } })).slice(0, 2), [400, "out_of_range"]);
  assert.match((await post(NOTIFY, "{")).json.message, /not valid JSON/);
});

/** Sends a head whose body does not come, and gives the answer. */
function headAlone(authorization, { length = 1000, more = [] } = {}) {
  const [host, port] = server.address.split(":");
  const head = [
    `POST ${NOTIFY} HTTP/1.1`, `host: ${server.address}`, "content-type: application/json", `content-length: ${length}`,
    ...(authorization ? [`authorization: Bearer ${authorization}`] : []), ...more,
  ];
  const answer = new Promise((resolve, reject) => {
    const socket = net.connect(port, host, () => socket.write(`${head.join("\r\n")}\r\n\r\n`));
    socket.once("data", (data) => (resolve(data.toString()), socket.destroy()));
    socket.once("error", reject);
  });
  return within(answer, "the answer");
}

test("a body is read only for callers who may call, within its bound and its time", async () => {
  assert.match(await headAlone(null), /^HTTP\/1\.1 401/);
  assert.match(await headAlone(producer("1"), { length: 5 << 20 }), /^HTTP\/1\.1 400/);
  assert.match(await headAlone(producer("1")), /^HTTP\/1\.1 504/);
});

test("a page of an allowed origin may call", async () => {
  const headers = {
    origin: "https://app.example.com", "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,connect-protocol-version,connect-timeout-ms,content-type",
  };
  const preflight = await get(server.url + NOTIFY, { method: "OPTIONS", headers });
  assert.equal(preflight.headers.get("access-control-allow-origin"), "https://app.example.com");
  assert.match(preflight.headers.get("access-control-allow-headers"), /connect-timeout-ms/);
  const answer = await post(NOTIFY, JSON.stringify({ event: MESSAGE }), { headers: { origin: "https://app.example.com" } });
  assert.deepStrictEqual([answer.status, answer.headers.get("access-control-allow-origin")], [200, "https://app.example.com"]);
});

test("a deadline ends a call", async () => {
  const late = await headAlone(producer("1"), { more: ["connect-timeout-ms: 50"] });
  assert.match(late, /^HTTP\/1\.1 504/);
  assert.match(late, /deadline_exceeded.*the call's deadline has passed/);
});
