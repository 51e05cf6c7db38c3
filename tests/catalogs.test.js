// Every event of the four catalogs: in by the typed RPC (Python, grpcio), out to the stock client, with exactly the JSON
// that the products' front ends read, once a session, to exactly the sessions that should have it.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { call, connect } from "./lib/clients.js";
import { QUIET, run, start } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, soon, token } from "./lib/tokens.js";

const TIME = "2026-01-31T12:00:00.250Z";
const TODO = { id: "t1", title: "Buy milk", completed: false, priority: "PRIORITY_HIGH", userId: "42", createdAt: TIME, updatedAt: TIME };
const TODO_SEEN = { ...TODO, priority: "high" };

// [catalog service, method, event name, request's event, what the browser sees, audience]
const EVENTS = [
  ["messenger.v1.Messenger", "NotifyNewChat", "chat:new",
    { id: "7", name: "Ada", channel: "CHANNEL_WABA", status: "CHAT_STATUS_NEW", createdAt: TIME },
    { id: 7, name: "Ada", channel: "waba", status: "new", createdAt: TIME }, "org"],
  ["messenger.v1.Messenger", "NotifyNewChat", "chat:new",
    { id: "8", name: "Bo", channel: "CHANNEL_TELEGRAM", status: "CHAT_STATUS_OPEN", priority: "high", externalId: "x-1", assignedUserId: "42", createdAt: TIME },
    { id: 8, name: "Bo", channel: "telegram", status: "open", priority: "high", externalId: "x-1", assignedUserId: 42, createdAt: TIME }, "org"],
  ["messenger.v1.Messenger", "NotifyNewMessage", "message:new",
    { id: "9007199254740991", chatId: "7", content: "Hallo “Welt” \u2028 \u0001 👋", fromMe: false, timestamp: TIME, channel: "CHANNEL_WHATSAPP" },
    { id: 9007199254740991, chatId: 7, content: "Hallo “Welt” \u2028 \u0001 👋", fromMe: false, timestamp: TIME, channel: "whatsapp" }, "org+chat"],
  ["messenger.v1.Messenger", "NotifyNewMessage", "message:new",
    { id: "2", chatId: "7", content: "", fromMe: true, timestamp: TIME, channel: "CHANNEL_WHATSAPP", senderUserId: "42", senderName: "Ada", mediaUrl: "https://x/y.png", mediaType: "image/png" },
    { id: 2, chatId: 7, content: "", fromMe: true, timestamp: TIME, channel: "whatsapp", senderUserId: 42, senderName: "Ada", mediaUrl: "https://x/y.png", mediaType: "image/png" }, "org+chat"],
  ["messenger.v1.Messenger", "NotifyChatUpdated", "chat:updated", { id: "7" }, { id: 7 }, "org"],
  ["messenger.v1.Messenger", "NotifyChatUpdated", "chat:updated",
    { id: "7", status: "CHAT_STATUS_CLOSED", priority: "low", assignedUserId: "1", unreadCount: "0", lastMessageAt: TIME },
    { id: 7, status: "closed", priority: "low", assignedUserId: 1, unreadCount: 0, lastMessageAt: TIME }, "org"],
  ["messenger.v1.Messenger", "NotifyMessagesRead", "messages:read", { chatId: "7", readByUserId: "42" }, { chatId: 7, readByUserId: 42 }, "org"],
  ["messenger.v1.Messenger", "NotifyMessageStatus", "message:status",
    { messageId: "2", status: "MESSAGE_STATUS_DELIVERED", chatId: "7" }, { messageId: 2, status: "delivered", chatId: 7 }, "org+chat"],
  ["messenger.v1.Messenger", "NotifyChatDeleted", "chat:deleted", { chatId: "7" }, { chatId: 7 }, "org"],
  ["messenger.v1.Messenger", "NotifyUser", "user:notification",
    { userId: "42", type: "info", message: "Hi", data: { a: [1, null, { b: true }], c: "x" } },
    { type: "info", message: "Hi", data: { a: [1, null, { b: true }], c: "x" } }, "user"],
  ["messenger.v1.Messenger", "NotifyUser", "user:notification", { userId: "42", type: "info", message: "Hi" }, { type: "info", message: "Hi" }, "user"],
  ["messenger.v1.Messenger", "NotifyTypingStart", "typing:start", { chatId: "7", userId: "5" }, { chatId: 7, userId: "5" }, "chat"],
  ["messenger.v1.Messenger", "NotifyTypingStop", "typing:stop", { chatId: "7", userId: "5" }, { chatId: 7, userId: "5" }, "chat"],
  ["messenger.v1.Messenger", "NotifyOperatorJoined", "operator:joined", { chatId: "7", userId: "5" }, { chatId: 7, userId: "5" }, "chat"],
  ["messenger.v1.Messenger", "NotifyOperatorLeft", "operator:left", { chatId: "7", userId: "5" }, { chatId: 7, userId: "5" }, "chat"],
  ["messenger.v1.Messenger", "NotifyUserOnline", "user:online", { userId: "5" }, { userId: "5" }, "org"],
  ["messenger.v1.Messenger", "NotifyUserOffline", "user:offline", { userId: "5" }, { userId: "5" }, "org"],
  ["todo.v1.Todo", "NotifyCreated", "todo:created", TODO, TODO_SEEN, "user"],
  ["todo.v1.Todo", "NotifyUpdated", "todo:updated", { ...TODO, description: "2 l", dueDate: TIME }, { ...TODO_SEEN, description: "2 l", dueDate: TIME }, "user"],
  ["todo.v1.Todo", "NotifyCompleted", "todo:completed", { ...TODO, completed: true, priority: "PRIORITY_LOW" }, { ...TODO_SEEN, completed: true, priority: "low" }, "user"],
  ["todo.v1.Todo", "NotifyDeleted", "todo:deleted", { id: "t1", userId: "42" }, { id: "t1" }, "user"],
  ["todo.v1.Todo", "NotifyJoined", "joined", { message: "Hi", user: { id: "42", username: "ada", email: "a@b.c" } },
    { message: "Hi", user: { id: "42", username: "ada", email: "a@b.c" } }, "user", ["user:42"]],
  ["todo.v1.Todo", "NotifyError", "error", { userId: "42", message: "No" }, { message: "No" }, "user"],
  ["dialogs.v1.Dialogs", "NotifyConnected", "connected", { userId: "42" }, { userId: "42" }, "user"],
  ["dialogs.v1.Dialogs", "NotifySubscribed", "subscribed", { userId: "42", dialogId: "d1" }, { dialogId: "d1" }, "user"],
  ["dialogs.v1.Dialogs", "NotifyPong", "pong", { userId: "42", timestamp: TIME }, { timestamp: TIME }, "user"],
  ["dialogs.v1.Dialogs", "NotifyDialogUpdate", "dialog_update",
    { userId: "42", dialog: { id: "d1", unreadCount: "3", updatedAt: TIME } }, { dialog: { id: "d1", unreadCount: 3, updatedAt: TIME } }, "user"],
  ["dialogs.v1.Dialogs", "NotifyDialogUpdate", "dialog_update",
    { userId: "42", dialog: { id: "d1", status: "open", lastMessage: "x", updatedAt: TIME } }, { dialog: { id: "d1", status: "open", lastMessage: "x", updatedAt: TIME } }, "user"],
  ["dialogs.v1.Dialogs", "NotifyNewMessage", "new_message",
    { userId: "42", dialogId: "d1", message: { id: "m1", text: "Hi", from: "bo", createdAt: TIME } },
    { dialogId: "d1", message: { id: "m1", text: "Hi", from: "bo", createdAt: TIME } }, "user"],
  ["chat.v1.Chat", "NotifyConnected", "connected", { userId: "42", sessionId: "s" }, { userId: "42", sessionId: "s" }, "user"],
  ["chat.v1.Chat", "NotifyNewMessage", "new_message",
    { id: "m1", chatId: "7", senderId: "5", content: "Hi", timestamp: TIME }, { id: "m1", chatId: "7", senderId: "5", content: "Hi", timestamp: TIME }, "chat"],
  ["chat.v1.Chat", "NotifyNewMessage", "new_message",
    { id: "m2", chatId: "7", senderId: "5", senderName: "Bo", content: "Hi", timestamp: TIME, recipientId: "42" },
    { id: "m2", chatId: "7", senderId: "5", senderName: "Bo", content: "Hi", timestamp: TIME }, "user+chat"],
  ["chat.v1.Chat", "NotifyMessageSent", "message_sent",
    { id: "m2", chatId: "7", clientMessageId: "c1", timestamp: TIME, senderId: "42" }, { id: "m2", chatId: "7", clientMessageId: "c1", timestamp: TIME }, "user"],
  ["chat.v1.Chat", "NotifyUserJoinedChat", "user_joined_chat", { chatId: "7", userId: "5" }, { chatId: "7", userId: "5" }, "chat"],
  ["chat.v1.Chat", "NotifyUserLeftChat", "user_left_chat", { chatId: "7", userId: "5" }, { chatId: "7", userId: "5" }, "chat"],
  ["chat.v1.Chat", "NotifyUserOnline", "user_online", { userId: "5" }, { userId: "5" }, "org"],
  ["chat.v1.Chat", "NotifyUserOffline", "user_offline", { userId: "5", lastSeen: TIME }, { userId: "5", lastSeen: TIME }, "org"],
  ["chat.v1.Chat", "NotifyMessagesRead", "messages_read",
    { chatId: "7", messageIds: ["m1", "m2"], readBy: "5", timestamp: TIME }, { chatId: "7", messageIds: ["m1", "m2"], readBy: "5", timestamp: TIME }, "chat"],
  ["chat.v1.Chat", "NotifyMessagesRead", "messages_read",
    { chatId: "7", readBy: "5", timestamp: TIME }, { chatId: "7", messageIds: [], readBy: "5", timestamp: TIME }, "chat"],
  ["chat.v1.Chat", "NotifyActiveUsers", "active_users",
    { userId: "42", users: [{ userId: "5", name: "Bo" }, { userId: "6" }] }, { users: [{ userId: "5", name: "Bo" }, { userId: "6" }] }, "user"],
  ["chat.v1.Chat", "NotifyChatInfo", "chat_info",
    { userId: "42", chatId: "7", members: [{ userId: "5", online: true }] }, { chatId: "7", members: [{ userId: "5", online: true }] }, "user"],
  ["chat.v1.Chat", "NotifyPong", "pong", { userId: "42", timestamp: TIME }, { timestamp: TIME }, "user"],
];

