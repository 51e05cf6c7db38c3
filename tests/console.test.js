// The console in a browser, against real processes: what a person sees and does there.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { transform } from "esbuild";
import { call, connect, disconnected } from "./lib/clients.js";
import { Browser, DEVELOPMENT_SECRET, NARROW, reach, shows, startDev } from "./lib/console.js";
import { BINARY, DEADLINE, Process, run, startBridge, startServer, until, within } from "./lib/fanfare.js";
import { generateStubs, PYTHON, STUBS } from "./lib/producer.js";
import { producer, soon, token, user } from "./lib/tokens.js";

const VIEWS = ["Overview", "Sessions", "Events", "Catalogs", "Playground"];
const message = (id, content, more = {}) =>
  JSON.stringify({ id, chatId: 7, content, fromMe: true, channel: "whatsapp", timestamp: "2026-01-31T12:00:00Z", ...more });

/** Tokens as `fanfare dev` takes them. */
const developer = (claims) => token({ exp: soon(), ...claims }, { secret: DEVELOPMENT_SECRET });
const publisher = (tenant) => developer({ sub: "producer", tenant, scopes: ["notify"] });

let dev, browser;
const clients = [];

before(async () => {
  [dev, browser] = await Promise.all([startDev(), Browser.start()]);
});

after(async () => {
  clients.forEach((client) => client.close());
  await browser?.stop();
  await dev?.stop();
});

/** Publishes with the command line tool. */
async function notify(tenant, type, payload, ...more) {
  const { code, stderr } = await run(["notify", type, payload, "--server", dev.grpc, "--token", publisher(tenant), "--tenant", tenant, ...more]);
  assert.equal(code, 0, stderr);
}

/** The input of a field in a form. */
const field = (scope, name) => scope.getByRole("textbox", { name: new RegExp(`^${name}\\b`) });
const choice = (scope, name) => scope.getByRole("combobox", { name: new RegExp(`^${name}\\b`) });

/** A stock client, as a page elsewhere has one. */
async function join(tenant, userId, name, rooms = []) {
  const client = await connect(dev.url, developer({ userId, organizationId: tenant, name }), { reconnection: true });
  clients.push(client);
  for (const chatId of rooms) await call(client, "subscribe:chat", { chatId });
  return client;
}

test("before anything has happened the overview says what to try, and leads to the playground", async () => {
  const page = await browser.open(dev.url);
  await shows(page.getByRole("heading"), "Nothing has happened yet");
  await shows(page.locator("code"), `fanfare notify messenger.v1.NewMessage --server ${dev.grpc}`);
  await shows(page.locator("header"), "log in memory");
  await browser.picture(page, "first");
  // The command that is shown is one that works: nothing less is copied.
  await page.getByRole("button", { name: "Copy command that publishes" }).click();
  const copied = async () => (await page.evaluate(() => navigator.clipboard.readText())).match(/'([^']+)'/);
  const [, json] = await until(copied, "the copied command");
  await notify("1", "messenger.v1.NewMessage", json);
  await page.getByRole("heading", { name: "Nothing has happened yet" }).waitFor({ state: "hidden" });
  await page.getByRole("link", { name: "Playground", exact: true }).click();
  await shows(page.getByRole("heading"), "Playground");
  await page.context().close();
});

test("an event composed in the form arrives in the embedded clients, with its latency", async () => {
  const page = await browser.open(dev.url, "playground");
  const one = page.locator('[data-client="Client 1"]');
  await one.getByRole("button", { name: "Connect", exact: true }).click();
  await shows(one, "connected");
  await page.getByRole("button", { name: "Add a client" }).click();
  const two = page.locator('[data-client="Client 2"]');
  await two.getByRole("button", { name: "Connect", exact: true }).click();
  await two.locator('[data-heard="user:online"]').first().waitFor();
  await field(page, "content").fill("Composed by hand");
  await page.getByRole("button", { name: "Add senderName" }).click();
  await field(page, "senderName").fill("Grace");
  await choice(page, "channel").selectOption("telegram");
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await shows(page.locator("[data-outcome]"), /Accepted in .* ms, in the log as number \d+/);
  for (const client of [one, two]) {
    const arrived = client.locator('[data-heard="message:new"]');
    await shows(arrived, '"content": "Composed by hand"');
    await shows(arrived, '"senderName": "Grace"');
    await shows(arrived, '"channel": "telegram"');
    await shows(arrived.locator(".latency"), /\d ms/);
  }
  await browser.picture(page, "playground");

  // Calls, composed by the same form, with their acknowledgement; what is refused is said.
  await one.getByText("Emit a call").click();
  await choice(one, "Call").selectOption({ label: "subscribe:chat" });
  await field(one, "chatId").fill("seven");
  await one.getByRole("button", { name: "Emit", exact: true }).click();
  await shows(one.locator('[data-problem="chatId"]'), "It must be a whole number");
  await field(one, "chatId").fill("31");
  await one.getByRole("button", { name: "Emit", exact: true }).click();
  await shows(one.locator('[data-heard="subscribe:chat"]'), /"chatId": ?31/);
  await choice(page, "Event").selectOption({ label: "typing:start" });
  await field(page, "chatId").first().fill("31");
  await shows(page.locator(".goes"), "chat:31");
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await shows(one.locator('[data-heard="typing:start"]'), /"chatId": ?31/);
  await shows(page.locator("[data-outcome]"), "handed to those present");
  assert.equal(await two.locator('[data-heard="typing:start"]').count(), 0, "who is not in the chat hears nothing");
  await page.context().close();
});

