// TLS on both programs: stock clients, client certificates, and certificates that change under load.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import http2 from "node:http2";
import https from "node:https";
import { connect as connectTcp } from "node:net";
import { connect as connectTls } from "node:tls";
import { WebSocket } from "ws";
import { Authority } from "./lib/certificates.js";
import { connect } from "./lib/clients.js";
import { Process, run, SECRET, startServer, until, within } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { missing, startStore } from "./lib/stores.js";
import { producer, token, soon, user } from "./lib/tokens.js";

const ORDERS = "spiffe://example.org/orders";
const authority = new Authority();
const ca = readFileSync(authority.ca);
const flags = ({ cert, key }) => ["--tls-cert", cert, "--tls-key", key];
const event = (id) => ({ id, chatId: "7", content: "x".repeat(1000), channel: "CHANNEL_WABA" });
const NOTIFY = "messenger.v1.Messenger/NotifyNewMessage";
const ids = (socket) => socket.events.filter(([name]) => name === "message:new").map(([, m]) => m.id);
const hostPort = (url) => [new URL(url).port, new URL(url).hostname];

/** A secure server. */
async function secureServer(args) {
  const server = await startServer(args);
  server.url = `https://${server.address}`;
  return server;
}

/** A secure bridge to a secure server. */
async function secureBridge(server, args) {
  const bridge = new Process(["bridge", "--http-listen", "127.0.0.1:0", "--server", server.url, "--server-ca", authority.ca, "--jwt-secret", SECRET, ...args]);
  bridge.address = (await bridge.log("bridge listening")).address;
  bridge.url = `https://${bridge.address}`;
  await bridge.log("linked");
  return bridge;
}

/** The serial number of the certificate that a listener presents to new connections. */
async function serial(url) {
  const socket = connectTls(...hostPort(url), { ca });
  await within(once(socket, "secureConnect"), "the handshake");
  const { serialNumber } = socket.getPeerCertificate();
  socket.destroy();
  return serialNumber;
}

/** An HTTPS answer: status and text. */
const answer = (url) => new Promise((resolve, reject) => {
  https.get(url, { ca }, async (response) => resolve([response.statusCode, (await response.toArray()).join("")])).on("error", reject);
});

before(() => generateStubs());

