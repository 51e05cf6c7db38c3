// Faults of a group in random order, at random times, together, for as long as is asked for.

import { nothingWrong, table } from "./course.js";
import { choose } from "./group_mischief.js";
import { Ground } from "./ground.js";
import { Nats } from "./nats.js";
import { randomFrom } from "./random.js";
import { startNode } from "./redis.js";

/** What a round publishes, and over how many seconds. */
const EVENTS = 4000;
const SECONDS = 4;
/** A server's log of the rounds that count, and keys that outlive a round. */
const SERVER_ARGS = ["--retention-events", `${5 * EVENTS}`, "--idempotency-age", "2m"];
const STORES = { redis: startNode, nats: () => Nats.start(3) };

/** Ends with an error at the first round in which something is wrong. */
export async function soakGroup({ minutes, seed, engine }) {
  const began = Date.now();
  const seconds = () => (Date.now() - began) / 1000;
  const ground = new Ground(STORES[engine], { servers: 3, serverArgs: SERVER_ARGS });
  const totals = { ...nothingWrong(), acknowledged: 0, lost: 0, deliveries: 0, recoveries: 0, fresh: 0 };
  let rounds = 0;
  try {
    while (seconds() < minutes * 60) {
      rounds += 1;
      const faults = choose(randomFrom(seed ^ Math.imul(rounds, 0x9e3779b1)), engine);
      const name = faults.map((fault) => fault.name).join("; ");
      console.log(`round ${rounds}, ${seconds().toFixed(0)} s: ${name}`);
      const loses = name.includes("everything deleted");
      const run = (running) => Promise.all(faults.map((fault) => fault.run(running)));
      const row = await ground.scenario(name, run, { events: EVENTS, seconds: SECONDS, loses, fresh: loses ? "any" : "none" });
      for (const key of Object.keys(totals)) totals[key] += row[key];
    }
    await ground.stop();
  } finally {
    console.log(table([{ name: `soak on ${engine}, seed ${seed}, ${rounds} rounds`, ...totals, seconds: seconds() }]));
  }
}
