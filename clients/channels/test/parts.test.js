// The parts of the service alone: the store on a real disk, the place in the log, lanes, and what channels' messages mean.

import { test } from "node:test";
import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { idempotencyKey, number } from "../dist/common/ids.js";
import { Lanes, LanesFull } from "../dist/common/lanes.js";
import { lock } from "../dist/common/lock.js";
import { addSecret, describe } from "../dist/common/log.js";
import { isFurther } from "../dist/common/outbox.js";
import { Place } from "../dist/common/place.js";
import { readSettings } from "../dist/common/settings.js";
import { Store } from "../dist/common/store.js";
import { refusal } from "../dist/waba/api.js";

const folder = () => mkdtempSync(path.join(tmpdir(), "channels-"));

test("a store has what was written before, without the line that a crash cut off", async () => {
  const file = path.join(folder(), "a.jsonl");
  const store = await Store.open(file);
  await Promise.all([store.put("seen", "1", { at: 1 }), store.put("seen", "2", { at: 2 }), store.put("seen", "1", { at: 3 }), store.put("seen", "3", null)]);
  await store.close();
  appendFileSync(file, '{"k":"seen","i":"4","v":{"a');
  const again = await Store.open(file);
  assert.deepStrictEqual([...again.all("seen")], [["2", { at: 2 }], ["1", { at: 3 }]]);
  await again.put("seen", "5", { at: 5 });
  await again.close();
  assert.equal((await Store.open(file)).get("seen", "5").at, 5);
});

test("a store is rewritten when most of it is out of date", async () => {
  const file = path.join(folder(), "a.jsonl");
  const store = await Store.open(file);
  const text = "x".repeat(10_000);
  for (let round = 0; round < 300; round++) await store.put("out", String(round % 3), { text, round });
  assert.ok(statSync(file).size < 2 << 20, `${statSync(file).size} bytes`);
  await store.close();
  assert.deepStrictEqual([...(await Store.open(file)).all("out").values()].map((v) => v.round), [297, 298, 299]);
});

test("a damaged store is refused and not overwritten", async () => {
  const file = path.join(folder(), "a.jsonl");
  writeFileSync(file, '{"k":"seen","i":"1","v":1}\nrubbish\n{"k":"seen","i":"2","v":1}\n');
  await assert.rejects(Store.open(file), /a\.jsonl:2 is damaged/);
  assert.match(readFileSync(file, "utf8"), /rubbish/);
});

test("pruning removes the old and the oldest, never what must stay", async () => {
  const store = await Store.open(path.join(folder(), "a.jsonl"));
  for (let at = 0; at < 10; at++) await store.put("out", String(at), { at });
  store.prune("out", 5, ({ at }) => at < 2, ({ at }) => at !== 1);
  assert.deepStrictEqual([...store.all("out").keys()], ["1", "6", "7", "8", "9"]);
  await store.close();
});

test("a data folder has one process", async () => {
  const data = folder();
  const held = await lock(data);
  await assert.rejects(lock(data), /in use by another process/);
  await new Promise((resolve) => held.close(resolve));
  (await lock(data)).close();
});

test("the safe place stays before an event that is not recorded", () => {
  const place = new Place("start");
  const [first, second] = [place.begin(), place.begin()];
  place.reached("b", 2n);
  place.end(second);
  assert.equal(place.safe, "start");
  const third = place.begin();
  place.reached("a", 1n);
  place.end(first);
  assert.equal(place.safe, "b");
  place.reached("c", 3n);
  place.end(third);
  assert.equal(place.safe, "c");
});

test("a lane runs its jobs in order, goes on after a failure, and all lanes together are bounded", async () => {
  const lanes = new Lanes(3);
  const done = [];
  let open;
  const gate = new Promise((resolve) => (open = resolve));
  const first = lanes.run("a", () => gate.then(() => Promise.reject(new Error("first"))));
  const second = lanes.run("a", async () => done.push("second"));
  await lanes.run("b", async () => done.push("other"));
  const third = lanes.run("a", async () => done.push("third"));
  await assert.rejects(lanes.run("c", async () => {}), LanesFull);
  open();
  await assert.rejects(first, /first/);
  await Promise.all([second, third]);
  assert.deepStrictEqual(done, ["other", "second", "third"]);
});

test("statuses move forward only", () => {
  const all = ["pending", "sent", "delivered", "read", "failed"];
  const further = all.map((from) => all.filter((to) => isFurther(from, to)));
  assert.deepStrictEqual(further, [["sent", "delivered", "read", "failed"], ["delivered", "read", "failed"], ["read"], [], []]);
});

test("numbers and keys are the same for the same ids, and fit where they go", () => {
  assert.equal(number("a", "bc"), number("a", "bc"));
  assert.notEqual(number("a", "bc"), number("ab", "c"));
  for (let at = 0; at < 1_000; at++) assert.ok(number(at) > 0n && number(at) < 2n ** 53n);
  assert.equal(idempotencyKey("a").length, 43);
});

test("errors and their causes have no secrets", () => {
  addSecret("123:secret");
  assert.equal(describe(new Error("outer", { cause: new Error("at /bot123:secret/getMe") })), "outer: at /bot***/getMe");
});

test("what the Graph API refuses is tried again, pauses the account, or is final", () => {
  const kind = (status, code) => {
    const { final, accountWide, label } = refusal(status, { error: { code, message: "m" } }, 0);
    return [label, final, accountWide];
  };
  assert.deepStrictEqual(kind(400, 130429), ["rate", false, true]);
  assert.deepStrictEqual(kind(400, 131056), ["rate", false, false]);
  assert.deepStrictEqual(kind(429, undefined), ["rate", false, true]);
  assert.deepStrictEqual(kind(400, 131016), ["server", false, false]);
  assert.deepStrictEqual(kind(500, 1), ["server", false, false]);
  assert.deepStrictEqual(kind(401, 190), ["token", false, true]);
  assert.deepStrictEqual(kind(400, 131047), ["refused", true, false]);
});

test("settings come by flag, then environment, then file, and the file has many accounts", () => {
  const file = path.join(folder(), "channels.toml");
  writeFileSync(file, 'tenant = "5"\nsend-timeout = "1m"\noutbox-max = 7\n[[account]]\nchannel = "x"\nname = "second"\ntenant = "6"\ntoken = "t"\n');
  const channel = { channel: "x", settings: [{ name: "token", help: "", secret: true }, { name: "rate", help: "", default: "3" }] };
  const read = (args, env = {}) => readSettings("test", [channel], ["--config", file, ...args], env);
  const { general, accounts } = read(["--outbox-max", "9", "--x-token", "f"], { FANFARE_CHANNELS_SEND_TIMEOUT: "2m", FANFARE_CHANNELS_OUTBOX_MAX: "8" });
  assert.deepStrictEqual([general.count("outbox-max", 10), general.duration("send-timeout"), general.get("tenant")], [9, 120_000, "5"]);
  assert.deepStrictEqual(accounts.map(({ name, tenant, values }) => [name, tenant, values.secret("token"), values.get("rate")]), [["x", "5", "f", "3"], ["second", "6", "t", "3"]]);
  assert.throws(() => read(["--x-token", "f"]).general.count("outbox-max", 5), /outbox-max must be a number from 1 to 5/);
  writeFileSync(file, "[[account]]\nchannel = \"x\"\ntokn = \"t\"\n");
  assert.throws(() => read([]), /account 1: "tokn" is no setting/);
  writeFileSync(file, "server = {}\n");
  assert.throws(() => read([]), /server must be a string/);
});
