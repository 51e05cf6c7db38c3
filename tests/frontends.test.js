// Every row of the four products' vocabularies, with stock clients: socket.io-client, and for messenger and chat
// python-socketio too; a raw WebSocket for dialogs.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { call, connect, disconnected, refusal } from "./lib/clients.js";
import { start } from "./lib/fanfare.js";
import { RawSocket } from "./lib/plain.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { Pythonist } from "./lib/pythonist.js";
import { producer, soon, token, user } from "./lib/tokens.js";

let fanfare, url, python, pythonist;

before(async () => {
  generateStubs();
  fanfare = await start({ serverArgs: ["--presence-grace", "300ms"], bridgeArgs: ["--jwt-leeway", "0s"] });
  url = fanfare.bridge.url;
  python = new Producer(fanfare.server.address);
  pythonist = new Pythonist();
});

after(async () => {
  pythonist?.stop();
  python?.close();
  await fanfare?.stop();
});

const STOCK = {
  "socket.io-client": async (claims) => {
    const socket = await connect(url, claims);
    return Object.assign(socket, { call: (name, payload) => call(socket, name, ...(payload === undefined ? [] : [payload])) });
  },
  "python-socketio": (claims) => pythonist.connect(url, claims),
};
const AT = "2026-01-31T12:00:00Z";
const MILLIS = "2026-01-31T12:00:00.000Z";
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
let tenants = 0;
const tenant = () => `t${++tenants}`;
const notify = (of, method, event, target) => python.call(producer(of), method, { target, event });
const payloads = (client, name) => client.events.filter(([n]) => n === name).map(([, payload]) => payload);

/** Everything of `name` that each client has got, once a later event has reached all of them. */
async function settled(of, name, clients) {
  const mark = `fence-${Math.random()}`;
  await notify(of, "messenger.v1.Messenger/NotifyChatUpdated", { id: "999", priority: mark });
  await Promise.all(clients.map((client) => client.event("chat:updated", (p) => p.priority === mark)));
  return clients.map((client) => payloads(client, name).filter((p) => p.priority === undefined || !p.priority.startsWith("fence-")));
}

// [event, method, what is published, what arrives, who gets it: of a, b (both in the chat's room), c (not), d (another user 2 of the organization)]
const M = "messenger.v1.Messenger";
const MESSENGER = [
  ["chat:new", "NotifyNewChat", { id: "7", name: "Ada", channel: "CHANNEL_WABA", status: "CHAT_STATUS_NEW", priority: "high", externalId: "x", assignedUserId: "5", createdAt: AT },
    { id: 7, name: "Ada", channel: "waba", status: "new", priority: "high", externalId: "x", assignedUserId: 5, createdAt: MILLIS }, "all"],
  ["chat:new", "NotifyNewChat", { id: "8", name: "B", channel: "CHANNEL_WHATSAPP", status: "CHAT_STATUS_PENDING", createdAt: AT },
    { id: 8, name: "B", channel: "whatsapp", status: "pending", createdAt: MILLIS }, "all"],
  ["message:new", "NotifyNewMessage", { id: "1", chatId: "7", content: "hi", fromMe: true, timestamp: AT, channel: "CHANNEL_TELEGRAM", senderUserId: "3", senderName: "S", mediaUrl: "u", mediaType: "image" },
    { id: 1, chatId: 7, content: "hi", fromMe: true, timestamp: MILLIS, channel: "telegram", senderUserId: 3, senderName: "S", mediaUrl: "u", mediaType: "image" }, "all"],
  ["message:new", "NotifyNewMessage", { id: "2", chatId: "7", timestamp: AT, channel: "CHANNEL_WABA" },
    { id: 2, chatId: 7, content: "", fromMe: false, timestamp: MILLIS, channel: "waba" }, "all"],
  ["chat:updated", "NotifyChatUpdated", { id: "7", status: "CHAT_STATUS_CLOSED", assignedUserId: "5", unreadCount: "0", lastMessageAt: AT },
    { id: 7, status: "closed", assignedUserId: 5, unreadCount: 0, lastMessageAt: MILLIS }, "all"],
  ["messages:read", "NotifyMessagesRead", { chatId: "7", readByUserId: "3" }, { chatId: 7, readByUserId: 3 }, "all"],
  ["message:status", "NotifyMessageStatus", { messageId: "1", status: "MESSAGE_STATUS_DELIVERED", chatId: "7" }, { messageId: 1, status: "delivered", chatId: 7 }, "all"],
  ["chat:deleted", "NotifyChatDeleted", { chatId: "7" }, { chatId: 7 }, "all"],
  ["user:notification", "NotifyUser", { userId: "1", type: "info", message: "Hello", data: { a: [1, { b: null }] } },
    { type: "info", message: "Hello", data: { a: [1, { b: null }] } }, "one"],
  ["user:notification", "NotifyUser", { userId: "1", type: "info", message: "Hello" }, { type: "info", message: "Hello" }, "one"],
  ["typing:start", "NotifyTypingStart", { chatId: "7", userId: "9" }, { chatId: 7, userId: "9" }, "chat"],
  ["typing:stop", "NotifyTypingStop", { chatId: "7", userId: "9" }, { chatId: 7, userId: "9" }, "chat"],
  ["operator:joined", "NotifyOperatorJoined", { chatId: "7", userId: "9" }, { chatId: 7, userId: "9" }, "chat"],
  ["operator:left", "NotifyOperatorLeft", { chatId: "7", userId: "9" }, { chatId: 7, userId: "9" }, "chat"],
  ["user:online", "NotifyUserOnline", { userId: "9" }, { userId: "9" }, "all"],
  ["user:offline", "NotifyUserOffline", { userId: "9" }, { userId: "9" }, "all"],
];
const AUDIENCE = { all: [1, 1, 1], one: [1, 0, 0], chat: [1, 1, 0] };

