// Every row of the four products' vocabularies, with stock clients: socket.io-client, and for messenger and chat
// python-socketio too; a raw WebSocket for dialogs.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { call, connect, disconnected, refusal } from "./lib/clients.js";
import { start } from "./lib/fanfare.js";
import { poll, RawSocket } from "./lib/plain.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { Pythonist } from "./lib/pythonist.js";
import { producer, soon, token, user } from "./lib/tokens.js";

let fanfare, url, python, pythonist;

before(async () => {
  generateStubs();
  fanfare = await start({ serverArgs: ["--presence-grace", "2s"], bridgeArgs: ["--jwt-leeway", "0s"] });
  url = fanfare.bridge.url;
  python = new Producer(fanfare.server.address);
  pythonist = new Pythonist();
});

after(async () => {
  pythonist?.stop();
  python?.close();
  await fanfare?.stop();
});

/** Stock clients with the same methods. */
const STOCK = {
  "socket.io-client": async (given, options) => {
    const socket = await connect(url, given, options);
    return Object.assign(socket, {
      call: (name, ...payload) => call(socket, name, ...payload),
      lose: () => socket.io.engine.close(),
    });
  },
  "python-socketio": (given) => pythonist.connect(url, given),
};
const AT = "2026-01-31T12:00:00Z";
const MILLIS = "2026-01-31T12:00:00.000Z";
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const M = "messenger.v1.Messenger";
let [tenants, fences] = [100, 0];
const tenant = () => String(++tenants);
const notify = (of, method, event, target) => python.call(producer(of), method, { target, event });
const named = (client, ...names) => client.events.filter(([name]) => names.includes(name));
const payloads = (client, name) => named(client, name).map(([, payload]) => payload);
const close = (...clients) => Promise.all(clients.map((client) => client.close()));
const expired = () => token({ userId: 1, organizationId: 1, exp: soon(-60) });

/** Waits until everything published so far has come: a later event has reached all clients of these tenants. */
async function settle(clients, ...of) {
  const type = `fence-${++fences}`;
  for (const one of of) await python.call(producer(one), `${M}/BroadcastToOrganization`, { userNotification: { type } });
  await Promise.all(clients.map((client) => client.event("user:notification", (p) => p.type === type)));
  const fence = ([name, payload]) => name === "user:notification" && payload.type.startsWith("fence-");
  for (const client of clients) client.events = client.events.filter((event) => !fence(event));
}

const CHANNELS = ["whatsapp", "waba", "telegram"];
const CHAT_STATES = ["new", "open", "pending", "closed"];
const MESSAGE_STATES = ["pending", "sent", "delivered", "read", "failed"];
const ALL = "the organization";
const MEMBERS = "the chat";
const ONE = "that user alone";
/** Who of the sessions below gets what is meant for user 1, chat 7 and their organization. */
const AUDIENCES = {
  [ALL]: ["user 1 in chat 7", "user 1", "user 2 in chat 7", "user 3 in chat 8"],
  [`${ALL} and the chat`]: ["user 1 in chat 7", "user 1", "user 2 in chat 7", "user 3 in chat 8"],
  [MEMBERS]: ["user 1 in chat 7", "user 2 in chat 7"],
  [ONE]: ["user 1 in chat 7", "user 1"],
};

