// WebSocket (RFC 6455) frame by frame, on both paths that use it: fragments, control frames, violations and the closing handshake.
// Also permessage-deflate (RFC 7692).

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { deflateRawSync } from "node:zlib";
import WebSocket from "ws";
import { PATH } from "./lib/engine.js";
import { QUIET, startBridge, startServer, until, within } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, user } from "./lib/tokens.js";
import { BINARY, CLOSE, closing, CONTINUATION, frame, PING, PONG, TEXT, Wire } from "./lib/wire.js";

const PAYLOAD_MAX = 20_000;
let server, bridge, compressing, python;

before(async () => {
  generateStubs();
  server = await startServer(QUIET);
  const quiet = ["--ping-interval", "120s", "--ping-timeout", "60s", "--payload-bytes-max", String(PAYLOAD_MAX)];
  bridge = await startBridge(server, quiet);
  compressing = () => startBridge(server, [...quiet, "--compression", "true"]);
  python = new Producer(server.address);
});

after(async () => {
  python?.close();
  await bridge?.stop();
  await server?.stop();
});

/** Both paths: how to open a session, a call, and its answer. */
const ENDPOINTS = {
  "/socket.io/": {
    path: () => `${PATH}?EIO=4&transport=websocket`,
    async begin(wire, token) {
      await wire.message((packet) => packet.startsWith("0{"));
      wire.text(`40${JSON.stringify({ token })}`);
      await wire.message((packet) => packet.startsWith("40{"));
    },
    call: (id, chatId = 7) => `42${id}["subscribe:chat",{"chatId":${chatId}}]`,
    answer: (id, chatId = 7) => `43${id}[{"chatId":${chatId}}]`,
  },
  "/ws": {
    path: (token) => `/ws?token=${token}`,
    async begin(wire, token, endpoint) {
      wire.text(endpoint.call(99));
      await wire.message((text) => text.includes('"ack"'));
    },
    call: (id, chatId = 7) => `{"type":"subscribe:chat","chatId":${chatId},"ref":${id}}`,
    answer: (id, chatId = 7) => `{"type":"ack","ref":${id},"data":{"chatId":${chatId}}}`,
  },
};

/** Opens a session. */
async function open(endpoint, headers = {}, url = bridge.url, tenant = "frames") {
  const token = user(1, tenant);
  const wire = await Wire.open(url);
  wire.upgraded = await wire.upgrade(endpoint.path(token), headers);
  assert.equal(wire.upgraded.status, 101);
  await endpoint.begin(wire, token, endpoint);
  return wire;
}

/** The session works: a call is answered. */
async function assertWell(endpoint, wire, id = 1) {
  wire.text(endpoint.call(id));
  assert.deepStrictEqual(JSON.parse((await wire.message()).replace(/^\d+/, "")), JSON.parse(endpoint.answer(id).replace(/^\d+/, "")));
}

/** The same test on both paths. */
function both(what, run) {
  for (const [name, endpoint] of Object.entries(ENDPOINTS)) test(`${name}: ${what}`, () => run(endpoint, name));
}

/** The connection is closed. A Close frame is optional; if it has a code, it is this one. */
async function assertFailed(wire, code, must = false) {
  const closed = await within(wire.closed(), "the connection to be closed");
  if (must || closed.code !== undefined) assert.ok([code].flat().includes(closed.code), `code ${closed.code} ${closed.reason}`);
}

both("a message may have fragments, also empty ones", async (endpoint) => {
  const wire = await open(endpoint);
  const text = endpoint.call(1);
  for (const cuts of [[3], [0, 5, 5, 9], [text.length], [...text].map((_, i) => i)]) {
    const ends = [...cuts, text.length];
    ends.forEach((end, i) => wire.frame(i === 0 ? TEXT : CONTINUATION, text.slice(ends[i - 1] ?? 0, end), { fin: i === ends.length - 1 }));
    assert.match(await wire.message(), /"chatId":7/);
  }
  wire.destroy();
});