test("what is wrong with an event stands at its field, whoever finds it", async () => {
  const page = await browser.open(dev.url, "playground?event=messenger.v1.NewMessage");
  const send = page.getByRole("button", { name: "Send", exact: true });
  await field(page, "chatId").fill("9007199254740993");
  await send.click();
  await shows(page.locator('[data-problem="chatId"]'), "from -9007199254740991 to 9007199254740991");
  assert.equal(await field(page, "chatId").getAttribute("aria-invalid"), "true");
  await field(page, "timestamp").fill("tomorrow");
  await send.click();
  await shows(page.locator('[data-problem="timestamp"]'), "Give a time such as");
  await page.getByRole("button", { name: "Set timestamp to now" }).click();
  await field(page, "chatId").fill("7");

  // As JSON, both ways.
  await page.getByRole("tab", { name: "JSON" }).click();
  const json = page.getByLabel("JSON of NewMessage");
  await json.fill(JSON.stringify({ id: 1, chatId: 7, content: "As JSON", channel: "sms", size: 3 }));
  await send.click();
  await shows(page.locator('[data-problem="channel"]'), 'channel: "sms" is no Channel: give one of CHANNEL_UNSPECIFIED, whatsapp, waba, telegram');
  await shows(page.locator('[data-problem="size"]'), "NewMessage has no field “size”");
  await json.fill('{ "id": 1,');
  await shows(page.getByRole("alert"), "It is not used until it is right");
  await json.fill(JSON.stringify({ id: 1, chatId: 7, content: "As JSON", channel: "waba" }));
  await page.getByRole("tab", { name: "Form" }).click();
  assert.equal(await field(page, "content").inputValue(), "As JSON");
  await send.click();
  await shows(page.locator("[data-outcome]"), "Accepted");

  // The server's refusal names the field.
  await choice(page, "Event").selectOption({ label: "user:notification" });
  await field(page, "userId").fill("");
  await send.click();
  await shows(page.locator("[data-outcome]"), "Refused:");
  await page.locator('[data-problem="userId"]').waitFor();
  await browser.picture(page, "refused");
  await page.context().close();
});

