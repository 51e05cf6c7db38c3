// A real browser page that publishes and subscribes over gRPC-Web, with @connectrpc/connect-web.

import { after, afterEach, before, test } from "node:test";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { DEADLINE, ROOT, startServer, until, within } from "./lib/fanfare.js";
import { PYTHON } from "./lib/producer.js";
import { producer, soon, token, user } from "./lib/tokens.js";

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

let server, pages, context, page, problems;

/** The page, bundled with the code that protoc-gen-es makes from the protos. */
async function bundle() {
  const out = path.join(ROOT, "target/tests/web");
  mkdirSync(out, { recursive: true });
  const plugin = path.join(ROOT, "tests/node_modules/.bin/protoc-gen-es");
  const protos = ["fanfare/v1/realtime.proto", "fanfare/v1/catalog.proto", "messenger/v1/messenger.proto"];
  execFileSync(PYTHON, [
    "-m", "grpc_tools.protoc", `-I${ROOT}/proto`, `--plugin=protoc-gen-es=${plugin}`, `--es_out=${out}`, "--es_opt=target=js", ...protos,
  ], { timeout: DEADLINE });
  const result = await build({
    entryPoints: [path.join(ROOT, "tests/browser/page.js")],
    bundle: true, format: "iife", write: false, nodePaths: [path.join(ROOT, "tests/node_modules")],
  });
  return result.outputFiles[0].text;
}

before(async () => {
  const script = await bundle();
  pages = createServer((request, response) => {
    if (request.url === "/page.js") return response.setHeader("content-type", "text/javascript").end(script);
    response.setHeader("content-type", "text/html").end("<!doctype html><title>gRPC-Web</title><script src=/page.js></script>");
  });
  await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${pages.address().port}`;
  server = await startServer(["--cors-origin", origin, "--heartbeat-interval", "200ms", "--jwt-leeway", "0s"]);
  const profile = mkdtempSync(path.join(tmpdir(), "fanfare-chromium-"));
  const executablePath = process.env.FANFARE_CHROMIUM ?? "/usr/bin/chromium";
  context = await chromium.launchPersistentContext(profile, { executablePath, headless: true, args: FLAGS });
  page = await context.newPage();
  problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(origin);
});

after(async () => {
  await context?.close();
  pages?.close();
  await server?.stop();
});

/** Runs a function in the page, whose waits have no end of their own. */
const inPage = (run, args) => within(page.evaluate(run, args), "the page");
const stopAll = () => inPage(() => window.stops.splice(0).forEach((stop) => stop()));
afterEach(stopAll);

/** Opens a subscription in the page and gives a way to look at it. */
async function subscribe(service, bearer, request) {
  const open = ([s, u, t, r]) => window.subscribe(s, u, t, r);
  const handle = await within(page.evaluateHandle(open, [service, server.url, bearer, request]), "the page");
  const look = () => within(handle.jsonValue(), "the page");
  return {
    look,
    until: (matches, what) => until(async () => { const state = await look(); return matches(state) ? state : null; }, what),
  };
}
const notify = (kind, bearer, message) =>
  inPage(([k, u, t, m]) => window.notify(k, u, t, m), [kind, server.url, bearer, { chatId: 7, channel: 1, ...message }]);

test("subscribe and notify, generic and typed", async () => {
  const generic = await subscribe("Realtime", user(42, 1), { rooms: ["org"] });
  const typed = await subscribe("Messenger", user(42, 1), { rooms: ["chat:7"] });
  for (const one of [generic, typed]) await one.until((s) => s.messages.length > 0, "the first position");
  const first = await notify("typed", producer("1"), { id: 1, content: "by the typed method" });
  const second = await notify("generic", producer("1"), { id: 2, content: "by the generic one" });
  assert.equal(first.error, undefined);
  const seen = await typed.until((s) => s.messages.filter((m) => m.case === "newMessage").length === 2, "both events");
  assert.deepStrictEqual(seen.messages.filter((m) => m.content).map((m) => [m.id, m.content]), [
    [first.id, "by the typed method"],
    [second.id, "by the generic one"],
  ]);
  await generic.until((s) => s.messages.filter((m) => m.case === "event").length === 2, "both events");

  // Resume after the first: the second comes again, and only it.
  const resumed = await subscribe("Messenger", user(42, 1), { rooms: ["chat:7"], after: first.id });
  const again = await resumed.until((s) => s.messages.some((m) => m.content), "the replay");
  assert.deepStrictEqual(again.messages.filter((m) => m.content).map((m) => m.id), [second.id]);
});

test("a silent subscription hears heartbeats", async () => {
  const quiet = await subscribe("Messenger", user(42, 1), { rooms: ["chat:99"] });
  const state = await quiet.until((s) => s.messages.length >= 4, "heartbeats");
  assert.ok(state.messages.every((m) => m.case === "position" && m.id));
});

test("no token, a wrong one and an expired one are refused", async () => {
  for (const [bearer, message] of [
    ["", "Authentication failed: No token"],
    ["garbage", "Authentication failed: Invalid token"],
    [token({ userId: 1, organizationId: 1, exp: soon(-60) }), "Authentication failed: Token expired"],
  ]) {
    const refused = await subscribe("Realtime", bearer, { rooms: ["org"] });
    const { error } = await refused.until((s) => s.error, "the refusal");
    assert.deepStrictEqual(error, { code: "Unauthenticated", message });
    assert.deepStrictEqual((await notify("typed", bearer, { id: 1 })).error, { code: "Unauthenticated", message });
  }
});

test("a stream ends with its token", async () => {
  const short = await subscribe("Realtime", token({ userId: 1, organizationId: 1, exp: soon(5) }), { rooms: ["org"] });
  await short.until((s) => s.messages.length > 0, "the stream");
  const { error } = await short.until((s) => s.error, "the end");
  assert.deepStrictEqual(error, { code: "Unauthenticated", message: "Authentication failed: Token expired" });
});

test("users read what is theirs", async () => {
  const outcome = async (bearer, request) => {
    const one = await subscribe("Realtime", bearer, request);
    const state = await one.until((s) => s.error || s.messages.length > 0, "an answer");
    await stopAll();
    return state.error?.code ?? "allowed";
  };
  const restricted = user(42, 1, { rooms: ["chat:7", "chat:9"] });
  assert.equal(await outcome(user(42, 1), { rooms: ["org", "user:42", "chat:1"] }), "allowed");
  assert.equal(await outcome(user(42, 1), { rooms: ["user:43"] }), "PermissionDenied");
  assert.equal(await outcome(user(42, 1), { rooms: ["org"], tenant: "2" }), "PermissionDenied");
  assert.equal(await outcome(restricted, { rooms: ["org", "user:42", "chat:7"] }), "allowed");
  assert.equal(await outcome(restricted, { rooms: ["chat:8"] }), "PermissionDenied");
  assert.equal(await outcome(user(42, 1), { rooms: [] }), "InvalidArgument");
  assert.equal(await outcome(user(42, 1), { rooms: ["org"], after: "nonsense" }), "InvalidArgument");
  assert.equal(await outcome(user(42, 1), { rooms: ["org"], after: "0123456789ab-7" }), "OutOfRange");
  assert.equal((await notify("typed", user(42, 1), { id: 1 })).error.code, "PermissionDenied");
});

test("the page had no errors", () => assert.deepStrictEqual(problems, []));
