// The raw WebSocket, SSE and long polling: same tokens, rooms and events as Socket.IO, and no event missed or doubled when a
// client goes from one to the other by cursor.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { connect } from "./lib/clients.js";
import { QUIET, start, until } from "./lib/fanfare.js";
import { EventStream, poll, RawSocket } from "./lib/plain.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, soon, token, user } from "./lib/tokens.js";

let fanfare, url, python;

before(async () => {
  generateStubs();
  fanfare = await start({
    serverArgs: [...QUIET, "--retention-events", "500"],
    bridgeArgs: ["--poll-wait", "5s", "--user-calls-burst", "2000", "--user-calls-per-second", "2000", "--jwt-leeway", "0s"],
  });
  url = fanfare.bridge.url;
  python = new Producer(fanfare.server.address);
});

after(async () => {
  python?.close();
  await fanfare?.stop();
});

const message = (id, more = {}) => ({ id: String(id), chatId: "7", content: `m${id}`, timestamp: "2026-01-31T12:00:00Z", ...more });
const seen = (id) => ({ id, chatId: 7, content: `m${id}`, fromMe: false, timestamp: "2026-01-31T12:00:00.000Z", channel: null });
const publish = (tenant, id) =>
  python.call(producer(tenant), "messenger.v1.Messenger/NotifyNewMessage", { event: { ...message(id), channel: "CHANNEL_WABA" } });
const numbers = (messages) => messages.filter((m) => m.type === "message:new").map((m) => m.id);

test("an event is the same object on every plain transport", async () => {
  const wanted = { type: "message:new", ...seen(1), channel: "waba" };
  const reader = user(1, "same");
  const socket = new RawSocket(url, { token: reader });
  const stream = await EventStream.open(url, { token: reader });
  const { cursor } = await poll(url, { token: reader });
  await socket.opened;
  await connected(socket);
  const polled = poll(url, { token: reader, after: cursor });
  const { id } = await publish("same", 1);
  assert.deepStrictEqual(await socket.message("message:new"), wanted);
  assert.deepStrictEqual(await stream.message("message:new"), { name: "message:new", eventId: id, ...wanted });
  assert.deepStrictEqual(await polled, { cursor: id, events: [wanted] });
  assert.equal(stream.type, "text/event-stream");
  assert.equal(stream.lastEventId, id);
  await socket.close();
  stream.close();
});

/** Resolves when a raw WebSocket's session is there, so that events reach it: its calls wait for that. */
async function connected(socket) {
  socket.send({ type: "subscribe:chat", chatId: 99, ref: 99 });
  await socket.message("ack", (m) => m.ref === 99);
}

test("a message that is too large ends the raw WebSocket with its reason", async () => {
  for (const token of [user(1, "large"), undefined]) {
    const socket = new RawSocket(url, token ? { token } : {});
    await socket.opened;
    socket.send({ type: "auth", token: user(1, "large"), filler: "x".repeat(70_000) });
    const { code, message } = await socket.message("error");
    assert.equal(code, "too_large");
    assert.match(message, /70\d{3} bytes; the limit is 65536/);
    assert.equal((await socket.closed).code, 4507);
  }
});

test("a payload with a type of its own stands apart", async () => {
  const socket = new RawSocket(url, { token: user(1, "apart"), after: "" });
  await socket.opened;
  const stream = await EventStream.open(url, { token: user(1, "apart") });
  await connected(socket);
  await python.call(producer("apart"), "messenger.v1.Messenger/NotifyUser", { event: { userId: "1", type: "info", message: "Hello" } });
  const { cursor, ...notice } = await socket.message("user:notification");
  assert.deepStrictEqual(notice, { type: "user:notification", payload: { type: "info", message: "Hello" } });
  assert.match(cursor, /^[0-9a-f]{12}-1(-[0-9a-f]{16})?$/);
  await socket.close();
  stream.close();
});

