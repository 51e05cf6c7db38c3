// The current state of rooms: what a page gets when it joins, what producers may expect, and what stays after a restart.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { client, Stream, web } from "./lib/admin.js";
import { call, connect } from "./lib/clients.js";
import { get, QUIET, ROOT, start, startServer, until } from "./lib/fanfare.js";
import { RawSocket } from "./lib/plain.js";
import { producer, soon, token, user } from "./lib/tokens.js";

const CATALOG = ["--catalog", path.join(ROOT, "tests/catalogs-state"), ...QUIET];
let fanfare;

before(async () => {
  fanfare = await start({ serverArgs: CATALOG });
});

after(() => fanfare?.stop());

/** Publishes an event as a producer; gives the answer and its HTTP status. */
async function notify(type, event, target = {}, server = fanfare.server) {
  const answer = await get(`${server.url}/fanfare.v1.Realtime/Notify`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${producer("5")}` },
    body: JSON.stringify({ target, event: { "@type": `type.googleapis.com/tasks.v1.${type}`, ...event } }),
  });
  return { status: answer.status, ...(await answer.json()) };
}

const task = async (listId, id, title, target, server) => {
  const answer = await notify("Task", { listId, id, title }, target, server);
  assert.equal(answer.status, 200, JSON.stringify(answer));
  return Number(answer.seq);
};

const reader = (more = {}) => token({ sub: "reader", tenant: "5", scopes: ["subscribe"], exp: soon(), ...more });

/** The whole state of a list, page by page: the seq of each entry by key. */
async function state(listId, { pageSize = 2, url = fanfare.server.url, bearer = reader() } = {}) {
  const realtime = client(web.Realtime, url, bearer);
  const entries = new Map();
  let [pageToken, cursor] = ["", ""];
  do {
    const page = await realtime.getState({ rooms: [`list:${listId}`], pageSize, pageToken });
    assert.ok(page.entries.length <= pageSize);
    assert.ok(cursor === "" || cursor === page.cursor, "all pages have the same cursor");
    for (const entry of page.entries) {
      assert.equal(entry.room, `list:${listId}`);
      entries.set(entry.key, Number(entry.event.seq));
    }
    ({ cursor, nextPageToken: pageToken } = page);
  } while (pageToken);
  return entries;
}

test("who joins with state gets it before the acknowledgement, then each change once, while a producer goes on", async () => {
  for (let i = 0; i < 5; i++) await task("a", `t${i}`, "0");
  await notify("TaskDeleted", { listId: "a", id: "t4" });
  let [isOver, count] = [false, 0];
  const publishing = (async () => {
    while (!isOver) {
      count++;
      if (count % 7 === 0) await notify("TaskDeleted", { listId: "a", id: "t1" });
      else await task("a", `t${count % 4}`, String(count));
      await notify("Said", { listId: "a", text: String(count) });
    }
  })();
  const pages = [];
  for (let i = 1; i <= 6; i++) {
    const socket = await connect(fanfare.bridge.url, user(i, 5), { path: "/socket.io/" });
    let [known, said, names] = [new Map(), [], []];
    const page = { socket, known, said, doubled: 0 };
    socket.onAny((name, event) => {
      names.push(name);
      if (name === "task") {
        if (known.get(event.id) === event.title) page.doubled++;
        known.set(event.id, event.title);
      }
      if (name === "task:deleted") known.delete(event.id);
      if (name === "said") said.push(Number(event.text));
    });
    assert.deepStrictEqual(await call(socket, "list:open", { listId: "a" }), { listId: "a" });
    assert.ok(known.size >= 2, "the state came before the acknowledgement");
    assert.deepStrictEqual(names.slice(0, 2), ["task", "task"], "nothing of the room came before its state");
    pages.push(page);
  }
  await until(() => pages.every((page) => page.said.length > 5), "everybody to hear the producer");
  isOver = true;
  await publishing;
  await notify("Said", { listId: "a", text: "-1" });
  await until(() => pages.every((page) => page.said.at(-1) === -1), "everybody to have everything");
  const keys = [...(await state("a")).keys()].sort();
  for (const { socket, known, said, doubled } of pages) {
    assert.deepStrictEqual([...known.keys()].sort(), keys);
    assert.deepStrictEqual([...known].sort(), [...pages[0].known].sort(), "all pages show the same");
    assert.equal(doubled, 0, "nothing comes twice");
    const from = said[0];
    assert.deepStrictEqual(said.slice(0, -1), Array.from({ length: said.length - 1 }, (_, i) => from + i), "no gap and no repeat");
    socket.close();
  }
});

test("a state does not move the client's place in the log, and other rooms miss nothing", async () => {
  await task("quiet", "1", "old");
  const socket = await connect(fanfare.bridge.url, user(1, 5));
  assert.deepStrictEqual(await call(socket, "list:watch", { listId: "b" }), { listId: "b" });
  assert.equal(socket.events.filter(([name]) => name === "task").length, 0, "a join without `state` is as before");
  await task("b", "1", "live");
  await socket.event("task", ({ title }) => title === "live");
  const offsets = socket.offsets.length;
  await call(socket, "list:open", { listId: "quiet" });
  assert.equal(socket.events.filter(([name, { title }]) => name === "task" && title === "old").length, 1);
  assert.equal(socket.offsets.length, offsets, "an entry of the state carries no offset");
  await task("b", "1", "later");
  await socket.event("task", ({ title }) => title === "later");
  // It is in the room already.
  await call(socket, "list:open", { listId: "quiet" });
  assert.equal(socket.events.filter(([name, { title }]) => name === "task" && title === "old").length, 1);
  socket.close();
  const raw = new RawSocket(fanfare.bridge.url, { token: user(2, 5) });
  await raw.opened;
  raw.send({ type: "list:open", listId: "quiet" });
  await raw.message("task", ({ title }) => title === "old");
  await raw.close();
});

test("a producer that expects another revision is refused, and is told the one there is", async () => {
  const first = await task("cas", "1", "a", { expectedRevision: "0" });
  const refused = await notify("Task", { listId: "cas", id: "1", title: "b" }, { expectedRevision: "0" });
  assert.equal(refused.status, 409, JSON.stringify(refused));
  assert.equal(refused.code, "aborted");
  assert.deepStrictEqual(refused.details[0].debug, {
    reason: "REASON_REVISION", domain: "fanfare", metadata: { revision: String(first) },
  });
  const second = await task("cas", "1", "b", { expectedRevision: String(first) });
  assert.deepStrictEqual([...(await state("cas"))], [["1", second]]);
  const stateless = await notify("Said", { listId: "cas", text: "x" }, { expectedRevision: "1" });
  assert.equal(stateless.code, "invalid_argument");
  assert.match(stateless.message, /expected_revision is for events whose type declares `state`; tasks\.v1\.Said does not/);
  const empty = await notify("Task", { listId: "cas", title: "x" });
  assert.match(empty.message, /id is empty, but the state key "\{id\}" needs it/);
});

test("a subscriber gets the state, then a position, then what comes; GetState has the rule of joining", async () => {
  const seqs = [await task("sub", "1", "a"), await task("sub", "2", "b")];
  const realtime = client(web.Realtime, fanfare.server.url, reader());
  const stream = new Stream((options) => realtime.subscribe({ rooms: ["list:sub"], withState: true }, options));
  const { kind } = await stream.next();
  assert.equal(kind.case, "state");
  assert.ok(kind.value.first);
  assert.deepStrictEqual(kind.value.entries.map((entry) => [entry.key, Number(entry.event.seq)]), [["1", seqs[0]], ["2", seqs[1]]]);
  const position = await stream.next();
  assert.equal(position.kind.case, "position");
  const third = await task("sub", "1", "c");
  const { kind: live } = await stream.next(({ kind }) => kind.case === "event");
  assert.equal(Number(live.value.seq), third);
  stream.close();
  const resumed = new Stream((options) =>
    realtime.subscribe({ rooms: ["list:sub"], withState: true, after: position.kind.value.cursor }, options));
  const { kind: replayed } = await resumed.next(({ kind }) => kind.case !== "position");
  assert.deepStrictEqual([replayed.case, Number(replayed.value.seq)], ["event", third], "where the log reaches back, there is no state");
  resumed.close();
  const restricted = user(1, 5, { rooms: ["list:other"] });
  await assert.rejects(state("sub", { bearer: restricted }), /rooms claim does not list it|does not allow room/);
  assert.equal((await state("sub", { bearer: user(1, 5, { rooms: ["list:sub"] }) })).size, 2);
});

test("an entry with a time to live ends", async () => {
  assert.equal((await notify("Hint", { listId: "ttl", id: "1" })).status, 200);
  await until(async () => (await state("ttl")).size === 0, "the hint to end");
});

test("on disk the state stays after the log was trimmed and the server was killed; it is bounded", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "fanfare-state-"));
  const args = [...CATALOG, "--data-dir", folder, "--retention-events", "5", "--state-entries-max", "3"];
  let server = await startServer(args);
  const seqs = [await task("d", "1", "a", {}, server), await task("d", "2", "b", {}, server)];
  for (let i = 0; i < 10; i++) await notify("Said", { listId: "d", text: "x" }, {}, server);
  await server.kill();
  server = await startServer(args);
  assert.deepStrictEqual([...(await state("d", { url: server.url }))], [["1", seqs[0]], ["2", seqs[1]]]);
  const realtime = client(web.Realtime, server.url, reader());
  const stream = new Stream((options) =>
    realtime.subscribe({ rooms: ["list:d"], withState: true, after: "0123456789ab-1" }, options));
  const { kind } = await stream.next();
  assert.deepStrictEqual([kind.case, kind.value.entries.length], ["state", 2], "instead of a reset");
  stream.close();
  await task("d", "3", "c", {}, server);
  const full = await notify("Task", { listId: "d", id: "4", title: "d" }, {}, server);
  assert.deepStrictEqual([full.status, full.code], [429, "resource_exhausted"]);
  assert.match(full.message, /at most 3 entries.*state-entries-max/);
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});