both("a fragment may end within a character", async (endpoint) => {
  const wire = await open(endpoint);
  const bytes = Buffer.from(endpoint.call(1).replace("subscribe:chat", "join_chat").replace(':7', ':"größe-👋"'));
  const middle = bytes.indexOf(Buffer.from("👋")) + 2;
  wire.frame(TEXT, bytes.subarray(0, middle), { fin: false });
  wire.frame(CONTINUATION, bytes.subarray(middle));
  assert.match(await wire.message(), /"größe-👋"/);
  wire.destroy();
});

both("control frames between fragments are answered at once", async (endpoint) => {
  const wire = await open(endpoint);
  const text = endpoint.call(1);
  wire.frame(TEXT, text.slice(0, 9), { fin: false });
  wire.frame(PING, "between");
  const { opcode, payload } = await wire.next();
  assert.deepStrictEqual([opcode, String(payload)], [PONG, "between"]);
  wire.frame(PONG, "unasked");
  wire.frame(CONTINUATION, text.slice(9));
  assert.match(await wire.message(), /"chatId":7/);
  wire.destroy();
});

both("a ping is answered by a pong with the same payload", async (endpoint) => {
  const wire = await open(endpoint);
  for (const data of ["", "x", Buffer.from([0, 0xff, 0x80]), "y".repeat(125)]) {
    wire.frame(PING, data);
    const { opcode, payload, fin } = await wire.next();
    assert.deepStrictEqual([opcode, payload, fin], [PONG, Buffer.from(data), true]);
  }
  await assertWell(endpoint, wire);
  wire.destroy();
});

both("unexpected pongs are ignored", async (endpoint) => {
  const wire = await open(endpoint);
  for (const data of ["", "unasked"]) wire.frame(PONG, data);
  await assertWell(endpoint, wire);
  wire.destroy();
});

both("a message may arrive byte by byte", async (endpoint) => {
  const wire = await open(endpoint);
  for (const byte of frame(TEXT, endpoint.call(1))) {
    // Write each byte after the previous one was flushed.
    await new Promise((resolve) => wire.socket.write(Buffer.from([byte]), resolve));
  }
  assert.match(await wire.message(), /"chatId":7/);
  wire.destroy();
});

both("many messages may arrive in one TCP segment", async (endpoint) => {
  const wire = await open(endpoint);
  const ids = Array.from({ length: 60 }, (_, i) => i + 1);
  wire.send(Buffer.concat(ids.map((id) => frame(TEXT, endpoint.call(id, id)))));
  for (const id of ids) assert.match(await wire.message(), new RegExp(`"chatId":${id}\\b`));
  wire.destroy();
});

both("the length field may have any of its three sizes", async (endpoint) => {
  const wire = await open(endpoint);
  wire.frame(TEXT, endpoint.call(1), { wide: true });
  assert.match(await wire.message(), /"chatId":7/);
  const long = endpoint.call(2).replace("}", `${" ".repeat(5000)}}`);
  wire.text(long);
  assert.match(await wire.message(), /"chatId":7/);
  wire.destroy();
});

