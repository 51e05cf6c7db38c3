// The producer clients of every language keep the same promises, through real faults: what was answered is in the log once, in the
// order of the producer; what is refused is not tried again; a deadline is kept. One scenario, run in each language.

import { after, test } from "node:test";
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { once } from "node:events";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { Driven, DRIVERS } from "./lib/drivers.js";
import { QUIET, startServer, until, within } from "./lib/fanfare.js";
import { Proxy } from "./lib/proxy.js";
import { producer, soon, token } from "./lib/tokens.js";

/** Events of each run. One by one takes a write to the disk each. */
const EVENTS = { notify: 300, "notify-async": 300, stream: 8_000 };
/** What happens when this part of the events is answered. */
const FAULTS = [[0.1, "cut"], [0.25, "kill"], [0.4, "cut"], [0.55, "cut"], [0.7, "kill"], [0.85, "cut"]];
const TENANT = "producers";
const DEADLINE = 30;
const rows = [];

after(() => {
  if (rows.length) console.log("| client | published by | answered | answered again | missing | doubled | out of order | s |\n| --- | --- | --- | --- | --- | --- | --- | --- |");
  for (const row of rows) console.log(`| ${row.join(" | ")} |`);
});

const tasks = (language) => (url, task) =>
  new Driven(DRIVERS[language], { url, tokens: [producer(TENANT)], deadline: DEADLINE, rooms: ["org"], ...task });

/** The only line, an error. */
async function failure(driven) {
  const lines = await within(driven.done, "the driver to end", 30_000);
  assert.equal(lines.length, 1, JSON.stringify(lines));
  return lines[0];
}

async function throughFaults(language, way) {
  const [run, count, began] = [tasks(language), EVENTS[way], Date.now()];
  const folder = mkdtempSync(path.join(tmpdir(), "fanfare-producers-"));
  const args = [...QUIET, "--data-dir", folder];
  let server = await startServer(args);
  const proxy = await Proxy.to(server.address);
  const reader = run(proxy.url, { do: "subscribe", count });
  await until(() => reader.lines.length, "the subscription to stand");
  const writer = run(proxy.url, { do: way, count });
  for (const [part, fault] of FAULTS) {
    await until(() => writer.lines.length >= part * count || writer.child.exitCode !== null, `${part} of the answers`, 60_000);
    if (fault === "cut") proxy.cut();
    else {
      await server.kill();
      server = await startServer(args, server.address);
    }
  }
  const answers = await within(writer.done, "the producer to end", 60_000);
  assert.deepStrictEqual(answers.filter((line) => line.error), []);
  assert.deepStrictEqual(answers.map((line) => line.number), Array.from({ length: count }, (_, i) => i), "an answer for each, in order");
  const [, ...events] = await within(reader.done, "the subscriber to have everything", 60_000);

  // The next event's place tells how many the log holds: whatever was doubled is in between.
  const [next] = await within(run(server.url, { do: "notify", count: 1 }).done, "the next event");
  const log = await within(run(server.url, { do: "subscribe", count, after: reader.lines[0].cursor }).done, "the log");
  const seqs = new Map(log.slice(1).map(({ number, seq }) => [number, seq]));
  const missing = answers.filter(({ number, seq }) => seqs.get(number) !== seq).length;
  const doubled = next.seq - log[1].seq - count;
  const disordered = log.slice(2).filter((line, i) => line.seq <= log[i + 1].seq || line.number <= log[i + 1].number).length;
  const again = answers.filter((line) => line.duplicate).length;
  rows.push([language, way, answers.length, again, missing, doubled, disordered, ((Date.now() - began) / 1000).toFixed(1)]);
  assert.deepStrictEqual({ missing, doubled, disordered }, { missing: 0, doubled: 0, disordered: 0 });
  assert.deepStrictEqual(events, log.slice(1), "a subscription over broken connections gets what the log holds");
  await server.stop();
  proxy.close();
  rmSync(folder, { recursive: true });
}