test("the form makes fields of every shape, and JSON is the same again", async () => {
  const own = await startDev(["--catalog", new URL("catalogs-console", import.meta.url).pathname]);
  const page = await browser.open(own.url, "playground?event=shapes.v1.Everything");
  const client = page.locator('[data-client="Client 1"]');
  const send = page.getByRole("button", { name: "Send", exact: true });
  const press = (name) => page.getByRole("button", { name, exact: true }).click();
  await client.getByRole("button", { name: "Connect", exact: true }).click();
  await shows(client, "connected");
  await field(page, "ref").first().fill("white space");
  await field(page, "big").fill("18446744073709551616");
  await field(page, "seal").fill("not base64");
  await field(page, "share").fill("a half");
  await send.click();
  for (const [at, why] of [["big", "from 0 to 18446744073709551615"], ["seal", "base64"], ["share", "a number"]]) await shows(page.locator(`[data-problem="${at}"]`), why);
  await field(page, "big").fill("18446744073709551615");
  await field(page, "seal").fill("aGk=");
  await field(page, "share").fill("0.5");
  await send.click();
  await shows(page.locator("[data-outcome]"), "Refused:");
  await field(page, "ref").first().fill("b1");

  await press("Remove box.labels[0]");
  await press("Add to others");
  await press("Remove others[1]");
  await page.getByLabel("Key 1 of counts").fill("apples");
  await page.getByLabel("Value of apples").fill("3");
  await press("Add to counts");
  await page.getByLabel("Key 2 of counts").fill("apples");
  await send.click();
  await shows(page.locator('[data-problem="counts.apples"]').first(), "twice");
  await page.getByLabel("Key 2 of counts").fill("pears");
  await page.getByLabel("Key 1 of places").fill("-1");
  await send.click();
  await shows(page.locator('[data-problem="places.-1"]'), "The key must be from 0 to 4294967295.");
  await page.getByLabel("Key 1 of places").fill("4");
  await field(page, "safe").fill("9007199254740991");
  await page.getByRole("checkbox", { name: /^urgent/ }).check();
  await choice(page, "size").first().selectOption("SIZE_LARGE");
  await press("Add note");
  await field(page, "note").fill("fragile");
  await field(page, "takes").fill("1.5s");
  await field(page, "more").fill('{"a":');
  await send.click();
  await shows(page.locator('[data-problem="more"]'), "Give a JSON object.");
  await field(page, "more").fill('{"a": [1, null]}');
  await choice(page, "receiver").selectOption("deliveredTo");
  await field(page, "ref").nth(3).fill("b9");
  await send.click();
  await shows(page.locator("[data-outcome]"), "Accepted");
  const arrived = await client.getByRole("region", { name: "payload of everything" }).textContent();
  const { at, ...rest } = JSON.parse(arrived);
  assert.ok(Date.parse(at));
  assert.deepStrictEqual(rest, {
    box: { ref: "b1", labels: [] }, others: [{ ref: "text", labels: ["text"] }], counts: { apples: 3, pears: 0 }, places: { 4: { ref: "text", labels: ["text"] } },
    big: "18446744073709551615", safe: 9007199254740991, share: 0.5, urgent: true, seal: "aGk=", size: "SIZE_LARGE", note: "fragile", takes: "1.500s",
    more: { a: [1, null] }, deliveredTo: { ref: "b9", labels: [] }, sizes: ["small"],
  });
  // There and back again: what arrived, given as JSON, makes the same form.
  await page.getByRole("tab", { name: "JSON" }).click();
  await page.getByLabel("JSON of Everything").fill(arrived);
  await page.getByRole("tab", { name: "Form" }).click();
  assert.equal(await page.getByLabel("Value of apples").inputValue(), "3");
  await press("Clear");
  await send.click();
  await shows(client.locator('[data-heard="everything"]'), "fragile");
  assert.equal(await client.getByRole("region", { name: "payload of everything" }).textContent(), arrived);
  await browser.picture(page, "form");
  await page.context().close();
  await own.stop();
});

test("the overview moves under load", async () => {
  await join("load", 1, "Lin");
  await join("load", 2, "Max");
  const page = await browser.open(dev.url);
  const plot = (title) => page.getByRole("img", { name: new RegExp(`^${title}:`) });
  const label = (title) => plot(title).getAttribute("aria-label");
  await until(async () => Number(await plot("Events a second").getAttribute("data-points")) > 1, "points");
  const before = await plot("Events a second").locator("path.line-0").getAttribute("d");
  const producing = new Process(["notify", "messenger.v1.NewMessage", "-", "--server", dev.grpc, "--token", publisher("load"), "--tenant", "load"]);
  let [id, moved] = [0, false];
  const lines = setInterval(() => producing.child.stdin.write(Array.from({ length: 20 }, () => `${message(++id, "load")}\n`).join("")), 50);
  await until(async () => /stored now (?!0,)/.test(await label("Events a second")), "events in the plot");
  await until(async () => /deliveries now (?!0,)/.test(await label("Deliveries a second")), "deliveries in the plot");
  await until(async () => /p99 now \d/.test(await label("Append latency")), "latencies of appends in the plot");
  await until(async () => /p99 now \d/.test(await label("Delivery latency")), "latencies of deliveries in the plot");
  await until(async () => /connected now [2-9]/.test(await label("Sessions")), "sessions in the plot");
  await page.getByRole("img", { name: /^From producers to the server: [1-9]/ }).waitFor();
  await page.getByRole("img", { name: /^From bridge to its sessions: [1-9]/ }).waitFor();
  moved = (await plot("Events a second").locator("path.line-0").getAttribute("d")) !== before;
  assert.ok(moved);
  await until(async () => Number(await plot("Events a second").getAttribute("data-points")) > 12, "a while");
  await browser.picture(page, "overview");
  clearInterval(lines);
  producing.child.stdin.end();
  await producing.ended;
  await until(async () => /stored now 0,/.test(await label("Events a second")), "the end of the load in the plot");
  await page.context().close();
});