// [event, method, audience, pairs of what is published and what arrives]
const MESSENGER = [
  ["chat:new", "NotifyNewChat", ALL, [
    [{ id: "7", name: "Ada", channel: "CHANNEL_WABA", status: "CHAT_STATUS_NEW", priority: "high", externalId: "x", assignedUserId: "5", createdAt: AT },
      { id: 7, name: "Ada", channel: "waba", status: "new", priority: "high", externalId: "x", assignedUserId: 5, createdAt: MILLIS }],
    ...CHANNELS.map((channel) => [{ id: "8", name: "B", channel: `CHANNEL_${channel.toUpperCase()}`, status: "CHAT_STATUS_PENDING", createdAt: AT },
      { id: 8, name: "B", channel, status: "pending", createdAt: MILLIS }]),
  ]],
  ["message:new", "NotifyNewMessage", `${ALL} and the chat`, [
    [{ id: "9007199254740991", chatId: "7", content: "hi", fromMe: true, timestamp: AT, channel: "CHANNEL_TELEGRAM", senderUserId: "3", senderName: "S", mediaUrl: "u", mediaType: "image" },
      { id: 9007199254740991, chatId: 7, content: "hi", fromMe: true, timestamp: MILLIS, channel: "telegram", senderUserId: 3, senderName: "S", mediaUrl: "u", mediaType: "image" }],
    ...CHANNELS.map((channel) => [{ id: "2", chatId: "7", timestamp: AT, channel: `CHANNEL_${channel.toUpperCase()}` },
      { id: 2, chatId: 7, content: "", fromMe: false, timestamp: MILLIS, channel }]),
  ]],
  ["chat:updated", "NotifyChatUpdated", ALL, [
    [{ id: "7", priority: "low", assignedUserId: "5", unreadCount: "0", lastMessageAt: AT }, { id: 7, priority: "low", assignedUserId: 5, unreadCount: 0, lastMessageAt: MILLIS }],
    ...CHAT_STATES.map((status) => [{ id: "7", status: `CHAT_STATUS_${status.toUpperCase()}` }, { id: 7, status }]),
  ]],
  ["messages:read", "NotifyMessagesRead", ALL, [[{ chatId: "7", readByUserId: "3" }, { chatId: 7, readByUserId: 3 }]]],
  ["message:status", "NotifyMessageStatus", `${ALL} and the chat`,
    MESSAGE_STATES.map((status) => [{ messageId: "1", status: `MESSAGE_STATUS_${status.toUpperCase()}`, chatId: "7" }, { messageId: 1, status, chatId: 7 }])],
  ["chat:deleted", "NotifyChatDeleted", ALL, [[{ chatId: "7" }, { chatId: 7 }]]],
  ["user:notification", "NotifyUser", ONE, [
    [{ userId: "1", type: "info", message: "Hello", data: { a: [1, { b: null }] } }, { type: "info", message: "Hello", data: { a: [1, { b: null }] } }],
    [{ userId: "1", type: "info", message: "Hello" }, { type: "info", message: "Hello" }],
  ]],
  ["typing:start", "NotifyTypingStart", MEMBERS, [[{ chatId: "7", userId: "9" }, { chatId: 7, userId: "9" }]]],
  ["typing:stop", "NotifyTypingStop", MEMBERS, [[{ chatId: "7", userId: "9" }, { chatId: 7, userId: "9" }]]],
  ["operator:joined", "NotifyOperatorJoined", MEMBERS, [[{ chatId: "7", userId: "9" }, { chatId: 7, userId: "9" }]]],
  ["operator:left", "NotifyOperatorLeft", MEMBERS, [[{ chatId: "7", userId: "9" }, { chatId: 7, userId: "9" }]]],
  ["user:online", "NotifyUserOnline", ALL, [[{ userId: "9" }, { userId: "9" }]]],
  ["user:offline", "NotifyUserOffline", ALL, [[{ userId: "9" }, { userId: "9" }]]],
];

// The presence rows of both products, which differ in names alone.
const PRESENCE = {
  messenger: {
    online: "user:online", offline: "user:offline", joined: "operator:joined", left: "operator:left",
    enter: "subscribe:chat", exit: "unsubscribe:chat", chatId: 7, otherId: 8,
  },
  chat: {
    online: "user_online", offline: "user_offline", joined: "user_joined_chat", left: "user_left_chat",
    enter: "join_chat", exit: "leave_chat", chatId: "x", otherId: "y",
  },
};

// [product, what a browser emits, with a payload that is refused, because of this field]
const REFUSED = [
  ["messenger", "subscribe:chat", { chatId: "seven" }, "chatId"],
  ["messenger", "unsubscribe:chat", { chatId: 7.5 }, "chatId"],
  ["messenger", "typing:start", { chatId: {} }, "chatId"],
  ["messenger", "typing:stop", { chatId: 7, userId: "2" }, "userId"],
  ["chat", "join_chat", { chatId: 7 }, "chatId"],
  ["chat", "leave_chat", { chatId: [] }, "chatId"],
  ["chat", "send_message", { chatId: "x", content: 5 }, "content"],
  ["chat", "mark_messages_read", { chatId: "x", messageIds: "a" }, "messageIds"],
  ["chat", "get_active_users", { all: true }, "all"],
  ["chat", "get_chat_info", { chatId: 7 }, "chatId"],
  ["chat", "ping", { timestamp: AT }, "timestamp"],
];

// [product, what a browser emits, its payload, a field that would say who or when]
const FORGED = [
  ...["typing:start", "typing:stop"].map((name) => ["messenger", name, { chatId: 7 }, ["userId", "user_id"]]),
  ["chat", "send_message", { chatId: "x", content: "Hi" }, ["senderId", "sender_id", "senderName", "id", "timestamp"]],
  ["chat", "mark_messages_read", { chatId: "x", messageIds: ["a"] }, ["readBy", "read_by", "timestamp"]],
];

