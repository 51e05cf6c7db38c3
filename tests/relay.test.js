// `fanfare relay`: rows of an outbox in a real PostgreSQL become events, each once and in the order of
// their key, whatever is killed.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { get, Process, run, SECRET, startServer, until } from "./lib/fanfare.js";
import { missing, Postgres } from "./lib/postgres.js";

const skip = missing;
const ROWS = Number(process.env.FANFARE_RELAY_ROWS ?? 50_000);
const TENANTS = ["t0", "t1", "t2", "t3"];
const CHATS = 5;

let postgres, server, data, relays;

const startRelay = async () => {
  const args = ["--postgres", postgres.url, "--server", server.url, "--jwt-secret", SECRET, "--tenant", "*"];
  const relay = new Process(["relay", ...args, "--metrics-listen", "127.0.0.1:0"]);
  await relay.log("relay connected to the database");
  relay.url = `http://${(await relay.log("metrics listening")).address}`;
  return relay;
};
/** A server on the same log and at the same address each time. */
const serve = (listen) => startServer(["--data-dir", data], listen);

before(async () => {
  if (skip) return;
  data = mkdtempSync(path.join(tmpdir(), "fanfare-relay-"));
  [postgres, server] = await Promise.all([Postgres.start(), serve()]);
  const { code, stdout } = await run(["relay", "--print-migration"]);
  assert.equal(code, 0);
  // It may be run again.
  await postgres.query(stdout + stdout);
  relays = [await startRelay(), await startRelay()];
});
after(async () => {
  if (skip) return;
  for (const relay of relays ?? []) await relay.stop();
  await server?.stop();
  await postgres?.stop();
  rmSync(data, { recursive: true, force: true });
});

const tool = (command, ...args) => [command, ...args, "--server", server.url, "--jwt-secret", SECRET];
const message = (id, chatId = 7) => `{"id":${id},"chatId":${chatId},"content":"Hello","fromMe":true,"channel":"whatsapp"}`;
/** Publishes an event beside the outbox; gives its cursor. */
const mark = async (tenant, id) => {
  const { code, stdout, stderr } = await run(tool("notify", "message:new", message(id), "--tenant", tenant));
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout).id;
};
/** All events of a tenant between two marks. */
const published = async (tenant, from, end) => {
  await mark(tenant, end);
  const reader = new Process(tool("subscribe", "org", "--tenant", tenant, "--after", from));
  const isEnd = () => reader.stdout.slice(-2000).includes(`"id":${end},`);
  await until(isEnd, "all events");
  await reader.stop();
  return reader.printed().slice(0, -1);
};
const drained = () => until(async () => (await postgres.value("SELECT count(*) FROM fanfare_outbox")) === "0", "all rows to be published");
const metric = async (name) => {
  const pages = await Promise.all(relays.map(async (relay) => (await get(`${relay.url}/metrics`)).text()));
  return pages.map((page) => Number(page.split("\n").find((line) => line.startsWith(`${name} `)).split(" ")[1]));
};

test("a row becomes an event when its transaction commits", { skip }, async () => {
  const from = await mark("acme", 1);
  await postgres.query(`
    BEGIN; INSERT INTO fanfare_outbox (tenant, type, payload) VALUES ('acme', 'message:new', '${message(2)}'); ROLLBACK;
    BEGIN;
    INSERT INTO fanfare_outbox (tenant, type, payload) VALUES ('acme', 'messenger.v1.NewMessage', '${message(3)}');
    INSERT INTO fanfare_outbox (tenant, type, payload, rooms) VALUES ('acme', 'message:new', '${message(4)}', '{org,"chat:8"}');
    INSERT INTO fanfare_outbox (tenant, type, protobuf) VALUES ('acme', 'messenger.v1.ChatDeleted', '\\x0807');
    COMMIT;`);
  await drained();
  const events = await published("acme", from, 5);
  assert.deepStrictEqual(events.map(({ name, payload }) => [name, payload.id ?? payload.chatId]), [
    ["message:new", 3],
    ["message:new", 4],
    ["chat:deleted", 7],
  ]);
  assert.deepStrictEqual(events.slice(0, 2).map(({ rooms }) => rooms.sort()), [
    ["chat:7", "org"],
    ["chat:8", "org"],
  ]);
});

