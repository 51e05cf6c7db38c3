// Metrics of real processes: their format as promtool reads it, their values, and their documentation.

import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, before, test } from "node:test";
import assert from "node:assert/strict";

import { admin } from "./lib/admin.js";
import { connect, refusal, call } from "./lib/clients.js";
import { ENGINE, get, ROOT, run, start, until } from "./lib/fanfare.js";
import { producer, user } from "./lib/tokens.js";

const NOTE = { id: 1, chatId: 7, content: "x", fromMe: true, channel: "whatsapp" };
const LISTEN = ["--metrics-listen", "127.0.0.1:0"];
let fanfare;
let addresses;
// The same with names of tenants.
let named;
let byTenant;

before(async () => {
  fanfare = await start({ alone: true, serverArgs: LISTEN, bridgeArgs: [...LISTEN, "--calls-burst", "5", "--calls-per-second", "1"] });
  const names = [...LISTEN, "--metrics-tenants", "1"];
  named = await start({ alone: true, serverArgs: names, bridgeArgs: names });
  const of = async (process) => `http://${(await process.log("metrics listening")).address}/metrics`;
  addresses = { server: await of(fanfare.server), bridge: await of(fanfare.bridge) };
  byTenant = { server: await of(named.server), bridge: await of(named.bridge) };
});
after(async () => {
  await named?.stop();
  await fanfare?.stop();
});

const text = async (url, options) => (await get(url, options)).text();

/** All values of a page, by name and labels as they are written. */
async function scrape(url) {
  const lines = (await text(url)).split("\n").filter((line) => line && !line.startsWith("#"));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]));
}

/** The names of all families of a page, with their types. */
const families = (page) => new Map([...page.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name, type]));

function publish(kind, event, tenant = "m", server = fanfare.server) {
  const target = ["--server", server.url, "--token", producer(), "--tenant", tenant];
  return run(["notify", ...target, kind, JSON.stringify(event)]);
}

function promtool(args, input) {
  const { status, stdout, stderr } = spawnSync("promtool", args, { input, encoding: "utf8" });
  assert.equal(status, 0, stdout + stderr);
  // A hint is a fault too.
  return stdout + stderr;
}

const withoutPromtool = spawnSync("promtool", ["--version"]).error && "promtool is not installed";

test("promtool has nothing to say about the metrics", { skip: withoutPromtool }, async () => {
  for (const url of Object.values(addresses)) assert.equal(promtool(["check", "metrics"], await text(url)), "");
});

test("the alert rules are valid and do what they say", { skip: withoutPromtool }, () => {
  promtool(["check", "rules", path.join(ROOT, "deploy/prometheus/alerts.yml")]);
  promtool(["test", "rules", path.join(ROOT, "deploy/prometheus/alerts.test.yml")]);
});

// On Redis and NATS, what the store keeps is not among the metrics.
const WHOLE = { skip: Boolean(ENGINE) };

test("every metric is documented with its type, and every documented one exists", WHOLE, async () => {
  const found = new Map();
  for (const url of Object.values(byTenant)) families(await text(url)).forEach((type, name) => found.set(name, type));
  const docs = await readFile(path.join(ROOT, "docs/operations.md"), "utf8");
  const documented = new Map([...docs.matchAll(/^\| `((?:fanfare|process)_\w+)` \| (\w+) \|/gm)].map(([, name, type]) => [name, type]));
  assert.deepStrictEqual([...documented].sort(), [...found].sort());
});

test("every limit is documented", async () => {
  const docs = await readFile(path.join(ROOT, "docs/operations.md"), "utf8");
  const rows = docs.split("\n").filter((line) => line.startsWith("| `")).join("\n");
  const found = new Set();
  for (const url of Object.values(addresses))
    for (const [, limit] of (await text(url)).matchAll(/limit="([^"]+)"/g)) found.add(limit);
  assert.ok(found.size > 30);
  assert.deepStrictEqual([...found].filter((limit) => !rows.includes(`\`${limit}\``)), []);
});

