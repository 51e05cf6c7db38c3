// A TCP proxy whose connections the test can cut.

import net from "node:net";

export class Proxy {
  #pairs = new Set();

  /** A proxy towards `host:port`, on a port of its own. */
  static async to(target) {
    const proxy = new Proxy();
    const [host, port] = target.split(":");
    proxy.server = net.createServer((near) => proxy.#join(near, net.connect(Number(port), host)));
    await new Promise((resolve) => proxy.server.listen(0, "127.0.0.1", resolve));
    proxy.address = `127.0.0.1:${proxy.server.address().port}`;
    proxy.url = `http://${proxy.address}`;
    return proxy;
  }

  #join(near, far) {
    const pair = { near, far };
    this.#pairs.add(pair);
    for (const [from, to] of [[near, far], [far, near]]) {
      from.pipe(to);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        to.destroy();
        this.#pairs.delete(pair);
      });
    }
  }

  /** Breaks all connections. */
  cut() {
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far.destroy();
    }
  }

  close() {
    this.server.close();
    this.cut();
  }
}
