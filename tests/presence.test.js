// Who is there: GetPresence, Disconnect, reloads, bridges that die, and what the rooms are told.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { call, connect, disconnected } from "./lib/clients.js";
import { start, startBridge, until } from "./lib/fanfare.js";
import { EventStream, RawSocket } from "./lib/plain.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { Proxy } from "./lib/proxy.js";
import { producer, soon, token, user } from "./lib/tokens.js";

let fanfare, url, python;

before(async () => {
  generateStubs();
  fanfare = await start({ serverArgs: ["--presence-grace", "3s", "--presence-catalog", "chat.v1"] });
  url = fanfare.bridge.url;
  python = new Producer(fanfare.server.address);
});

after(async () => {
  python?.close();
  await fanfare?.stop();
});

const admin = (tenant) => token({ sub: "ops", tenant, scopes: ["admin"], exp: soon() });
const presence = (tenant, request = {}, as = producer(tenant)) => python.call(as, "fanfare.v1.Realtime/GetPresence", request);
const disconnect = (tenant, request, as = admin(tenant)) => python.call(as, "fanfare.v1.Realtime/Disconnect", request);
const ids = ({ users = [] }) => users.map((u) => u.userId);
/** The presence events of one user, in order. */
const told = (socket, userId) => socket.events.filter(([name, p]) => /^user_(on|off)line$/.test(name) && p.userId === userId).map(([name]) => name);

test("users and sessions are listed by tenant and room, with transport, bridge and rooms", async () => {
  const ada = await connect(url, user(1, "list", { username: "Ada" }));
  const again = new RawSocket(url, { token: user(1, "list") });
  const stream = await EventStream.open(url, { token: user(2, "list"), room: ["chat:7"] });
  await again.opened;
  await call(ada, "join_chat", { chatId: "7" });
  await until(async () => (await presence("list")).sessionCount === "3", "three sessions");
  const all = await presence("list");
  assert.deepStrictEqual([ids(all), all.userCount], [["1", "2"], "2"]);
  const [first, second] = all.users;
  assert.equal(first.online, true);
  assert.deepStrictEqual(first.sessions.map((s) => s.transport).sort(), ["TRANSPORT_SOCKETIO", "TRANSPORT_WEBSOCKET"]);
  assert.deepStrictEqual(second.sessions[0].rooms, ["chat:7", "org", "user:2"]);
  assert.equal(second.sessions[0].bridge, "bridge");
  assert.ok(Date.parse(second.sessions[0].connectedAt) > Date.now() - 60_000);
  assert.deepStrictEqual(ids(await presence("list", { room: "chat:7" })), ["1", "2"]);
  assert.deepStrictEqual(ids(await presence("list", { limit: 1 })), ["1"]);
  assert.equal((await presence("list", { limit: 1 })).more, true);
  assert.deepStrictEqual(ids(await presence("list", { limit: 1, afterUserId: "1" })), ["2"]);
  assert.deepStrictEqual(ids(await presence("elsewhere")), []);
  const seen = await presence("list", { room: "chat:7" }, user(9, "list"));
  assert.deepStrictEqual(seen.users.map((u) => [u.userId, u.sessions]), [["1", undefined], ["2", undefined]]);
  for (const [request, as] of [[{ room: "user:1" }, user(9, "list")], [{ tenant: "list" }, user(9, "other")]]) {
    assert.equal((await presence("list", request, as).catch((e) => e)).code, "PERMISSION_DENIED");
  }
  assert.equal((await presence("list", { limit: 2000 }).catch((e) => e)).code, "INVALID_ARGUMENT");
  ada.close();
  await again.close();
  stream.close();
});

/** Ends a client's connection without a DISCONNECT, as a page that is loaded again does. */
const lose = (socket) => socket.io.engine.close();

test("rooms are told of the first session and the last one only, and a reload tells nobody", async () => {
  const watcher = await connect(url, user(1, "reload"));
  const one = await connect(url, user(2, "reload"));
  await watcher.event("user_online", (p) => p.userId === "2");
  const two = await connect(url, user(2, "reload"));
  lose(one);
  lose(two);
  const reloaded = await connect(url, user(2, "reload"));
  const fence = await connect(url, user(3, "reload"));
  lose(fence);
  await watcher.event("user_offline", (p) => p.userId === "3");
  assert.deepStrictEqual(told(watcher, "2"), ["user_online"]);
  const closedAt = Date.now();
  reloaded.close();
  const [, offline] = await watcher.event("user_offline", (p) => p.userId === "2");
  assert.ok(Math.abs(Date.parse(offline.lastSeen) - closedAt) < 2500, "lastSeen is when the session closed");
  assert.deepStrictEqual(told(watcher, "2"), ["user_online", "user_offline"]);
  watcher.close();
});

test("whoever leaves a room on purpose has left it at once, and a lost session after the grace period", async () => {
  const watcher = await connect(url, user(1, "leave"));
  const guest = await connect(url, user(2, "leave"));
  await call(watcher, "join_chat", { chatId: "x" });
  await call(guest, "join_chat", { chatId: "x" });
  await watcher.event("user_joined_chat", (p) => p.userId === "2");
  await call(guest, "leave_chat", { chatId: "x" });
  await watcher.event("user_left_chat", (p) => p.userId === "2");
  assert.deepStrictEqual(ids(await presence("leave", { room: "chat:x" })), ["1"]);
  await call(guest, "join_chat", { chatId: "x" });
  watcher.events.length = 0;
  lose(guest);
  await until(async () => !(await presence("leave", { room: "chat:x" })).users.find((u) => u.userId === "2")?.online, "the session to be gone");
  const { members } = await call(watcher, "get_chat_info", { chatId: "x" });
  assert.deepStrictEqual(members.map((m) => [m.userId, m.online]), [["1", true], ["2", false]]);
  await watcher.event("user_left_chat", (p) => p.userId === "2");
  assert.deepStrictEqual(ids(await presence("leave", { room: "chat:x" })), ["1"]);
  watcher.close();
});

