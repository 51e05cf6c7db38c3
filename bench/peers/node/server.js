// The Socket.IO server of the benchmark: every session is in the room `org`, and in the chats that it joins by
// `subscribe:chat`. Each line on standard input, {"count":N,"first":N,"intervalMicros":N,"chats":N}, makes it emit a run
// of events: to `org` when `chats` is 0, else event n to `chat:` and 1 + n modulo `chats`. Answers are lines on standard
// output: {"listening":PORT,"version":"…"} once, {"emitted":N} after each run.
// Everything of Socket.IO is at its defaults.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Server } from "socket.io";

const ROOM = "org";
const EVENT = "message:new";
const CONTENT_BYTES = 120;

const http = createServer();
const io = new Server(http);
io.on("connection", (socket) => {
  socket.join(ROOM);
  socket.on("subscribe:chat", (chat, acknowledge) => {
    socket.join(`chat:${chat.chatId}`);
    acknowledge(chat);
  });
});

const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

// The content begins with the number and the time of the event (CLOCK_MONOTONIC, nanoseconds).
function newMessage(number) {
  const nanos = String(process.hrtime.bigint()).padStart(20, "0");
  const content = `${String(number).padStart(10, "0")} ${nanos} `.padEnd(CONTENT_BYTES, "x");
  return {
    id: number,
    chatId: 1,
    content,
    fromMe: false,
    timestamp: new Date().toISOString(),
    channel: "whatsapp",
    senderUserId: 7,
    senderName: "Ada",
  };
}

const roomOf = (number, chats) => (chats === 0 ? ROOM : `chat:${1 + (number % chats)}`);

// A burst is emitted in one turn of the event loop, which is the cheapest for Node; all events are in hand
// before the first is emitted: the burst's latency counts from there.
function burst({ count, first, chats }) {
  const events = Array.from({ length: count }, (_, index) => newMessage(first + index));
  for (const event of events) {
    io.to(roomOf(event.id, chats)).emit(EVENT, event);
  }
}

// Timers tick in milliseconds: of events that are closer, several are emitted in one turn.
async function steady({ count, first, intervalMicros, chats }) {
  const start = performance.now();
  for (let number = first; number < first + count; number++) {
    const ahead = start + ((number - first) * intervalMicros) / 1000 - performance.now();
    if (ahead > 0) {
      await sleep(ahead);
    }
    io.to(roomOf(number, chats)).emit(EVENT, newMessage(number));
  }
}

const version = (name) => createRequire(import.meta.url)(`${name}/package.json`).version;

http.listen(0, "127.0.0.1", () =>
  say({
    listening: http.address().port,
    version: `socket.io ${version("socket.io")}, ws ${version("ws")}, node ${process.version}`,
  }),
);

for await (const line of createInterface({ input: process.stdin })) {
  const run = JSON.parse(line);
  await (run.intervalMicros === 0 ? burst(run) : steady(run));
  say({ emitted: run.count });
}
process.exit();
