// Attacks without a token: none costs more than a socket. Each test starts a bridge, attacks it from other addresses of
// the loopback network, and looks at its memory and at a session in another tenant.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { call, connect } from "./lib/clients.js";
import { QUIET, startServer, until } from "./lib/fanfare.js";
import { pause } from "./lib/faults/actions.js";
import { Attacker, back, baseline, processor, withstand } from "./lib/attacks/attack.js";
import { bridged, close, letsIn } from "./lib/attacks/bridges.js";
import {
  enter, exchange, fill, LOCAL, proxied, proxied6, proxiedSession, readingBytes, startWithFiles, status,
} from "./lib/attacks/peers.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, user } from "./lib/tokens.js";

const POLLING = "/socket.io/?EIO=4&transport=polling";
/** What a limit may let through too much: connections that are being closed are still counted by the other side. */
const SLACK = 10;

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

const HANDSHAKES = ["--handshakes-per-address-max", "200", "--connect-timeout", "3s", "--request-timeout", "3s"];

test("handshakes without a token are bounded per address, and refused with 503 beyond", (t) =>
  bridged(server, [...HANDSHAKES, "--connects-burst", "1000000", "--connects-per-second", "100000"], (bridge) =>
    withstand(t, bridge, {
      peak: 16,
      begin: async () => ({ began: Date.now(), attacker: await Attacker.start(bridge, { way: "handshakes", connections: 4, requests: 30_000 }) }),
      finish: async ({ began, attacker }) => {
        await letsIn(bridge);
        const counts = await attacker.until(({ sent, statuses }) => sent >= 30_000 || statuses[503] > 200, "the handshakes to be answered");
        const seconds = (Date.now() - began) / 1000;
        t.diagnostic(`${JSON.stringify(counts)} in ${seconds.toFixed(1)} s`);
        assert.ok(counts.statuses[503] > 0, "handshakes beyond the limit are refused");
        assert.equal(counts.withoutRetryAfter, undefined, "each refusal says when to try again");
        // A place is free again when its deadline has passed.
        assert.ok(counts.statuses[200] <= 200 * (1 + seconds / 3) + SLACK, `${counts.statuses[200]} handshakes`);
        await attacker.stop();
      },
    })));

test("WebSockets that never CONNECT are bounded per address and closed in time", (t) =>
  bridged(server, HANDSHAKES, (bridge) =>
    withstand(t, bridge, {
      peak: 24,
      begin: async () => ({ began: Date.now(), attacker: await Attacker.start(bridge, { way: "silentWebSockets", connections: 1000 }) }),
      finish: async ({ began, attacker }) => {
        await letsIn(bridge);
        const counts = await attacker.until(({ open, closed }) => open === 0 && closed >= 1000, "all of them to be closed");
        t.diagnostic(JSON.stringify(counts));
        // A place is free again when its deadline has passed.
        const seconds = (Date.now() - began) / 1000;
        assert.ok(counts.statuses[101] <= 200 * (1 + seconds / 3) + SLACK, `${counts.statuses[101]} WebSockets`);
        assert.ok(counts.statuses[503] > 0 || counts.refused > 0, "those beyond the limit are refused");
        assert.ok(counts.longestMs < 15_000, `the longest was open for ${counts.longestMs.toFixed(0)} ms`);
        await attacker.stop();
      },
    })));

// [what, the attack, what it may take in MiB]
const HALF = [
  ["heads that are trickled", { way: "trickledHeads", connections: 300, every: 200 }, 16],
  ["bodies of polling requests that are trickled", { way: "trickledBodies", connections: 150, every: 200 }, 16],
  ["bodies of console calls that are trickled", {
    way: "trickledBodies", connections: 300, every: 200, path: "/fanfare.v1.Admin/GetServer", head: "content-type: application/grpc-web+proto\r\n",
  }, 16],
  ["connections that send nothing", { way: "idle", connections: 1000 }, 24],
];

for (const [what, task, peak] of HALF) test(`${what} end at a deadline`, (t) =>
  bridged(server, HANDSHAKES, (bridge) =>
    withstand(t, bridge, {
      peak,
      begin: () => Attacker.start(bridge, task),
      finish: async (attacker) => {
        await letsIn(bridge);
        const counts = await attacker.until(({ open, closed }) => open === 0 && closed >= task.connections, "all of them to be closed");
        t.diagnostic(JSON.stringify(counts));
        assert.ok(counts.longestMs < 15_000, `the longest was open for ${counts.longestMs.toFixed(0)} ms`);
        await attacker.stop();
      },
    })));

test("heads without end are cut off when they are too large", (t) =>
  bridged(server, HANDSHAKES, (bridge) =>
    withstand(t, bridge, {
      peak: 32,
      begin: () => Attacker.start(bridge, { way: "hugeHeads", connections: 50 }),
      finish: async (attacker) => {
        await letsIn(bridge);
        const counts = await attacker.until(({ closed }) => closed >= 200, "200 of them to be closed");
        t.diagnostic(JSON.stringify(counts));
        await attacker.stop();
      },
    })));

