// Attacks on the server's gRPC port: each is answered or ended in time, and a witness does not notice.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import http2 from "node:http2";
import net from "node:net";
import { QUIET, run, SECRET, startServer, until, within } from "./lib/fanfare.js";
import { producer, user } from "./lib/tokens.js";

const TIMEOUTS = ["--grpc-request-timeout", "2s"];
const CONNECTIONS = 40;
const MIB = 1 << 20;

let server;

before(async () => {
  server = await startServer([...TIMEOUTS, "--grpc-connections-per-address-max", String(CONNECTIONS)]);
});

after(() => server?.stop());

/** What the process has in memory, in bytes. */
const resident = (of = server) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${of.child.pid}/status`, "utf8"))[1]) * 1024;

/** A TCP connection and how it ends. */
async function connected() {
  const [host, port] = server.address.split(":");
  const socket = net.connect(Number(port), host);
  socket.on("error", () => {});
  const closed = once(socket, "close");
  await within(Promise.race([once(socket, "connect"), closed]), "the connection");
  socket.resume();
  return { socket, closed };
}

/** An HTTP/2 connection. */
async function session(url = server.url) {
  const client = http2.connect(url);
  client.on("error", () => {});
  await within(once(client, "connect"), "the HTTP/2 connection");
  return client;
}

/** Begins a call with these bytes; `status` is its gRPC status once there is one. */
function begin(client, bytes, bearer) {
  const authorization = bearer ? { authorization: `Bearer ${bearer}` } : {};
  const stream = client.request({
    ":method": "POST", ":path": "/fanfare.v1.Realtime/Notify", "content-type": "application/grpc", te: "trailers", ...authorization,
  });
  const call = { stream };
  const take = (headers) => (call.status ??= headers["grpc-status"] && Number(headers["grpc-status"]));
  stream.on("response", take).on("trailers", take).on("error", () => {}).resume();
  call.ended = new Promise((resolve) => stream.once("close", resolve));
  if (bytes.length > 0) stream.write(bytes);
  return call;
}

/** The prefix of a message of so many bytes, and the beginning of it. */
function unfinished(size, begun) {
  const bytes = Buffer.alloc(5 + begun, 7);
  bytes.writeUInt8(0);
  bytes.writeUInt32BE(size, 1);
  return bytes;
}

test("connections that send nothing, or half of what HTTP/2 begins with, are closed", async () => {
  for (const bytes of ["", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /healthz HTTP/1.1\r\nHo"]) {
    const { socket, closed } = await connected();
    socket.write(bytes);
    await within(closed, `the end of a connection that sent ${JSON.stringify(bytes)}`, 20_000);
  }
});

test("connections from one address are bounded, and room comes back", async () => {
  const all = await Promise.all(Array.from({ length: CONNECTIONS + 20 }, connected));
  const ended = await Promise.all(all.map(({ closed }) => Promise.race([closed.then(() => true), new Promise((resolve) => setTimeout(resolve, 500, false))])));
  assert.ok(ended.filter(Boolean).length >= 20, `${ended.filter(Boolean).length} were refused`);
  all.forEach(({ socket }) => socket.destroy());
  await until(() => fetch(`${server.url}/healthz`).then((answer) => answer.ok, () => false), "a connection to be accepted again");
});

test("without a token nothing of a body is read", async () => {
  const before = resident();
  const few = await session();
  const refused = Array.from({ length: 20 }, () => begin(few, unfinished(4 * MIB - 5, 32 << 10)));
  await within(Promise.all(refused.map(({ ended }) => ended)), "all calls to be refused");
  assert.deepStrictEqual([...new Set(refused.map(({ status }) => status))], [16]);
  // More than fit: what becomes of the connection is its peer's business, but it costs nothing.
  const many = await session();
  let ended = 0;
  const calls = Array.from({ length: 300 }, () => begin(many, unfinished(4 * MIB - 5, 64 << 10)));
  calls.forEach((call) => call.ended.then(() => ended++));
  await until(() => ended > 200, "most calls to end");
  assert.ok(resident() - before < 64 * MIB, `${(resident() - before) / MIB} MiB`);
  few.destroy();
  many.destroy();
});

test("with a token the prefixes of 2,000 large messages reserve nothing, and are late in time", async () => {
  const client = await session();
  const before = resident();
  const calls = Array.from({ length: 2000 }, () => begin(client, unfinished(4 * MIB - 5, 0), producer()));
  await within(Promise.all(calls.map(({ ended }) => ended)), "all calls to be late");
  assert.deepStrictEqual([...new Set(calls.map(({ status }) => status))], [4]);
  assert.ok(resident() - before < 128 * MIB, `${(resident() - before) / MIB} MiB`);
  client.destroy();
});

test("a message that is too large is refused by its prefix", async () => {
  const client = await session();
  const call = begin(client, unfinished(4 * MIB + 1, 10), producer());
  await within(call.ended, "the refusal");
  assert.equal(call.status, 11);
  client.destroy();
});

/** A field of a protobuf message: text, or a message as bytes. */
function field(number, value) {
  const bytes = Buffer.from(value);
  const length = [];
  for (let rest = bytes.length; ; rest >>>= 7) {
    length.push(rest > 127 ? (rest & 127) | 128 : rest);
    if (rest < 128) break;
  }
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...length]), bytes]);
}

/** A call with one message. `status` and `message` are there once it is refused or over, `first` gives its first message, or null. */
function invoke(client, path, bearer, message) {
  const stream = client.request({
    ":method": "POST", ":path": path, "content-type": "application/grpc", te: "trailers", authorization: `Bearer ${bearer}`,
  });
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  const call = { stream, status: undefined };
  const take = (headers) => {
    if (headers["grpc-status"] === undefined) return;
    call.status = Number(headers["grpc-status"]);
    call.message = decodeURIComponent(headers["grpc-message"] ?? "");
  };
  stream.on("response", take).on("trailers", take).on("error", () => {});
  call.ended = new Promise((resolve) => stream.once("close", resolve));
  const data = new Promise((resolve) => stream.once("data", resolve));
  stream.resume();
  call.first = Promise.race([data, call.ended.then(() => null)]);
  stream.end(Buffer.concat([head, message]));
  return call;
}

const SUBSCRIBE = "/fanfare.v1.Realtime/Subscribe";
const NOTIFY = "/fanfare.v1.Realtime/Notify";
const subscription = (rooms, after = "") => Buffer.concat([...rooms.map((room) => field(2, room)), ...(after ? [field(3, after)] : [])]);
/** A `user:online` of the messenger for a tenant. */
const online = (tenant) => Buffer.concat([
  field(1, Buffer.concat([field(1, tenant), field(2, "org")])),
  field(2, Buffer.concat([field(1, "type.googleapis.com/messenger.v1.UserOnline"), field(2, field(1, "7"))])),
]);

/** The present place in a tenant's log. */
async function position(client, tenant) {
  const call = invoke(client, SUBSCRIBE, producer(tenant), subscription(["org"]));
  const bytes = await within(call.first, "the position");
  call.stream.close(http2.constants.NGHTTP2_CANCEL);
  // After the prefix: SubscribeResponse { position: { cursor } }, each with one byte of tag and one of length.
  return bytes.subarray(9, 9 + bytes[8]).toString();
}

const quantile = (times, share) => times.toSorted((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * share))];

test("100 scans of a long log for a room without events leave another tenant's Notify alone", async (t) => {
  const own = await startServer(QUIET);
  const [attacker, witness] = [await session(own.url), await session(own.url)];
  const beginning = await position(attacker, "1");
  const lines = `${JSON.stringify({ userId: "7" })}\n`.repeat(40_000);
  const filled = await run(["notify", "user:online", "-", "--server", own.url, "--jwt-secret", SECRET, "--tenant", "1"], { input: lines });
  assert.equal(filled.code, 0, filled.stderr);
  const bearer = producer("witness");
  const measure = async (count) => {
    const times = [];
    for (let i = 0; i < count; i++) {
      const began = performance.now();
      const call = invoke(witness, NOTIFY, bearer, online("witness"));
      await within(call.ended, "a Notify of the witness");
      assert.equal(call.status, 0, call.message);
      times.push(performance.now() - began);
    }
    return times;
  };
  await measure(100);
  const before = quantile(await measure(300), 0.99);
  const nobody = user(5, 1, { rooms: ["chat:404"] });
  const times = [];
  for (let round = 0; round < 6; round++) {
    const scans = Array.from({ length: 100 }, () => invoke(attacker, SUBSCRIBE, nobody, subscription(["chat:404"], beginning)));
    // Their positions are there before they scan.
    const begun = await within(Promise.all(scans.map(({ first }) => first)), "the scans to begin");
    assert.ok(begun.every(Boolean), scans.find(({ status }) => status)?.message);
    times.push(...await measure(50));
    scans.forEach(({ stream }) => stream.close(http2.constants.NGHTTP2_CANCEL));
    await within(Promise.all(scans.map(({ ended }) => ended)), "the scans to end");
  }
  const during = quantile(times, 0.99);
  t.diagnostic(`p99 of the witness: ${before.toFixed(1)} ms undisturbed, ${during.toFixed(1)} ms beside 100 scans`);
  assert.ok(during <= 2 * before + 10, `${during} ms, undisturbed ${before} ms`);
  attacker.destroy();
  witness.destroy();
  await own.stop();
});

test("40,000 subscriptions of 256 rooms are refused beyond the limit, and places and memory come back", async (t) => {
  const own = await startServer(QUIET);
  const bearer = producer("1");
  const request = subscription(Array.from({ length: 256 }, (_, i) => `chat:${i}`));
  const clients = await Promise.all(Array.from({ length: 8 }, () => session(own.url)));
  const before = resident(own);
  let [open, refused] = [0, 0];
  for (let round = 0; round < 40; round++) {
    const calls = Array.from({ length: 1000 }, (_, i) => invoke(clients[i % clients.length], SUBSCRIBE, bearer, request));
    const firsts = await within(Promise.all(calls.map(({ first }) => first)), "the answers");
    open += firsts.filter(Boolean).length;
    const ends = calls.filter((_, i) => !firsts[i]);
    refused += ends.length;
    assert.deepStrictEqual([...new Set(ends.map(({ status }) => status))], [8], ends[0]?.message);
    assert.match(ends[0].message, /rooms-per-user-max/);
  }
  assert.deepStrictEqual([open, refused], [Math.floor(10_000 / 256), 40_000 - Math.floor(10_000 / 256)]);
  const growth = resident(own) - before;
  t.diagnostic(`${(growth / MIB).toFixed(0)} MiB more`);
  assert.ok(growth < 96 * MIB, `${growth / MIB} MiB`);
  clients.forEach((client) => client.destroy());
  const again = await session(own.url);
  await until(async () => {
    const call = invoke(again, SUBSCRIBE, bearer, request);
    return within(call.first, "an answer");
  }, "a place to be free");
  again.destroy();
  await own.stop();
});

test("the subscriptions of one user are limited, and those of another are not affected", async () => {
  const own = await startServer([...QUIET, "--subscriptions-per-user-max", "3", "--subscriptions-per-service-max", "4"]);
  const client = await session(own.url);
  const open = async (bearer) => {
    const call = invoke(client, SUBSCRIBE, bearer, subscription(["org"]));
    await within(call.first, "an answer");
    return call;
  };
  for (const [bearer, max, setting] of [[user(1, 1), 3, "user"], [user(2, 1), 3, "user"], [producer("1"), 4, "service"]]) {
    const calls = [];
    for (let i = 0; i < max; i++) calls.push(await open(bearer));
    assert.deepStrictEqual(calls.map(({ status }) => status), Array(max).fill(undefined));
    const { status, message } = await open(bearer);
    assert.equal(status, 8);
    assert.match(message, new RegExp(`${max} subscriptions.*subscriptions-per-${setting}-max`));
    calls[0].stream.close(http2.constants.NGHTTP2_CANCEL);
    await until(async () => (await open(bearer)).status === undefined, "a place to be free");
  }
  client.destroy();
  await own.stop();
});

test("one user's 60 KB messages do not flush the tenant's log", async () => {
  const own = await startServer([...QUIET, "--retention-bytes", "4MiB"]);
  const client = await session(own.url);
  const beginning = await position(client, "1");
  const first = invoke(client, NOTIFY, producer("1"), online("1"));
  await within(first.ended, "the event that must stay");
  assert.equal(first.status, 0, first.message);
  const bearer = user(5, 1);
  const message = Buffer.concat([field(1, "7"), field(2, "x".repeat(60_000))]);
  const statuses = [];
  for (let i = 0; i < 100; i++) {
    const call = invoke(client, "/chat.v1.ChatClient/SendMessage", bearer, message);
    await within(call.ended, "a message");
    statuses.push(call.status);
    if (call.status === 8) assert.match(call.message, /too many bytes.*publish-bytes-per-user/);
  }
  assert.deepStrictEqual([...new Set(statuses)].sort(), [0, 8]);
  const reader = invoke(client, SUBSCRIBE, producer("1"), subscription(["org"], beginning));
  assert.ok(await within(reader.first, "the beginning of the log"), reader.message);
  // Another user is not affected.
  const other = invoke(client, "/chat.v1.ChatClient/SendMessage", user(6, 1), message);
  await within(other.ended, "another user's message");
  assert.equal(other.status, 0, other.message);
  client.destroy();
  await own.stop();
});