test("calls over the raw WebSocket are acknowledged under their ref, and rooms joined get their events", async () => {
  const socket = new RawSocket(url, { token: user(1, "calls") });
  await socket.opened;
  socket.send({ type: "subscribe:chat", chatId: 7, ref: 1 });
  assert.deepStrictEqual(await socket.message("ack"), { type: "ack", ref: 1, data: { chatId: 7 } });
  socket.send({ type: "subscribe:chat", chatId: "x", ref: 2 });
  const refused = await socket.message("error", (m) => m.ref === 2);
  assert.deepStrictEqual([refused.code, refused.path], ["invalid_argument", "chatId"]);
  for (const wrong of ["{", "[]", "1", '{"x":1}', '{"type":7}', '{"type":"ping","ref":"a"}']) {
    const before = socket.messages.length;
    socket.send(wrong);
    await until(() => socket.messages.length > before, `the answer to ${wrong}`);
    assert.equal(socket.messages.at(-1).code, "invalid_argument", wrong);
  }
  const typing = { event: { chatId: "7", userId: "2" } };
  await python.call(producer("calls"), "messenger.v1.Messenger/NotifyTypingStart", typing);
  assert.deepStrictEqual(await socket.message("typing:start"), { type: "typing:start", chatId: 7, userId: "2" });
  await socket.close();
});

test("rooms are asked for in the query, as far as the token allows", async () => {
  const free = await EventStream.open(url, { token: user(1, "rooms"), room: ["chat:7"] });
  const typing = (chatId) => python.call(producer("rooms"), "messenger.v1.Messenger/NotifyTypingStart", { event: { chatId, userId: "2" } });
  await typing("8");
  await typing("7");
  assert.equal((await free.message("typing:start")).chatId, 7);
  free.close();
  const bound = user(1, "rooms", { rooms: ["chat:8"] });
  for (const room of ["chat:7", "user:2"]) {
    const refusal = await poll(url, { token: bound, room }).catch((e) => e);
    assert.deepStrictEqual([refusal.status, refusal.body.code], [403, "forbidden"]);
  }
  const wrong = await poll(url, { token: bound, room: "Chat 7" }).catch((e) => e);
  assert.deepStrictEqual([wrong.status, wrong.body.path], [400, "room"]);
});

test("refusals over HTTP have a status, a code and a text", async () => {
  const expired = token({ userId: 1, organizationId: 1, exp: soon(-60) });
  for (const [given, code] of [[undefined, "no_token"], ["x", "invalid_token"], [expired, "token_expired"]]) {
    const polled = await poll(url, { token: given }).catch((e) => e);
    assert.deepStrictEqual([polled.status, polled.body.code], [401, code]);
    const streamed = await EventStream.open(url, { token: given }).catch((e) => e);
    assert.deepStrictEqual([streamed.status, streamed.body.code], [401, code]);
  }
  const wrong = await poll(url, { token: user(1, 1), after: "yesterday" }).catch((e) => e);
  assert.deepStrictEqual([wrong.status, wrong.body.code, wrong.body.path], [400, "invalid_argument", "after"]);
});

test("refusals over the raw WebSocket come as an error and a close code that is final", async () => {
  const expired = token({ userId: 1, organizationId: 1, exp: soon(-60) });
  for (const [given, code, closing] of [["x", "invalid_token", 4502], [expired, "token_expired", 4503]]) {
    const socket = new RawSocket(url, { token: given });
    assert.equal((await socket.message("error")).code, code);
    assert.equal((await socket.closed).code, closing);
  }
  const late = new RawSocket(url);
  await late.opened;
  late.send({ type: "ping" });
  assert.equal((await late.closed).code, 4501);
});

test("a session ends with its token, on each transport", async () => {
  const short = () => user(1, "short", { exp: soon(5) });
  const socket = new RawSocket(url, { token: short() });
  const stream = await EventStream.open(url, { token: short() });
  assert.equal((await socket.message("error")).code, "token_expired");
  assert.equal((await socket.closed).code, 4503);
  assert.equal((await stream.message("end")).code, "token_expired");
});

