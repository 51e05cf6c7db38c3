// Browsers' calls that an internal service answers, here one in Python; and the same methods over gRPC.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { Authority } from "./lib/certificates.js";
import { call, connect } from "./lib/clients.js";
import { ROOT, run, SECRET, start, until, within } from "./lib/fanfare.js";
import { generateStubs, Producer, PYTHON, STUBS } from "./lib/producer.js";
import { producer, user } from "./lib/tokens.js";

const CATALOG = path.join(ROOT, "tests/catalogs-upstream");
let shop, fanfare, python, ada, bob;

async function startShop(port = 0, tls = []) {
  const child = spawn(PYTHON, [path.join(ROOT, "tests/python/upstream.py"), String(port), ...tls], {
    env: { ...process.env, PYTHONPATH: STUBS },
    stdio: ["pipe", "pipe", "ignore"],
  });
  const [taken] = await within(once(child.stdout, "data"), "the shop to start");
  return { child, port: Number(taken), url: `http://127.0.0.1:${Number(taken)}` };
}

before(async () => {
  generateStubs();
  shop = await startShop();
  fanfare = await start({
    serverArgs: ["--catalog", CATALOG, "--upstream", `shop=${shop.url}`, "--upstream-timeout", "4s"],
  });
  python = new Producer(fanfare.server.address);
  ada = await connect(fanfare.bridge.url, user(1, 5, { username: "Ada" }));
  bob = await connect(fanfare.bridge.url, user(2, 5, { username: "Bob" }));
});

after(async () => {
  ada?.close();
  bob?.close();
  python?.close();
  await fanfare?.stop();
  shop?.child.kill();
});

test("an upstream's typed answer is the acknowledgement, and what is published and replied is made from it", async () => {
  const order = await call(ada, "shop:order", { item: "tea", count: 2 });
  assert.deepStrictEqual(order, { orderId: "o-1", item: "tea", cents: 500, buyer: "5/1/Ada" });
  assert.deepStrictEqual((await bob.event("shop:placed"))[1], { orderId: "o-1", item: "tea", by: "Ada" });
  const [, taken] = await ada.event("shop:taken");
  assert.equal(taken.orderId, "o-1");
  assert.match(taken.eventId, /^[0-9a-f]{12}-\d+(-[0-9a-f]{16})?$/);
  assert.ok(!bob.events.some(([name]) => name === "shop:taken"), "the reply is for the caller alone");
});

test("an upstream is called over TLS, with a certificate of the server", async () => {
  const authority = new Authority();
  const [pair, own] = [authority.listener("shop"), authority.issue("server", ["DNS:server.example.org"])];
  const secure = await startShop(0, [pair.cert, pair.key, authority.ca]);
  const upstream = ["--catalog", CATALOG, "--upstream", `shop=https://127.0.0.1:${secure.port}`, "--upstream-ca", authority.ca];
  const order = async (...args) => {
    const { bridge, stop } = await start({ serverArgs: [...upstream, ...args] });
    const socket = await connect(bridge.url, user(1, 5, { username: "Ada" }));
    const answer = await call(socket, "shop:order", { item: "tea", count: 2 });
    socket.close();
    await stop();
    return answer;
  };
  assert.equal((await order("--upstream-cert", own.cert, "--upstream-key", own.key)).orderId, "o-1");
  // The shop ends the connection, in the handshake or right after it.
  assert.ok(["unavailable", "timeout"].includes((await order()).error.code));
  secure.child.kill();
});

test("an upstream's refusal is the call's, with its code and text", async () => {
  assert.deepStrictEqual(await call(ada, "shop:order", { item: "tea", count: 0 }), {
    error: { code: "failed_precondition", message: "nothing to order" },
  });
});

test("an upstream's faults are not shown to browsers", async () => {
  const { error } = await call(ada, "shop:order", { item: "broken", count: 1 });
  assert.deepStrictEqual(error, { code: "internal", message: 'the upstream "shop" failed' });
});

