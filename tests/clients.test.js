// Stock clients of both generations, over every transport, with the token in every place.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { io as io4 } from "socket.io-client";
import { io as io3 } from "socket.io-client-v3";
import { call, connect, refusal } from "./lib/clients.js";
import { get, QUIET, start, until, within } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { keyPair, producer, soon, token, user } from "./lib/tokens.js";

let fanfare, python, url;

before(async () => {
  generateStubs();
  fanfare = await start({ serverArgs: QUIET, bridgeArgs: ["--cors-origin", "https://app.example.com", "--jwt-leeway", "0s"] });
  url = fanfare.bridge.url;
  python = new Producer(fanfare.server.address);
});

after(async () => {
  python?.close();
  await fanfare?.stop();
});

const notice = (text, tenant = "1") =>
  python.call(producer(), "messenger.v1.Messenger/BroadcastToOrganization", { target: { tenant }, userNotification: { type: text } });

for (const [version, io] of [["4", io4], ["3", io3]]) {
  for (const transports of [["websocket"], ["polling"], ["polling", "websocket"]]) {
    test(`socket.io-client ${version} over ${transports.join(" → ")}`, async () => {
      const socket = await connect(url, user(42, 1), { transports }, io);
      assert.match(socket.id, /^[\w-]{22}$/);
      assert.notEqual(socket.id, socket.io.engine.id, "the Engine.IO sid is nobody's business");
      if (transports.length === 2) await until(() => socket.io.engine.transport.name === "websocket", "the upgrade");
      assert.deepStrictEqual(await call(socket, "subscribe:chat", { chatId: 7 }), { chatId: 7 });
      await python.call(producer("1"), "messenger.v1.Messenger/NotifyTypingStart", { event: { chatId: "7", userId: "5" } });
      assert.deepStrictEqual((await socket.event("typing:start"))[1], { chatId: 7, userId: "5" });
      assert.deepStrictEqual(await call(socket, "unsubscribe:chat", { chatId: 7 }), { chatId: 7 });
      await python.call(producer("1"), "messenger.v1.Messenger/NotifyTypingStop", { event: { chatId: "7", userId: "5" } });
      await notice("fence");
      await socket.event("user:notification");
      assert.deepStrictEqual(socket.events.map((e) => e[0]), ["typing:start", "user:notification"]);
      socket.close();
    });
  }
}

const PLACES = {
  "auth.token": (t) => ({ auth: { token: t } }),
  "the query": (t) => ({ auth: {}, query: { token: t } }),
  "the authorization header": (t) => ({ auth: {}, extraHeaders: { authorization: t } }),
};

for (const [place, options] of Object.entries(PLACES)) {
  for (const prefix of ["", "Bearer "]) {
    test(`the token is taken from ${place} ${prefix ? "with" : "without"} Bearer`, async () => {
      for (const io of [io4, io3]) {
        for (const transports of [["websocket"], ["polling"]]) {
          (await connect(url, undefined, { ...options(prefix + user(42, 1)), transports }, io)).close();
        }
      }
    });
  }
}

const REFUSED = [
  ["no token", undefined, "No token", "no_token"],
  ["an empty token", "", "No token", "no_token"],
  ["an expired token", token({ userId: 1, organizationId: 1, exp: soon(-60) }), "Token expired", "token_expired"],
  ["garbage", "garbage", "Invalid token", "invalid_token"],
  ["a forged signature", token({ userId: 1, organizationId: 1, exp: soon() }, { secret: "another-secret-0123456789" }), "Invalid token", "invalid_token"],
  ["algorithm none", token({ userId: 1, organizationId: 1, exp: soon() }, { alg: "none" }), "Invalid token", "invalid_token"],
  ["no expiry", token({ userId: 1, organizationId: 1 }), "Invalid token", "invalid_token"],
  ["not valid yet", token({ userId: 1, organizationId: 1, exp: soon(), nbf: soon(600) }), "Invalid token", "invalid_token"],
  ["no user", token({ organizationId: 1, exp: soon() }), "Invalid token", "invalid_token"],
  ["all tenants", token({ sub: "x", tenant: "*", scopes: ["notify"], exp: soon() }), "Invalid token", "invalid_token"],
  ["all tenants without scopes", token({ sub: "x", tenant: "*", exp: soon() }), "Invalid token", "invalid_token"],
];

for (const [what, bad, message, code] of REFUSED) {
  test(`${what} is refused`, async () => {
    for (const io of [io4, io3]) {
      for (const transports of [["websocket"], ["polling"]]) {
        const error = await refusal(url, { auth: { token: bad }, transports }, io);
        assert.equal(error.message, `Authentication failed: ${message}`);
        assert.deepStrictEqual(error.data, { code });
      }
    }
  });
}

test("HS384 and HS512 are as good as HS256", async () => {
  for (const alg of ["HS384", "HS512"]) {
    (await connect(url, token({ userId: 1, organizationId: 1, exp: soon() }, { alg }))).close();
  }
});