for (const [library, client] of Object.entries(STOCK)) {
  describe(library, () => {
    describe("from a producer", () => {
      const [of, foreign] = [tenant(), tenant()];
      const sessions = new Map();

      before(async () => {
        const open = async (name, given, chatId) => {
          const session = await client(given);
          if (chatId) await session.call("subscribe:chat", { chatId });
          sessions.set(name, session);
        };
        await open("user 1 in chat 7", user(1, Number(of)), 7);
        await open("user 1", user("1", of));
        await open("another organization", user(1, foreign), 7);
        await open("user 3 in chat 8", user(3, of), 8);
        await open("user 2 in chat 7", user(2, of), 7);
        // After this nothing tells of their coming any more.
        const last = (chat, userId) => sessions.get(chat).event("operator:joined", (p) => p.userId === userId);
        await Promise.all([last("user 1 in chat 7", "2"), last("another organization", "1")]);
      });

      after(() => close(...sessions.values()));

      /** What each of the sessions gets of what `publish` publishes. */
      async function heard(publish) {
        const all = [...sessions.values()];
        await settle(all, of, foreign);
        for (const session of all) session.events.length = 0;
        await publish();
        await settle(all, of, foreign);
        return Object.fromEntries([...sessions].map(([name, session]) => [name, session.events]));
      }

      const wanted = (audience, event) =>
        Object.fromEntries([...sessions.keys()].map((name) => [name, AUDIENCES[audience].includes(name) ? [event] : []]));

      for (const [name, method, audience, shapes] of MESSENGER) {
        test(`messenger: ${name} reaches ${audience}, once a session`, async () => {
          for (const [event, seen] of shapes) {
            const got = await heard(async () => {
              const { seq } = await notify(of, `${M}/${method}`, event);
              assert.equal(seq === undefined, name.startsWith("typing:"), "typing alone is never stored");
            });
            assert.deepStrictEqual(got, wanted(audience, [name, seen]));
          }
        });
      }

      test("messenger: broadcastToOrganization takes any event to the whole organization", async () => {
        const publish = (event) => python.call(producer(of), `${M}/BroadcastToOrganization`, event);
        assert.deepStrictEqual(
          await heard(() => publish({ userNotification: { type: "info", message: "Tonight" } })),
          wanted(ALL, ["user:notification", { type: "info", message: "Tonight" }]),
        );
        assert.deepStrictEqual(
          await heard(() => publish({ operatorJoined: { chatId: "7", userId: "9" } })),
          wanted(ALL, ["operator:joined", { chatId: 7, userId: "9" }]),
        );
      });
    });

    for (const [product, { online, offline, joined, left, enter, exit, chatId, otherId }] of Object.entries(PRESENCE)) {
      const timed = product === "chat";
      /** What a client was told of a user, without when they were last seen, which has the right form. */
      const told = (watcher, userId, ...names) =>
        named(watcher, ...names).filter(([, p]) => p.userId === userId).map(([name, { lastSeen, ...rest }]) => {
          if (timed && name === offline) assert.match(lastSeen, TIME);
          else assert.equal(lastSeen, undefined);
          return [name, rest];
        });
      const is = (userId) => (payload) => payload.userId === userId;

      test(`${product}: ${online} and ${offline} tell the organization of a user's first and last session`, async () => {
        const [of, foreign] = [tenant(), tenant()];
        const [watcher, stranger] = [await client(user("1", of)), await client(user("1", foreign))];
        const first = await client(user("2", of));
        await watcher.event(online, is("2"));
        const second = await client(user("2", of));
        await first.close();
        // Somebody who goes later has been told of: the first session's end would have been too.
        await (await client(user("3", of))).close();
        await watcher.event(offline, is("3"));
        assert.deepStrictEqual(told(watcher, "2", online, offline), [[online, { userId: "2" }]]);
        const closed = Date.now();
        await second.lose();
        const [, { lastSeen }] = await watcher.event(offline, is("2"));
        if (timed) assert.ok(Date.now() - Date.parse(lastSeen) >= 250 && Date.parse(lastSeen) >= closed - 5, "when it closed, not when it was told");
        await settle([watcher, stranger], of, foreign);
        assert.deepStrictEqual(told(watcher, "2", online, offline), [[online, { userId: "2" }], [offline, { userId: "2" }]]);
        assert.deepStrictEqual(told(stranger, "2", online, offline), []);
        await close(watcher, stranger);
      });

      test(`${product}: a reload within the grace period is no ${offline} and ${online}, nor ${left} and ${joined}`, async () => {
        const of = tenant();
        const watcher = await client(user("1", of));
        await watcher.call(enter, { chatId });
        let page = await client(user("2", of));
        await page.call(enter, { chatId });
        await watcher.event(joined, is("2"));
        // A page that is loaded again is cut off. One that calls disconnect() has left, and is told of at once.
        for (let reloads = 0; reloads < 2; reloads++) {
          await page.lose();
          page = await client(user("2", of));
          await page.call(enter, { chatId });
        }
        const later = await client(user("3", of));
        await later.call(enter, { chatId });
        await later.close();
        await Promise.all([watcher.event(offline, is("3")), watcher.event(left, is("3"))]);
        assert.deepStrictEqual(told(watcher, "2", online, offline, joined, left), [[online, { userId: "2" }], [joined, { chatId, userId: "2" }]]);
        await close(watcher, page);
      });

      test(`${product}: ${enter} and ${exit} enter and leave; ${joined} and ${left} tell the chat alone, of a user's first and last session in it`, async () => {
        const [of, foreign] = [tenant(), tenant()];
        const [watcher, outside, one, two, later, stranger] = await Promise.all(["1", "3", "2", "2", "4", "1"].map((id, i) => client(user(id, i === 5 ? foreign : of))));
        assert.deepStrictEqual(await watcher.call(enter, { chatId }), { chatId });
        assert.deepStrictEqual(await stranger.call(enter, { chatId }), { chatId });
        assert.deepStrictEqual(await outside.call(enter, { chatId: otherId }), { chatId: otherId });
        await one.call(enter, { chatId });
        assert.deepStrictEqual((await watcher.event(joined, is("2")))[1], { chatId, userId: "2" });
        await two.call(enter, { chatId });
        assert.deepStrictEqual(await one.call(exit, { chatId }), { chatId });
        // Somebody who comes later has been told of: the first session's leaving would have been too.
        await later.call(enter, { chatId });
        await watcher.event(joined, is("4"));
        const came = [joined, { chatId, userId: "2" }];
        const went = [left, { chatId, userId: "2" }];
        assert.deepStrictEqual(told(watcher, "2", joined, left), [came]);
        await two.call(exit, { chatId });
        await watcher.event(left, is("2"));
        await one.call(enter, { chatId });
        await watcher.event(joined, () => told(watcher, "2", joined, left).length === 3);
        await later.call(exit, { chatId });
        await one.lose();
        await two.close();
        await watcher.event(offline, is("2"));
        await settle([watcher, outside, later, stranger], of, foreign);
        assert.deepStrictEqual(told(watcher, "2", joined, left), [came, went, came, went]);
        for (const other of [outside, stranger]) assert.deepStrictEqual(told(other, "2", joined, left), []);
        assert.deepStrictEqual(told(later, "2", joined, left).slice(-1).map(([name]) => name), [joined], "who has left hears no more");
        await close(watcher, outside, later, stranger);
      });
    }

    for (const name of ["typing:start", "typing:stop"]) {
      test(`messenger: ${name} from a browser tells the others in the chat, not the sender, and is never stored`, async () => {
        const [of, foreign] = [tenant(), tenant()];
        const [one, mate, outside, stranger] = await Promise.all([user(1, of), user(2, of), user(3, of), user(2, foreign)].map((t) => client(t)));
        for (const member of [one, mate, stranger]) await member.call("subscribe:chat", { chatId: 7 });
        await outside.call("subscribe:chat", { chatId: 8 });
        await mate.event("operator:joined", (p) => p.userId === "2");
        mate.offsets.length = 0;
        assert.deepStrictEqual(await one.call(name, { chatId: 7 }), { chatId: 7 });
        await one.emit(name, { chatId: 7 });
        await one.call("unsubscribe:chat", { chatId: 7 });
        await mate.event("operator:left");
        await settle([one, mate, outside, stranger], of, foreign);
        const typing = { chatId: 7, userId: "1" };
        assert.deepStrictEqual([one, mate, outside, stranger].map((each) => payloads(each, name)), [[], [typing, typing], [], []]);
        assert.equal(mate.offsets.length, 2, "operator:left and the fence are stored, nothing else");
        await close(one, mate, outside, stranger);
      });
    }

    for (const [given, message] of [["a token that is none", "Invalid token"], ["an expired token", "Token expired"], ["no token", "No token"]]) {
      test(`messenger: ${given} is a connect_error that says ${message}`, async () => {
        const tokens = { "Invalid token": "x", "Token expired": expired(), "No token": "" };
        const error = await client(tokens[message]).then(() => assert.fail("accepted"), (e) => e);
        assert.equal(error.message, `Authentication failed: ${message}`);
      });
    }

    for (const [product, name, wrong, path] of REFUSED) {
      test(`${product}: ${name} that fails answers its callback with the error, and without one is the event error`, async () => {
        const of = tenant();
        const [one, again] = [await client(user("u1", of)), await client(user("u1", of))];
        const { error, ...rest } = await one.call(name, wrong);
        assert.deepStrictEqual([error.code, error.path, typeof error.message, rest], ["invalid_argument", path, "string", {}]);
        assert.deepStrictEqual(Object.keys(error).sort(), ["code", "message", "path"]);
        assert.deepStrictEqual(named(one, "error"), [], "the callback has it");
        await one.emit(name, wrong);
        assert.deepStrictEqual((await one.event("error"))[1], error);
        await settle([one, again], of);
        assert.deepStrictEqual([one, again].map((each) => named(each, "error").length), [1, 0]);
        await close(one, again);
      });
    }

    test("chat: a chat without id is refused, with the field as path", async () => {
      const one = await client(user("u1", tenant()));
      for (const name of ["join_chat", "leave_chat", "get_chat_info", "send_message", "mark_messages_read"]) {
        for (const payload of [{}, { chatId: "" }]) {
          const { error } = await one.call(name, payload);
          assert.deepStrictEqual([error.code, error.path], ["invalid_argument", "chatId"], `${name} ${JSON.stringify(payload)}: ${error.message}`);
        }
      }
      await one.close();
    });

    test("messenger: a chat without number is refused, with the field as path", async () => {
      const one = await client(user("1", tenant()));
      for (const name of ["subscribe:chat", "unsubscribe:chat", "typing:start", "typing:stop"]) {
        const { error } = await one.call(name, {});
        assert.deepStrictEqual([error.code, error.path], ["invalid_argument", "chatId"], `${name}: ${error.message}`);
      }
      assert.equal((await one.call("subscribe:chat", { chatId: 0 })).error, undefined);
      await one.close();
    });

    for (const [product, name, payload, fields] of FORGED) {
      test(`${product}: ${name} with a forged ${fields[0]} is refused and told to nobody`, async () => {
        const of = tenant();
        const [one, mate] = [await client(user("1", of)), await client(user("2", of))];
        const { enter } = PRESENCE[product];
        for (const member of [one, mate]) await member.call(enter, { chatId: payload.chatId });
        await mate.event(PRESENCE[product].joined, (p) => p.userId === "2");
        await settle([one, mate], of);
        mate.events.length = 0;
        for (const field of fields) {
          const { error } = await one.call(name, { ...payload, [field]: "2" });
          assert.deepStrictEqual([error.code, error.path], ["invalid_argument", field]);
        }
        await settle([one, mate], of);
        assert.deepStrictEqual(mate.events, []);
        await close(one, mate);
      });
    }

    test("chat: connected greets each session before anything else, and that session alone", async () => {
      const of = tenant();
      const one = await client(user("u1", of));
      const again = await client(user("u1", of));
      await settle([one, again], of);
      for (const each of [one, again]) {
        assert.deepStrictEqual(each.events[0], ["connected", { userId: "u1", sessionId: each.id }]);
        assert.equal(named(each, "connected").length, 1);
      }
      assert.notEqual(one.id, again.id);
      await close(one, again);
    });

    test("chat: send_message is new_message to the chat and to the recipient, once a session", async () => {
      const [of, foreign] = [tenant(), tenant()];
      const tokens = [user("u1", of, { username: "Ada" }), user("u2", of), user("u3", of), user("u3", of), user("u4", of), user("u3", foreign)];
      const all = await Promise.all(tokens.map((t) => client(t)));
      const [one, mate, friendInside, friend, outside, stranger] = all;
      for (const member of [one, mate, friendInside, stranger]) await member.call("join_chat", { chatId: "x" });
      await outside.call("join_chat", { chatId: "y" });
      const sent = await one.call("send_message", { chatId: "x", content: "Hello", recipientId: "u3" });
      const direct = await one.call("send_message", { chatId: "z", content: "Psst", recipientId: "u3" });
      const open = await one.call("send_message", { chatId: "x", content: "All" });
      const bare = await mate.call("send_message", { chatId: "x", content: "" });
      await settle(all, of, foreign);
      const message = ({ id, chatId, timestamp }, content) => ({ id, chatId, senderId: "u1", senderName: "Ada", content, timestamp });
      const [toBoth, toFriend, toChat] = [message(sent, "Hello"), message(direct, "Psst"), message(open, "All")];
      const unnamed = { id: bare.id, chatId: "x", senderId: "u2", content: "", timestamp: bare.timestamp };
      assert.deepStrictEqual(all.map((each) => payloads(each, "new_message")), [
        [toBoth, toChat, unnamed], [toBoth, toChat, unnamed], [toBoth, toFriend, toChat, unnamed], [toBoth, toFriend], [], [],
      ]);
      for (const { id, timestamp } of [sent, direct, open, bare]) {
        assert.equal(typeof id, "string");
        assert.match(timestamp, TIME);
      }
      await close(...all);
    });

    test("chat: message_sent confirms to the sender, with clientMessageId where it was given", async () => {
      const of = tenant();
      const [one, mate] = [await client(user("u1", of)), await client(user("u2", of))];
      for (const member of [one, mate]) await member.call("join_chat", { chatId: "x" });
      const marked = await one.call("send_message", { chatId: "x", content: "Hello", clientMessageId: "c1" });
      const plain = await one.call("send_message", { chatId: "x", content: "Hello" });
      await settle([one, mate], of);
      const [{ id, timestamp }, next] = payloads(mate, "new_message");
      assert.deepStrictEqual(marked, { id, chatId: "x", clientMessageId: "c1", timestamp });
      assert.deepStrictEqual(plain, { id: next.id, chatId: "x", timestamp: next.timestamp });
      assert.notEqual(id, next.id);
      assert.deepStrictEqual(payloads(one, "message_sent"), [marked, plain]);
      assert.deepStrictEqual(payloads(mate, "message_sent"), []);
      await close(one, mate);
    });

    test("chat: mark_messages_read is messages_read to the chat", async () => {
      const [of, foreign] = [tenant(), tenant()];
      const all = await Promise.all([user("u1", of), user("u2", of), user("u3", of), user("u2", foreign)].map((t) => client(t)));
      const [one, mate, outside, stranger] = all;
      for (const member of [one, mate, stranger]) await member.call("join_chat", { chatId: "x" });
      await outside.call("join_chat", { chatId: "y" });
      const read = await one.call("mark_messages_read", { chatId: "x", messageIds: ["a", "b"] });
      assert.deepStrictEqual(read, { chatId: "x", messageIds: ["a", "b"], readBy: "u1", timestamp: read.timestamp });
      assert.match(read.timestamp, TIME);
      const none = await one.call("mark_messages_read", { chatId: "x", messageIds: [] });
      assert.deepStrictEqual(none, { chatId: "x", messageIds: [], readBy: "u1", timestamp: none.timestamp });
      await settle(all, of, foreign);
      assert.deepStrictEqual(all.map((each) => payloads(each, "messages_read")), [[read, none], [read, none], [], []]);
      await close(...all);
    });

    /** Asks by `name`; the answer, which is also the event `reply`, to the caller's session alone. */
    async function asked(of, name, payload, reply, [caller, ...others]) {
      const answer = await caller.call(name, payload);
      await settle([caller, ...others], of);
      assert.deepStrictEqual([caller, ...others].map((each) => payloads(each, reply)), [[answer], ...others.map(() => [])]);
      return answer;
    }

    test("chat: get_active_users is answered by active_users, each user of the organization once", async () => {
      const of = tenant();
      const all = [await client(user("u1", of, { username: "Ada" })), await client(user("u1", of, { username: "Ada" })), await client(user("u2", of))];
      const stranger = await client(user("u9", tenant()));
      const answer = await asked(of, "get_active_users", {}, "active_users", all);
      assert.deepStrictEqual(answer, { users: [{ userId: "u1", name: "Ada" }, { userId: "u2" }] });
      await close(...all, stranger);
    });

    test("chat: get_chat_info is answered by chat_info, with the members of that chat", async () => {
      const of = tenant();
      const all = [await client(user("u1", of)), await client(user("u2", of, { username: "Bo" })), await client(user("u3", of))];
      for (const member of all.slice(1)) await member.call("join_chat", { chatId: "x" });
      await all[0].call("join_chat", { chatId: "y" });
      const stranger = await client(user("u9", tenant()));
      await stranger.call("join_chat", { chatId: "x" });
      const answer = await asked(of, "get_chat_info", { chatId: "x" }, "chat_info", all);
      assert.deepStrictEqual(answer, { chatId: "x", members: [{ userId: "u2", name: "Bo", online: true }, { userId: "u3", online: true }] });
      assert.deepStrictEqual(await all[0].call("get_chat_info", { chatId: "empty" }), { chatId: "empty", members: [] });
      await close(...all, stranger);
    });

    test("chat: ping is answered by pong", async () => {
      const of = tenant();
      const all = [await client(user("u1", of)), await client(user("u1", of))];
      const answer = await asked(of, "ping", {}, "pong", all);
      assert.deepStrictEqual(Object.keys(answer), ["timestamp"]);
      assert.match(answer.timestamp, TIME);
      await close(...all);
    });
  });
}

