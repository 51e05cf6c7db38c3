// A process with a session over each transport, all of them in every chat, which come back with their cursor. The test puts the
// whole process to sleep, as a laptop's lid does: its connections stay open, and nobody reads them.

import { io } from "socket.io-client";
import { EventStream, poll, RawSocket } from "../plain.js";
import { CHATS, TENANT } from "./load.js";
import { user } from "../tokens.js";
import { Record } from "./accounting.js";

const [url, firstUser] = process.argv.slice(2);
const rooms = Array.from({ length: CHATS }, (_, chat) => `chat:${chat}`);
/** Before it tries again, in milliseconds. */
const PAUSE = 100;
const sessions = [];

class Sleeper {
  record = new Record();
  recoveries = 0;
  fresh = 0;

  constructor(transport) {
    this.transport = transport;
    this.token = user(Number(firstUser) + sessions.length, TENANT);
    this.ready = new Promise((resolve) => (this.isReady = resolve));
    sessions.push(this);
  }

  take(cursor, id) {
    this.record.add(Number(cursor.split("-")[1]), id);
  }
}

function socketio(transport) {
  const sleeper = new Sleeper(`Socket.IO, ${transport}`);
  const socket = io(url, { auth: { token: sleeper.token }, transports: [transport], forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 500 });
  let known = false;
  socket.on("messages_read", (read, offset) => sleeper.take(offset, read.messageIds[0]));
  socket.on("connect", async () => {
    sleeper.recoveries += Number(socket.recovered);
    sleeper.fresh += Number(known && !socket.recovered);
    if (known) return;
    known = true;
    await Promise.all(rooms.map((room) => socket.emitWithAck("join_chat", { chatId: room.slice(5) })));
    sleeper.isReady();
  });
}

/** Repeats `connect(cursor)` for ever; it gives the cursor that it has reached. */
async function again(sleeper, connect) {
  let cursor = "";
  for (let times = 0; ; times++) {
    if (times > 0) await new Promise((resolve) => setTimeout(resolve, PAUSE));
    cursor = await connect(cursor, times > 0).catch(() => cursor);
  }
}

function take(sleeper, message, cursor) {
  if (message.type === "reset") sleeper.fresh += 1;
  if (message.type === "messages_read") sleeper.take(cursor, message.messageIds[0]);
}

function websocket() {
  const sleeper = new Sleeper("WebSocket");
  again(sleeper, async (after, isBack) => {
    let cursor = after;
    const socket = new RawSocket(url, { token: sleeper.token, room: rooms, after });
    socket.add = (message) => {
      take(sleeper, message, message.cursor);
      cursor = message.cursor ?? cursor;
    };
    const closed = socket.closed.then(() => cursor);
    await socket.opened;
    sleeper.recoveries += Number(isBack);
    sleeper.isReady();
    return closed;
  });
}

function events() {
  const sleeper = new Sleeper("server-sent events");
  again(sleeper, async (after, isBack) => {
    const stream = await EventStream.open(url, { token: sleeper.token, room: rooms }, after ? { "last-event-id": after } : {});
    stream.add = (message) => take(sleeper, message, message.eventId);
    stream.messages.forEach(stream.add);
    sleeper.recoveries += Number(isBack);
    sleeper.isReady();
    await stream.ended;
    return stream.lastEventId || after;
  });
}

async function polling() {
  const sleeper = new Sleeper("long polling");
  let cursor;
  for (;;) {
    try {
      const answer = await poll(url, { token: sleeper.token, room: rooms, after: cursor });
      // Only the page has a cursor, not each event.
      for (const message of answer.events) take(sleeper, message, "-0");
      cursor = answer.cursor;
      sleeper.isReady();
    } catch (error) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }
}

socketio("websocket");
socketio("polling");
websocket();
events();
polling();
await Promise.all(sessions.map((sleeper) => sleeper.ready));
process.on("message", (what) => {
  const tell = ({ transport, record, recoveries, fresh }) => ({ transport, recoveries, fresh, ...(what === "counts" ? { count: record.seqs.length } : { record }) });
  process.send(sessions.map(tell));
});
process.send("ready");