test("a session is found by search, inspected and disconnected", async () => {
  const tenant = "acme";
  const [grace, alan] = await Promise.all([join(tenant, 99, "Grace Hopper", [7, 8]), join(tenant, 98, "Alan Turing", [7]), join(tenant, 97, "Ada Lovelace")]);
  const page = await browser.open(dev.url, `sessions?tenant=${tenant}`);
  const rows = page.locator("[data-sessions] tbody tr");
  await until(async () => (await rows.count()) === 3, "three sessions");
  await page.getByLabel("Room", { exact: true }).fill("chat:7");
  await until(async () => (await rows.count()) === 2, "those in the room");
  await page.getByLabel("Search").fill("Hopp");
  await until(async () => (await rows.count()) === 1, "the one that is searched");
  await page.getByRole("button", { name: "Session of Grace Hopper" }).click();
  const detail = page.locator("[data-detail]");
  await shows(detail, grace.id);
  await shows(detail, "Socket.IO");
  for (const room of ["org", "user:99", "chat:7", "chat:8"]) await shows(detail.locator(".chips"), room);
  await shows(detail, '"organizationId": "acme"');
  const delivered = async () => Number((await detail.locator("dt:text-is('Delivered') + dd").textContent()).match(/\d+/)[0]);
  const first = await delivered();
  await notify(tenant, "messenger.v1.NewMessage", message(1, "to be counted"));
  await until(async () => (await delivered()) > first, "the delivery, without a reload");
  const fact = (name) => detail.locator(`dt:text-is('${name}') + dd`);
  await shows(fact("Address"), "127.0.0.1");
  await shows(fact("Transport"), "Socket.IO over WebSocket");
  await browser.picture(page, "session");

  const ended = disconnected(grace);
  await page.getByRole("button", { name: "Disconnect…" }).click();
  await browser.picture(page, "disconnect");
  await page.getByLabel("Message for the client").fill("Time to go home");
  await page.getByRole("button", { name: "Disconnect the session" }).click();
  assert.equal(await ended, "io server disconnect");
  await grace.event("error", (error) => error.message === "Time to go home");
  await shows(detail.or(page.locator(".detail")), "not connected any more");
  await until(async () => (await rows.count()) === 0, "the session to be gone");

  // A user, with the wish to come back.
  await page.getByRole("button", { name: "Clear the filters" }).click();
  await page.getByRole("button", { name: "Session of Alan Turing" }).click();
  await shows(detail, "98");
  await page.getByRole("button", { name: "Disconnect…" }).click();
  await page.getByLabel(/All sessions of user/).check();
  await page.getByLabel(/Connect again/).check();
  const back = new Promise((resolve) => alan.once("connect", resolve));
  await page.getByRole("button", { name: "Disconnect the user" }).click();
  await back;
  await page.context().close();
});

test("rooms are listed with who is in them, and lead to their sessions and their tail", async () => {
  const tenant = "rooms";
  await join(tenant, 1, "One", [7]);
  await join(tenant, 1, "One", [7, 9]);
  await join(tenant, 2, "Two", [7]);
  const page = await browser.open(dev.url, `sessions?tenant=${tenant}&tab=rooms`);
  const row = page.locator("[data-rooms] tr", { has: page.locator("text=chat:7") });
  await until(async () => (await row.locator("td.num").allTextContents()).join() === "2,3", "two users, three sessions");
  await browser.picture(page, "rooms");
  const names = () => page.locator("[data-rooms] tbody tr td:first-child").allTextContents();
  const head = (name) => page.locator("[data-rooms] thead").getByRole("button", { name });
  await head("Sessions").click();
  await until(async () => (await names()).at(-1) === "org" || (await names()).at(-1) === "chat:7", "the largest room at the end");
  await head("Sessions").click();
  await until(async () => ["org", "chat:7"].includes((await names())[0]), "the largest room first");
  await shows(page.locator('[data-rooms] th[aria-sort="descending"]'), "Sessions");
  await head("Room").click();
  await until(async () => (await names())[0] === "chat:7", "the order of names");
  await page.getByLabel("Search").fill("chat:9");
  await until(async () => (await page.locator("[data-rooms] tbody tr").count()) === 1, "the room that is searched");
  await page.getByRole("link", { name: "Sessions", exact: true }).last().click();
  await until(async () => (await page.locator("[data-sessions] tbody tr").count()) === 1, "its one session");
  await page.goBack();
  await page.locator("[data-rooms]").getByRole("link", { name: "Events" }).first().click();
  await shows(page.getByRole("heading"), "Events");
  assert.equal(await page.getByLabel("Rooms").inputValue(), "chat:9");
  await page.context().close();
});

