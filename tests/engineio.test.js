// Engine.IO protocol 4 over HTTP: handshakes, long polling and closing. Written from the protocol's specification; the upgrade is
// in upgrade.test.js, the WebSocket itself in websocket.test.js, and heartbeats are in heartbeat.test.js.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import WebSocket from "ws";
import { connect } from "./lib/clients.js";
import { ask, PATH, Poller, polling, SEPARATOR } from "./lib/engine.js";
import { get, QUIET, start, until, within } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, user } from "./lib/tokens.js";
import { TEXT, Wire } from "./lib/wire.js";

const PAYLOAD_MAX = 20_000;
let fanfare, url, python;

before(async () => {
  generateStubs();
  // No heartbeat comes while a test runs.
  const bridgeArgs = [
    "--ping-interval", "120s", "--ping-timeout", "60s", "--payload-bytes-max", String(PAYLOAD_MAX),
    "--cors-origin", "https://app.example.com", "--user-calls-per-second", "2000", "--user-calls-burst", "2000",
  ];
  fanfare = await start({ serverArgs: QUIET, bridgeArgs });
  url = fanfare.bridge.url;
  python = new Producer(fanfare.server.address);
});

after(async () => {
  python?.close();
  await fanfare?.stop();
});

const upgrade = (sid) => `${PATH}?EIO=4&transport=websocket${sid ? `&sid=${sid}` : ""}`;
const subscribe = (id, chatId = 7) => `42${id}["subscribe:chat",{"chatId":${chatId}}]`;
const acknowledged = (id, chatId = 7) => `43${id}[{"chatId":${chatId}}]`;
const notify = (tenant, id) =>
  python.call(producer(tenant), "messenger.v1.Messenger/NotifyNewMessage", { event: { id: String(id), chatId: "7", content: "x", channel: "CHANNEL_WABA" } });
