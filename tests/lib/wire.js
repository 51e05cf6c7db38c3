// A TCP connection on which a test writes HTTP/1.1 and WebSocket frames byte by byte, valid or not.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import net from "node:net";
import { within } from "./fanfare.js";

export const CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10;
/** The suffix of the client's key from which the server computes its answer (RFC 6455, section 1.3). */
const KEY_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** The bytes of one frame. `length` replaces the length of the payload in the header. */
export function frame(opcode, payload = "", { fin = true, rsv = 0, masked = true, length, wide = false } = {}) {
  const data = Buffer.from(payload);
  const size = BigInt(length ?? data.length);
  const first = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  const mask = masked ? 0x80 : 0;
  let head;
  if (wide || size > 0xffffn) {
    head = Buffer.alloc(10);
    head.writeBigUInt64BE(size, 2);
    head[1] = mask | 127;
  } else if (size > 125n) {
    head = Buffer.alloc(4);
    head.writeUInt16BE(Number(size), 2);
    head[1] = mask | 126;
  } else {
    head = Buffer.from([0, mask | Number(size)]);
  }
  head[0] = first;
  if (!masked) return Buffer.concat([head, data]);
  const key = randomBytes(4);
  return Buffer.concat([head, key, data.map((byte, i) => byte ^ key[i % 4])]);
}

/** The payload of a Close frame. */
export function closing(code, reason = "") {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return Buffer.concat([head, Buffer.from(reason)]);
}

export class Wire {
  #read = Buffer.alloc(0);
  #waiting = [];
  #over = false;
  /** Whether a Close frame was sent. */
  #said = false;

  static async open(url) {
    const { hostname, port } = new URL(url);
    const wire = new Wire();
    wire.host = `${hostname}:${port}`;
    wire.socket = net.connect(Number(port), hostname);
    wire.socket.setNoDelay(true);
    wire.socket.on("data", (data) => {
      wire.#read = Buffer.concat([wire.#read, data]);
      wire.#look();
    });
    wire.socket.on("error", () => {});
    /** Resolves when the other side has ended the connection. */
    wire.ended = new Promise((resolve) => {
      const end = () => {
        wire.#over = true;
        wire.#look();
        resolve();
      };
      wire.socket.once("end", end).once("close", end);
    });
    await within(new Promise((resolve, reject) => wire.socket.once("connect", resolve).once("error", reject)), "the TCP connection");
    return wire;
  }

