// Revoked tokens: on every server and bridge of a group within a second, and after a restart.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { connect, refusal } from "./lib/clients.js";
import { startBridge, startServer, until, within } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { missing, startStore } from "./lib/stores.js";
import { producer, soon, token, user } from "./lib/tokens.js";

const NOTIFY = "messenger.v1.Messenger/NotifyNewMessage";
const now = () => Math.floor(Date.now() / 1000);
const ops = (tenant) => token({ sub: "ops", tenant, scopes: ["admin"], exp: soon() });
const event = { target: { rooms: ["org"] }, event: { id: 1, chatId: "7", content: "x", channel: "CHANNEL_WABA" } };
const revoke = (one, tenant, request) => one.call(ops(tenant), "fanfare.v1.Admin/Revoke", request);
const REVOKED = { message: "Authentication failed: Token revoked", reason: "REASON_TOKEN_REVOKED" };

/** Resolves with what ends a session, and when. */
const ended = (socket) => new Promise((resolve) => {
  socket.once("disconnect", () => resolve({ at: Date.now(), error: socket.events.find(([name]) => name === "error")?.[1] }));
});

before(() => generateStubs());

for (const kind of ["redis", "nats"]) {
  describe(`two servers on ${kind}`, { skip: missing(kind) }, () => {
    let store, servers, bridges, producers;

    before(async () => {
      store = await startStore(kind);
      servers = [await startServer(store.serverArgs), await startServer(store.serverArgs)];
      bridges = [await startBridge(servers[0]), await startBridge(servers[1])];
      producers = servers.map((server) => new Producer(server.address));
    });

    after(async () => {
      producers?.forEach((one) => one.close());
      for (const one of [...(bridges ?? []), ...(servers ?? [])]) await one.stop();
      await store?.stop();
    });

    test("a user's tokens end everywhere within a second, and newer ones are good", async () => {
      const old = (id) => user(id, "users", { iat: now() - 10 });
      const sockets = [await connect(bridges[0].url, old(1)), await connect(bridges[1].url, old(1))];
      const other = await connect(bridges[1].url, old(2));
      const ends = sockets.map(ended);
      const { revocation } = await revoke(producers[0], "users", { userId: "1", issuedBefore: new Date(now() * 1000).toISOString() });
      const answered = Date.now();
      assert.equal(revocation.tenant, "users");
      for (const end of await within(Promise.all(ends), "the end of both sessions")) {
        assert.ok(end.at - answered < 1000, `${end.at - answered} ms`);
        assert.equal(end.error?.code, "token_revoked");
      }
      for (const bridge of bridges) {
        assert.match((await refusal(bridge.url, { auth: { token: old(1) } })).message, /Token revoked/);
        (await connect(bridge.url, user(1, "users", { iat: now() }))).close();
      }
      assert.ok(other.connected);
      other.close();
    });

    test("one token is revoked by its id, in its tenant only", async () => {
      const socket = await connect(bridges[1].url, user(1, "ids", { jti: "stolen" }));
      const [same, neighbour] = [await connect(bridges[1].url, user(1, "ids", { jti: "own" })), await connect(bridges[0].url, user(1, "ids2", { jti: "stolen" }))];
      const end = ended(socket);
      await revoke(producers[0], "ids", { tokenId: "stolen" });
      assert.equal((await within(end, "the end of the session")).error?.code, "token_revoked");
      assert.ok(same.connected && neighbour.connected);
      same.close();
      neighbour.close();
    });

    test("a producer's token ends its calls and streams, through either server", async () => {
      const bearer = producer("shop", { jti: "producer" });
      const stream = producers[1].stream(bearer, "fanfare.v1.Realtime/Subscribe", { rooms: ["org"] }, 100);
      await stream.started;
      const end = assert.rejects(stream.messages, REVOKED);
      await producers[1].call(bearer, NOTIFY, event);
      await revoke(producers[0], "shop", { tokenId: "producer" });
      await within(end, "the end of the stream");
      for (const one of producers) await assert.rejects(one.call(bearer, NOTIFY, event), REVOKED);
      await producers[0].call(producer("shop"), NOTIFY, event);
    });

    test("all tokens of a tenant are revoked, and a bridge that links later knows it", async () => {
      const old = user(1, "all", { iat: now() - 10 });
      const socket = await connect(bridges[0].url, old);
      const end = ended(socket);
      await revoke(producers[1], "all", { everybody: true });
      await within(end, "the end of the session");
      const late = await startBridge(servers[0]);
      await until(async () => /Token revoked/.test((await refusal(late.url, { auth: { token: old } })).message), "the revocation");
      await late.stop();
    });

    test("who may revoke what", async () => {
      const call = (bearer, request) => producers[0].call(bearer, "fanfare.v1.Admin/Revoke", request);
      await assert.rejects(call(producer("1"), { everybody: true }), { code: "PERMISSION_DENIED" });
      await assert.rejects(call(ops("1"), { tenant: "2", everybody: true }), { code: "PERMISSION_DENIED" });
      await assert.rejects(call(ops("1"), {}), { code: "INVALID_ARGUMENT" });
      await assert.rejects(call(ops("1"), { tokenId: "x".repeat(257) }), { code: "INVALID_ARGUMENT" });
      const { revocation } = await call(ops("*"), { tokenId: "everywhere" });
      assert.equal(revocation.tenant ?? "", "");
      await until(async () => {
        const refused = await call(token({ sub: "ops", tenant: "*", scopes: ["admin"], jti: "everywhere", exp: soon() }), { tokenId: "y" }).catch((error) => error);
        return refused.reason === "REASON_TOKEN_REVOKED";
      }, "the revocation of a token for all tenants");
    });
  });
}

test("revocations are as durable as the log, and are forgotten when their time has come", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "fanfare-revoked-"));
  const start = () => startServer(["--data-dir", folder]);
  const [kept, short] = [producer("1", { jti: "kept" }), producer("1", { jti: "short" })];
  let server = await start();
  let one = new Producer(server.address);
  await revoke(one, "1", { tokenId: "kept" });
  await revoke(one, "1", { tokenId: "short", ttlSeconds: 1 });
  await assert.rejects(one.call(short, NOTIFY, event), REVOKED);
  one.close();
  await server.kill();
  server = await start();
  one = new Producer(server.address);
  await assert.rejects(one.call(kept, NOTIFY, event), REVOKED);
  await until(() => one.call(short, NOTIFY, event).then(() => true, () => false), "the end of the revocation");
  await assert.rejects(one.call(kept, NOTIFY, event), REVOKED);
  one.close();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});