test("a row that is refused for good is moved aside and holds up nothing", { skip }, async () => {
  const from = await mark("acme", 10);
  const rows = [
    ["message:new", message(11)],
    ["message:nwe", "{}"],
    ["message:new", '{"chatId":"no number"}'],
    // The server refuses this one: the log accepts no events of this size.
    ["message:new", JSON.stringify({ ...JSON.parse(message(12)), content: "x".repeat(100_000) })],
    ["message:new", message(13)],
  ];
  await postgres.query(`INSERT INTO fanfare_outbox (tenant, type, payload) VALUES ${rows.map(([type, json]) => `('acme', '${type}', '${json}')`)};`);
  await drained();
  assert.deepStrictEqual((await published("acme", from, 14)).map(({ payload }) => payload.id), [11, 13]);
  const reasons = await postgres.query("SELECT reason FROM fanfare_outbox_refused ORDER BY position");
  const patterns = [/no loaded catalog has an event "message:nwe" \(did you mean "message:new"\?\)/, /chatId/, /event-bytes-max/];
  assert.equal(reasons.length, patterns.length);
  patterns.forEach((pattern, at) => assert.match(reasons[at][0], pattern));
  assert.equal((await metric("fanfare_relay_refused_total")).reduce((a, b) => a + b), 3);
});

test("relays share the partitions", { skip }, async () => {
  await until(async () => (await metric("fanfare_relay_partitions")).every((count) => count === 16), "16 partitions each");
  for (const relay of relays) assert.equal((await get(`${relay.url}/readyz`)).status, 200);
});

test(`${ROWS} rows: none is lost, none is doubled, keys keep their order, whatever is killed`, { skip }, async () => {
  await postgres.query("CREATE TABLE business (tenant text, chat int, n bigint, PRIMARY KEY (tenant, chat, n))");
  const marks = Object.fromEntries(await Promise.all(TENANTS.map(async (tenant) => [tenant, await mark(tenant, 1)])));
  const count = async () => Number(await postgres.value("SELECT count(*) FROM business").catch(() => 0));
  const [each, step] = [ROWS / TENANTS.length, 25];
  // Each transaction writes the business rows and the outbox rows; what committed is known afterwards.
  const write = (tenant, from) => `BEGIN;
    INSERT INTO business SELECT '${tenant}', n % ${CHATS}, n FROM generate_series(${from}, ${from + step - 1}) AS n;
    INSERT INTO fanfare_outbox (tenant, key, type, payload)
      SELECT '${tenant}', 'chat:' || n % ${CHATS}, 'message:new',
        jsonb_build_object('id', n, 'chatId', n % ${CHATS}, 'content', 'Hello', 'fromMe', true, 'channel', 'whatsapp')
      FROM generate_series(${from}, ${from + step - 1}) AS n ORDER BY n; COMMIT;`;
  const writer = async (tenant) => {
    for (;;) {
      const sql = `SELECT coalesce(max(n), 0) FROM business WHERE tenant = '${tenant}'`;
      const next = 1 + Number(await until(() => postgres.value(sql).catch(() => undefined), "the database"));
      if (next > each) return;
      const count = Math.min(20, (each - next + 1) / step);
      await postgres.script(Array.from({ length: count }, (_, at) => write(tenant, next + at * step)).join("\n"));
    }
  };
  const reached = (share) => until(async () => (await count()) >= ROWS * share, `${share} of the rows`, 120_000);
  const killing = async () => {
    await reached(0.1);
    await relays[0].kill();
    await reached(0.25);
    relays[0] = await startRelay();
    await reached(0.3);
    await server.kill();
    server = await serve(server.address);
    await reached(0.5);
    await postgres.kill();
    await postgres.run();
    await reached(0.7);
    await relays[1].kill();
    await server.kill();
    server = await serve(server.address);
    relays[1] = await startRelay();
  };
  await Promise.all([killing(), ...TENANTS.map(writer)]);
  await drained();
  assert.equal(await count(), ROWS);
  for (const tenant of TENANTS) {
    const events = await published(tenant, marks[tenant], 1_000_000);
    for (let chat = 0; chat < CHATS; chat++) {
      const got = events.filter(({ payload }) => payload.chatId === chat).map(({ payload }) => payload.id);
      const expected = await postgres.query(`SELECT n FROM business WHERE tenant = '${tenant}' AND chat = ${chat} ORDER BY n`);
      assert.deepStrictEqual(got, expected.map(([n]) => Number(n)), `${tenant}, chat ${chat}`);
    }
  }
  assert.equal(await postgres.value("SELECT count(*) FROM fanfare_outbox_refused WHERE tenant <> 'acme'"), "0");
});