// Who gets what is meant for an audience in tenant 1, user 42, chat 7.
const AUDIENCES = {
  org: ["user 42", "user 42 in chat 7", "user 43", "user 43 in chat 7"],
  "org+chat": ["user 42", "user 42 in chat 7", "user 43", "user 43 in chat 7"],
  chat: ["user 42 in chat 7", "user 43 in chat 7"],
  user: ["user 42", "user 42 in chat 7"],
  "user+chat": ["user 42", "user 42 in chat 7", "user 43 in chat 7"],
};

let fanfare, python;
const sessions = new Map();

before(async () => {
  generateStubs();
  fanfare = await start({ serverArgs: QUIET });
  python = new Producer(fanfare.server.address);
  const open = async (name, claims, chat) => {
    const session = await connect(fanfare.bridge.url, token({ ...claims, exp: soon() }));
    if (chat) await call(session, "subscribe:chat", { chatId: 7 });
    sessions.set(name, session);
  };
  await open("user 42", { userId: 42, organizationId: 1 });
  await open("user 42 in chat 7", { userId: "42", organizationId: "1" }, true);
  await open("user 43", { userId: 43, organizationId: 1 });
  await open("user 43 in chat 7", { userId: 43, organizationId: 1 }, true);
  await open("other tenant", { userId: 42, organizationId: 2 }, true);
  await open("no tenant", { sub: "42", username: "ada" }, true);
});

