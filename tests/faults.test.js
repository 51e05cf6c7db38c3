// Whatever dies in between, every acknowledged event reaches every session of its rooms once and in order: counted for each
// session against the producers' own record of answers.

import { after, test } from "node:test";
import assert from "node:assert/strict";
import { nothingWrong, table } from "./lib/faults/accounting.js";
import * as act from "./lib/faults/actions.js";
import { Asleep, residentBytes } from "./lib/faults/asleep.js";
import { Cluster } from "./lib/faults/cluster.js";
import { disk, fill } from "./lib/faults/disk.js";
import { Load, PRODUCERS, SESSIONS, TENANT } from "./lib/faults/load.js";
import { get, run, SECRET, until } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer } from "./lib/tokens.js";

/** Events of a scenario; FANFARE_FAULT_EVENTS changes it. */
const EVENTS = Math.ceil(Number(process.env.FANFARE_FAULT_EVENTS ?? 50_000) / PRODUCERS) * PRODUCERS;
const rows = [];

after(() => console.log(table(rows)));

/** As many as fit where most of the time goes into waiting. */
const FEWER = Math.ceil((EVENTS * 0.4) / PRODUCERS) * PRODUCERS;

/** Runs a scenario: sessions, producers, and what happens to them; then everything is counted. */
async function scenario(name, disturb, { events = EVENTS, seconds, bytes, prepare, ...options } = {}) {
  const began = Date.now();
  const cluster = await Cluster.start(options);
  const load = new Load(cluster);
  let counts;
  try {
    await load.joined();
    const prepared = await prepare?.(cluster, load);
    load.publish(events, { seconds, bytes });
    const others = await disturb(cluster, load, prepared);
    counts = await load.count(others);
  } catch (error) {
    // What has failed must not disturb the scenarios behind it.
    load.abandon();
    cluster.abandon();
    throw error;
  }
  rows.push({ name, ...counts, seconds: (Date.now() - began) / 1000 });
  load.close();
  await cluster.stop();
  const { missing, doubled, disordered, strange } = counts;
  assert.deepStrictEqual({ missing, doubled, disordered, strange }, nothingWrong());
  assert.equal(counts.fresh, 0, "whoever comes back is recovered");
  return counts;
}

test("the server is killed, twice", async () => {
  await scenario("server killed twice", async (cluster, load) => {
    for (const part of [0.2, 0.6]) {
      await load.reached(part);
      await act.killServer(cluster);
    }
  });
});

test("a bridge is killed", async () => {
  const { recoveries } = await scenario("bridge killed", async (cluster, load) => {
    await load.reached(0.3);
    await cluster.takeBridge().kill();
    await load.reached(0.6);
    await cluster.addBridge();
  });
  assert.ok(recoveries >= SESSIONS / 4, `${recoveries} recoveries`);
});

test("the links to the server are cut, again and again", async () => {
  await scenario("links cut 5 times", async (cluster, load) => {
    for (const part of [0.1, 0.25, 0.4, 0.55, 0.7]) {
      await load.reached(part);
      act.cut(cluster.links);
    }
  });
});

test("the server is paused for longer than the timeouts", async () => {
  await scenario("server paused 3 s", async (cluster, load) => {
    await load.reached(0.3);
    await act.freeze(cluster.server, 3000);
  });
});

test("a bridge is paused for longer than the timeouts", async () => {
  await scenario("bridge paused 5 s", async (cluster, load) => {
    await load.reached(0.3);
    await act.freeze(cluster.bridges[0], 5000);
  });
});

test("a bridge is told to stop", async () => {
  await scenario("bridge drained", async (cluster, load) => {
    await load.reached(0.3);
    await cluster.takeBridge().stop();
  });
});

test("everything is killed and started again", async () => {
  await scenario("everything killed", async (cluster, load) => {
    await load.reached(0.4);
    await act.killEverything(cluster);
  });
});

test("server, bridge and links go at once", async () => {
  const { recoveries } = await scenario("server and bridge killed, link cut, at once", async (cluster, load) => {
    await load.reached(0.4);
    // The bridge that stays has to take in the other one's sessions while it has no server itself.
    const bridge = cluster.takeBridge();
    act.cut(cluster.links);
    await Promise.all([bridge.kill(), act.killServer(cluster, { away: 1500 })]);
    act.cut(cluster.links);
    await cluster.addBridge();
  });
  assert.ok(recoveries >= SESSIONS / 4, `${recoveries} recoveries`);
});

test("the way to the server is long", async () => {
  await scenario("links 200 ms long", (cluster) => act.delay(cluster.links, 200), { events: FEWER });
});

test("the links break again and again in the middle of what they carry", async () => {
  await scenario("links break every 200 kB", (cluster) => act.crumble(cluster.links, 200_000), { events: FEWER });
});

for (const [what, directions] of [["in both directions", ["up", "down"]], ["towards the server only", ["up"]], ["towards the bridges only", ["down"]]]) {
  test(`the links fall silent ${what}, and nobody is told`, async () => {
    await scenario(
      `links silent ${what}, 4 s`,
      async (cluster, load) => {
        await load.reached(0.2);
        await act.silence(cluster.links, directions, 4000);
      },
      { events: FEWER, seconds: 6 },
    );
  });
}

