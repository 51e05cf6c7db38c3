// fanfare.v1.Admin, what bridges report, and the console: real processes, over gRPC and gRPC-Web.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request as httpRequest } from "node:http";
import { connect as connectTo } from "node:net";
import { admin, client, refused, Stream, web } from "./lib/admin.js";
import { call, connect, disconnected } from "./lib/clients.js";
import { ENGINE, get, Process, QUIET, SECRET, start, startServer, until, within } from "./lib/fanfare.js";
import { EventStream, RawSocket } from "./lib/plain.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, soon, token, user } from "./lib/tokens.js";

const { Admin, Realtime } = web;
let fanfare, url, python, all;

before(async () => {
  generateStubs();
  const serverArgs = [...QUIET, "--jwt-leeway", "0s", "--heartbeat-interval", "300ms"];
  fanfare = await start({ alone: true, serverArgs, bridgeArgs: ["--queue-bytes-max", "256MiB", "--cors-origin", "https://app.example"] });
  url = fanfare.bridge.url;
  python = new Producer(fanfare.server.address);
  all = client(Admin, fanfare.server.url, admin());
});

after(async () => {
  python?.close();
  await fanfare?.stop();
});

const message = (tenant, more = {}, target = {}, by = python) =>
  by.call(producer(), "messenger.v1.Messenger/NotifyNewMessage", {
    target: { tenant, ...target }, event: { id: 1, chatId: 7, channel: 1, content: "hello", ...more },
  });
const typing = (tenant, by = python) =>
  by.call(producer(), "fanfare.v1.Realtime/Notify", {
    target: { tenant }, event: { "@type": "type.googleapis.com/messenger.v1.TypingStart", chatId: 7, userId: "42" },
  });
const tail = (request, bearer = admin(), at = fanfare.server.url) => new Stream((options) => client(Admin, at, bearer).tail(request, options));
const isEvent = ({ kind }) => kind.case === "event";

test("the server says what it is, and which bridges are linked", async () => {
  const server = await until(async () => {
    const said = await all.getServer({});
    return said.bridges.length > 0 && said;
  }, "the bridge to say who it is");
  assert.deepStrictEqual([server.name, server.engine, server.development, server.grpcUrl], ["server", ENGINE ?? "memory", false, fanfare.server.url]);
  assert.match(server.version, /^\d+\.\d+\.\d+/);
  assert.ok(Math.abs(web.timestampDate(server.startedAt) - Date.now()) < 120_000);
  assert.deepStrictEqual(server.bridges.map((b) => [b.name, b.version, b.instance.length]), [["bridge", server.version, 32]]);
  assert.ok(server.bridges[0].linkedAt);
  const reflected = (bearer) => python.send({ special: "services_v1", token: bearer });
  assert.ok((await reflected(admin())).includes("fanfare.v1.Admin"));
  const open = await reflected();
  assert.deepStrictEqual(["Realtime", "Admin", "Edge"].map((name) => open.includes(`fanfare.v1.${name}`)), [true, false, false]);
  assert.equal(await python.send({ special: "health", service: "fanfare.v1.Admin" }), "SERVING");
});

test("tenants, rooms and sessions are listed, searched and bounded", async () => {
  const ada = await connect(url, user(1, "list", { username: "Ada Lovelace" }));
  const raw = new RawSocket(url, { token: user(2, "list", { username: "Grace" }) });
  const stream = await EventStream.open(url, { token: user(2, "list"), room: ["chat:7", "chat:70"] });
  await raw.opened;
  await call(ada, "subscribe:chat", { chatId: 7 });
  await message("list");
  await until(async () => (await all.listSessions({ tenant: "list" })).total === 3n, "three sessions");

  const { tenants, more } = await all.listTenants({});
  const { $typeName, ...own } = tenants.find((t) => t.tenant === "list");
  assert.deepStrictEqual(own, { tenant: "list", users: 2n, sessions: 3n, rooms: 5n, seq: 1n });
  assert.equal(more, false);
  assert.deepStrictEqual(tenants.map((t) => t.tenant), tenants.map((t) => t.tenant).sort());

  const rooms = async (request) => {
    const { rooms, total } = await all.listRooms({ tenant: "list", ...request });
    return [rooms.map((r) => `${r.room} ${r.users} ${r.sessions}`), Number(total)];
  };
  assert.deepStrictEqual(await rooms({}), [["chat:7 2 2", "chat:70 1 1", "org 2 3", "user:1 1 1", "user:2 1 2"], 5]);
  assert.deepStrictEqual(await rooms({ search: "chat:7", limit: 1 }), [["chat:7 2 2"], 2]);
  assert.deepStrictEqual(await rooms({ search: "nothing" }), [[], 0]);
  assert.deepStrictEqual(await rooms({ order: 1, limit: 3 }), [["org 2 3", "chat:7 2 2", "user:2 1 2"], 5], "those with the most sessions first");

  const sessions = async (request) => {
    const { sessions, total } = await all.listSessions({ tenant: "list", ...request });
    return [sessions.map((s) => [s.userId, s.userName]), Number(total)];
  };
  const first = ["1", "Ada Lovelace"];
  assert.deepStrictEqual(await sessions({ search: "Love" }), [[first], 1]);
  assert.deepStrictEqual(await sessions({ search: ada.id }), [[first], 1]);
  assert.deepStrictEqual(await sessions({ limit: 1 }), [[first], 3]);
  assert.equal((await sessions({ room: "chat:7" }))[1], 2);
  assert.equal((await sessions({ room: "chat:70", search: "Ada" }))[1], 0);
  const [{ session }] = (await all.listSessions({ tenant: "list", search: ada.id })).sessions;
  assert.deepStrictEqual([session.sessionId, session.bridge, session.rooms], [ada.id, "bridge", ["chat:7", "org", "user:1"]]);

  assert.deepStrictEqual(await refused(all.listSessions({ tenant: "list", limit: 1001 })), { code: "InvalidArgument", message: "limit is 1001: want 1 to 1000" });
  assert.equal((await refused(all.listRooms({ tenant: "list", search: "x".repeat(257) }))).code, "InvalidArgument");
  assert.equal((await refused(all.listRooms({}))).code, "InvalidArgument", "a token for all tenants must name one");
  ada.close();
  await raw.close();
  stream.close();
});