/** The number of a message:new packet. */
const number = (packet) => Number(/^42\["message:new",\{"id":(\d+)/.exec(packet)?.[1] ?? NaN);
/** The session is over: its id is unknown. */
const over = (poller) =>
  until(async () => {
    const { status, code } = await poller.post("3");
    return status === 400 && code === 1;
  }, "the session to be over");

function assertRefused(answer, status, code) {
  assert.deepStrictEqual([answer.status, answer.code], [status, code], answer.text);
  assert.equal(typeof JSON.parse(answer.text).message, "string");
}

/** Tries with new sessions until a GET of theirs is waiting when something else is done; nobody can see from outside whether it is. */
async function whileWaiting(act) {
  for (let tries = 0; tries < 50; tries++) {
    const poller = await Poller.open(url);
    const waiting = poller.get();
    await get(`${url}/healthz`);
    if (await act(poller, waiting)) return;
  }
  assert.fail("no GET was waiting in time");
}

test("a polling handshake is answered with one open packet whose fields have their types", async () => {
  const { status, text, headers } = await ask(polling(url));
  assert.equal(status, 200);
  assert.match(headers.get("content-type"), /^text\/plain; *charset=utf-8$/i);
  assert.equal(text[0], "0");
  const { sid, ...rest } = JSON.parse(text.slice(1));
  assert.equal(typeof sid, "string");
  assert.ok(sid.length >= 16, "a sid that can be guessed opens somebody else's session");
  assert.deepStrictEqual(rest, { upgrades: ["websocket"], pingInterval: 120_000, pingTimeout: 60_000, maxPayload: PAYLOAD_MAX });
});

test("a WebSocket handshake is answered with the same fields, and offers no upgrade", async () => {
  const wire = await Wire.open(url);
  assert.equal((await wire.upgrade(upgrade())).status, 101);
  const { opcode, payload } = await wire.next();
  assert.equal(opcode, TEXT);
  assert.equal(String(payload)[0], "0");
  const { sid, ...rest } = JSON.parse(String(payload).slice(1));
  assert.equal(typeof sid, "string");
  assert.deepStrictEqual(rest, { upgrades: [], pingInterval: 120_000, pingTimeout: 60_000, maxPayload: PAYLOAD_MAX });
  wire.destroy();
});

test("no two sessions have the same sid", async () => {
  const pollers = await Promise.all(Array.from({ length: 50 }, () => Poller.open(url)));
  assert.equal(new Set(pollers.map((poller) => poller.sid)).size, 50);
});

// [what, query, code]
const HANDSHAKES = [
  ["without a query", "", 5],
  ["without EIO", "?transport=polling", 5],
  ["with EIO=3", "?EIO=3&transport=polling", 5],
  ["with EIO=5", "?EIO=5&transport=polling", 5],
  ["with an EIO that is no number", "?EIO=abc&transport=polling", 5],
  ["with an empty EIO", "?EIO=&transport=polling", 5],
  ["without a transport", "?EIO=4", 0],
  ["with an unknown transport", "?EIO=4&transport=carrier-pigeon", 0],
  ["with an empty transport", "?EIO=4&transport=", 0],
  ["with a name that every object has as transport", "?EIO=4&transport=constructor", 0],
  ["with an unknown sid", "?EIO=4&transport=polling&sid=nonsense", 1],
  ["with an endless sid", `?EIO=4&transport=polling&sid=${"x".repeat(2000)}`, 1],
];

for (const [what, query, code] of HANDSHAKES) {
  test(`a polling request ${what} is refused with 400 and code ${code}`, async () => {
    assertRefused(await ask(url + PATH + query), 400, code);
  });
}

for (const [what, query, code] of HANDSHAKES) {
  if (/polling/.test(query) && code !== 1) continue;
  test(`a WebSocket request ${what} is refused with 400 and code ${code}`, async () => {
    const wire = await Wire.open(url);
    const answer = await wire.upgrade(PATH + query.replace("polling", "websocket"));
    assert.deepStrictEqual([answer.status, JSON.parse(answer.body).code], [400, code]);
    wire.destroy();
  });
}

for (const method of ["POST", "PUT", "DELETE", "PATCH"]) {
  test(`a handshake by ${method} is refused with 400 and code 2`, async () => {
    assertRefused(await ask(polling(url), { method }), 400, 2);
  });
}

test("a WebSocket handshake by POST is refused", async () => {
  const wire = await Wire.open(url);
  const headers = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": 13, "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==" };
  assert.equal((await wire.ask("POST", upgrade(), { headers })).status, 400);
  wire.destroy();
});

test("transport=websocket without an upgrade is refused as a bad request", async () => {
  assertRefused(await ask(url + upgrade()), 400, 3);
});

test("HEAD opens no session and has no body", async () => {
  const wire = await Wire.open(url);
  const { status, body } = await wire.ask("HEAD", `${PATH}?EIO=4&transport=polling`);
  assert.deepStrictEqual([status, body], [400, ""]);
  // The next answer on the connection is whole: nothing came behind the head.
  assert.equal((await wire.ask("GET", "/healthz")).body, "ok\n");
  wire.destroy();
});

for (const method of ["PUT", "DELETE", "PATCH"]) {
  test(`${method} on a session is refused, and the session goes on`, async () => {
    const poller = await Poller.open(url);
    assert.equal((await ask(polling(url, poller.sid), { method })).status, 400);
    await poller.connect(user(1, "methods"));
  });
}

test("a preflight of an allowed origin is answered; one of another origin allows nothing", async () => {
  const preflight = (origin) =>
    get(polling(url), { method: "OPTIONS", headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type" } });
  const allowed = await preflight("https://app.example.com");
  assert.ok([200, 204].includes(allowed.status), `status ${allowed.status}`);
  assert.equal(allowed.headers.get("access-control-allow-origin"), "https://app.example.com");
  assert.match(allowed.headers.get("access-control-allow-methods"), /GET.*POST|POST.*GET/);
  assert.match(allowed.headers.get("access-control-allow-headers"), /content-type/i);
  const other = await preflight("https://evil.example.com");
  assert.equal(other.headers.get("access-control-allow-origin"), null);
});

test("every answer says which origin may read it, refusals too", async () => {
  const headers = { origin: "https://app.example.com" };
  for (const address of [polling(url), polling(url, "nonsense"), `${url}${PATH}?EIO=4&transport=x`]) {
    assert.equal((await ask(address, { headers })).headers.get("access-control-allow-origin"), headers.origin);
  }
  const evil = await ask(polling(url), { headers: { origin: "https://evil.example.com" } });
  assertRefused(evil, 403, 4);
});

test("the path works without its last slash, over both transports", async () => {
  const { status, text } = await ask(`${url}/socket.io?EIO=4&transport=polling`);
  assert.equal(status, 200);
  const { sid } = JSON.parse(text.slice(1));
  const posted = await ask(`${url}/socket.io?EIO=4&transport=polling&sid=${sid}`, { method: "POST", body: "40{}" });
  assert.deepStrictEqual([posted.status, posted.text], [200, "ok"]);
  const wire = await Wire.open(url);
  assert.equal((await wire.upgrade("/socket.io?EIO=4&transport=websocket")).status, 101);
  wire.destroy();
  const socket = await connect(url, user(1, "slash"), { addTrailingSlash: false });
  socket.close();
});

test("query parameters may come in any order, beside others", async () => {
  const poller = await Poller.open(url);
  const { status } = await ask(`${url}${PATH}?t=abc&sid=${poller.sid}&transport=polling&b64=1&EIO=4`, { method: "POST", body: "40{}" });
  assert.equal(status, 200);
});

test("several packets of one payload are handled in their order, and answers share a payload", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "several"));
  const { status, text, headers } = await poller.post(...[1, 2, 3, 4].map((id) => subscribe(id, id)));
  assert.deepStrictEqual([status, text], [200, "ok"]);
  assert.match(headers.get("content-type"), /^text\/(plain|html)/);
  const got = await poller.until((packet) => packet.startsWith("434"));
  assert.deepStrictEqual(got.filter((packet) => packet.startsWith("43")), [1, 2, 3, 4].map((id) => acknowledged(id, id)));
  // What waits when a GET comes is sent at once, all of it, in one payload.
  for (const id of [1, 2, 3]) await notify("several", id);
  const socket = await connect(url, user(2, "several"));
  await notify("several", 4);
  await socket.event("message:new");
  socket.close();
  const packets = await poller.packets();
  assert.deepStrictEqual(packets.map(number).slice(0, 3), [1, 2, 3]);
});

test("a POST's body may come in chunks, and slowly", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "chunks"));
  const wire = await Wire.open(url);
  wire.request("POST", `${PATH}?EIO=4&transport=polling&sid=${poller.sid}`, { headers: { "transfer-encoding": "chunked" } });
  for (const byte of subscribe(1)) wire.send(`1\r\n${byte}\r\n`);
  wire.send("0\r\n\r\n");
  assert.equal((await wire.response()).status, 200);
  await poller.until((packet) => packet === acknowledged(1));
  wire.destroy();
});