test("a firewall forgets the links, which stay open for ever", async (t) => {
  await scenario(
    "links forgotten",
    async (cluster, load) => {
      await load.reached(0.3);
      const known = cluster.bridges.map((bridge) => bridge.logs.length);
      act.forget(cluster.links);
      const began = performance.now();
      // Three heartbeats, and time for a busy machine; HTTP/2's own keepalive would take 20 s.
      const linked = (bridge, i) => until(() => bridge.logs.slice(known[i]).some((e) => e.message === "linked"), "a new link", 12_000);
      await Promise.all(cluster.bridges.map(linked));
      t.diagnostic(`linked again after ${((performance.now() - began) / 1000).toFixed(1)} s`);
    },
    { events: FEWER, seconds: 4 },
  );
});

test("one of two bridges hears nothing from the server: its clients go on at the other one", async () => {
  const { recoveries } = await scenario(
    "one link silent, clients move",
    async (cluster, load) => {
      await load.reached(0.3);
      const [lonely] = cluster.bridges;
      lonely.avoided = true;
      lonely.link.silence("up", "down");
      await load.reached(0.5);
      act.drop(load.listeners.filter((listener) => listener.socket.io.uri === lonely.url));
      await load.reached(0.8);
      lonely.link.speak();
    },
    { events: FEWER, seconds: 5 },
  );
  assert.ok(recoveries >= SESSIONS / 4, `${recoveries} recoveries`);
});

test("clients that sleep are let go, cost little, and go on where they were", async (t) => {
  /** In all, so that no buffer of the system holds what is not read. */
  const BYTES = 12 << 20;
  const GONE_MAX_MS = 30_000;
  const GROWTH_MAX = 48 << 20;
  generateStubs();
  let python;
  let asleep;
  await scenario(
    "5 sessions asleep",
    async (cluster, load) => {
      const [bridge] = cluster.bridges;
      const present = async () => (await python.call(producer(TENANT), "fanfare.v1.Realtime/GetPresence", {})).sessionCount;
      await load.reached(0.1);
      const before = residentBytes(bridge);
      let most = before;
      const watch = setInterval(() => (most = Math.max(most, residentBytes(bridge))), 50);
      asleep.sleep();
      const slept = performance.now();
      await until(async () => (await present()) === `${SESSIONS}`, "the sleeping sessions to be gone", GONE_MAX_MS);
      t.diagnostic(`gone from presence after ${((performance.now() - slept) / 1000).toFixed(1)} s`);
      await load.reached(0.9);
      clearInterval(watch);
      t.diagnostic(`the bridge grew from ${before >> 20} to ${most >> 20} MiB meanwhile`);
      assert.ok(most - before < GROWTH_MAX, "the bridge's memory is bounded");
      assert.equal(load.listeners.reduce((sum, listener) => sum + listener.losses, 0), 0, "nobody else has noticed");
      asleep.wake();
      const woke = performance.now();
      const sessions = await asleep.sessions(FEWER);
      t.diagnostic(`they had caught up ${((performance.now() - woke) / 1000).toFixed(1)} s after they woke`);
      for (const { transport, record, recoveries } of sessions) t.diagnostic(`${transport}: ${record.ids.length} events, back ${recoveries} times`);
      python.close();
      return sessions;
    },
    {
      events: FEWER,
      seconds: 8,
      bytes: Math.ceil(BYTES / FEWER),
      pingTimeout: "8s",
      bridgeArgs: ["--write-timeout", "3s"],
      prepare: async (cluster) => {
        python = new Producer(cluster.server.address);
        asleep = await Asleep.start(cluster.bridges[0]);
      },
    },
  );
});

test("a full disk is told to producers, and nothing is lost by it", async (t) => {
  generateStubs();
  const place = disk();
  const name = `disk full, then killed while full (${place.what})`;
  await scenario(
    name,
    async (cluster, load) => {
      const python = new Producer(cluster.server.address);
      await load.reached(0.2);
      await fill(place, cluster.server);
      const event = { chatId: "0", messageIds: ["refused"], readBy: "x".repeat(20_000) };
      const request = { target: { rooms: ["nobody:0"] }, event };
      // What is left in the file may still take a few.
      const error = await until(() => python.call(producer(TENANT), "chat.v1.Chat/NotifyMessagesRead", request).then(() => null, (e) => e), "a refusal");
      t.diagnostic(JSON.stringify({ code: error.code, reason: error.reason, message: error.message }));
      assert.deepStrictEqual([error.code, error.reason], ["UNAVAILABLE", "REASON_UNAVAILABLE"]);
      assert.match(error.message, /cannot be written/);
      const unready = async () => {
        const ready = await get(`${cluster.server.url}/readyz`);
        return ready.status === 503 && ready.text();
      };
      assert.match(await until(unready, "the server to say that it does not deliver"), /cannot be written/);
      const tool = ["notify", "messages_read", JSON.stringify(event), "--server", cluster.server.url, "--jwt-secret", SECRET, "--tenant", TENANT];
      const refused = await until(async () => {
        const tried = await run([...tool, "--room", "nobody:0", "--retry-for", "0s"]);
        return tried.code !== 0 && tried;
      }, "the tool to be refused");
      assert.deepStrictEqual([refused.code, /cannot be written/.test(refused.stderr)], [1, true], refused.stderr);
      python.close();
      place.give(cluster.server);
      await load.reached(0.5);
      await fill(place, cluster.server);
      await cluster.server.kill();
      place.give(cluster.server);
      await cluster.restartServer();
    },
    { events: FEWER, seconds: 6, folder: place.folder, via: place.via },
  );
  place.remove();
});
