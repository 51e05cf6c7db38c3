// The upgrade from long polling to WebSocket in Engine.IO protocol 4: its steps, its failures, and exactly-once delivery meanwhile.
// Written from the specification of the protocol.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { connect } from "./lib/clients.js";
import { acknowledged, ask, number, PATH, Poller, polling, subscribe, upgrade } from "./lib/engine.js";
import { get, QUIET, start, until, within } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, user } from "./lib/tokens.js";
import { TEXT, Wire } from "./lib/wire.js";

let fanfare, url, python;

before(async () => {
  generateStubs();
  // No ping is due while a test runs.
  fanfare = await start({ serverArgs: QUIET, bridgeArgs: ["--ping-interval", "120s", "--ping-timeout", "60s"] });
  url = fanfare.bridge.url;
  python = new Producer(fanfare.server.address);
});

after(async () => {
  python?.close();
  await fanfare?.stop();
});

const notify = (tenant, id) =>
  python.call(producer(tenant), "messenger.v1.Messenger/NotifyNewMessage", { event: { id: String(id), chatId: "7", content: "x", channel: "CHANNEL_WABA" } });

/** Opens a WebSocket for a polling session, probes, and reads the answer. */
async function probe(poller) {
  const wire = await Wire.open(url);
  assert.equal((await wire.upgrade(upgrade(poller.sid))).status, 101);
  wire.text("2probe");
  assert.equal(await wire.message(), "3probe");
  return wire;
}

/** Completes an upgrade. */
async function upgraded(poller) {
  const wire = await probe(poller);
  assert.deepStrictEqual(await poller.packets(), ["6"]);
  wire.text("5");
  return wire;
}

test("after the probe a GET gets a noop, and after the upgrade all packets use the WebSocket", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "upgrade"));
  const wire = await upgraded(poller);
  wire.text(subscribe(1));
  assert.equal(await wire.message((packet) => packet !== "6"), acknowledged(1));
  await notify("upgrade", 1);
  assert.equal(number(await wire.message()), 1);
  wire.destroy();
});

test("a GET that waits during the probe gets a noop", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "waits"));
  const waiting = poller.get();
  await get(`${url}/healthz`);
  const wire = await probe(poller);
  const answer = await waiting;
  assert.deepStrictEqual([answer.status, answer.text], [200, "6"]);
  wire.text("5");
  wire.text(subscribe(1));
  assert.equal(await wire.message((packet) => packet !== "6"), acknowledged(1));
  wire.destroy();
});

test("after an upgrade the sid is refused for polling and for a second WebSocket, and the session stays open", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "after"));
  const wire = await upgraded(poller);
  wire.text(subscribe(1));
  await wire.message((packet) => packet === acknowledged(1));
  assert.equal((await poller.get()).status, 400);
  assert.equal((await poller.post(subscribe(9))).status, 400);
  const second = await Wire.open(url);
  const answer = await second.upgrade(upgrade(poller.sid));
  if (answer.status === 101) await within(second.closed(), "the second WebSocket to be closed");
  else assert.equal(answer.status, 400);
  wire.text(subscribe(2));
  assert.equal(await wire.message(), acknowledged(2));
  wire.destroy();
});

test("a session that started over WebSocket can be neither polled nor upgraded", async () => {
  const wire = await Wire.open(url);
  await wire.upgrade(upgrade());
  const { sid } = JSON.parse((await wire.message()).slice(1));
  assert.equal((await ask(polling(url, sid))).status, 400);
  assert.equal((await ask(polling(url, sid), { method: "POST", body: "3" })).status, 400);
  const second = await Wire.open(url);
  const answer = await second.upgrade(upgrade(sid));
  if (answer.status === 101) await within(second.closed(), "the second WebSocket to be closed");
  wire.text(`40${JSON.stringify({ token: user(1, "born") })}`);
  await wire.message((packet) => packet.startsWith("40{"));
  wire.destroy();
});

/** Probes that fail. */
const PROBES = {
  "is closed before its first packet": () => {},
  "is closed after the answer": async (wire) => {
    wire.text("2probe");
    await wire.message();
  },
  "sends another packet first": async (wire) => {
    wire.text("2hello");
    await within(wire.closed(), "the close");
  },
  "sends a message instead of the upgrade": async (wire) => {
    wire.text("2probe");
    await wire.message();
    wire.text(subscribe(9));
    await within(wire.closed(), "the close");
  },
  "breaks the WebSocket protocol": async (wire) => {
    wire.frame(TEXT, "2probe", { masked: false });
    await within(wire.closed(), "the close");
  },
};

for (const [what, fail] of Object.entries(PROBES)) {
  test(`polling still works when a probe ${what}`, async () => {
    const poller = await Poller.open(url);
    await poller.connect(user(1, "probe"));
    const wire = await Wire.open(url);
    assert.equal((await wire.upgrade(upgrade(poller.sid))).status, 101);
    await fail(wire);
    wire.destroy();
    assert.equal((await poller.post(subscribe(1))).status, 200);
    const got = await poller.until((packet) => packet === acknowledged(1));
    // Only a noop is allowed besides: the packets of the failed probe were not handled.
    assert.deepStrictEqual(got.filter((packet) => packet !== "6"), [acknowledged(1)]);
    // The next upgrade succeeds.
    const again = await upgraded(poller);
    again.text(subscribe(2));
    assert.equal(await again.message((packet) => packet !== "6"), acknowledged(2));
    again.destroy();
  });
}

test("events that wait during an upgrade arrive over the WebSocket, once and in order", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "handover"));
  const wire = await probe(poller);
  assert.deepStrictEqual(await poller.packets(), ["6"]);
  for (let id = 1; id <= 5; id++) await notify("handover", id);
  wire.text("5");
  for (let id = 6; id <= 8; id++) await notify("handover", id);
  const got = [];
  while (got.at(-1) !== 8) got.push(number(await wire.message((packet) => packet !== "6")));
  assert.deepStrictEqual(got, [1, 2, 3, 4, 5, 6, 7, 8]);
  wire.destroy();
});

test("stock clients that upgrade while events are published get each event once", async () => {
  let [count, done] = [0, false];
  const publishing = (async () => {
    while (!done) await notify("stock", ++count);
  })();
  for (let round = 0; round < 15; round++) {
    const socket = await connect(url, user(1, "stock"), { transports: ["polling", "websocket"] });
    await until(() => socket.io.engine.transport.name === "websocket", "the upgrade");
    const upgradedAt = count;
    await socket.event("message:new", (message) => message.id > upgradedAt + 3);
    const ids = socket.events.filter(([name]) => name === "message:new").map(([, message]) => message.id);
    assert.deepStrictEqual(ids, ids.map((_, i) => ids[0] + i));
    socket.close();
  }
  done = true;
  await publishing;
});