test("a session is inspected with its claims and its queue, and is gone once it is disconnected", async () => {
  const raw = new RawSocket(url, { token: user(5, "inspect", { username: "Eve", role: "tester" }) });
  await raw.opened;
  const { sessions } = await until(async () => {
    const found = await all.listSessions({ tenant: "inspect", search: "Eve" });
    return found.total === 1n && found;
  }, "the session");
  const sessionId = sessions[0].session.sessionId;
  const inspect = () => all.getSession({ tenant: "inspect", sessionId });
  raw.send({ type: "subscribe:chat", chatId: 7, ref: 1 });
  await raw.message("ack");
  await message("inspect");
  await raw.message("message:new");
  const found = await inspect();
  assert.equal(found.session.userId, "5");
  assert.deepStrictEqual(JSON.parse(found.claimsJson).role, "tester");
  const { queuedBytes, queueBytesMax, eventsDelivered, calls, expiresAt } = found.connection;
  assert.deepStrictEqual([queuedBytes, queueBytesMax, eventsDelivered, calls], [0n, 256n << 20n, 1n, 1n]);
  assert.equal(Number(expiresAt.seconds), JSON.parse(found.claimsJson).exp);
  assert.deepStrictEqual([found.connection.address, found.connection.carrier], ["127.0.0.1", ""]);

  // One that does not read: what is sent to it waits.
  raw.socket.pause();
  const content = "x".repeat(50_000);
  const events = Array.from({ length: 40 }, (_, id) => ({ message: { id, chatId: 7, channel: 1, content }, rooms: ["user:5"] }));
  await until(async () => {
    await python.send({ token: producer("inspect"), special: "burst", events });
    return (await inspect()).connection.queuedBytes > 0n;
  }, "events that wait");
  raw.socket.resume();
  await until(async () => (await inspect()).connection.queuedBytes === 0n, "the queue to be empty");

  assert.equal((await client(Realtime, url, admin("inspect")).disconnect({ whom: { case: "sessionId", value: sessionId } })).sessions, 1);
  await raw.closed;
  await until(async () => (await all.listSessions({ tenant: "inspect" })).total === 0n, "no session");
  assert.deepStrictEqual(await refused(inspect()), { code: "NotFound", message: `no session "${sessionId}" is connected` });
  assert.equal((await refused(all.getSession({ tenant: "elsewhere", sessionId }))).code, "NotFound");
});

test("a Socket.IO session is inspected too, and not when its bridge does not answer", async () => {
  const ada = await connect(url, user(1, "silent"));
  await message("silent", {}, { rooms: ["org"] });
  await ada.event("message:new");
  const inspect = () => all.getSession({ tenant: "silent", sessionId: ada.id });
  const { connection } = await inspect();
  assert.deepStrictEqual([connection.queuedBytes, connection.queueBytesMax, connection.eventsDelivered], [0n, 256n << 20n, 1n]);
  fanfare.bridge.child.kill("SIGSTOP");
  try {
    // Its threads may run on for a moment.
    const { session, claimsJson } = await until(async () => {
      const found = await inspect();
      return !found.connection && found;
    }, "the bridge to stop");
    assert.deepStrictEqual([session.userId, claimsJson], ["1", ""]);
  } finally {
    fanfare.bridge.child.kill("SIGCONT");
  }
  // It may have to link again first.
  await until(async () => (await inspect().catch(() => null))?.connection, "the bridge to answer again");
  ada.close();
});