for (const [library, client] of Object.entries(STOCK)) {
  describe(library, () => {
    test("messenger, server → browser: each row with its shape and audience, once a session, never another organization", async () => {
      const of = tenant();
      const [one, mate, outside, stranger] = await Promise.all([client(user(1, of)), client(user(2, of)), client(user(3, of)), client(user(1, tenant()))]);
      for (const member of [one, mate]) await member.call("subscribe:chat", { chatId: 7 });
      for (const [name, method, event, wanted, audience] of MESSENGER) {
        await settled(of, name, [one, mate, outside]);
        for (const each of [one, mate, outside, stranger]) each.events.length = 0;
        await notify(of, `${M}/${method}`, event);
        const got = await settled(of, name, [one, mate, outside]);
        assert.deepStrictEqual(got, AUDIENCE[audience].map((times) => Array(times).fill(wanted)), name);
        assert.deepStrictEqual(payloads(stranger, name), [], name);
      }
      await Promise.all([one, mate, outside, stranger].map((each) => each.close()));
    });

    test("messenger: user:online and user:offline with the first and the last session of an operator", async () => {
      const of = tenant();
      const watcher = await client(user(1, of));
      const first = await client(user(2, of));
      await watcher.event("user:online", (p) => p.userId === "2");
      const second = await client(user(2, of));
      await first.close();
      await second.close();
      await watcher.event("user:offline", (p) => p.userId === "2");
      const told = watcher.events.filter(([name, p]) => /^user:o/.test(name) && p.userId === "2");
      assert.deepStrictEqual(told, [["user:online", { userId: "2" }], ["user:offline", { userId: "2" }]]);
      await watcher.close();
    });

    test("messenger: subscribe:chat and unsubscribe:chat are answered, enter and leave, and tell the chat", async () => {
      const of = tenant();
      const [one, mate] = [await client(user(1, of)), await client(user(2, of))];
      assert.deepStrictEqual(await mate.call("subscribe:chat", { chatId: 7 }), { chatId: 7 });
      assert.deepStrictEqual(await one.call("subscribe:chat", { chatId: 7 }), { chatId: 7 });
      assert.deepStrictEqual((await mate.event("operator:joined", (p) => p.userId === "1"))[1], { chatId: 7, userId: "1" });
      assert.deepStrictEqual(await one.call("unsubscribe:chat", { chatId: 7 }), { chatId: 7 });
      assert.deepStrictEqual((await mate.event("operator:left"))[1], { chatId: 7, userId: "1" });
      await mate.call("typing:start", { chatId: 7 });
      const [got] = await settled(of, "typing:start", [one]);
      assert.deepStrictEqual(got, []);
      const refused = await one.call("subscribe:chat", { chatId: "seven" });
      assert.deepStrictEqual([refused.error.code, refused.error.path, typeof refused.error.message], ["invalid_argument", "chatId", "string"]);
      await Promise.all([one, mate].map((each) => each.close()));
    });

    test("messenger: typing:start and typing:stop tell the others in the chat, stamped with the sender", async () => {
      const of = tenant();
      const [one, mate, outside] = await Promise.all([client(user(1, of)), client(user(2, of)), client(user(3, of))]);
      for (const member of [one, mate]) await member.call("subscribe:chat", { chatId: 7 });
      for (const name of ["typing:start", "typing:stop"]) {
        assert.deepStrictEqual(await one.call(name, { chatId: 7 }), { chatId: 7 });
        assert.deepStrictEqual((await mate.event(name))[1], { chatId: 7, userId: "1" });
        const forged = await one.call(name, { chatId: 7, userId: "2" });
        assert.deepStrictEqual([forged.error.code, forged.error.path], ["invalid_argument", "userId"]);
        assert.deepStrictEqual(await settled(of, name, [one, mate, outside]), [[], [{ chatId: 7, userId: "1" }], []]);
      }
      await Promise.all([one, mate, outside].map((each) => each.close()));
    });

    test("messenger: a refused connection says why", async () => {
      const expired = token({ userId: 1, organizationId: 1, exp: soon(-60) });
      for (const [given, message] of [["x", "Invalid token"], [expired, "Token expired"], ["", "No token"]]) {
        const error = await client(given).then(() => assert.fail("accepted"), (e) => e);
        assert.equal(error.message, `Authentication failed: ${message}`);
      }
    });

    test("chat: connected greets the session, before anything else", async () => {
      const one = await client(user("u1", tenant()));
      const [, greeting] = await one.event("connected");
      assert.deepStrictEqual(greeting, { userId: "u1", sessionId: one.id });
      assert.equal(one.events[0][0], "connected");
      await one.close();
    });

    test("chat: join_chat and leave_chat, user_joined_chat and user_left_chat", async () => {
      const of = tenant();
      const [one, mate] = [await client(user("u1", of)), await client(user("u2", of))];
      assert.deepStrictEqual(await one.call("join_chat", { chatId: "x" }), { chatId: "x" });
      await mate.call("join_chat", { chatId: "x" });
      assert.deepStrictEqual((await one.event("user_joined_chat", (p) => p.userId === "u2"))[1], { chatId: "x", userId: "u2" });
      assert.deepStrictEqual(await mate.call("leave_chat", { chatId: "x" }), { chatId: "x" });
      assert.deepStrictEqual((await one.event("user_left_chat"))[1], { chatId: "x", userId: "u2" });
      await Promise.all([one, mate].map((each) => each.close()));
    });

    test("chat: send_message reaches the chat and the recipient, once a session, and is confirmed to its sender", async () => {
      const of = tenant();
      const [one, mate, friend, outside] = await Promise.all([
        client(user("u1", of, { username: "Ada" })), client(user("u2", of)), client(user("u3", of)), client(user("u4", of)),
      ]);
      for (const member of [one, mate]) await member.call("join_chat", { chatId: "x" });
      // The recipient is in the chat too, and gets it once.
      await friend.call("join_chat", { chatId: "x" });
      const sent = await one.call("send_message", { chatId: "x", content: "Hello", recipientId: "u3", clientMessageId: "c1" });
      assert.deepStrictEqual({ ...sent, id: 0, timestamp: 0 }, { id: 0, chatId: "x", clientMessageId: "c1", timestamp: 0 });
      assert.match(sent.timestamp, TIME);
      const wanted = { id: sent.id, chatId: "x", senderId: "u1", senderName: "Ada", content: "Hello", timestamp: sent.timestamp };
      const direct = await one.call("send_message", { chatId: "y", content: "Psst", recipientId: "u4" });
      await outside.event("new_message");
      assert.deepStrictEqual(payloads(outside, "new_message"), [{ ...wanted, id: direct.id, chatId: "y", content: "Psst", timestamp: direct.timestamp }]);
      assert.ok(!("clientMessageId" in direct));
      assert.deepStrictEqual(await settled(of, "new_message", [one, mate, friend]), [[wanted], [wanted], [wanted]]);
      assert.deepStrictEqual(payloads(one, "message_sent"), [sent, direct]);
      assert.deepStrictEqual(payloads(mate, "message_sent"), []);
      for (const forged of ["senderId", "senderName", "id", "timestamp"]) {
        const { error } = await one.call("send_message", { chatId: "x", content: "Hello", [forged]: "u2" });
        assert.deepStrictEqual([error.code, error.path], ["invalid_argument", forged]);
      }
      await Promise.all([one, mate, friend, outside].map((each) => each.close()));
    });

    test("chat: mark_messages_read tells the chat who read what", async () => {
      const of = tenant();
      const [one, mate] = [await client(user("u1", of)), await client(user("u2", of))];
      for (const member of [one, mate]) await member.call("join_chat", { chatId: "x" });
      const answer = await one.call("mark_messages_read", { chatId: "x", messageIds: ["a", "b"] });
      const [, read] = await mate.event("messages_read");
      assert.deepStrictEqual(read, answer);
      assert.deepStrictEqual({ ...read, timestamp: 0 }, { chatId: "x", messageIds: ["a", "b"], readBy: "u1", timestamp: 0 });
      assert.match(read.timestamp, TIME);
      assert.deepStrictEqual((await one.call("mark_messages_read", { chatId: "x", messageIds: [] })).messageIds, []);
      await Promise.all([one, mate].map((each) => each.close()));
    });

    test("chat: get_active_users, get_chat_info and ping are answered to the caller alone", async () => {
      const of = tenant();
      const [one, mate] = [await client(user("u1", of, { username: "Ada" })), await client(user("u2", of))];
      await mate.call("join_chat", { chatId: "x" });
      const users = await one.call("get_active_users", {});
      assert.deepStrictEqual(users, { users: [{ userId: "u1", name: "Ada" }, { userId: "u2" }] });
      assert.deepStrictEqual((await one.event("active_users"))[1], users);
      const info = await one.call("get_chat_info", { chatId: "x" });
      assert.deepStrictEqual(info, { chatId: "x", members: [{ userId: "u2", online: true }] });
      assert.deepStrictEqual((await one.event("chat_info"))[1], info);
      const pong = await one.call("ping", {});
      assert.match(pong.timestamp, TIME);
      assert.deepStrictEqual((await one.event("pong"))[1], pong);
      for (const name of ["active_users", "chat_info", "pong"]) assert.deepStrictEqual(payloads(mate, name), []);
      await Promise.all([one, mate].map((each) => each.close()));
    });

    test("chat: user_online and user_offline, with when the last session closed", async () => {
      const of = tenant();
      const one = await client(user("u1", of));
      const mate = await client(user("u2", of));
      assert.deepStrictEqual((await one.event("user_online", (p) => p.userId === "u2"))[1], { userId: "u2" });
      await mate.close();
      const [, offline] = await one.event("user_offline");
      assert.equal(offline.userId, "u2");
      assert.match(offline.lastSeen, TIME);
      await one.close();
    });
  });
}

