// Clients of the plain transports: raw WebSocket, SSE and long polling.

import WebSocket from "ws";
import { get, within } from "./fanfare.js";

const query = (parameters) => {
  const pairs = Object.entries(parameters).filter(([, value]) => value !== undefined);
  return new URLSearchParams(pairs.flatMap(([name, value]) => [value].flat().map((one) => [name, one])));
};

/** Collects messages and resolves with the first that matches, also one that has come already. */
class Collected {
  messages = [];
  #waiting = new Set();

  add(message) {
    this.messages.push(message);
    for (const look of [...this.#waiting]) if (look(message)) this.#waiting.delete(look);
  }

  message(type, matches = () => true) {
    const found = new Promise((resolve) => {
      const look = (message) => {
        const fits = message.type === type && matches(message);
        if (fits) resolve(message);
        return fits;
      };
      if (!this.messages.some(look)) this.#waiting.add(look);
    });
    return within(found, `message ${type}`);
  }
}

/** A raw WebSocket to `/ws`. */
export class RawSocket extends Collected {
  constructor(url, parameters = {}, options = {}) {
    super();
    this.socket = new WebSocket(`${url.replace("http", "ws")}/ws?${query(parameters)}`, options);
    this.opened = within(new Promise((resolve, reject) => this.socket.once("open", resolve).once("error", reject)), "the WebSocket");
    this.closed = new Promise((resolve) => this.socket.once("close", (code, reason) => resolve({ code, reason: String(reason) })));
    this.socket.on("message", (text) => this.add(JSON.parse(text)));
    this.opened.catch(() => {});
  }

  send(message) {
    this.socket.send(typeof message === "string" ? message : JSON.stringify(message));
  }

  close() {
    this.socket.close();
    return this.closed;
  }
}

/** Server-sent events from `/events`, read as the specification has it. */
export class EventStream extends Collected {
  lastEventId = "";
  #abort = new AbortController();

  static async open(url, parameters = {}, headers = {}) {
    const stream = new EventStream();
    const response = await within(fetch(`${url}/events?${query(parameters)}`, { headers, signal: stream.#abort.signal }), "the stream");
    if (!response.ok) throw Object.assign(new Error("refused"), { status: response.status, body: await response.json() });
    stream.type = response.headers.get("content-type");
    /** Resolves when nothing more comes. */
    stream.ended = stream.#read(response.body).catch(() => {});
    return stream;
  }

  async #read(body) {
    let [text, event] = ["", {}];
    for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      const lines = text.split("\n");
      text = lines.pop();
      for (const line of lines) {
        const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
        if (line !== "") {
          event[field] = value;
          continue;
        }
        if (event.id !== undefined) this.lastEventId = event.id;
        if (event.data !== undefined) this.add({ name: event.event, eventId: event.id, ...JSON.parse(event.data) });
        event = {};
      }
    }
  }

  close() {
    this.#abort.abort();
  }
}

/** One long poll. */
export async function poll(url, parameters = {}, options = {}) {
  const response = await get(`${url}/poll?${query(parameters)}`, { signal: AbortSignal.timeout(40_000), ...options });
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(`refused: ${response.status}`), { status: response.status, headers: response.headers, body });
  return body;
}