test("what happens is counted exactly", async () => {
  const own = await start({ alone: true, serverArgs: QUIET });
  const producing = new Producer(own.server.address);
  const admins = client(Admin, own.server.url, admin());
  const send = (more, target) => message("count", more, target, producing);
  const watch = new Stream((options) => admins.watchStats({ intervalMillis: 250 }, options));
  const ofBridge = (stats) => stats.bridges[0];
  const [one, two] = [await connect(own.bridge.url, user(1, "count")), await connect(own.bridge.url, user(2, "count"))];
  const raw = new RawSocket(own.bridge.url, { token: user(2, "count") });
  await raw.opened;
  const sessions = (stats) => (ofBridge(stats)?.sessions ?? []).reduce((sum, s) => sum + Number(s.count), 0);
  await watch.next((stats) => sessions(stats) === 3, "three sessions");
  const subscription = new Stream((options) => client(Realtime, own.server.url, producer("count")).subscribe({ rooms: ["org"] }, options));
  await subscription.next();

  for (let id = 0; id < 5; id++) await send({ id }, { rooms: ["org"] });
  for (let id = 0; id < 3; id++) await send({ id }, { rooms: ["user:2"] });
  await send({}, { rooms: ["org"], exceptSessions: [one.id] });
  await typing("count", producing);
  await send({}, { rooms: ["user:9"], idempotencyKey: "once" });
  await send({}, { rooms: ["user:9"], idempotencyKey: "once" });
  assert.equal((await send({ channel: 0 }).catch((e) => e)).code, "INVALID_ARGUMENT");
  assert.equal((await call(one, "nonsense", {})).error.code, "unknown_event");

  const counted = await watch.next(
    (stats) => ofBridge(stats)?.deliveries === 5n * 3n + 3n * 2n + 2n && ofBridge(stats).sessions.length === 2
      && stats.calls === 1n && stats.subscriptionEvents === 6n,
    "all deliveries",
  );
  const names = ["eventsStored", "eventsEphemeral", "eventsRefused", "eventsDuplicate", "tenants", "users", "sessions", "subscriptions"];
  assert.deepStrictEqual(Object.fromEntries(names.map((name) => [name, Number(counted[name])])), {
    eventsStored: 10, eventsEphemeral: 1, eventsRefused: 1, eventsDuplicate: 1, tenants: 1, users: 2, sessions: 3, subscriptions: 1,
  });
  assert.equal(ofBridge(counted).events, 9n, "the bridge asks for its sessions' rooms only");
  assert.deepStrictEqual(ofBridge(counted).sessions.map((s) => [s.transport, Number(s.count)]), [[1, 2], [2, 1]]);

  // Each reader's latencies are of its own interval.
  await subscription.close();
  const other = new Stream((options) => admins.watchStats({ intervalMillis: 60_000 }, options));
  assert.equal((await other.next()).append.count, 0n);
  await send();
  const latencies = { append: null, delivery: null };
  const last = await watch.next((stats) => {
    if (stats.append.count === 1n) latencies.append = stats.append;
    if (ofBridge(stats).delivery.count === 1n) latencies.delivery = ofBridge(stats).delivery;
    return latencies.append && latencies.delivery && stats.subscriptions === 0n;
  }, "the latencies, and the subscription to be over");
  for (const { p50Micros, p99Micros, maxMicros } of Object.values(latencies)) {
    assert.ok(p50Micros > 0n && p50Micros <= p99Micros && p99Micros <= maxMicros && maxMicros < 5_000_000n);
  }
  assert.equal(last.eventsStored, 11n);
  for (const interval of [249, 60_001]) {
    assert.equal((await new Stream((options) => admins.watchStats({ intervalMillis: interval }, options)).end()).code, "InvalidArgument");
  }
  await Promise.all([watch.close(), other.close()]);
  one.close();
  two.close();
  await raw.close();
  producing.close();
  await own.stop();
});

test("a session that does not read fast enough is counted", async () => {
  const small = await start({ alone: true, serverArgs: QUIET, bridgeArgs: ["--queue-bytes-max", "64KiB"] });
  const producing = new Producer(small.server.address);
  const raw = new RawSocket(small.bridge.url, { token: user(1, "slow") });
  await raw.opened;
  raw.socket.pause();
  const stats = new Stream((options) => client(Admin, small.server.url, admin()).watchStats({}, options));
  const content = "x".repeat(50_000);
  const events = Array.from({ length: 40 }, (_, id) => ({ message: { id, chatId: 7, channel: 1, content }, rooms: ["org"] }));
  await until(async () => {
    await producing.send({ token: producer("slow"), special: "burst", events });
    return (await stats.next()).bridges[0]?.overflows === 1n;
  }, "the overflow");
  await stats.close();
  raw.socket.terminate();
  producing.close();
  await small.stop();
});

