// 20 producers, 50 sessions in overlapping rooms, 20,000 events: each session has exactly its events, in the order of the log.

import { test } from "node:test";
import assert from "node:assert/strict";
import { call, connect } from "./lib/clients.js";
import { QUIET, run, SECRET, start } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, user } from "./lib/tokens.js";

const PRODUCERS = 20;
const EVENTS_EACH = 1000;
const SESSIONS = 50;
const CHATS = 8;

/** The chats that a session is in. */
const chatsOf = (session) => Array.from({ length: CHATS }, (_, chat) => chat).filter((chat) => (session + chat) % 3 === 0);

/** The kinds of event: to the organization, to one chat, or to both. */
function eventOf(producer, number) {
  const id = producer * EVENTS_EACH + number;
  const chat = (id * 7) % CHATS;
  if (id % 5 === 0) return { id, room: ["org"], rooms: ["org"], chat };
  if (id % 5 === 1) return { id, room: [], rooms: ["org", `chat:${chat}`], chat };
  return { id, room: [`chat:${chat}`], rooms: [`chat:${chat}`], chat };
}

test(`${PRODUCERS} producers, ${SESSIONS} sessions, ${PRODUCERS * EVENTS_EACH} events: exactly once, in log order`, async (t) => {
  generateStubs();
  const token = producer("1");
  // All sessions live in this one process, which reads them slower than twenty producers write.
  const fanfare = await start({ serverArgs: QUIET, bridgeArgs: ["--queue-bytes-max", "16MiB"] });
  const python = new Producer(fanfare.server.address);
  t.after(async () => {
    sessions.forEach((socket) => socket.close());
    python.close();
    await fanfare.stop();
  });
  const sessions = await Promise.all(
    Array.from({ length: SESSIONS }, async (_, number) => {
      const transports = number % 10 === 0 ? ["polling"] : ["websocket"];
      const socket = await connect(fanfare.bridge.url, user(number % 7, 1), { transports });
      for (const chatId of chatsOf(number)) await call(socket, "subscribe:chat", { chatId });
      return socket;
    }),
  );

  const seqs = new Map();
  const publish = async (producer) => {
    const mine = Array.from({ length: EVENTS_EACH }, (_, n) => eventOf(producer, n));
    const message = (e) => ({ id: `${e.id}`, chatId: `${e.chat}`, content: "x".repeat(40), channel: "CHANNEL_WABA" });
    const events = mine.map((e) => ({ message: message(e), rooms: e.room }));
    const answers = await python.send({ special: "burst", token: token, events }, undefined, 60_000);
    answers.forEach((seq, i) => seqs.set(mine[i].id, seq));
  };
  await Promise.all(Array.from({ length: PRODUCERS }, (_, p) => publish(p)));

  const all = Array.from({ length: PRODUCERS }, (_, p) => Array.from({ length: EVENTS_EACH }, (_, n) => eventOf(p, n))).flat();
  assert.equal(new Set(seqs.values()).size, all.length, "every event has its own place in the log");
  assert.equal(Math.max(...seqs.values()), all.length, "without holes");
  all.sort((a, b) => seqs.get(a.id) - seqs.get(b.id));
  await python.call(token, "messenger.v1.Messenger/BroadcastToOrganization", { userNotification: { type: "fence" } });
  for (const [number, socket] of sessions.entries()) {
    await socket.event("user:notification");
    const mine = new Set(["org", ...chatsOf(number).map((c) => `chat:${c}`)]);
    const expected = all.filter((e) => e.rooms.some((room) => mine.has(room))).map((e) => e.id);
    const got = socket.events.filter(([name]) => name === "message:new").map(([, payload]) => payload.id);
    assert.deepStrictEqual(got, expected, `session ${number}`);
  }
});

test("a burst of large events closes nobody who reads", async (t) => {
  const fanfare = await start({ serverArgs: QUIET });
  t.after(() => fanfare.stop());
  const EVENTS = 200;
  const sessions = await Promise.all([...Array(5).keys()].map((number) => connect(fanfare.bridge.url, user(number + 1, "large"))));
  const event = (id) => JSON.stringify({ id, chatId: 7, content: "x".repeat(40_000), channel: "whatsapp", timestamp: "2026-01-31T12:00:00Z" });
  const input = [...Array(EVENTS).keys()].map(event).join("\n");
  const { code, stderr } = await run(["notify", "message:new", "-", "--server", fanfare.server.url, "--jwt-secret", SECRET, "--tenant", "large"], { input });
  assert.equal(code, 0, stderr);
  for (const socket of sessions) {
    await socket.event("message:new", (m) => m.id === EVENTS - 1);
    assert.deepStrictEqual(socket.events.map(([, m]) => m.id), [...Array(EVENTS).keys()]);
    socket.close();
  }
});
