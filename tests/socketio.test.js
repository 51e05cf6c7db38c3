// Socket.IO protocol 5, packet by packet, over both transports. Written from the specification of the protocol. See also
// namespaces.test.js for namespaces and attachments.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { call, connect } from "./lib/clients.js";
import { openEngine, PATH, Poller, SEPARATOR, TRANSPORTS } from "./lib/engine.js";
import { QUIET, start, startBridge, startServer, until, within } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, soon, user } from "./lib/tokens.js";
import { Wire } from "./lib/wire.js";

const CALM = ["--ping-interval", "120s", "--ping-timeout", "60s"];
let fanfare, url, python;

before(async () => {
  generateStubs();
  fanfare = await start({ serverArgs: QUIET, bridgeArgs: CALM });
  url = fanfare.bridge.url;
  python = new Producer(fanfare.server.address);
});

after(async () => {
  python?.close();
  await fanfare?.stop();
});

const notice = (tenant, type, target = {}) =>
  python.call(producer(tenant), "messenger.v1.Messenger/BroadcastToOrganization", { target, userNotification: { type, message: "" } });
const typing = (tenant, chatId) =>
  python.call(producer(tenant), "messenger.v1.Messenger/NotifyTypingStart", { event: { chatId: String(chatId), userId: "9" } });

/** The same test over both transports. */
function both(what, run) {
  for (const transport of TRANSPORTS) test(`${transport}: ${what}`, () => run(() => openEngine(url, transport), transport));
}

both("CONNECT is answered with the session id and the recovery secret", async (open) => {
  const engine = await open();
  const { sid, pid, ...rest } = await engine.connect(user(1, "connect"));
  assert.deepStrictEqual(rest, {});
  assert.ok(sid.length >= 16 && pid.length >= 16);
  assert.equal(new Set([sid, pid, engine.handshake.sid]).size, 3, "the three ids differ");
  await notice("connect", "hello");
  const event = JSON.parse((await engine.packet("42")).slice(2));
  assert.deepStrictEqual(event.slice(0, 2), ["user:notification", { type: "hello", message: "" }]);
  assert.match(event[2], /^[0-9a-f]{12}-\d+(-[0-9a-f]{16})?$/, "a stored event has its cursor as last argument");
  assert.equal(event.length, 3);
  engine.close();
});