test("events are tailed as they are published, stored and ephemeral, with the JSON that browsers get", async () => {
  const everything = tail({});
  const one = tail({ tenant: "tail" }, admin("tail"));
  const filtered = tail({ tenant: "tail", rooms: ["chat:8", "org"], names: ["message:new", "messenger.v1.TypingStart"] });
  // The first message says that it reads along.
  for (const stream of [everything, one, filtered]) assert.equal((await stream.next()).kind.case, "heartbeat");
  const first = await message("tail", { id: 1, chatId: 7 }, { rooms: ["chat:7"] });
  await typing("tail");
  await message("other", { id: 2 });
  await message("tail", { id: 3, chatId: 8 }, { rooms: ["chat:8", "user:1"] });
  await typing("tail");

  const seen = async (stream, count) => {
    const events = [];
    while (events.length < count) events.push((await stream.next(isEvent)).kind.value);
    return events;
  };
  const shown = (events) => events.map((e) => `${e.event.tenant} ${e.event.seq} ${e.name} ${JSON.parse(e.json).id ?? "-"}`);
  const ofTail = ["tail 1 message:new 1", "tail 0 typing:start -", "tail 2 message:new 3", "tail 0 typing:start -"];
  const events = await seen(one, 4);
  assert.deepStrictEqual(shown(events), ofTail);
  // The order is that of each tenant's log.
  const ofAll = shown(await seen(everything, 5));
  assert.deepStrictEqual([ofAll.filter((line) => line.startsWith("tail ")), ofAll.filter((line) => line.startsWith("other "))], [ofTail, ["other 1 message:new 2"]]);
  assert.deepStrictEqual(shown(await seen(filtered, 1)), [ofTail[2]]);
  const { event, json } = events[0];
  assert.deepStrictEqual([event.id, event.rooms, event.sender, event.payload.typeUrl], [first.id, ["chat:7"], "producer", "type.googleapis.com/messenger.v1.NewMessage"]);
  assert.equal(JSON.parse(json).content, "hello");
  assert.ok(event.time && event.payload.value.length > 0);

  // The probe of /readyz is nobody's event, and nobody's tenant.
  assert.equal((await get(`${fanfare.server.url}/readyz`)).status, 200);
  await message("tail", { id: 4 });
  assert.deepStrictEqual(shown(await seen(everything, 1)), ["tail 3 message:new 4"]);
  assert.ok((await all.listTenants({})).tenants.every((t) => !t.tenant.startsWith("probe-")));

  // Silence is told.
  assert.equal((await one.next((m) => !isEvent(m))).kind.case, "heartbeat");
  assert.equal((await tail({ rooms: Array(65).fill("org") }).end()).code, "InvalidArgument");
  assert.equal((await tail({ rooms: ["Not a room"] }).end()).code, "InvalidArgument");
  for (const stream of [everything, one, filtered]) await stream.close();
});

test("a reader along that is too slow is told what it missed, and nobody waits for it", async () => {
  const stalled = tail({ tenant: "stall" });
  await stalled.next();
  const COUNT = 1500;
  const content = "x".repeat(20_000);
  let published = 0;
  while (published < COUNT) {
    const events = Array.from({ length: 250 }, (_, id) => ({ message: { id, chatId: 7, channel: 1, content }, rooms: ["org"] }));
    published += (await python.send({ token: producer("stall"), special: "burst", events })).length;
  }
  // Now it reads: what it gets and what it missed is everything, in order.
  let [seq, got, missed] = [0n, 0, 0n];
  while (seq < COUNT) {
    const { kind } = await stalled.next((m) => m.kind.case !== "heartbeat", "what is left");
    if (kind.case === "missed") {
      missed += kind.value;
      seq += kind.value;
    } else {
      got++;
      assert.equal(kind.value.event.seq, ++seq);
    }
  }
  assert.ok(missed > 0n && got > 0, `got ${got}, missed ${missed}`);
  // It goes on.
  await message("stall", { content: "after" });
  assert.equal(JSON.parse((await stalled.next(isEvent)).kind.value.json).content, "after");
  await stalled.close();
});

