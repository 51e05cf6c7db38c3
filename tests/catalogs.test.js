// Every event of the four catalogs: in by the typed RPC (Python, grpcio), out to the stock client, with exactly the JSON
// that the products' front ends read, once a session, to exactly the sessions that should have it.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { call, connect } from "./lib/clients.js";
import { EVENTS } from "./lib/events.js";
import { QUIET, run, start } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, soon, token } from "./lib/tokens.js";

// Who gets what is meant for an audience in tenant 1, user 42, chat 7.
const AUDIENCES = {
  org: ["user 42", "user 42 in chat 7", "user 43", "user 43 in chat 7"],
  "org+chat": ["user 42", "user 42 in chat 7", "user 43", "user 43 in chat 7"],
  chat: ["user 42 in chat 7", "user 43 in chat 7"],
  user: ["user 42", "user 42 in chat 7"],
  "user+chat": ["user 42", "user 42 in chat 7", "user 43 in chat 7"],
};

let fanfare, python;
const sessions = new Map();

before(async () => {
  generateStubs();
  fanfare = await start({ serverArgs: QUIET });
  python = new Producer(fanfare.server.address);
  const open = async (name, claims, chat) => {
    const session = await connect(fanfare.bridge.url, token({ ...claims, exp: soon() }));
    if (chat) await call(session, "subscribe:chat", { chatId: 7 });
    sessions.set(name, session);
  };
  await open("user 42", { userId: 42, organizationId: 1 });
  await open("user 42 in chat 7", { userId: "42", organizationId: "1" }, true);
  await open("user 43", { userId: 43, organizationId: 1 });
  await open("user 43 in chat 7", { userId: 43, organizationId: 1 }, true);
  await open("other tenant", { userId: 42, organizationId: 2 }, true);
  await open("no tenant", { sub: "42", username: "ada" }, true);
});

after(async () => {
  for (const session of sessions.values()) session.close();
  python?.close();
  await fanfare?.stop();
});

for (const [service, method, name, event, seen, audience, rooms] of EVENTS) {
  test(`${service}/${method}: ${name} ${JSON.stringify(seen).slice(0, 60)} reaches ${audience}`, async () => {
    for (const session of sessions.values()) session.events.length = session.texts.length = 0;
    await python.call(producer("1"), `${service}/${method}`, { target: { rooms }, event });
    // A fence for each tenant: what comes before it has come, and nothing else will.
    const fence = `fence-${Math.random()}`;
    for (const tenant of ["1", "2", "default"]) {
      await python.call(producer(), "messenger.v1.Messenger/BroadcastToOrganization", { target: { tenant }, userNotification: { type: fence } });
    }
    for (const [who, session] of sessions) {
      await session.event("user:notification", (payload) => payload.type === fence);
      const got = session.events.filter(([, payload]) => !String(payload.type).startsWith("fence-"));
      assert.deepStrictEqual(got, AUDIENCES[audience].includes(who) ? [[name, seen]] : [], who);
      // On the wire it is what JSON.stringify writes (no field twice, no number with an exponent), but that the doubles
      // of a google.protobuf.Struct may keep a zero behind the point.
      for (const text of session.texts) {
        assert.equal(text.replace(/(?<=\d)\.0(?=[,\]}])/g, ""), `2${JSON.stringify(JSON.parse(text.slice(1)))}`, who);
      }
    }
  });
}

test("BroadcastToOrganization sends any event of the catalog to everybody in the organization", async () => {
  for (const session of sessions.values()) session.events.length = 0;
  const event = { typingStart: { chatId: "7", userId: "5" } };
  await python.call(producer("1"), "messenger.v1.Messenger/BroadcastToOrganization", event);
  await python.call(producer("1"), "messenger.v1.Messenger/BroadcastToOrganization", { userNotification: { type: "all", message: "Tonight" } });
  for (const who of AUDIENCES.org) {
    await sessions.get(who).event("user:notification");
    assert.deepStrictEqual(sessions.get(who).events, [["typing:start", { chatId: 7, userId: "5" }], ["user:notification", { type: "all", message: "Tonight" }]], who);
  }
  await assert.rejects(python.call(producer("1"), "messenger.v1.Messenger/BroadcastToOrganization", {}), /has no event/);
});

test("the table names every event of the catalogs", async () => {
  const { stdout } = await run(["check"]);
  const declared = [...stdout.matchAll(/^ {2}(\S+) /gm)].map((m) => m[1]).sort();
  // Two catalogs may use one name, each for an event of its own.
  const tabled = [...new Set(EVENTS.map(([service, , name]) => `${service} ${name}`))].map((t) => t.split(" ")[1]).sort();
  assert.deepStrictEqual(tabled, declared);
});