/** Violations, and the code that a Close frame may have. */
const VIOLATIONS = {
  "a frame without a mask": [(wire, text) => wire.frame(TEXT, text, { masked: false }), 1002],
  "the first reserved bit": [(wire, text) => wire.frame(TEXT, text, { rsv: 4 }), 1002],
  "the second reserved bit": [(wire, text) => wire.frame(TEXT, text, { rsv: 2 }), 1002],
  "the third reserved bit": [(wire, text) => wire.frame(TEXT, text, { rsv: 1 }), 1002],
  "a reserved bit on a control frame": [(wire) => wire.frame(PING, "", { rsv: 4 }), 1002],
  "reserved opcode 3": [(wire, text) => wire.frame(3, text), 1002],
  "reserved opcode 7": [(wire, text) => wire.frame(7, text), 1002],
  "reserved opcode 11": [(wire) => wire.frame(11, ""), 1002],
  "reserved opcode 15": [(wire) => wire.frame(15, ""), 1002],
  "a ping of 126 bytes": [(wire) => wire.frame(PING, "x".repeat(126)), 1002],
  "a pong of 126 bytes": [(wire) => wire.frame(PONG, "x".repeat(126)), 1002],
  "a Close frame of 126 bytes": [(wire) => wire.frame(CLOSE, closing(1000, "x".repeat(124))), 1002],
  "a ping in fragments": [(wire) => wire.frame(PING, "", { fin: false }), 1002],
  "a continuation without a message": [(wire, text) => wire.frame(CONTINUATION, text), 1002],
  "a new message between fragments": [
    (wire, text) => {
      wire.frame(TEXT, text, { fin: false });
      wire.frame(TEXT, text);
    }, 1002,
  ],
  "a length of more than 63 bits": [(wire) => wire.frame(TEXT, "", { length: 1n << 63n }), [1002, 1009]],
  "a Close frame of one byte": [(wire) => wire.frame(CLOSE, "x"), 1002],
  "text that is not UTF-8": [(wire) => wire.frame(TEXT, Buffer.from([0x34, 0x32, 0xff, 0xfe])), 1007],
  "text that ends within a character": [(wire) => wire.frame(TEXT, Buffer.from("42é").subarray(0, 3)), 1007],
  "an overlong character": [(wire) => wire.frame(TEXT, Buffer.from([0xc0, 0xaf])), 1007],
  "a surrogate": [(wire) => wire.frame(TEXT, Buffer.from([0xed, 0xa0, 0x80])), 1007],
  "fragments that are not UTF-8 together": [
    (wire) => {
      wire.frame(TEXT, Buffer.from([0x34, 0x32, 0xc3]), { fin: false });
      wire.frame(CONTINUATION, Buffer.from([0x28]));
    }, 1007,
  ],
};

for (const [what, [send, code]] of Object.entries(VIOLATIONS)) {
  both(`${what} fails the connection`, async (endpoint, name) => {
    const wire = await open(endpoint);
    send(wire, endpoint.call(1));
    // On `/ws` invalid UTF-8 must have its code: clients see nothing else.
    await assertFailed(wire, code, name === "/ws" && code === 1007);
  });
}

test("a Close frame whose reason is not UTF-8 fails the connection", async () => {
  const wire = await open(ENDPOINTS["/ws"]);
  wire.frame(CLOSE, Buffer.concat([closing(1000), Buffer.from([0xff, 0xfe])]));
  const { code } = await within(wire.closed(), "the close");
  if (code !== undefined) assert.ok([1002, 1007].includes(code), `code ${code}`);
});

both("a frame whose length is over the limit fails the connection before its payload arrives", async (endpoint) => {
  for (const length of [PAYLOAD_MAX * 4, 1 << 24, 2 ** 40]) {
    const wire = await open(endpoint);
    wire.frame(TEXT, endpoint.call(1), { length: BigInt(length) });
    const { code } = await within(wire.closed(), "the close");
    // 4507 is our own `too_large`.
    if (code !== undefined) assert.ok([1009, 4507].includes(code), `code ${code}`);
  }
});

both("fragments that exceed the limit together fail the connection", async (endpoint) => {
  const wire = await open(endpoint);
  const part = "x".repeat(PAYLOAD_MAX / 2);
  wire.frame(TEXT, part, { fin: false });
  for (let n = 0; n < 9; n++) wire.frame(CONTINUATION, part, { fin: false });
  const { code } = await within(wire.closed(), "the close");
  if (code !== undefined) assert.ok([1009, 4507].includes(code), `code ${code}`);
});

test("/ws: a message over the limit gets an error before the connection closes", async () => {
  const wire = await open(ENDPOINTS["/ws"]);
  wire.frame(TEXT, `"${"x".repeat(PAYLOAD_MAX)}"`);
  assert.match(await wire.message(), /"too_large"/);
  assert.equal((await within(wire.closed(), "the close")).code, 4507);
});