const todoToken = (sub, more = {}) => token({ sub, username: "ada", email: "ada@example.com", exp: soon(), ...more });

test("todo: join → joined, with the token in auth, query or header", async () => {
  const wanted = { message: "Successfully connected to real-time updates", user: { id: "o1", username: "ada", email: "ada@example.com" } };
  const places = [
    { auth: { token: todoToken("o1") } },
    { auth: {}, query: { token: todoToken("o1") } },
    { auth: {}, query: { token: `Bearer ${todoToken("o1")}` } },
    { auth: {}, extraHeaders: { authorization: `Bearer ${todoToken("o1")}` } },
  ];
  for (const place of places) {
    const socket = await connect(url, undefined, place);
    socket.emit("join");
    assert.deepStrictEqual((await socket.event("joined"))[1], wanted);
    socket.close();
  }
});

test("todo: todo:created, todo:updated, todo:completed and todo:deleted reach the owner alone", async () => {
  const [ada, again, bob] = await Promise.all([todoToken("o2"), todoToken("o2"), todoToken("o3")].map((t) => connect(url, t)));
  const item = { id: "i", title: "T", completed: false, priority: "PRIORITY_HIGH", userId: "o2", createdAt: AT, updatedAt: AT };
  const wanted = { ...item, priority: "high", createdAt: MILLIS, updatedAt: MILLIS };
  const full = { description: "D", dueDate: AT };
  await notify("default", "todo.v1.Todo/NotifyCreated", item);
  await notify("default", "todo.v1.Todo/NotifyUpdated", { ...item, ...full, priority: "PRIORITY_LOW" });
  await notify("default", "todo.v1.Todo/NotifyCompleted", { ...item, completed: true, priority: "PRIORITY_MEDIUM" });
  await notify("default", "todo.v1.Todo/NotifyDeleted", { id: "i", userId: "o2" });
  await notify("default", "todo.v1.Todo/NotifyDeleted", { id: "fence", userId: "o3" });
  for (const socket of [ada, again]) {
    await socket.event("todo:deleted");
    assert.deepStrictEqual(socket.events.filter(([name]) => name.startsWith("todo:")), [
      ["todo:created", wanted],
      ["todo:updated", { ...wanted, description: "D", dueDate: MILLIS, priority: "low" }],
      ["todo:completed", { ...wanted, completed: true, priority: "medium" }],
      ["todo:deleted", { id: "i" }],
    ]);
  }
  await bob.event("todo:deleted");
  assert.deepStrictEqual(bob.events.filter(([name]) => name.startsWith("todo:")), [["todo:deleted", { id: "fence" }]]);
  [ada, again, bob].forEach((socket) => socket.close());
});

