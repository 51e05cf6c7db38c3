// Random faults of a group: what happens in a round of the soak run, to which part, when and for how long.

import * as act from "./actions.js";

/** The latest beginning of a fault in a round, in milliseconds. */
const BEGIN_MAX = 3000;

const servers = [
  (random) => {
    const [index, away] = [random.between(0, 2), random.between(0, 1500)];
    const killed = async ({ group }) => {
      await group.servers[index].kill();
      await act.pause(away);
      await group.restartServer(index);
    };
    return [`server ${index} killed, away ${away} ms`, killed];
  },
  (random) => {
    const index = random.between(0, 2);
    const restarted = async ({ group }) => {
      await group.servers[index].stop();
      await group.restartServer(index);
    };
    return [`server ${index} restarted`, restarted];
  },
  (random) => {
    const [index, ms] = [random.between(0, 2), random.between(500, 3000)];
    return [`server ${index} frozen ${ms} ms`, ({ group }) => act.freeze(group.servers[index], ms)];
  },
];

const bridges = [true, false].map((gracefully) => (random) => {
  const index = random.between(0, 1);
  return [`bridge ${index} ${gracefully ? "drained" : "killed"}`, ({ group }) => act.replaceBridge(group, { index, gracefully })];
});

const clients = [
  (random) => {
    const part = random.between(1, 100) / 100;
    return [`${Math.round(part * 100)} % of the clients cut off`, ({ load }) => act.drop(load.listeners.filter(() => random.next() < part))];
  },
];

const redis = [
  (random) => {
    const away = random.between(0, 2000);
    const killed = async ({ store }) => {
      await store.kill();
      await act.pause(away);
      await store.start();
    };
    return [`Redis killed, away ${away} ms`, killed];
  },
  () => ["subscriptions cut", ({ store }) => store.ask("CLIENT", "KILL", "TYPE", "pubsub")],
  () => ["connections cut", ({ store }) => store.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")],
  (random) => {
    const ms = random.between(500, 3000);
    return [`Redis paused ${ms} ms`, ({ store }) => store.ask("CLIENT", "PAUSE", `${ms}`, "ALL")];
  },
  (random) => {
    const ms = random.between(500, 3000);
    const full = async ({ store }) => {
      await store.ask("CONFIG", "SET", "maxmemory", "1mb");
      await act.pause(ms);
      await store.ask("CONFIG", "SET", "maxmemory", "0");
    };
    return [`memory full ${ms} ms`, full];
  },
  () => ["everything deleted", ({ store }) => store.ask("FLUSHALL")],
];

const nats = [
  (random) => {
    const [index, away] = [random.between(0, 2), random.between(0, 2000)];
    const killed = async ({ store }) => {
      await store.nodes[index].kill();
      await act.pause(away);
      await store.nodes[index].start();
    };
    return [`NATS ${index} killed, away ${away} ms`, killed];
  },
  (random) => {
    const [index, ms] = [random.between(0, 2), random.between(500, 4000)];
    const frozen = async ({ store }) => {
      store.nodes[index].freeze();
      await act.pause(ms);
      store.nodes[index].thaw();
    };
    return [`NATS ${index} frozen ${ms} ms`, frozen];
  },
  (random) => {
    const [index, away] = [random.between(0, 2), random.between(0, 2000)];
    const killed = async ({ store }) => {
      const two = store.nodes.filter((_, number) => number !== index);
      await Promise.all(two.map((node) => node.kill()));
      await act.pause(away);
      await Promise.all(two.map((node) => node.start()));
    };
    return [`all of NATS but ${index} killed, away ${away} ms`, killed];
  },
];

const STORES = { redis, nats };

/** Chooses what happens in a round: one to three parts, one thing to each, each at its own time. */
export function choose(random, engine) {
  const parts = [servers, bridges, clients, STORES[engine]];
  const count = random.between(1, 3);
  while (parts.length > count) parts.splice(random.between(0, parts.length - 1), 1);
  return parts.map((part) => {
    const [name, run] = random.one(part)(random);
    const begins = random.between(0, BEGIN_MAX);
    return {
      name: `${name} (after ${begins} ms)`,
      run: async (running) => {
        await act.pause(begins);
        await run(running);
      },
    };
  });
}
