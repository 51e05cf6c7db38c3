// Engine.IO protocol 4 over HTTP: handshake, long polling and close. Written from the specification of the protocol. See also
// upgrade.test.js, heartbeat.test.js and websocket.test.js.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import WebSocket from "ws";
import { connect } from "./lib/clients.js";
import { acknowledged, ask, number, PATH, Poller, polling, SEPARATOR, subscribe, upgrade } from "./lib/engine.js";
import { get, QUIET, start, until, within } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, user } from "./lib/tokens.js";
import { TEXT, Wire } from "./lib/wire.js";

const PAYLOAD_MAX = 20_000;
let fanfare, url, python;

before(async () => {
  generateStubs();
  // No ping is due while a test runs.
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

const notify = (tenant, id) =>
  python.call(producer(tenant), "messenger.v1.Messenger/NotifyNewMessage", { event: { id: String(id), chatId: "7", content: "x", channel: "CHANNEL_WABA" } });
/** Waits until the session is closed: its id is unknown. */
const over = (poller, ms) =>
  until(async () => {
    const { status, code } = await poller.post("3");
    return status === 400 && code === 1;
  }, "the session to be over", ms);

function assertRefused(answer, status, code) {
  assert.deepStrictEqual([answer.status, answer.code], [status, code], answer.text);
  assert.equal(typeof JSON.parse(answer.text).message, "string");
}

/** Runs `act` while a GET is waiting. A client cannot see whether the bridge holds its GET, so this retries with new sessions. */
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
  assert.ok(sid.length >= 16, "a short sid can be guessed");
  assert.deepStrictEqual(rest, { upgrades: ["websocket"], pingInterval: 120_000, pingTimeout: 60_000, maxPayload: PAYLOAD_MAX });
});

test("a WebSocket handshake is answered with the same fields, without upgrades", async () => {
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
  ["with transport=constructor", "?EIO=4&transport=constructor", 0],
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
  // The next response is intact: no body followed the head.
  assert.equal((await wire.ask("GET", "/healthz")).body, "ok\n");
  wire.destroy();
});

