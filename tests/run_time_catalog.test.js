// Catalogs that are no part of Fanfare: a right one works end to end without a rebuild, wrong ones are refused.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import path from "node:path";
import { call, connect } from "./lib/clients.js";
import { QUIET, ROOT, run, start } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, user } from "./lib/tokens.js";

const ORDER = { ref: { orderId: "o-1" }, customerId: "42", total: { currency: "EUR", cents: "1999" }, number: "18446744073709551615", quantities: { tea: 2 } };
const SEEN = { ref: { orderId: "o-1" }, total: { currency: "EUR", cents: 1999 }, number: "18446744073709551615", quantities: { tea: 2 } };

let fanfare, python;

before(async () => {
  generateStubs();
  fanfare = await start({ serverArgs: [...QUIET, "--catalog", path.join(ROOT, "tests/catalogs")] });
  python = new Producer(fanfare.server.address);
});

after(async () => {
  python?.close();
  await fanfare?.stop();
});

test("a typed stub goes in, a Socket.IO event comes out, and a typed stream", async () => {
  const customer = await connect(fanfare.bridge.url, user(42, 1));
  const watcher = await connect(fanfare.bridge.url, user(43, 1));
  assert.deepStrictEqual(await call(watcher, "order:watch", { orderId: "o-1" }), { orderId: "o-1" });
  const stream = python.stream(producer("1"), "orders.v1.Orders/Subscribe", { rooms: ["order:o-1"] }, 2);
  const first = await stream.started;
  assert.ok(first.meta.id, "the first message is a position");

  const answer = await python.call(producer("1"), "orders.v1.Orders/NotifyOrderPlaced", { order: ORDER });
  assert.deepStrictEqual((await customer.event("order:placed"))[1], SEEN);
  assert.deepStrictEqual((await watcher.event("order:placed"))[1], SEEN);
  const [, event] = await stream.messages;
  assert.deepStrictEqual(event.orderPlaced, ORDER);
  assert.equal(event.meta.id, answer.id);
  assert.deepStrictEqual(event.meta.rooms, ["order:o-1", "user:42"]);

  // Replay: after the position before the event, the event comes again.
  const replay = python.stream(producer("1"), "orders.v1.Orders/Subscribe", { rooms: ["order:o-1"], after: first.meta.id }, 2);
  assert.deepStrictEqual((await replay.messages)[1].orderPlaced, ORDER);
  customer.close();
  watcher.close();
});

test("reflection and health list the catalog", async () => {
  for (const special of ["services", "services_v1"]) {
    const services = await python.send({ special });
    for (const wanted of ["orders.v1.Orders", "orders.v1.OrdersClient", "messenger.v1.Messenger", "fanfare.v1.Realtime", "grpc.health.v1.Health"]) {
      assert.ok(services.includes(wanted), `${special}: ${wanted} in ${services}`);
    }
  }
  assert.equal(await python.send({ special: "file", symbol: "orders.v1.OrderPlaced" }), "orders/v1/orders.proto");
  // Tools decode refusals by it.
  assert.match(await python.send({ special: "file", symbol: "google.rpc.ErrorInfo" }), /error_details\.proto$/);
  assert.equal(await python.send({ special: "health", service: "orders.v1.Orders" }), "SERVING");
  assert.equal(await python.send({ special: "health", service: "fanfare.v1.Realtime" }), "SERVING");
});

