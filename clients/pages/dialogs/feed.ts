// The feed: a WebSocket while there is one, long polling while there is none, and one cursor for both, so that nothing is
// missed or doubled when it goes from one to the other.

import type { WebSocketCalls, WebSocketEvents } from "./events";

export type Mode = "connecting" | "live" | "polling" | "ended";

export interface FeedEvents {
  mode(mode: Mode): void;
  message(message: WebSocketEvents): void;
  problem(text: string): void;
}

/** Close codes from here on mean: do not come back with the same token. */
const FINAL_CODES = 4500;
const PING_MS = 5000;

const call = (message: WebSocketCalls) => JSON.stringify(message);

export class DialogFeed {
  /** Where we are in the feed; empty before the first answer. */
  #cursor = "";
  #mode: Mode = "connecting";
  #socket?: WebSocket;
  #polling?: AbortController;
  #retry?: ReturnType<typeof setTimeout>;
  #pings?: ReturnType<typeof setInterval>;
  #closed = false;

  constructor(
    readonly url: string,
    readonly token: string,
    readonly events: FeedEvents,
    readonly retryMs: number,
  ) {
    this.#open();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#retry);
    clearInterval(this.#pings);
    this.#polling?.abort();
    this.#socket?.close();
  }

  #query() {
    return new URLSearchParams({ token: this.token, after: this.#cursor });
  }

  #enter(mode: Mode) {
    this.#mode = mode;
    this.events.mode(mode);
  }

  #open() {
    const socket = new WebSocket(`${this.url.replace(/^http/, "ws")}/ws?${this.#query()}`);
    this.#socket = socket;
    let ready = false;
    const asked = this.#cursor;
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data) as WebSocketEvents;
      if (message.type === "connected") {
        this.#polling?.abort();
        this.#polling = undefined;
        if (this.#cursor !== asked) {
          // Polling has come further meanwhile: now that it has stopped, a socket can begin behind it.
          socket.onclose = null;
          socket.close();
          this.#open();
          return;
        }
        ready = true;
        this.#enter("live");
        socket.send(call({ type: "subscribe" }));
        this.#ping();
      }
      if (message.type === "error") this.events.problem(message.message);
      if (ready || message.type === "error") this.#take(message);
    };
    socket.onclose = ({ code }) => {
      clearInterval(this.#pings);
      if (this.#closed) return;
      if (code >= FINAL_CODES) return this.#end();
      if (!this.#polling) this.#poll();
      this.#retry = setTimeout(() => this.#open(), this.retryMs);
    };
  }

  #ping() {
    const ping = () => this.#socket?.send(call({ type: "ping" }));
    this.#pings = setInterval(ping, PING_MS);
    ping();
  }

  async #poll() {
    this.#enter("polling");
    const polling = new AbortController();
    this.#polling = polling;
    while (!polling.signal.aborted && !this.#closed) {
      try {
        const response = await fetch(`${this.url}/poll?${this.#query()}`, { signal: polling.signal });
        const body = await response.json();
        // The WebSocket is ahead: its events are these.
        if (polling.signal.aborted) return;
        if (response.status === 401 || response.status === 403) {
          this.events.problem(body.message);
          return this.#end();
        }
        if (!response.ok) throw new Error(body.message);
        for (const message of body.events as WebSocketEvents[]) this.#take(message);
        this.#cursor = body.cursor;
      } catch {
        if (polling.signal.aborted) return;
        await new Promise((resolve) => setTimeout(resolve, this.retryMs));
      }
    }
  }

  #take(message: WebSocketEvents) {
    if ("cursor" in message && message.cursor) this.#cursor = message.cursor;
    this.events.message(message);
  }

  #end() {
    this.close();
    this.#enter("ended");
  }
}