test("an upstream that is late is given up", async () => {
  const { error } = await call(ada, "shop:order", { item: "slow", count: 1 });
  assert.equal(error.code, "timeout");
});

test("an upstream decides who may join", async () => {
  assert.deepStrictEqual(await call(ada, "shop:watch", { orderId: "o-9" }), { orderId: "o-9" });
  assert.deepStrictEqual(await call(bob, "shop:watch", { orderId: "o-9" }), {
    error: { code: "forbidden", message: "not your order" },
  });
  const { users } = await python.call(producer("5"), "fanfare.v1.Realtime/GetPresence", { room: "order:o-9" });
  assert.deepStrictEqual(users.map((u) => u.userId), ["1"]);
});

test("methods that need no session are called over gRPC with a user's token", async () => {
  const token = user(3, 5, { username: "Cem" });
  const order = await python.call(token, "shop.v1.ShopClient/PlaceOrder", { item: "mug", count: 1 });
  assert.deepStrictEqual(order, { orderId: "o-1", item: "mug", cents: "250", buyer: "5/3/Cem" });
  await bob.event("shop:placed", ({ by, item }) => by === "Cem" && item === "mug");
  const sent = await python.call(token, "chat.v1.ChatClient/SendMessage", { chatId: "x", content: "hi", recipientId: "2" });
  const [, message] = await bob.event("new_message");
  assert.deepStrictEqual([message.id, message.senderId, message.senderName], [sent.id, "3", "Cem"]);
  const { users } = await python.call(token, "chat.v1.ChatClient/GetActiveUsers", {});
  assert.deepStrictEqual(users.map((u) => u.userId), ["1", "2"]);
});

test("over gRPC, other methods and other callers are refused", async () => {
  const refused = (token, method, request) => python.call(token, method, request).then(() => assert.fail("accepted"), (e) => e);
  const session = await refused(user(3, 5), "shop.v1.ShopClient/Watch", { orderId: "o-9" });
  assert.deepStrictEqual([session.code, session.message.includes("needs a session")], ["FAILED_PRECONDITION", true]);
  const service = await refused(producer("5"), "chat.v1.ChatClient/Ping", {});
  assert.deepStrictEqual([service.code, service.reason], ["PERMISSION_DENIED", "REASON_FORBIDDEN"]);
  assert.equal((await refused(undefined, "chat.v1.ChatClient/Ping", {})).code, "UNAUTHENTICATED");
  const upstream = await refused(user(3, 5), "shop.v1.ShopClient/PlaceOrder", { item: "tea" });
  assert.deepStrictEqual([upstream.code, upstream.reason], ["FAILED_PRECONDITION", "REASON_FAILED_PRECONDITION"]);
});

test("an upstream that is gone is unavailable, and comes back", async () => {
  shop.child.kill("SIGKILL");
  await once(shop.child, "exit");
  const { error } = await call(ada, "shop:order", { item: "tea", count: 1 });
  assert.deepStrictEqual(error, { code: "unavailable", message: 'the upstream "shop" cannot be reached' });
  shop = await startShop(shop.port);
  const back = () => call(ada, "shop:order", { item: "tea", count: 1 });
  assert.equal((await until(async () => (await back()).orderId, "the shop to be back")), "o-1");
});

test("a catalog whose upstream has no address is refused, and so is an address that is none", async () => {
  const args = ["server", "--grpc-listen", "127.0.0.1:0", "--jwt-secret", SECRET, "--catalog", CATALOG];
  const missing = await run(args);
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /\/shop\.v1\.ShopClient\/\w+ needs the upstream "shop": give its address, e\.g\. --upstream shop=http/);
  const wrong = await run([...args, "--upstream", "shop=nowhere"]);
  assert.match(wrong.stderr, /upstream "shop": "nowhere" is no URL/);
});
