// A TCP proxy whose connections the test can cut.

import net from "node:net";

export class Proxy {
  /** Answers requests for a WebSocket with 503. */
  refuseUpgrades = false;
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
    near.on("data", (data) => {
      if (this.refuseUpgrades && /^upgrade: websocket/im.test(data)) {
        near.end("HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        return;
      }
      far.write(data);
    });
    near.on("end", () => far.end());
    far.pipe(near);
    for (const [from, to] of [[near, far], [far, near]]) {
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
