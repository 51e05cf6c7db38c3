// Connection state recovery, as the stock client has it: what was missed comes, once and in order, before anything live.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { call, connect } from "./lib/clients.js";
import { ENGINE, start, startBridge, startServer, until, within } from "./lib/fanfare.js";
import { pause } from "./lib/faults/actions.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { Proxy } from "./lib/proxy.js";
import { producer, user } from "./lib/tokens.js";

let fanfare, url, python;

before(async () => {
  generateStubs();
  fanfare = await start({
    serverArgs: ["--retention-events", "2000", "--presence-grace", "10s", "--presence-catalog", "chat.v1", "--recovery-window", "20s"],
  });
  url = fanfare.bridge.url;
  python = new Producer(fanfare.server.address);
});

after(async () => {
  python?.close();
  await fanfare?.stop();
});

const notify = (tenant, id, more = {}, target) =>
  python.call(producer(tenant), "messenger.v1.Messenger/NotifyNewMessage", { target, event: { id, chatId: "7", content: "x", channel: "CHANNEL_WABA", ...more } });
const ids = (socket) => socket.events.filter(([name]) => name === "message:new").map(([, m]) => m.id);
const RECONNECT = { reconnection: true, reconnectionDelay: 10, reconnectionDelayMax: 50 };

/** Cuts the connection, runs `meanwhile` while it is away, and waits until it is back, at another bridge if one is given. */
async function away(socket, meanwhile, bridge) {
  socket.io.reconnection(false);
  const gone = new Promise((resolve) => socket.once("disconnect", resolve));
  socket.io.engine.close();
  await within(gone, "the disconnect");
  await meanwhile();
  await comeBack(socket, bridge);
}

/** Waits until a client that has lost its connection is back, at another bridge if one is given. */
async function comeBack(socket, bridge) {
  if (bridge) socket.io.uri = bridge;
  const back = new Promise((resolve) => socket.once("connect", resolve));
  socket.connect();
  await within(back, "the client to be back");
}

test("a client that comes back has its id, its rooms and what it missed", async () => {
  const socket = await connect(url, user(1, "back"), RECONNECT);
  await call(socket, "subscribe:chat", { chatId: 7 });
  const { id } = socket;
  await notify("back", 1, {}, { rooms: ["chat:7"] });
  await socket.event("message:new");
  await away(socket, async () => {
    await notify("back", 2, {}, { rooms: ["chat:7"] });
    await notify("back", 3, {}, { rooms: ["chat:8"] });
    await notify("back", 4, {}, { rooms: ["user:1", "org"] });
  });
  assert.deepStrictEqual([socket.recovered, socket.id], [true, id]);
  await notify("back", 5, {}, { rooms: ["chat:7"] });
  await socket.event("message:new", (m) => m.id === 5);
  assert.deepStrictEqual(ids(socket), [1, 2, 4, 5]);
  assert.equal(new Set(socket.offsets).size, socket.offsets.length, "no offset twice");
  // A second time, by the offsets of what was replayed.
  await away(socket, () => notify("back", 6));
  await socket.event("message:new", (m) => m.id === 6);
  assert.deepStrictEqual([socket.recovered, ids(socket)], [true, [1, 2, 4, 5, 6]]);
  socket.close();
});

test("a client that has had no event recovers too", async () => {
  const socket = await connect(url, user(2, "none"), RECONNECT);
  await until(() => socket.events.some(([name]) => name === "user_online"), "its own presence");
  const fresh = await connect(url, user(1, "none"), RECONNECT);
  await fresh.event("connected");
  fresh._lastOffset = undefined;
  await away(fresh, () => notify("none", 1));
  assert.equal(fresh.recovered, true);
  await fresh.event("message:new");
  assert.deepStrictEqual(ids(fresh), [1]);
  socket.close();
  fresh.close();
});

test("any bridge will do, also when the old one is gone, and nobody is told", async () => {
  const dying = await startBridge(fanfare.server);
  const watcher = await connect(url, user(9, "any"));
  const socket = await connect(dying.url, user(1, "any"), RECONNECT);
  await call(socket, "join_chat", { chatId: "x" });
  await call(watcher, "join_chat", { chatId: "x" });
  await watcher.event("user_online", (p) => p.userId === "1");
  const { id } = socket;
  socket.io.reconnection(false);
  const gone = new Promise((resolve) => socket.once("disconnect", resolve));
  await dying.kill();
  await within(gone, "the disconnect");
  await notify("any", 1);
  await comeBack(socket, url);
  assert.deepStrictEqual([socket.recovered, socket.id], [true, id]);
  await socket.event("message:new");
  // Still in the chat, for itself and for others, who may be told a moment later.
  await call(socket, "get_chat_info", { chatId: "x" });
  const { members } = await call(watcher, "get_chat_info", { chatId: "x" });
  assert.deepStrictEqual(members.map((m) => [m.userId, m.online]), [["1", true], ["9", true]]);
  await call(watcher, "send_message", { chatId: "x", content: "hi" });
  await socket.event("new_message");
  assert.deepStrictEqual(watcher.events.filter(([name]) => /offline|left/.test(name)), []);
  socket.close();
  watcher.close();
});

