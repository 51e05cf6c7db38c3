// Namespaces: each one serves one catalog, and a connection may have several. Also `bytes` fields as Socket.IO attachments, in both
// directions. The catalogs in tests/catalogs-namespaces share the name of an event and of a call.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import path from "node:path";
import { Manager } from "socket.io-client";
import { call, connect, refusal } from "./lib/clients.js";
import { openEngine, TRANSPORTS } from "./lib/engine.js";
import { QUIET, ROOT, run, SECRET, start, until, within } from "./lib/fanfare.js";
import { poll, RawSocket } from "./lib/plain.js";
import { user } from "./lib/tokens.js";

const CATALOGS = path.join(ROOT, "tests/catalogs-namespaces");
const [PICTURE, THUMBNAIL] = [Buffer.from([1, 2, 3, 0xff, 0]), Buffer.from("tiny")];
let fanfare, url;

before(async () => {
  const serverArgs = [...QUIET, "--catalog", CATALOGS, "--default-catalogs", "messenger.v1,todo.v1,chat.v1,dialogs.v1,gallery.v1"];
  fanfare = await start({ serverArgs, bridgeArgs: ["--ping-interval", "120s", "--ping-timeout", "60s"] });
  url = fanfare.bridge.url;
});

after(() => fanfare?.stop());

/** Publishes an event. */
async function publish(tenant, type, payload, ...more) {
  const args = ["notify", type, JSON.stringify(payload), "--catalog", CATALOGS, "--server", fanfare.server.url, "--jwt-secret", SECRET, "--tenant", tenant, ...more];
  const { code, stderr } = await run(args);
  assert.equal(code, 0, stderr);
}

const shown = (tenant, more = {}) =>
  publish(tenant, "gallery.v1.Shown", { title: "Dawn", picture: PICTURE.toString("base64"), thumbnail: THUMBNAIL.toString("base64"), ...more });
/** The name and payload of an event packet. */
const event = (packet, namespace = "") => JSON.parse(packet.slice(packet.indexOf("[", 2 + namespace.length))).slice(0, 2);

/** The same test over both transports. */
function both(what, act) {
  for (const transport of TRANSPORTS) test(`${transport}: ${what}`, () => act(() => openEngine(url, transport), transport));
}

both("several namespaces share a connection, and each one has its own session", async (open) => {
  const engine = await open();
  const sessions = [];
  for (const name of ["/", "/gallery", "/stacks", "/messenger"]) sessions.push(await engine.connect(user(1, "several"), name));
  assert.equal(new Set(sessions.map(({ sid }) => sid)).size, 4);
  assert.equal(new Set(sessions.map(({ pid }) => pid)).size, 4);
  engine.close();
});

both("a namespace works without the main one", async (open) => {
  const engine = await open();
  await engine.connect(user(1, "alone"), "/stacks");
  assert.deepStrictEqual(await engine.call(1, "item:open", { shelf: 7 }, "/stacks"), { shelf: 7 });
  engine.close();
});

both("a catalog with a declared namespace has no namespace with the name of its package", async (open) => {
  const engine = await open();
  engine.send(`40/archive,${JSON.stringify({ token: user(1, "renamed") })}`);
  assert.equal(await engine.packet("44"), '44/archive,{"message":"Invalid namespace"}');
  engine.close();
});

both("a namespace refuses an invalid token without effect on others", async (open) => {
  const engine = await open();
  await engine.connect(user(1, "tokens"));
  engine.send('40/gallery,{"token":"x"}');
  assert.deepStrictEqual(JSON.parse((await engine.packet("44/gallery,")).slice(11)), {
    message: "Authentication failed: Invalid token", data: { code: "invalid_token" },
  });
  await engine.connect(user(2, "tokens"), "/gallery");
  assert.deepStrictEqual(await engine.call(1, "subscribe:chat", { chatId: 7 }), { chatId: 7 });
  engine.close();
});

