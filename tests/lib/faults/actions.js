// What can happen to a cluster. Each action is over when what it did is undone or replaced.

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The server crashes and is started again after a while. */
export async function killServer(cluster, { away = 0 } = {}) {
  await cluster.server.kill();
  await pause(away);
  await cluster.restartServer();
}

/** A bridge crashes; another one takes its place. */
export async function replaceBridge(cluster, { index = 0, gracefully = false } = {}) {
  const gone = cluster.takeBridge(index);
  await (gracefully ? gone.stop() : gone.kill());
  await cluster.addBridge();
}

/** A process does nothing for a while. */
export async function freeze(process, ms) {
  process.child.kill("SIGSTOP");
  await pause(ms);
  process.child.kill("SIGCONT");
}

/** Links break. */
export const cut = (links) => links.forEach((link) => link.cut());

/** Everything takes longer, for a while or for good. */
export async function delay(links, ms, howLong) {
  links.forEach((link) => (link.delayMs = ms));
  if (howLong === undefined) return;
  await pause(howLong);
  links.forEach((link) => (link.delayMs = 0));
}

/** Nothing arrives in these directions for a while, and nobody is told. */
export async function silence(links, directions, ms) {
  links.forEach((link) => link.silence(...directions));
  await pause(ms);
  links.forEach((link) => link.speak());
}

/** A firewall forgets the connections: they stay open, and nothing comes through them ever again. */
export const forget = (links) => links.forEach((link) => link.forget());

/** Connections break in the middle of what they carry, again and again. */
export async function crumble(links, bytes, howLong) {
  links.forEach((link) => (link.breakAfterBytes = bytes));
  if (howLong === undefined) return;
  await pause(howLong);
  links.forEach((link) => (link.breakAfterBytes = Infinity));
}

/** All bridges crash at once; others take their places. */
export async function replaceBridges(cluster, { meanwhile } = {}) {
  const gone = [...cluster.bridges].map(() => cluster.takeBridge());
  await Promise.all([meanwhile?.(), ...gone.map((bridge) => bridge.kill())]);
  for (const _ of gone) await cluster.addBridge();
}

/** Everything crashes at once and is started again. */
export const killEverything = (cluster) => replaceBridges(cluster, { meanwhile: () => killServer(cluster) });

/** Some clients lose their connections. */
export const drop = (listeners) => listeners.forEach((listener) => listener.drop());
