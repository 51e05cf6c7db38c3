// Servers that share a store: whatever dies in between, a server, a bridge or the store itself, no session misses what the store has,
// and none goes on unaware of what the store has lost. Counted for each session against the log.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { drop, pause } from "./lib/faults/actions.js";
import { table } from "./lib/faults/course.js";
import { Ground } from "./lib/faults/ground.js";
import { TENANT } from "./lib/faults/load.js";
import { Nats } from "./lib/faults/nats.js";
import { Clustered, startNode, Watched } from "./lib/faults/redis.js";
import { until } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { missing } from "./lib/stores.js";
import { producer } from "./lib/tokens.js";

const SERVERS = 3;
/** How long a Notify may take that cannot be stored, in milliseconds; servers give up after 5 s. */
const REFUSAL_MAX = 7000;
const rows = [];

before(() => generateStubs());
after(() => console.log(table(rows)));

/** A scenario on this ground, as a test. */
const scenario = (ground, kind, name, disturb, options) =>
  test(name, async () => {
    rows.push(await ground().scenario(`${kind}: ${name}`, disturb, options).catch((error) => {
      if (error.row) rows.push(error.row);
      throw error;
    }));
  });

/** Kills each server in turn, and starts it again. */
async function killServers({ group, load }) {
  for (const [index, server] of group.servers.entries()) {
    await load.reached((index + 0.5) / SERVERS);
    await server.kill();
    await group.restartServer(index);
  }
}

/** Stops and starts all servers and bridges, one after the other, as an upgrade does. */
async function restartAll({ group, load }) {
  const parts = SERVERS + group.bridges.length;
  for (const [index, server] of group.servers.entries()) {
    await load.reached(index / parts);
    await server.stop();
    await group.restartServer(index);
  }
  const bridges = group.bridges.length;
  for (let index = 0; index < bridges; index++) {
    await load.reached((SERVERS + index) / parts);
    const bridge = group.takeBridge();
    await group.addBridge();
    await bridge.stop();
  }
  // Attempts that a bridge could not serve yet are not counted: the client repeats them by itself.
  for (const { recoveries } of load.listeners) assert.ok(recoveries <= bridges, `a session was recovered ${recoveries} times`);
}

/** After the store has lost events every session begins anew, and from then on it can be recovered as before. */
async function goOn({ load }) {
  await load.begunAnew();
  load.more(2000, { seconds: 3 });
  await load.reached(0.8);
  drop(load.listeners.filter((_, i) => i % 2 === 0));
}

/** What a Notify is refused with until it is, through a server. */
async function refusal(group, server = 0, bytes = 1) {
  const python = new Producer(group.servers[server].address);
  try {
    return await until(async () => {
      const asked = performance.now();
      const event = { chatId: "0", messageIds: ["0"], readBy: "x".repeat(bytes) };
      const call = python.call(producer("probe"), "chat.v1.Chat/NotifyMessagesRead", { target: { rooms: ["nobody:0"] }, event });
      const error = await call.then(() => undefined, (error) => error);
      const took = performance.now() - asked;
      assert.ok(took < REFUSAL_MAX, `a Notify took ${took} ms`);
      return error && { code: error.code, message: error.message };
    }, "a refusal");
  } finally {
    python.close();
  }
}

describe("on Redis", { skip: missing("redis") }, () => {
  let ground;
  const on = (name, disturb, options) => scenario(() => ground, "Redis", name, disturb, options);
  before(() => (ground = new Ground(startNode, { servers: SERVERS })));
  after(() => ground.stop());

  on("each server is killed in turn", killServers);

  on("all servers and bridges are restarted in turn", restartAll, { events: 6000, seconds: 8 });

  on("Redis is killed and has its data on its disk", async ({ store, load }) => {
    await load.reached(0.3);
    await store.kill();
    await pause(500);
    await store.start();
  });

  on("Redis cuts the subscriptions, then all connections, then does nothing for a while", async ({ store, load }) => {
    await load.reached(0.2);
    for (let i = 0; i < 3; i++) {
      await store.ask("CLIENT", "KILL", "TYPE", "pubsub");
      await pause(100);
    }
    await load.reached(0.4);
    await store.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
    await load.reached(0.6);
    await store.ask("CLIENT", "PAUSE", "2500", "ALL");
  });

  on("the memory of Redis is full", async ({ store, group, load }) => {
    await load.reached(0.3);
    await store.ask("CONFIG", "SET", "maxmemory", "1mb");
    assert.equal((await refusal(group)).code, "RESOURCE_EXHAUSTED");
    await load.readable();
    await store.ask("CONFIG", "SET", "maxmemory", "0");
  });

  on("Redis has too few replicas", async ({ store, group, load }) => {
    await load.reached(0.3);
    await store.ask("CONFIG", "SET", "min-replicas-to-write", "1");
    assert.equal((await refusal(group)).code, "UNAVAILABLE");
    await load.readable();
    await store.ask("CONFIG", "SET", "min-replicas-to-write", "0");
  });

  on("everything in Redis is deleted", async ({ store, load }) => {
    await load.reached(0.4);
    await store.ask("FLUSHALL");
    await goOn({ load });
  }, { loses: true, fresh: "all" });

  on("Redis is started again without its data", async ({ store, load }) => {
    await load.reached(0.4);
    await store.kill();
    store.forget();
    await store.start();
    await goOn({ load });
  }, { loses: true, fresh: "all" });
});