both("a name that two catalogs share means the one of the namespace", async (open) => {
  const engine = await open();
  for (const name of ["/", "/gallery", "/stacks"]) await engine.connect(user(1, "names"), name);
  assert.deepStrictEqual(await engine.call(1, "item:open", { itemId: "a" }, "/gallery"), { itemId: "a" });
  assert.deepStrictEqual(await engine.call(1, "item:open", { shelf: 7 }, "/stacks"), { shelf: 7 });
  // The main namespace serves the gallery, which is a default catalog, but not the archive.
  assert.deepStrictEqual(await engine.call(1, "item:open", { itemId: "a" }), { itemId: "a" });
  assert.equal((await engine.call(2, "item:open", { shelf: 7 })).error.code, "invalid_argument");
  engine.close();
});

both("a namespace accepts only the calls of its catalog", async (open) => {
  const engine = await open();
  for (const name of ["/gallery", "/stacks"]) {
    await engine.connect(user(1, "calls"), name);
    assert.equal((await engine.call(1, "subscribe:chat", { chatId: 7 }, name)).error.code, "unknown_event");
  }
  assert.equal((await engine.call(2, "item:show", { title: "x" }, "/stacks")).error.code, "unknown_event");
  engine.close();
});

both("a namespace gets only the events of its catalog", async (open) => {
  const engine = await open();
  for (const name of ["/", "/gallery", "/stacks"]) await engine.connect(user(1, "events"), name);
  await publish("events", "archive.v1.Shown", { shelf: 7 });
  await publish("events", "gallery.v1.Sketched", { picture: "AQID" });
  await publish("events", "messenger.v1.UserNotification", { type: "x", message: "" }, "--room", "user:1");
  await publish("events", "archive.v1.Shown", { shelf: 8 });
  await publish("events", "gallery.v1.Sketched", { picture: "" });
  await engine.packet('42/stacks,["item:shown",{"shelf":8}');
  const last = (packet) => packet.includes('"item:sketched",{"picture":""}');
  await engine.packet((packet) => packet.startsWith("42/gallery,") && last(packet));
  await engine.packet((packet) => packet.startsWith("42[") && last(packet));
  const rest = engine.received.map((packet) => [packet.slice(0, packet.indexOf("[")), ...event(packet)]);
  assert.deepStrictEqual(rest.sort(), [
    ["42", "item:sketched", { picture: "AQID" }],
    ["42", "user:notification", { type: "x", message: "" }],
    ["42/gallery,", "item:sketched", { picture: "AQID" }],
    ["42/stacks,", "item:shown", { shelf: 7 }],
  ]);
  engine.close();
});