for (const [way, open] of Object.entries({ "one byte at a time": 32, "nothing": 0 })) test(`a peer that reads ${way} does not outlive its write deadline`, () =>
  bridged(server, ["--write-timeout", "3s", "--queue-bytes-max", "64MiB"], async (bridge) => {
    const tenant = `slow-${open}`;
    const slow = await readingBytes(bridge, user(1, tenant), open);
    const good = await connect(bridge.url, user(2, tenant));
    const sessions = async () => Number((await python.call(producer(tenant), "fanfare.v1.Realtime/GetPresence", {})).sessionCount);
    await until(async () => (await sessions()) === 2, "both sessions");
    slow.slowDown();
    const content = "x".repeat(30_000);
    // More than the kernel holds for a connection, less than the session's queue: only the deadline can end it.
    for (let id = 0; id < 700 && (await sessions()) === 2; id++) {
      await python.call(producer(tenant), "messenger.v1.Messenger/NotifyNewMessage", { event: { id: String(id), chatId: "7", content, channel: "CHANNEL_WABA" } });
    }
    await until(async () => (await sessions()) === 1, "the session that does not read to be gone", 15_000);
    assert.ok(good.connected);
    close(good);
    slow.socket.destroy();
  }));

test("connections per address are bounded", (t) =>
  bridged(server, ["--connections-per-address-max", "50", "--request-timeout", "60s", "--connect-timeout", "60s"], (bridge) =>
    withstand(t, bridge, {
      peak: 16,
      begin: () => Attacker.start(bridge, { way: "idle", connections: 1000 }),
      finish: async (attacker) => {
        await letsIn(bridge);
        const counts = await attacker.until(({ open, closed }) => closed + open >= 1000 && open <= 50, "those beyond the limit to be closed");
        t.diagnostic(JSON.stringify(counts));
        assert.ok(counts.open > 0, "those within the limit stay");
        const { refused } = await enter(bridge.url, user(1, "same"), { from: "127.0.0.2" });
        assert.ok(refused, "a session from the attacker's address is refused");
        await attacker.stop();
        const entered = await until(async () => (await enter(bridge.url, user(1, "same"), { from: "127.0.0.2" })).socket, "room for a session");
        close(entered);
      },
    })));

test("connects per second are bounded per address", (t) =>
  bridged(server, ["--connects-per-second", "20", "--connects-burst", "50"], (bridge) =>
    withstand(t, bridge, {
      peak: 16,
      begin: async () => ({ began: Date.now(), attacker: await Attacker.start(bridge, { way: "connects", connections: 20 }) }),
      finish: async ({ began, attacker }) => {
        await letsIn(bridge);
        const counts = await attacker.until(({ closed }) => closed >= 300, "300 connects");
        const seconds = (Date.now() - began) / 1000;
        t.diagnostic(`${JSON.stringify(counts)} in ${seconds.toFixed(1)} s`);
        // Those within the rate are asked for their token; the others are told to wait.
        assert.ok(counts.statuses[401] <= 50 + 20 * seconds + SLACK, `${counts.statuses[401]} connects in ${seconds} s`);
        assert.ok(counts.statuses[503] > 0, "connects beyond the rate are refused");
        await attacker.stop();
        await until(async () => (await status(bridge, "/poll", { from: "127.0.0.2" })) === 401, "a connect when it is over");
      },
    })));

test("health is answered by a bridge that is full", () =>
  bridged(server, ["--connections-max", "20"], async (bridge) => {
    const { sockets } = await fill(bridge.url, "full", 40);
    assert.ok(sockets.length > 0 && sockets.length <= 20, `${sockets.length} sessions`);
    for (let i = 0; i < 20; i++) {
      assert.equal(await status(bridge, "/healthz"), 200);
      assert.equal(await status(bridge, "/readyz"), 200);
    }
    const answer = await exchange(bridge, `GET ${POLLING} HTTP/1.1\r\nhost: x\r\n\r\n`);
    assert.match(answer, /^HTTP\/1\.1 503 /);
    assert.match(answer, /^retry-after: \d+/im);
    assert.match(answer, /^connection: close/im);
    close(sockets);
    const { socket } = await until(async () => {
      const entered = await enter(bridge.url, user(1, "full"));
      return entered.socket && entered;
    }, "room for a session");
    close(socket);
  }));

test("without files left the bridge waits without spinning, and recovers", async (t) => {
  const bridge = await startWithFiles(server, 200, ["--request-timeout", "60s", "--connect-timeout", "60s"]);
  const witness = await connect(bridge.url, user(1, "files"));
  const memory = await baseline(bridge);
  const attacker = await Attacker.start(bridge, { way: "idle", connections: 400, again: true });
  await attacker.until(({ opened }) => opened >= 300, "more connections than files");
  const [used, began] = [processor(bridge), performance.now()];
  for (let i = 0; i < 40; i++) {
    const [answer] = await Promise.all([call(witness, "ping", {}), pause(50)]);
    assert.ok(answer.timestamp, "the sessions that are there go on");
  }
  const share = (processor(bridge) - used) / ((performance.now() - began) / 1000);
  t.diagnostic(`${(share * 100).toFixed(0)} % of a core`);
  assert.ok(share < 0.3, `it uses ${(share * 100).toFixed(0)} % of a core`);
  await attacker.stop();
  const entered = await until(async () => (await enter(bridge.url, user(2, "files"))).socket, "a session when there are files again");
  close(entered, witness);
  await back(bridge, memory);
  await bridge.stop();
});