test("a connection that is not seen to be lost yet lets go", async () => {
  const other = await startBridge(fanfare.server);
  for (const bridge of [url, other.url]) {
    const old = await connect(url, user(1, "half"));
    const [id, pid, offset] = [old.id, old._pid, old._lastOffset];
    const ended = new Promise((resolve) => old.once("disconnect", resolve));
    const again = await connect(bridge, user(1, "half"), { auth: { token: user(1, "half"), pid, offset } });
    assert.equal(again.id, id);
    await within(ended, "the old connection to end");
    await notify("half", 1);
    await again.event("message:new");
    const { sessionCount } = await python.call(producer("half"), "fanfare.v1.Realtime/GetPresence", {});
    assert.equal(sessionCount, "1");
    again.close();
    await until(async () => {
      const answer = await python.call(producer("half"), "fanfare.v1.Realtime/GetPresence", {});
      return answer.sessionCount === undefined;
    }, "the session to be gone");
  }
  await other.stop();
});

test("a bridge that was cut off keeps nothing of clients that went to another one meanwhile", async () => {
  const proxy = await Proxy.to(fanfare.server.address);
  const cutOff = await startBridge(proxy);
  const old = await connect(cutOff.url, user(1, "apart"));
  const rooms = async () => (await python.call(producer("apart"), "fanfare.v1.Realtime/GetPresence", {})).users[0].sessions.map((s) => s.rooms);
  const ended = new Promise((resolve) => old.once("disconnect", resolve));
  proxy.silence("up");
  proxy.cut();
  const again = await connect(url, user(1, "apart"), { auth: { token: user(1, "apart"), pid: old._pid, offset: old._lastOffset } });
  assert.deepStrictEqual([again.id, old.connected], [old.id, true]);
  await call(again, "join_chat", { chatId: "x" });
  // It links again, and tells of the session that it still has.
  proxy.speak();
  await within(ended, "the old connection to end");
  await cutOff.stop();
  assert.deepStrictEqual(await rooms(), [["chat:x", "org", "user:1"]]);
  await notify("apart", 1);
  await again.event("message:new");
  again.close();
  proxy.close();
});

test("of many connections that come back as one session at once, at most one has it", async () => {
  const other = await startBridge(fanfare.server);
  const sessions = async () => Number((await python.call(producer("many"), "fanfare.v1.Realtime/GetPresence", {})).sessionCount ?? 0);
  for (let round = 1; round <= 10; round++) {
    const first = await connect(url, user(1, "many"));
    await notify("many", round);
    await first.event("message:new");
    const { id } = first;
    const auth = { token: user(1, "many"), pid: first._pid, offset: first._lastOffset };
    const come = (bridge) => connect(bridge, user(1, "many"), { auth }).catch(() => null);
    const came = (await Promise.all([url, other.url, url, other.url, url, other.url].map(come))).filter(Boolean);
    const open = () => came.filter((socket) => socket.connected);
    const settled = async () => open().length <= 1 && (await sessions()) === open().length;
    // Twice: two may still be about to end each other.
    await until(async () => (await settled()) && !(await pause(200)) && settled(), "all others to end, and nobody else to be listed");
    // They may have ended each other; the next one recovers.
    const last = open()[0] ?? (await connect(url, user(1, "many"), { auth }));
    assert.deepStrictEqual([last.id, await sessions()], [id, 1]);
    await notify("many", 100 + round);
    await last.event("message:new", (m) => m.id === 100 + round);
    assert.deepStrictEqual(ids(last), [100 + round]);
    last.close();
    await until(async () => (await sessions()) === 0, "nobody to be there");
  }
  await other.stop();
});

test("a client that comes back while no server is there waits for one, and gives nothing up", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "fanfare-recovery-"));
  const server = await startServer(["--data-dir", folder]);
  const bridge = await startBridge(server, ["--connect-timeout", "2s"]);
  const publisher = new Producer(server.address);
  const publish = (id) => publisher.call(producer("patient"), "messenger.v1.Messenger/NotifyNewMessage", { event: { id, chatId: "7", content: "x", channel: "CHANNEL_WABA" } });
  const socket = await connect(bridge.url, user(1, "patient"), RECONNECT);
  await publish(1);
  await socket.event("message:new");
  socket.io.reconnection(false);
  socket.io.engine.close();
  await publish(2);
  await server.kill();
  socket.io.reconnection(true);
  let tries = 0;
  const tried = new Promise((resolve) => socket.io.on("reconnect_attempt", () => ++tries >= 3 && resolve()));
  const back = new Promise((resolve) => socket.once("connect", resolve));
  socket.connect();
  await within(tried, "some tries");
  const again = await startServer(["--data-dir", folder], server.address);
  await within(back, "the client to be back");
  await socket.event("message:new", (m) => m.id === 2);
  assert.deepStrictEqual([socket.recovered, ids(socket)], [true, [1, 2]]);
  socket.close();
  publisher.close();
  await bridge.stop();
  await again.stop();
});