test("a session says where its client is, what it is and what carries it", async () => {
  for (const transports of [["websocket"], ["polling"]]) {
    const tenant = `where-${transports[0]}`;
    const socket = await connect(url, user(1, tenant), { transports, extraHeaders: { "user-agent": `tests/${transports[0]} ${"x".repeat(300)}` } });
    await until(async () => (await all.listSessions({ tenant })).total === 1n, "the session");
    const { connection } = await all.getSession({ tenant, sessionId: socket.id });
    assert.deepStrictEqual([connection.address, connection.carrier], ["127.0.0.1", transports[0]]);
    assert.match(connection.userAgent, new RegExp(`^tests/${transports[0]} x+$`));
    assert.equal(connection.userAgent.length, 256, "it is bounded");
    socket.close();
  }
});

test("stored events are listed from the newest to the oldest, a part at a time", async () => {
  for (let id = 1; id <= 7; id++) await message("stored", { id, chatId: id }, { rooms: [id % 2 ? "org" : `chat:${id}`] });
  const list = async (request, bearer = admin("stored")) => {
    const { events, next } = await client(Admin, fanfare.server.url, bearer).listEvents(request);
    return [events.map((one) => `${one.event.seq} ${one.name} ${JSON.parse(one.json).id}`), Number(next)];
  };
  const line = (id) => `${id} message:new ${id}`;
  assert.deepStrictEqual(await list({ limit: 3 }), [[7, 6, 5].map(line), 4]);
  assert.deepStrictEqual(await list({ limit: 3, until: 4n }), [[4, 3, 2].map(line), 1]);
  assert.deepStrictEqual(await list({ limit: 3, until: 1n }), [[1].map(line), 0]);
  assert.deepStrictEqual(await list({ rooms: ["chat:2", "chat:6"], names: ["messenger.v1.NewMessage"] }), [[6, 2].map(line), 0]);
  assert.deepStrictEqual(await list({ tenant: "stored" }, admin()), [[7, 6, 5, 4, 3, 2, 1].map(line), 0]);
  assert.deepStrictEqual(await list({ names: ["message:none"] }), [[], 0]);
  assert.match((await refused(all.listEvents({ tenant: "stored", limit: 201 }))).message, /limit is 201: want 1 to 200/);
  assert.equal((await refused(client(Admin, fanfare.server.url, admin("other")).listEvents({ tenant: "stored" }))).code, "PermissionDenied");
});

test("refusals are counted by reason with what was told, and events by type", async () => {
  const stats = new Stream((options) => all.watchStats({ intervalMillis: 250 }, options));
  const before = await stats.next();
  const count = (of, reason) => Number(of.refusals.find((one) => one.reason === reason)?.count ?? 0);
  await assert.rejects(message("refusals", {}, { rooms: ["Not a room"] }));
  await message("refusals");
  await assert.rejects(connect(url, "no token at all"));
  const INVALID_TOKEN = 2002;
  const connections = (of) => of.bridges.reduce((sum, bridge) => sum + count(bridge, INVALID_TOKEN), 0);
  await stats.next((of) => connections(of) > connections(before), "the refused connection");
  const INVALID = 2005;
  const now = await stats.next((of) => count(of, INVALID) > count(before, INVALID), "the refusal");
  const refusal = now.refusals.find((one) => one.reason === INVALID);
  assert.match(refusal.lastMessage, /Not a room/);
  assert.ok(Math.abs(web.timestampDate(refusal.lastAt) - Date.now()) < 60_000);
  const counted = (of) => Number(of.events.find((one) => one.type === "messenger.v1.NewMessage" && one.name === "message:new")?.count ?? 0);
  await stats.next((of) => counted(of) > counted(before), "the event");
  await stats.close();
});

test("so many may read along and no more, until one leaves", async () => {
  const readers = [];
  try {
    let refusal;
    // Those of other tests may not all be seen to be gone.
    while (!refusal && readers.length <= 64) {
      const reader = tail({ tenant: "many" });
      const first = await reader.next().catch((error) => void (refusal = error));
      if (first) readers.push(reader);
    }
    assert.match(String(refusal), /resource_exhausted/);
    assert.ok(readers.length > 50 && readers.length <= 64, String(readers.length));
  } finally {
    for (const reader of readers) await reader.close();
  }
  const late = await until(async () => {
    const reader = tail({ tenant: "many" });
    return (await reader.next().catch(() => null)) && reader;
  }, "a place");
  await late.close();
});

