// Stock clients in several languages and versions: they connect, call and get events. They reconnect after a cut and after a bridge
// has stopped, and stay disconnected after an administrator has ended their session.

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

/** The types of all notices that a client has got. */
const notices = (client) => client.events("user:notification").map(([, { type }]) => type);

/** After `act` the client disconnects and reconnects by itself. If it can recover, it gets the events that it missed. */
async function reconnects(client, kind, tenant, what, act) {
  const before = client.lines.findLast((line) => line.connected !== undefined);
  client.fresh();
  await act();
  await client.disconnected();
  await notice(tenant, `during ${what}`);
  const back = await client.connected();
  if (kind.recovers) {
    assert.deepStrictEqual([back.recovered, back.connected], [true, before.connected]);
    await client.event("user:notification", ({ type }) => type === `during ${what}`);
  } else {
    // A new session has to join its rooms again.
    assert.deepStrictEqual(await client.call("subscribe:chat", { chatId: 7 }), { chatId: 7 });
  }
  await typing(tenant);
  await client.event("typing:start");
  await notice(tenant, `after ${what}`);
  await client.event("user:notification", ({ type }) => type === `after ${what}`);
}

/** Cuts all connections until the client has lost its session. A client that polls may be between two requests, so one cut may not do. */
async function cut(proxy, client) {
  let gone = false;
  client.disconnected().then(() => (gone = true), () => (gone = true));
  while (!gone) {
    proxy.cut();
    await until(() => gone, "", 2000).catch(() => {});
  }
}

/** The scenario for all clients. */
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
  assert.match(cursor, /^[0-9a-f]{12}-\d+(-[0-9a-f]{16})?$/);

  await reconnects(client, kind, tenant, "cut", () => cut(proxy, client));
  await reconnects(client, kind, tenant, "SIGTERM", async () => {
    const next = await startBridge(server);
    proxy.target = next.address;
    await bridge.stop();
    bridge = next;
  });
  const had = notices(client);
  assert.equal(new Set(had).size, had.length, "each event once");

  client.fresh();
  await disconnect(tenant, { userId: "1" });
  assert.equal((await client.event("error"))[1].code, "disconnected");
  await client.disconnected();
  // The other client is cut and reconnects, three times. In that time this client would have reconnected too.
  for (let round = 0; round < 3; round++) {
    await until(async () => (await sessions(tenant)) === 1, "one session to remain");
    other.fresh();
    await cut(proxy, other);
    await other.connected();
  }
  assert.deepStrictEqual(client.lines.slice(client.lines.findLastIndex((line) => line.disconnected !== undefined) + 1), []);
}

/** A bridge and a client for one test. */
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

  test(`${name} gets the reason of a refusal`, { skip: kind.missing }, async (t) => {
    const client = await alone(t, kind, "x");
    const { refused } = await client.line((line) => line.refused !== undefined, "the refusal");
    assert.match(refused, /Invalid token|namespaces failed to connect/);
  });

  test(`${name} reconnects when an administrator asks for it`, { skip: kind.missing }, async (t) => {
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