test("a bridge that dies takes its sessions along, and users who come back to another one in time are not told of", async () => {
  const dying = await startBridge(fanfare.server);
  const watcher = await connect(url, user(1, "dead"));
  const back = await connect(dying.url, user(2, "dead"));
  const gone = await connect(dying.url, user(3, "dead"));
  await watcher.event("user_online", (p) => p.userId === "3");
  const noticed = Promise.all([disconnected(back), disconnected(gone)]);
  await dying.kill();
  await noticed;
  const again = await connect(url, user(2, "dead"));
  await watcher.event("user_offline", (p) => p.userId === "3");
  assert.deepStrictEqual(told(watcher, "2"), ["user_online"]);
  assert.deepStrictEqual(ids(await presence("dead")), ["1", "2"]);
  again.close();
  watcher.close();
});

test("a link that breaks for a moment changes nothing for who is there", async () => {
  const proxy = await Proxy.to(fanfare.server.address);
  const other = await startBridge(proxy);
  const watcher = await connect(url, user(1, "paused"));
  const guest = await connect(other.url, user(2, "paused", { username: "Bob" }));
  await call(watcher, "join_chat", { chatId: "x" });
  await call(guest, "join_chat", { chatId: "x" });
  await watcher.event("user_joined_chat", (p) => p.userId === "2");
  const before = await presence("paused");
  watcher.events.length = 0;
  proxy.cut();
  await until(() => other.logs.filter((e) => e.message === "linked").length >= 2, "the bridge to link again");
  // The same as before, as soon as a call is answered; and nobody was told.
  const { members } = await call(guest, "get_chat_info", { chatId: "x" });
  assert.deepStrictEqual(members, [{ userId: "1", online: true }, { userId: "2", name: "Bob", online: true }]);
  assert.deepStrictEqual((await presence("paused")).users.map((u) => u.sessions[0].rooms), before.users.map((u) => u.sessions[0].rooms));
  await call(guest, "leave_chat", { chatId: "x" });
  await watcher.event("user_left_chat", (p) => p.userId === "2");
  assert.deepStrictEqual(watcher.events.map(([name]) => name), ["user_left_chat"]);
  guest.close();
  watcher.close();
  await other.stop();
  proxy.close();
});

test("an administrator ends a user's sessions, on every bridge and transport, for good or to come again", async () => {
  const other = await startBridge(fanfare.server);
  const [stock, elsewhere, witness] = [
    await connect(url, user(1, "ops"), { reconnection: true }),
    await connect(other.url, user(1, "ops"), { reconnection: true }),
    await connect(url, user(2, "ops")),
  ];
  const raw = new RawSocket(url, { token: user(1, "ops") });
  await raw.opened;
  await until(async () => (await presence("ops")).sessionCount === "4", "all sessions");
  const ends = [stock, elsewhere].map(disconnected);
  assert.deepStrictEqual(await disconnect("ops", { userId: "1", message: "You were signed out" }), { sessions: 3 });
  assert.deepStrictEqual(await Promise.all(ends), ["io server disconnect", "io server disconnect"]);
  assert.deepStrictEqual((await stock.event("error"))[1], { code: "disconnected", message: "You were signed out" });
  assert.equal((await raw.closed).code, 4510);
  const auth = { token: user(1, "ops"), pid: stock._pid, offset: stock._lastOffset };
  const again = await connect(url, auth.token, { auth });
  assert.notEqual(again._pid, auth.pid, "what was ended for good is not recovered");
  again.close();
  await until(async () => (await presence("ops")).sessionCount === "1", "the session to be gone");
  assert.ok(witness.connected);

  const asked = disconnected(witness);
  witness.io.reconnection(true);
  assert.deepStrictEqual(await disconnect("ops", { sessionId: witness.id, reconnect: true }), { sessions: 1 });
  assert.equal(await asked, "transport close");
  await until(() => witness.connected, "the session to come back");
  assert.deepStrictEqual(await disconnect("ops", { everybody: true }), { sessions: 1 });
  witness.close();
  await other.stop();
});

test("disconnecting needs an administrator of the tenant, and somebody to disconnect", async () => {
  const refused = async (...args) => (await disconnect(...args).catch((e) => e)).code;
  assert.equal(await refused("ops", { everybody: true }, producer("ops")), "PERMISSION_DENIED");
  assert.equal(await refused("ops", { everybody: true }, user(1, "ops")), "PERMISSION_DENIED");
  assert.equal(await refused("ops", { tenant: "other", everybody: true }), "PERMISSION_DENIED");
  assert.equal(await refused("ops", {}), "INVALID_ARGUMENT");
  assert.equal(await refused("ops", { everybody: true, message: "x".repeat(300) }), "INVALID_ARGUMENT");
  assert.deepStrictEqual(await disconnect("ops", { userId: "nobody" }), {});
});
