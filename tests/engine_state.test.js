// The state of the store, as operators and `/readyz` see it, on real stores that stop and start again.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { admin, client, Stream, web } from "./lib/admin.js";
import { get, startServer, until } from "./lib/fanfare.js";
import { missing, startStore } from "./lib/stores.js";

const { Admin } = web;

test("without a store of its own the state says how much memory is used", async () => {
  const server = await startServer();
  try {
    const { engineState: state } = await client(Admin, server.url, admin()).getServer({});
    assert.deepStrictEqual([state.kind, state.problems, state.nodes], ["memory", [], []]);
    assert.ok(state.bytesMax > 0n && state.feedMicros > 0n && state.feedSilentMillis === 0n);
    const ready = await get(`${server.url}/readyz`);
    assert.deepStrictEqual([ready.status, await ready.text()], [200, "ok\n"]);
    const { engineState: hidden } = await client(Admin, server.url, admin("1")).getServer({});
    assert.equal(hidden, undefined, "the store is not a tenant's business");
  } finally {
    await server.stop();
  }
});

for (const kind of ["redis", "nats"]) {
  describe(`a server on ${kind}`, { skip: missing(kind) }, () => {
    let store, server, api;

    before(async () => {
      store = await startStore(kind);
      server = await startServer(store.serverArgs);
      api = client(Admin, server.url, admin());
    });

    after(async () => {
      await server?.stop();
      await store?.stop();
    });

    const ready = async () => {
      const answer = await get(`${server.url}/readyz`);
      return { status: answer.status, body: await answer.text() };
    };

    test("tells the store's processes, its latency and the lag of the feed", async () => {
      const state = await until(async () => {
        const { engineState } = await api.getServer({});
        return engineState.feedMicros > 0n && engineState;
      }, "a message to come back");
      assert.deepStrictEqual([state.kind, state.problems.map((one) => one.text).filter((text) => !text.includes("maxmemory"))], [kind, []]);
      assert.ok(state.commands.count > 0n && state.commands.maxMicros > 0n);
      assert.ok(state.bytesUsed >= 0n);
      if (kind === "redis") {
        assert.deepStrictEqual(state.nodes.map((node) => [node.name, node.role, node.offline]), [[`127.0.0.1:${store.port}`, "primary", false]]);
        assert.ok(state.nodes[0].bytesUsed > 0n && state.nodes[0].answerMicros > 0n);
      } else {
        assert.deepStrictEqual(state.nodes.map((node) => [node.name, node.role, node.leads]), [["n0", "connected", 4]]);
        assert.deepStrictEqual(state.partitions.map((one) => [one.number, one.leader, one.replicas, one.current, one.lag]), [0, 1, 2, 3].map((n) => [n, "n0", 1, 1, 0n]));
        assert.match((await ready()).body, /^ok\npartition 0: leader n0, 1 of 1 copies up to date, lag 0\n/);
      }
    });

    test("a store that does not answer makes it not ready, says so to operators, and is noticed when it answers again", async () => {
      assert.equal((await ready()).status, 200);
      const stats = new Stream((options) => api.watchStats({ intervalMillis: 250 }, options));
      await stats.next(({ engine }) => engine.problems.every((one) => !one.stopsPublishing), "a healthy store");
      store.child.kill("SIGSTOP");
      try {
        const why = await until(async () => {
          const { status, body } = await ready();
          return status === 503 && body;
        }, "the server not to be ready");
        assert.match(why, /^not delivering: .+/);
        const { engine } = await stats.next(({ engine }) => engine.problems.some((one) => one.stopsPublishing), "the problem");
        const text = engine.problems.map((one) => one.text).join("; ");
        assert.match(text, kind === "redis" ? new RegExp(`127\\.0\\.0\\.1:${store.port}`) : /4 of 4 partitions have no leader that answers|connection to NATS is lost/);
      } finally {
        store.child.kill("SIGCONT");
      }
      await until(async () => (await ready()).status === 200, "the server to be ready again");
      await stats.next(({ engine }) => engine.problems.every((one) => !one.stopsPublishing) && engine.feedMicros > 0n, "a healthy store again");
      await stats.close();
    });
  });
}
