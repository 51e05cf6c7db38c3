// A room's stored events: in pages by every way in, with the bounds and the rights of reading the room.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { call, connect } from "./lib/clients.js";
import { get, QUIET, start } from "./lib/fanfare.js";
import { RawSocket } from "./lib/plain.js";
import { producer, user } from "./lib/tokens.js";

const COUNT = 1000;
let fanfare, ada;

before(async () => {
  fanfare = await start({
    serverArgs: QUIET,
    bridgeArgs: ["--user-calls-burst", "2000", "--user-calls-per-second", "2000"],
  });
  ada = await connect(fanfare.bridge.url, user(1, "5"));
  for (let from = 0; from < COUNT; from += 50) {
    await inOrder(Array.from({ length: 50 }, (_, i) => message(from + i)));
  }
});

after(async () => {
  ada?.close();
  await fanfare?.stop();
});

/** A unary RPC as JSON over HTTP; fails with its `code`. */
async function rpc(method, request, bearer) {
  const headers = { "content-type": "application/json", authorization: `Bearer ${bearer}` };
  const response = await get(`${fanfare.server.url}/${method}`, { method: "POST", headers, body: JSON.stringify(request) });
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(body.message), { code: body.code });
  return body;
}

const message = (id, chatId = 7) => ({ id: String(id), chatId: String(chatId), content: `m${id}`, timestamp: "2026-01-31T12:00:00Z", channel: "CHANNEL_WABA" });
const publish = (event, tenant = "5") => rpc("messenger.v1.Messenger/NotifyNewMessage", { event }, producer(tenant));
/** Each other message goes to another chat, and a status change follows: they must not be in the history. */
async function inOrder(messages) {
  for (const one of messages) {
    await publish(one);
    if (one.id % 10 === 0) await publish(message(one.id, 8));
    if (one.id % 25 === 0) {
      await rpc("messenger.v1.Messenger/NotifyMessageStatus", { event: { messageId: one.id, chatId: "7", status: "MESSAGE_STATUS_READ" } }, producer("5"));
    }
  }
}

/** All pages, from the newest to the oldest. */
async function pages(read) {
  const all = [];
  for (let before = ""; ; ) {
    const page = await read(before);
    all.push(page);
    if (!page.next) return all;
    before = page.next;
  }
}

const newestFirst = Array.from({ length: COUNT }, (_, i) => COUNT - 1 - i);

test("Socket.IO: every message of the chat is in exactly one page, the newest first", async () => {
  const all = await pages((before) => call(ada, "message:history", { chatId: 7, limit: 130, before }));
  assert.deepStrictEqual(all.flatMap((page) => page.messages.map((m) => m.id)), newestFirst);
  assert.deepStrictEqual(all.map((page) => page.messages.length), [130, 130, 130, 130, 130, 130, 130, 90]);
  assert.deepStrictEqual(all[0].messages[0], {
    id: 999, chatId: 7, content: "m999", fromMe: false, timestamp: "2026-01-31T12:00:00.000Z", channel: "waba",
  });
  assert.equal((await call(ada, "message:history", { chatId: 7 })).messages.length, 50);
});

test("/ws: the same pages", async () => {
  const socket = new RawSocket(fanfare.bridge.url, { token: user(2, "5") });
  await socket.opened;
  let ref = 0;
  const all = await pages(async (before) => {
    socket.send({ type: "message:history", chatId: 7, limit: 200, before, ref: ++ref });
    return (await socket.message("ack", (m) => m.ref === ref)).data;
  });
  assert.deepStrictEqual(all.flatMap((page) => page.messages.map((m) => m.id)), newestFirst);
  await socket.close();
});

test("a unary RPC with a user's token: the same pages", async () => {
  const read = (before) => rpc("messenger.v1.MessengerClient/GetMessages", { chatId: "7", limit: 200, before }, user(3, "5"));
  const all = await pages(read);
  assert.deepStrictEqual(all.flatMap((page) => page.messages.map((m) => Number(m.id))), newestFirst);
});

