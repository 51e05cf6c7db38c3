// Sessions that listen and producers that publish, through whatever happens; then both are counted.

import assert from "node:assert/strict";
import { io } from "socket.io-client";
import { Process, SECRET, until, within } from "../fanfare.js";
import { user } from "../tokens.js";
import { judge, Record, sum } from "./accounting.js";

export const SESSIONS = 200;
export const PRODUCERS = 4;
export const TENANT = "faults";
/** Every session is in one of these chats. */
export const CHATS = 40;
/** How long producers keep trying, and how long they may take in all. */
const PATIENCE = 120_000;
/** How long events may be on their way once everything is answered. */
export const ARRIVAL_MAX = 60_000;
/** How often a producer with a pace gets something to do, in milliseconds. */
const TICK = 20;

/** A stock client that comes back by itself, to any of the bridges, and keeps what it gets. */
export class Listener {
  record = new Record();
  /** How often it came back as the session it was, how often as a new one, how often its connection was lost. */
  recoveries = 0;
  fresh = 0;
  losses = 0;

  constructor(urls, index, random) {
    this.chat = index % CHATS;
    const choose = () => urls()[Math.floor(random() * urls().length)] ?? this.socket.io.uri;
    this.socket = io(urls()[index % urls().length], {
      auth: { token: user(index, TENANT) }, transports: ["websocket"], forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 500, timeout: 3000,
    });
    this.socket.on("messages_read", (read, offset) => this.take(offset, read.messageIds[0]));
    let known = false;
    this.socket.on("connect", () => {
      this.recoveries += Number(this.socket.recovered);
      if (known && !this.socket.recovered) this.begin();
      known = true;
    });
    this.socket.on("connect_error", () => {
      // As a front end behind a balancer: somebody else, after a pause.
      this.socket.io.uri = choose();
      if (!this.socket.active) setTimeout(() => this.socket.connect(), 200);
    });
    this.socket.on("disconnect", (reason) => {
      this.losses += 1;
      if (reason === "io server disconnect") this.final = true;
      if (!urls().includes(this.socket.io.uri)) this.socket.io.uri = choose();
    });
  }

  /** An event came, with its cursor. */
  take(cursor, id) {
    this.record.add(Number(cursor.split("-")[1]), id);
  }

  /** It is back as a new session. */
  begin() {
    this.fresh += 1;
  }

  /** Enters its chat; on a machine that is busy with something else that may take more than one try. */
  async joined() {
    const join = async () => {
      const answer = await this.socket.timeout(5000).emitWithAck("join_chat", { chatId: `${this.chat}` }).catch(() => undefined);
      return answer?.chatId === `${this.chat}`;
    };
    await until(() => this.socket.connected && join(), "the session to join", 60_000);
    this.losses = 0;
  }

  /** Loses its connection; it comes back by itself. */
  drop() {
    this.socket.io.engine?.close();
  }
}

/** A producer process that publishes until all of its events are answered, through whatever happens. */
function produce(url, { first, count, padding, pace }) {
  const producer = new Process([
    "notify", "messages_read", "-", "--server", url, "--jwt-secret", SECRET, "--tenant", TENANT, "--retry-for", `${PATIENCE}ms`,
  ]);
  producer.answered = 0;
  /** When it was given its events. */
  producer.written = [];
  producer.child.stdout.on("data", (data) => {
    for (const byte of data) producer.answered += Number(byte === 10);
  });
  const { stdin } = producer.child;
  stdin.on("error", () => {});
  let next = 0;
  const readBy = "x".repeat(padding);
  const write = (upto) => {
    const lines = [];
    if (upto > next) producer.written.push({ upto, at: performance.now() });
    for (; next < upto; next++) lines.push(JSON.stringify({ chatId: `${(first + next) % CHATS}`, messageIds: [`${first + next}`], readBy }));
    if (lines.length > 0) stdin.write(`${lines.join("\n")}\n`);
    if (next === count) stdin.end();
  };
  const began = performance.now();
  const tick = () => {
    write(Math.min(count, Math.ceil(((performance.now() - began) / 1000) * pace)));
    if (next < count) setTimeout(tick, TICK);
  };
  if (pace === Infinity) write(count);
  else tick();
  return Object.assign(producer, { first, count });
}

export class Load {
  producers = [];
  published = 0;

  constructor(cluster, { sessions = SESSIONS, random = Math.random, Session = Listener } = {}) {
    this.cluster = cluster;
    this.listeners = Array.from({ length: sessions }, (_, i) => new Session(cluster.urls, i, random));
  }

