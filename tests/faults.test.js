// Whatever dies in between, every acknowledged event reaches every session of its rooms once and in order: counted for each
// session against the producers' own record of answers.

import { after, test } from "node:test";
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { io } from "socket.io-client";
import { Process, QUIET, SECRET, startBridge, startServer, until, within } from "./lib/fanfare.js";
import { Proxy } from "./lib/proxy.js";
import { user } from "./lib/tokens.js";

const SESSIONS = 200;
const PRODUCERS = 4;
/** Events of each producer; FANFARE_FAULT_EVENTS changes it. */
const EVENTS = Number(process.env.FANFARE_FAULT_EVENTS ?? 50_000) / PRODUCERS;
/** Every session is in one of these chats. */
const CHATS = 40;
const rows = [];

after(() => {
  console.log("| scenario | acknowledged | deliveries | missing | doubled | out of order | recoveries | s |\n| --- | --- | --- | --- | --- | --- | --- | --- |");
  for (const row of rows) console.log(`| ${row.join(" | ")} |`);
});

/** A stock client that comes back by itself, to any of the bridges, and keeps what it gets. */
class Listener {
  constructor(urls, index) {
    this.chat = index % CHATS;
    this.seqs = [];
    this.recoveries = 0;
    this.socket = io(urls()[index % urls().length], {
      auth: { token: user(index, "faults") }, transports: ["websocket"], forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 500, timeout: 3000,
    });
    this.socket.on("messages_read", (read, offset) => this.seqs.push(Number(offset.split("-")[1])));
    this.socket.on("connect", () => (this.recoveries += Number(this.socket.recovered)));
    this.socket.on("connect_error", () => {
      // As a front end behind a balancer: somebody else, after a pause.
      this.socket.io.uri = urls()[Math.floor(Math.random() * urls().length)];
      if (!this.socket.active) setTimeout(() => this.socket.connect(), 200);
    });
    this.socket.on("disconnect", (reason) => {
      if (reason === "io server disconnect") this.final = true;
    });
  }

  async joined() {
    const join = () => new Promise((resolve) => this.socket.emit("join_chat", { chatId: `${this.chat}` }, resolve));
    await until(() => this.socket.connected, "the session to connect");
    const answer = await within(join(), "the session to join");
    assert.deepStrictEqual(answer, { chatId: `${this.chat}` });
  }
}

/** A producer process that publishes until all of its events are answered, through whatever happens. */
function produce(url, number) {
  const producer = new Process([
    "notify", "messages_read", "-", "--server", url, "--jwt-secret", SECRET, "--tenant", "faults", "--retry-for", "60s",
  ]);
  const lines = [];
  for (let i = 0; i < EVENTS; i++) {
    const id = number * EVENTS + i;
    lines.push(JSON.stringify({ chatId: `${id % CHATS}`, messageIds: [`${id}`], readBy: `producer-${number}` }));
  }
  producer.child.stdin.on("error", () => {});
  producer.child.stdin.end(`${lines.join("\n")}\n`);
  return producer;
}