both("20,000 empty fragments are either accepted or refused", async (endpoint) => {
  const wire = await open(endpoint);
  wire.frame(TEXT, "", { fin: false });
  wire.send(Buffer.concat(Array.from({ length: 20_000 }, () => frame(CONTINUATION, "", { fin: false }))));
  wire.frame(PING, "alive");
  const { opcode } = await wire.next();
  assert.ok([PONG, CLOSE].includes(opcode));
  wire.destroy();
});

test("/ws: a binary message is refused", async () => {
  const wire = await open(ENDPOINTS["/ws"]);
  wire.frame(BINARY, ENDPOINTS["/ws"].call(1));
  const got = await wire.next();
  if (got.opcode === TEXT) assert.match(String(got.payload), /"code":"(invalid_argument|protocol)"/);
  else assert.equal(got.opcode, CLOSE);
  wire.destroy();
});

for (const empty of ["", Buffer.alloc(0)]) {
  const opcode = typeof empty === "string" ? TEXT : BINARY;
  test(`/socket.io/: an empty ${opcode === TEXT ? "text" : "binary"} message is not a packet and closes the connection`, async () => {
    const [wire, other] = [await open(ENDPOINTS["/socket.io/"]), await open(ENDPOINTS["/socket.io/"])];
    wire.frame(opcode, empty);
    await within(wire.closed(), "the close");
    await assertWell(ENDPOINTS["/socket.io/"], other);
    other.destroy();
  });
}

test("/ws: an empty message is answered with an error, and the session stays open", async () => {
  const wire = await open(ENDPOINTS["/ws"]);
  wire.text("");
  assert.match(await wire.message(), /"invalid_argument"/);
  await assertWell(ENDPOINTS["/ws"], wire);
  wire.destroy();
});

for (const code of [1000, 1001, 1003, 1008, 1011, 3000, 3999, 4000, 4999]) {
  both(`a Close frame with ${code} is answered by a Close frame with the same code`, async (endpoint) => {
    const wire = await open(endpoint);
    wire.frame(CLOSE, closing(code, "bye"));
    const closed = await within(wire.closed(), "the close");
    assert.deepStrictEqual([closed.framed, closed.code], [true, code]);
  });
}

both("a Close frame without a code is answered by a Close frame", async (endpoint) => {
  const wire = await open(endpoint);
  wire.frame(CLOSE);
  const { framed, code } = await within(wire.closed(), "the close");
  assert.ok(framed);
  assert.ok(code === undefined || code === 1000, `code ${code}`);
});

for (const code of [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535]) {
  test(`/ws: a Close frame with the invalid code ${code} fails the connection`, async () => {
    const wire = await open(ENDPOINTS["/ws"]);
    wire.frame(CLOSE, closing(code));
    await assertFailed(wire, 1002);
  });
}

both("frames after a Close frame are not handled", async (endpoint) => {
  const [wire, other] = [await open(endpoint), await open(endpoint)];
  wire.send(Buffer.concat([frame(CLOSE, closing(1000)), frame(TEXT, endpoint.call(1).replace("subscribe:chat", "join"))]));
  const { code } = await within(wire.closed(), "the close");
  assert.equal(code, 1000);
  await assertWell(endpoint, other);
  other.destroy();
});

both("a stock WebSocket client gets a clean close", async (endpoint) => {
  const socket = new WebSocket(bridge.url.replace("http", "ws") + endpoint.path(user(1, "clean")));
  await within(new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject)), "the WebSocket");
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.close(1000, "done");
  assert.equal(await within(closed, "the close"), 1000);
});

both("a connection that ends within a frame closes its session", async (endpoint) => {
  const presence = async () => Number((await python.call(producer("gone"), "fanfare.v1.Realtime/GetPresence", {})).sessionCount ?? 0);
  const wire = await open(endpoint, {}, bridge.url, "gone");
  assert.equal(await presence(), 1);
  wire.send(frame(TEXT, endpoint.call(1)).subarray(0, 12));
  wire.destroy();
  await until(async () => (await presence()) === 0, "the session to be gone");
});

