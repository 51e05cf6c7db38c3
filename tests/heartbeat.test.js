// Heartbeats of Engine.IO protocol 4 over both transports. All measured times have lower bounds only, so a slow machine does not matter.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { connect } from "./lib/clients.js";
import { PATH, Poller } from "./lib/engine.js";
import { get, QUIET, startBridge, startServer, until, within } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, user } from "./lib/tokens.js";
import { Wire } from "./lib/wire.js";

const INTERVAL = 300;
/** A timer may fire a little early. */
const EARLY = 20;
let server, patient, hasty, python;

before(async () => {
  generateStubs();
  server = await startServer(QUIET);
  const bridge = (timeout) => startBridge(server, ["--ping-interval", `${INTERVAL}ms`, "--ping-timeout", timeout]);
  // `patient` gives clients that answer enough time; `hasty` is for clients that do not.
  [patient, hasty] = [await bridge("3s"), await bridge("200ms")];
  python = new Producer(server.address);
});

after(async () => {
  python?.close();
  await patient?.stop();
  await hasty?.stop();
  await server?.stop();
});

/** A WebSocket after its handshake. */
async function open(url) {
  const wire = await Wire.open(url);
  await wire.upgrade(`${PATH}?EIO=4&transport=websocket`);
  await wire.message((packet) => packet.startsWith("0{"));
  return wire;
}

test("over WebSocket the first ping is sent after the interval, not earlier", async () => {
  const began = performance.now();
  const wire = await open(patient.url);
  assert.equal(await wire.message(), "2");
  const waited = performance.now() - began;
  assert.ok(waited >= INTERVAL - EARLY, `after ${waited} ms`);
  wire.destroy();
});

test("over polling the first ping is sent after the interval, as answer to the waiting GET", async () => {
  const began = performance.now();
  const poller = await Poller.open(patient.url);
  const { status, text } = await poller.get();
  const waited = performance.now() - began;
  assert.deepStrictEqual([status, text], [200, "2"]);
  assert.ok(waited >= INTERVAL - EARLY, `after ${waited} ms`);
});

test("pings have no data and repeat at the interval while they are answered", async () => {
  const began = performance.now();
  const wire = await open(patient.url);
  for (let n = 1; n <= 5; n++) {
    assert.equal(await wire.message(), "2");
    const waited = performance.now() - began;
    assert.ok(waited >= n * (INTERVAL - EARLY), `ping ${n} after ${waited} ms`);
    wire.text("3");
  }
  wire.destroy();
});

test("over WebSocket a session stays open while the client answers pings, and is closed afterwards", async () => {
  const wire = await open(patient.url);
  // 15 intervals take longer than one interval and one timeout.
  for (let n = 0; n < 15; n++) {
    await wire.message((packet) => packet === "2");
    wire.text("3");
  }
  await within(wire.closed(), "the close");
});

test("over polling a session stays open while the client answers pings, and is closed afterwards", async () => {
  const poller = await Poller.open(patient.url);
  for (let n = 0; n < 15; n++) {
    assert.ok((await poller.packets()).includes("2"));
    assert.deepStrictEqual((({ status, text }) => [status, text])(await poller.post("3")), [200, "ok"]);
  }
  await until(async () => (await poller.get()).status === 400, "the session to be closed");
  const { status, code } = await poller.post("3");
  assert.deepStrictEqual([status, code], [400, 1]);
});

test("a client that never answers is closed after interval and timeout, not earlier", async () => {
  const began = performance.now();
  const wire = await open(hasty.url);
  await within(wire.closed(), "the close");
  const waited = performance.now() - began;
  assert.ok(waited >= INTERVAL + 200 - EARLY, `after ${waited} ms`);
});

test("a session without any request is closed after interval and timeout", async () => {
  const poller = await Poller.open(patient.url);
  await poller.connect(user(1, "silent"));
  const count = async () => Number((await python.call(producer("silent"), "fanfare.v1.Realtime/GetPresence", {})).sessionCount ?? 0);
  assert.equal(await count(), 1);
  await until(async () => (await count()) === 0, "the session to be gone");
  const { status, code } = await poller.post("3");
  assert.deepStrictEqual([status, code], [400, 1]);
});

test("a GET that waits during the timeout is answered", async () => {
  const poller = await Poller.open(hasty.url);
  const statuses = [];
  while (statuses.at(-1) !== 400) statuses.push((await within(poller.get(), "an answer")).status);
  assert.ok(statuses.length >= 2, "a ping was sent first");
});

test("a ping from a client closes its session: in protocol 4 only servers send pings", async () => {
  const wire = await open(patient.url);
  wire.text("2");
  await within(wire.closed(), "the close");
});

test("an unexpected pong is ignored", async () => {
  const wire = await open(patient.url);
  for (let n = 0; n < 10; n++) wire.text("3");
  wire.text(`40${JSON.stringify({ token: user(1, "pong") })}`);
  await wire.message((packet) => packet.startsWith("40{"));
  wire.destroy();
});

test("after an upgrade pings are sent over the WebSocket", async () => {
  const poller = await Poller.open(patient.url);
  const wire = await Wire.open(patient.url);
  assert.equal((await wire.upgrade(`${PATH}?EIO=4&transport=websocket&sid=${poller.sid}`)).status, 101);
  wire.text("2probe");
  assert.equal(await wire.message((packet) => packet !== "2"), "3probe");
  await poller.until((packet) => packet === "6");
  wire.text("5");
  for (let n = 0; n < 3; n++) {
    await wire.message((packet) => packet === "2");
    wire.text("3");
  }
  wire.destroy();
});

test("an upgrade that is never completed is closed, and polling still works", async () => {
  const poller = await Poller.open(patient.url);
  const wire = await Wire.open(patient.url);
  assert.equal((await wire.upgrade(`${PATH}?EIO=4&transport=websocket&sid=${poller.sid}`)).status, 101);
  wire.text("2probe");
  const closed = wire.closed();
  let over = false;
  closed.then(() => (over = true));
  while (!over) {
    const packets = await poller.packets();
    if (packets.includes("2")) assert.equal((await poller.post("3")).status, 200);
  }
  await poller.connect(user(1, "probe"));
});

test("stock clients stay connected for many pings on both transports", async () => {
  for (const transports of [["websocket"], ["polling"]]) {
    const socket = await connect(patient.url, user(1, "stock"), { transports });
    let pings = 0;
    const enough = new Promise((resolve) => socket.io.on("ping", () => ++pings === 12 && resolve()));
    await within(enough, "twelve pings");
    assert.equal(socket.connected, true);
    socket.close();
  }
});

test("a close packet closes the WebSocket", async () => {
  const wire = await open(patient.url);
  wire.text("1");
  const { framed, code } = await within(wire.closed(), "the close");
  if (framed) assert.ok([1000, 1005, undefined].includes(code), `code ${code}`);
  assert.equal((await get(`${patient.url}/healthz`)).status, 200);
});