  #look() {
    this.#waiting = this.#waiting.filter((look) => !look());
  }

  /** Removes what `parse` finds at the start of the buffer: {value, used}, or undefined while it is incomplete. */
  #take(parse, what) {
    const taken = new Promise((resolve, reject) => {
      const look = () => {
        let found;
        try {
          found = parse(this.#read, this.#over);
        } catch (error) {
          reject(error);
          return true;
        }
        if (found) {
          this.#read = this.#read.subarray(found.used);
          resolve(found.value);
        } else if (this.#over) {
          reject(new Error(`the connection ended before ${what}`));
        }
        return Boolean(found) || this.#over;
      };
      if (!look()) this.#waiting.push(look);
    });
    return within(taken, what);
  }

  send(data) {
    this.socket.write(data);
  }

  /** Writes a request. Adds the length of the body unless it is chunked. */
  request(method, path, { headers = {}, body = "" } = {}) {
    const length = body && !headers["transfer-encoding"] ? { "content-length": Buffer.byteLength(body) } : {};
    const lines = Object.entries({ host: this.host, ...length, ...headers }).map(([name, value]) => `${name}: ${value}`);
    this.send(`${method} ${path} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n${body}`);
  }

  /** Reads the next response; `bodiless` for HEAD. */
  response({ bodiless = false } = {}) {
    return this.#take((read, over) => parseResponse(read, over, bodiless), "a response");
  }

  /** Writes a request and reads its response. */
  ask(method, path, options = {}) {
    this.request(method, path, options);
    return this.response({ bodiless: method === "HEAD" });
  }

  /** Opens a WebSocket and checks the response as RFC 6455 demands. */
  async upgrade(path, headers = {}) {
    const key = randomBytes(16).toString("base64");
    const asked = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": 13, "sec-websocket-key": key, ...headers };
    const answer = await this.ask("GET", path, { headers: asked });
    if (answer.status !== 101) return answer;
    assert.equal(answer.headers.upgrade?.toLowerCase(), "websocket");
    assert.match(answer.headers.connection, /upgrade/i);
    assert.equal(answer.headers["sec-websocket-accept"], createHash("sha1").update(key + KEY_SUFFIX).digest("base64"));
    return answer;
  }

  /** Sends one frame. */
  frame(opcode, payload, options) {
    this.#said ||= opcode === CLOSE;
    this.send(frame(opcode, payload, options));
  }

  text(payload) {
    this.frame(TEXT, payload);
  }

  /** Reads the next frame. Frames of a server are never masked. */
  async next() {
    const got = await this.#take(parseFrame, "a frame");
    assert.equal(got.masked, false, "a server must not mask");
    return got;
  }

  /** Reads frames until a text matches. */
  async message(matches = () => true) {
    for (;;) {
      const { opcode, payload } = await this.next();
      if (opcode === TEXT && matches(String(payload))) return String(payload);
      assert.notEqual(opcode, CLOSE, `closed instead: ${payload.toString("latin1")}`);
    }
  }

  /** Reads until the connection is closed, and answers a Close frame. Returns whether there was one, with its code and reason. */
  async closed() {
    let last;
    try {
      for (;;) {
        const got = await this.next();
        if (got.opcode !== CLOSE) continue;
        last = got.payload;
        if (!this.#said) this.frame(CLOSE, last);
      }
    } catch (error) {
      if (!/ended before/.test(error.message)) throw error;
    }
    const code = last?.length >= 2 ? last.readUInt16BE() : undefined;
    return { framed: last !== undefined, code, reason: last?.subarray(2).toString() };
  }

  destroy() {
    this.socket.destroy();
  }
}

function parseFrame(read) {
  if (read.length < 2) return;
  let [at, length] = [2, read[1] & 0x7f];
  if (length === 126) {
    if (read.length < 4) return;
    [at, length] = [4, read.readUInt16BE(2)];
  } else if (length === 127) {
    if (read.length < 10) return;
    [at, length] = [10, Number(read.readBigUInt64BE(2))];
  }
  if (read.length < at + length) return;
  const value = {
    fin: Boolean(read[0] & 0x80), rsv: (read[0] >> 4) & 7, opcode: read[0] & 15, masked: Boolean(read[1] & 0x80),
    payload: Buffer.from(read.subarray(at, at + length)),
  };
  return { value, used: at + length };
}

function parseResponse(read, over, bodiless) {
  const end = read.indexOf("\r\n\r\n");
  if (end < 0) return;
  const [first, ...lines] = read.subarray(0, end).toString("latin1").split("\r\n");
  const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(first)?.[1]);
  const headers = Object.fromEntries(lines.map((line) => [line.split(":")[0].toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]));
  const rest = read.subarray(end + 4);
  const done = (body, used) => ({ value: { status, headers, body: body.toString() }, used: end + 4 + used });
  if (bodiless || status < 200 || status === 204 || status === 304) return done(Buffer.alloc(0), 0);
  if (headers["transfer-encoding"]) return parseChunks(rest, done);
  const length = headers["content-length"];
  if (length === undefined) return over ? done(rest, rest.length) : undefined;
  return rest.length >= Number(length) ? done(rest.subarray(0, Number(length)), Number(length)) : undefined;
}

function parseChunks(rest, done) {
  const parts = [];
  for (let at = 0; ; ) {
    const line = rest.indexOf("\r\n", at);
    if (line < 0) return;
    const size = parseInt(rest.subarray(at, line).toString(), 16);
    const next = line + 2 + size + 2;
    if (rest.length < next) return;
    if (size === 0) return done(Buffer.concat(parts), next);
    parts.push(rest.subarray(line + 2, line + 2 + size));
    at = next;
  }
}
