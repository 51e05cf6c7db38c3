// What the attack tests share: bridges of their own.

import assert from "node:assert/strict";
import { QUIET, startBridge, startServer } from "../fanfare.js";
import { Producer } from "../producer.js";
import { user } from "../tokens.js";
import { Attacker } from "./attack.js";
import { enter } from "./peers.js";

/** Runs a test with a bridge of its own, which must end well afterwards. */
export async function bridged(at, args, run) {
  const bridge = await startBridge(at, args);
  let failed = true;
  try {
    await run(bridge);
    failed = false;
  } finally {
    await Attacker.stopAll();
    if (failed) bridge.child.kill("SIGKILL");
  }
  await bridge.stop();
}

/** The same with a server of its own. */
export async function both(serverArgs, bridgeArgs, run) {
  const own = await startServer([...QUIET, ...serverArgs]);
  const producing = new Producer(own.address);
  try {
    await bridged(own, bridgeArgs, (bridge) => run(bridge, own, producing));
  } finally {
    producing.close();
    own.child.kill("SIGCONT");
    await own.stop();
  }
}

/** Closes clients. */
export const close = (...sockets) => sockets.flat().forEach((socket) => socket.close());

/** A newcomer from elsewhere is let in. */
export async function letsIn({ url }, what = "a session from another address") {
  const { socket, refused } = await enter(url, user(1, "newcomer"));
  assert.equal(refused, undefined, what);
  socket.close();
}
