// A group of servers on a store, with sessions that listen, for one scenario after the other. A scenario that fails ends it, and the
// next one begins with another.

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { nothingWrong } from "./course.js";
import { Group } from "./group.js";
import { GroupLoad } from "./group_load.js";

/** A folder for the logs of all processes; FANFARE_FAULT_LOGS names it. */
const LOGS = process.env.FANFARE_FAULT_LOGS;

function keepLogs(group) {
  if (!LOGS) return;
  mkdirSync(LOGS, { recursive: true });
  group.started.forEach((process, number) => writeFileSync(path.join(LOGS, `${number}-${process.name}.log`), process.text()));
}

export class Ground {
  #running;

  /** `start` gives a store. */
  constructor(start, options = {}) {
    Object.assign(this, { start, options });
  }

  async #ready() {
    if (this.#running) return this.#running;
    const store = await this.start();
    try {
      const group = await Group.start(store, this.options);
      const load = new GroupLoad(group);
      await load.joined();
      return (this.#running = { store, group, load });
    } catch (error) {
      await store.stop();
      throw error;
    }
  }

  /**
   * Publishes so many events in so many seconds, and counts. `fresh` says how many sessions have to begin anew, "none", "all" or "any";
   * without `loses` the store must have everything that it has acknowledged.
   */
  async scenario(name, disturb, { events = 4000, seconds = 5, fresh = "none", loses = false } = {}) {
    const { store, group, load } = await this.#ready();
    const began = Date.now();
    let counts;
    try {
      load.publish(events, { seconds });
      await disturb({ store, group, load });
      counts = await load.count();
    } catch (error) {
      await this.abandon();
      throw error;
    }
    const row = { name, ...counts, seconds: (Date.now() - began) / 1000 };
    try {
      const { missing, doubled, disordered, strange, unaware } = counts;
      assert.deepStrictEqual({ missing, doubled, disordered, strange, unaware }, nothingWrong());
      if (!loses) assert.equal(counts.lost, 0, "the store has everything that was acknowledged");
      const told = { none: counts.told === 0, all: counts.told === load.listeners.length, any: true }[fresh];
      assert.ok(told, `${counts.told} sessions had to begin anew, wanted ${fresh}`);
      load.settle();
    } catch (error) {
      await this.abandon();
      throw Object.assign(error, { row });
    }
    return row;
  }

  async #end(close) {
    const running = this.#running;
    this.#running = undefined;
    if (!running) return;
    running.load.close();
    keepLogs(running.group);
    await close(running.group, running.load);
    await running.store.stop();
  }

  stop() {
    return this.#end((group) => group.stop());
  }

  /** Ends it in whatever state it is. */
  abandon() {
    return this.#end((group, load) => {
      load.abandon();
      group.abandon();
    });
  }
}
