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

/** A port that is free now. */
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const CHILDREN = new Set();
process.on("exit", () => CHILDREN.forEach((child) => child.kill("SIGKILL")));

/** A process of a store that has its own folder. It ends with the test process. */
export class Store {
  constructor(kind, port, folder, args) {
    Object.assign(this, { kind, port, folder, args });
    // Logs, sessions and everything else of one group of servers.
    this.prefix = randomBytes(6).toString("hex");
  }

  /** The same store, for another group of servers. */
  fresh() {
    return Object.assign(Object.create(Store.prototype), this, { prefix: randomBytes(6).toString("hex") });
  }

  async start() {
    this.child = spawn(PROGRAMS[this.kind], this.args, { cwd: this.folder, stdio: "ignore" });
    CHILDREN.add(this.child);
    this.ended = once(this.child, "exit").finally(() => CHILDREN.delete(this.child));
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
    const [scheme, ca] = this.tls ? [{ redis: "rediss", nats: "tls" }, [`--${this.kind}-ca-file`, this.tls.ca]] : [{ redis: "redis", nats: "nats" }, []];
    const url = `${scheme[this.kind]}://127.0.0.1:${this.port}`;
    return this.kind === "redis"
      ? ["--redis", url, "--redis-prefix", this.prefix, ...ca]
      : ["--nats", url, "--nats-prefix", this.prefix, "--nats-replicas", "1", "--nats-partitions", "4", ...ca];
  }

  /** Ends it as a crash would. */
  async kill() {
    this.child.kill("SIGKILL");
    await within(this.ended, `${this.kind} to end`);
  }

  /** It stops running, and its connections stay. */
  freeze() {
    this.child.kill("SIGSTOP");
  }

  thaw() {
    this.child.kill("SIGCONT");
  }

  async stop() {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Starts a store of its own for a group of servers; with TLS when `tls` names the files `cert`, `key` and `ca`. */
export async function startStore(kind, tls) {
  const folder = mkdtempSync(path.join(tmpdir(), `fanfare-${kind}-`));
  const port = await freePort();
  let args;
  if (kind === "redis") {
    const listen = tls
      ? ["--port", "0", "--tls-port", String(port), "--tls-cert-file", tls.cert, "--tls-key-file", tls.key, "--tls-ca-cert-file", tls.ca, "--tls-auth-clients", "no"]
      : ["--port", String(port)];
    args = [...listen, "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"];
  } else {
    const config = path.join(folder, "nats.conf");
    const secure = tls ? `tls {\n  cert_file: "${tls.cert}"\n  key_file: "${tls.key}"\n}\n` : "";
    writeFileSync(config, `server_name: n0\nlisten: "127.0.0.1:${port}"\njetstream {\n  store_dir: "${folder}"\n}\n${secure}`);
    args = ["-c", config];
  }
  const store = new Store(kind, port, folder, args);
  store.tls = tls;
  await store.start();
  return store;
}