both("CONNECT may name the main namespace or leave it out", async (open) => {
  for (const place of ["", "/,"]) {
    const engine = await open();
    engine.send(`40${place}${JSON.stringify({ token: user(1, "main") })}`);
    assert.match(await engine.packet("40"), /^40\{.*"sid":/);
    engine.close();
  }
});

both("CONNECT without a valid token is answered with CONNECT_ERROR, and a retry on the same connection works", async (open) => {
  const engine = await open();
  for (const [payload, code] of [["", "no_token"], ["{}", "no_token"], ['{"token":"x"}', "invalid_token"], ['{"token":7}', "no_token"]]) {
    engine.send(`40${payload}`);
    const { message, data, ...rest } = JSON.parse((await engine.packet("44{")).slice(2));
    assert.match(message, /^Authentication failed: /);
    assert.deepStrictEqual([data, rest], [{ code }, {}]);
  }
  await engine.connect(user(1, "retry"));
  engine.close();
});

both("an event after a refused CONNECT closes the connection", async (open) => {
  const engine = await open();
  engine.send("40{}");
  await engine.packet("44");
  engine.send('42["join"]');
  await within(engine.ended, "the close");
});

both("a second CONNECT closes the connection", async (open) => {
  const engine = await open();
  await engine.connect(user(1, "twice"));
  engine.send(`40${JSON.stringify({ token: user(1, "twice") })}`);
  await within(engine.ended, "the close");
});

for (const packet of ['42["join"]', '421["join"]', "41", "43[]", "431[]", '44{"message":"x"}', '451-["x",{"_placeholder":true,"num":0}]', '42/gallery,["join"]']) {
  both(`${packet} before CONNECT closes the connection`, async (open) => {
    const engine = await open();
    engine.send(packet);
    await within(engine.ended, "the close");
  });
}

test("a connection without CONNECT is closed after the connect timeout", async () => {
  const bridge = await startBridge(fanfare.server, [...CALM, "--connect-timeout", "1s"]);
  for (const transport of TRANSPORTS) {
    const engine = await openEngine(bridge.url, transport);
    await within(engine.ended, "the close");
  }
  await bridge.stop();
});

both("an unknown namespace is refused, and the connection stays open", async (open) => {
  const engine = await open();
  for (const name of ["/admin", "/a/b", "/größe", `/${"x".repeat(100)}`]) {
    engine.send(`40${name},${JSON.stringify({ token: user(1, "unknown") })}`);
    assert.equal(await engine.packet(`44${name},`), `44${name},{"message":"Invalid namespace"}`);
  }
  await engine.connect(user(1, "unknown"));
  // The same with another namespace connected.
  engine.send("40/admin,");
  assert.equal(await engine.packet("44/admin,"), '44/admin,{"message":"Invalid namespace"}');
  assert.deepStrictEqual(await engine.call(1, "subscribe:chat", { chatId: 7 }), { chatId: 7 });
  engine.close();
});

for (const packet of ['42/admin,["join"]', '42/admin,1["join"]', "43/admin,1[]", "41/admin,"]) {
  both(`${packet} for a namespace that is not connected ${packet.startsWith("42") ? "closes the connection" : "affects no other session"}`, async (open) => {
    const [engine, other] = [await open(), await open()];
    await engine.connect(user(1, "stray"));
    await other.connect(user(2, "stray"));
    engine.send(packet);
    if (packet.startsWith("42")) await within(engine.ended, "the close");
    assert.deepStrictEqual(await other.call(1, "subscribe:chat", { chatId: 7 }), { chatId: 7 });
    engine.close();
    other.close();
  });
}

both("DISCONNECT ends the session, and the connection accepts another CONNECT", async (open, transport) => {
  const tenant = `again-${transport}`;
  const engine = await open();
  const watcher = await open();
  await watcher.connect(user(2, tenant));
  const first = await engine.connect(user(1, tenant));
  await engine.call(1, "subscribe:chat", { chatId: 7 });
  engine.send("41");
  // The new session has another id and no rooms, and misses what was published in between.
  const count = async () => Number((await python.call(producer(tenant), "fanfare.v1.Realtime/GetPresence", {})).sessionCount ?? 0);
  await until(async () => (await count()) === 1, "the session to be gone");
  await notice(tenant, "between");
  await watcher.packet((packet) => packet.includes("between"));
  const second = await engine.connect(user(1, tenant));
  assert.notEqual(second.sid, first.sid);
  assert.notEqual(second.pid, first.pid);
  await typing(tenant, 7);
  await notice(tenant, "after");
  await engine.packet((packet) => packet.includes("after"));
  assert.deepStrictEqual(engine.received.filter((packet) => String(packet).startsWith("42")), []);
  engine.close();
  watcher.close();
});

both("an event after DISCONNECT closes the connection", async (open) => {
  const engine = await open();
  await engine.connect(user(1, "late"));
  engine.send("41");
  engine.send('421["join"]');
  await within(engine.ended, "the close");
  assert.deepStrictEqual(engine.received.filter((packet) => String(packet).startsWith("43")), []);
});

both("acknowledgements have the ids of their events, in order", async (open) => {
  const engine = await open();
  await engine.connect(user(1, "acks"));
  const ids = [0, 7, 1, 4294967295, 12, 9007199254740991];
  engine.send(...ids.map((id) => `42${id}["subscribe:chat",{"chatId":7}]`));
  await engine.packet((packet) => packet.startsWith("439007199254740991["));
  const before = engine.received.filter((packet) => packet.startsWith("43"));
  assert.deepStrictEqual(before, ids.slice(0, -1).map((id) => `43${id}[{"chatId":7}]`));
  engine.close();
});

both("an event without an id gets no acknowledgement; a failure is sent as the event error", async (open) => {
  const engine = await open();
  await engine.connect(user(1, "silent"));
  engine.send('42["subscribe:chat",{"chatId":7}]', '42["subscribe:chat",{"chatId":"x"}]');
  const [name, error, ...rest] = JSON.parse((await engine.packet("42")).slice(2));
  assert.deepStrictEqual([name, error.code, error.path, rest], ["error", "invalid_argument", "chatId", []]);
  await engine.call(1, "subscribe:chat", { chatId: 8 });
  assert.deepStrictEqual(engine.received, []);
  engine.close();
});

for (const more of ['{"x":1}', '"x"', "null", "1,2,3", '{"chatId":8},{"chatId":9}']) {
  both(`an event with the extra argument ${more} is refused and has no effect`, async (open) => {
    const engine = await open();
    await engine.connect(user(1, "extra"));
    engine.send(`421["subscribe:chat",{"chatId":7},${more}]`);
    const { error } = await engine.acknowledgement(1);
    assert.equal(error?.code, "invalid_argument");
    assert.match(error.message, /argument/);
    engine.send(`42["subscribe:chat",{"chatId":7},${more}]`);
    const [name, again] = JSON.parse((await engine.packet("42")).slice(2));
    assert.deepStrictEqual([name, again], ["error", error]);
    // The session did not join the room.
    await typing("extra", 7);
    await notice("extra", "fence");
    const [event] = JSON.parse((await engine.packet("42")).slice(2));
    assert.equal(event, "user:notification");
    engine.close();
  });
}

test("a stock client gets the error for extra arguments in its callback", async () => {
  const socket = await connect(url, user(1, "stock"));
  assert.equal((await call(socket, "subscribe:chat", { chatId: 7 }, { more: true })).error?.code, "invalid_argument");
  assert.deepStrictEqual(await call(socket, "subscribe:chat", { chatId: 7 }), { chatId: 7 });
  socket.close();
});

/** Malformed packets of each kind. Each one closes its own connection only. */
const MALFORMED = [
  "4", "47", "48[]", "4x", "4-1", "4{}", "4[]", '4"x"', "4\u0000", "4 2", "4٢[]",
  // CONNECT with a payload that is not an object.
  "40[", "40[]", '40"x"', "40null", "40{",
  // EVENT without a payload, or with a payload that is not an array with a name.
  "42", "421", "42{}", "42null", '42"x"', "42[", "42[]", "421[]", '42["x"', '42["join"]]', "42[null]", '42[["join"]]', '42[{"name":"join"}]',
  // Ids that are not numbers.
  '42x["join"]', '42-1["join"]', '421e3["join"]',
  // ACK without an id, or with a payload that is not an array.
  "43", "43[]", "431", "431{}", "431null", "43x[]",
  // BINARY_EVENT with a missing or invalid number of attachments.
  "45", "45-", '45["x"]', '45-["x"]', '45x-["x"]', '45-1-["x"]', '4599999999-["x"]', '451["x"]',
  // BINARY_ACK.
  "46", '46["x"]', '461["x"]',
  // A namespace without the comma after it.
  '42/["join"]',
];

for (const packet of MALFORMED) {
  test(`a malformed packet closes its own connection only: ${JSON.stringify(packet)}`, async () => {
    const [engine, other] = [await openEngine(url, "websocket"), await openEngine(url, "websocket")];
    await engine.connect(user(1, "malformed"));
    await other.connect(user(2, "malformed"));
    engine.send(packet);
    await within(engine.ended, "the close");
    assert.deepStrictEqual(engine.received.filter((got) => String(got).startsWith("43")), []);
    assert.deepStrictEqual(await other.call(1, "subscribe:chat", { chatId: 7 }), { chatId: 7 });
    other.close();
  });
}

test("a malformed packet over polling closes its session", async () => {
  for (const packet of ["42", "4x", "45-", "431"]) {
    const poller = await Poller.open(url);
    await poller.connect(user(1, "malformed"));
    await poller.post(packet);
    await until(async () => (await poller.post("3")).status === 400, "the session to be closed");
  }
});

for (const name of ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]) {
  test(`the reserved name ${name} is refused`, async () => {
    const engine = await openEngine(url, "websocket");
    await engine.connect(user(1, "reserved"));
    engine.send(`421["${name}",{}]`);
    const refused = engine.acknowledgement(1).then(({ error }) => error.code, () => "closed");
    assert.match(await refused, /^(unknown_event|invalid_argument|closed)$/);
    engine.close();
  });
}