for (const method of ["PUT", "DELETE", "PATCH"]) {
  test(`${method} on a session is refused, and the session stays open`, async () => {
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

test("every response has CORS headers, refusals too", async () => {
  const headers = { origin: "https://app.example.com" };
  for (const address of [polling(url), polling(url, "nonsense"), `${url}${PATH}?EIO=4&transport=x`]) {
    assert.equal((await ask(address, { headers })).headers.get("access-control-allow-origin"), headers.origin);
  }
  const evil = await ask(polling(url), { headers: { origin: "https://evil.example.com" } });
  assertRefused(evil, 403, 4);
});

test("the path works without the last slash, over both transports", async () => {
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

test("query parameters may have any order, and unknown ones are ignored", async () => {
  const poller = await Poller.open(url);
  const { status } = await ask(`${url}${PATH}?t=abc&sid=${poller.sid}&transport=polling&b64=1&EIO=4`, { method: "POST", body: "40{}" });
  assert.equal(status, 200);
});

test("the packets of one payload are handled in order, and waiting packets share one response", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "several"));
  const { status, text, headers } = await poller.post(...[1, 2, 3, 4].map((id) => subscribe(id, id)));
  assert.deepStrictEqual([status, text], [200, "ok"]);
  assert.match(headers.get("content-type"), /^text\/(plain|html)/);
  const got = await poller.until((packet) => packet.startsWith("434"));
  assert.deepStrictEqual(got.filter((packet) => packet.startsWith("43")), [1, 2, 3, 4].map((id) => acknowledged(id, id)));
  // A GET is answered at once with all packets that are waiting.
  for (const id of [1, 2, 3]) await notify("several", id);
  const socket = await connect(url, user(2, "several"));
  await notify("several", 4);
  await socket.event("message:new");
  socket.close();
  const packets = await poller.packets();
  assert.deepStrictEqual(packets.map(number).slice(0, 3), [1, 2, 3]);
});

test("the body of a POST may be chunked and slow", async () => {
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

test("text outside ASCII is unchanged in both directions", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "utf8"));
  await poller.post('421["join_chat",{"chatId":"größe-👋"}]');
  await poller.until((packet) => packet === '431[{"chatId":"größe-👋"}]');
});

/** Bodies that are not a payload. Each one closes its session. */
const GARBAGE = {
  "an unknown packet type": "9",
  "letters": "abc",
  "nothing": "",
  "an empty packet between two": `3${SEPARATOR}${SEPARATOR}3`,
  "invalid base64": "b!!!",
  "bytes that are not UTF-8": Buffer.from([0x34, 0x32, 0xff, 0xfe]),
};

for (const [what, body] of Object.entries(GARBAGE)) {
  test(`a POST of ${what} is refused and closes the session`, async () => {
    const poller = await Poller.open(url);
    await poller.connect(user(1, "garbage"));
    const { status } = await poller.post(body);
    assert.equal(status, 400);
    await over(poller);
  });
}

for (const chunked of [false, true]) {
  test(`a payload over maxPayload is refused with 413 and closes the session${chunked ? ", also when it is chunked" : ""}`, async () => {
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

test("no response is larger than maxPayload", async () => {
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

test("two GETs at once close the session: the first one gets a close packet, the second one is refused", async () => {
  const poller = await Poller.open(url);
  const answers = await Promise.all([poller.get(), poller.get()]);
  answers.sort((a, b) => a.status - b.status);
  assert.deepStrictEqual(answers.map(({ status }) => status), [200, 400]);
  assert.equal(answers[0].text, "1");
  await over(poller);
});

test("two POSTs at once close the session: the second one is refused", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "overlap"));
  const wire = await Wire.open(url);
  const body = subscribe(1);
  wire.request("POST", `${PATH}?EIO=4&transport=polling&sid=${poller.sid}`, { headers: { "content-length": body.length } });
  wire.send(body.slice(0, 5));
  // Refused as soon as the bridge has seen the first one.
  await until(async () => (await poller.post("3")).status === 400, "the second POST to be refused");
  await over(poller);
  wire.destroy();
});

test("a GET and a POST at once are allowed", async () => {
  const poller = await Poller.open(url);
  await poller.connect(user(1, "duplex"));
  for (let id = 1; id <= 10; id++) {
    const waiting = poller.until((packet) => packet === acknowledged(id));
    assert.equal((await poller.post(subscribe(id))).status, 200);
    await waiting;
  }
});

test("a close packet closes the session, and the waiting GET gets a noop", () =>
  whileWaiting(async (poller, waiting) => {
    const { status } = await poller.post("1");
    assert.equal(status, 200);
    const answer = await waiting;
    await over(poller);
    // The bridge saw the POST before the GET.
    if (answer.status === 400) return false;
    assert.deepStrictEqual([answer.status, answer.text], [200, "6"]);
    return true;
  }));

test("packets after a close packet are not handled", async () => {
  const [watcher, poller] = [await connect(url, user(2, "behind")), await Poller.open(url)];
  await poller.connect(user(1, "behind"));
  await poller.post("1", '42["send_message",{"chatId":"x","content":"too late"}]');
  await over(poller);
  await notify("behind", 1);
  await watcher.event("message:new");
  assert.deepStrictEqual(watcher.events.map(([name]) => name).filter((name) => name === "new_message"), []);
  watcher.close();
});

test("a cancelled polling GET closes the session", async () => {
  const count = async () => Number((await python.call(producer("cancelled"), "fanfare.v1.Realtime/GetPresence", {})).sessionCount ?? 0);
  const cancel = async () => {
    const poller = await Poller.open(url);
    await poller.connect(user(1, "cancelled"));
    const wire = await Wire.open(url);
    // Sent together: when the first one is answered, the second one is usually being served.
    const path = `${PATH}?EIO=4&transport=polling&sid=${poller.sid}`;
    wire.request("POST", path, { body: "6" });
    wire.request("GET", path);
    assert.equal((await wire.response()).body, "ok");
    wire.destroy();
    return over(poller, 2_000).then(() => true, () => poller.post("1").then(() => false));
  };
  // A connection that ends before its GET is read has cancelled nothing: this retries with new sessions.
  let cancelled = false;
  for (let tries = 0; tries < 20 && !cancelled; tries++) cancelled = await cancel();
  assert.ok(cancelled);
  await until(async () => (await count()) === 0, "the sessions to be gone");
});

test("a connection is kept alive until a request asks to close it", async () => {
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

test("pipelined requests are answered in order", async () => {
  const wire = await Wire.open(url);
  wire.request("GET", `${PATH}?EIO=4&transport=polling`);
  wire.request("GET", "/healthz");
  wire.request("GET", `${PATH}?EIO=3&transport=polling`);
  assert.deepStrictEqual([(await wire.response()).body[0], (await wire.response()).body, (await wire.response()).status], ["0", "ok\n", 400]);
  wire.destroy();
});

test("a draining bridge opens no session and closes the connection", async () => {
  const { bridge, server } = await start({ serverArgs: QUIET });
  // Half a request on each connection, so that none is idle when the bridge drains.
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
    // No response at all is allowed too: the client connects to another bridge.
    const answer = await wire.response().catch(() => null);
    if (answer) assert.deepStrictEqual([answer.status, answer.headers.connection?.toLowerCase()], [503, "close"]);
    await within(wire.ended, "the connection to end");
  }
  await within(bridge.ended, "the bridge to end");
  bridge.assertHealthy();
  await server.stop();
});

test("a WebSocket request with an invalid key or another version is refused", async () => {
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
