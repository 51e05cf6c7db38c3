// Starts and stops real Fanfare processes on ports of their own, and reads their logs.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, rmSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
export const BINARY = process.env.FANFARE_BIN ?? path.join(ROOT, "target/debug/fanfare");
export const SECRET = "a-secret-of-the-tests-0123456789abcdef";
/** Every wait ends by this time, in milliseconds. */
export const DEADLINE = 60_000;

/** A promise that fails when `promise` does not settle in time. */
export function within(promise, what, ms = DEADLINE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timed out after ${ms} ms: ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Asks again until `probe` gives something truthy. */
export async function until(probe, what, ms = DEADLINE) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > end) throw new Error(`timed out after ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** `fetch` that fails when no answer comes in time. */
export const get = (url, options) => fetch(url, { signal: AbortSignal.timeout(DEADLINE), ...options });

/** A folder of this process alone, gone when it ends: other test files make the same files at the same time. */
export function ownFolder(name) {
  const folder = path.join(ROOT, "target/tests/own", String(process.pid), name);
  mkdirSync(folder, { recursive: true });
  return folder;
}
process.on("exit", () => rmSync(path.join(ROOT, "target/tests/own", String(process.pid)), { recursive: true, force: true }));

const CHILDREN = new Set();
process.on("exit", () => CHILDREN.forEach((child) => child.kill("SIGKILL")));
// The runner ends a file that hangs with SIGTERM, which would leave the children alive.
process.once("SIGTERM", () => process.exit(143));

/** The catalogs of the tests, unless a test chooses. */
export const EXAMPLES = { FANFARE_BUILTIN: "all" };

/** One `fanfare` process. */
export class Process {
  /** Faults in its log that a test provokes, as a pattern. */
  provoked = /^$/;

  /** `via` is a command that becomes the process; `program` is another than `fanfare`. */
  constructor(args, { env = {}, via = [], program: own = BINARY } = {}) {
    this.logs = [];
    this.stdout = "";
    this.waiting = [];
    const [program, ...all] = [...via, own, ...args];
    this.child = spawn(program, all, {
      env: { ...EXAMPLES, ...process.env, FANFARE_LOG_FORMAT: "json", ...env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.ended = once(this.child, "exit").then(([code, signal]) => ({ code, signal }));
    /** Everything that it printed is there. */
    this.closed = once(this.child, "close");
    this.child.stdout.on("data", (data) => (this.stdout += data));
    createInterface({ input: this.child.stderr }).on("line", (line) => {
      let entry = { message: line };
      try {
        const { body, severity_text: level, ...rest } = JSON.parse(line);
        entry = { message: body, level, ...rest };
      } catch {
        // Not a log line: an error message or a panic.
      }
      this.logs.push({ line, ...entry });
      this.waiting = this.waiting.filter((look) => !look());
    });
    CHILDREN.add(this.child);
  }

  /** The first log entry with this message. */
  log(message, ms) {
    return within(
      new Promise((resolve, reject) => {
        const look = () => {
          const entry = this.logs.find((e) => e.message === message);
          if (entry) resolve(entry);
          return Boolean(entry);
        };
        if (!look()) this.waiting.push(look);
        this.ended.then(() => reject(new Error(`ended before logging ${message}:\n${this.text()}`)));
      }),
      `log entry ${message}`,
      ms,
    );
  }

  /** What it has printed, each whole line as JSON. */
  printed() {
    return this.stdout.split("\n").slice(0, -1).map((line) => JSON.parse(line));
  }

  text() {
    return this.logs.map((e) => e.line).join("\n");
  }

  /** Stops it as a service manager would; fails when it was not clean or its log tells of a fault. */
  async stop(signal = "SIGTERM") {
    this.child.kill(signal);
    const { code } = await within(this.ended, "the process to end");
    assert.equal(code, 0, this.text());
    this.assertHealthy();
  }

  /** Ends it without warning, as a crash would. */
  async kill() {
    this.child.kill("SIGKILL");
    await within(this.ended, "the process to end");
    this.assertHealthy();
  }

  /** Fails when the log tells of a fault. */
  assertHealthy() {
    const isProvoked = (e) => e.level === "ERROR" && this.provoked.test(e.message);
    const faults = this.logs.filter((e) => (e.level === "ERROR" && !isProvoked(e)) || e.line.includes("panicked"));
    assert.deepStrictEqual(faults, []);
  }
}

/** For tests that look at everything a session gets: the server publishes no presence, because todo has no such events. */
export const QUIET = ["--presence-catalog", "todo.v1"];

/** With redis or nats, servers that name no store get one of their own on it. */
export const ENGINE = process.env.FANFARE_TEST_ENGINE;
let shared;

async function storeArgs(args) {
  if (!ENGINE || args.some((arg) => ["--data-dir", "--redis", "--nats"].includes(arg))) return [];
  const { startStore } = await import("./stores.js");
  shared ??= startStore(ENGINE);
  return (await shared).fresh().serverArgs;
}

export async function startServer(args = [], listen = "127.0.0.1:0", options = {}) {
  args = [...args, ...(await storeArgs(args))];
  const server = new Process(["server", "--grpc-listen", listen, "--jwt-secret", SECRET, ...args], options);
  // It reads its whole log first.
  server.address = (await server.log("server listening", 60_000)).address;
  server.url = `http://${server.address}`;
  return server;
}

export async function startBridge(server, args = []) {
  const bridge = new Process([
    "bridge", "--http-listen", "127.0.0.1:0", "--server", server.url, "--jwt-secret", SECRET, ...args,
  ]);
  bridge.address = (await bridge.log("bridge listening")).address;
  bridge.url = `http://${bridge.address}`;
  await bridge.log("linked");
  return bridge;
}

/** A server and a bridge, as in production. `alone`: one server, for tests of what each server counts for itself. */
export async function start({ serverArgs = [], bridgeArgs = [], alone = false } = {}) {
  const args = [...serverArgs, ...(await storeArgs(serverArgs))];
  const server = await startServer(args);
  // Where servers share a store, producers talk to one and bridges to another.
  const other = ENGINE && !alone ? await startServer(args) : server;
  const bridge = await startBridge(other, bridgeArgs);
  const stop = async () => {
    await bridge.stop();
    await server.stop();
    if (other !== server) await other.stop();
  };
  return { server, bridge, stop };
}

/** Runs a command to its end; fails when it panics. */
export async function run(args, { env = {}, input } = {}) {
  const child = spawn(BINARY, args, { env: { ...EXAMPLES, ...process.env, ...env }, stdio: ["pipe", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data) => (stdout += data));
  child.stderr.on("data", (data) => (stderr += data));
  child.stdin.end(input);
  CHILDREN.add(child);
  const [code] = await within(once(child, "close"), `fanfare ${args.join(" ")}`);
  CHILDREN.delete(child);
  assert.ok(!stderr.includes("panicked"), stderr);
  return { code, stdout, stderr };
}
