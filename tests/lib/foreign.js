// Stock clients, each in its own process behind a driver. A driver reads commands and writes one JSON line per incident.
//
// Lines: {connected: id, recovered?}, {disconnected: reason}, {refused: message}, {event: [name, ...arguments]} and {ref, answer}.
// Commands: {do: "call", ref, event, payload} and {do: "close"}.

import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { ROOT, within } from "./fanfare.js";
import { PYTHON } from "./producer.js";

const PYTHON_OLD = process.env.FANFARE_PYTHON_OLD ?? path.join(ROOT, "target/tests/venv-old/bin/python");
const JAVA = path.join(ROOT, "target/tests/java");
const node = (name) => [process.execPath, path.join(ROOT, "tests/foreign/client.js"), name];
const python = (program) => [program, path.join(ROOT, "tests/foreign/client.py")];

/** The clients: the command of the driver, whether the client can recover, and why it is skipped. */
export const CLIENTS = {
  "socket.io-client 4": { command: node("socket.io-client"), recovers: true },
  "socket.io-client 3": { command: node("socket.io-client-v3") },
  "python-socketio, new": { command: python(PYTHON), missing: !existsSync(PYTHON) && "its virtual environment is missing: run ./test" },
  "python-socketio, old": { command: python(PYTHON_OLD), missing: !existsSync(PYTHON_OLD) && "its virtual environment is missing: run ./test" },
  "socket.io-client of Java": {
    command: ["java", "-cp", `${JAVA}/classes:${JAVA}/lib/*`, "fanfare.Client"],
    missing: !(existsSync(`${JAVA}/classes`) && existsSync(`${JAVA}/lib`)) && "it is not built: install Maven and a JDK, and run ./test",
  },
};

export class Foreign {
  lines = [];
  #taken = 0;
  #waiting = new Set();
  #refs = 0;

  /** Starts a client that connects, and reconnects by itself. */
  constructor({ command: [program, ...args] }, url, token, transports) {
    this.child = spawn(program, [...args, url, token, transports.join(",")], { stdio: ["pipe", "pipe", "pipe"] });
    this.stderr = "";
    this.child.stdin.on("error", () => {});
    this.child.stderr.on("data", (data) => (this.stderr += data));
    createInterface({ input: this.child.stdout }).on("line", (text) => {
      this.lines.push(JSON.parse(text));
      for (const look of [...this.#waiting]) if (look()) this.#waiting.delete(look);
    });
    process.on("exit", () => this.child.kill("SIGKILL"));
  }

  /** Waits for the first line that matches, among those since the last call of `fresh`. */
  line(matches, what) {
    const found = new Promise((resolve) => {
      const look = () => {
        const line = this.lines.slice(this.#taken).find(matches);
        if (line) resolve(line);
        return Boolean(line);
      };
      if (!look()) this.#waiting.add(look);
    });
    const told = () => `${what}; it said ${JSON.stringify(this.lines.slice(-8))}\n${this.stderr.slice(-2000)}`;
    return within(found, what).catch((error) => { throw new Error(`${error.message}: ${told()}`); });
  }

  /** Ignores all lines so far. */
  fresh() {
    this.#taken = this.lines.length;
  }

  connected() {
    return this.line((line) => line.connected !== undefined, "the client to connect");
  }

  disconnected() {
    return this.line((line) => line.disconnected !== undefined, "the client to be disconnected");
  }

  async event(name, matches = () => true) {
    return (await this.line(({ event }) => event?.[0] === name && matches(event[1]), `the event ${name}`)).event;
  }

  /** All events with a name since the start. */
  events(name) {
    return this.lines.filter(({ event }) => event?.[0] === name).map(({ event }) => event);
  }

  async call(event, payload) {
    const ref = ++this.#refs;
    this.child.stdin.write(`${JSON.stringify({ do: "call", ref, event, payload })}\n`);
    return (await this.line((line) => line.ref === ref, `the acknowledgement of ${event}`)).answer;
  }

  /** Closes the connection and ends the process. */
  stop() {
    this.child.stdin.end('{"do":"close"}\n');
    this.child.kill();
  }
}