after(async () => {
  for (const session of sessions.values()) session.close();
  python?.close();
  await fanfare?.stop();
});

for (const [service, method, name, event, seen, audience, rooms] of EVENTS) {
  test(`${service}/${method}: ${name} ${JSON.stringify(seen).slice(0, 60)} reaches ${audience}`, async () => {
    for (const session of sessions.values()) session.events.length = session.texts.length = 0;
    await python.call(producer("1"), `${service}/${method}`, { target: { rooms }, event });
    // A fence for each tenant: what comes before it has come, and nothing else will.
    const fence = `fence-${Math.random()}`;
    for (const tenant of ["1", "2", "default"]) {
      await python.call(producer(), "messenger.v1.Messenger/BroadcastToOrganization", { target: { tenant }, userNotification: { type: fence } });
    }
    for (const [who, session] of sessions) {
      await session.event("user:notification", (payload) => payload.type === fence);
      const got = session.events.filter(([, payload]) => !String(payload.type).startsWith("fence-"));
      assert.deepStrictEqual(got, AUDIENCES[audience].includes(who) ? [[name, seen]] : [], who);
      // On the wire it is what JSON.stringify writes (no field twice, no number with an exponent), but that the doubles
      // of a google.protobuf.Struct may keep a zero behind the point.
      for (const text of session.texts) {
        assert.equal(text.replace(/(?<=\d)\.0(?=[,\]}])/g, ""), `2${JSON.stringify(JSON.parse(text.slice(1)))}`, who);
      }
    }
  });
}

test("BroadcastToOrganization sends any event of the catalog to everybody in the organization", async () => {
  for (const session of sessions.values()) session.events.length = 0;
  const event = { typingStart: { chatId: "7", userId: "5" } };
  await python.call(producer("1"), "messenger.v1.Messenger/BroadcastToOrganization", event);
  await python.call(producer("1"), "messenger.v1.Messenger/BroadcastToOrganization", { userNotification: { type: "all", message: "Tonight" } });
  for (const who of AUDIENCES.org) {
    await sessions.get(who).event("user:notification");
    assert.deepStrictEqual(sessions.get(who).events, [["typing:start", { chatId: 7, userId: "5" }], ["user:notification", { type: "all", message: "Tonight" }]], who);
  }
  await assert.rejects(python.call(producer("1"), "messenger.v1.Messenger/BroadcastToOrganization", {}), /has no event/);
});

test("the table names every event of the catalogs", async () => {
  const { stdout } = await run(["check"]);
  const declared = [...stdout.matchAll(/^ {2}(\S+) /gm)].map((m) => m[1]).sort();
  // Two catalogs may use one name, each for an event of its own.
  const tabled = [...new Set(EVENTS.map(([service, , name]) => `${service} ${name}`))].map((t) => t.split(" ")[1]).sort();
  assert.deepStrictEqual(tabled, declared);
});