const ADA = { username: "ada", email: "ada@example.com" };
const todoToken = (sub, more = {}) => token({ sub, ...ADA, exp: soon(), ...more });
const JOINED = (id) => ({ message: "Successfully connected to real-time updates", user: { id, ...ADA } });
const todo = (given, options) => STOCK["socket.io-client"](given, options);

const PLACES = {
  "auth.token": (given) => ({ auth: { token: given } }),
  "the query": (given) => ({ auth: {}, query: { token: given } }),
  "the query with Bearer": (given) => ({ auth: {}, query: { token: `Bearer ${given}` } }),
  "the authorization header": (given) => ({ auth: {}, extraHeaders: { authorization: `Bearer ${given}` } }),
};
for (const [place, options] of Object.entries(PLACES)) {
  test(`todo: join is answered by joined, with the token in ${place}`, async () => {
    for (const given of [todoToken("o1"), token({ id: "o1", ...ADA, exp: soon() })]) {
      const socket = await todo(undefined, options(given));
      const other = await todo(todoToken("o1"));
      socket.emit("join");
      assert.deepStrictEqual((await socket.event("joined"))[1], JOINED("o1"));
      assert.deepStrictEqual(await socket.call("join"), JOINED("o1"));
      await settle([socket, other], "default");
      assert.deepStrictEqual([payloads(socket, "joined").length, payloads(other, "joined").length], [2, 0]);
      await close(socket, other);
    }
    const error = await refusal(url, options("x"));
    assert.equal(error.message, "Authentication failed: Invalid token");
  });
}