/** A limit that shows which address a session is counted for. */
const PER_ADDRESS = ["--sessions-per-address-max", "2"];
const PROXY = "127.0.0.9";

test("sessions per address are bounded, and room is made when one leaves", () =>
  bridged(server, PER_ADDRESS, async (bridge) => {
    const { sockets, refused } = await fill(bridge.url, "address", 5, { from: "127.0.0.2" });
    assert.equal(sockets.length, 2);
    assert.match(refused, /limit|503/);
    for (const polling of [{ transports: ["polling"] }, {}]) {
      assert.match((await enter(bridge.url, user(9, "address"), { from: "127.0.0.2", ...polling })).refused, /limit|503/);
    }
    const other = await fill(bridge.url, "address", 2, { from: "127.0.0.3" });
    assert.equal(other.sockets.length, 2, "another address has its own share");
    close(sockets.pop());
    const entered = await until(async () => (await enter(bridge.url, user(9, "address"), { from: "127.0.0.2" })).socket, "room for a session");
    close(sockets, other.sockets, entered);
  }));

test("X-Forwarded-For counts from a trusted proxy only, and there only its last foreign address", () =>
  bridged(server, [...PER_ADDRESS, "--trusted-proxy", `${PROXY}/32`, "--trusted-proxy", "10.0.0.0/8"], async (bridge) => {
    const via = (from, forwarded) => ({ from, headers: { "x-forwarded-for": forwarded } });
    const one = await fill(bridge.url, "forwarded", 3, via(PROXY, "203.0.113.1"));
    assert.equal(one.sockets.length, 2, "the client's address is limited");
    const two = await fill(bridge.url, "forwarded", 2, via(PROXY, "203.0.113.2"));
    assert.equal(two.sockets.length, 2, "another client behind the same proxy is not");
    // What the client itself put before counts for nothing, and trusted proxies on the way are passed over.
    for (const forged of ["198.51.100.7, 203.0.113.1", "203.0.113.1, 10.1.2.3", "198.51.100.7,203.0.113.1,10.1.2.3"]) {
      assert.match((await enter(bridge.url, user(8, "forwarded"), via(PROXY, forged))).refused ?? "let in", /limit|503/, forged);
    }
    const stranger = "127.0.0.8";
    const three = [];
    for (const claimed of ["198.51.100.1", "198.51.100.2", "198.51.100.3"]) three.push(await enter(bridge.url, user(7, "forwarded"), via(stranger, claimed)));
    assert.deepStrictEqual(three.map(({ socket }) => Boolean(socket)), [true, true, false], "a stranger cannot choose its address");
    close(one.sockets, two.sockets, three.flatMap(({ socket }) => socket ?? []));
  }));

const SIX = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

test("the PROXY protocol names the client; without it, or malformed, a proxy's connection is closed", () =>
  bridged(server, [...PER_ADDRESS, "--trusted-proxy", `${PROXY}/32`, "--proxy-protocol", "true", "--request-timeout", "3s", "--connect-timeout", "3s"], async (bridge) => {
    const health = (before, from = PROXY) => status(bridge, "/healthz", { before, from });
    for (const [what, before] of Object.entries({ "an IPv4 header": proxied("203.0.113.5"), "an IPv6 header": proxied6(SIX), "a header of its own": LOCAL })) {
      assert.equal(await health(before), 200, what);
    }
    const malformed = {
      "no header": "",
      "version 1": "PROXY TCP4 203.0.113.5 127.0.0.1 12345 8080\r\n",
      "a wrong version": proxied("203.0.113.5", { version: 1 }),
      "an unknown command": proxied("203.0.113.5", { command: 7 }),
      "a length that is too small": proxied("203.0.113.5", { length: 4 }),
      "a length without end": proxied("203.0.113.5", { length: 65_535 }),
    };
    for (const [what, before] of Object.entries(malformed)) assert.ok([0, 400].includes(await health(before)), what);
    assert.equal(await health("", "127.0.0.8"), 200, "whoever is no proxy speaks HTTP at once");
    assert.notEqual(await health(proxied("203.0.113.5"), "127.0.0.8"), 200, "and cannot choose its address");
    const session = (address, id) => proxiedSession(bridge, proxied(address), user(id, "proxied"), PROXY);
    const sessions = [await session("203.0.113.5", 1), await session("203.0.113.5", 2)];
    for (const { answer } of sessions) assert.match(answer, /40\{"sid"/);
    const third = await session("203.0.113.5", 3);
    assert.match(third.answer, /limit|HTTP\/1\.1 503/);
    const other = await session("203.0.113.6", 4);
    assert.match(other.answer, /40\{"sid"/, "another client behind the same proxy");
    [...sessions, third, other].forEach(({ socket }) => socket.destroy());
  }));
