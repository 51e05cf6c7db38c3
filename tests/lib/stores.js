// Real stores that servers share, on loopback: Redis from the system's packages, NATS from a wheel.

import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { once } from "node:events";
import { ROOT, until, within } from "./fanfare.js";

const NATS_WHEEL = path.join(ROOT, "target/tests/venv/bin/nats-server");
const PROGRAMS = {
  redis: process.env.FANFARE_REDIS_SERVER ?? "redis-server",
  nats: process.env.FANFARE_NATS_SERVER ?? (existsSync(NATS_WHEEL) ? NATS_WHEEL : "nats-server"),
};

/** Why tests on a store are skipped; false when its program is installed. */
export const missing = (kind) => (spawnSync(PROGRAMS[kind], ["--version"]).error ? `${PROGRAMS[kind]} is not installed` : false);

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A store that has its own folder. It ends with the test process. */
class Store {
  constructor(kind, port, folder, args) {
    Object.assign(this, { kind, port, folder, args });
    // Logs, sessions and everything else of one group of servers.
    this.prefix = randomBytes(6).toString("hex");
    process.on("exit", () => this.child?.kill("SIGKILL"));
  }

  /** The same store, for another group of servers. */
  fresh() {
    return Object.assign(Object.create(Store.prototype), this, { prefix: randomBytes(6).toString("hex") });
  }

  async start() {
    this.child = spawn(PROGRAMS[this.kind], this.args, { cwd: this.folder, stdio: "ignore" });
    this.ended = once(this.child, "exit");
    await until(() => this.#answers(), `${this.kind} to listen`);
  }

  async #answers() {
    const socket = connect(this.port, "127.0.0.1");
    try {
      await once(socket, "connect");
      return true;
    } catch {
      return false;
    } finally {
      socket.destroy();
    }
  }

  /** What a server of the group is started with. */
  get serverArgs() {
    return this.kind === "redis"
      ? ["--redis", `redis://127.0.0.1:${this.port}`, "--redis-prefix", this.prefix]
      : ["--nats", `nats://127.0.0.1:${this.port}`, "--nats-prefix", this.prefix, "--nats-replicas", "1", "--nats-partitions", "4"];
  }

  /** Ends it as a crash would. */
  async kill() {
    this.child.kill("SIGKILL");
    await within(this.ended, `${this.kind} to end`);
  }

  async stop() {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Starts a store of its own for a group of servers. */
export async function startStore(kind) {
  const folder = mkdtempSync(path.join(tmpdir(), `fanfare-${kind}-`));
  const port = await freePort();
  let args;
  if (kind === "redis") {
    args = ["--port", String(port), "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"];
  } else {
    const config = path.join(folder, "nats.conf");
    writeFileSync(config, `server_name: n0\nlisten: "127.0.0.1:${port}"\njetstream {\n  store_dir: "${folder}"\n}\n`);
    args = ["-c", config];
  }
  const store = new Store(kind, port, folder, args);
  await store.start();
  return store;
}