// [file, line, what is said]
const BROKEN = [
  ["any_field", 5, "has no browser type; write a oneof"],
  ["deletion_with_ttl", 4, "a removed entry has no end, remove one"],
  ["duplicate_call", 6, 'already taken by /chat.v1.ChatClient/JoinChat of chat.v1, and namespace "/" serves both'],
  ["duplicate_name", 6, "already taken by broken.v1.A"],
  ["empty_name", 5, 'must be 1 to 64 bytes without white space, e.g. "order:placed"'],
  ["ephemeral_state", 4, "but it is `ephemeral`; remove one"],
  ["except_nothing", 7, "there is no `publish`"],
  ["fill_type", 6, "want a google.protobuf.Timestamp"],
  ["history_and_join", 8, "a method with `history` has no `join`"],
  ["history_fill_alone", 8, "is filled by `history`, which the method does not declare"],
  ["history_too_long", 8, "default_limit is 500; want 1 to 200"],
  ["history_two_lists", 8, "has 2 fields that can take the events; want exactly one"],
  ["history_unknown_field", 8, "is no field of broken.v1.Ref that is a string"],
  ["history_without_list", 8, "has 0 fields that can take the events; want exactly one"],
  ["joined_without_field", 4, "exactly one room template of a kind and one string or integer field"],
  ["joins_org", 6, "choose another kind"],
  ["joins_stamped", 7, "which the server fills and browsers cannot send"],
  ["joins_user", 6, "choose another kind"],
  ["key_of_no_field", 4, 'state key "{ix}" names no field of broken.v1.A (did you mean "id"?)'],
  ["member_fill_type", 6, "want a bool"],
  ["nested_event_id", 8, "only a field of the event itself can take its id"],
  ["no_event", 8, "want exactly one"],
  ["no_package", 1, "add one, e.g. `package orders.v1;`"],
  ["no_target", 8, "add `fanfare.v1.Target target = N;`"],
  ["notify_non_event", 9, "is no event; give broken.v1.Plain `option (fanfare.v1.event)`"],
  ["oneof_non_event", 12, "is not an event; give its message"],
  ["online_without_rooms", 4, "add e.g. `rooms: \"org\"`"],
  ["optional_nothing", 7, "there is no `upstream`"],
  ["publish_no_rooms", 7, "declares no rooms; give it e.g."],
  ["query_unknown_field", 7, 'did you mean "id"?'],
  ["query_without_list", 7, "add a repeated field of a message"],
  ["repeated_in_template", 5, "not a singular string, integer or enum field"],
  ["reply_no_event", 7, 'did you mean "broken.v1.A"?'],
  ["reserved_name", 5, "kept by Socket.IO clients for themselves; choose another"],
  ["room_of_users", 4, 'the rule of the kind "user" is fixed'],
  ["room_twice", 4, "is declared twice in this file; write one rule"],
  ["room_without_access", 4, "want ACCESS_TENANT or ACCESS_CLAIM"],
  ["room_without_reason", 4, 'add e.g. reason: "operators see all chats"'],
  ["room_wrong_kind", 4, "is no kind"],
  ["spaced_name", 5, 'without white space, e.g. "order:placed"'],
  ["state_without_join", 7, "there is no `join` whose room has it"],
  ["stored_greeting", 4, "add `ephemeral: true`"],
  ["streams_requests", 8, "catalog methods are unary"],
  ["subscribe_without_meta", 8, "add `fanfare.v1.Event meta = N;`"],
  ["syntax", 5, "expected an integer"],
  ["unbalanced_template", 5, "a brace without its partner; write"],
  ["unknown_field", 5, 'did you mean "chat_id"?'],
  ["unknown_import", 3, "give the folder that imports are relative to"],
  ["unknown_type", 6, "'Missing' is not defined"],
  ["upstream_name", 7, "its address is the server's setting"],
  ["wrong_kind", 5, "which is no kind"],
];

test("the table has every broken catalog", () => {
  const files = readdirSync(path.join(ROOT, "tests/catalogs-broken")).map((file) => file.replace(/\.proto$/, ""));
  assert.deepStrictEqual(files.sort(), BROKEN.map(([name]) => name));
});

for (const [name, line, remedy] of BROKEN) {
  test(`a broken catalog is refused: ${name}`, async () => {
    const file = path.join(ROOT, `tests/catalogs-broken/${name}.proto`);
    for (const command of [["check"], ["server", "--grpc-listen", "127.0.0.1:0", "--jwt-secret", "0123456789abcdef0123456789abcdef"]]) {
      const { code, stderr } = await run([...command, "--catalog", file]);
      assert.notEqual(code, 0);
      assert.ok(stderr.includes(`${file}:${line}:`), stderr);
      assert.ok(stderr.includes(remedy), stderr);
    }
  });
}