test("text beyond ASCII goes both ways unharmed", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "utf8"));
  await poller.post('421["join_chat",{"chatId":"größe-👋"}]');
  await poller.until((packet) => packet === '431[{"chatId":"größe-👋"}]');
});

/** Bodies that are no payload, each a session's end. */
const GARBAGE = {
  "an unknown packet type": "9",
  "letters": "abc",
  "nothing": "",
  "an empty packet between two": `3${SEPARATOR}${SEPARATOR}3`,
  "base64 that is none": "b!!!",
  "bytes that are not UTF-8": Buffer.from([0x34, 0x32, 0xff, 0xfe]),
};

for (const [what, body] of Object.entries(GARBAGE)) {
  test(`a POST of ${what} is refused and ends the session`, async () => {
    const poller = await Poller.open(url);
    await poller.connect(user(1, "garbage"));
    const { status } = await poller.post(body);
    assert.equal(status, 400);
    await over(poller);
  });
}

for (const chunked of [false, true]) {
  test(`a payload over maxPayload is refused with 413 and ends the session${chunked ? ", also in chunks without a length" : ""}`, async () => {
    const poller = await Poller.open(url);
    await poller.connect(user(1, "large"));
    const body = `42["subscribe:chat","${"x".repeat(PAYLOAD_MAX)}"]`;
    const wire = await Wire.open(url);
    const headers = chunked ? { "transfer-encoding": "chunked" } : {};
    wire.request("POST", `${PATH}?EIO=4&transport=polling&sid=${poller.sid}`, { headers, body: chunked ? `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n` : body });
    assert.equal((await wire.response()).status, 413);
    wire.destroy();
    await over(poller);
  });
}