both("each namespace has its own rooms", async (open) => {
  const engine = await open();
  await engine.connect(user(1, "rooms"), "/stacks");
  await engine.connect(user(1, "rooms"), "/gallery");
  await engine.call(1, "item:open", { shelf: 7 }, "/stacks");
  await publish("rooms", "archive.v1.Shown", { shelf: 8 }, "--room", "shelf:8");
  await publish("rooms", "archive.v1.Shown", { shelf: 7 }, "--room", "shelf:7");
  assert.match(await engine.packet("42"), /^42\/stacks,\["item:shown",\{"shelf":7\}/);
  engine.close();
});

both("DISCONNECT of one namespace has no effect on others, and it can be connected again", async (open) => {
  const engine = await open();
  const [main, first] = [await engine.connect(user(1, "leave")), await engine.connect(user(1, "leave"), "/stacks")];
  for (const leaves of ["/stacks", "/"]) {
    const [place, stays] = leaves === "/" ? ["", "/stacks"] : ["/stacks,", "/"];
    engine.send(`41${place}`);
    const again = await engine.connect(user(1, "leave"), leaves);
    assert.ok(![main.sid, first.sid].includes(again.sid));
    const [name, payload] = stays === "/" ? ["subscribe:chat", { chatId: 7 }] : ["item:open", { shelf: 7 }];
    assert.deepStrictEqual(await engine.call(1, name, payload, stays), payload);
  }
  // A disconnected namespace gets no events.
  engine.send("41/stacks,");
  await publish("leave", "archive.v1.Shown", { shelf: 1 });
  await publish("leave", "gallery.v1.Sketched", { picture: "" });
  assert.match(await engine.packet("42"), /item:sketched/);
  engine.close();
});

both("an event for a disconnected namespace closes the connection", async (open) => {
  const engine = await open();
  await engine.connect(user(1, "left"));
  await engine.connect(user(1, "left"), "/stacks");
  engine.send("41/stacks,");
  engine.send('42/stacks,1["item:open",{"shelf":7}]');
  await within(engine.ended, "the close");
});

test("stock clients share one connection between namespaces", async () => {
  for (const transports of [["websocket"], ["polling"], ["polling", "websocket"]]) {
    const manager = new Manager(url, { transports, reconnection: false });
    const auth = { token: user(1, "manager") };
    const sockets = ["/", "/gallery", "/stacks"].map((name) => manager.socket(name, { auth }));
    await until(() => sockets.every((socket) => socket.connected), "all to be connected");
    assert.equal(new Set(sockets.map(({ id }) => id)).size, 3);
    assert.deepStrictEqual(await call(sockets[1], "item:open", { itemId: "a" }), { itemId: "a" });
    assert.deepStrictEqual(await call(sockets[2], "item:open", { shelf: 7 }), { shelf: 7 });
    sockets[2].disconnect();
    assert.deepStrictEqual(await call(sockets[0], "subscribe:chat", { chatId: 7 }), { chatId: 7 });
    const back = new Promise((resolve) => sockets[2].once("connect", resolve));
    sockets[2].connect();
    await within(back, "the namespace to reconnect");
    manager._close();
  }
});

test("a stock client gets the standard error for an unknown namespace", async () => {
  const error = await refusal(`${url}/nowhere`, { auth: { token: user(1, 1) } });
  assert.deepStrictEqual([error.message, error.data], ["Invalid namespace", undefined]);
});

test("a client recovers its namespace with the events that it missed there", async () => {
  const socket = await connect(`${url}/stacks`, user(1, "recover"), { reconnection: true, reconnectionDelay: 10 });
  await call(socket, "item:open", { shelf: 7 });
  const { id } = socket;
  socket.io.reconnection(false);
  const gone = new Promise((resolve) => socket.once("disconnect", resolve));
  socket.io.engine.close();
  await within(gone, "the disconnect");
  await publish("recover", "archive.v1.Shown", { shelf: 1 });
  await shown("recover");
  await publish("recover", "archive.v1.Shown", { shelf: 7 }, "--room", "shelf:7");
  const back = new Promise((resolve) => socket.once("connect", resolve));
  socket.connect();
  await within(back, "the client to reconnect");
  await socket.event("item:shown", ({ shelf }) => shelf === 7);
  assert.deepStrictEqual([socket.recovered, socket.id], [true, id]);
  assert.deepStrictEqual(socket.events, [["item:shown", { shelf: 1 }], ["item:shown", { shelf: 7 }]]);
  socket.close();
});

test("the recovery secret of one namespace does not work in another", async () => {
  const socket = await connect(`${url}/stacks`, user(1, "cross"));
  const auth = { token: user(1, "cross"), pid: socket._pid, offset: "0123456789ab-0" };
  const other = await connect(`${url}/gallery`, undefined, { auth });
  assert.notEqual(other.id, socket.id);
  assert.equal(socket.connected, true);
  socket.close();
  other.close();
});

both("a binary event carries its bytes as attachments, in order", async (open) => {
  const engine = await open();
  await engine.connect(user(1, "binary"));
  await engine.connect(user(1, "binary"), "/gallery");
  await shown("binary");
  for (const place of ["", "/gallery,"]) {
    const packet = await engine.packet((got) => String(got).startsWith(`452-${place}[`));
    const [name, payload, cursor] = JSON.parse(packet.slice(packet.indexOf("[")));
    const [picture, thumbnail] = [{ _placeholder: true, num: 0 }, { _placeholder: true, num: 1 }];
    assert.deepStrictEqual([name, payload], ["item:shown", { title: "Dawn", picture, thumbnail }]);
    assert.match(cursor, /^[0-9a-f]{12}-\d+(-[0-9a-f]{16})?$/);
    assert.deepStrictEqual([await engine.packet(Buffer.isBuffer), await engine.packet(Buffer.isBuffer)], [PICTURE, THUMBNAIL]);
  }
  engine.close();
});

test("stock clients get binary and other events in order", async () => {
  for (const transports of [["websocket"], ["polling"], ["polling", "websocket"]]) {
    const socket = await connect(`${url}/gallery`, user(1, "whole"), { transports });
    await shown("whole");
    await publish("whole", "gallery.v1.Sketched", { picture: "AQID" });
    await shown("whole", { title: "Dusk", picture: "", thumbnail: "" });
    await socket.event("item:shown", ({ title }) => title === "Dusk");
    assert.deepStrictEqual(socket.events, [
      ["item:shown", { title: "Dawn", picture: PICTURE, thumbnail: THUMBNAIL }],
      ["item:sketched", { picture: "AQID" }],
      ["item:shown", { title: "Dusk", picture: Buffer.alloc(0), thumbnail: Buffer.alloc(0) }],
    ]);
    socket.close();
  }
});

test("recovered events have their attachments", async () => {
  const socket = await connect(`${url}/gallery`, user(1, "missed"), { reconnection: true, reconnectionDelay: 10 });
  socket.io.reconnection(false);
  const gone = new Promise((resolve) => socket.once("disconnect", resolve));
  socket.io.engine.close();
  await within(gone, "the disconnect");
  await shown("missed");
  const back = new Promise((resolve) => socket.once("connect", resolve));
  socket.connect();
  await within(back, "the client to reconnect");
  assert.deepStrictEqual((await socket.event("item:shown"))[1], { title: "Dawn", picture: PICTURE, thumbnail: THUMBNAIL });
  assert.equal(socket.recovered, true);
  socket.close();
});

test("other transports get the same bytes as base64", async () => {
  const reader = user(1, "plain");
  const socket = new RawSocket(url, { token: reader });
  await socket.opened;
  socket.send({ type: "subscribe:chat", chatId: 99, ref: 99 });
  await socket.message("ack");
  const { cursor } = await poll(url, { token: reader });
  const polled = poll(url, { token: reader, after: cursor });
  await shown("plain");
  const wanted = { type: "item:shown", title: "Dawn", picture: PICTURE.toString("base64"), thumbnail: THUMBNAIL.toString("base64") };
  assert.deepStrictEqual(await socket.message("item:shown"), wanted);
  assert.deepStrictEqual((await polled).events, [wanted]);
  await socket.close();
});

both("a call and its acknowledgement carry bytes as attachments", async (open) => {
  const engine = await open();
  await engine.connect(user(1, "call"), "/gallery");
  engine.send('451-/gallery,7["item:frame",{"title":"x","picture":{"_placeholder":true,"num":0}}]', PICTURE);
  const reply = await engine.packet((got) => String(got).startsWith('451-/gallery,["item:framed"'));
  assert.deepStrictEqual(event(reply, "1-/gallery,")[1], { title: "x", picture: { _placeholder: true, num: 0 } });
  assert.deepStrictEqual(await engine.packet(Buffer.isBuffer), PICTURE);
  const answer = await engine.packet("461-/gallery,7[");
  assert.deepStrictEqual(JSON.parse(answer.slice(answer.indexOf("["))), [{ title: "x", picture: { _placeholder: true, num: 0 } }]);
  assert.deepStrictEqual(await engine.packet(Buffer.isBuffer), PICTURE);
  engine.close();
});

test("a stock client may send any kind of binary value, or base64", async () => {
  const [socket, other] = [await connect(`${url}/gallery`, user(1, "reach")), await connect(`${url}/gallery`, user(2, "reach"), { transports: ["polling"] })];
  const ways = [PICTURE, new Uint8Array(PICTURE), new Uint8Array(PICTURE).buffer, PICTURE.toString("base64")];
  for (const [i, picture] of ways.entries()) {
    assert.deepStrictEqual(await call(socket, "item:show", { title: String(i), picture }), { title: String(i) });
    const [, payload] = await other.event("item:shown", ({ title }) => title === String(i));
    assert.deepStrictEqual(payload.picture, PICTURE);
  }
  const { title, picture } = await call(socket, "item:frame", { title: "x", picture: PICTURE });
  assert.deepStrictEqual([title, Buffer.from(picture)], ["x", PICTURE]);
  socket.close();
  other.close();
});

test("bytes in a field of another type are refused, and the connection stays open", async () => {
  const socket = await connect(`${url}/gallery`, user(1, "wrong"));
  const { error } = await call(socket, "item:show", { title: PICTURE });
  assert.deepStrictEqual([error.code, error.path], ["invalid_argument", "title"]);
  assert.deepStrictEqual(await call(socket, "item:open", { itemId: "a" }), { itemId: "a" });
  socket.close();
});

/** Placeholders that do not match the attachments. Each call is refused, or its connection is closed. */
const MISFITS = {
  "no placeholder": ['451-/gallery,1["item:show",{"title":"x"}]', PICTURE],
  "a placeholder with a number that is too high": ['451-/gallery,1["item:show",{"picture":{"_placeholder":true,"num":1}}]', PICTURE],
  "a placeholder with a negative number": ['451-/gallery,1["item:show",{"picture":{"_placeholder":true,"num":-1}}]', PICTURE],
  "a placeholder without a number": ['451-/gallery,1["item:show",{"picture":{"_placeholder":true}}]', PICTURE],
  "a placeholder with text as its number": ['451-/gallery,1["item:show",{"picture":{"_placeholder":true,"num":"splice"}}]', PICTURE],
  "a placeholder in a packet without attachments": ['42/gallery,1["item:show",{"picture":{"_placeholder":true,"num":0}}]'],
};

for (const [what, packets] of Object.entries(MISFITS)) {
  test(`a binary call with ${what} has no effect`, async () => {
    const [engine, other] = [await openEngine(url, "websocket"), await openEngine(url, "websocket")];
    await engine.connect(user(1, "misfit"), "/gallery");
    await other.connect(user(2, "misfit"), "/gallery");
    engine.send(...packets);
    const refused = engine.acknowledgement(1, "/gallery").then(({ error }) => error.code, () => "closed");
    assert.match(await refused, /^(invalid_argument|closed)$/);
    await publish("misfit", "gallery.v1.Sketched", { picture: "" });
    assert.match(await other.packet("4"), /item:sketched/, "no event was published");
    engine.close();
    other.close();
  });
}

test("the number and the size of attachments are limited", async () => {
  for (const packets of [
    [`451000-/gallery,1["item:show",{"title":"x"}]`],
    ['451-/gallery,1["item:show",{"picture":{"_placeholder":true,"num":0}}]', Buffer.alloc(100_000)],
    ['453-/gallery,1["item:show",{"title":"x"}]', Buffer.alloc(40_000), Buffer.alloc(40_000), Buffer.alloc(40_000)],
  ]) {
    const engine = await openEngine(url, "websocket");
    await engine.connect(user(1, "bounds"), "/gallery");
    engine.send(...packets);
    const refused = engine.acknowledgement(1, "/gallery").then(({ error }) => error.code, () => "closed");
    assert.match(await refused, /^(too_large|invalid_argument|closed)$/);
    engine.close();
  }
});