test("the tail shows what its filters let through, stands still when paused, and explains an event", async () => {
  const page = await browser.open(dev.url, "events");
  const rows = page.locator("[data-tail] tbody tr");
  const opened = () => page.waitForResponse((response) => response.url().endsWith("/Tail"));
  await shows(page.locator(".empty"), "Waiting for events");
  // The tail begins when it is opened: events are sent until the first one is seen.
  await until(async () => {
    await notify("tail", "messenger.v1.NewMessage", message(1, "first"));
    return (await rows.count()) > 0;
  }, "the first event");
  let reopened = opened();
  await page.getByLabel("Names").fill("chat:deleted");
  await reopened;
  await shows(page.locator(".empty"), "Waiting for events");
  await notify("tail", "messenger.v1.NewMessage", message(2, "filtered out"));
  await notify("tail", "messenger.v1.ChatDeleted", '{"chatId":7}');
  await shows(rows, "chat:deleted");
  assert.equal(await rows.count(), 1);
  reopened = opened();
  await page.getByLabel("Names").fill("");
  await reopened;
  reopened = opened();
  await page.getByLabel("Rooms").fill("chat:8 user:5");
  await reopened;
  await shows(page.locator(".empty"), "Waiting for events");
  await notify("tail", "messenger.v1.NewMessage", message(3, "another room"));
  await notify("tail", "messenger.v1.NewMessage", message(4, "in the room", { chatId: 8 }));
  await shows(rows, "in the room");
  assert.equal(await rows.count(), 1);
  reopened = opened();
  await page.getByLabel("Rooms").fill("");
  await reopened;
  reopened = opened();
  await page.getByLabel("Tenant").selectOption("tail");
  await reopened;
  await shows(page.locator(".empty"), "Waiting for events");
  await notify("other", "messenger.v1.NewMessage", message(5, "another tenant"));
  await notify("tail", "messenger.v1.NewMessage", message(6, "of the tenant"));
  await shows(rows, "of the tenant");
  assert.equal(await rows.count(), 1);

  await page.getByRole("button", { name: "Pause" }).click();
  await notify("tail", "messenger.v1.NewMessage", message(7, "while paused"));
  await page.getByRole("button", { name: "Resume (1 new)" }).waitFor();
  assert.equal(await rows.count(), 1);
  await page.getByRole("button", { name: /Resume/ }).click();
  await shows(rows, "while paused");

  await rows.filter({ hasText: "while paused" }).getByRole("button").click();
  const detail = page.locator("[data-detail]");
  await shows(detail, '"content": "while paused"');
  await shows(detail, /[0-9a-f]{12}-\d+/);
  await shows(detail.locator('[data-field="content"]'), "The text; empty for media without a caption.");
  await browser.picture(page, "events");

  // Bounded, whatever comes.
  const many = Array.from({ length: 700 }, (_, i) => message(100 + i, `number ${i}`)).join("\n");
  const { code, stderr } = await run(["notify", "messenger.v1.NewMessage", "-", "--server", dev.grpc, "--token", publisher("tail"), "--tenant", "tail"], { input: many });
  assert.equal(code, 0, stderr);
  await shows(rows, "number 699");
  assert.equal(await rows.count(), 500);

  // A page that does not read for a while is told how many it has missed.
  const large = Array.from({ length: 3000 }, (_, i) => message(1000 + i, "x".repeat(8000))).join("\n");
  const debug = await page.context().newCDPSession(page);
  await debug.send("Debugger.enable");
  const paused = new Promise((resolve) => debug.once("Debugger.paused", resolve));
  await debug.send("Debugger.pause");
  // Something to stop at.
  const stopped = page.evaluate(() => 0);
  await within(paused, "the page to stand still");
  const sent = await run(["notify", "messenger.v1.NewMessage", "-", "--server", dev.grpc, "--token", publisher("tail"), "--tenant", "tail"], { input: large });
  assert.equal(sent.code, 0, sent.stderr);
  await debug.send("Debugger.resume");
  await stopped;
  await shows(page.locator(".foot"), /[1-9][\d,]* missed/);
  // The row that says so stands where they are missing, as long as it is among the last.
  const last = await page.locator("[data-tail] .missed").count();
  if (last > 0) await shows(page.locator("[data-tail] .missed"), /[1-9][\d,]* events? missed/);
  await page.context().close();
});