test("SSE resumes where it was with Last-Event-ID, also when it had no event yet", async () => {
  const reader = user(1, "resume");
  const first = await EventStream.open(url, { token: reader });
  await until(() => first.lastEventId, "the first id");
  first.close();
  for (let id = 1; id <= 3; id++) await publish("resume", id);
  const second = await EventStream.open(url, { token: reader }, { "last-event-id": first.lastEventId });
  await second.message("message:new", (m) => m.id === 3);
  await publish("resume", 4);
  await second.message("message:new", (m) => m.id === 4);
  assert.deepStrictEqual(numbers(second.messages), [1, 2, 3, 4]);
  second.close();
});

test("a cursor that the log does not reach back to is told, and reading goes on from now", async () => {
  const reader = user(1, "reset");
  const old = "0123456789ab-7";
  const socket = new RawSocket(url, { token: reader, after: old });
  const stream = await EventStream.open(url, { token: reader, after: old });
  const { cursor, events } = await poll(url, { token: reader, after: old });
  assert.deepStrictEqual(events, [{ type: "reset", cursor }]);
  assert.equal((await socket.message("reset")).cursor, cursor);
  assert.equal((await stream.message("reset")).cursor, cursor);
  await publish("reset", 1);
  await Promise.all([socket.message("message:new"), stream.message("message:new")]);
  assert.deepStrictEqual(numbers((await poll(url, { token: reader, after: cursor })).events), [1]);
  await socket.close();
  stream.close();
});

test("a poll without events waits, and answers with a cursor that goes on", async () => {
  const reader = user(1, "wait");
  const { cursor } = await poll(url, { token: reader });
  await publish("other", 1);
  const began = Date.now();
  const empty = await poll(url, { token: reader, after: cursor });
  assert.deepStrictEqual(empty, { cursor, events: [] });
  assert.ok(Date.now() - began >= 900, "it did not wait");
});

test("going from transport to transport by cursor misses and doubles nothing, whatever is published meanwhile", async () => {
  const [tenant, reader, count] = ["switch", user(1, "switch"), 300];
  let { cursor } = await poll(url, { token: reader });
  const got = [];
  let sent = 0;
  const publishing = (async () => {
    while (sent < count) await publish(tenant, ++sent);
  })();
  const take = (messages) => {
    for (const m of messages) if (m.type === "message:new") got.push(m.id);
  };
  const ways = [
    async () => {
      const page = await poll(url, { token: reader, after: cursor });
      take(page.events);
      cursor = page.cursor;
    },
    async () => {
      const socket = new RawSocket(url, { token: reader, after: cursor });
      await socket.message("message:new");
      await until(() => socket.messages.length >= 8 || sent >= count, "some messages");
      socket.socket.removeAllListeners("message");
      socket.socket.terminate();
      take(socket.messages);
      cursor = socket.messages.findLast((m) => m.cursor)?.cursor ?? cursor;
    },
    async () => {
      const stream = await EventStream.open(url, { token: reader, after: cursor });
      await stream.message("message:new");
      stream.close();
      const kept = [...stream.messages];
      take(kept);
      cursor = kept.findLast((m) => m.eventId).eventId;
    },
  ];
  for (let turn = 0; got.at(-1) !== count; turn++) {
    const last = sent >= count;
    await (last ? ways[0] : ways[turn % ways.length])();
  }
  await publishing;
  assert.deepStrictEqual(got, Array.from({ length: count }, (_, i) => i + 1));
});

test("a Socket.IO session and a raw one of the same user get the same events", async () => {
  const stock = await connect(url, user(1, "both"));
  const socket = new RawSocket(url, { token: user(1, "both") });
  await socket.opened;
  await connected(socket);
  await publish("both", 1);
  assert.equal((await stock.event("message:new"))[1].id, 1);
  assert.equal((await socket.message("message:new")).id, 1);
  stock.close();
  await socket.close();
});
