// Engine.IO 4 over both transports, for tests that send and read single packets.

import WebSocket from "ws";
import { get, within } from "./fanfare.js";

export const TRANSPORTS = ["websocket", "polling"];
/** Between the packets of one payload. */
export const SEPARATOR = "\x1e";
export const PATH = "/socket.io/";
export const polling = (url, sid) => `${url}${PATH}?EIO=4&transport=polling${sid ? `&sid=${sid}` : ""}`;

/** One polling request: status, text, headers, and the code of a refusal. */
export async function ask(url, options) {
  const response = await get(url, options);
  const text = await response.text();
  let code;
  if (!response.ok) {
    try {
      ({ code } = JSON.parse(text));
    } catch {
      // Not a refusal of Engine.IO.
    }
  }
  return { status: response.status, text, code, headers: response.headers };
}

/** A polling session, request by request. */
export class Poller {
  static async open(url) {
    const poller = new Poller();
    poller.url = url;
    const { status, text } = await ask(polling(url));
    if (status !== 200) throw new Error(`no handshake: ${status} ${text}`);
    poller.handshake = JSON.parse(text.slice(1));
    poller.sid = poller.handshake.sid;
    return poller;
  }

  get(options) {
    return ask(polling(this.url, this.sid), options);
  }

  /** Sends packets as one payload; a single argument is sent unchanged. */
  post(...packets) {
    const body = packets.length === 1 ? packets[0] : packets.join(SEPARATOR);
    return ask(polling(this.url, this.sid), { method: "POST", body });
  }

  /** The packets of the next response. */
  async packets() {
    const { status, text } = await this.get();
    if (status !== 200) throw new Error(`polling ended: ${status} ${text}`);
    return text.split(SEPARATOR);
  }

  /** CONNECTs to the main namespace and drops all packets up to the answer. */
  async connect(token) {
    await this.post(`40${JSON.stringify({ token })}`);
    await this.until((packet) => packet.startsWith("40"));
  }

  /** Polls until a packet matches; returns all packets. Answers pings. */
  async until(matches) {
    const got = [];
    while (!got.some(matches)) {
      const packets = await this.packets();
      got.push(...packets);
      if (packets.includes("2")) await this.post("3");
    }
    return got;
  }
}

/** Received packets that no test has taken yet. */
class Packets {
  received = [];
  #waiting = new Set();

  add(packet) {
    this.received.push(packet);
    for (const look of [...this.#waiting]) if (look()) this.#waiting.delete(look);
  }

  /** Waits for the first packet that matches and removes it; others stay. */
  packet(matches, what = String(matches)) {
    const fits = typeof matches === "string" ? (packet) => String(packet).startsWith(matches) : matches;
    const taken = new Promise((resolve) => {
      const look = () => {
        const at = this.received.findIndex(fits);
        if (at >= 0) resolve(this.received.splice(at, 1)[0]);
        return at >= 0;
      };
      if (!look()) this.#waiting.add(look);
    });
    const died = this.ended.then(() => {
      if (!this.received.some(fits)) throw new Error(`the connection ended before ${what}; it sent ${this.received}`);
      return this.packet(matches, what);
    });
    died.catch(() => {});
    return within(Promise.race([taken, died]), `a packet ${what}; there are ${this.received}`);
  }

  /** CONNECTs to a namespace; returns the payload of the answer. */
  async connect(token, namespace = "/", more = {}) {
    const place = namespace === "/" ? "" : `${namespace},`;
    this.send(`40${place}${JSON.stringify({ token, ...more })}`);
    return JSON.parse((await this.packet(`40${place}{`)).slice(2 + place.length));
  }

  /** Sends a call; returns its acknowledgement. */
  async call(id, name, payload, namespace = "/") {
    const place = namespace === "/" ? "" : `${namespace},`;
    this.send(`42${place}${id}${JSON.stringify(payload === undefined ? [name] : [name, payload])}`);
    return this.acknowledgement(id, namespace);
  }

  async acknowledgement(id, namespace = "/") {
    const start = `43${namespace === "/" ? "" : `${namespace},`}${id}[`;
    return JSON.parse((await this.packet(start)).slice(start.length - 1))[0];
  }
}

class WebSocketEngine extends Packets {
  static async open(url) {
    const engine = new WebSocketEngine();
    engine.socket = new WebSocket(`${url.replace("http", "ws")}${PATH}?EIO=4&transport=websocket`, { perMessageDeflate: false });
    /** Resolves with the code of the Close frame, or 1006 without one. */
    engine.ended = new Promise((resolve) => engine.socket.once("close", resolve));
    engine.socket.on("error", () => {});
    engine.socket.on("message", (data, binary) => {
      if (!binary && String(data) === "2") return engine.socket.send("3");
      engine.add(binary ? data : String(data));
    });
    engine.handshake = JSON.parse((await engine.packet("0{")).slice(1));
    return engine;
  }

  send(...packets) {
    for (const packet of packets) this.socket.send(packet);
  }

  close() {
    this.socket.terminate();
  }
}

class PollingEngine extends Packets {
  static async open(url) {
    const engine = new PollingEngine();
    engine.poller = await Poller.open(url);
    engine.handshake = engine.poller.handshake;
    engine.ended = engine.#run();
    return engine;
  }

  /** Polls until the session is closed. */
  async #run() {
    for (;;) {
      const { status, text } = await this.poller.get().catch(() => ({ status: 0 }));
      if (status !== 200) return;
      for (const packet of text.split(SEPARATOR)) {
        if (packet === "2") this.send("3");
        else if (packet.startsWith("b")) this.add(Buffer.from(packet.slice(1), "base64"));
        else this.add(packet);
      }
    }
  }

  /** Posts one payload after the other: Engine.IO allows one POST at a time. */
  send(...packets) {
    const texts = packets.map((packet) => (typeof packet === "string" ? packet : `b${packet.toString("base64")}`));
    const before = this.sent;
    this.sent = (async () => {
      await before;
      await this.poller.post(texts.join(SEPARATOR)).catch(() => {});
    })();
  }

  close() {
    this.send("1");
  }
}

/** Opens a connection, which answers pings by itself. */
export const openEngine = (url, transport) => (transport === "polling" ? PollingEngine : WebSocketEngine).open(url);

/** The path of a WebSocket, for a session that is polled where its id is given. */
export const upgrade = (sid) => `${PATH}?EIO=4&transport=websocket${sid ? `&sid=${sid}` : ""}`;
/** A call of messenger as a packet, and its acknowledgement. */
export const subscribe = (id, chatId = 7) => `42${id}["subscribe:chat",{"chatId":${chatId}}]`;
export const acknowledged = (id, chatId = 7) => `43${id}[{"chatId":${chatId}}]`;
/** The number of a message:new packet. */
export const number = (packet) => Number(/^42\["message:new",\{"id":(\d+)/.exec(packet)?.[1] ?? NaN);