test("stored events are read from the newest to the oldest, and explained", async () => {
  const tenant = "stored";
  const producing = new Process(["notify", "messenger.v1.NewMessage", "-", "--server", dev.grpc, "--token", publisher(tenant), "--tenant", tenant]);
  producing.child.stdin.end(Array.from({ length: 60 }, (_, n) => `${message(n + 1, `number ${n + 1}`)}\n`).join(""));
  await producing.ended;
  const page = await browser.open(dev.url, `events?tab=stored&tenant=${tenant}`);
  const rows = page.locator("[data-stored] tbody tr");
  await until(async () => (await rows.count()) === 50, "the newest events");
  await shows(rows.first(), "number 60");
  await page.getByRole("button", { name: "Older" }).click();
  await until(async () => (await rows.count()) === 60, "all events");
  await shows(rows.last(), "number 1");
  assert.equal(await page.getByRole("button", { name: "Older" }).count(), 0, "there are no older ones");
  await rows.last().click();
  await shows(page.locator("[data-detail]"), "1 in the tenant's log");
  await browser.picture(page, "stored");
  await page.getByLabel("Names").fill("chat:deleted");
  await shows(page.locator(".empty"), "No stored event");
  await page.context().close();
});

test("an hour of plots outlives a reload, and refusals are listed with their reasons", async () => {
  const page = await browser.open(dev.url);
  const points = async () => Number(await page.getByRole("img", { name: /^Events a second:/ }).getAttribute("data-points"));
  await page.getByRole("tab", { name: "1 h" }).click();
  await until(async () => (await points()) > 2, "whole buckets");
  await page.reload();
  await page.getByRole("tab", { name: "1 h" }).click();
  await until(async () => (await points()) > 1, "the points from before the reload", 5000);
  await assert.rejects(notify("refused", "messenger.v1.NewMessage", '{"id":"no number"}'));
  const caller = await join("refused", 1, "One");
  caller.emit("subscribe:chat", { chatId: "no number" }, () => {});
  const refusals = page.getByRole("region", { name: "Refusals" });
  await shows(refusals, "invalid_argument");
  await shows(page.getByRole("region", { name: "Most frequent events" }), "message:new");
  await page.context().close();
});

test("catalogs can be browsed down to a field's comment, and give code with its names", async () => {
  const page = await browser.open(dev.url, "catalogs");
  const tree = page.getByRole("navigation", { name: "Catalogs" });
  for (const name of ["chat.v1", "dialogs.v1", "messenger.v1", "todo.v1"]) await tree.getByRole("link", { name }).waitFor();
  await tree.getByRole("link", { name: "messenger.v1" }).click();
  await shows(page.locator(".comment"), "messenger: an omnichannel help desk.");
  await browser.picture(page, "catalog");
  await tree.getByRole("link", { name: "message:new" }).click();
  const field = page.locator('[data-field="chatId"]');
  await shows(field, "The chat it belongs to, whose room gets it.");
  await shows(field, "number");
  await shows(page.locator('[data-field="channel"]'), '"whatsapp" | "waba" | "telegram"');
  await shows(page.locator(".values"), "WhatsApp Business API.");
  const code = page.getByRole("region", { name: /code$/ });
  for (const [language, part] of [
    ["Python", "pb.NotifyNewMessageRequest(event=event)"],
    ["Go", "ChatId: 7,"],
    ["Node", "chatId: 7n,"],
    ["Rust", "channel: Channel::Whatsapp as i32"],
    ["Shell", "messenger.v1.Messenger/NotifyNewMessage"],
  ]) {
    await page.getByRole("tab", { name: language }).click();
    await shows(code, part);
  }
  await shows(page.getByRole("region", { name: "listener" }), 'socket.on("message:new"');
  const declared = page.getByRole("region", { name: "TypeScript", exact: true });
  assert.match(await declared.textContent(), /^\/\*\* A message came in or went out\.[^]*export interface NewMessage \{[^]*chatId: number;[^]*\n\}$/);
  await page.getByRole("tab", { name: "JSON Schema" }).click();
  await shows(page.getByRole("region", { name: "JSON Schema" }), '"chatId"');
  await browser.picture(page, "event");
  await tree.getByLabel("Search").fill("typing");
  await tree.getByRole("link", { name: "typing:start" }).last().click();
  await shows(page.locator(".effects"), "messenger.v1.TypingStart except to the caller");
  await shows(page.locator('[data-field="chatId"]').first(), "The chat's number within the organization.");
  await browser.picture(page, "call");
  await page.context().close();
});

