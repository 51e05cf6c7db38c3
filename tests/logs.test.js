// What the logs say, what they never say, and that a log that nobody takes disturbs nothing.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import assert from "node:assert/strict";

import { admin, client, web } from "./lib/admin.js";
import { call, connect, disconnected, refusal } from "./lib/clients.js";
import { BINARY, EXAMPLES, SECRET, get, run, startBridge, startServer, until, within } from "./lib/fanfare.js";
import { producer, token, user } from "./lib/tokens.js";

const NOTE = { id: 1, chatId: 7, content: "a-secret-content", fromMe: true, channel: "whatsapp" };
const running = [];
after(() => running.forEach((process) => process.child.kill("SIGKILL")));

async function pair(serverArgs = [], bridgeArgs = []) {
  const server = await startServer(serverArgs);
  running.push(server);
  const bridge = await startBridge(server, bridgeArgs);
  running.push(bridge);
  return { server, bridge };
}

const stop = async ({ server, bridge }) => {
  await bridge.stop();
  await server.stop();
};

/** The log entries with this message, once there are some. */
const entries = (process, message, count = 1) =>
  until(() => {
    const found = process.logs.filter((entry) => entry.message === message);
    return found.length >= count && found;
  }, `${count} times "${message}" in\n${process.text()}`);

const publish = (server, given, ...args) =>
  run(["notify", "--server", server.url, "--token", given, "--tenant", "l", ...args, "messenger.v1.NewMessage", JSON.stringify(NOTE)]);

test("connections, calls, events, refusals and administrators are in the log, and tokens are not", async () => {
  const both = await pair(["--log", "debug"], ["--log", "debug", "--calls-burst", "2", "--calls-per-second", "1"]);
  const { server, bridge } = both;
  const [own, notifier, operator] = [user("u1", "l"), producer(), admin("l")];
  const socket = await connect(bridge.url, own);
  const [opened] = await entries(bridge, "session opened");
  assert.deepStrictEqual(
    [opened.scope, opened.level, opened.tenant, opened["user.id"], opened["client.address"], opened.transport],
    ["access", "INFO", "l", "u1", "127.0.0.1", "socketio"],
  );
  assert.ok(opened["session.id"]);

  const answers = await Promise.all([1, 2, 3].map((chatId) => call(socket, "subscribe:chat", { chatId })));
  assert.equal(answers.length, 3);
  const [answered] = await entries(bridge, "call answered", 2);
  assert.deepStrictEqual([answered.level, answered.call, answered["session.id"]], ["DEBUG", "subscribe:chat", opened["session.id"]]);
  const [refused] = await entries(bridge, "call refused");
  assert.deepStrictEqual([refused.level, refused.reason, refused["user.id"]], ["INFO", "limit", "u1"]);

  assert.equal((await publish(server, notifier)).code, 0);
  const published = await until(() => server.logs.find((e) => e.message === "event published" && e.event === "messenger.v1.NewMessage"), "the event");
  assert.deepStrictEqual([published.level, published.tenant, published["user.id"]], ["DEBUG", "l", "producer"]);
  assert.notEqual((await publish(server, own)).code, 0);
  const [denied] = await entries(server, "request refused");
  assert.deepStrictEqual(
    [denied.scope, denied.level, denied.tenant, denied["user.id"], denied["client.address"], denied.reason],
    ["audit", "INFO", "l", "u1", "127.0.0.1", "forbidden"],
  );

  const expired = token({ userId: "u2", organizationId: "l", exp: 1 });
  await refusal(bridge.url, { auth: { token: expired } });
  const [unknown] = await entries(bridge, "connection refused");
  assert.deepStrictEqual([unknown.scope, unknown["client.address"], unknown.reason], ["audit", "127.0.0.1", "token_expired"]);

  const gone = disconnected(socket);
  await client(web.Realtime, server.url, operator).disconnect({ tenant: "l", whom: { case: "userId", value: "u1" } });
  await within(gone, "the session to end");
  const [acted] = await entries(server, "sessions disconnected");
  assert.deepStrictEqual([acted.scope, acted.tenant, acted["user.id"], acted.told], ["audit", "l", "ops", 1]);
  const [action] = await entries(server, "administrator's request answered");
  assert.deepStrictEqual([action.method, action["client.address"]], ["/fanfare.v1.Realtime/Disconnect", "127.0.0.1"]);
  const [ended] = await entries(bridge, "session closed");
  assert.deepStrictEqual([ended.reason, ended["session.id"], typeof ended.duration_ms], ["disconnected", opened["session.id"], "number"]);

  await stop(both);
  const written = server.text() + bridge.text();
  for (const secret of [own, notifier, operator, expired, SECRET, NOTE.content]) {
    assert.ok(!written.includes(secret), secret);
    // Nor a part of a token.
    assert.ok(!written.includes(secret.split(".")[2] ?? secret), secret);
  }
});