test("a payload of exactly maxPayload is accepted", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "exact"));
  const [head, tail] = ['421["', '"]'];
  const { status } = await poller.post(head + "x".repeat(PAYLOAD_MAX - head.length - tail.length) + tail);
  assert.equal(status, 200);
  const [answer] = (await poller.until((packet) => packet.startsWith("431"))).slice(-1);
  assert.match(answer, /1 to 256 bytes/);
});

test("no answer is larger than maxPayload as long as one packet fits", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "pages"));
  for (let id = 1; id <= 20; id++) {
    const event = { userNotification: { type: `${id}`, message: "x".repeat(5000) } };
    await python.call(producer("pages"), "messenger.v1.Messenger/BroadcastToOrganization", event);
  }
  const seen = [];
  while (seen.length < 20) {
    const { text } = await poller.get();
    assert.ok(Buffer.byteLength(text) <= PAYLOAD_MAX, `${text.length} bytes`);
    for (const packet of text.split(SEPARATOR)) {
      const type = /^42\["user:notification",\{"type":"(\d+)"/.exec(packet)?.[1];
      if (type) seen.push(Number(type));
    }
  }
  assert.deepStrictEqual(seen, Array.from({ length: 20 }, (_, i) => i + 1));
});

test("of two GETs at once the first is told that the session is closed, the second is refused, and the session is over", async () => {
  const poller = await Poller.open(url);
  const answers = await Promise.all([poller.get(), poller.get()]);
  answers.sort((a, b) => a.status - b.status);
  assert.deepStrictEqual(answers.map(({ status }) => status), [200, 400]);
  assert.equal(answers[0].text, "1");
  await over(poller);
});

test("a POST while another one is under way is refused and ends the session", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "overlap"));
  const wire = await Wire.open(url);
  const body = subscribe(1);
  wire.request("POST", `${PATH}?EIO=4&transport=polling&sid=${poller.sid}`, { headers: { "content-length": body.length } });
  wire.send(body.slice(0, 5));
  // As soon as the first one is seen the second is too much.
  await until(async () => (await poller.post("3")).status === 400, "the second POST to be refused");
  await over(poller);
  wire.destroy();
});

test("a GET and a POST at once are what polling is made of", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "duplex"));
  for (let id = 1; id <= 10; id++) {
    const waiting = poller.until((packet) => packet === acknowledged(id));
    assert.equal((await poller.post(subscribe(id))).status, 200);
    await waiting;
  }
});

test("a close packet by POST answers the waiting GET with a noop, and the session is over", () =>
  whileWaiting(async (poller, waiting) => {
    const { status } = await poller.post("1");
    assert.equal(status, 200);
    const answer = await waiting;
    await over(poller);
    // The close was faster than the GET.
    if (answer.status === 400) return false;
    assert.deepStrictEqual([answer.status, answer.text], [200, "6"]);
    return true;
  }));

test("packets behind a close packet are not handled", async () => {
  const [watcher, poller] = [await connect(url, user(2, "behind")), await Poller.open(url)];
  await poller.connect(user(1, "behind"));
  await poller.post("1", '42["send_message",{"chatId":"x","content":"too late"}]');
  await over(poller);
  await notify("behind", 1);
  await watcher.event("message:new");
  assert.deepStrictEqual(watcher.events.map(([name]) => name).filter((name) => name === "new_message"), []);
  watcher.close();
});

