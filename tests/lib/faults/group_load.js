// Sessions and producers of a group of servers. The store may lose events: the log is read in the end, and each session is held
// against it.

import assert from "node:assert/strict";
import { Process, SECRET, until } from "../fanfare.js";
import { poll } from "../plain.js";
import { user } from "../tokens.js";
import { pause } from "./actions.js";
import { Chapter, Course, judge, nothingWrong, sum } from "./course.js";
import { CHATS, Listener, Load, TENANT } from "./load.js";

/** How long sessions may take to get what is there, or to be told that they must begin anew, in milliseconds. */
const ARRIVAL_MAX = 60_000;
/** How long the log may take to be read. */
const READ_MAX = 20_000;
const ROOMS = Array.from({ length: CHATS }, (_, chat) => `chat:${chat}`);

/** A session that enters its chat again when it has to begin anew, as an application does. */
export class GroupListener extends Listener {
  course = new Course();

  constructor(...options) {
    super(...options);
    // Cut off before it had entered, it is the new session still.
    this.socket.on("connect", () => this.socket.recovered && !this.isEntered && this.#enter());
  }

  take(cursor, id) {
    this.course.add(cursor, id);
  }

  /** It gets the events of its chat. */
  get isEntered() {
    return this.course.parts.at(-1).since < Infinity;
  }

  begin() {
    super.begin();
    this.course.begin();
    this.#enter();
  }

  async #enter() {
    const part = this.course.parts.at(-1);
    while (this.course.parts.at(-1) === part && this.socket.connected && !this.isEntered) {
      const answer = await this.socket.timeout(5000).emitWithAck("join_chat", { chatId: `${this.chat}` }).catch(() => undefined);
      if (answer?.chatId === `${this.chat}`) part.since = performance.now();
      else await pause(100);
    }
  }

  settle() {
    this.course.settle();
    Object.assign(this, { recoveries: 0, fresh: 0, losses: 0 });
  }
}

export class GroupLoad extends Load {
  constructor(group, options = {}) {
    super(group, { Session: GroupListener, ...options });
  }

