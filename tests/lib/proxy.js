// A TCP proxy that does to connections what networks do: it delays, falls silent, breaks.

import net from "node:net";

/** Bytes on their way in one direction of a connection, beyond which its sender has to wait. */
const UNDERWAY_MAX = 4 << 20;

export class Proxy {
  /** Answers requests for a WebSocket with 503. */
  refuseUpgrades = false;
  /** How long everything is on its way, each way, in milliseconds. Set for a while it is a network that is away and comes back. */
  delayMs = 0;
  /** Breaks a connection, in the middle of whatever it is, once so many bytes have come down it. */
  breakAfterBytes = Infinity;
  #silent = new Set();
  #pairs = new Set();

  /** A proxy towards `host:port`, on a port of its own. */
  static async to(target) {
    const proxy = new Proxy();
    /** The target of new connections. */
    proxy.target = target;
    proxy.server = net.createServer((near) => {
      const [host, port] = proxy.target.split(":");
      proxy.#join(near, net.connect(Number(port), host));
    });
    await new Promise((resolve) => proxy.server.listen(0, "127.0.0.1", resolve));
    proxy.address = `127.0.0.1:${proxy.server.address().port}`;
    proxy.url = `http://${proxy.address}`;
    return proxy;
  }

  #join(near, far) {
    const pair = { near, far, torn: false, forgotten: false, down: 0 };
    this.#pairs.add(pair);
    near.setNoDelay(true);
    far.setNoDelay(true);
    this.#way(pair, near, far, "up");
    this.#way(pair, far, near, "down");
  }

  /** One direction of a connection: everything in order, each when its time has come. */
  #way(pair, from, to, direction) {
    const queue = [];
    let underway = 0;
    const flow = () => (underway + to.writableLength > UNDERWAY_MAX ? from.pause() : from.resume());
    const deliver = ({ data }) => {
      // A network that has fallen silent tells nobody of an end either.
      if (pair.forgotten || this.#silent.has(direction)) pair.torn = true;
      else if (data) this.#pass(pair, to, direction, data);
      else to.destroySoon();
    };
    const pump = () => {
      while (queue[0]?.at <= performance.now()) {
        const one = queue.shift();
        underway -= one.data?.length ?? 0;
        deliver(one);
      }
      flow();
      if (queue.length > 0) setTimeout(pump, Math.max(1, queue[0].at - performance.now()));
    };
    const send = (data) => {
      if (queue.length === 0 && this.delayMs === 0) return deliver({ data });
      underway += data?.length ?? 0;
      queue.push({ data, at: performance.now() + this.delayMs });
      if (queue.length === 1) setTimeout(pump, this.delayMs);
    };
    from.on("data", (data) => {
      if (direction === "up" && this.refuseUpgrades && /^upgrade: websocket/im.test(data)) {
        from.end("HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        return;
      }
      send(data);
      flow();
    });
    to.on("drain", flow);
    from.on("error", () => {});
    from.on("close", () => {
      send();
      if (to.destroyed) this.#pairs.delete(pair);
    });
  }

  #pass(pair, to, direction, data) {
    pair.down += direction === "down" ? data.length : 0;
    const tooMuch = pair.down - this.breakAfterBytes;
    if (tooMuch <= 0) return to.write(data);
    to.write(data.subarray(0, Math.max(0, data.length - tooMuch)), () => this.#break(pair));
  }

  #break(pair) {
    pair.near.destroy();
    pair.far.destroy();
  }

  /** Breaks all connections. */
  cut() {
    for (const pair of this.#pairs) this.#break(pair);
  }

  /** From now on nothing arrives in these directions, "up" towards the target or "down" from it, and no connection is closed. */
  silence(...directions) {
    for (const direction of directions) this.#silent.add(direction);
  }

  /** Everything arrives again, over new connections: those that have lost something are broken. */
  speak() {
    this.#silent.clear();
    for (const pair of this.#pairs) if (pair.torn) this.#break(pair);
  }

  /** The connections that there are stay open and silent for ever; new ones work. */
  forget() {
    for (const pair of this.#pairs) pair.forgotten = true;
  }

  close() {
    this.server.close();
    this.cut();
  }
}
