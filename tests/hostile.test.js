// Hostile and broken input: each gets its documented answer, while a witness session goes on receiving, and no process
// logs a fault (which the end of the tests checks).

import { after, before, beforeEach, afterEach, test } from "node:test";
import assert from "node:assert/strict";
import { once } from "node:events";
import WebSocket from "ws";
import { call, connect, refusal } from "./lib/clients.js";
import { DEADLINE, get, QUIET, start, within } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, soon, token, user } from "./lib/tokens.js";

let fanfare, python, witness, count = 0;

before(async () => {
  generateStubs();
  fanfare = await start({ serverArgs: QUIET });
  python = new Producer(fanfare.server.address);
  witness = await connect(fanfare.bridge.url, user(1, 1));
});

const notice = (type, tenant = "1") =>
  python.call(producer(), "messenger.v1.Messenger/BroadcastToOrganization", { target: { tenant }, userNotification: { type } });

// Before and after every attack the witness hears what it should.
for (const around of [beforeEach, afterEach]) {
  around(async () => {
    const type = `still here ${count++}`;
    await notice(type);
    await witness.event("user:notification", (payload) => payload.type === type);
    witness.events.length = 0;
  });
}

after(async () => {
  witness?.close();
  python?.close();
  await fanfare?.stop();
});

