// Attacks on the server's gRPC port: each is answered or ended in time, and a witness does not notice.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import http2 from "node:http2";
import net from "node:net";
import { startServer, until, within } from "./lib/fanfare.js";
import { producer } from "./lib/tokens.js";

const TIMEOUTS = ["--grpc-request-timeout", "2s"];
const CONNECTIONS = 40;
const MIB = 1 << 20;

let server;

before(async () => {
  server = await startServer([...TIMEOUTS, "--grpc-connections-per-address-max", String(CONNECTIONS)]);
});

after(() => server?.stop());

/** What the process has in memory, in bytes. */
const resident = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.child.pid}/status`, "utf8"))[1]) * 1024;

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
async function session() {
  const client = http2.connect(server.url);
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