test("the code to paste publishes every event", async () => {
  generateStubs();
  const page = await browser.open(dev.url, "catalogs");
  const tree = page.getByRole("navigation", { name: "Catalogs" });
  const events = [];
  for (const name of ["chat.v1", "dialogs.v1", "messenger.v1", "todo.v1"]) {
    await tree.getByRole("link", { name }).click();
    await page.getByRole("heading", { name, exact: true }).waitFor();
    events.push(...(await tree.locator('a[href*="item=event"]').evaluateAll((links) => links.map((link) => link.hash))));
  }
  assert.equal(new Set(events).size, 36);
  const code = async (event, language) => {
    await page.goto(`${dev.url}/${event}&code=${language}`);
    const region = page.getByRole("region", { name: /code$/ });
    await page.getByRole("tab", { name: language, selected: true }).waitFor();
    return region.textContent();
  };
  const snippets = { Python: [], Node: [], Shell: [] };
  for (const event of events) for (const language of Object.keys(snippets)) snippets[language].push(await code(event, language.toLowerCase()));
  await page.context().close();

  // Python runs as it stands; so does the first command for the shell, where it is one of its kind. What Node would run is at least TypeScript.
  const program = "import json, os, sys\nfor code in json.load(sys.stdin): exec(code, {'TOKEN': os.environ['TOKEN']})";
  const env = { ...process.env, PYTHONPATH: STUBS, TOKEN: publisher("1") };
  const printed = execFileSync(PYTHON, ["-c", program], { input: JSON.stringify(snippets.Python), env, timeout: 4 * DEADLINE, encoding: "utf8" });
  assert.equal(printed.trim().split("\n").length, events.length, printed);
  const commands = snippets.Shell.map((text) => text.split("\n\n")[0]).filter((text) => / --room |NewMessage /.test(text));
  assert.ok(commands.length > 5);
  const answers = execFileSync("bash", ["-euc", `fanfare() { "${BINARY}" "$@"; }\n${commands.join("\n")}`], { timeout: 4 * DEADLINE, encoding: "utf8" });
  assert.equal(answers.trim().split("\n").length, commands.length, answers);
  for (const text of snippets.Node) await transform(text.replaceAll("token", '"token"'), { loader: "ts" });
});

test("every view and its main actions are reached by keyboard alone", async () => {
  const page = await browser.open(dev.url);
  await shows(page.getByRole("heading"), "Overview");
  await reach(page, ["Skip to the content", "Fanfare, overview", ...VIEWS, "Colours: "]);
  const go = async (view) => {
    await page.locator("body").press("Escape");
    await page.evaluate(() => document.querySelector(".brand").focus());
    await reach(page, [view]);
    await page.keyboard.press("Enter");
    await shows(page.getByRole("heading", { level: 1 }), view);
    assert.equal(await page.evaluate(() => document.activeElement.textContent), view, "one goes on at the title");
  };
  await go("Sessions");
  await reach(page, ["Tenant", "Sessions", "Search", "Room"]);
  await go("Events");
  await reach(page, ["Pause", "Clear", "Tenant", "Rooms", "Names"]);
  await go("Catalogs");
  await reach(page, ["Search", "chat.v1"]);
  await go("Playground");
  await reach(page, ["Event", "Form", "id", "content", "Send", "Connect", "Emit a call", "Add a client"]);
  await page.evaluate(() => document.activeElement.blur());
  await page.getByRole("button", { name: "Connect", exact: true }).focus();
  await page.keyboard.press("Enter");
  await shows(page.locator('[data-client="Client 1"]'), "connected");
  await page.getByRole("tab", { name: "Form" }).focus();
  await page.keyboard.press("ArrowRight");
  await page.getByLabel("JSON of NewMessage").waitFor();
  await page.context().close();
});