  /** The end of the log. */
  async #head() {
    const [url] = this.cluster.urls();
    const head = () => poll(url, { token: user(1_000_000, TENANT), room: ROOMS }, { signal: AbortSignal.timeout(5000) }).catch(() => undefined);
    return (await until(head, "the end of the log", READ_MAX)).cursor;
  }

  /** Notes where the log ends before anything is published. */
  async joined() {
    await super.joined();
    this.start = await this.#head();
  }

  /** Resolves when every session has begun anew and entered its chat again. */
  async begunAnew() {
    const waiting = () => this.listeners.filter((listener) => listener.fresh === 0 || !listener.isEntered);
    await until(() => waiting().length === 0, "all sessions to begin anew", ARRIVAL_MAX).catch((error) => {
      const states = waiting().map(({ fresh, recoveries, losses, socket, course }) => ({ fresh, recoveries, losses, connected: socket.connected, events: course.parts.map(({ events }) => events.length) }));
      throw new Error(`${error.message}; ${states.length} have not: ${JSON.stringify(states.slice(0, 5))}`);
    });
  }

  /** Publishes more, beside what is published already. */
  more(events, options) {
    const { producers, events: before } = this;
    this.publish(events, options);
    this.producers.unshift(...producers);
    this.events += before;
  }

  /** What the log has after a cursor, up to what satisfies `isEnd`, as the lines of the tool. */
  async #print(after, isEnd) {
    const reader = new Process(["subscribe", ...ROOMS, "--server", this.cluster.target(0), "--jwt-secret", SECRET, "--tenant", TENANT, "--after", after]);
    try {
      const isRead = () => {
        if (reader.child.exitCode !== null) throw new Error(`the log cannot be read after ${after}: ${reader.text()}`);
        return isEnd(reader.stdout);
      };
      await until(isRead, `the log after ${after}`, READ_MAX);
      return reader.printed();
    } finally {
      reader.child.kill("SIGKILL");
    }
  }

  /** What was published since the beginning and is in the log. Where the log's history is another one, all that it has. */
  async #read(head) {
    const [epoch, last] = head.split("-");
    const after = this.start.startsWith(epoch) ? this.start : `${epoch}-0`;
    if (Number(last) <= Number(after.split("-")[1])) return [];
    const events = await this.#print(after, (text) => text.lastIndexOf(`"seq":${last},`) >= 0 && text.endsWith("\n"));
    return events.map(({ id, payload }) => ({ cursor: id, id: payload.messageIds[0] }));
  }

  /** Resolves when everything that is answered so far could be read from the log. */
  async readable() {
    const { answered } = this;
    assert.ok(answered > 0 && answered < this.events, `${answered} events are answered`);
    await this.#print(this.start, (text) => text.split("\n").length > answered);
  }

  /** When each event was given to its producer. */
  #times() {
    return (id) => {
      const producer = this.producers.find(({ first, count }) => id >= first && id < first + count);
      return producer.written.find(({ upto }) => Number(id) < producer.first + upto).at;
    };
  }

  /** Waits until everything is answered and every session has what it must have, and counts. */
  async count() {
    await this.finish();
    const acknowledged = new Map();
    for (const producer of this.producers) producer.printed().forEach((answer, i) => acknowledged.set(answer.id, `${producer.first + i}`));
    assert.equal(acknowledged.size, this.events, "every event is acknowledged, each under an id of its own");
    const head = await this.#head();
    const log = await this.#read(head);
    assert.equal(new Set(log.map(({ id }) => id)).size, log.length, "no event is in the log twice");
    const chapters = Array.from({ length: CHATS }, () => new Chapter());
    for (const event of log) {
      assert.ok((acknowledged.get(event.cursor) ?? event.id) === event.id, "an event is in the log as it was acknowledged");
      chapters[event.id % CHATS].add(event);
    }
    const there = new Set(log.map(({ cursor }) => cursor));
    const [written, deadline] = [this.#times(), Date.now() + ARRIVAL_MAX];
    const judged = [];
    for (const listener of this.listeners) {
      const look = () => judge(listener.course, chapters[listener.chat], acknowledged, written);
      const isRight = () => Object.values(look()).every((count) => count === 0);
      await until(isRight, "a session to have everything", deadline - Date.now()).catch(() => {});
      judged.push(look());
      assert.ok(!listener.final, "no session was ended for good");
    }
    const faults = sum(judged);
    this.#assertSensitive(chapters, acknowledged, written, faults);
    this.wrong = this.listeners.filter((_, i) => Object.values(judged[i]).some((count) => count > 0)).map((listener) => ({ listener, chapter: chapters[listener.chat] }));
    this.start = head;
    const total = (count) => this.listeners.reduce((n, listener) => n + count(listener), 0);
    return {
      acknowledged: acknowledged.size, lost: [...acknowledged.keys()].filter((cursor) => !there.has(cursor)).length,
      deliveries: total(({ course }) => course.parts.reduce((n, { events }) => n + events.length, 0)), ...faults,
      recoveries: total(({ recoveries }) => recoveries), fresh: total(({ fresh }) => fresh), told: total(({ fresh }) => Number(fresh > 0)),
    };
  }

  /** What is done to a session's course shows in the counts. */
  #assertSensitive(chapters, acknowledged, written, faults) {
    if (Object.values(faults).some((count) => count > 0)) return;
    const found = this.listeners.find(({ course }) => course.parts.at(-1).events.length > 2);
    if (found === undefined) return;
    const { course, chat } = found;
    const altered = (alter) => {
      const copy = Object.assign(new Course(), { parts: course.parts.map((part) => ({ ...part, events: [...part.events] })) });
      alter(copy.parts.at(-1).events);
      return judge(copy, chapters[chat], acknowledged, written);
    };
    const middle = course.parts.at(-1).events.length >> 1;
    assert.deepStrictEqual(altered(() => {}), nothingWrong());
    assert.equal(altered((events) => events.splice(middle, 1)).missing, 1);
    assert.equal(altered((events) => events.splice(middle, 0, events[middle])).doubled, 1);
    assert.equal(altered((events) => events.push(...events.splice(middle, 1))).disordered, 1);
    assert.equal(altered((events) => events.push({ cursor: "lost", id: "0" })).unaware, 1);
  }

  settle() {
    this.listeners.forEach((listener) => listener.settle());
  }
}