test("catalogs are listed with everything that documents them", async () => {
  const { descriptors, catalogs } = await client(Admin, fanfare.server.url, admin("list")).listCatalogs({});
  const set = web.fromBinary(web.FileDescriptorSetSchema, descriptors);
  assert.ok(web.createFileRegistry(set).getMessage("messenger.v1.NewMessage"));
  const file = set.file.find((f) => f.name === "messenger/v1/messenger.proto");
  assert.ok(file.sourceCodeInfo.location.some((l) => /The operator stopped typing/.test(l.leadingComments)), "comments survive");
  assert.deepStrictEqual(catalogs.map((c) => c.package), ["chat.v1", "dialogs.v1", "messenger.v1", "todo.v1"]);
  const messenger = catalogs[2];
  assert.match(messenger.typescript, /message:new/);
  const names = messenger.events.map((e) => e.name);
  assert.deepStrictEqual(names, [...names].sort());
  const event = messenger.events.find((e) => e.type === "messenger.v1.NewMessage");
  assert.equal(event.name, "message:new");
  const schema = JSON.parse(event.jsonSchema);
  assert.equal(schema.$schema, "https://json-schema.org/draft/2020-12/schema");
});

test("only who administers may, and only in the own tenant", async () => {
  const METHODS = [
    ["getServer", {}], ["listTenants", {}], ["listRooms", { tenant: "list" }], ["listSessions", { tenant: "list" }],
    ["getSession", { tenant: "list", sessionId: "x" }], ["listCatalogs", {}], ["signToken", { userId: "1" }], ["watchStats", {}], ["tail", {}],
  ];
  const attempt = (bearer, method, request) => {
    const open = (options) => client(Admin, fanfare.server.url, bearer)[method](request, options);
    return method === "watchStats" || method === "tail" ? new Stream(open).end() : refused(open());
  };
  for (const [method, request] of METHODS) {
    const code = async (bearer) => (await attempt(bearer, method, request)).code;
    assert.equal(await code(""), "Unauthenticated", method);
    assert.equal(await code(token({ sub: "ops", tenant: "*", scopes: ["admin"], exp: soon(-60) })), "Unauthenticated", method);
    assert.equal(await code(user(1, "list")), "PermissionDenied", method);
    assert.equal(await code(producer()), "PermissionDenied", method);
    assert.equal(await code(token({ sub: "b", tenant: "*", scopes: ["bridge"], exp: soon() })), "PermissionDenied", method);
    if (request.tenant) assert.equal(await code(admin("elsewhere")), "PermissionDenied", method);
  }
  assert.equal((await attempt(admin("list"), "watchStats", {})).code, "PermissionDenied", "stats are of all tenants");
  assert.equal((await attempt(admin("elsewhere"), "tail", { tenant: "list" })).code, "PermissionDenied");
  const own = await client(Admin, fanfare.server.url, admin("list")).listTenants({});
  assert.deepStrictEqual(own.tenants.map((t) => t.tenant), ["list"]);
  assert.deepStrictEqual(await refused(all.signToken({ userId: "1" })), {
    code: "FailedPrecondition", message: "this server signs no tokens: only `fanfare dev` does, with the public development key",
  });
});

test("streams end with their token and with the server", async () => {
  const short = admin("*", { exp: soon(5) });
  const streams = [tail({}, short), new Stream((options) => client(Admin, fanfare.server.url, short).watchStats({}, options))];
  for (const stream of streams) await stream.next();
  for (const stream of streams) assert.deepStrictEqual(await stream.end(), { code: "Unauthenticated", message: "Authentication failed: Token expired" });
  const other = await startServer();
  const last = tail({}, admin(), other.url);
  await last.next();
  const [end] = await Promise.all([last.end(), other.stop()]);
  assert.deepStrictEqual(end, { code: "Unavailable", message: "the server is shutting down" });
});

/** A request whose headers are exactly these. */
const ask = (address, path, { method = "GET", ...headers } = {}) =>
  within(new Promise((resolve, reject) => {
    const [host, port] = address.split(":");
    const request = httpRequest({ host, port, path, method, headers, agent: false }, (response) => {
      let body = "";
      response.on("data", (data) => (body += data)).on("end", () => resolve({ status: response.statusCode, headers: response.headers, body }));
    });
    request.on("error", reject).end();
  }), `the answer to ${path}`);

