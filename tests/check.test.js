// `fanfare check`: what would fail at run time, and what would break clients of older catalogs.

import { test } from "node:test";
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { ROOT, run, SECRET } from "./lib/fanfare.js";
import { Authority } from "./lib/certificates.js";

const CATALOGS = path.join(ROOT, "tests/catalogs");
const NUMBER = "  uint64 number = 4;\n";
/** Changes of the orders, and what is said of them. */
const CHANGES = [
  [[[NUMBER, `${NUMBER}  string note = 6;\n`]], ["no change breaks clients of the old catalogs"]],
  [[[NUMBER, ""], ["  map<string, int32> quantities = 5;\n", ""]], ["field orders.v1.OrderPlaced.number was removed", "field orders.v1.OrderPlaced.quantities was removed"]],
  [[[NUMBER, "  uint64 number = 4 [jstype = JS_NUMBER];\n"]], ["field orders.v1.OrderPlaced.number: it was uint64 and is now uint64 (a number in JSON)"]],
  [[[NUMBER, "  repeated uint64 numbers = 4;\n"]], ['field orders.v1.OrderPlaced.number: it was uint64 and is now repeated uint64', 'field orders.v1.OrderPlaced.number: its name in JSON is now "numbers"']],
  [[['"order:placed"', '"order:made"']], ['event orders.v1.OrderPlaced: browsers know it as "order:placed", now as "order:made"']],
  [[['rooms: ["order:{ref.order_id}", "user:{customer_id}"]', 'rooms: "order:{ref.order_id}" ephemeral: true']], ['event orders.v1.OrderPlaced: it no longer reaches the room "user:{customer_id}"', "event orders.v1.OrderPlaced: it was stored and is now ephemeral"]],
  [[["  rpc Subscribe(fanfare.v1.SubscribeRequest) returns (stream OrdersEvent);\n", ""]], ["method /orders.v1.Orders/Subscribe was removed"]],
  [[['on: "order:watch"', 'on: "order:follow"']], ['browsers can no longer emit "order:watch"']],
];
const problem = async (...args) => {
  const { code, stderr } = await run(["check", ...args]);
  assert.equal(code, 1);
  return stderr;
};

test("places that collide are found", async () => {
  assert.match(await problem("--grpc-listen", "127.0.0.1:7000", "--http-listen", "127.0.0.1:7000"), /--grpc-listen 127.0.0.1:7000 and --http-listen/);
  assert.match(await problem("--grpc-listen", "0.0.0.0:7000", "--http-listen", "127.0.0.1:7000"), /different ports/);
  for (const other of ["127.0.0.1:0", "127.0.0.2:7000", "[::1]:7000"]) {
    const { code, stderr } = await run(["check", "--grpc-listen", "127.0.0.1:7000", "--http-listen", other]);
    assert.equal(code, 0, stderr);
  }
});

test("an upstream without an address is found", async () => {
  const catalog = ["--catalog", path.join(ROOT, "tests/catalogs-upstream")];
  assert.match(await problem(...catalog), /needs the upstream "(\w+)": give its address, e.g. --upstream \1=/);
});

test("certificates and keys that do not fit are found", async () => {
  const authority = new Authority();
  const [one, two] = [authority.listener("one"), authority.listener("two")];
  assert.match(await problem("--tls-cert", one.cert, "--tls-key", two.key), /tls-cert and tls-key: the certificate cannot be used with the key/);
  assert.match(await problem("--tls-cert", one.key, "--tls-key", one.key), /tls-cert: .*one.key has no certificate/);
  assert.match(await problem("--server-ca", "/nowhere"), /server-ca: cannot read \/nowhere/);
  const { code, stderr } = await run(["check", "--tls-cert", one.cert, "--tls-key", one.key, "--tls-client-ca", authority.ca]);
  assert.equal(code, 0, stderr);
});

test("a dev that cannot start for another reason does not blame the port", async () => {
  const { code, stderr } = await run(["dev", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--presence-catalog", "no.v1"]);
  assert.equal(code, 1);
  assert.match(stderr, /presence-catalog "no.v1" is not loaded/);
  assert.doesNotMatch(stderr, /port is taken/);
});

test("changes that break clients of older catalogs are listed, and others are not", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "fanfare-check-"));
  const old = path.join(folder, "old");
  cpSync(CATALOGS, old, { recursive: true });
  const against = async (changes) => {
    const now = path.join(folder, "now");
    rmSync(now, { recursive: true, force: true });
    cpSync(CATALOGS, now, { recursive: true });
    const file = path.join(now, "orders/v1/orders.proto");
    let text = readFileSync(file, "utf8");
    for (const [from, to] of changes) {
      assert.ok(text.includes(from), from);
      text = text.replace(from, to);
    }
    writeFileSync(file, text);
    const { code, stdout, stderr } = await run(["check", "--catalog", now, "--against", old]);
    return { code, lines: stdout.trim().split("\n"), stderr };
  };
  assert.deepStrictEqual(await against([]), { code: 0, lines: ["no change breaks clients of the old catalogs"], stderr: "" });
  for (const [changes, lines] of CHANGES) {
    const found = await against(changes);
    assert.deepStrictEqual(found.lines, lines, found.stderr);
    assert.equal(found.code, lines[0].startsWith("no change") ? 0 : 1);
  }
  rmSync(folder, { recursive: true });
});

test("a server serves the examples that are named, and needs a catalog", async () => {
  const env = { FANFARE_BUILTIN: undefined };
  const args = ["--grpc-listen", "127.0.0.1:0", "--jwt-secret", SECRET];
  for (const command of [["server", ...args], ["check"], ["dev", "--builtin", "none", "--http-listen", "127.0.0.1:0", ...args]]) {
    const { code, stderr } = await run(command, { env });
    assert.equal(code, 1);
    assert.match(stderr, /no catalog is loaded: give --catalog FILE\|FOLDER, or an example by --builtin NAME \(chat, dialogs, messenger, todo, all\)/);
  }
  const { stdout } = await run(["check", "--builtin", "todo,chat"], { env });
  assert.match(stdout, /2 catalogs/);
  assert.match((await run(["check", "--builtin", "tod"], { env })).stderr, /possible values: chat, dialogs, messenger, todo, all, none/);
  assert.ok((await run(["types"], { env })).stdout.includes('"message:new"'), "tools know all examples");
});
