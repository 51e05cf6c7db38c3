// The faults of tests/faults.test.js in random order, at random times, together, for as long as is asked for:
// `./test --soak MINUTES [--seed N] [--engine redis|nats]`: with an engine, those of a group of servers that share it. Ends with 1 at the first event that is missing, doubled, out of order, or was never acknowledged.

import { parseArgs } from "node:util";
import { nothingWrong, sum, table } from "./lib/faults/accounting.js";
import { Cluster } from "./lib/faults/cluster.js";
import { soakGroup } from "./lib/faults/group_soak.js";
import { disk } from "./lib/faults/disk.js";
import { Load } from "./lib/faults/load.js";
import { choose } from "./lib/faults/mischief.js";
import { randomFrom } from "./lib/faults/random.js";

/** What a round publishes, and over how many seconds. */
const EVENTS = 8000;
const SECONDS = 4;
/** Five rounds: a server that starts again reads all of it. */
const RETENTION = ["--retention-events", `${5 * EVENTS}`, "--idempotency-age", "2m"];
const USAGE = "usage: ./test --soak MINUTES [--seed N] [--engine redis|nats]";

function settings() {
  const { values, positionals } = parseArgs({ options: { seed: { type: "string" }, engine: { type: "string" } }, allowPositionals: true });
  const [minutes, seed] = [Number(positionals[0]), Number(values.seed ?? Math.floor(Math.random() * 2 ** 32))];
  if (positionals.length !== 1 || !(minutes > 0)) throw new Error(`MINUTES must be a number above 0; ${USAGE}`);
  if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) throw new Error(`N must be a whole number from 0 to 4294967295; ${USAGE}`);
  const { engine } = values;
  if (![undefined, "redis", "nats"].includes(engine)) throw new Error(`the engine must be redis or nats; ${USAGE}`);
  return { minutes, seed, engine };
}

const KEYS = ["acknowledged", "deliveries", "recoveries", "fresh"];
const show = (counts) => Object.entries(counts).map(([key, count]) => `${key} ${count}`).join(", ");

async function soak({ minutes, seed }) {
  const again = `./test --soak ${minutes} --seed ${seed}`;
  console.log(`soak: ${minutes} minutes, seed ${seed}; to repeat it: ${again}`);
  const [random, place, began] = [randomFrom(seed), disk(), Date.now()];
  const seconds = () => (Date.now() - began) / 1000;
  console.log(`the log is on a disk that can be full: ${place.what}`);
  const cluster = await Cluster.start({ folder: place.folder, via: place.via, serverArgs: RETENTION });
  const load = new Load(cluster, { random: random.next });
  const totals = { ...nothingWrong(), ...Object.fromEntries(KEYS.map((key) => [key, 0])) };
  const happened = new Map();
  let rounds = 0;
  try {
    await load.joined();
    while (seconds() < minutes * 60) {
      rounds += 1;
      // A generator of its own: how often the others are asked depends on what the machine does meanwhile.
      const faults = choose(randomFrom(seed ^ Math.imul(rounds, 0x9e3779b1)), place);
      const names = faults.map(({ name }) => name);
      for (const name of names) {
        const kind = name.replace(/ \(after.*/, "").replace(/\d+/g, "N");
        happened.set(kind, (happened.get(kind) ?? 0) + 1);
      }
      load.publish(EVENTS, { seconds: SECONDS });
      let counts;
      try {
        await Promise.all(faults.map(({ run }) => run(cluster, load)));
        counts = await load.count();
      } catch (error) {
        console.log(`round ${rounds}: ${names.join("; ")}`);
        throw error;
      }
      for (const key of Object.keys(totals)) totals[key] += counts[key];
      console.log(`round ${rounds}, ${seconds().toFixed(0)} s: ${names.join("; ")} | in all: ${show(totals)}`);
      const wrong = { ...sum([counts]), fresh: counts.fresh };
      if (Object.values(wrong).some((count) => count > 0)) throw new Error(`round ${rounds} is wrong: ${show(wrong)}`);
      load.settle();
    }
    load.close();
    await cluster.stop();
  } catch (error) {
    console.log(error);
    console.log(`FAILED; to repeat it: ${again}`);
    process.exitCode = 1;
  }
  for (const [kind, times] of [...happened].sort()) console.log(`${String(times).padStart(5)}  ${kind}`);
  console.log(table([{ name: `soak, seed ${seed}, ${rounds} rounds`, ...totals, seconds: seconds() }]));
  // What a failure has left open does not keep the process.
  process.exit();
}

async function soakEngine(settings) {
  const again = `./test --soak ${settings.minutes} --seed ${settings.seed} --engine ${settings.engine}`;
  console.log(`soak: to repeat it: ${again}`);
  try {
    await soakGroup(settings);
  } catch (error) {
    console.log(error);
    console.log(`FAILED; to repeat it: ${again}`);
    process.exitCode = 1;
  }
  process.exit();
}

try {
  const chosen = settings();
  await (chosen.engine ? soakEngine(chosen) : soak(chosen));
} catch (error) {
  console.error(error.message.includes(USAGE) ? error.message : `${error.message}; ${USAGE}`);
  process.exit(2);
}
