// NATS with JetStream on loopback: one server, or three that keep each stream three times.

import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { get, until } from "../fanfare.js";
import { freePort, Store } from "../stores.js";

/** Few, so that three servers on one machine have little to do. */
const PARTITIONS = 2;

export class Nats {
  /** `limit` bounds what each server stores, e.g. "20MB". */
  static async start(count, { limit } = {}) {
    const nats = Object.assign(new Nats(), { nodes: [], limit });
    const routes = await Promise.all(Array.from({ length: count }, freePort));
    for (const [number, route] of routes.entries()) {
      const folder = mkdtempSync(path.join(tmpdir(), "fanfare-nats-"));
      const node = new Store("nats", await freePort(), folder, ["-c", path.join(folder, "nats.conf")]);
      Object.assign(node, { name: `n${number}`, http: await freePort(), routes: count > 1 ? { route, routes } : undefined });
      nats.nodes.push(node);
      nats.configure(node);
    }
    await Promise.all(nats.nodes.map((node) => node.start()));
    await until(() => nats.#isReady(), "JetStream to be ready");
    return nats;
  }

  /** Writes a server's configuration, for its next start. */
  configure({ name, port, http, folder, routes }) {
    const limit = this.limit ? `max_file_store: ${this.limit}` : "";
    const text = [
      `server_name: ${name}`, `listen: "127.0.0.1:${port}"`, `http: "127.0.0.1:${http}"`, `jetstream { store_dir: "${folder}/store"\n ${limit} }`,
    ];
    if (routes) {
      const urls = routes.routes.map((route) => `"nats://127.0.0.1:${route}"`).join(", ");
      text.push(`cluster { name: faults, listen: "127.0.0.1:${routes.route}", routes: [${urls}] }`);
    }
    writeFileSync(path.join(folder, "nats.conf"), `${text.join("\n")}\n`);
  }

  get serverArgs() {
    const urls = this.nodes.flatMap(({ port }) => ["--nats", `nats://127.0.0.1:${port}`]);
    return [...urls, "--nats-replicas", `${this.nodes.length}`, "--nats-partitions", `${PARTITIONS}`];
  }

  async #isReady() {
    const states = await Promise.all(this.nodes.map((node) => this.#state(node)));
    return states.every((state) => state && (this.nodes.length === 1 || state.meta_cluster?.leader));
  }

  #state(node) {
    return get(`http://127.0.0.1:${node.http}/jsz?accounts=true&streams=true`, { signal: AbortSignal.timeout(2000) }).then((answer) => answer.json(), () => undefined);
  }

  /** The server that leads the stream of the log with the most messages. */
  async leader() {
    const found = async () => {
      for (const node of this.nodes) {
        const streams = (await this.#state(node))?.account_details?.flatMap((account) => account.stream_detail ?? []) ?? [];
        const [fullest] = streams.filter(({ name }) => name.includes("_LOG_")).sort((a, b) => b.state.messages - a.state.messages);
        const leader = this.nodes.find(({ name }) => name === fullest?.cluster?.leader);
        if (leader) return leader;
      }
    };
    return until(found, "the stream's leader");
  }

  /** Copies what a server that is not running has on its disk; `restore` brings it back. */
  copy({ folder }) {
    cpSync(`${folder}/store`, `${folder}/copy`, { recursive: true });
  }

  restore({ folder }) {
    rmSync(`${folder}/store`, { recursive: true });
    cpSync(`${folder}/copy`, `${folder}/store`, { recursive: true });
  }

  async stop() {
    for (const node of this.nodes) await node.stop();
  }
}
