// The example of README.md that reads over gRPC-Web.

import { afterAll, beforeAll, test } from "vitest";
import { type Examples, examples } from "./examples.js";
import { type World, world } from "./world.js";

let fanfare: World;
let readme: Examples;

beforeAll(async () => {
  fanfare = await world({ serverArgs: ["--heartbeat-interval", "100ms"] });
  readme = examples("readme-feed", fanfare, "feed");
});
afterAll(() => fanfare.stop());

test("gRPC-Web", async () => {
  const { read } = await readme.load<{ read(signal: AbortSignal): Promise<void> }>("feed.ts");
  const stop = new AbortController();
  const reading = read(stop.signal);
  // Whoever reads from now on gets what comes from now on: the first one may be too early.
  let seen = false;
  const prints = readme.prints("Hello feed").then(() => (seen = true));
  while (!seen) await fanfare.publish("feed", { id: 1, content: "Hello feed" });
  await prints;
  stop.abort();
  await reading;
});
