// WhatsApp by QR code, with a fake of the library's interface: pairing, sessions on disk, reconnecting, messages both ways. What the
// library itself does with WhatsApp is not tested.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import path from "node:path";
import { createInterface } from "node:readline";
import { dataDir, freePort, startChannels } from "./lib/channels.js";
import { call, connect } from "./lib/clients.js";
import { QUIET, ROOT, start, until } from "./lib/fanfare.js";
import { producer, user } from "./lib/tokens.js";

const JID = "4915112345678@s.whatsapp.net";
let grpc, fanfare, phone, service, operator, folder;

/** Plays the phone and WhatsApp. */
class Phone {
  told = [];

  static async start() {
    const phone = new Phone();
    phone.server = createServer((socket) => {
      phone.socket = socket.on("error", () => {});
      createInterface({ input: socket }).on("line", (line) => phone.told.push(JSON.parse(line)));
    }).listen(0, "127.0.0.1");
    await once(phone.server, "listening");
    phone.address = `127.0.0.1:${phone.server.address().port}`;
    return phone;
  }

  emit(event, payload) {
    this.socket.write(`${JSON.stringify({ event, payload })}\n`);
  }

  answer(id, error) {
    this.socket.write(`${JSON.stringify({ answer: id, error })}\n`);
  }

  opened(count) {
    return until(() => this.told.filter((t) => t.opened).length >= count && this.told.filter((t) => t.opened).at(-1), `connection ${count}`);
  }

  sent(text, count = 1) {
    return until(() => this.told.filter((t) => t.sent?.content.text === text)[count - 1]?.sent, `${text} to be sent`);
  }

  message(id, text, more = {}) {
    this.emit("messages.upsert", { type: "notify", messages: [{ key: { remoteJid: JID, id, fromMe: false, ...more }, message: { conversation: text }, messageTimestamp: 1_770_000_000, pushName: "Grace" }] });
  }
}

async function startService() {
  const args = ["--server", fanfare.server.url, "--tenant", "5", "--data-dir", folder, "--baileys-operators", "7", "--baileys-rate", "100", "--baileys-module", path.join(ROOT, "tests/lib/fake_baileys.js")];
  service = await startChannels(args, { TOKEN: producer("5") }, { ports: { grpc }, env: { FAKE_WHATSAPP: phone.address } });
}

before(async () => {
  grpc = await freePort();
  fanfare = await start({ serverArgs: [...QUIET, "--upstream", `channels=http://127.0.0.1:${grpc}`] });
  phone = await Phone.start();
  folder = dataDir();
  operator = await connect(fanfare.bridge.url, user(7, "5", { username: "Ada" }));
  await startService();
});

after(async () => {
  operator?.close();
  await service?.stop();
  phone?.socket?.destroy();
  phone?.server.close();
  await fanfare?.stop();
});

const of = (name) => operator.events.filter(([event]) => event === name).map(([, payload]) => payload);
const statuses = (id) => of("message:status").filter((s) => s.messageId === id).map((s) => s.status);

test("the operator gets the QR code, and the session is stored: a restart needs no pairing", async () => {
  assert.equal((await phone.opened(1)).paired, false);
  phone.emit("connection.update", { qr: "2@a-code" });
  const [, notice] = await operator.event("user:notification");
  assert.deepStrictEqual([notice.type, notice.data], ["whatsapp:qr", { qr: "2@a-code", account: "baileys" }]);
  phone.emit("creds.update", {});
  await until(() => phone.told.some((t) => t.saved), "the session to be stored");
  // After a pairing the library ends the connection, to be opened again at once.
  phone.emit("connection.update", { connection: "close", lastDisconnect: { error: { message: "restart required", output: { statusCode: 515 } } } });
  assert.equal((await phone.opened(2)).paired, true);
  phone.emit("connection.update", { connection: "open" });
  await service.ready();
  await service.kill();
  await startService();
  assert.equal((await phone.opened(3)).paired, true);
  phone.emit("connection.update", { connection: "open" });
  await service.ready();
});

