// The test's side of a process that can be put to sleep.

import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { until, within } from "../fanfare.js";
import { Record } from "./accounting.js";
import { SESSIONS } from "./load.js";

export class Asleep {
  /** Starts the process; its sessions are at one bridge, and ready. */
  static async start(bridge) {
    const asleep = new Asleep();
    asleep.child = fork(new URL("./sleeper.js", import.meta.url), [bridge.url, `${SESSIONS}`]);
    process.on("exit", () => asleep.child.kill("SIGKILL"));
    await within(once(asleep.child, "message"), "the sleeping sessions to be ready");
    return asleep;
  }

  sleep() {
    this.child.kill("SIGSTOP");
  }

  wake() {
    this.child.kill("SIGCONT");
  }

  async #ask(what) {
    this.child.send(what);
    return (await within(once(this.child, "message"), `the ${what} of the sleeping sessions`))[0];
  }

  /** What the sessions have got, once each has so many events; or what they have after a while. */
  async sessions(events) {
    await until(async () => (await this.#ask("counts")).every(({ count }) => count >= events), "the sleepers to catch up", 60_000).catch(() => {});
    const sessions = await this.#ask("records");
    this.child.kill("SIGKILL");
    return sessions.map((session) => ({ ...session, record: Object.assign(new Record(), session.record) }));
  }
}

/** Resident memory of a process, in bytes. */
export const residentBytes = (process) => Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${process.child.pid}/status`, "utf8"))[1]) * 1024;