describe("TLS", () => {
  const [serverPair, bridgePair] = [authority.listener("server"), authority.listener("bridge")];
  let server, bridge, typed;

  before(async () => {
    server = await secureServer(flags(serverPair));
    bridge = await secureBridge(server, flags(bridgePair));
    typed = new Producer(server.address, { ca: authority.ca });
  });

  after(async () => {
    typed?.close();
    await bridge?.stop();
    await server?.stop();
  });

  const notify = (id, tenant) => typed.call(producer(tenant), NOTIFY, { target: { rooms: ["org"] }, event: event(id) });

  for (const transport of ["websocket", "polling"]) {
    test(`what a stock producer publishes, a stock browser client gets over ${transport}`, async () => {
      const socket = await connect(bridge.url, user(1, transport), { transports: [transport], ca });
      await notify(1, transport);
      await socket.event("message:new");
      socket.close();
    });
  }

  test("a client upgrades from polling to a secure WebSocket", async () => {
    const socket = await connect(bridge.url, user(1, "upgrade"), { transports: ["polling", "websocket"], ca });
    await until(() => socket.io.engine.transport.name === "websocket", "the upgrade");
    await notify(1, "upgrade");
    await socket.event("message:new");
    socket.close();
  });

  test("a plain WebSocket gets large events in many pieces and all of them", async () => {
    const socket = new WebSocket(`${bridge.url.replace("https", "wss")}/ws?token=${user(1, "raw")}`, { ca });
    const got = [];
    socket.on("message", (data) => got.push(JSON.parse(data)));
    await within(once(socket, "open"), "the WebSocket");
    await until(async () => (await typed.call(producer("raw"), "fanfare.v1.Realtime/GetPresence", {})).sessionCount === "1", "the session");
    for (let id = 1; id <= 100; id++) await notify(id, "raw");
    await until(() => got.filter((m) => m.data?.id).length >= 100 || got.filter((m) => JSON.stringify(m).includes("message:new")).length >= 100, "all events");
    socket.close();
  });

  test("one port serves HTTP/2 and HTTP/1.1, as the client chooses", async () => {
    assert.deepStrictEqual(await answer(`${server.url}/healthz`), [200, "ok\n"]);
    assert.deepStrictEqual(await answer(`${bridge.url}/readyz`), [200, "ok\n"]);
    const session = http2.connect(server.url, { ca });
    const request = session.request({ ":path": "/readyz" });
    assert.equal((await within(once(request, "response"), "the answer"))[0][":status"], 200);
    assert.equal(session.alpnProtocol, "h2");
    session.close();
  });

  test("who does not know the authority does not connect, and who speaks no TLS gets nothing", async () => {
    await assert.rejects(connect(bridge.url, user(1, "stranger")));
    const plain = connectTcp(...hostPort(server.url));
    plain.end("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert.ok(!(await plain.toArray()).join("").includes("200 OK"));
  });

  test("the tools speak TLS", async () => {
    const args = ["notify", "messenger.v1.NewMessage", JSON.stringify({ id: 1, chatId: 7, content: "x", fromMe: true, channel: "whatsapp" })];
    const tls = ["--server", server.url, "--jwt-secret", SECRET, "--retry-for", "0s"];
    assert.equal((await run([...args, ...tls, "--server-ca", authority.ca])).code, 0);
    const refused = await run([...args, ...tls]);
    assert.equal(refused.code, 1);
  });

  test("new certificates are taken under load and no session ends", async () => {
    const sockets = await Promise.all(Array.from({ length: 20 }, (_, at) =>
      connect(bridge.url, user(at, "load"), { ca, transports: [at % 4 ? "websocket" : "polling"] })));
    const ended = [];
    sockets.forEach((socket) => socket.on("disconnect", (why) => ended.push(why)));
    const [oldServer, oldBridge] = [await serial(server.url), await serial(bridge.url)];
    let [published, loading] = [0, true];
    const load = (async () => {
      while (loading) await notify(++published, "load");
    })();
    authority.replace(serverPair, authority.listener("server-2"));
    authority.replace(bridgePair, authority.listener("bridge-2"));
    await until(async () => (await serial(server.url)) !== oldServer, "the server's new certificate");
    await until(async () => (await serial(bridge.url)) !== oldBridge, "the bridge's new certificate");
    const late = await connect(bridge.url, user(99, "load"), { ca });
    const seen = published;
    await until(() => published > seen + 20, "more events");
    loading = false;
    await load;
    const wanted = Array.from({ length: published }, (_, id) => id + 1);
    for (const socket of sockets) {
      await until(() => ids(socket).length >= published, "all events");
      assert.deepStrictEqual(ids(socket), wanted);
    }
    assert.deepStrictEqual(ended, []);
    [...sockets, late].forEach((socket) => socket.close());
  });

  test("a pair that does not fit is reported, and the old one stays", async () => {
    const before = await serial(bridge.url);
    writeFileSync(bridgePair.key, readFileSync(serverPair.key));
    const entry = await bridge.log("the new TLS certificate cannot be used; the old one stays");
    assert.match(entry.error, /tls-cert and tls-key/);
    assert.equal(await serial(bridge.url), before);
  });
});

describe("client certificates", () => {
  const other = new Authority();
  const [pair, orders, bridgeOwn] = [authority.listener("mutual"), authority.issue("orders", [`URI:${ORDERS}`]), authority.issue("own", ["DNS:bridge.example.org"])];
  const nobody = authority.issue("nobody", ["DNS:nobody.example.org"]);
  const stranger = other.issue("stranger", [`URI:${ORDERS}`]);
  let server, bridge;

  before(async () => {
    server = await secureServer([
      ...flags(pair), "--tls-client-ca", authority.ca,
      "--tls-identity", `${ORDERS}=notify@shop`, "--tls-identity", "bridge.example.org=bridge",
    ]);
    bridge = new Process([
      "bridge", "--http-listen", "127.0.0.1:0", "--server", server.url, "--jwt-pem", await publicKey(), "--server-ca", authority.ca,
      "--server-cert", bridgeOwn.cert, "--server-key", bridgeOwn.key,
    ]);
    await bridge.log("linked");
  });

  after(async () => {
    await bridge?.stop();
    await server?.stop();
  });

  /** The key that the bridge verifies users with; it signs nothing here. */
  async function publicKey() {
    const { keyPair } = await import("./lib/tokens.js");
    const file = authority.path("users.pem");
    writeFileSync(file, keyPair("ES256", "users").pem);
    return file;
  }

  const as = (own, tls = {}) => new Producer(server.address, { ca: authority.ca, ...own, ...tls });
  async function publish(one, bearer, tenant) {
    try {
      return await one.call(bearer, NOTIFY, { target: { tenant, rooms: ["org"] }, event: event(1) });
    } finally {
      one.close();
    }
  }

  test("a bridge needs no token where its certificate says who it is", () => assert.ok(bridge.logs.some((e) => e.message === "linked")));

  test("a producer's certificate allows what is configured, and no more", async () => {
    assert.ok((await publish(as(orders), undefined, "shop")).id);
    await assert.rejects(publish(as(orders), undefined, "bank"), /tenant/);
    await assert.rejects(publish(as(nobody), undefined, "shop"), /No token/);
  });

  test("a token counts before the certificate", async () => {
    assert.ok((await publish(as(orders), producer("bank"), "bank")).id);
    const expired = token({ sub: "p", tenant: "shop", scopes: ["notify"], exp: soon(-100) });
    await assert.rejects(publish(as(orders), expired, "shop"), /Token expired/);
  });

  test("clients without a certificate of the authority are refused", async () => {
    for (const own of [{}, stranger]) {
      const one = as(own);
      await assert.rejects(publish(one, producer("shop"), "shop"), { code: "UNAVAILABLE" });
    }
  });
});

for (const kind of ["redis", "nats"]) {
  test(`logs are on ${kind} over TLS`, { skip: missing(kind) }, async () => {
    const store = await startStore(kind, { ...authority.listener(kind), ca: authority.ca });
    const [one, two] = [await startServer(store.serverArgs), await startServer(store.serverArgs)];
    const typed = new Producer(one.address);
    const { id } = await typed.call(producer("secure"), NOTIFY, { target: { rooms: ["org"] }, event: event(1) });
    const reader = new Process(["subscribe", "org", "--server", two.url, "--token", producer("secure"), "--tenant", "secure"]);
    const later = await until(async () => {
      await typed.call(producer("secure"), NOTIFY, { target: { rooms: ["org"] }, event: event(2) });
      return reader.printed()[0];
    }, "the event through the other server");
    assert.ok(id && later.payload.id === 2);
    await reader.kill();
    typed.close();
    await one.stop();
    await two.stop();
    await store.stop();
  });
}
