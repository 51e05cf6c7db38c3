// Stock clients of other makers and generations, unchanged from their registries: they connect, call and hear, come back from a cut
// and from a bridge that stops, and stay away when an administrator ends their session.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { QUIET, startBridge, startServer, until } from "./lib/fanfare.js";
import { CLIENTS, Foreign } from "./lib/foreign.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { Proxy } from "./lib/proxy.js";
import { producer, soon, token, user } from "./lib/tokens.js";

let server, python;

before(async () => {
  generateStubs();
  server = await startServer(QUIET);
  python = new Producer(server.address);
});

after(async () => {
  python?.close();
  await server?.stop();
});

const notice = (tenant, type) =>
  python.call(producer(tenant), "messenger.v1.Messenger/BroadcastToOrganization", { userNotification: { type, message: "" } });
const typing = (tenant) =>
  python.call(producer(tenant), "messenger.v1.Messenger/NotifyTypingStart", { event: { chatId: "7", userId: "5" } });
const sessions = async (tenant) => Number((await python.call(producer(tenant), "fanfare.v1.Realtime/GetPresence", {})).sessionCount ?? 0);
const disconnect = (tenant, request) =>
  python.call(token({ sub: "ops", tenant, scopes: ["admin"], exp: soon() }), "fanfare.v1.Realtime/Disconnect", request);

/** The types of the notices that a client has had, each once and in order. */
const notices = (client) => client.events("user:notification").map(([, { type }]) => type);

/** Something is done to the connection, and the client is back by itself; what is published meanwhile it has if it can recover. */
async function comesBack(client, kind, tenant, what, act) {
  const before = client.lines.findLast((line) => line.connected !== undefined);
  client.fresh();
  await act();
  await client.disconnected();
  await notice(tenant, `missed: ${what}`);
  const back = await client.connected();
  if (kind.recovers) {
    assert.deepStrictEqual([back.recovered, back.connected], [true, before.connected]);
    await client.event("user:notification", ({ type }) => type === `missed: ${what}`);
  } else {
    // A new session has to enter its rooms anew.
    assert.deepStrictEqual(await client.call("subscribe:chat", { chatId: 7 }), { chatId: 7 });
  }
  await typing(tenant);
  await client.event("typing:start");
  await notice(tenant, `back: ${what}`);
  await client.event("user:notification", ({ type }) => type === `back: ${what}`);
}

/** Cuts until the client has lost its session: one that polls may be between two requests, and have nothing to lose. */
async function cut(proxy, client) {
  let gone = false;
  client.disconnected().then(() => (gone = true), () => (gone = true));
  while (!gone) {
    proxy.cut();
    await until(() => gone, "", 2000).catch(() => {});
  }
}

/** What every client goes through. */
async function scenario(t, kind, tenant, transports) {
  let bridge = await startBridge(server);
  const proxy = await Proxy.to(bridge.address);
  const clients = [1, 2].map((userId) => new Foreign(kind, proxy.url, user(userId, tenant), transports));
  t.after(async () => {
    clients.forEach((client) => client.stop());
    proxy.close();
    await bridge.stop();
  });
  const [client, other] = clients;

  await client.connected();
  await other.connected();
  assert.deepStrictEqual(await client.call("subscribe:chat", { chatId: 7 }), { chatId: 7 });
  assert.equal((await client.call("subscribe:chat", { chatId: "x" })).error.code, "invalid_argument");
  await typing(tenant);
  assert.deepStrictEqual(await client.event("typing:start"), ["typing:start", { chatId: 7, userId: "5" }]);
  await notice(tenant, "größe 👋");
  const [, payload, cursor] = await client.event("user:notification");
  assert.deepStrictEqual(payload, { type: "größe 👋", message: "" });
  assert.match(cursor, /^[0-9a-f]{12}-\d+$/);

  await comesBack(client, kind, tenant, "cut", () => cut(proxy, client));
  await comesBack(client, kind, tenant, "SIGTERM", async () => {
    const next = await startBridge(server);
    proxy.target = next.address;
    await bridge.stop();
    bridge = next;
  });
  const had = notices(client);
  assert.equal(new Set(had).size, had.length, "none twice");

  client.fresh();
  await disconnect(tenant, { userId: "1" });
  assert.equal((await client.event("error"))[1].code, "disconnected");
  await client.disconnected();
  // One who was only cut comes back, again and again; meanwhile this one would have come back too.
  for (let round = 0; round < 3; round++) {
    await until(async () => (await sessions(tenant)) === 1, "the other one alone to be there");
    other.fresh();
    await cut(proxy, other);
    await other.connected();
  }
  assert.deepStrictEqual(client.lines.slice(client.lines.findLastIndex((line) => line.disconnected !== undefined) + 1), []);
}

/** A client at a bridge, both for this test only. */
async function alone(t, kind, token) {
  const bridge = await startBridge(server);
  const client = new Foreign(kind, bridge.url, token, ["websocket"]);
  t.after(async () => {
    client.stop();
    await bridge.stop();
  });
  return client;
}

let count = 0;
for (const [name, kind] of Object.entries(CLIENTS)) {
  for (const transports of [["websocket"], ["polling"], ["polling", "websocket"]]) {
    test(`${name} over ${transports.join(" → ")}`, { skip: kind.missing }, (t) => scenario(t, kind, `foreign-${count++}`, transports));
  }

  test(`${name} is told why it is refused`, { skip: kind.missing }, async (t) => {
    const client = await alone(t, kind, "x");
    const { refused } = await client.line((line) => line.refused !== undefined, "the refusal");
    assert.match(refused, /Invalid token|namespaces failed to connect/);
  });

  test(`${name} comes back when it is told to connect again`, { skip: kind.missing }, async (t) => {
    const tenant = `reconnect-${count++}`;
    const client = await alone(t, kind, user(1, tenant));
    await client.connected();
    client.fresh();
    await disconnect(tenant, { userId: "1", reconnect: true });
    await client.disconnected();
    await client.connected();
    assert.deepStrictEqual(await client.call("subscribe:chat", { chatId: 7 }), { chatId: 7 });
  });
}