test("an attachment without its packet closes the connection", async () => {
  const engine = await openEngine(url, "websocket");
  await engine.connect(user(1, "unannounced"));
  engine.send(Buffer.from([1, 2, 3]));
  await within(engine.ended, "the close");
});

test("a text instead of an attachment closes the connection", async () => {
  const engine = await openEngine(url, "websocket");
  await engine.connect(user(1, "due"));
  engine.send('451-1["subscribe:chat",{"_placeholder":true,"num":0}]', '421["subscribe:chat",{"chatId":7}]');
  await within(engine.ended, "the close");
  assert.deepStrictEqual(engine.received.filter((got) => String(got).startsWith("43")), []);
});

test("unexpected acknowledgements are ignored", async () => {
  const engine = await openEngine(url, "websocket");
  await engine.connect(user(1, "nothing"));
  engine.send("43999[1]", '431[{"x":[1,2]}]');
  assert.deepStrictEqual(await engine.call(7, "subscribe:chat", { chatId: 7 }), { chatId: 7 });
  engine.close();
});

test("without a recovery window clients get neither a secret nor cursors", async () => {
  const own = await start({ serverArgs: [...QUIET, "--recovery-window", "0s"], bridgeArgs: CALM });
  const publisher = new Producer(own.server.address);
  for (const transport of TRANSPORTS) {
    const engine = await openEngine(own.bridge.url, transport);
    const { sid, ...rest } = await engine.connect(user(1, "off"));
    assert.deepStrictEqual([typeof sid, rest], ["string", {}]);
    const event = { userNotification: { type: "x", message: "" } };
    await publisher.call(producer("off"), "messenger.v1.Messenger/BroadcastToOrganization", event);
    assert.equal(await engine.packet("42"), '42["user:notification",{"type":"x","message":""}]');
    engine.close();
  }
  // A stock client that reconnects is a new session.
  const socket = await connect(own.bridge.url, user(1, "off"), { reconnection: true, reconnectionDelay: 10 });
  const { id } = socket;
  const back = new Promise((resolve) => socket.once("disconnect", () => socket.once("connect", resolve)));
  socket.io.engine.close();
  await within(back, "the client to reconnect");
  assert.deepStrictEqual([Boolean(socket.recovered), socket.id === id], [false, false]);
  socket.close();
  publisher.close();
  await own.stop();
});

