// `@fanfare/emitter`: code written for the Socket.IO emitter publishes with Fanfare.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { Emitter } from "../clients/emitter/dist/index.js";
import { connect } from "./lib/clients.js";
import { BINARY, QUIET, ROOT, run, SECRET, start, startServer, until } from "./lib/fanfare.js";

const make = (...args) => execFileSync(BINARY, ["types", ...args], { encoding: "utf8" });
const events = JSON.parse(make("--format", "names"));
const token = async (...args) => (await run(["token", "--jwt-secret", SECRET, ...args])).stdout.trim();
const message = (id, content = "Hello") => ({ id, chatId: 7, content, fromMe: true, channel: "whatsapp" });

let fanfare, emitter, failures;
before(async () => {
  fanfare = await start({ serverArgs: QUIET });
  failures = [];
  const options = { url: fanfare.server.url, events, tenant: "acme", onError: (error, event) => failures.push([event, error]) };
  emitter = new Emitter({ ...options, token: await token("--scope", "notify", "--scope", "admin", "--tenant", "*", "--user", "backend") });
});
after(async () => {
  await emitter?.close();
  await fanfare?.stop();
});

const session = async (user) => connect(fanfare.bridge.url, await token("--user", user, "--tenant", "acme"));

test("rooms, exceptions and namespaces reach the same sessions as with Socket.IO", async () => {
  const [one, other] = [await session("1"), await session("2")];
  await one.emitWithAck("subscribe:chat", { chatId: 7 });
  await other.emitWithAck("subscribe:chat", { chatId: 7 });
  const seen = new Map();
  for (const socket of [one, other]) {
    seen.set(socket, []);
    socket.on("message:new", ({ id }) => seen.get(socket).push(id));
  }
  // Not awaited: the order of the calls counts.
  emitter.to("chat:7").emit("message:new", message(1));
  emitter.in("org").to(["chat:7"]).emit("message:new", message(2));
  emitter.to("user:2").volatile.compress(true).emit("message:new", message(3));
  emitter.to("chat:7").except(one.id).emit("message:new", message(4));
  emitter.of("/messenger").to("chat:7").emit("message:new", message(5));
  emitter.tenant("another").to("chat:7").emit("message:new", message(6));
  // Without rooms: those that the type declares.
  const { id } = await emitter.emit("message:new", message(7));
  assert.equal(typeof id, "string");
  await until(() => [...seen.values()].every((ids) => ids.at(-1) === 7), "the last event");
  assert.deepStrictEqual(seen.get(one), [1, 2, 5, 7]);
  assert.deepStrictEqual(seen.get(other), [1, 2, 3, 4, 5, 7]);
  const ended = new Promise((resolve) => other.once("disconnect", resolve));
  assert.equal(await emitter.in("user:2").disconnectSockets(true), 1);
  assert.equal(await ended, "io server disconnect");
  one.close();
  assert.deepStrictEqual(failures, []);
});

test("what is refused is reported, to the caller and to onError, and holds up nothing", async () => {
  const refused = emitter.to("chat:7").emit("message:new", { ...message(8), chatIdd: 1 });
  const next = emitter.to("chat:7").emit("message:new", message(9));
  await assert.rejects(refused, { name: "EmitterError", reason: "REASON_INVALID_ARGUMENT", retryable: false, message: /chatIdd/ });
  assert.ok((await next).id);
  await assert.rejects(emitter.emit("message:nwe", {}), /no event "message:nwe"/);
  await assert.rejects(emitter.emit("new_message", {}), /several events .*of\("\/NAME"\)/);
  assert.deepStrictEqual(failures.splice(0).map(([event]) => event), ["message:new", "message:nwe", "new_message"]);
  assert.throws(() => emitter.except("chat:7"), /only sessions can be left out/);
  assert.throws(() => emitter.socketsJoin("chat:7"), /calls of their catalog/);
  await assert.rejects(emitter.in("chat:7").disconnectSockets(), /cannot be ended together/);
});

test("an event is published once and in order although answers are lost and the server restarts", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "fanfare-emitter-"));
  let server = await startServer(["--data-dir", folder]);
  // A proxy that loses the first two answers.
  let lost = 0;
  const proxy = createServer(async (request, response) => {
    const chunks = await request.toArray();
    try {
      const answer = await fetch(server.url + request.url, { method: "POST", headers: { ...pick(request.headers) }, body: Buffer.concat(chunks) });
      const body = await answer.text();
      if (lost++ < 2) return response.destroy();
      response.writeHead(answer.status, { "content-type": "application/json" }).end(body);
    } catch {
      response.destroy();
    }
  });
  const pick = ({ authorization }) => ({ authorization, "content-type": "application/json" });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${proxy.address().port}`;
  const own = new Emitter({ url, events, token: await token("--scope", "notify", "--tenant", "acme") });
  const first = await own.emit("message:new", message(1));
  assert.equal(first.duplicate, true, "an earlier try was successful");
  await server.kill();
  const rest = [2, 3, 4].map((id) => own.emit("message:new", message(id)));
  server = await startServer(["--data-dir", folder], server.address);
  const cursors = (await Promise.all(rest)).map(({ seq }) => Number(seq));
  assert.deepStrictEqual(cursors, [2, 3, 4]);
  await own.close();
  proxy.close();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

test("names and payloads are typed by fanfare types", () => {
  const folder = mkdtempSync(path.join(tmpdir(), "fanfare-emitter-types-"));
  writeFileSync(path.join(folder, "events.ts"), make("--package", "messenger.v1"));
  writeFileSync(
    path.join(folder, "use.ts"),
    `import { Emitter } from ${JSON.stringify(path.join(ROOT, "clients/emitter/dist/index.js"))};
     import type { ServerToClientEvents } from "./events.js";
     export const emitter = new Emitter<ServerToClientEvents>({ url: "http://127.0.0.1:1", token: "", events: {} });
     void emitter.to("chat:7").emit("chat:deleted", { chatId: 7 });
     // @ts-expect-error no such event
     void emitter.to("chat:7").emit("chat:delete", { chatId: 7 });
     // @ts-expect-error no such field
     void emitter.to("chat:7").emit("chat:deleted", { chatIdd: 7 });
     // @ts-expect-error a number
     void emitter.to("chat:7").emit("chat:deleted", { chatId: "7" });
    `,
  );
  const options = ["--strict", "--noEmit", "--target", "es2023", "--module", "nodenext", "--skipLibCheck", "--pretty", "false"];
  const tsc = path.join(ROOT, "clients/emitter/node_modules/.bin/tsc");
  writeFileSync(path.join(folder, "package.json"), '{"type":"module"}');
  const { stdout, status } = spawnSync(tsc, [...options, path.join(folder, "use.ts")], { encoding: "utf8" });
  assert.equal(status, 0, stdout);
  rmSync(folder, { recursive: true, force: true });
});