describe("on Redis with a sentinel", { skip: missing("redis") }, () => {
  let ground;
  before(() => (ground = new Ground(Watched.start)));
  after(() => ground.stop());

  scenario(() => ground, "Sentinel", "a failover loses writes", async ({ store, load }) => {
    await load.reached(0.2);
    // From here on the replica gets nothing.
    await store.replica.ask("REPLICAOF", "127.0.0.1", "1");
    await load.reached(0.4);
    await store.primary.kill();
    await until(() => store.replica.isPrimary(), "the replica to be promoted");
    await goOn({ load });
  }, { loses: true, fresh: "all" });
});

describe("on a cluster of Redis", { skip: missing("redis") }, () => {
  let ground;
  before(() => (ground = new Ground(Clustered.start)));
  after(() => ground.stop());

  scenario(() => ground, "Cluster", "a planned failover, and the slot moves to another node", async ({ store, load }) => {
    const slot = Number(await store.nodes[0].ask("CLUSTER", "KEYSLOT", `{${TENANT}}`));
    await load.reached(0.2);
    await store.failOver(slot);
    await load.reached(0.5);
    await store.move(slot);
  });
});

describe("on three servers of NATS", { skip: missing("nats") }, () => {
  let ground;
  const on = (name, disturb, options) => scenario(() => ground, "NATS", name, disturb, options);
  before(() => (ground = new Ground(() => Nats.start(3), { servers: SERVERS })));
  after(() => ground.stop());

  on("each server is killed in turn", killServers);

  on("all servers and bridges are restarted in turn", restartAll, { events: 6000, seconds: 8 });

  on("a server of NATS is killed, then the leader of the stream", async ({ store, load }) => {
    await load.reached(0.2);
    const leader = await store.leader();
    const other = store.nodes.find((node) => node !== leader);
    for (const node of [other, leader]) {
      await node.kill();
      await pause(500);
      await node.start();
      await load.reached(node === other ? 0.5 : 0.8);
    }
  });

  on("the leader of the stream does nothing for a while", async ({ store, load }) => {
    await load.reached(0.3);
    const leader = await store.leader();
    leader.freeze();
    await pause(4000);
    leader.thaw();
  });

  on("two of three servers of NATS are killed", async ({ store, group, load }) => {
    await load.reached(0.3);
    const [first, second] = store.nodes;
    await Promise.all([first.kill(), second.kill()]);
    assert.equal((await refusal(group, 2)).code, "UNAVAILABLE");
    await Promise.all([first.start(), second.start()]);
  });
});

describe("on one server of NATS", { skip: missing("nats") }, () => {
  let ground;
  const on = (name, disturb, options) => scenario(() => ground, "NATS", name, disturb, options);
  before(() => (ground = new Ground(() => Nats.start(1, { limit: "4MB" }))));
  after(() => ground.stop());

  on("the store is full until it is given more room", async ({ store, group, load }) => {
    assert.equal((await refusal(group, 0, 60_000)).code, "RESOURCE_EXHAUSTED");
    await load.readable();
    const [node] = store.nodes;
    await node.kill();
    store.limit = undefined;
    store.configure(node);
    await node.start();
  }, { seconds: 7 });

  on("an old copy of the store is restored", async ({ store, load }) => {
    const [node] = store.nodes;
    await load.reached(0.2);
    await node.kill();
    store.copy(node);
    await node.start();
    await load.reached(0.5);
    await node.kill();
    store.restore(node);
    await node.start();
    await goOn({ load });
  }, { loses: true, fresh: "all" });
});
