// `fanfare subscribe --out`: stored events are in a file or a table once each, whatever is killed.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { Process, run, SECRET, startServer, until } from "./lib/fanfare.js";
import { missing, Postgres } from "./lib/postgres.js";

let server, folder;
const serve = (listen, ...args) => startServer(["--data-dir", path.join(folder, "log"), ...args], listen);

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "fanfare-sink-"));
  server = await serve();
});
after(async () => {
  await server?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const tool = (command, ...args) => [command, ...args, "--server", server.url, "--jwt-secret", SECRET];
const message = (id, content = "Hello") => JSON.stringify({ id, chatId: id % 7, content, fromMe: true, channel: "whatsapp" });
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => from + at);
/** Publishes messages with these numbers. */
const publish = async (tenant, from, to) => {
  const input = range(from, to).map((id) => message(id)).join("\n");
  const { code, stderr } = await run(tool("notify", "message:new", "-", "--tenant", tenant), { input });
  assert.equal(code, 0, stderr);
};
const file = (name) => path.join(folder, name);
const lines = (name) => readFileSync(file(name), "utf8").split("\n").slice(0, -1).map((line) => JSON.parse(line));
const numbers = (name) => lines(name).filter((line) => line.payload).map((line) => line.payload.id);
const consume = (tenant, out, ...args) => new Process(tool("subscribe", "*", "--tenant", tenant, "--out", out, ...args));

test("a file has each event of all rooms once, whatever is killed", async () => {
  let consumer = consume("acme", file("a.jsonl"));
  await consumer.log("storing begins");
  await publish("acme", 1, 2000);
  // An ephemeral event, and one to a single room that nobody else is in.
  assert.equal((await run(tool("notify", "typing:start", '{"chatId":5,"userId":"1"}', "--tenant", "acme"))).code, 0);
  assert.equal((await run(tool("notify", "message:new", message(2001), "--tenant", "acme", "--room", "chat:99"))).code, 0);
  await until(() => numbers("a.jsonl").length >= 500, "some events");
  await consumer.kill();
  consumer = consume("acme", file("a.jsonl"));
  await consumer.log("storing goes on");
  await server.kill();
  server = await serve(server.address);
  await publish("acme", 2002, 3000);
  await until(() => numbers("a.jsonl").at(-1) === 3000, "the last event");
  const second = await run(tool("subscribe", "*", "--tenant", "acme", "--out", file("a.jsonl")));
  assert.match(second.stderr, /another process writes this file/);
  await consumer.stop();
  assert.deepStrictEqual(numbers("a.jsonl"), range(1, 3000));
  const { rooms, name, tenant } = lines("a.jsonl").find((line) => line.payload?.id === 2001);
  assert.deepStrictEqual([rooms, name, tenant], [["chat:99"], "message:new", "acme"]);
});

test("a full file is renamed, and the next one goes on", async () => {
  let consumer = consume("rotated", file("r.jsonl"), "--rotate-bytes", "20KiB");
  await consumer.log("storing begins");
  await publish("rotated", 1, 300);
  await until(() => readdirSync(folder).filter((name) => name.startsWith("r.jsonl.")).length > 0, "a full file");
  await consumer.kill();
  consumer = consume("rotated", file("r.jsonl"), "--rotate-bytes", "20KiB");
  await publish("rotated", 301, 400);
  const all = () => readdirSync(folder).filter((name) => name.startsWith("r.jsonl")).sort((a, b) => (a === "r.jsonl") - (b === "r.jsonl") || a.localeCompare(b)).flatMap(numbers);
  await until(() => all().at(-1) === 400, "the last event");
  await consumer.stop();
  assert.deepStrictEqual(all(), range(1, 400));
});

test("a log that does not reach back ends the consumer, or is noted with --follow", async () => {
  let consumer = consume("short", file("s.jsonl"));
  await consumer.log("storing begins");
  await consumer.stop();
  await server.stop();
  server = await serve(server.address, "--retention-events", "10");
  await publish("short", 1, 500);
  const ended = await run(tool("subscribe", "*", "--tenant", "short", "--out", file("s.jsonl")));
  assert.equal(ended.code, 1);
  assert.match(ended.stderr, /events may be missing: --follow goes on/);
  consumer = consume("short", file("s.jsonl"), "--follow");
  await consumer.log("the log does not reach back: events may be missing");
  await until(() => lines("s.jsonl").some((line) => line.missing_after), "the gap");
  await publish("short", 501, 505);
  await until(() => numbers("s.jsonl").at(-1) === 505, "what comes after the gap");
  await consumer.stop();
  assert.deepStrictEqual(numbers("s.jsonl"), range(501, 505));
  await server.stop();
  server = await serve(server.address);
});

test("tables have each event once, whatever is killed", { skip: missing }, async () => {
  const postgres = await Postgres.start();
  let consumer = consume("sql", postgres.url);
  await consumer.log("storing begins");
  await publish("sql", 1, 1000);
  assert.equal((await run(tool("notify", "message:new", message(1001, "a\0b"), "--tenant", "sql"))).code, 0);
  const count = async () => Number(await postgres.value("SELECT count(*) FROM fanfare_events").catch(() => 0));
  await until(async () => (await count()) >= 100, "some events");
  await postgres.kill();
  await publish("sql", 1002, 1500);
  await postgres.run();
  await until(async () => (await count()) === 1500, "all events");
  await consumer.kill();
  await publish("sql", 1501, 2000);
  consumer = consume("sql", postgres.url);
  await until(async () => (await count()) === 2000, "all events");
  const stored = await postgres.query("SELECT payload->>'id' FROM fanfare_events WHERE name = 'message:new' AND tenant = 'sql' ORDER BY seq");
  assert.deepStrictEqual(stored.map(([id]) => Number(id)), range(1, 2000));
  assert.equal(await postgres.value("SELECT payload->>'content' FROM fanfare_events WHERE payload->>'id' = '1001'"), "a\ufffdb");
  const taken = await run(tool("subscribe", "*", "--tenant", "sql", "--out", postgres.url));
  assert.match(taken.stderr, /another process stores events as "sql\/\*"/);
  await consumer.stop();
  await postgres.stop();
});
