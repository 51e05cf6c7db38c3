// Redis as it runs in production: one node, a primary with a replica that a sentinel promotes, a cluster of six. All on loopback.

import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { until } from "../fanfare.js";
import { freePort, Store } from "../stores.js";

const run = promisify(execFile);
const CALL_MAX = 20_000;
/** Moves some keys of a slot. Keys may have bytes that no argument of a process can have. */
const MOVE = `
local keys = redis.call('CLUSTER', 'GETKEYSINSLOT', ARGV[1], 100)
if #keys > 0 then redis.call('MIGRATE', '127.0.0.1', ARGV[2], '', 0, 5000, 'KEYS', unpack(keys)) end
return #keys`;

/** One process, asked by Redis' own tool. */
export class Node extends Store {
  static async start(options = []) {
    const folder = mkdtempSync(path.join(tmpdir(), "fanfare-redis-"));
    const port = await freePort();
    const args = ["--port", `${port}`, "--bind", "127.0.0.1", "--dir", folder, "--save", "", ...options];
    const node = new Node("redis", port, folder, args);
    await node.start();
    return node;
  }

  /** Runs a command and gives its answer as text. */
  async ask(...words) {
    const { stdout } = await run("redis-cli", ["-p", `${this.port}`, ...words], { timeout: CALL_MAX });
    return stdout.trim();
  }

  /** Loses everything that it has on its disk. */
  forget() {
    rmSync(path.join(this.folder, "appendonlydir"), { recursive: true, force: true });
  }

  async isPrimary() {
    return (await this.ask("ROLE").catch(() => "")).startsWith("master");
  }
}

export const startNode = () => Node.start(["--appendonly", "yes", "--maxmemory-policy", "noeviction"]);

/** A primary and its replica, which a sentinel promotes. */
export class Watched {
  static async start() {
    const watched = new Watched();
    watched.primary = await Node.start();
    watched.replica = await Node.start(["--replicaof", `127.0.0.1 ${watched.primary.port}`]);
    const folder = mkdtempSync(path.join(tmpdir(), "fanfare-sentinel-"));
    const port = await freePort();
    const config = path.join(folder, "sentinel.conf");
    writeFileSync(config, [
      `sentinel monitor main 127.0.0.1 ${watched.primary.port} 1`, "sentinel down-after-milliseconds main 500", "sentinel failover-timeout main 3000", "",
    ].join("\n"));
    watched.sentinel = Object.setPrototypeOf(new Store("redis", port, folder, [config, "--sentinel", "--port", `${port}`, "--bind", "127.0.0.1"]), Node.prototype);
    await watched.sentinel.start();
    await until(async () => (await watched.sentinel.ask("SENTINEL", "REPLICAS", "main")).includes("slave"), "the sentinel to know the replica");
    await until(async () => (await watched.replica.ask("INFO", "replication")).includes("master_link_status:up"), "the replica to follow");
    return watched;
  }

  get serverArgs() {
    return ["--redis", `redis+sentinel://127.0.0.1:${this.sentinel.port}/main`];
  }

  async stop() {
    for (const node of [this.sentinel, this.replica, this.primary]) await node.stop();
  }
}

/** Three primaries with a replica each. */
export class Clustered {
  static async start() {
    const clustered = new Clustered();
    const options = async () => ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", `${await freePort()}`];
    clustered.nodes = await Promise.all(Array.from({ length: 6 }, async () => Node.start(await options())));
    const addresses = clustered.nodes.map(({ port }) => `127.0.0.1:${port}`);
    await run("redis-cli", ["--cluster", "create", ...addresses, "--cluster-replicas", "1", "--cluster-yes"], { timeout: 60_000 });
    for (const node of clustered.nodes) await until(async () => (await node.ask("CLUSTER", "INFO")).includes("cluster_state:ok"), "the cluster");
    const follows = async (node) => /role:master|master_link_status:up/.test(await node.ask("INFO", "replication"));
    for (const node of clustered.nodes) await until(() => follows(node), "the replicas to follow");
    return clustered;
  }

  get serverArgs() {
    return ["--redis", `redis+cluster://${this.nodes.map(({ port }) => `127.0.0.1:${port}`).join(",")}`];
  }

  /** The nodes by their ids: what one of them says of all. */
  async #known() {
    const lines = (await this.nodes[0].ask("CLUSTER", "NODES")).split("\n").map((line) => line.split(" "));
    return lines.map(([id, address, flags, of, , , , , ...slots]) => {
      const port = Number(/:(\d+)@/.exec(address)[1]);
      return { id, of, isPrimary: flags.includes("master"), slots, node: this.nodes.find((node) => node.port === port) };
    });
  }

  /** The primary that has a slot. */
  async owner(slot) {
    const known = await this.#known();
    const has = (range) => {
      const [first, last = first] = range.split("-").map(Number);
      return slot >= first && slot <= last;
    };
    return known.find(({ isPrimary, slots }) => isPrimary && slots.some(has));
  }

  /** A replica of the slot's primary takes over, as planned. */
  async failOver(slot) {
    const { id } = await this.owner(slot);
    const { node } = (await this.#known()).find(({ of }) => of === id);
    await node.ask("CLUSTER", "FAILOVER");
    await until(() => node.isPrimary(), "the replica to take over");
  }

  /** Moves a slot with everything in it to another primary, while it is used. */
  async move(slot) {
    const from = await this.owner(slot);
    const to = (await this.#known()).find(({ id, isPrimary }) => isPrimary && id !== from.id);
    await to.node.ask("CLUSTER", "SETSLOT", `${slot}`, "IMPORTING", from.id);
    await from.node.ask("CLUSTER", "SETSLOT", `${slot}`, "MIGRATING", to.id);
    for (;;) {
      if ((await from.node.ask("EVAL", MOVE, "0", `${slot}`, `${to.node.port}`)) === "0") break;
    }
    for (const node of [to.node, from.node]) await node.ask("CLUSTER", "SETSLOT", `${slot}`, "NODE", to.id);
    await until(async () => (await this.owner(slot))?.id === to.id, "all to know the slot's new node");
  }

  async stop() {
    for (const node of this.nodes) await node.stop();
  }
}