test("lines are JSON with the names of OpenTelemetry", async () => {
  const server = await startServer();
  running.push(server);
  const { line } = await server.log("server listening");
  const entry = JSON.parse(line);
  assert.match(entry.timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  assert.deepStrictEqual(
    [entry.severity_text, entry.severity_number, entry.body, entry.scope, entry.address],
    ["INFO", 9, "server listening", "fanfare::run", server.address],
  );
  await server.stop();
});

test("the audit log is a file of its own, whatever the log has", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "fanfare-audit-"));
  const file = path.join(folder, "audit.log");
  // A filter that hides them, and one that does not.
  for (const [round, filter] of [[1, "fanfare=info"], [2, "info"]]) {
    const server = await startServer(["--audit-log", file, "--log", filter]);
    running.push(server);
    assert.notEqual((await publish(server, user(`round-${round}`, "l"))).code, 0);
    await server.stop();
    assert.ok(!server.text().includes("request refused"));
  }
  const lines = (await readFile(file, "utf8")).trimEnd().split("\n").map((line) => JSON.parse(line));
  const denied = lines.filter((line) => line.body === "request refused");
  assert.deepStrictEqual(denied.map((line) => line["user.id"]), ["round-1", "round-2"]);
  assert.ok(lines.every((line) => line.scope === "audit"));
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  await rm(folder, { recursive: true });

  const { code, stderr } = await run(["server", "--jwt-secret", SECRET, "--grpc-listen", "127.0.0.1:0", "--audit-log", "/nowhere/audit.log"]);
  assert.notEqual(code, 0);
  assert.match(stderr, /audit-log: cannot open \/nowhere\/audit\.log/);
});

test("a flood leaves lines out, and says how many", async () => {
  const server = await startServer(["--log-lines-per-second", "3", "--metrics-listen", "127.0.0.1:0"]);
  running.push(server);
  const { address } = await server.log("metrics listening");
  const asks = Array.from({ length: 50 }, () => fetch(`${server.url}/fanfare.v1.Realtime/Notify`, {
    method: "POST", body: new Uint8Array(5), headers: { "content-type": "application/grpc-web+proto" },
  }).then((answer) => answer.arrayBuffer()));
  await Promise.all(asks);
  await entries(server, "log lines were left out: there were too many");
  const told = () => server.logs.filter((e) => e.message?.startsWith("log lines were left out")).reduce((sum, e) => sum + e.lines, 0);
  const written = () => server.logs.filter((e) => e.message === "request refused").length;
  await until(() => told() + written() === 50, "all lines to be written or counted", 10_000);
  assert.ok(written() < 50);
  const page = await (await get(`http://${address}/metrics`)).text();
  assert.equal(Number(/^fanfare_log_lines_lost_total{reason="left_out"} (\d+)$/m.exec(page)[1]), told());
  await server.stop();
});

/** A server whose standard error is `stderr`; gives the process and how it ends. */
function spawnServer(stderr, ...args) {
  const child = spawn(BINARY, ["server", "--grpc-listen", "127.0.0.1:0", "--jwt-secret", SECRET, "--metrics-listen", "127.0.0.1:0", ...args], {
    stdio: ["ignore", "ignore", stderr],
    env: { ...EXAMPLES, ...process.env, FANFARE_LOG_FORMAT: "json" },
  });
  running.push({ child });
  return { child, ended: once(child, "exit") };
}