test("a join that was acknowledged holds after everything was killed", async () => {
  const data = ["--data-dir", path.join(mkdtempSync(path.join(tmpdir(), "fanfare-join-")), "data")];
  const begin = async () => {
    const server = await startServer(data);
    return { server, bridge: await startBridge(server) };
  };
  let both = await begin();
  const socket = await connect(both.bridge.url, user(1, "joined"));
  for (let round = 1; round <= 12; round++) {
    const gone = new Promise((resolve) => socket.once("disconnect", resolve));
    await call(socket, "subscribe:chat", { chatId: round });
    await Promise.all([both.bridge.kill(), both.server.kill()]);
    await within(gone, "the disconnect");
    both = await begin();
    await comeBack(socket, both.bridge.url);
    assert.equal(socket.recovered, true);
    const producing = new Producer(both.server.address);
    await producing.call(producer("joined"), "messenger.v1.Messenger/NotifyNewMessage", {
      target: { rooms: [`chat:${round}`] }, event: { id: round, chatId: round, content: "x", channel: "CHANNEL_WABA" },
    });
    await socket.event("message:new", (m) => m.id === round);
    producing.close();
  }
  socket.close();
  await both.bridge.stop();
  await both.server.stop();
});

test("what is not one's own, not known or too old begins anew", async () => {
  const mine = await connect(url, user(1, "anew"));
  await notify("anew", 1);
  await mine.event("message:new");
  const [pid, offset, { id }] = [mine._pid, mine._lastOffset, mine];
  const fresh = async (token, auth) => {
    const socket = await connect(url, token, { auth: { token, ...auth } });
    assert.notEqual(socket.id, id);
    assert.notEqual(socket._pid, pid);
    assert.equal(socket.recovered, false);
    socket.close();
  };
  await fresh(user(2, "anew"), { pid, offset });
  await fresh(user(1, "other"), { pid, offset });
  await fresh(user(1, "anew"), { pid: "x".repeat(22), offset });
  await fresh(user(1, "anew"), { pid, offset: "nonsense" });
  await fresh(user(1, "anew"), { pid, offset: "0123456789ab-1" });
  assert.ok(mine.connected, "nobody was disturbed");
  // Beyond what the log keeps: never a part of what was missed. Redis and NATS trim a little later.
  if (ENGINE) return void mine.close();
  const lines = Array.from({ length: 2100 }, (_, i) => ({ rooms: ["org"], message: { id: i + 2, chatId: "7", content: "x", channel: "CHANNEL_WABA" } }));
  await python.send({ special: "burst", token: producer("anew"), events: lines });
  await fresh(user(1, "anew"), { pid, offset });
  mine.close();
});

test("a token is verified again, and a narrower one gets fewer rooms", async () => {
  const socket = await connect(url, user(1, "narrow"));
  await call(socket, "subscribe:chat", { chatId: 7 });
  await call(socket, "subscribe:chat", { chatId: 8 });
  const [id, auth] = [socket.id, { pid: socket._pid, offset: socket._lastOffset }];
  const refused = await connect(url, "x", { auth: { token: "x", ...auth } }).catch((error) => error);
  assert.equal(refused.message, "Authentication failed: Invalid token");
  const token = user(1, "narrow", { rooms: ["chat:8"] });
  const again = await connect(url, token, { auth: { token, ...auth } });
  assert.equal(again.id, id);
  await notify("narrow", 1, {}, { rooms: ["chat:7"] });
  await notify("narrow", 2, {}, { rooms: ["chat:8"] });
  await again.event("message:new");
  assert.deepStrictEqual(ids(again), [2]);
  again.close();
  socket.close();
});

test("under load nothing is missed, doubled or out of order, however often the connection breaks", async () => {
  const count = 1800;
  const other = await startBridge(fanfare.server);
  const sockets = await Promise.all([1, 2, 3, 4].map((id) => connect(url, user(id, "load"), RECONNECT)));
  const lines = Array.from({ length: count }, (_, i) => ({ rooms: ["org"], message: { id: String(i), chatId: "7", content: "x", channel: "CHANNEL_WABA" } }));
  let done = false;
  const publishing = (async () => {
    for (let at = 0; at < count; at += 100) await python.send({ special: "burst", token: producer("load"), events: lines.slice(at, at + 100) });
    done = true;
  })();
  for (let round = 0; !done; round++) {
    const socket = sockets[round % sockets.length];
    const seen = socket.events.length;
    await away(socket, async () => {}, round % 2 ? url : other.url);
    assert.equal(socket.recovered, true);
    await until(() => done || socket.events.length > seen, "something new");
  }
  await publishing;
  const all = Array.from({ length: count }, (_, i) => i);
  for (const socket of sockets) {
    await socket.event("message:new", (m) => m.id === count - 1);
    assert.deepStrictEqual(ids(socket), all);
    socket.close();
  }
  await other.stop();
});
