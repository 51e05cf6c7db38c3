// An attack from another process, and what it does to the bridge's memory and to a session in another tenant.

import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { call, connect } from "../clients.js";
import { until, within } from "../fanfare.js";
import { pause } from "../faults/actions.js";
import { user } from "../tokens.js";

/** How much of the memory of before may be there more after an attack, and how long after, in milliseconds. */
const BACK = { times: 1.2, ms: 60_000 };
/** Below this, in milliseconds, two busy cores explain any latency. */
const FLOOR = 100;
const SAMPLES = 120;
/** Calls that warm up a witness. */
const WARM_UP = 20;
const ROUNDS = 3;
/** How often memory is looked at while an attack goes on. */
const LOOK_MS = 100;

/** The resident memory of a process in MiB, counted page by page. */
export function resident({ child }) {
  const text = readFileSync(`/proc/${child.pid}/smaps_rollup`, "utf8");
  return Number(/^Rss:\s+(\d+) kB$/m.exec(text)[1]) / 1024;
}

/** The processor time of a process so far, in seconds: 100 ticks a second, as Linux shows them everywhere. */
export function processor({ child }) {
  const text = readFileSync(`/proc/${child.pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Another process that attacks `bridge` from an address of its own. */
export class Attacker {
  static #running = new Set();

  /** Ends all that a failed test left. */
  static stopAll() {
    return Promise.all([...Attacker.#running].map((attacker) => attacker.stop()));
  }

  static async start(bridge, task) {
    const [host, port] = bridge.address.split(":");
    const attacker = new Attacker();
    const whole = { host, port: Number(port), from: "127.0.0.2", ...task };
    attacker.child = fork(new URL("./attacker.js", import.meta.url), [JSON.stringify(whole)]);
    Attacker.#running.add(attacker);
    await within(once(attacker.child, "message"), "the attack to begin");
    return attacker;
  }

  async counts() {
    const answer = once(this.child, "message");
    this.child.send("counts");
    return (await within(answer, "the counts of the attacker"))[0];
  }

  /** Asks until its counts are as they should be, and gives them. */
  until(fits, what, ms) {
    return until(async () => {
      const counts = await this.counts();
      return fits(counts) && counts;
    }, what, ms);
  }

  async stop() {
    Attacker.#running.delete(this);
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, "exit");
    this.child.kill("SIGKILL");
    await within(ended, "the attacker to end");
  }
}

/** A session of another tenant, whose calls are answered in time, whatever happens. */
export class Witness {
  static async connect(url) {
    const witness = new Witness();
    witness.socket = await connect(url, user(1, "witness"));
    await witness.p99(WARM_UP);
    return witness;
  }

  /** The 99th percentile of how long a call of it takes, in milliseconds; each is answered. */
  async p99(samples = SAMPLES) {
    const took = [];
    for (let i = 0; i < samples; i++) {
      const began = performance.now();
      // Below the rate of a session.
      await Promise.all([call(this.socket, "ping", {}).then((answer) => {
        assert.equal(answer.error, undefined);
        took.push(performance.now() - began);
      }), pause(25)]);
    }
    return took.sort((a, b) => a - b)[Math.floor(samples * 0.99)];
  }

  close() {
    assert.ok(this.socket.connected, "the witness was never disconnected");
    this.socket.close();
  }
}

/** Sessions that come and go before memory is measured, so that what a bridge allocates only once is there. */
const REHEARSAL = 40;

/**
 * The resident memory of a bridge that has had some sessions, in MiB. Each comes from an address of its own and is of a
 * user of its own, so that none of them uses up what a test is about.
 */
export async function baseline(bridge) {
  const entering = Array.from({ length: REHEARSAL }, (_, i) =>
    connect(bridge.url, user(`rehearsal-${i}`, "rehearsal"), { localAddress: `127.0.1.${i + 1}` }));
  const sockets = await Promise.all(entering);
  for (const socket of sockets) await call(socket, "ping", {});
  for (const socket of sockets) socket.close();
  return resident(bridge);
}

/** Waits until the bridge's memory is what it was before. */
export const back = (bridge, before) =>
  until(() => resident(bridge) <= before * BACK.times, `the memory to be back: ${before.toFixed(1)} MiB before, ` +
    `${resident(bridge).toFixed(1)} after the attack`, BACK.ms);

/**
 * Runs an attack while a witness in another tenant calls, and looks at memory before, meanwhile and afterwards. `begin`
 * starts it and gives what `finish` gets when the witness has been heard; `peak` is what the bridge may grow by, in MiB.
 * A machine that is busy with something else for a moment is no fault of ours: one good round of three shows it.
 */
export async function withstand(t, bridge, { begin, finish, peak }) {
  await baseline(bridge);
  const witness = await Witness.connect(bridge.url);
  try {
    for (let round = 1; ; round++) {
      const calm = await witness.p99();
      const before = resident(bridge);
      let most = before;
      const looking = setInterval(() => (most = Math.max(most, resident(bridge))), LOOK_MS);
      let disturbed;
      try {
        const attack = await begin();
        disturbed = await witness.p99();
        await finish(attack);
      } finally {
        clearInterval(looking);
      }
      await back(bridge, before);
      const mib = [before, most, resident(bridge)].map((value) => value.toFixed(1));
      t.diagnostic(`memory ${mib[0]} MiB before, at most ${mib[1]} meanwhile, ${mib[2]} after`);
      t.diagnostic(`p99 of the witness ${calm.toFixed(1)} ms calm, ${disturbed.toFixed(1)} ms disturbed`);
      assert.ok(most - before <= peak, `the bridge grew by ${(most - before).toFixed(1)} MiB, more than ${peak}`);
      if (disturbed <= Math.max(FLOOR, 2 * calm)) break;
      assert.ok(round < ROUNDS, "p99 stays within twice its undisturbed value");
    }
  } finally {
    witness.close();
  }
}