/** The ports on which a process listens, by what the system says. */
async function ports(pid) {
  const inodes = new Set();
  const { readdir, readlink } = await import("node:fs/promises");
  for (const fd of await readdir(`/proc/${pid}/fd`)) {
    const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => "");
    if (target.startsWith("socket:[")) inodes.add(target.slice(8, -1));
  }
  const rows = (await readFile(`/proc/${pid}/net/tcp`, "utf8")).split("\n").slice(1).map((row) => row.trim().split(/\s+/));
  return rows.filter((row) => row[3] === "0A" && inodes.has(row[9])).map((row) => Number.parseInt(row[1].split(":")[1], 16));
}

/** The page of metrics of a process that cannot say where it is. */
async function pageOf(pid) {
  for (const port of await ports(pid)) {
    const answer = await get(`http://127.0.0.1:${port}/metrics`);
    if (answer.ok) return answer.text();
  }
  return undefined;
}

const failed = (page) => Number(/^fanfare_log_lines_lost_total{reason="write_failed"} (\d+)$/m.exec(page ?? "")?.[1] ?? 0);

test("a log whose reader has gone does not disturb the process, and SIGTERM ends it", async () => {
  const { child, ended } = spawnServer("pipe", "--log", "debug");
  await once(child.stderr, "data");
  child.stderr.destroy();
  await until(async () => (await ports(child.pid)).length === 2, "both listeners");
  for (const port of await ports(child.pid)) await get(`http://127.0.0.1:${port}/healthz`);
  const anonymous = { method: "POST", body: new Uint8Array(5), headers: { "content-type": "application/grpc-web+proto" } };
  for (const port of await ports(child.pid)) await (await get(`http://127.0.0.1:${port}/fanfare.v1.Realtime/Notify`, anonymous)).arrayBuffer();
  await until(async () => failed(await pageOf(child.pid)) > 0, "lines that could not be written", 10_000);
  child.kill("SIGTERM");
  assert.deepStrictEqual(await within(ended, "the process to end", 15_000), [0, null]);
});

test("a log on a full disk does not disturb the process, and SIGTERM ends it", async () => {
  const full = openSync("/dev/full", "w");
  const { child, ended } = spawnServer(full, "--log", "debug");
  closeSync(full);
  await until(async () => failed(await pageOf(child.pid)) > 0, "lines that could not be written", 15_000);
  child.kill("SIGTERM");
  assert.deepStrictEqual(await within(ended, "the process to end", 15_000), [0, null]);
});

test("a log that nobody reads holds up nothing, and SIGTERM ends the process", async () => {
  const { child, ended } = spawnServer("pipe", "--log", "trace", "--log-lines-per-second", "0");
  child.stderr.pause();
  await until(async () => (await ports(child.pid)).length === 2, "both listeners");
  const [port] = await Promise.all((await ports(child.pid)).map(async (port) => ((await get(`http://127.0.0.1:${port}/healthz`)).ok ? port : undefined)))
    .then((found) => found.filter(Boolean));
  // More lines than a pipe takes, and then still answers.
  for (let round = 0; round < 40; round++) {
    await Promise.all(Array.from({ length: 50 }, () => get(`http://127.0.0.1:${port}/healthz`).then((answer) => answer.text())));
  }
  assert.ok((await get(`http://127.0.0.1:${port}/readyz`)).ok);
  child.kill("SIGTERM");
  assert.deepStrictEqual(await within(ended, "the process to end", 20_000), [0, null]);
});

test("a command's error on a closed standard error is no panic", async () => {
  const child = spawn("sh", ["-c", `exec "${BINARY}" server --jwt-secret short 2>&-`], { stdio: ["ignore", "ignore", "ignore"] });
  const [code] = await within(once(child, "exit"), "the command to end");
  assert.equal(code, 1);
});