/** A raw Engine.IO WebSocket after its handshake; `closed` resolves when the server ends it. */
async function raw() {
  const socket = new WebSocket(`${fanfare.bridge.url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
  socket.received = [];
  socket.closed = once(socket, "close");
  socket.on("error", () => {});
  socket.on("message", (data) => socket.received.push(String(data)));
  await within(once(socket, "message"), "the handshake");
  return socket;
}

async function rawSession(identity = user(66, 1)) {
  const socket = await raw();
  const connected = within(new Promise((resolve) => socket.on("message", (d) => String(d).startsWith("40") && resolve())), "CONNECT");
  socket.send(`40{"token":"${identity}"}`);
  await connected;
  return socket;
}

/** Waits for a message that matches. */
const heard = (socket, matches) =>
  within(
    new Promise((resolve) => {
      const look = () => {
        const found = socket.received.find(matches);
        if (found) resolve(found);
      };
      look();
      socket.on("message", look);
    }),
    "a message",
  );

for (const packet of ["9", "4", "49", "4x", "45", "45-", "4{}", "garbage", "42{}", "421{}", "42[]", "421[]", "43[]", "4\u0000", "b!!!", "40{", "412"]) {
  test(`a malformed packet closes its connection alone: ${JSON.stringify(packet)}`, async () => {
    const bystander = await rawSession();
    const socket = packet === "40{" ? await raw() : await rawSession();
    socket.send(packet);
    if (packet === "40{") {
      // A CONNECT whose payload is not JSON presents no token.
      assert.match(await heard(socket, (m) => m.startsWith("44")), /no_token.*No token/);
      socket.close();
    } else {
      await within(socket.closed, "the close");
    }
    assert.equal(bystander.readyState, WebSocket.OPEN);
    bystander.close();
  });
}

test("an event before CONNECT, and a second CONNECT, close the connection", async () => {
  const early = await raw();
  early.send('42["join"]');
  await within(early.closed, "the close");
  const twice = await rawSession();
  twice.send(`40{"token":"${user(66, 1)}"}`);
  await within(twice.closed, "the close");
});

test("a wrong namespace is refused and the connection can still be used", async () => {
  const socket = await raw();
  socket.send("40/admin,{}");
  assert.deepStrictEqual(await heard(socket, (m) => m.startsWith("44")), '44/admin,{"message":"Invalid namespace"}');
  socket.send(`40{"token":"${user(66, 1)}"}`);
  await heard(socket, (m) => m.startsWith("40{"));
  socket.close();
  const error = await refusal(`${fanfare.bridge.url}/admin`, { auth: { token: user(1, 1) } });
  assert.deepStrictEqual([error.message, error.data], ["Invalid namespace", undefined]);
});

test("an event for a namespace that was not entered closes the connection", async () => {
  const socket = await rawSession();
  socket.send('42/admin,["join"]');
  await within(socket.closed, "the close");
});

// [what, packet, code, message]
const EVENTS = [
  ["a number as name", "421[7]", "invalid_argument", /first element must be its name/],
  ["control characters in the name", '421["a\\u0001"]', "invalid_argument", /without control characters/],
  ["an endless name", `421["${"x".repeat(300)}"]`, "invalid_argument", /1 to 256 bytes/],
  ["an unknown event", '421["subscribe:chatt",{}]', "unknown_event", /did you mean \\?"subscribe:chat/],
  ["an array as payload", '421["subscribe:chat",[7]]', "invalid_argument", /want an object, got an array/],
  ["a string as payload", '421["subscribe:chat","7"]', "invalid_argument", /want an object/],
  ["an unknown field", '421["subscribe:chat",{"chatId":7,"admin":true}]', "invalid_argument", /no field \\?"admin/],
  ["a field twice", '421["subscribe:chat",{"chatId":7,"chatId":8}]', "invalid_argument", /there twice/],
  ["a wrong type", '421["subscribe:chat",{"chatId":{"$gt":0}}]', "invalid_argument", /want an integer/],
  ["a fraction", '421["subscribe:chat",{"chatId":7.5}]', "invalid_argument", /want an integer/],
  ["an integer beyond 2^53", '421["subscribe:chat",{"chatId":9007199254740993}]', "invalid_argument", /JavaScript/],
  ["an integer beyond 2^64", `421["subscribe:chat",{"chatId":1e30}]`, "invalid_argument", /out of range/],
  ["an empty id", '421["join_chat",{}]', "invalid_argument", /chat_id is empty/],
  ["an id with white space", '421["join_chat",{"chatId":"a b"}]', "invalid_argument", /gives no room/],
  ["deep nesting", `421["subscribe:chat",${'{"chatId":'.repeat(200)}1${"}".repeat(200)}]`, "invalid_argument", /.*/],
];

for (const [what, packet, code, message] of EVENTS) {
  test(`an event with ${what} is answered ${code}`, async () => {
    const socket = await rawSession();
    socket.send(packet);
    const text = await heard(socket, (m) => m.startsWith("431"));
    const [{ error }] = JSON.parse(text.slice(3));
    assert.equal(error.code, code);
    assert.match(error.message, message);
    // Without a callback the same comes as the event `error`.
    socket.send(packet.replace("421", "42"));
    const [name, again] = JSON.parse((await heard(socket, (m) => m.startsWith("42["))).slice(2));
    assert.deepStrictEqual([name, again], ["error", error]);
    socket.close();
  });
}

test("what a browser says of itself counts for nothing beside its token", async () => {
  const forged = { token: user(66, 2), userId: 1, organizationId: 1, tenant: "1", rooms: ["org", "user:1"], scopes: ["admin"] };
  const socket = await connect(fanfare.bridge.url, undefined, { auth: forged, query: { tenant: "1", organizationId: "1" } });
  await call(socket, "subscribe:chat", { chatId: 7 });
  const event = { userNotification: { type: "for tenant 1" } };
  for (const target of [{}, { rooms: ["chat:7"] }, { rooms: ["user:1"] }]) {
    await python.call(producer("1"), "messenger.v1.Messenger/BroadcastToOrganization", { target, ...event });
  }
  await notice("fence", "2");
  await socket.event("user:notification");
  assert.deepStrictEqual(socket.events, [["user:notification", { type: "fence", message: "" }]]);
  socket.close();
});

test("bytes where a field holds none are refused", async () => {
  const socket = await connect(fanfare.bridge.url, user(66, 1));
  socket.emit("subscribe:chat", { chatId: Buffer.from("x") });
  const [, error] = await socket.event("error");
  assert.deepStrictEqual([error.code, error.path], ["invalid_argument", "chatId"]);
  socket.close();
});

test("acknowledgements of nothing are ignored", async () => {
  const socket = await rawSession();
  socket.send("43999[1]");
  socket.send('427["subscribe:chat",{"chatId":7}]');
  await heard(socket, (m) => m.startsWith("437"));
  socket.close();
});

test("oversized payloads end their connection, over WebSocket and polling", async () => {
  const socket = await rawSession();
  socket.send(`42["subscribe:chat",{"x":"${"x".repeat(10 << 20)}"}]`);
  await within(socket.closed, "the close");
  const polling = `${fanfare.bridge.url}/socket.io/?EIO=4&transport=polling`;
  const open = await (await get(polling)).text();
  const { sid } = JSON.parse(open.slice(1));
  const answer = await get(`${polling}&sid=${sid}`, { method: "POST", body: `40${"x".repeat(200_000)}` }).catch(() => ({ status: 413 }));
  assert.equal(answer.status, 413);
});

test("garbage over polling is refused", async () => {
  const polling = `${fanfare.bridge.url}/socket.io/?EIO=4&transport=polling`;
  const status = async (url, options) => (await get(url, options)).status;
  assert.equal(await status(`${polling}&sid=nonsense`), 400);
  assert.equal(await status(`${fanfare.bridge.url}/socket.io/`), 400);
  assert.equal(await status(`${fanfare.bridge.url}/socket.io/?EIO=4&transport=carrier-pigeon`), 400);
  assert.equal(await status(polling, { method: "POST", body: "x" }), 400);
  const { sid } = JSON.parse((await (await get(polling)).text()).slice(1));
  assert.equal(await status(`${polling}&sid=${sid}`, { method: "POST", body: "\xff\xfe garbage" }), 400);
});

const NEW_MESSAGE = { id: "1", chatId: "7", content: "x", fromMe: true, channel: "CHANNEL_WABA" };
const METHOD = "messenger.v1.Messenger/NotifyNewMessage";
const refused = async (promise, code, reason, message) => {
  const error = await promise.then(() => assert.fail("accepted"), (e) => e);
  assert.deepStrictEqual([error.code, error.domain, error.reason], [code, "fanfare", reason], error.message);
  assert.match(error.message, message);
};

// [what, token, method, request, status, reason, message]
const NOTIFIES = [
  ["without a token", "", METHOD, { event: NEW_MESSAGE }, "UNAUTHENTICATED", "REASON_NO_TOKEN", /No token/],
  ["with garbage for a token", "x.y.z", METHOD, { event: NEW_MESSAGE }, "UNAUTHENTICATED", "REASON_INVALID_TOKEN", /Invalid token/],
  ["with a forged token", token({ sub: "p", tenant: "*", scopes: ["notify"], exp: soon() }, { secret: "0123456789abcdef0123" }), METHOD, { event: NEW_MESSAGE }, "UNAUTHENTICATED", "REASON_INVALID_TOKEN", /Invalid token/],
  ["with algorithm none", token({ sub: "p", tenant: "*", scopes: ["notify"], exp: soon() }, { alg: "none" }), METHOD, { event: NEW_MESSAGE }, "UNAUTHENTICATED", "REASON_INVALID_TOKEN", /Invalid token/],
  ["with an expired token", producer("1", { exp: soon(-60) }), METHOD, { event: NEW_MESSAGE }, "UNAUTHENTICATED", "REASON_TOKEN_EXPIRED", /Token expired/],
  ["with a user's token", user(42, 1), METHOD, { event: NEW_MESSAGE }, "PERMISSION_DENIED", "REASON_FORBIDDEN", /scope "notify"/],
  ["with a bridge's token", token({ sub: "b", tenant: "*", scopes: ["bridge"], exp: soon() }), METHOD, { event: NEW_MESSAGE }, "PERMISSION_DENIED", "REASON_FORBIDDEN", /scope "notify"/],
  ["for another tenant", producer("2"), METHOD, { target: { tenant: "1" }, event: NEW_MESSAGE }, "PERMISSION_DENIED", "REASON_FORBIDDEN", /for tenant "2", not "1"/],
  ["for no tenant, with a token for all", producer(), METHOD, { event: NEW_MESSAGE }, "INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", /name one/],
  ["for the tenant *", producer(), METHOD, { target: { tenant: "*" }, event: NEW_MESSAGE }, "INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", /is not a tenant/],
  ["to a malformed room", producer("1"), METHOD, { target: { rooms: ["Chat 7"] }, event: NEW_MESSAGE }, "INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", /is not a room/],
  ["to too many rooms", producer("1"), METHOD, { target: { rooms: Array.from({ length: 65 }, (_, i) => `chat:${i}`) }, event: NEW_MESSAGE }, "INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", /65 rooms; the limit is 64/],
  ["without an event", producer("1"), METHOD, {}, "INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", /has no event/],
  ["with 2^53", producer("1"), METHOD, { event: { ...NEW_MESSAGE, id: "9007199254740992" } }, "INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", /id: 9007199254740992 is beyond/],
  ["with −2^53", producer("1"), METHOD, { event: { ...NEW_MESSAGE, chatId: "-9007199254740992" } }, "INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", /chatId: -9007199254740992 is beyond/],
  ["with an unset enum", producer("1"), METHOD, { event: { ...NEW_MESSAGE, channel: undefined } }, "INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", /channel: is unset: want one of "whatsapp"/],
  ["with an unknown enum number", producer("1"), METHOD, { event: { ...NEW_MESSAGE, channel: 99 } }, "INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", /99 is not a value/],
  ["with no room to go to", producer("1"), "todo.v1.Todo/NotifyJoined", { event: { message: "x" } }, "INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", /declares no rooms: name where it goes/],
  ["with an empty room field", producer("1"), "messenger.v1.Messenger/NotifyUser", { event: { type: "x" } }, "INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", /user_id is empty/],
  ["with an endless key", producer("1"), METHOD, { target: { idempotencyKey: "x".repeat(129) }, event: NEW_MESSAGE }, "INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", /129 bytes; the limit is 128/],
  ["that is too large", producer("1"), METHOD, { event: { ...NEW_MESSAGE, content: "x".repeat(70_000) } }, "RESOURCE_EXHAUSTED", "REASON_TOO_LARGE", /the limit is 65536/],
  ["as Any of an unknown type", producer("1"), "fanfare.v1.Realtime/Notify", { event: { "@type": "type.googleapis.com/google.protobuf.Empty" } }, "INVALID_ARGUMENT", "REASON_UNKNOWN_EVENT", /no loaded catalog declares/],
  ["on a room of another user", user(42, 1), "messenger.v1.Messenger/Subscribe", { rooms: ["user:43"] }, "PERMISSION_DENIED", "REASON_FORBIDDEN", /does not allow room "user:43"/],
];

for (const [what, bearer, method, request, code, reason, message] of NOTIFIES) {
  test(`a call ${what} is refused`, () => refused(python.send({ token: bearer, method, request, collect: 1 }), code, reason, message));
}

test("a subscription after a cursor of another log is told where it can start", async () => {
  const method = "messenger.v1.Messenger/Subscribe";
  const subscribe = (after) => python.send({ token: producer("1"), method, request: { rooms: ["org"], after }, collect: 1 });
  const error = await subscribe("0123456789ab-7").then(() => assert.fail("accepted"), (e) => e);
  assert.deepStrictEqual([error.code, error.reason], ["OUT_OF_RANGE", "REASON_RESET"]);
  const [first] = await subscribe(error.metadata.cursor);
  assert.equal(first.meta.id, error.metadata.cursor);
});

const bytes = (...parts) => Buffer.concat(parts.map((p) => Buffer.from(p))).toString("base64");
const RAW = {
  "a truncated message": bytes([0x12, 0x7f, 0x08]),
  "a truncated event": bytes([0x12, 0x02, 0x08, 0x80]),
  "a wrong wire type": bytes([0x12, 0x03, 0x0d, 1, 2]),
  "text that is not UTF-8": bytes([0x12, 0x06, 0x10, 0x07, 0x1a, 0x02, 0xff, 0xfe]),
  "a group": bytes([0x12, 0x02, 0x0b, 0x0c]),
  "a varint without end": bytes([0x12, 0x0c, 0x08], Array(11).fill(0xff)),
  "field number 0": bytes([0x12, 0x02, 0x00, 0x00]),
  "a target that is no message": bytes([0x08, 0x01]),
};

for (const [what, payload] of Object.entries(RAW)) {
  test(`invalid protobuf is refused: ${what}`, () =>
    refused(python.send({ token: producer("1"), method: METHOD, raw: payload }), "INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", /not valid protobuf|not UTF-8|not a message|cut off/));
}

test("unknown fields in protobuf are kept and harmless", async () => {
  const event = [0x10, 0x07, 0x1a, 0x01, 0x78, 0x30, 0x01, 0xf8, 0x07, 0x01];
  const target = bytes([0x12, event.length], event);
  await python.send({ token: producer("1"), method: METHOD, raw: target });
  const [, seen] = await witness.event("message:new");
  assert.deepStrictEqual(seen, { id: 0, chatId: 7, content: "x", fromMe: false, channel: "whatsapp" });
});

test("a link or a call needs a bridge's token", async () => {
  const empty = Buffer.alloc(0).toString("base64");
  await refused(python.send({ token: producer(), method: "fanfare.v1.Edge/Call", raw: empty }), "PERMISSION_DENIED", "REASON_FORBIDDEN", /scope "bridge"/);
});

test("sessions that come and go in all ways leave nothing behind", async () => {
  const identity = user(77, 1);
  await Promise.all(
    Array.from({ length: 60 }, async (_, i) => {
      const socket = await rawSession(identity);
      if (i % 3 === 0) socket.send('42["subscribe:chat",{"chatId":7}]');
      if (i % 3 === 1) socket.terminate();
      else socket.send("41");
      if (i % 3 !== 1) socket.close();
    }),
  );
  const one = await connect(fanfare.bridge.url, identity);
  await call(one, "subscribe:chat", { chatId: 7 });
  await notice("after the rush");
  await one.event("user:notification");
  assert.equal(one.events.length, 1);
  one.close();
}, { timeout: DEADLINE * 2 });
