// A producer in Python: the typed stubs that grpcio-tools makes from the protos.

import { execFileSync, spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { DEADLINE, ownFolder, ROOT, within } from "./fanfare.js";

export const PYTHON = process.env.FANFARE_PYTHON ?? path.join(ROOT, "target/tests/venv/bin/python");
/** Processes that this one starts use its stubs. */
export const STUBS = (process.env.FANFARE_STUBS ??= ownFolder("stubs"));

function protos(folder) {
  return readdirSync(folder, { recursive: true }).filter((f) => f.endsWith(".proto"));
}

/** Generates stubs for the contract, the catalogs, and those of the tests. */
export function generateStubs() {
  const folders = ["proto", "tests/catalogs", "tests/catalogs-upstream"].map((folder) => path.join(ROOT, folder));
  const includes = folders.map((f) => `-I${f}`);
  const outputs = [`--python_out=${STUBS}`, `--grpc_python_out=${STUBS}`];
  const args = ["-m", "grpc_tools.protoc", ...includes, ...outputs, ...folders.flatMap(protos)];
  execFileSync(PYTHON, args, { timeout: DEADLINE });
}

export class Producer {
  /** `tls` names files of PEM: `ca`, and perhaps `cert` and `key`. */
  constructor(target, tls = {}) {
    const files = Object.entries(tls).map(([name, file]) => [`PRODUCER_${name.toUpperCase()}`, file]);
    this.target = target;
    this.pending = new Map();
    this.next = 1;
    this.child = spawn(PYTHON, [path.join(ROOT, "tests/python/producer.py")], {
      env: { ...process.env, PYTHONPATH: STUBS, ...Object.fromEntries(files) },
      stdio: ["pipe", "pipe", "inherit"],
    });
    createInterface({ input: this.child.stdout }).on("line", (line) => {
      const answer = JSON.parse(line);
      const waiting = this.pending.get(answer.id);
      if (answer.started) return waiting.started?.(answer.started);
      this.pending.delete(answer.id);
      if (answer.error) waiting.reject(Object.assign(new Error(answer.error.message), answer.error));
      else waiting.resolve(answer.ok);
    });
    process.on("exit", () => this.child.kill());
  }

  send(line, started, ms) {
    const id = this.next++;
    const answer = new Promise((resolve, reject) => this.pending.set(id, { resolve, reject, started }));
    this.child.stdin.write(JSON.stringify({ id, target: this.target, ...line }) + "\n");
    return within(answer, `the answer to ${line.method ?? line.special}`, ms);
  }

  /** Calls a typed method. */
  call(token, method, request) {
    return this.send({ token, method, request });
  }

  /** Opens a typed stream; `started` resolves with its first message, `messages` with the first `collect`. */
  stream(token, method, request, collect) {
    let begun;
    const started = new Promise((resolve) => (begun = resolve));
    const messages = this.send({ token, method, request, collect }, begun);
    return { started: Promise.race([started, messages]), messages };
  }

  close() {
    this.child.stdin.end();
  }
}
