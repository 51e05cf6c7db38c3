// Servers that share a store, and bridges that may link to any of them.

import { QUIET, startBridge, startServer } from "../fanfare.js";

/** What hangs is noticed within a scenario, and a busy machine is not taken for one that hangs. */
const SERVER_ARGS = [...QUIET, "--heartbeat-interval", "1500ms", "--recovery-window", "2m"];
const BRIDGE_ARGS = ["--ping-interval", "1s", "--ping-timeout", "5s", "--connect-timeout", "20s"];

export class Group {
  servers = [];
  bridges = [];
  /** All processes that there were. */
  started = [];

  static async start(store, { servers = 2, bridges = 2, serverArgs = [] } = {}) {
    const group = Object.assign(new Group(), { store });
    group.serverArgs = [...SERVER_ARGS, ...store.serverArgs, ...serverArgs];
    for (let i = 0; i < servers; i++) group.servers.push(await group.#startServer(i));
    for (let i = 0; i < bridges; i++) await group.addBridge();
    return group;
  }

  #note(name, process) {
    this.started.push(process);
    return Object.assign(process, { name });
  }

  async #startServer(index, listen) {
    const name = `server-${index}`;
    return this.#note(name, await startServer([...this.serverArgs, "--server-name", name], listen));
  }

  /** Where clients may connect, as a balancer would tell them. */
  urls = () => this.bridges.map((bridge) => bridge.url);

  /** Where a producer publishes. */
  target(number) {
    return this.servers[number % this.servers.length].url;
  }

  async addBridge() {
    const [first, ...others] = this.servers;
    const bridge = await startBridge(first, [...BRIDGE_ARGS, ...others.flatMap((server) => ["--server", server.url])]);
    this.bridges.push(this.#note("bridge", bridge));
    return bridge;
  }

  /** Takes a bridge away, for the caller to end. */
  takeBridge(index = 0) {
    return this.bridges.splice(index, 1)[0];
  }

  /** Starts a server that has ended again, at the same address. */
  async restartServer(index) {
    this.servers[index] = await this.#startServer(index, this.servers[index].address);
  }

  async stop() {
    for (const bridge of this.bridges) await bridge.stop();
    for (const server of this.servers) await server.stop();
  }

  /** Ends it in whatever state it is. */
  abandon() {
    for (const process of [...this.servers, ...this.bridges]) process.child.kill("SIGKILL");
  }
}