const ITEM = { id: "i", title: "T", completed: false, priority: "PRIORITY_HIGH", userId: "o2", createdAt: AT, updatedAt: AT };
const SEEN = { ...ITEM, priority: "high", createdAt: MILLIS, updatedAt: MILLIS };
const FULL = [{ ...ITEM, description: "D", completed: true, dueDate: AT }, { ...SEEN, description: "D", completed: true, dueDate: MILLIS }];
const PRIORITIES = ["low", "medium", "high"].map((priority) => [{ ...ITEM, priority: `PRIORITY_${priority.toUpperCase()}` }, { ...SEEN, priority }]);
const TODO = [
  ["todo:created", "NotifyCreated", [...PRIORITIES, FULL]],
  ["todo:updated", "NotifyUpdated", [...PRIORITIES, FULL]],
  ["todo:completed", "NotifyCompleted", [...PRIORITIES, FULL]],
  ["todo:deleted", "NotifyDeleted", [[{ id: "i", userId: "o2" }, { id: "i" }]]],
];
for (const [name, method, shapes] of TODO) {
  test(`todo: ${name} reaches the owner alone, once a session`, async () => {
    const all = await Promise.all([todoToken("o2"), todoToken("o2"), todoToken("o3"), user("o2", 1)].map((t) => todo(t)));
    await settle(all, "default", "1");
    for (const [event] of shapes) await notify("default", `todo.v1.Todo/${method}`, event);
    await settle(all, "default", "1");
    const seen = shapes.map(([, payload]) => [name, payload]);
    const got = all.map((each) => each.events.filter(([n]) => n.startsWith("todo:")));
    assert.deepStrictEqual(got, [seen, seen, [], []]);
    await close(...all);
  });
}

