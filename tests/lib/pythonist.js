// Stock python-socketio clients with the interface of the clients in clients.js.

import { spawn } from "node:child_process";
import path from "node:path";
import { createInterface } from "node:readline";
import { record } from "./clients.js";
import { ROOT, within } from "./fanfare.js";
import { PYTHON } from "./producer.js";

export class Pythonist {
  #next = 1;
  #pending = new Map();
  #clients = new Map();

  constructor() {
    this.child = spawn(PYTHON, [path.join(ROOT, "tests/python/client.py")], { stdio: ["pipe", "pipe", "inherit"] });
    createInterface({ input: this.child.stdout }).on("line", (text) => {
      const line = JSON.parse(text);
      if (line.client !== undefined) return this.#clients.get(line.client).heard(line.event);
      const { resolve, reject } = this.#pending.get(line.id);
      this.#pending.delete(line.id);
      if (line.error !== undefined) reject(new Error(line.error));
      else resolve(line.ok);
    });
    process.on("exit", () => this.child.kill());
  }

  #send(line) {
    const id = this.#next++;
    const answer = new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject }));
    this.child.stdin.write(JSON.stringify({ id, ...line }) + "\n");
    return within(answer, `python's ${line.do} ${line.name ?? ""}`);
  }

  async connect(url, token) {
    const name = this.#next++;
    const does = (what) => (event, payload) => this.#send({ do: what, client: name, name: event, payload });
    const client = { call: does("call"), emit: does("emit"), close: does("close"), lose: does("lose") };
    client.heard = record(client);
    this.#clients.set(name, client);
    client.id = (await this.#send({ do: "connect", client: name, url, token })).id;
    return client;
  }

  stop() {
    this.child.stdin.end();
    this.child.kill();
  }
}
