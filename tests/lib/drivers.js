// The producer clients of the other languages, each behind a driver program: a task in, JSON lines out.
//
// Tasks: {do: "notify" | "notify-async" | "stream", url, tokens, deadline, count, invalid?} publish messenger.v1.NewMessage numbered from
// 0, `notify` half of them through the typed stub; {do: "subscribe", url, tokens, rooms, after?, count} reads. A line is {number, seq,
// id, duplicate} for an event that was answered or read, {cursor} when a subscription stands, and {error, attempts, ms, number?}.
// `tokens` are given one after the other, the last one for ever; `attempts` counts how often one was asked for.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { ROOT } from "./fanfare.js";
import { PYTHON } from "./producer.js";

const GO = path.join(ROOT, "target/tests/go-driver");

/** How each language's driver is started, which ways of publishing it has, and why it is not tested here, if so. */
export const DRIVERS = {
  python: {
    command: [PYTHON, path.join(ROOT, "clients/python/tests/driver.py")],
    env: { PYTHONPATH: path.join(ROOT, "target/tests/python-client") },
    ways: ["notify", "notify-async", "stream"],
  },
  go: { command: [GO], env: {}, ways: ["notify", "stream"], skip: !existsSync(GO) && "go is not installed" },
  node: { command: [process.execPath, path.join(ROOT, "clients/node/test/driver.js")], env: {}, ways: ["notify", "stream"] },
};

const RUNNING = new Set();
process.on("exit", () => RUNNING.forEach((child) => child.kill("SIGKILL")));

/** A driver at work. */
export class Driven {
  #text = "";
  #errors = "";
  lines = [];

  constructor({ command: [program, ...args], env }, task) {
    this.child = spawn(program, [...args, JSON.stringify(task)], { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    RUNNING.add(this.child);
    this.child.stderr.on("data", (data) => (this.#errors += data));
    this.child.stdout.on("data", (data) => {
      const lines = (this.#text + data).split("\n");
      this.#text = lines.pop();
      for (const line of lines) this.lines.push(JSON.parse(line));
    });
    /** All that it printed; fails when it did not end well. */
    this.done = new Promise((resolve, reject) => {
      this.child.on("error", reject);
      this.child.on("close", (code) => {
        RUNNING.delete(this.child);
        if (code === 0 && this.#text === "") resolve(this.lines);
        else reject(new Error(`${task.do} ended with ${code}: ${this.#errors}${this.#text}`));
      });
    });
    this.done.catch(() => {});
  }
}