test("the console is served with a strict policy, tags and compression", async () => {
  const page = await get(`${url}/`);
  assert.equal(page.status, 200);
  assert.equal(page.headers.get("content-type"), "text/html; charset=utf-8");
  assert.match(page.headers.get("content-security-policy"), /^default-src 'self'; connect-src 'self' ws: wss:;.* frame-ancestors 'none'/);
  assert.equal(page.headers.get("x-content-type-options"), "nosniff");
  assert.equal(page.headers.get("cache-control"), "no-cache");
  const html = await page.text();
  assert.ok(!html.includes("eyJ"), "no token in the page");
  const assets = [...html.matchAll(/(?:src|href)="\.?\/?(assets\/[^"]+)"/g)].map((m) => m[1]);
  assert.ok(assets.length > 0);
  for (const asset of assets) {
    const plain = await ask(fanfare.bridge.address, `/${asset}`);
    assert.deepStrictEqual([plain.status, plain.headers["content-encoding"], plain.headers["cache-control"]], [200, undefined, "public, max-age=31536000, immutable"]);
    const etag = plain.headers.etag;
    assert.deepStrictEqual([(await ask(fanfare.bridge.address, `/${asset}`, { "if-none-match": `"x", W/${etag}` })).status], [304]);
    const response = await get(`${url}/${asset}`, { headers: { "accept-encoding": "br, gzip;q=0.5" } });
    assert.equal(await response.text(), plain.body);
    if (plain.body.length > 1024) {
      assert.deepStrictEqual([response.headers.get("content-encoding"), response.headers.get("etag") === etag], ["gzip", false]);
      const none = await ask(fanfare.bridge.address, `/${asset}`, { "accept-encoding": "gzip;q=0" });
      assert.equal(none.headers["content-encoding"], undefined);
    }
  }
  assert.deepStrictEqual(await (await get(`${url}/console/config.json`)).json(), { development: false, socketioPath: "/socket.io/" });
  for (const [path, method, status] of [["/", "POST", 405], ["/", "HEAD", 200], ["/nothing", "GET", 404], ["/assets/../Cargo.toml", "GET", 404], ["/healthz", "GET", 200]]) {
    assert.equal((await ask(fanfare.bridge.address, path, { method })).status, status, `${method} ${path}`);
  }
});

test("what the console calls goes through the bridge, streams unbuffered", async () => {
  const through = client(Admin, url, admin());
  assert.equal((await through.getServer({})).grpcUrl, fanfare.server.url);
  assert.equal((await refused(client(Admin, url, "").getServer({}))).code, "Unauthenticated", "nothing is added to what the caller says");
  assert.equal((await refused(client(Admin, url, user(1, "a")).getServer({}))).code, "PermissionDenied");
  const along = tail({ tenant: "through" }, admin(), url);
  await along.next();
  const event = web.anyPack(web.NewMessageSchema, web.create(web.NewMessageSchema, { id: 1, chatId: 7, channel: 1, content: "by the page" }));
  const sent = await client(Realtime, url, producer()).notify({ target: { tenant: "through" }, event });
  assert.equal((await along.next(isEvent)).kind.value.event.id, sent.id);
  await along.close();

  // Other origins are told nothing, other services are not reached, and what is no gRPC-Web is refused.
  const path = "/fanfare.v1.Admin/GetServer";
  const foreign = await ask(fanfare.bridge.address, path, { method: "POST", "content-type": "application/grpc-web+proto", origin: "https://evil.example" });
  assert.deepStrictEqual(Object.keys(foreign.headers).filter((name) => name.startsWith("access-control-")), []);
  assert.equal((await ask(fanfare.bridge.address, path)).status, 400);
  assert.equal((await ask(fanfare.bridge.address, "/fanfare.v1.Edge/Call", { method: "POST", "content-type": "application/grpc-web+proto" })).status, 404);
});

test("whoever has no token of a service takes no place of those who have", async () => {
  const [host, port] = fanfare.bridge.address.split(":");
  const head = `POST /fanfare.v1.Realtime/Notify HTTP/1.1\r\nhost: ${fanfare.bridge.address}\r\ncontent-type: application/grpc-web+proto\r\ncontent-length: 100000\r\n\r\nab`;
  const stalled = await Promise.all(
    Array.from({ length: 300 }, async () => {
      const socket = connectTo(Number(port), host);
      await once(socket, "connect");
      socket.write(head);
      return socket;
    }),
  );
  try {
    assert.ok((await client(Admin, url, admin()).getServer({})).name);
  } finally {
    stalled.forEach((socket) => socket.destroy());
  }
});

test("so many calls pass through a bridge at once and no more", async () => {
  const through = client(Admin, url, admin());
  const streams = [];
  try {
    let refusal;
    // Those of other tests may not all be seen to be gone.
    while (!refusal && streams.length <= 256) {
      const stream = new Stream((options) => through.watchStats({ intervalMillis: 60_000 }, options));
      const first = await stream.next().catch((error) => void (refusal = error));
      if (first) streams.push(stream);
    }
    assert.match(String(refusal), /resource_exhausted.*too many calls pass through this bridge at once/);
    assert.ok(streams.length > 240 && streams.length <= 256, String(streams.length));
    assert.ok((await all.getServer({})).name, "the server itself has no such bound");
  } finally {
    await Promise.all(streams.map((stream) => stream.close()));
  }
  await until(async () => !(await refused(through.getServer({}))), "a place");
});