test("todo: error for a failed request, connect_error for a refused connection, and the end with the token", async () => {
  const socket = await connect(url, todoToken("o4", { exp: soon(2) }));
  socket.emit("join", { unknown: 1 });
  assert.equal((await socket.event("error", (e) => e.code === "invalid_argument"))[1].path, "unknown");
  assert.equal((await refusal(url, { auth: { token: "x" } })).message, "Authentication failed: Invalid token");
  assert.equal(await disconnected(socket), "io server disconnect");
});

test("dialogs: connected, ping → pong, subscribe → subscribed, with the token in query, header and first message", async () => {
  const mine = user("d1", tenant());
  const ways = [
    [{ token: mine }, {}],
    [{}, { headers: { authorization: `Bearer ${mine}` } }],
    [{}, {}, { type: "auth", token: mine }],
  ];
  for (const [query, options, first] of ways) {
    const socket = new RawSocket(url, query, options);
    await socket.opened;
    if (first) socket.send(first);
    assert.deepStrictEqual(await socket.message("connected"), { type: "connected", userId: "d1" });
    assert.equal(socket.messages[0].type, "connected");
    socket.send({ type: "ping" });
    assert.match((await socket.message("pong")).timestamp, TIME);
    socket.send({ type: "subscribe" });
    assert.deepStrictEqual(await socket.message("subscribed"), { type: "subscribed" });
    socket.send({ type: "subscribe", dialogId: "g" });
    assert.deepStrictEqual(await socket.message("subscribed", (m) => m.dialogId), { type: "subscribed", dialogId: "g" });
    await socket.close();
  }
  const together = new RawSocket(url);
  await together.opened;
  together.send({ type: "subscribe", dialogId: "g", token: mine });
  assert.deepStrictEqual(await together.message("subscribed"), { type: "subscribed", dialogId: "g" });
  await together.close();
});