test("a client that cancels its polling GET has closed its session", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "cancelled"));
  const count = async () => Number((await python.call(producer("cancelled"), "fanfare.v1.Realtime/GetPresence", {})).sessionCount ?? 0);
  assert.equal(await count(), 1);
  const wire = await Wire.open(url);
  wire.request("GET", `${PATH}?EIO=4&transport=polling&sid=${poller.sid}`);
  await get(`${url}/healthz`);
  wire.destroy();
  await over(poller);
  await until(async () => (await count()) === 0, "nobody to be there");
});

test("requests follow each other on one connection until one asks to close it", async () => {
  const wire = await Wire.open(url);
  const { body } = await wire.ask("GET", `${PATH}?EIO=4&transport=polling`);
  const path = `${PATH}?EIO=4&transport=polling&sid=${JSON.parse(body.slice(1)).sid}`;
  for (let id = 0; id < 5; id++) {
    assert.equal((await wire.ask("POST", path, { body: id === 0 ? `40${JSON.stringify({ token: user(1, "kept") })}` : subscribe(id) })).body, "ok");
    const { status, headers } = await wire.ask("GET", path);
    assert.equal(status, 200);
    assert.notEqual(headers.connection, "close");
  }
  await wire.ask("GET", "/healthz", { headers: { connection: "close" } });
  await within(wire.ended, "the connection to end");
});

test("pipelined requests are answered in their order", async () => {
  const wire = await Wire.open(url);
  wire.request("GET", `${PATH}?EIO=4&transport=polling`);
  wire.request("GET", "/healthz");
  wire.request("GET", `${PATH}?EIO=3&transport=polling`);
  assert.deepStrictEqual([(await wire.response()).body[0], (await wire.response()).body, (await wire.response()).status], ["0", "ok\n", 400]);
  wire.destroy();
});

test("a bridge that drains opens no session and says that the connection closes", async () => {
  const { bridge, server } = await start({ serverArgs: QUIET });
  // Heads that have begun, so that no connection is idle when the bridge drains.
  const wires = await Promise.all([Wire.open(bridge.url), Wire.open(bridge.url)]);
  for (const wire of wires) await wire.ask("GET", "/healthz");
  const [handshake, websocket] = wires;
  handshake.send(`GET ${PATH}?EIO=4&transport=polling HTTP/1.1\r\n`);
  websocket.send(`GET ${upgrade()} HTTP/1.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n`);
  const other = await Wire.open(bridge.url);
  await other.ask("GET", "/healthz");
  bridge.child.kill("SIGTERM");
  await bridge.log("bridge drains");
  handshake.send(`host: ${handshake.host}\r\n\r\n`);
  websocket.send(`host: ${handshake.host}\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`);
  for (const wire of wires) {
    // Closed without an answer is right too: the client comes back elsewhere.
    const answer = await wire.response().catch(() => null);
    if (answer) assert.deepStrictEqual([answer.status, answer.headers.connection?.toLowerCase()], [503, "close"]);
    await within(wire.ended, "the connection to end");
  }
  await within(bridge.ended, "the bridge to end");
  bridge.assertHealthy();
  await server.stop();
});

test("a WebSocket without a right key or with another version is refused", async () => {
  const right = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": 13, "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==" };
  for (const wrong of [{ "sec-websocket-key": "" }, { "sec-websocket-key": "c2hvcnQ=" }, { "sec-websocket-version": 8 }]) {
    const wire = await Wire.open(url);
    const { status } = await wire.ask("GET", upgrade(), { headers: { ...right, ...wrong } });
    assert.ok([400, 426].includes(status), `status ${status}`);
    wire.destroy();
  }
  const socket = new WebSocket(url.replace("http", "ws") + upgrade());
  await within(new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject)), "a right one to open");
  socket.terminate();
});