test("without a server the console is told so, and where it is turned off nothing is served", async () => {
  const gone = createServer();
  await new Promise((resolve) => gone.listen(0, "127.0.0.1", resolve));
  const port = gone.address().port;
  await new Promise((resolve) => gone.close(resolve));
  const bridge = (args, env = {}) =>
    new Process(["bridge", "--http-listen", "127.0.0.1:0", "--server", `http://127.0.0.1:${port}`, "--jwt-secret", SECRET, ...args], { env });
  const lonely = bridge([]);
  const at = `http://${(await lonely.log("bridge listening")).address}`;
  assert.equal((await get(`${at}/`)).status, 200);
  assert.deepStrictEqual(await refused(client(Admin, at, admin()).getServer({})), { code: "Unavailable", message: "no server can be reached" });
  await lonely.stop();
  for (const off of [bridge(["--console=false"]), bridge([], { FANFARE_CONSOLE: "false" })]) {
    const { address } = await off.log("bridge listening");
    for (const path of ["/", "/console/config.json", "/fanfare.v1.Admin/GetServer"]) assert.equal((await ask(address, path)).status, 404, path);
    await off.stop();
  }
});

test("fanfare dev lets this machine into the console, and signs tokens to try things out", async () => {
  const dev = new Process(["dev", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
  const { address } = await dev.log("bridge listening");
  await until(() => dev.stdout.includes("Ctrl-C"), "the banner");
  assert.ok(dev.stdout.startsWith(`open http://${address}/\n`), dev.stdout.slice(0, 200));
  const port = address.split(":")[1];
  const config = (headers) => ask(address, "/console/config.json", headers);
  for (const host of [address, `localhost:${port}`, `[::1]:${port}`, `127.1.2.3:${port}`]) {
    const { status, body, headers } = await config({ host });
    assert.deepStrictEqual([status, JSON.parse(body).development, headers["cache-control"], headers["access-control-allow-origin"]], [200, true, "no-store", undefined], host);
  }
  for (const headers of [{ host: "evil.example" }, { host: `localhost.evil.example:${port}` }, { host: `10.0.0.1:${port}` }, { host: address, "sec-fetch-site": "cross-site" }]) {
    const { status, body } = await config(headers);
    assert.deepStrictEqual([status, JSON.parse(body).code, body.includes("eyJ")], [403, "forbidden", false], JSON.stringify(headers));
  }
  const { token: given } = JSON.parse((await config({ host: address })).body);
  const claims = JSON.parse(Buffer.from(given.split(".")[1], "base64url"));
  assert.ok(claims.exp > soon(60) && claims.exp <= soon(900), "short-lived");
  const at = client(Admin, `http://${address}`, given);
  assert.equal((await at.getServer({})).development, true);

  const signed = await at.signToken({ userId: "7", userName: "Ada", ttlSeconds: 60 });
  assert.ok(Math.abs(Number(signed.expiresAt.seconds) - soon(60)) <= 2);
  const ada = await connect(`http://${address}`, signed.token);
  const { sessions } = await until(async () => {
    const found = await at.listSessions({ tenant: "default" });
    return found.total === 1n && found;
  }, "the session in the default tenant");
  assert.deepStrictEqual([sessions[0].userId, sessions[0].userName], ["7", "Ada"]);
  ada.close();
  const service = await at.signToken({ tenant: "1", userId: "billing", scopes: ["notify", "admin"] });
  const narrow = client(Admin, `http://${address}`, service.token);
  assert.equal((await narrow.getServer({})).development, true);
  assert.ok((await at.signToken({ tenant: "*", scopes: ["subscribe"] })).token);
  const wrong = async (who, request) => (await refused(who.signToken(request)))?.code;
  assert.equal(await wrong(at, { userId: "7", scopes: ["bridge"] }), "InvalidArgument");
  assert.equal(await wrong(at, {}), "InvalidArgument");
  assert.equal(await wrong(at, { userId: "7", tenant: "*" }), "InvalidArgument", "users have one tenant");
  assert.equal(await wrong(at, { userId: "7", ttlSeconds: 86_401 }), "InvalidArgument");
  assert.equal(await wrong(at, { userId: "7", userName: "x".repeat(257) }), "InvalidArgument");
  assert.equal(await wrong(narrow, { userId: "7", tenant: "2" }), "PermissionDenied", "nobody signs beyond the own tenant");
  assert.equal(await wrong(narrow, { tenant: "*", scopes: ["admin"] }), "PermissionDenied");
  await dev.stop();

  const own = new Process(["dev", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--jwt-secret", SECRET]);
  const ownAddress = (await own.log("bridge listening")).address;
  assert.equal(JSON.parse((await ask(ownAddress, "/console/config.json")).body).development, false);
  assert.equal((await refused(client(Admin, `http://${ownAddress}`, admin()).signToken({ userId: "7" }))).code, "FailedPrecondition");
  await own.stop();
});