test("the dashboard, the rules and the documentation use metrics and labels that exist", WHOLE, async () => {
  const pages = (await Promise.all(Object.values(addresses).map((url) => text(url)))).join("\n");
  const names = new Set([...pages.matchAll(/^(\w+)[{ ]/gm)].map(([, name]) => name));
  for (const file of ["deploy/grafana/fanfare.json", "deploy/prometheus/alerts.yml"]) {
    const used = new Set((await readFile(path.join(ROOT, file), "utf8")).match(/\b(?:fanfare|process)_[a-z_]+\b/g));
    assert.ok(used.size > 10);
    assert.deepStrictEqual([...used].filter((name) => !names.has(name)), [], file);
  }
  const dashboard = JSON.parse(await readFile(path.join(ROOT, "deploy/grafana/fanfare.json"), "utf8"));
  assert.equal(new Set(dashboard.panels.map((panel) => panel.id)).size, dashboard.panels.length);
});

test("a page has no user, room or tenant", async () => {
  const socket = await connect(fanfare.bridge.url, user("a-user-name", "m"));
  await call(socket, "subscribe:chat", { chatId: 4711 });
  for (const url of Object.values(addresses)) {
    const page = await text(url);
    for (const secret of ["a-user-name", "4711", 'tenant="']) assert.ok(!page.includes(secret), secret);
  }
  socket.disconnect();
  await until(async () => (await scrape(addresses.server)).get("fanfare_server_sessions") === 0, "the session to be gone");
});

test("what happens is counted where it happens", async () => {
  const before = { server: await scrape(addresses.server), bridge: await scrape(addresses.bridge) };
  const sockets = await Promise.all(["1", "2", "3"].map((id) => connect(fanfare.bridge.url, user(id, "m"))));
  assert.equal((await publish("messenger.v1.NewMessage", NOTE)).code, 0);
  assert.notEqual((await publish("messenger.v1.NewMessage", { ...NOTE, content: "x".repeat(70_000) })).code, 0);
  await refusal(fanfare.bridge.url, { auth: { token: "no token" } });
  // Six calls at once are one more than may be.
  const answers = await Promise.all(Array.from({ length: 6 }, () => call(sockets[0], "subscribe:chat", { chatId: 7 })));
  assert.ok(answers.some((answer) => JSON.stringify(answer).includes("limit")));
  const grown = async (process, name) => ((await scrape(addresses[process])).get(name) ?? NaN) - before[process].get(name);
  const becomes = (process, name, by) => until(async () => (await grown(process, name)) === by, `${name} to grow by ${by}`, 10_000);
  await becomes("bridge", 'fanfare_bridge_sessions{transport="socketio"}', 3);
  await becomes("bridge", "fanfare_bridge_sessions_opened_total", 3);
  await becomes("bridge", 'fanfare_bridge_connect_refusals_total{reason="invalid_token"}', 1);
  await becomes("bridge", 'fanfare_bridge_call_refusals_total{reason="limit"}', 1);
  await becomes("bridge", 'fanfare_bridge_limit_refusals_total{limit="calls-per-second"}', 1);
  await becomes("bridge", "fanfare_bridge_call_seconds_count", 5);
  await becomes("server", "fanfare_server_calls_total", 5);
  await becomes("server", 'fanfare_server_refusals_total{reason="too_large"}', 1);
  await becomes("server", 'fanfare_server_limit_refusals_total{limit="event-bytes-max"}', 1);
  await becomes("server", "fanfare_server_events_refused_total", 1);
  await becomes("server", "fanfare_server_sessions", 3);
  // Presence events are stored too.
  const delivered = async () => (await grown("bridge", "fanfare_bridge_delivery_seconds_count"));
  await until(async () => (await delivered()) === (await grown("bridge", "fanfare_bridge_events_total")), "each event to be timed once");
  const bounds = await scrape(addresses.bridge);
  assert.ok(bounds.get('fanfare_bridge_limit_usage{limit="connections-max"}') >= 3);
  assert.equal(bounds.get('fanfare_bridge_limit{limit="connections-max"}'), 100_000);
  sockets.forEach((socket) => socket.disconnect());
  await becomes("bridge", 'fanfare_bridge_sessions_closed_total{reason="left"}', 3);
  await becomes("bridge", 'fanfare_bridge_sessions{transport="socketio"}', 0);
});

test("so many tenants have names as the setting says", async () => {
  const events = async (tenant) => (await scrape(byTenant.server)).get(`fanfare_server_tenant_events_total{tenant="${tenant}"}`);
  // The probe of a server that delivers has a tenant of its own.
  const before = [...(await scrape(byTenant.server)).keys()].filter((name) => name.includes("tenant="));
  assert.deepStrictEqual(before, ['fanfare_server_tenant_events_total{tenant=""}']);
  for (const tenant of ["one", "two", "three", "one"]) assert.equal((await publish("messenger.v1.NewMessage", NOTE, tenant, named.server)).code, 0);
  assert.deepStrictEqual([await events("one"), await events("two"), await events("")], [2, undefined, 2]);
  const sockets = await Promise.all(["one", "two", "two"].map((tenant, i) => connect(named.bridge.url, user(`${i}`, tenant))));
  const page = await scrape(byTenant.bridge);
  const sessions = (tenant) => page.get(`fanfare_bridge_tenant_sessions{tenant="${tenant}"}`);
  assert.deepStrictEqual([sessions("two"), sessions("one"), sessions("")], [2, undefined, 1]);
  sockets.forEach((socket) => socket.disconnect());
});

test("OpenMetrics comes to those who ask for it", async () => {
  const accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
  for (const url of Object.values(addresses)) {
    const answer = await get(url, { headers: { accept } });
    assert.match(answer.headers.get("content-type"), /^application\/openmetrics-text; version=1\.0\.0/);
    assert.ok((await answer.text()).endsWith("\n# EOF\n"));
  }
});

test("the main port gives the metrics to administrators of all tenants, and to nobody else", async () => {
  for (const process of ["server", "bridge"]) {
    const url = `${fanfare[process].url}/metrics`;
    const ask = (token) => get(url, token ? { headers: { authorization: `Bearer ${token}` } } : {});
    assert.equal((await ask()).status, 401);
    assert.equal((await ask("forged")).status, 401);
    assert.equal((await ask(user("1", "m"))).status, 403);
    assert.equal((await ask(producer())).status, 403);
    assert.equal((await ask(admin("m"))).status, 403);
    const answer = await ask(admin());
    assert.equal(answer.status, 200);
    const names = families(await answer.text());
    assert.equal(names.get(`fanfare_${process}_draining`), "gauge");
    assert.equal(names.get("process_cpu_seconds_total"), "counter");
  }
});

test("the listener of metrics has nothing else", async () => {
  const url = addresses.server.replace("/metrics", "/");
  assert.equal((await get(url)).status, 404);
  assert.equal((await get(addresses.server, { method: "POST" })).status, 405);
});

test("process metrics agree with the system", async () => {
  const { server } = fanfare;
  const [values, status] = [await scrape(addresses.server), await readFile(`/proc/${server.child.pid}/status`, "utf8")];
  const resident = 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)[1]);
  assert.ok(Math.abs(values.get("process_resident_memory_bytes") / resident - 1) < 0.2);
  assert.ok(values.get("process_cpu_seconds_total") > 0);
  const age = Date.now() / 1000 - values.get("process_start_time_seconds");
  assert.ok(age > 0 && age < 300, `${age}`);
});