/** Runs a scenario: sessions, producers, and what happens to them; then everything is counted. */
async function scenario(name, disturb, { bridges = 2 } = {}) {
  const began = Date.now();
  const folder = mkdtempSync(path.join(tmpdir(), "fanfare-faults-"));
  const args = [...QUIET, "--data-dir", folder, "--heartbeat-interval", "500ms", "--recovery-window", "2m"];
  const world = { server: await startServer(args), bridges: [], proxies: [] };
  world.restartServer = async () => {
    world.server = await startServer(args, world.server.address);
  };
  world.toServer = await Proxy.to(world.server.address);
  for (let i = 0; i < bridges; i++) world.bridges.push(await startBridge(world.toServer, ["--ping-interval", "1s", "--ping-timeout", "2s"]));
  world.urls = () => world.bridges.map((bridge) => bridge.url);
  world.startBridge = () => startBridge(world.toServer, ["--ping-interval", "1s", "--ping-timeout", "2s"]);
  world.listeners = Array.from({ length: SESSIONS }, (_, i) => new Listener(world.urls, i));
  await Promise.all(world.listeners.map((listener) => listener.joined()));
  world.producers = Array.from({ length: PRODUCERS }, (_, number) => produce(world.server.url, number));
  world.answered = () => world.producers.reduce((sum, producer) => sum + producer.stdout.split("\n").length - 1, 0);
  /** Resolves when a part of all events is answered. */
  world.reached = (part) => until(() => world.answered() >= part * EVENTS * PRODUCERS, `${part} of all events to be answered`, 120_000);
  await disturb(world);
  for (const producer of world.producers) {
    const { code } = await within(producer.ended, "the producer to end", 120_000);
    assert.equal(code, 0, producer.text());
    await within(producer.closed, "the producer's last words");
  }

  // What each chat must have got: what was answered, by the producers' own record.
  const wanted = Array.from({ length: CHATS }, () => new Set());
  let acknowledged = 0;
  world.producers.forEach((producer, number) => {
    producer.printed().forEach(({ seq }, i) => {
      wanted[(number * EVENTS + i) % CHATS].add(seq);
      acknowledged += 1;
    });
  });
  const last = wanted.map((seqs) => Math.max(...seqs));
  let [missing, doubled, disordered, deliveries, recoveries] = [0, 0, 0, 0, 0];
  for (const listener of world.listeners) {
    await until(() => listener.seqs.at(-1) >= last[listener.chat], `the last event of ${listener.chat}`, 60_000).catch(() => {});
    const seen = new Set(listener.seqs);
    deliveries += listener.seqs.length;
    recoveries += listener.recoveries;
    doubled += listener.seqs.length - seen.size;
    disordered += listener.seqs.filter((seq, i) => i > 0 && seq < listener.seqs[i - 1]).length;
    for (const seq of wanted[listener.chat]) missing += Number(!seen.has(seq));
    assert.ok(!listener.final, "no session was ended for good");
  }
  rows.push([name, acknowledged, deliveries, missing, doubled, disordered, recoveries, ((Date.now() - began) / 1000).toFixed(1)]);
  world.listeners.forEach((listener) => listener.socket.close());
  for (const bridge of world.bridges) await bridge.stop();
  await world.server.stop();
  world.toServer.close();
  rmSync(folder, { recursive: true });
  assert.equal(acknowledged, EVENTS * PRODUCERS);
  assert.deepStrictEqual({ missing, doubled, disordered }, { missing: 0, doubled: 0, disordered: 0 });
  return { recoveries };
}

test("the server is killed, twice", async () => {
  await scenario("server killed twice", async (world) => {
    for (const part of [0.2, 0.6]) {
      await world.reached(part);
      await world.server.kill();
      await world.restartServer();
    }
  });
});

test("a bridge is killed", async () => {
  const { recoveries } = await scenario("bridge killed", async (world) => {
    await world.reached(0.3);
    await world.bridges.shift().kill();
    await world.reached(0.6);
    world.bridges.push(await world.startBridge());
  });
  assert.ok(recoveries >= SESSIONS / 2, `${recoveries} recoveries`);
});

test("the links to the server are cut, again and again", async () => {
  await scenario("links cut 5 times", async (world) => {
    for (const part of [0.1, 0.25, 0.4, 0.55, 0.7]) {
      await world.reached(part);
      world.toServer.cut();
    }
  });
});

test("the server is paused for longer than the timeouts", async () => {
  await scenario("server paused 3 s", async (world) => {
    await world.reached(0.3);
    world.server.child.kill("SIGSTOP");
    await new Promise((resolve) => setTimeout(resolve, 3000));
    world.server.child.kill("SIGCONT");
  });
});

test("a bridge is paused for longer than the timeouts", async () => {
  await scenario("bridge paused 5 s", async (world) => {
    await world.reached(0.3);
    world.bridges[0].child.kill("SIGSTOP");
    await new Promise((resolve) => setTimeout(resolve, 5000));
    world.bridges[0].child.kill("SIGCONT");
  });
});

test("a bridge is told to stop", async () => {
  await scenario("bridge drained", async (world) => {
    await world.reached(0.3);
    const [draining] = world.bridges.splice(0, 1);
    await draining.stop();
  });
});

test("everything is killed and started again", async () => {
  await scenario("everything killed", async (world) => {
    await world.reached(0.4);
    const gone = world.bridges.splice(0);
    await Promise.all([world.server.kill(), ...gone.map((bridge) => bridge.kill())]);
    await world.restartServer();
    for (let i = 0; i < 2; i++) world.bridges.push(await world.startBridge());
  });
});