test("todo: error tells of a failed request, as acknowledgement where there is a callback", async () => {
  const [socket, other] = [await todo(todoToken("o4")), await todo(todoToken("o5"))];
  const { error } = await socket.call("join", { unknown: 1 });
  assert.deepStrictEqual(error, { code: "invalid_argument", message: error.message, path: "unknown" });
  socket.emit("join", { unknown: 1 });
  assert.deepStrictEqual((await socket.event("error"))[1], error);
  socket.emit("leave");
  assert.equal((await socket.event("error", (e) => e.code === "unknown_event"))[1].path, undefined);
  // The back end's own.
  await notify("default", "todo.v1.Todo/NotifyError", { userId: "o4", message: "No such item", code: "not_found" });
  await settle([socket, other], "default");
  assert.deepStrictEqual(payloads(socket, "error").at(-1), { message: "No such item", code: "not_found" });
  assert.deepStrictEqual([payloads(socket, "error").length, payloads(other, "error").length], [3, 0]);
  await close(socket, other);
});

test("todo: connect_error tells of a refused connection", async () => {
  for (const [given, message] of [["x", "Invalid token"], [expired(), "Token expired"], ["", "No token"]]) {
    assert.equal((await refusal(url, { auth: { token: given } })).message, `Authentication failed: ${message}`);
  }
});