test("a list's details are opened and left by keyboard, and one is back where one was", async () => {
  await join("keys", 5, "Kay");
  const page = await browser.open(dev.url, "sessions?tenant=keys");
  const row = page.getByRole("button", { name: "Session of Kay" });
  await row.focus();
  await page.keyboard.press("Enter");
  await shows(page.locator("[data-detail]"), "Kay");
  await reach(page, ["Close the details", "claims", "Disconnect…"]);
  await page.keyboard.press("Enter");
  await page.getByRole("dialog", { name: "Disconnect" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Disconnect…");
  await page.keyboard.press("Escape");
  await page.locator("[data-detail]").waitFor({ state: "detached" });
  assert.equal(await row.evaluate((element) => element === document.activeElement), true);
  await page.context().close();
});

test("in development the token is changed before it ends", async () => {
  const page = await browser.open(dev.url);
  await shows(page.getByRole("heading"), "Overview");
  await page.clock.install();
  await page.reload();
  await shows(page.getByRole("heading"), "Overview");
  const used = new Set();
  page.on("request", (request) => used.add(request.headers().authorization));
  const asked = page.waitForResponse((response) => response.url().endsWith("/console/config.json"));
  await page.clock.fastForward("14:30");
  const { token: fresh } = await (await asked).json();
  await until(() => used.has(`Bearer ${fresh}`), "the fresh token to be used");
  await page.context().close();
});

test("colours can be chosen and stay chosen", async () => {
  const page = await browser.open(dev.url, "overview", { viewport: NARROW });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  const button = page.getByRole("button", { name: /^Colours/ });
  await button.click();
  await button.click();
  assert.equal(await button.getAttribute("aria-label"), "Colours: Dark. Change to Auto");
  const dark = await ground();
  assert.notEqual(dark, light);
  await page.reload();
  await shows(page.getByRole("heading"), "Overview");
  assert.equal(await ground(), dark);
  await page.context().close();
});

const admin = (more = {}) => token({ sub: "operator", tenant: "*", scopes: ["admin"], exp: soon(), ...more });

test("outside development one signs in with a token, and is told what is wrong with it", async () => {
  const server = await startServer();
  const bridge = await startBridge(server);
  const page = await browser.open(bridge.url, "sessions");
  const signIn = async (text) => {
    await page.getByLabel("Admin token").fill(text);
    await page.getByRole("button", { name: "Sign in" }).click();
  };
  const wrong = page.getByRole("alert");
  await signIn("");
  await shows(wrong, "Paste a token first.");
  await signIn("nonsense");
  await shows(wrong, "Authentication failed: Invalid token");
  await signIn(token({ sub: "operator", tenant: "*", scopes: ["admin"], exp: soon() }, { secret: "another-secret-0123456789-0123456789" }));
  await shows(wrong, "Authentication failed: Invalid token");
  await signIn(admin({ exp: soon(-3600) }));
  await shows(wrong, "This token expired 1 h 0 min ago.");
  await signIn(producer());
  await shows(wrong, "This token may not see the console");
  await browser.picture(page, "sign-in");
  await signIn(admin());
  await shows(page.getByRole("heading"), "Sessions");
  await page.reload();
  await shows(page.getByRole("heading"), "Sessions");

  // Without a development key the playground takes tokens that others made.
  await page.getByRole("link", { name: "Playground", exact: true }).click();
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await shows(page.locator("[data-outcome]"), "Paste a producer's token first.");
  await page.getByLabel("Token of a producer").fill(producer("1"));
  await page.getByLabel("Token of a user").fill(user(42, 1));
  await page.getByRole("button", { name: "Connect", exact: true }).click();
  const client = page.locator('[data-client="Client 1"]');
  await shows(client, "connected");
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await client.locator('[data-heard="message:new"]').waitFor();

  await page.getByRole("button", { name: "Sign out" }).click();
  await shows(page.getByRole("heading"), "Sign in to Fanfare");
  // A token of one tenant sees that one.
  await signIn(admin({ tenant: "1" }));
  await page.getByRole("link", { name: "Overview", exact: true }).click();
  await shows(page.locator(".note"), "need a token for all tenants");
  await page.getByRole("link", { name: "Sessions", exact: true }).first().click();
  assert.equal(await page.getByLabel("Tenant").inputValue(), "1");
  await page.getByRole("button", { name: "Sign out" }).click();
  // A token that ends while one looks.
  await signIn(admin({ exp: soon(3) }));
  await shows(wrong, "Token expired");
  await page.context().close();
  await bridge.stop();
  await server.stop();
});

test("a server that goes away is told of, and comes back by itself", async () => {
  let server = await startServer();
  const bridge = await startBridge(server);
  const page = await browser.open(bridge.url, "overview", { expected: /Failed to load resource|net::ERR/ });
  await page.getByLabel("Admin token").fill(admin());
  await page.getByRole("button", { name: "Sign in" }).click();
  const up = page.locator('[data-contact="up"]');
  await up.waitFor();
  await until(async () => (await page.locator("[data-flow]").count()) > 0, "the figures");
  // A box a bridge, told apart although they have one name.
  const another = await startBridge(server);
  const boxes = page.getByRole("img", { name: /^From the server to bridge [^ ]+:/ });
  await until(async () => (await boxes.count()) === 2, "the second bridge");
  await browser.picture(page, "bridges");
  await another.stop();
  await until(async () => (await page.getByRole("img", { name: /^From the server to bridge:/ }).count()) === 1, "the second bridge to be gone");
  const { address } = server;
  await server.stop();
  await shows(page.getByRole("alert"), "The server does not answer");
  await browser.picture(page, "away");
  server = await startServer([], address);
  await up.waitFor();
  await page.getByText("The server does not answer").first().waitFor({ state: "hidden" });
  const points = page.getByRole("img", { name: /^Events a second/ });
  const before = Number(await points.getAttribute("data-points"));
  await until(async () => Number(await points.getAttribute("data-points")) > before, "the plots to go on");
  await page.context().close();
  await bridge.stop();
  await server.stop();
});

test("nothing was loaded from elsewhere, and the browser had nothing to complain about", () => assert.deepStrictEqual(browser.problems, []));