/** Publishes an event to everybody in the tenant. */
const publish = (tenant, type, message) =>
  python.call(producer(tenant), "messenger.v1.Messenger/BroadcastToOrganization", { userNotification: { type, message } });

both("compression is off by default", async (endpoint) => {
  const wire = await open(endpoint, { "sec-websocket-extensions": "permessage-deflate; client_max_window_bits" });
  assert.equal(wire.upgraded.headers["sec-websocket-extensions"], undefined);
  await assertWell(endpoint, wire);
  wire.destroy();
});

test("a stock client reads compressed events in order, and they are smaller", async () => {
  const own = await compressing();
  for (const endpoint of Object.values(ENDPOINTS)) {
    const token = user(1, "deflate");
    const socket = new WebSocket(own.url.replace("http", "ws") + endpoint.path(token), { perMessageDeflate: true });
    const texts = [];
    socket.on("message", (data) => texts.push(String(data)));
    await within(new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject)), "the WebSocket");
    assert.match(socket.extensions, /permessage-deflate/);
    if (endpoint === ENDPOINTS["/ws"]) socket.send(endpoint.call(99));
    else socket.send(`40${JSON.stringify({ token })}`);
    await until(() => texts.some((text) => text.startsWith("40{") || text.includes('"ack"')), "the session");
    const sent = ["tiny", "x".repeat(15_000), "größe 👋 ".repeat(500), "", Array.from({ length: 3000 }, () => Math.random()).join().slice(0, 15_000)];
    const before = socket._socket.bytesRead;
    for (const [i, message] of sent.entries()) await publish("deflate", String(i), message);
    const events = () => texts.filter((text) => text.includes("user:notification"));
    await until(() => events().length === sent.length, "the events");
    assert.deepStrictEqual(events().map((text) => /"message":"([^"]*)"/.exec(text)[1]), sent);
    const read = socket._socket.bytesRead - before;
    assert.ok(read < 15_000 + 5000, `${read} bytes for ${sent.join().length}`);
    socket.terminate();
  }
  await own.stop();
});

test("compression keeps no context between messages", async () => {
  const own = await compressing();
  for (const endpoint of Object.values(ENDPOINTS)) {
    const wire = await open(endpoint, { "sec-websocket-extensions": "permessage-deflate" }, own.url);
    assert.match(wire.upgraded.headers["sec-websocket-extensions"], /server_no_context_takeover/);
    // Both compressed and uncompressed messages are accepted.
    await assertWell(endpoint, wire);
    wire.frame(TEXT, deflated(endpoint.call(2)), { rsv: 4 });
    assert.match(await wire.message(), /"chatId":7/);
    wire.destroy();
  }
  await own.stop();
});

/** A message as permessage-deflate writes it: without the empty block at the end. */
const deflated = (text) => deflateRawSync(text, { finishFlush: 2 }).subarray(0, -4);

test("a compressed message that is too large when it is inflated is refused", async () => {
  const own = await compressing();
  for (const endpoint of Object.values(ENDPOINTS)) {
    const [wire, other] = [await open(endpoint, { "sec-websocket-extensions": "permessage-deflate" }, own.url), await open(endpoint, {}, own.url)];
    const bomb = deflated(`42["${"x".repeat(64 << 20)}"]`).subarray(0, PAYLOAD_MAX - 100);
    wire.frame(TEXT, bomb, { rsv: 4 });
    const { code } = await within(wire.closed(), "the close");
    if (code !== undefined) assert.ok([1009, 4507].includes(code), `code ${code}`);
    await assertWell(endpoint, other);
    other.destroy();
    // Not a deflate stream.
    const broken = await open(endpoint, { "sec-websocket-extensions": "permessage-deflate" }, own.url);
    broken.frame(TEXT, Buffer.from([0xff, 0xff, 0xff, 0xff]), { rsv: 4 });
    await within(broken.closed(), "the close");
  }
  await own.stop();
});