test("messages, edits and duplicates of a customer, and what is written on the phone", async () => {
  phone.message("A1", "Hello");
  phone.message("A1", "Hello");
  phone.message("B1", "Written on the phone", { fromMe: true });
  phone.emit("messages.upsert", { type: "notify", messages: [
    { key: { remoteJid: JID, id: "A2" }, message: { protocolMessage: { key: { id: "A1" }, editedMessage: { conversation: "Hello!" }, timestampMs: "1770000001000" } }, messageTimestamp: 1_770_000_001 },
    { key: { remoteJid: "status@broadcast", id: "A3" }, message: { conversation: "a story" } },
    { key: { remoteJid: JID, id: "A4" }, message: { ephemeralMessage: { message: { imageMessage: { mimetype: "image/png", caption: "Look" } } } }, messageTimestamp: 1_770_000_002, pushName: "Grace" },
  ] });
  await until(() => of("message:new").length === 3 && of("message:edited").length === 1, "the events");
  assert.deepStrictEqual(of("message:new").map((m) => [m.content, m.fromMe, m.channel]), [
    ["Hello", false, "whatsapp"], ["Written on the phone", true, "whatsapp"], ["Look", false, "whatsapp"],
  ]);
  assert.deepStrictEqual(of("chat:new").map((chat) => [chat.name, chat.externalId]), [["Grace", JID]]);
  assert.deepStrictEqual([of("message:edited")[0].messageId, of("message:edited")[0].content], [of("message:new")[0].id, "Hello!"]);
});

test("an operator answers, also across a lost connection and a kill: the same id to WhatsApp, statuses in order", async () => {
  const chatId = of("chat:new")[0].id;
  const send = (text, clientMessageId) => call(operator, "message:send", { chatId, text, clientMessageId });
  const first = await send("Good morning", "a");
  const { jid, id } = await phone.sent("Good morning");
  assert.equal(jid, JID);
  phone.answer(id);
  await until(() => statuses(first.messageId).at(-1) === "sent", "the message to be sent");
  // The library also gives it back as a message of our own.
  phone.message(id, "Good morning", { fromMe: true });
  for (const status of [4, 3, 2]) phone.emit("messages.update", [{ key: { remoteJid: JID, id, fromMe: true }, update: { status } }]);
  await until(() => statuses(first.messageId).at(-1) === "read", "the reading");

  phone.emit("connection.update", { connection: "close", lastDisconnect: { error: { message: "connection lost", output: { statusCode: 408 } } } });
  const opened = phone.told.filter((t) => t.opened).length;
  const second = await send("While we are away", "b");
  await phone.opened(opened + 1).then(() => phone.emit("connection.update", { connection: "open" }));
  const before = await phone.sent("While we are away");
  // Killed before WhatsApp answers.
  await service.kill();
  await startService();
  await phone.opened(opened + 2).then(() => phone.emit("connection.update", { connection: "open" }));
  const again = await phone.sent("While we are away", 2);
  assert.equal(again.id, before.id);
  phone.answer(again.id);
  await until(() => statuses(second.messageId).at(-1) === "sent", "the message to be sent");
  assert.deepStrictEqual(statuses(first.messageId), ["pending", "sent", "read"]);
  assert.deepStrictEqual(statuses(second.messageId), ["pending", "sent"]);
  assert.equal(of("message:new").filter((m) => m.content === "Good morning").length, 1);
  assert.equal((await call(operator, "message:send", { chatId, text: "", clientMessageId: "c", media: { url: "https://x.example/y.png", type: "image/png" } })).error.code, "invalid_argument");
});

test("a phone that ends the pairing is reported, and nothing is tried any more", async () => {
  const opened = phone.told.filter((t) => t.opened).length;
  phone.emit("connection.update", { connection: "close", lastDisconnect: { error: { message: "logged out", output: { statusCode: 401 } } } });
  await operator.event("user:notification", (notice) => notice.type === "whatsapp:logged_out");
  service.provoked = /WhatsApp ended the pairing/;
  assert.equal(phone.told.filter((t) => t.opened).length, opened);
});
