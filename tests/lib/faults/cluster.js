// A server with its log on disk, and bridges, each behind a network of its own that the tests disturb.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { QUIET, startBridge, startServer } from "../fanfare.js";
import { Proxy } from "../proxy.js";

/** Short, so that what hangs is noticed within a scenario. */
const SERVER_ARGS = [...QUIET, "--heartbeat-interval", "500ms", "--recovery-window", "2m"];
const BRIDGE_ARGS = ["--ping-interval", "1s", "--connect-timeout", "5s"];

export class Cluster {
  bridges = [];

  /** `folder` is where the log is kept; `via` is a command that becomes the server. */
  static async start({ bridges = 2, folder, via, pingTimeout = "2s", serverArgs = [], bridgeArgs = [] } = {}) {
    const cluster = new Cluster();
    cluster.folder = folder ?? mkdtempSync(path.join(tmpdir(), "fanfare-faults-"));
    cluster.isOwn = folder === undefined;
    cluster.serverArgs = [...SERVER_ARGS, "--data-dir", cluster.folder, ...serverArgs];
    cluster.bridgeArgs = [...BRIDGE_ARGS, "--ping-timeout", pingTimeout, ...bridgeArgs];
    cluster.via = via;
    cluster.server = await startServer(cluster.serverArgs, undefined, { via });
    for (let i = 0; i < bridges; i++) await cluster.addBridge();
    return cluster;
  }

  /** Where clients may connect, as a balancer would tell them. */
  urls = () => this.bridges.filter((bridge) => !bridge.avoided).map((bridge) => bridge.url);

  /** Where a producer publishes. */
  target() {
    return this.server.url;
  }

  get links() {
    return this.bridges.map((bridge) => bridge.link);
  }

  async addBridge() {
    const link = await Proxy.to(this.server.address);
    const bridge = await startBridge(link, this.bridgeArgs);
    bridge.link = link;
    this.bridges.push(bridge);
    return bridge;
  }

  /** Takes a bridge away, for the caller to end. */
  takeBridge(index = 0) {
    const [bridge] = this.bridges.splice(index, 1);
    bridge.ended.then(() => bridge.link.close());
    return bridge;
  }

  async restartServer() {
    const { address, provoked } = this.server;
    this.server = await startServer(this.serverArgs, address, { via: this.via });
    this.server.provoked = provoked;
  }

  async stop() {
    for (const bridge of this.bridges) {
      await bridge.stop();
      bridge.link.close();
    }
    await this.server.stop();
    if (this.isOwn) rmSync(this.folder, { recursive: true });
  }

  /** Ends it in whatever state it is. */
  abandon() {
    for (const process of [this.server, ...this.bridges]) process.child.kill("SIGKILL");
    this.links.forEach((link) => link.close());
  }
}