for (const [language, { ways, skip = false }] of Object.entries(DRIVERS)) {
  const run = tasks(language);

  for (const way of ways) {
    test(`${language}: ${way} publishes each event once and in order, whatever breaks`, { skip }, () => throughFaults(language, way));

    test(`${language}: ${way} does not try again what is refused`, { skip }, async () => {
      const server = await startServer(QUIET);
      const forbidden = await failure(run(server.url, { do: way, count: 1, tokens: [producer(TENANT, { scopes: ["subscribe"] })] }));
      assert.equal(forbidden.attempts, 1);
      assert.deepStrictEqual([forbidden.error.code, forbidden.error.reason, forbidden.error.retryable], ["PERMISSION_DENIED", "REASON_FORBIDDEN", false]);
      assert.match(forbidden.error.message, /scope/);
      const invalid = await failure(run(server.url, { do: way, count: 1, invalid: 0 }));
      assert.equal(invalid.attempts, 1);
      assert.deepStrictEqual([invalid.error.code, invalid.error.reason, invalid.error.retryable], ["INVALID_ARGUMENT", "REASON_INVALID_ARGUMENT", false]);
      assert.match(invalid.error.message, /not a room/);
      await server.stop();
    });

    test(`${language}: ${way} renews a token that was refused, once`, { skip }, async () => {
      const server = await startServer(QUIET);
      const expired = producer(TENANT, { exp: soon(-3600) });
      const answers = await within(run(server.url, { do: way, count: 1, tokens: [expired, producer(TENANT)] }).done, "the answer");
      assert.deepStrictEqual(answers.map((line) => line.number), [0]);
      const refused = await failure(run(server.url, { do: way, count: 1, tokens: [expired] }));
      // Each connection that is seen to break before its refusal is read is one more attempt.
      assert.ok(refused.attempts === 2 || (way === "stream" && refused.attempts > 2), `${refused.attempts} attempts`);
      assert.deepStrictEqual([refused.error.code, refused.error.reason, refused.error.retryable], ["UNAUTHENTICATED", "REASON_TOKEN_EXPIRED", false]);
      await server.stop();
    });

    test(`${language}: ${way} keeps its deadline when no server is there, or a silent one`, { skip }, async () => {
      const closed = net.createServer().listen(0, "127.0.0.1");
      await once(closed, "listening");
      const { port } = closed.address();
      closed.close();
      const nobody = await failure(run(`http://127.0.0.1:${port}`, { do: way, count: 1, deadline: 3 }));
      assert.ok(nobody.error.retryable && nobody.attempts >= 2, JSON.stringify(nobody));
      assert.deepStrictEqual([nobody.error.code, nobody.error.reason], ["UNAVAILABLE", null]);
      assert.ok(nobody.ms >= 300 && nobody.ms < 15_000, `${nobody.ms} ms`);
      const held = [];
      const silent = net.createServer((socket) => held.push(socket.on("error", () => {}))).listen(0, "127.0.0.1");
      await once(silent, "listening");
      const hung = await failure(run(`http://127.0.0.1:${silent.address().port}`, { do: way, count: 1, deadline: 3 }));
      assert.ok(hung.error.retryable && hung.ms < 15_000, JSON.stringify(hung));
      assert.equal(hung.error.reason, null);
      held.forEach((socket) => socket.destroy());
      silent.close();
    });
  }

  test(`${language}: an event that is refused ends the stream, and nothing behind it is published`, { skip }, async () => {
    const server = await startServer(QUIET);
    const lines = await within(run(server.url, { do: "stream", count: 3000, invalid: 1500 }).done, "the stream to end", 30_000);
    const answered = lines.filter((line) => !line.error);
    assert.deepStrictEqual(answered.map((line) => line.number), Array.from({ length: 1500 }, (_, i) => i));
    const [refused, ...behind] = lines.filter((line) => line.error);
    assert.deepStrictEqual([refused.number, refused.error.reason], [1500, "REASON_INVALID_ARGUMENT"]);
    for (const { number, error } of behind.filter((line) => line.number !== null)) {
      assert.ok(number > 1500);
      assert.deepStrictEqual([error.code, error.reason, error.retryable], ["ABORTED", null, false]);
      assert.match(error.message, /^not published, because the stream ended before: /);
    }
    assert.equal(behind.at(-1).error.reason, "REASON_INVALID_ARGUMENT", "closing tells why it ended");
    const [next] = await within(run(server.url, { do: "notify", count: 1 }).done, "the answer");
    assert.equal(next.seq, 1501);
    await server.stop();
  });

  test(`${language}: a subscription tells of a reset, and where to begin again`, { skip }, async () => {
    const [old, server] = [await startServer(QUIET), await startServer(QUIET)];
    const [{ id }] = await within(run(old.url, { do: "notify", count: 1 }).done, "the answer");
    const lines = await within(run(server.url, { do: "subscribe", count: 1, after: id }).done, "the subscription to end");
    const { error } = lines.at(-1);
    assert.deepStrictEqual([error.code, error.reason, error.retryable], ["OUT_OF_RANGE", "REASON_RESET", false]);
    const fresh = run(server.url, { do: "subscribe", count: 1, after: error.cursor });
    const [published] = await within(run(server.url, { do: "notify", count: 1 }).done, "the answer");
    const events = await within(fresh.done, "the event");
    assert.equal(events.at(-1).seq, published.seq);
    await old.stop();
    await server.stop();
  });

  test(`${language}: a subscription whose token expires goes on with another`, { skip }, async () => {
    const server = await startServer([...QUIET, "--jwt-leeway", "0s"]);
    const exp = soon(2);
    const brief = token({ sub: "reader", tenant: TENANT, scopes: ["subscribe"], exp });
    const reader = run(server.url, { do: "subscribe", count: 2, tokens: [brief, producer(TENANT)] });
    await until(() => reader.lines.length, "the subscription to stand");
    await within(run(server.url, { do: "notify", count: 1 }).done, "the answer");
    await until(() => Date.now() / 1000 > exp + 0.5, "the token to expire");
    await within(run(server.url, { do: "notify", count: 1 }).done, "the answer");
    const events = await within(reader.done, "both events");
    assert.deepStrictEqual(events.slice(1).map((line) => line.seq), [1, 2]);
    await server.stop();
  });
}