test("todo: a connection whose token becomes invalid is closed by the server", async () => {
  const socket = await todo(todoToken("o6", { exp: soon(5) }));
  assert.equal(await disconnected(socket), "io server disconnect");
  assert.deepStrictEqual(payloads(socket, "error").map((e) => e.code), ["token_expired"]);
});

const D = "dialogs.v1.Dialogs";
const WAYS = {
  query: (given) => [{ token: given }],
  header: (given) => [{}, { headers: { authorization: `Bearer ${given}` } }],
  "first message": (given) => [{}, {}, { type: "auth", token: given }],
};
/** A raw WebSocket that presents its token in one of these ways. */
async function dialogs(given, way = "query") {
  const [query, options, first] = WAYS[way](given);
  const socket = new RawSocket(url, query, options);
  await socket.opened;
  if (first) socket.send(first);
  return socket;
}
const typed = (socket, ...types) => socket.messages.filter((m) => types.includes(m.type));
/** Waits until everything published so far for these users has come. */
async function fenced(of, users) {
  const dialogId = `fence-${++fences}`;
  for (const [userId, socket] of users) {
    await notify(of, `${D}/NotifyNewMessage`, { userId, dialogId, message: { id: "f", createdAt: AT } });
    await socket.message("new_message", (m) => m.dialogId === dialogId);
    socket.messages = socket.messages.filter((m) => m.dialogId !== dialogId);
  }
}

for (const way of Object.keys(WAYS)) {
  test(`dialogs: connected comes first, with the token in the ${way}`, async () => {
    const socket = await dialogs(user("d1", tenant()), way);
    await socket.message("connected");
    assert.deepStrictEqual(socket.messages[0], { type: "connected", userId: "d1" });
    await socket.close();
  });

  test(`dialogs: a token in the ${way} that is none, or has expired, is refused for good`, async () => {
    for (const [given, code, message, closing] of [["x", "invalid_token", "Invalid token", 4502], [expired(), "token_expired", "Token expired", 4503]]) {
      const socket = await dialogs(given, way);
      assert.equal((await socket.closed).code, closing);
      assert.deepStrictEqual(socket.messages, [{ type: "error", code, message: `Authentication failed: ${message}` }]);
    }
  });
}

test("dialogs: a first message without a token is refused, and one may bring it along with a call", async () => {
  for (const first of [{ type: "subscribe" }, { type: "auth" }, { type: "auth", token: "" }]) {
    const socket = await dialogs(undefined);
    socket.send(first);
    assert.equal((await socket.closed).code, 4501);
    assert.deepStrictEqual(socket.messages, [{ type: "error", code: "no_token", message: "Authentication failed: No token" }]);
  }
  const together = await dialogs(undefined);
  together.send({ type: "subscribe", dialogId: "g", token: user("d1", tenant()) });
  assert.deepStrictEqual(await together.message("subscribed"), { type: "subscribed", dialogId: "g" });
  assert.equal(together.messages[0].type, "connected");
  await together.close();
});

test("dialogs: ping is answered by pong, to that connection alone", async () => {
  const of = tenant();
  const [mine, again] = [await dialogs(user("d1", of)), await dialogs(user("d1", of))];
  for (const socket of [mine, again]) await socket.message("connected");
  mine.send({ type: "ping" });
  const pong = await mine.message("pong");
  assert.deepStrictEqual(Object.keys(pong).sort(), ["timestamp", "type"]);
  assert.match(pong.timestamp, TIME);
  await fenced(of, [["d1", mine], ["d1", again]]);
  assert.deepStrictEqual([mine, again].map((socket) => typed(socket, "pong").length), [1, 0]);
  await close(mine, again);
});

