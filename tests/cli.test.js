// The command line tools: their defaults fit together, and what nobody would notice is said.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { connect } from "./lib/clients.js";
import { Process, QUIET, run, SECRET, start, until } from "./lib/fanfare.js";
import { producer } from "./lib/tokens.js";

const MESSAGE = JSON.stringify({ id: 1, chatId: 7, content: "Hello", fromMe: true, channel: "whatsapp", timestamp: "2026-01-31T12:00:00Z" });

let fanfare;
before(async () => (fanfare = await start({ serverArgs: [...QUIET, "--default-tenant", "acme"], bridgeArgs: ["--default-tenant", "acme"] })));
after(() => fanfare?.stop());

const tool = (command, ...args) => [command, ...args, "--server", fanfare.server.url, "--jwt-secret", SECRET];
const notify = (...args) => run(tool("notify", ...args));
const userToken = async (...args) => (await run(["token", "--user", "42", "--jwt-secret", SECRET, ...args])).stdout.trim();

test("what names no tenant meets in the default tenant", async () => {
  const socket = await connect(fanfare.bridge.url, await userToken());
  const { code, stderr } = await notify("message:new", MESSAGE);
  assert.deepStrictEqual([code, stderr], [0, ""]);
  await socket.event("message:new");
  assert.equal((await notify("message:new", MESSAGE, "--tenant", "other")).code, 0);
  const line = JSON.parse((await notify("message:new", MESSAGE)).stdout);
  assert.equal(line.seq, 2, "the other tenant has a log of its own");
  socket.close();
});

test("internal fields say where an event goes", async () => {
  const socket = await connect(fanfare.bridge.url, await userToken());
  const notice = JSON.stringify({ userId: "42", type: "info", message: "Yours" });
  const { code, stderr } = await notify("messenger.v1.UserNotification", notice);
  assert.deepStrictEqual([code, stderr], [0, ""]);
  const [, payload] = await socket.event("user:notification");
  assert.deepStrictEqual(payload, { type: "info", message: "Yours" });
  socket.close();
});

test("an event that no browser can get is published with a warning", async () => {
  const one = await notify("message:new", MESSAGE, "--room", "chatt:7");
  assert.equal(one.code, 0);
  assert.match(one.stderr, /^fanfare: warning: no browser can be in the room "chatt:7".*did you mean "chat"\?/);
  const child = await run(tool("notify", "message:new", "-", "--room", "chatt:7"), { input: `${MESSAGE}\n${MESSAGE}\n` });
  assert.equal(child.stderr.match(/warning/g).length, 1, "once per stream");
  assert.equal((await notify("message:new", MESSAGE, "--room", "chatt:7", "--room", "chat:7")).stderr, "");
});

test("an operator subscribes to all rooms, of one tenant or of all", async () => {
  const here = new Process(tool("subscribe", "*"));
  const everywhere = new Process(tool("subscribe", "*", "--tenant", "*"));
  // A tail begins once it is open: events are published until both have one.
  let id = 0;
  await until(async () => {
    await notify("message:new", JSON.stringify({ ...JSON.parse(MESSAGE), id: ++id }));
    return here.stdout && everywhere.stdout;
  }, "both tails");
  await notify("message:new", MESSAGE, "--tenant", "other", "--room", "chat:9");
  await until(() => everywhere.stdout.includes('"chat:9"'), "the other tenant's event");
  await notify("typing:start", JSON.stringify({ chatId: 5, userId: "1" }));
  await until(() => here.stdout.includes('"chat:5"'), "an event that is not stored");
  assert.ok(here.printed().every((line) => line.tenant === "acme" && line.payload));
  for (const one of [here, everywhere]) await one.stop("SIGINT");
});

test("all rooms are for administrators, or resume at a cursor", async () => {
  const refused = async (args, text) => {
    const { code, stderr } = await run(args);
    assert.deepStrictEqual([code, text.test(stderr)], [1, true], stderr);
  };
  await refused(["subscribe", "*", "--server", fanfare.server.url, "--token", producer("acme")], /scope "admin"/);
  await refused(tool("subscribe", "*", "org"), /"\*" is all rooms: give it alone/);
  await refused(tool("subscribe", "*", "--after", "x"), /after: not a cursor/);
});

test("shells complete commands and flags, and man has a page of each command", async () => {
  for (const shell of ["bash", "zsh", "fish", "powershell", "elvish"]) {
    const { code, stdout } = await run(["completions", shell]);
    assert.equal(code, 0);
    assert.ok(["subscribe", "grpc-listen", "redis"].every((word) => stdout.includes(word)), shell);
  }
  const page = (await run(["man"])).stdout;
  assert.match(page, /^\.TH fanfare 1/m);
  assert.match(page, /fanfare\\-subscribe|subscribe/);
  const server = (await run(["man", "server"])).stdout;
  assert.match(server, /^\.TH fanfare-server 1/m);
  assert.match(server, /grpc\\-listen/);
  assert.match((await run(["man", "sever"])).stderr, /"sever" is no command: want one of dev, server/);
});