  async joined() {
    await Promise.all(this.listeners.map((listener) => listener.joined()));
  }

  /** Begins to publish so many events, `seconds` long or as fast as they are taken. */
  publish(events, { seconds = 0, bytes = 20 } = {}) {
    const count = events / PRODUCERS;
    this.events = events;
    this.producers = Array.from({ length: PRODUCERS }, (_, number) =>
      produce(this.cluster.target(number), {
        first: this.published + number * count, count, padding: bytes, pace: seconds > 0 ? count / seconds : Infinity,
      }),
    );
    this.published += events;
  }

  get answered() {
    return this.producers.reduce((total, producer) => total + producer.answered, 0);
  }

  /** Resolves when a part of all events is answered. */
  reached(part) {
    return until(() => this.answered >= part * this.events, `${part} of all events to be answered`, PATIENCE);
  }

  /** Waits until every event is answered. */
  async finish() {
    for (const producer of this.producers) {
      const { code } = await within(producer.ended, `the producer to end (${this.answered} of ${this.events} are answered)`, PATIENCE);
      assert.equal(code, 0, producer.text());
      await within(producer.closed, "the producer's last words");
    }
  }

  /**
   * Waits until everything is answered and has arrived, and counts. `others` are sessions that are in every chat; where they were not told an event's
   * seq, its id stands for it.
   */
  async count(others = []) {
    await this.finish();
    // By the producers' own record of answers.
    const wanted = Array.from({ length: CHATS }, () => new Map());
    const [all, places] = [new Map(), new Map()];
    for (const producer of this.producers) {
      producer.printed().forEach(({ seq }, i) => {
        const id = producer.first + i;
        wanted[id % CHATS].set(seq, `${id}`);
        all.set(seq, `${id}`);
        places.set(`${id}`, seq);
      });
    }
    assert.equal(all.size, this.events, "every event is acknowledged, each with a place of its own");
    for (const { record } of others) record.seqs = record.seqs.map((seq, i) => seq || (places.get(record.ids[i]) ?? -1));
    const sessions = [
      ...this.listeners.map((listener) => ({ listener, record: () => listener.record, wanted: wanted[listener.chat] })),
      ...others.map((other) => ({ listener: other, record: () => other.record, wanted: all })),
    ];
    const judged = [];
    const deadline = Date.now() + ARRIVAL_MAX;
    for (const { listener, record, wanted } of sessions) {
      const last = [...wanted.keys()].reduce((a, b) => Math.max(a, b), 0);
      await until(() => record().last >= last, "a session's last event", deadline - Date.now()).catch(() => {});
      judged.push(judge(record(), wanted));
      assert.ok(!listener.final, "no session was ended for good");
    }
    const faults = sum(judged);
    this.assertSensitive(wanted, faults);
    const total = (key) => sessions.reduce((n, { listener }) => n + listener[key], 0);
    return {
      acknowledged: all.size, deliveries: sessions.reduce((n, { record }) => n + record().seqs.length, 0), ...faults,
      recoveries: total("recoveries"), fresh: total("fresh"),
    };
  }

  /** Whatever is done to a session's record shows in the counts. */
  assertSensitive(wanted, faults) {
    if (Object.values(faults).some((count) => count > 0)) return;
    const { record, chat } = this.listeners[0];
    const middle = record.seqs.length >> 1;
    const altered = (alter) => {
      const copy = Object.assign(new Record(), { before: record.before });
      record.seqs.forEach((seq, i) => copy.add(seq, record.ids[i]));
      alter(copy);
      return judge(copy, wanted[chat]);
    };
    const none = { missing: 0, doubled: 0, disordered: 0, strange: 0 };
    const [seq, id] = [record.seqs[middle], record.ids[middle]];
    assert.deepStrictEqual(altered(() => {}), none);
    assert.deepStrictEqual(altered((r) => [r.seqs, r.ids].forEach((list) => list.splice(middle, 1))), { ...none, missing: 1 });
    assert.deepStrictEqual(altered((r) => r.add(seq, id)), { ...none, doubled: 1 });
  }

  settle() {
    this.listeners.forEach((listener) => {
      listener.record.settle();
      Object.assign(listener, { recoveries: 0, fresh: 0 });
    });
  }

  close() {
    this.listeners.forEach((listener) => listener.socket.close());
  }

  /** Ends what is still under way. */
  abandon() {
    this.close();
    this.producers.forEach((producer) => producer.child.kill("SIGKILL"));
  }
}