test("dialogs: subscribe is answered by subscribed, with dialogId only where it was given", async () => {
  const socket = await dialogs(user("d1", tenant()));
  socket.send({ type: "subscribe" });
  socket.send({ type: "subscribe", dialogId: "g" });
  await socket.message("subscribed", (m) => m.dialogId);
  assert.deepStrictEqual(typed(socket, "subscribed"), [{ type: "subscribed" }, { type: "subscribed", dialogId: "g" }]);
  await socket.close();
});

// What is published and what arrives.
const DIALOGS = [
  ["dialog_update", "NotifyDialogUpdate", [
    [{ dialog: { id: "g", status: "open", unreadCount: "2", lastMessage: "hi", updatedAt: AT } }, { dialog: { id: "g", status: "open", unreadCount: 2, lastMessage: "hi", updatedAt: MILLIS } }],
    [{ dialog: { id: "g", unreadCount: "0", updatedAt: AT } }, { dialog: { id: "g", unreadCount: 0, updatedAt: MILLIS } }],
    [{ dialog: { id: "h", updatedAt: AT } }, { dialog: { id: "h", updatedAt: MILLIS } }],
  ]],
  ["new_message", "NotifyNewMessage", [
    [{ dialogId: "g", message: { id: "m", text: "hi", from: "Ada", createdAt: AT } }, { dialogId: "g", message: { id: "m", text: "hi", from: "Ada", createdAt: MILLIS } }],
    [{ dialogId: "h", message: { id: "n", createdAt: AT } }, { dialogId: "h", message: { id: "n", text: "", from: "", createdAt: MILLIS } }],
  ]],
];
for (const [type, method, shapes] of DIALOGS) {
  test(`dialogs: ${type} reaches its user, fields beside the type, once a connection`, async () => {
    const [of, foreign] = [tenant(), tenant()];
    const [mine, again, other, stranger] = await Promise.all([user("d1", of), user("d1", of), user("d2", of), user("d1", foreign)].map((t) => dialogs(t)));
    for (const socket of [mine, again, other, stranger]) await socket.message("connected");
    mine.send({ type: "subscribe" });
    await mine.message("subscribed");
    for (const [event] of shapes) await notify(of, `${D}/${method}`, { userId: "d1", ...event });
    await fenced(of, [["d1", mine], ["d1", again], ["d2", other]]);
    await fenced(foreign, [["d1", stranger]]);
    const seen = shapes.map(([, payload]) => ({ type, ...payload }));
    const got = [mine, again, other, stranger].map((socket) => typed(socket, "dialog_update", "new_message").filter((m) => !m.dialogId?.startsWith("fence-")));
    assert.deepStrictEqual(got, [seen, seen, [], []]);
    await close(mine, again, other, stranger);
  });
}

test("dialogs: a message that is refused is answered by error, and the connection goes on", async () => {
  const socket = await dialogs(user("d1", tenant()));
  await socket.message("connected");
  const wrong = [
    [{ type: "subscribe", dialogId: 5 }, "invalid_argument", "dialogId"],
    [{ type: "subscribe", userId: "d2" }, "invalid_argument", "userId"],
    [{ type: "ping", timestamp: AT }, "invalid_argument", "timestamp"],
    [{ type: "nonsense" }, "unknown_event", undefined],
    ["{", "invalid_argument", undefined],
  ];
  for (const [message] of wrong) socket.send(message);
  socket.send({ type: "ping" });
  await socket.message("pong");
  // One that cannot be read is refused at once, the others in their turn.
  const told = typed(socket, "error").map(({ code, path }) => [code, path]).sort();
  assert.deepStrictEqual(told, wrong.map(([, code, path]) => [code, path]).sort());
  await socket.close();
});

test("dialogs: polling when there is no WebSocket, and back, misses and doubles nothing", async () => {
  const of = tenant();
  const mine = user("d1", of);
  const publish = (id) => notify(of, `${D}/NotifyNewMessage`, { userId: "d1", dialogId: "g", message: { id, createdAt: AT } });
  const ids = [];
  const take = (messages) => ids.push(...messages.filter((m) => m.type === "new_message").map((m) => m.message.id));
  let { cursor } = await poll(url, { token: mine });
  const pollUntil = async (id) => {
    while (ids.at(-1) !== id) {
      const page = await poll(url, { token: mine, after: cursor });
      take(page.events);
      cursor = page.cursor;
    }
  };
  await publish("1");
  await pollUntil("1");
  await publish("2");
  const socket = new RawSocket(url, { token: mine, after: cursor });
  await socket.message("new_message", (m) => m.message.id === "2");
  await publish("3");
  const last = await socket.message("new_message", (m) => m.message.id === "3");
  await socket.close();
  take(socket.messages);
  cursor = last.cursor;
  await publish("4");
  await pollUntil("4");
  assert.deepStrictEqual(ids, ["1", "2", "3", "4"]);
});
