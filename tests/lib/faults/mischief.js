// Random faults: what happens in a round of the soak run, to which part, when and for how long.

import * as act from "./actions.js";
import { fill } from "./disk.js";

const DIRECTIONS = [["up", "down"], ["up"], ["down"]];
/** The latest beginning of a fault in a round, in milliseconds. */
const BEGIN_MAX = 3000;

/** What can happen to each part; each gives what it is called and a function that does it. Of one part, one thing at a time. */
const PARTS = {
  server: [
    (_, random) => {
      const away = random.between(0, 1500);
      return [`server killed, away ${away} ms`, (cluster) => act.killServer(cluster, { away })];
    },
    (_, random) => {
      const ms = random.between(500, 3000);
      return [`server frozen ${ms} ms`, (cluster) => act.freeze(cluster.server, ms)];
    },
    (place, random) => {
      const ms = random.between(500, 2500);
      const full = async (cluster) => {
        await fill(place, cluster.server);
        await act.pause(ms);
        place.give(cluster.server);
      };
      return [`disk full ${ms} ms`, full];
    },
    (place) => {
      const killed = async (cluster) => {
        await fill(place, cluster.server);
        await cluster.server.kill();
        place.give(cluster.server);
        await cluster.restartServer();
      };
      return ["disk full, server killed", killed];
    },
  ],
  bridges: [
    (_, random) => {
      const index = random.between(0, 1);
      return [`bridge ${index} killed`, (cluster) => act.replaceBridge(cluster, { index })];
    },
    (_, random) => {
      const index = random.between(0, 1);
      return [`bridge ${index} drained`, (cluster) => act.replaceBridge(cluster, { index, gracefully: true })];
    },
    (_, random) => {
      const [index, ms] = [random.between(0, 1), random.between(500, 5000)];
      return [`bridge ${index} frozen ${ms} ms`, (cluster) => act.freeze(cluster.bridges[index], ms)];
    },
    () => ["all bridges killed", (cluster) => act.replaceBridges(cluster)],
  ],
  links: [
    () => ["links cut", (cluster) => act.cut(cluster.links)],
    (_, random) => {
      const index = random.between(0, 1);
      return [`link ${index} cut`, (cluster) => act.cut([cluster.links[index] ?? cluster.links[0]].filter(Boolean))];
    },
    (_, random) => {
      const [ms, howLong] = [random.between(20, 300), random.between(1000, 4000)];
      return [`links ${ms} ms long for ${howLong} ms`, (cluster) => act.delay(cluster.links, ms, howLong)];
    },
    (_, random) => {
      const ms = random.between(500, 4000);
      return [`links away ${ms} ms`, (cluster) => act.delay(cluster.links, ms, ms)];
    },
    (_, random) => {
      const [directions, ms] = [random.one(DIRECTIONS), random.between(500, 5000)];
      return [`links silent ${directions.join(" and ")} ${ms} ms`, (cluster) => act.silence(cluster.links, directions, ms)];
    },
    (_, random) => {
      const [bytes, ms] = [random.between(20_000, 200_000), random.between(1000, 4000)];
      return [`links break every ${bytes} B for ${ms} ms`, (cluster) => act.crumble(cluster.links, bytes, ms)];
    },
  ],
  clients: [
    (_, random) => {
      const part = random.between(1, 100) / 100;
      return [`${Math.round(part * 100)} % of the clients cut off`, (_, load) => act.drop(load.listeners.filter(() => random.next() < part))];
    },
  ],
};

/** Chooses what happens in a round: one to three parts, one thing to each, each at its own time. */
export function choose(random, place) {
  const parts = Object.keys(PARTS);
  const count = random.between(1, 3);
  while (parts.length > count) parts.splice(random.between(0, parts.length - 1), 1);
  return parts.map((part) => {
    const [name, run] = random.one(PARTS[part])(place, random);
    const begins = random.between(0, BEGIN_MAX);
    return {
      name: `${name} (after ${begins} ms)`,
      run: async (cluster, load) => {
        await act.pause(begins);
        await run(cluster, load);
      },
    };
  });
}