test("GetHistory: all events of the room, for users and for services", async () => {
  for (const token of [user(3, "5"), producer("5")]) {
    const all = await pages((before) => rpc("fanfare.v1.Realtime/GetHistory", { room: "chat:7", limit: 200, before }, token));
    const events = all.flatMap((page) => page.events);
    assert.equal(events.length, COUNT + COUNT / 25);
    assert.ok(events.every((event, i) => i === 0 || Number(event.seq) < Number(events[i - 1].seq)));
    assert.deepStrictEqual(all.map((page) => page.more ?? false), all.map((_, i) => i < all.length - 1));
    const messages = events.filter((event) => event.payload["@type"].endsWith("NewMessage"));
    assert.deepStrictEqual(messages.map((event) => Number(event.payload.id)), newestFirst);
    // The id of any event is a place to begin.
    const { events: [first] } = await rpc("fanfare.v1.Realtime/GetHistory", { room: "chat:7", limit: 1, before: events[10].id }, token);
    assert.equal(first.id, events[11].id);
  }
});

test("a list with a oneof holds several kinds of events, each with its id and time", async () => {
  const bob = await connect(fanfare.bridge.url, user("bob", "6", { username: "Bob" }));
  const sent = await call(bob, "send_message", { chatId: "x", content: "hi" });
  await call(bob, "mark_messages_read", { chatId: "x", messageIds: [sent.id] });
  const { entries, more, ...rest } = await call(bob, "get_chat_history", { chatId: "x" });
  assert.deepStrictEqual([more, rest], [false, { chatId: "x", next: "" }]);
  assert.deepStrictEqual(entries.map((entry) => Object.keys(entry)), [["id", "time", "messagesRead"], ["id", "time", "newMessage"]]);
  assert.deepStrictEqual(entries[1].newMessage, {
    id: sent.id, chatId: "x", senderId: "bob", senderName: "Bob", content: "hi", timestamp: sent.timestamp,
  });
  assert.deepStrictEqual([entries[1].id, entries[1].time], [sent.id, sent.timestamp]);
  bob.close();
});

test("who may not read the room gets no history, and neither does another tenant", async () => {
  const limited = await connect(fanfare.bridge.url, user(4, "5", { rooms: ["chat:8"] }));
  assert.equal((await call(limited, "message:history", { chatId: 7 })).error.code, "forbidden");
  assert.equal((await call(limited, "message:history", { chatId: 8 })).messages.length, 50);
  limited.close();
  const denied = (request, token) => assert.rejects(rpc("fanfare.v1.Realtime/GetHistory", request, token), { code: "permission_denied" });
  await denied({ room: "chat:7" }, user(4, "5", { rooms: ["chat:8"] }));
  await denied({ room: "user:9" }, user(4, "5"));
  await denied({ room: "chat:7", tenant: "5" }, user(4, "6"));
  assert.deepStrictEqual(await rpc("fanfare.v1.Realtime/GetHistory", { room: "chat:7" }, user(4, "9")), { events: [], next: "", more: false });
});

test("wrong limits and cursors are refused with what would be right", async () => {
  assert.match((await call(ada, "message:history", { chatId: 7, limit: 201 })).error.message, /limit is 201: want 1 to 200/);
  assert.match((await call(ada, "message:history", { chatId: 7, before: "x" })).error.message, /before: not a cursor/);
  assert.equal((await call(ada, "message:history", { chatId: 7, before: "000000000000-1" })).error.code, "reset");
  const refused = (request) => assert.rejects(rpc("fanfare.v1.Realtime/GetHistory", request, producer("5")), { code: "invalid_argument" });
  await refused({ room: "chat:7", limit: 201 });
  await refused({ room: "chat:7", before: "yesterday" });
  await refused({});
});