test("a client that disconnects and connects again is a new session, and presence does not wait for the grace period", async () => {
  const server = await startServer(["--presence-grace", "600s", "--presence-catalog", "chat.v1"]);
  const bridge = await startBridge(server, CALM);
  const watcher = await connect(bridge.url, user(2, "own"));
  for (const transports of [["websocket"], ["polling"]]) {
    watcher.events.length = 0;
    const socket = await connect(bridge.url, user(1, "own"), { transports });
    await call(socket, "join_chat", { chatId: "x" });
    await watcher.event("user_online", ({ userId }) => userId === "1");
    const { id, _pid: pid } = socket;
    socket.disconnect();
    await watcher.event("user_offline", ({ userId }) => userId === "1");
    const back = new Promise((resolve) => socket.once("connect", resolve));
    socket.connect();
    await within(back, "the client to reconnect");
    assert.equal(socket.recovered, false);
    assert.notEqual(socket.id, id);
    assert.notEqual(socket._pid, pid);
    socket.disconnect();
    await watcher.event("user_offline");
  }
  watcher.close();
  await bridge.stop();
  await server.stop();
});

/** Reads all packets until the session is closed. */
async function readOut(poller) {
  const got = [];
  for (;;) {
    const { status, text } = await poller.get().catch(() => ({ status: 0 }));
    if (status !== 200) return got;
    got.push(...text.split(SEPARATOR));
  }
}

test("an ending with a retry reason sends no Close frame and no close packet", async () => {
  const bridge = await startBridge(fanfare.server, CALM);
  const ways = {
    async shutdown() {
      bridge.child.kill("SIGTERM");
    },
    async reconnect() {
      await python.call(producer("*", { tenant: "cut", scopes: ["admin"] }), "fanfare.v1.Realtime/Disconnect", { userId: "1", reconnect: true });
    },
  };
  for (const end of [ways.reconnect, ways.shutdown]) {
    const wire = await Wire.open(bridge.url);
    await wire.upgrade(`${PATH}?EIO=4&transport=websocket`);
    await wire.message();
    wire.text(`40${JSON.stringify({ token: user(1, "cut") })}`);
    await wire.message((packet) => packet.startsWith("40{"));
    const poller = await Poller.open(bridge.url);
    await poller.connect(user(1, "cut"));
    const polled = readOut(poller);
    await end();
    const got = [];
    for (;;) {
      const frame = await wire.next().catch(() => null);
      if (!frame) break;
      got.push([frame.opcode, String(frame.payload)]);
    }
    assert.deepStrictEqual(got.filter(([opcode, text]) => opcode === 8 || text === "1" || text.startsWith("41")), []);
    const packets = await within(polled, "the poll to end");
    assert.deepStrictEqual(packets.filter((packet) => packet === "1" || packet.startsWith("41")), []);
  }
  await within(bridge.ended, "the bridge to end");
  bridge.assertHealthy();
});

both("a final ending sends the event error, then DISCONNECT, then closes the connection", async (open) => {
  const engine = await open();
  await engine.connect(user(1, "final"));
  await python.call(producer("*", { tenant: "final", scopes: ["admin"] }), "fanfare.v1.Realtime/Disconnect", { userId: "1" });
  const [name, { code, message }] = JSON.parse((await engine.packet("42")).slice(2));
  assert.deepStrictEqual([name, code, typeof message], ["error", "disconnected", "string"]);
  assert.equal(await engine.packet("41"), "41");
  await within(engine.ended, "the close");
});

test("an expired token is a final ending", async () => {
  const bridge = await startBridge(fanfare.server, [...CALM, "--jwt-leeway", "0s"]);
  for (const transport of TRANSPORTS) {
    const engine = await openEngine(bridge.url, transport);
    await engine.connect(user(1, "expires", { exp: soon(4) }));
    assert.match(await engine.packet('42["error"'), /"token_expired"/);
    assert.equal(await engine.packet("41"), "41");
    await within(engine.ended, "the close");
  }
  await bridge.stop();
});