test("RS256, ES256 and EdDSA verify by PEM and by JWKS, and only with their own key", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "fanfare-"));
  const claims = { userId: 1, organizationId: 1, exp: soon(), iss: "tests", aud: "app" };
  for (const alg of ["RS256", "ES256", "EdDSA"]) {
    const [byPem, byJwks, other] = [keyPair(alg, "a"), keyPair(alg, "b"), keyPair(alg, "b")];
    writeFileSync(path.join(folder, "key.pem"), byPem.pem);
    writeFileSync(path.join(folder, "keys.json"), JSON.stringify({ keys: [byJwks.jwk] }));
    const keys = ["--jwt-pem", path.join(folder, "key.pem"), "--jwt-jwks", path.join(folder, "keys.json")];
    const checks = ["--jwt-issuer", "tests", "--jwt-audience", "app"];
    const own = await start({ serverArgs: QUIET, bridgeArgs: [...keys] });
    (await connect(own.bridge.url, byPem.sign(claims))).close();
    (await connect(own.bridge.url, byJwks.sign(claims))).close();
    const error = await refusal(own.bridge.url, { auth: { token: other.sign(claims) } });
    assert.equal(error.data.code, "invalid_token");
    // The public key taken for a shared secret, the classic confusion.
    const confused = token(claims, { secret: byPem.pem });
    assert.equal((await refusal(own.bridge.url, { auth: { token: confused } })).data.code, "invalid_token");
    await own.stop();
    if (alg === "ES256") {
      const strict = await start({ serverArgs: [...QUIET, ...checks], bridgeArgs: [...keys, ...checks] });
      (await connect(strict.bridge.url, byPem.sign(claims))).close();
      for (const wrong of [{ ...claims, iss: "others" }, { ...claims, aud: "others" }, { ...claims, iss: undefined }]) {
        assert.equal((await refusal(strict.bridge.url, { auth: { token: byPem.sign(wrong) } })).data.code, "invalid_token");
      }
      await strict.stop();
    }
  }
});

test("a session ends with its token, and the client stays away", async () => {
  const socket = await connect(url, token({ userId: 42, organizationId: 1, exp: soon(5) }), { reconnection: true });
  const reason = await within(new Promise((resolve) => socket.once("disconnect", resolve)), "the disconnect");
  assert.equal(reason, "io server disconnect");
  assert.deepStrictEqual(await socket.event("error"), ["error", { code: "token_expired", message: "Authentication failed: Token expired" }]);
  assert.equal(socket.active, false);
});

test("Engine.IO 3 is refused with a reason", async () => {
  const answer = await get(`${url}/socket.io/?EIO=3&transport=polling`);
  assert.equal(answer.status, 400);
  const { code, message } = await answer.json();
  assert.equal(code, 5);
  assert.match(message, /Unsupported protocol version.*socket\.io-client 3\.x and 4\.x/);
});

test("only allowed origins may connect", async () => {
  const ask = (origin) => get(`${url}/socket.io/?EIO=4&transport=polling`, { headers: { origin } });
  const allowed = await ask("https://app.example.com");
  assert.equal(allowed.status, 200);
  assert.equal(allowed.headers.get("access-control-allow-origin"), "https://app.example.com");
  const refused = await ask("https://evil.example.com");
  assert.equal(refused.status, 403);
  assert.equal(refused.headers.get("access-control-allow-origin"), null);
  await assert.rejects(connect(url, user(1, 1), { extraHeaders: { origin: "https://evil.example.com" } }));
  (await connect(url, user(1, 1), { extraHeaders: { origin: "https://app.example.com" } })).close();
});

test("join answers with joined, and join_chat and leave_chat work", async () => {
  const claims = { id: 7, username: "ada", email: "ada@example.com", exp: soon() };
  const socket = await connect(url, token(claims));
  const joined = { message: "Successfully connected to real-time updates", user: { id: "7", username: "ada", email: "ada@example.com" } };
  socket.emit("join");
  assert.deepStrictEqual(await socket.event("joined"), ["joined", joined]);
  // With a callback the same is the acknowledgement, and the event comes before it.
  assert.deepStrictEqual(await call(socket, "join"), joined);
  assert.deepStrictEqual(socket.events, [["joined", joined], ["joined", joined]]);
  assert.deepStrictEqual(await call(socket, "join_chat", { chatId: "c-7" }), { chatId: "c-7" });
  const say = (id) => python.call(producer("default"), "chat.v1.Chat/NotifyUserJoinedChat", { event: { chatId: "c-7", userId: id } });
  await say("1");
  await socket.event("user_joined_chat");
  assert.deepStrictEqual(await call(socket, "leave_chat", { chatId: "c-7" }), { chatId: "c-7" });
  await say("2");
  await notice("fence", "default");
  await socket.event("user:notification");
  assert.equal(socket.events.filter((e) => e[0] === "user_joined_chat").length, 1);
  socket.close();
});

test("a token's rooms claim restricts what can be joined", async () => {
  const socket = await connect(url, user(42, 1, { rooms: ["chat:7"] }));
  assert.deepStrictEqual(await call(socket, "subscribe:chat", { chatId: 7 }), { chatId: 7 });
  assert.equal((await call(socket, "subscribe:chat", { chatId: 9 })).error.code, "forbidden");
  socket.close();
});

test("a producer can leave sessions out", async () => {
  const [one, other] = [await connect(url, user(42, 1)), await connect(url, user(42, 1))];
  const target = { exceptSessions: [one.id] };
  await python.call(producer("1"), "messenger.v1.Messenger/NotifyUserOnline", { target, event: { userId: "1" } });
  await notice("fence");
  await one.event("user:notification");
  await other.event("user:notification");
  assert.equal(one.events.length, 1);
  assert.equal(other.events.length, 2);
  one.close();
  other.close();
});