test("dialogs: dialog_update and new_message reach their user, fields beside the type", async () => {
  const of = tenant();
  const [mine, other] = [new RawSocket(url, { token: user("d1", of) }), new RawSocket(url, { token: user("d2", of) })];
  for (const socket of [mine, other]) await socket.message("connected");
  mine.send({ type: "subscribe" });
  await mine.message("subscribed");
  const D = "dialogs.v1.Dialogs";
  await notify(of, `${D}/NotifyDialogUpdate`, { userId: "d1", dialog: { id: "g", status: "open", unreadCount: "2", lastMessage: "hi", updatedAt: AT } });
  await notify(of, `${D}/NotifyDialogUpdate`, { userId: "d1", dialog: { id: "h", updatedAt: AT } });
  await notify(of, `${D}/NotifyNewMessage`, { userId: "d1", dialogId: "g", message: { id: "m", text: "hi", from: "Ada", createdAt: AT } });
  await notify(of, `${D}/NotifyNewMessage`, { userId: "d2", dialogId: "fence", message: { id: "f", createdAt: AT } });
  await mine.message("new_message");
  await other.message("new_message");
  const events = (socket) => socket.messages.filter((m) => /^(dialog_update|new_message)$/.test(m.type));
  assert.deepStrictEqual(events(mine), [
    { type: "dialog_update", dialog: { id: "g", status: "open", unreadCount: 2, lastMessage: "hi", updatedAt: MILLIS } },
    { type: "dialog_update", dialog: { id: "h", updatedAt: MILLIS } },
    { type: "new_message", dialogId: "g", message: { id: "m", text: "hi", from: "Ada", createdAt: MILLIS } },
  ]);
  assert.deepStrictEqual(events(other).map((m) => m.dialogId), ["fence"]);
  await Promise.all([mine.close(), other.close()]);
});
