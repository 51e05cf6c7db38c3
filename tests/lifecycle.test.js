// How programs start, are configured, lose each other and end.

import { test } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { lookup } from "node:dns/promises";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { io } from "socket.io-client";
import { call, connect, refusal } from "./lib/clients.js";
import { get, Process, QUIET, ROOT, run, SECRET, start, startBridge, startServer, until, within } from "./lib/fanfare.js";
import { EventStream } from "./lib/plain.js";
import { Proxy } from "./lib/proxy.js";
import { producer, user } from "./lib/tokens.js";

const MESSAGE = '{"id":1,"chatId":7,"content":"Hello","fromMe":true,"channel":"whatsapp","timestamp":"2026-01-31T12:00:00Z"}';
/** Tools are in the tenant of the users here. */
const TENANT = { env: { FANFARE_TENANT: "1" } };
const notify = (url, ...args) => run(["notify", "message:new", MESSAGE, "--server", url, "--jwt-secret", SECRET, ...args], TENANT);

for (const signal of ["SIGTERM", "SIGINT"]) {
  test(`${signal} ends server, bridge and dev cleanly, with sessions and streams open`, async () => {
    const { server, bridge } = await start({ serverArgs: QUIET });
    const socket = await connect(bridge.url, user(42, 1));
    const subscriber = new Process(["subscribe", "org", "--server", server.url, "--jwt-secret", SECRET], TENANT);
    await until(async () => {
      await notify(server.url);
      return subscriber.stdout.includes("message:new");
    }, "the subscription");
    const gone = new Promise((resolve) => socket.once("disconnect", resolve));
    await bridge.stop(signal);
    assert.equal(await within(gone, "the disconnect"), "transport close", "clients reconnect by themselves");
    await server.stop(signal);
    await subscriber.stop("SIGINT");

    const dev = new Process(["dev", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    await dev.log("linked");
    await dev.stop(signal);
  });
}

test("a program that is told to stop as soon as it listens ends cleanly", async () => {
  for (let i = 0; i < 5; i++) {
    const server = await startServer(QUIET);
    await server.stop();
  }
});

test("a server that is told to stop says so to a producer that waits", async () => {
  const server = await startServer(QUIET);
  const publisher = new Process(["notify", "message:new", "-", "--retry-for", "0s", "--server", server.url, "--jwt-secret", SECRET], TENANT);
  publisher.child.stdin.write(`${MESSAGE}\n`);
  await until(() => publisher.printed().length === 1, "the answer");
  // Its input stays open: only the server can end the stream.
  await server.stop();
  assert.equal((await within(publisher.ended, "the publisher to give up")).code, 1);
  assert.match(publisher.text(), /the server is shutting down/);
});

test("a server that is told to stop while producers publish keeps its word", async () => {
  const { server, bridge } = await start({ serverArgs: QUIET });
  const socket = await connect(bridge.url, user(42, 1));
  const tool = (...args) => new Process([...args, "--server", server.url, "--jwt-secret", SECRET], TENANT);
  const subscriber = tool("subscribe", "org");
  const publisher = tool("notify", "message:new", "-", "--retry-for", "0s");
  // The pipe breaks when the publisher gives up.
  publisher.child.stdin.on("error", () => {});
  let sent = 0;
  const publish = () => publisher.child.stdin.write(`${JSON.stringify({ ...JSON.parse(MESSAGE), id: ++sent })}\n`);
  await until(() => publish() && subscriber.stdout.includes("message:new"), "the subscription");
  // Far more than there is time for; and its input stays open, so that only the server can end the stream.
  while (sent < 40_000) publish();
  await until(() => publisher.printed().length > 500, "some answers");
  await server.stop();
  assert.equal((await within(publisher.ended, "the publisher to give up")).code, 1);
  const answered = publisher.printed().map(({ seq }) => seq);
  assert.ok(answered.length < sent, "it was stopped under way");
  assert.deepStrictEqual(answered, answered.map((_, i) => i + 1));
  // Whatever was acknowledged is delivered before the end.
  await until(() => subscriber.printed().at(-1)?.seq >= answered.length, "the subscriber's last event");
  await socket.event("message:new", (payload) => payload.id >= answered.length);
  const heard = subscriber.printed().map(({ seq }) => seq);
  assert.deepStrictEqual(heard, heard.map((_, i) => heard[0] + i));
  const seen = socket.events.map(([, payload]) => payload.id);
  assert.deepStrictEqual(seen, seen.map((_, i) => i + 1));
  // A stream that ends with a reason has had all its answers, so nobody heard more than was acknowledged. (A connection
  // that breaks under what was still on its way tells the producer nothing.)
  if (publisher.text().includes("the server is shutting down")) {
    assert.ok(Math.max(heard.at(-1), seen.at(-1)) <= answered.length);
  }
  assert.equal(socket.connected, true, "sessions outlive a server");
  socket.close();
  await subscriber.stop("SIGINT");
  await bridge.stop();
});

test("health and readiness tell the truth", async () => {
  const server = await startServer(QUIET);
  const bridge = await startBridge(server, ["--connect-timeout", "2s"]);
  const status = async (url) => (await get(url)).status;
  for (const program of [server, bridge]) {
    assert.equal(await status(`${program.url}/healthz`), 200);
    assert.equal(await status(`${program.url}/readyz`), 200);
  }
  const socket = await connect(bridge.url, user(42, 1));
  await server.kill();
  await until(async () => (await status(`${bridge.url}/readyz`)) === 503, "the bridge to notice");
  assert.equal(await status(`${bridge.url}/healthz`), 200);
  assert.equal((await call(socket, "subscribe:chat", { chatId: 7 })).error.code, "unavailable");
  assert.equal(socket.connected, true);
  // Whoever comes now is not refused, or a stock client would stay away: it comes back by itself until there is a server.
  const patient = io(bridge.url, { auth: { token: user(43, 1) }, transports: ["websocket"], forceNew: true, reconnectionDelay: 50 });
  await within(new Promise((resolve) => patient.io.once("reconnect_attempt", resolve)), "another try");
  // The same for a browser's EventSource, which stays away after any status but 200.
  const stream = await EventStream.open(bridge.url, { token: user(44, 1) });
  const { code } = await stream.message("end");
  assert.equal(code, "unavailable");
  const back = await startServer(QUIET, server.address);
  await within(new Promise((resolve) => patient.once("connect", resolve)), "the connection");
  patient.close();
  socket.close();
  await bridge.stop();
  await back.stop();
});

test("a bridge resumes at a server that comes back, and says so when events were lost", async () => {
  const server = await startServer(QUIET);
  const bridge = await startBridge(server);
  const socket = await connect(bridge.url, user(42, 1), { reconnection: true, reconnectionDelay: 50 });
  await notify(server.url);
  await socket.event("message:new");
  await server.kill();
  const again = new Promise((resolve) => socket.once("disconnect", () => socket.once("connect", resolve)));
  const back = await startServer(QUIET, server.address);
  await until(async () => (await get(`${bridge.url}/readyz`)).status === 200, "the link");
  // The memory engine lost its log, and the bridge must not hide it: sessions start anew.
  await within(again, "the session to start anew");
  socket.events.length = 0;
  await notify(back.url);
  await socket.event("message:new");
  socket.close();
  await bridge.stop();
  await back.stop();
});

test("a bridge ends at once while calls and connections wait for a server", async () => {
  const server = await startServer(QUIET);
  const proxy = await Proxy.to(server.address);
  const bridge = await startBridge(proxy);
  const socket = await connect(bridge.url, user(42, 1));
  proxy.silence("up", "down");
  socket.emit("subscribe:chat", { chatId: 7 }, () => {});
  const waiting = io(bridge.url, { auth: { token: user(43, 1) }, transports: ["websocket"], forceNew: true, reconnection: false });
  await within(new Promise((resolve) => waiting.io.once("open", resolve)), "the connection to open");
  const began = performance.now();
  await bridge.stop();
  assert.ok(performance.now() - began < 9000, "the grace is 10 s");
  waiting.close();
  socket.close();
  proxy.close();
  await server.stop();
});

test("a bridge whose server is gone goes to the next one, and says so when events were lost", async () => {
  const servers = [await startServer(QUIET), await startServer(QUIET)];
  const bridge = await startBridge(servers[0], ["--server", servers[1].url]);
  // The first is a random one.
  if (bridge.logs.find((e) => e.message === "linked").address !== servers[0].address) servers.reverse();
  const socket = await connect(bridge.url, user(42, 1), { reconnection: true, reconnectionDelay: 50 });
  await notify(servers[0].url);
  await socket.event("message:new");
  const again = new Promise((resolve) => socket.once("disconnect", () => socket.once("connect", resolve)));
  await servers[0].kill();
  // The next one has a log of its own: what the sessions had is not in it, and they must know.
  await within(again, "the session to start anew");
  assert.equal(socket.recovered, false);
  socket.events.length = 0;
  await notify(servers[1].url);
  await socket.event("message:new");
  socket.close();
  await bridge.stop();
  await servers[1].stop();
});

/** The servers that a bridge linked to so far, by their addresses. */
const links = (bridge) => bridge.logs.filter((e) => e.message === "linked").map((e) => e.address);

test("bridges spread over the addresses of a name, and move at once when a server shuts down", async () => {
  const first = await startServer(QUIET);
  const port = first.address.split(":").at(-1);
  // One name and port, two addresses. Where the name has one address, flags name both.
  const known = (await lookup("localhost", { all: true })).map(({ address }) => address);
  const isDual = known.includes("::1") && known.includes("127.0.0.1");
  const second = await startServer(QUIET, isDual ? `[::1]:${port}` : "127.0.0.1:0");
  const name = { url: `http://localhost:${port}` };
  const more = isDual ? [] : ["--server", second.url];
  const bridges = await Promise.all(Array.from({ length: 8 }, () => startBridge(name, more)));
  try {
    const firsts = () => bridges.filter((bridge) => links(bridge).at(-1) === first.address);
    // The odds that all 8 chose the same are 1 to 128: further ones decide.
    while (bridges.length < 32 && [0, bridges.length].includes(firsts().length)) bridges.push(await startBridge(name, more));
    const moving = firsts();
    assert.ok(moving.length > 0 && moving.length < bridges.length, `${moving.length} of ${bridges.length}`);
    await first.stop();
    await until(() => bridges.every((bridge) => links(bridge).at(-1) === second.address), "all to be linked to the other server");
    for (const bridge of moving) {
      assert.deepStrictEqual(links(bridge), [first.address, second.address]);
      assert.ok(bridge.logs.some((e) => e.message === "the server shuts down; another one is linked to"), bridge.text());
      assert.ok(!bridge.logs.some((e) => e.message === "no link to a server"), bridge.text());
    }
  } finally {
    await Promise.all(bridges.map((bridge) => bridge.stop()));
    await second.stop();
  }
});

test("a link that breaks while the server lives loses and doubles nothing", async () => {
  const server = await startServer(QUIET);
  const proxy = await Proxy.to(server.address);
  const bridge = await startBridge(proxy);
  const socket = await connect(bridge.url, user(42, 1));
  const lines = (from, count) =>
    Array.from({ length: count }, (_, i) => JSON.stringify({ id: from + i, chatId: 7, content: "x", fromMe: true, channel: "waba" })).join("\n");
  const send = (from, count) => run(["notify", "message:new", "-", "--server", server.url, "--jwt-secret", SECRET], { input: lines(from, count), ...TENANT });
  for (let round = 0; round < 3; round++) {
    const sent = send(round * 500, 500);
    await socket.event("message:new", (m) => m.id >= round * 500);
    proxy.cut();
    assert.equal((await sent).code, 0);
  }
  await socket.event("message:new", (m) => m.id === 1499);
  assert.deepStrictEqual(socket.events.map((e) => e[1].id), Array.from({ length: 1500 }, (_, i) => i));
  socket.close();
  await bridge.stop();
  proxy.close();
  await server.stop();
});

test("settings come from flag, environment and file, in this order", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "fanfare-"));
  const file = path.join(folder, "fanfare.toml");
  writeFileSync(file, 'retention-events = 5\nretention-age = "2h"\ntenants-max = 7\njwt-secret = "0123456789abcdef0123456789abcdef"\n');
  const args = ["server", "--config", file, "--retention-events", "9", "--print-config"];
  const { code, stdout } = await run(args, { env: { FANFARE_TENANTS_MAX: "8" } });
  assert.equal(code, 0);
  assert.match(stdout, /^retention-events = "9" {2}# flag$/m);
  assert.match(stdout, /^tenants-max = "8" {2}# environment$/m);
  assert.match(stdout, /^retention-age = "2h" {2}# file$/m);
  assert.match(stdout, /^event-bytes-max = "64KiB" {2}# default$/m);
  assert.match(stdout, /^# jwt-secret is set and not shown/m);
  assert.ok(!stdout.includes("0123456789abcdef"));
  const withPassword = await run(["server", "--redis", "redis://me:hidden@127.0.0.1", "--print-config"]);
  assert.match(withPassword.stdout, /^# redis is set and not shown \(flag\)$/m);
  assert.ok(!withPassword.stdout.includes("hidden"));
  // What is printed can be read again.
  const printed = path.join(folder, "printed.toml");
  writeFileSync(printed, stdout);
  assert.equal((await run(["server", "--config", printed, "--print-config"])).code, 0);
});

test("environment and file are enough to run by", async () => {
  const server = await startServer(QUIET);
  const file = path.join(mkdtempSync(path.join(tmpdir(), "fanfare-")), "bridge.toml");
  writeFileSync(file, `server = ["${server.url}"]\nrooms-per-session-max = 1\n`);
  const env = { FANFARE_HTTP_LISTEN: "127.0.0.1:0", FANFARE_JWT_SECRET: SECRET, FANFARE_CONFIG: file };
  const bridge = new Process(["bridge"], { env });
  const { address } = await bridge.log("bridge listening");
  await bridge.log("linked");
  const socket = await connect(`http://${address}`, user(42, 1));
  assert.deepStrictEqual(await call(socket, "subscribe:chat", { chatId: 7 }), { chatId: 7 });
  assert.equal((await call(socket, "subscribe:chat", { chatId: 8 })).error.code, "limit");
  socket.close();
  await bridge.stop();
  await server.stop();
});

test("what cannot work is refused with a remedy", async () => {
  const refused = async (args, text) => {
    const { code, stderr } = await run(args);
    assert.notEqual(code, 0);
    assert.match(stderr, text);
  };
  await refused(["server"], /no key.*--jwt-secret/);
  await refused(["server", "--jwt-secret", "short"], /has 5 bytes: want at least 32/);
  await refused(["server", "--jwt-secret", "fanfare-development-key-never-for-production"], /public development key/);
  await refused(["dev", "--http-listen", "0.0.0.0:0"], /public development key: give --jwt-secret/);
  const development = "fanfare-development-key-never-for-production";
  await refused(["dev", "--http-listen", "0.0.0.0:0", "--jwt-secret", development], /public development key: give --jwt-secret/);
  await refused(["server", "--jwt-secret", "x".repeat(64)], /repeats one character/);
  await refused(["bridge", "--jwt-secret", SECRET, "--server", "no url"], /want e\.g\. "http/);
  await refused(["notify", "message:mew"], /did you mean "message:new"/);
  await refused(["notify", "new_message"], /chat\.v1\.NewMessage, dialogs\.v1\.NewMessage/);
  await refused(["notify", "message:new", '{"chatId":"x"}'], /chatId: want an integer, got the string "x"/);
  await refused(["notify", "message:new", "--server", "http://example.invalid:1"], /no token.*--token/);
});

test("notify, subscribe and token work together, and keys make retries safe", async () => {
  const server = await startServer(QUIET);
  const made = await run(["token", "--scope", "notify", "--scope", "subscribe", "--tenant", "9", "--jwt-secret", SECRET]);
  const token = made.stdout.trim();
  const first = JSON.parse((await notify(server.url, "--tenant", "9", "--token", token, "--idempotency-key", "k")).stdout);
  const again = JSON.parse((await notify(server.url, "--tenant", "9", "--token", token, "--idempotency-key", "k")).stdout);
  assert.deepStrictEqual([first.seq, first.duplicate], [1, false]);
  assert.deepStrictEqual(again, { ...first, duplicate: true });
  const refused = await notify(server.url, "--tenant", "8", "--token", token);
  assert.match(refused.stderr, /the token is for tenant "9", not "8"/);
  const second = JSON.parse((await notify(server.url, "--tenant", "9", "--token", token, "--room", "chat:8")).stdout);
  const subscriber = new Process(["subscribe", "org", "chat:8", "--after", first.id, "--server", server.url, "--tenant", "9", "--token", producer("9")]);
  const line = JSON.parse(await until(() => subscriber.stdout.split("\n")[0], "the replay"));
  assert.ok(Math.abs(Date.now() - new Date(line.time)) < 60_000, line.time);
  const payload = { ...JSON.parse(MESSAGE), timestamp: "2026-01-31T12:00:00.000Z" };
  const seen = { id: second.id, seq: 2, tenant: "9", rooms: ["chat:8"], time: line.time, sender: line.sender };
  assert.deepStrictEqual(line, { ...seen, type: "messenger.v1.NewMessage", name: "message:new", payload });
  await subscriber.stop("SIGINT");
  await server.stop();
});

test("a token that the tool makes says what it was told, and is as good as any other", async () => {
  const { bridge, stop } = await start({ serverArgs: QUIET });
  const make = async (...args) => (await run(["token", "--user", "42", "--tenant", "1", ...args])).stdout.trim();
  const token = await make("--name", "Ada", "--room", "chat:7", "--claim", "level=3", "--expires", "1h", "--jwt-secret", SECRET);
  const { iat, exp, ...claims } = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
  assert.deepStrictEqual(claims, { sub: "42", tenant: "1", name: "Ada", rooms: ["chat:7"], level: 3 });
  assert.equal(exp - iat, 3600);
  const socket = await connect(bridge.url, token);
  assert.deepStrictEqual(await call(socket, "subscribe:chat", { chatId: 7 }), { chatId: 7 });
  assert.equal((await call(socket, "subscribe:chat", { chatId: 8 })).error.code, "forbidden");
  socket.close();
  // Without a secret it is signed with the development key, which only `fanfare dev` accepts.
  assert.equal((await refusal(bridge.url, { auth: { token: await make() } })).data.code, "invalid_token");
  await stop();
});

test("what dev prints can be pasted: every way out shows what the way in publishes", async (t) => {
  const dev = new Process(["dev", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
  const shells = [];
  t.after(async () => {
    // One that has ended by itself is no group any more.
    for (const { pid } of shells) try { process.kill(-pid, "SIGKILL"); } catch {}
    await dev.stop();
  });
  await until(() => dev.stdout.includes("Stop with Ctrl-C"), "what dev prints");
  const exports = dev.stdout.match(/^ {2}export .*$/gm);
  assert.equal(exports.length, 2);
  // A command is a run of lines that are indented by four or more.
  const commands = dev.stdout.match(/(^ {4}.*\n)+/gm);
  const named = (text) => commands.find((command) => command.includes(text));
  const paste = (command) => {
    const shell = spawn("bash", ["-c", `${exports.join("\n")}\n${command}`], { cwd: path.join(ROOT, "tests"), detached: true });
    shells.push(shell);
    shell.output = "";
    shell.stdout.on("data", (data) => (shell.output += data));
    shell.stderr.on("data", (data) => (shell.output += data));
    shell.ended = new Promise((resolve) => shell.once("close", resolve));
    return shell;
  };
  const outs = ["socket.io-client", "fanfare subscribe", "curl"].map((text) => paste(named(text)));
  // They do not say when they are connected, so it is published until all have seen it.
  await until(async () => {
    const notify = paste(named("fanfare notify"));
    assert.equal(await within(notify.ended, "notify"), 0, notify.output);
    shells.splice(shells.indexOf(notify), 1);
    return outs.every((out) => out.output.includes("Hello"));
  }, "all ways out");
});
