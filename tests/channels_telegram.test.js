// Telegram: a simulator of the Bot API on one side, operators on the other, and faults in between.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { copyFileSync } from "node:fs";
import path from "node:path";
import { Authority } from "./lib/certificates.js";
import { dataDir, freePort, startChannels } from "./lib/channels.js";
import { call, connect } from "./lib/clients.js";
import { QUIET, start, startServer, until, get } from "./lib/fanfare.js";
import { TelegramApi } from "./lib/telegram_api.js";
import { producer, user } from "./lib/tokens.js";

const SECRET = "a-secret-of-the-webhook-0123";
let port, fanfare;

before(async () => {
  port = await freePort();
  fanfare = await start({ serverArgs: [...QUIET, "--upstream", `channels=http://127.0.0.1:${port}`] });
});

after(() => fanfare?.stop());

/** A tenant of the test's own with a bot, the service, and an operator who sees everything. */
async function desk(tenant, { args = [], env = {}, grpc = 0 } = {}) {
  const api = await TelegramApi.start();
  const folder = dataDir();
  const all = ["--server", fanfare.server.url, "--tenant", tenant, "--data-dir", folder, "--telegram-api", api.url, "--telegram-rate", "1000", "--telegram-timeout", "2s", ...args];
  const secrets = { TOKEN: producer(tenant), TELEGRAM_TOKEN: api.token, ...env };
  const operator = await connect(fanfare.bridge.url, user(7, tenant, { username: "Ada" }));
  const found = {
    api, folder, operator,
    start: async (more = [], over = {}) => {
      found.service = await startChannels([...all, ...more], { ...secrets, ...over }, { ports: { grpc } });
      return found.service;
    },
    of: (name) => operator.events.filter(([event]) => event === name).map(([, payload]) => payload),
    messages: () => found.of("message:new"),
    close: async () => {
      operator.close();
      await found.service.stop();
      api.stop();
    },
  };
  await found.start();
  return found;
}

/** Each of `texts` is in the log once, and those of a chat in the order in which they were written. */
function assertExact(messages, texts) {
  assert.deepStrictEqual(messages.map((m) => m.content).sort(), [...texts].sort());
  const chats = Map.groupBy ? Map.groupBy(messages, (m) => m.chatId) : groupBy(messages);
  for (const list of chats.values()) {
    const numbers = list.map((m) => Number(m.content.split(" ")[1]));
    assert.deepStrictEqual(numbers, [...numbers].sort((a, b) => a - b));
  }
}

function groupBy(messages) {
  const chats = new Map();
  for (const m of messages) chats.set(m.chatId, [...(chats.get(m.chatId) ?? []), m]);
  return chats;
}

test("what a customer writes and changes becomes events, and nothing tells the token", async () => {
  const { api, close, of, messages, service } = await desk("reads");
  api.push(
    api.message(5, 1, { text: "Hello" }),
    api.message(5, 2, { photo: [{ file_id: "small" }, { file_id: "large" }], caption: "Look" }),
    api.message(5, 3, { new_chat_title: "a service message" }),
    api.message(-100, 1, { chat: { id: -100, type: "group", title: "Friends" }, document: { file_id: "doc", mime_type: "application/pdf" } }),
    api.edit(5, 1, { text: "Hello!" }),
    { update_id: 5_000, poll: {} },
  );
  await until(() => of("message:edited").length === 1 && messages().length === 3, "the events");
  const [first, second] = messages().filter((m) => m.chatId === of("chat:new").find((chat) => chat.name === "Customer 5").id);
  assert.deepStrictEqual({ ...first, id: 0, chatId: 0 }, {
    id: 0, chatId: 0, content: "Hello", fromMe: false, timestamp: new Date(1_770_000_001_000).toISOString(), channel: "telegram", senderName: "Customer 5",
  });
  assert.deepStrictEqual([second.content, second.mediaUrl, second.mediaType], ["Look", "telegram:large", "image/jpeg"]);
  assert.deepStrictEqual(of("chat:new").map(({ name, channel, status, externalId }) => [name, channel, status, externalId]).sort(), [
    ["Customer 5", "telegram", "new", "5"], ["Friends", "telegram", "new", "-100"],
  ]);
  const [edited] = of("message:edited");
  assert.deepStrictEqual([edited.messageId, edited.chatId, edited.content], [first.id, first.chatId, "Hello!"]);
  await until(() => api.confirmed === 5_001, "the last update to be confirmed");
  await service.ready();
  assert.equal(await service.metric('fanfare_channels_received_total{account="telegram",kind="message",outcome="published"}'), 3);
  assert.equal(await service.metric('fanfare_channels_received_total{account="telegram",kind="service_message",outcome="ignored"}'), 1);
  api.token = "another";
  api.push(); // Ends the poll that waits.
  await until(async () => (await get(`${service.metricsUrl}/readyz`)).status === 503, "a refused token to make it unready");
  await close();
  assert.ok(!service.text().includes("a-token-of-the-tests"), service.text());
});

test("kill -9 between receipt and acknowledgement, again and again: nothing is lost, nothing is doubled", async () => {
  const it = await desk("kills");
  const texts = [];
  for (let round = 0; round < 4; round++) {
    const updates = Array.from({ length: 80 }, (_, at) => {
      const number = round * 80 + at;
      texts.push(`message ${number}`);
      return it.api.message(10 + (number % 7), number, { text: `message ${number}` });
    });
    // Telegram gives some of them twice, under other update ids.
    it.api.push(...updates, ...updates.slice(0, 5).map((update) => ({ ...update, update_id: update.update_id + 10_000 * (round + 1) })));
    const before = it.messages().length;
    if (round < 3) {
      await until(() => it.messages().length > before + 8, "some of the messages to be published");
      await it.service.kill();
      await it.start();
    }
  }
  await until(() => it.messages().length >= texts.length && it.api.updates.length === 0, "all messages");
  assertExact(it.messages(), texts);
  await it.close();
});

test("what was published but not recorded is found in the log, though its idempotency key is forgotten", async () => {
  const it = await desk("reading-back");
  it.api.push(it.api.message(1, 1, { text: "message 1" }));
  await until(() => it.api.updates.length === 0 && it.messages().length === 1, "the first message to be recorded");
  await it.service.stop();
  const file = path.join(it.folder, "telegram.jsonl");
  copyFileSync(file, `${file}.before`);
  const lost = [2, 3, 4].map((id) => it.api.message(1, id, { text: `message ${id}` }));
  const edit = it.api.edit(1, 2, { text: "message 2!" });
  await it.start();
  it.api.push(...lost, edit);
  await until(() => it.api.updates.length === 0 && it.of("message:edited").length === 1, "the others");
  await it.service.kill();
  // As if the process had died before it recorded them. Keys are those of a producer, and this is another one.
  copyFileSync(`${file}.before`, file);
  it.api.push(...lost, edit, it.api.message(1, 5, { text: "message 5" }));
  await it.start(["--read-back-after", "1ms"], { TOKEN: producer("reading-back", { sub: "another" }) });
  await until(() => it.api.updates.length === 0 && it.messages().length >= 5, "the last message");
  assertExact(it.messages(), [1, 2, 3, 4, 5].map((id) => `message ${id}`));
  assert.equal(it.of("message:edited").length, 1);
  assert.equal(it.of("chat:new").length, 1);
  await it.close();
});

test("an operator answers: limits, failures, lost answers and kill -9 in between, statuses in order", async () => {
  const it = await desk("answers", { grpc: port });
  const { api, operator } = it;
  api.push(api.message(5, 1, { text: "Hello" }), api.message(666, 1, { text: "I will block you" }));
  await until(() => it.messages().length === 2, "the chats");
  const [chatId, blocked] = ["5", "666"].map((id) => it.of("chat:new").find((chat) => chat.externalId === id).id);
  const statuses = (id) => it.of("message:status").filter((s) => s.messageId === id).map((s) => s.status);
  const send = (request) => call(operator, "message:send", { chatId, ...request });

  const first = await send({ text: "Good morning", clientMessageId: "a" });
  assert.deepStrictEqual({ ...first, messageId: 0 }, { chatId, messageId: 0, clientMessageId: "a", duplicate: false });
  const again = await send({ text: "Good morning", clientMessageId: "a" });
  assert.deepStrictEqual([again.messageId, again.duplicate], [first.messageId, true]);
  await until(() => statuses(first.messageId).at(-1) === "sent", "the message to be sent");
  const own = it.messages().filter((m) => m.fromMe);
  assert.deepStrictEqual(own.map(({ id, content, senderUserId, senderName }) => [id, content, senderUserId, senderName]), [[first.messageId, "Good morning", 7, "Ada"]]);

  api.fail("sendMessage", { status: 429, description: "Too Many Requests: retry after 1", retryAfter: 1 }, { status: 502 }, { hangs: true }, { cut: "before" });
  const began = Date.now();
  const slow = await send({ text: "After the limit", clientMessageId: "b" });
  const photo = await send({ text: "A plan", clientMessageId: "c", media: { url: "https://example.com/plan.png", type: "image/png" } });
  await until(() => statuses(photo.messageId).at(-1) === "sent", "the second to be sent");
  assert.deepStrictEqual(api.sent.map(({ method, text, photo, caption }) => [method, text ?? photo, caption]), [
    ["sendMessage", "Good morning", undefined], ["sendMessage", "After the limit", undefined], ["sendPhoto", "https://example.com/plan.png", "A plan"],
  ]);
  const tries = api.calls.filter(({ method, at }) => method === "sendMessage" && at >= began);
  assert.ok(tries[1].at - tries[0].at >= 1_000, "the limit of Telegram is respected");

  const failed = await send({ chatId: blocked, text: "Are you there?", clientMessageId: "d" });
  await until(() => statuses(failed.messageId).at(-1) === "failed", "the message to fail");
  assert.match(it.of("message:status").find((s) => s.status === "failed").error, /400 Bad Request: chat not found/);

  // While Telegram is away ten messages are accepted; the service is killed twice.
  api.fail("sendMessage", ...Array(1000).fill({ status: 500 }));
  const many = Array.from({ length: 10 }, (_, at) => send({ text: `Line ${at}`, clientMessageId: `line-${at}` }));
  const ids = (await Promise.all(many)).map(({ messageId }) => messageId);
  for (let kills = 0; kills < 2; kills++) {
    const tried = api.calls.filter(({ method }) => method === "sendMessage").length;
    await until(() => api.calls.filter(({ method }) => method === "sendMessage").length > tried, "a try to send");
    await it.service.kill();
    await it.start();
  }
  api.faults.sendMessage = [];
  await until(() => ids.every((id) => statuses(id).at(-1) === "sent"), "all to be sent");
  for (const id of [...ids, slow.messageId]) assert.deepStrictEqual(statuses(id), ["pending", "sent"]);
  const lines = it.messages().filter((m) => m.content.startsWith("Line"));
  assert.deepStrictEqual(lines.map((m) => m.id).sort(), [...ids].sort());
  // A customer may get a message twice whose answer was lost with the process, but none out of order.
  const got = [...new Set(api.sent.filter((m) => m.text?.startsWith("Line")).map((m) => m.text))];
  assert.deepStrictEqual(got, lines.map((m) => m.content));
  await it.service.ready();

  const refused = async (request) => (await send(request)).error;
  for (const [request, code, text] of [
    [{ text: "x", clientMessageId: "" }, "invalid_argument", /clientMessageId/],
    [{ text: " ", clientMessageId: "e" }, "invalid_argument", /text: is empty/],
    [{ text: "x".repeat(4097), clientMessageId: "e" }, "invalid_argument", /at most 4096/],
    [{ text: "x", clientMessageId: "e", media: { url: "file:///etc/passwd", type: "image/png" } }, "invalid_argument", /media\.url/],
    [{ clientMessageId: "e", template: { name: "hello", language: "en" } }, "invalid_argument", /template/],
    [{ chatId: 12345, text: "x", clientMessageId: "e" }, "not_found", /no channel has the chat 12345/],
  ]) {
    const error = await refused(request);
    assert.equal(error?.code, code, JSON.stringify(error));
    assert.match(error.message, text);
  }
  const stranger = await connect(fanfare.bridge.url, user(9, "another-tenant"));
  assert.equal((await call(stranger, "message:send", { chatId, text: "x", clientMessageId: "e" })).error.code, "not_found");
  const restricted = await connect(fanfare.bridge.url, user(8, "answers", { rooms: ["chat:1"] }));
  assert.equal((await call(restricted, "message:send", { chatId, text: "x", clientMessageId: "e" })).error.code, "forbidden");
  stranger.close();
  restricted.close();
  await it.close();
});

test("a webhook: its secret, its bounds, duplicates, and Fanfare away", async () => {
  const http = await freePort();
  const listen = ["--http-listen", `127.0.0.1:${http}`];
  const it = await desk("hooks", {
    args: [...listen, "--telegram-mode", "webhook", "--telegram-webhook-url", `http://127.0.0.1:${http}/telegram`],
    env: { TELEGRAM_WEBHOOK_SECRET: SECRET },
  });
  const { api } = it;
  await until(() => api.webhook, "the webhook to be registered");
  assert.equal(api.webhook.secret_token, SECRET);
  const update = api.message(5, 1, { text: "message 1" });
  assert.equal(await api.deliver(update, { secret: "wrong" }), 401);
  assert.equal(await api.deliver(update), 200);
  assert.equal(it.messages().length, 1, "acknowledged means published");
  const many = Array.from({ length: 20 }, (_, at) => api.message(6 + (at % 3), at + 2, { text: `message ${at + 2}` }));
  const answers = await Promise.all([update, ...many, ...many].map((one) => api.deliver(one)));
  assert.ok(answers.every((status) => status === 200), String(answers));
  const raw = (body, headers = { "x-telegram-bot-api-secret-token": SECRET }) =>
    fetch(api.webhook.url, { method: "POST", body, headers }).then((response) => response.status);
  assert.equal(await raw("{"), 400);
  assert.equal(await raw("x".repeat(2 << 20)).catch(() => 413), 413);
  assert.equal((await get(`http://127.0.0.1:${http}/metrics`)).status, 404);
  assertExact(it.messages(), [update, ...many].map((one) => one.message.text));

  // Fanfare stops in the middle: what it did not answer is not acknowledged to Telegram, who sends it again.
  await it.service.stop();
  const away = await startServer(QUIET);
  await it.start(["--server", away.url]);
  await it.service.ready();
  const operator = await startOperator(away, "hooks");
  assert.equal(await api.deliver(api.message(5, 100, { text: "message 100" })), 200);
  away.child.kill("SIGSTOP");
  const late = api.message(5, 101, { text: "message 101" });
  assert.equal(await api.deliver(late), 503);
  away.child.kill("SIGCONT");
  assert.equal(await api.deliver(late), 200);
  assert.deepStrictEqual((await operator.messages()).map((m) => m.content), ["message 100", "message 101"]);
  await operator.close();
  await it.close();
  await away.stop();
});

/** An operator by a bridge of its own on another server. */
async function startOperator(server, tenant) {
  const { startBridge } = await import("./lib/fanfare.js");
  const bridge = await startBridge(server);
  const socket = await connect(bridge.url, user(7, tenant));
  const messages = () => socket.events.filter(([name]) => name === "message:new").map(([, payload]) => payload);
  return {
    messages: () => until(() => messages().length >= 2 && messages(), "the messages"),
    close: async () => {
      socket.close();
      await bridge.stop();
    },
  };
}

test("without the service's address the call is refused and the server starts", async () => {
  const { server, bridge, stop } = await start({ serverArgs: QUIET });
  const socket = await connect(bridge.url, user(1, "5"));
  const { error } = await call(socket, "message:send", { chatId: 7, text: "x", clientMessageId: "a" });
  assert.equal(error.code, "failed_precondition");
  assert.match(error.message, /the upstream "channels" is not configured: .*--upstream channels=http/);
  assert.ok(server.url);
  socket.close();
  await stop();
});

test("the listener for Fanfare's server can ask for a certificate", async () => {
  const authority = new Authority();
  const [pair, own] = [authority.listener("channels"), authority.issue("server", ["DNS:server.example.org"])];
  const it = await desk("certificates", { args: ["--grpc-tls-cert", pair.cert, "--grpc-tls-key", pair.key, "--grpc-client-ca", authority.ca] });
  const { port: secure } = new URL(it.service.url);
  const asked = async (...certificate) => {
    const { bridge, stop } = await start({ serverArgs: [...QUIET, "--upstream", `channels=https://127.0.0.1:${secure}`, "--upstream-ca", authority.ca, ...certificate] });
    const socket = await connect(bridge.url, user(1, "certificates"));
    // Until the service has reached Fanfare it is `unavailable`.
    const { error } = await until(async () => {
      const answer = await call(socket, "message:send", { chatId: 7, text: "x", clientMessageId: "a" });
      return (!certificate.length || answer.error.code !== "unavailable") && answer;
    }, "an answer");
    socket.close();
    await stop();
    return error.code;
  };
  assert.equal(await asked("--upstream-cert", own.cert, "--upstream-key", own.key), "not_found");
  // TLS 1.3 lets the client begin before the certificate is refused: the call then breaks in the middle.
  const without = await asked();
  assert.ok(["unavailable", "timeout", "internal"].includes(without), without);
  await it.close();
});

test("wrong settings are refused with what would be right", async () => {
  const { startProgram } = await import("./lib/channels.js");
  const refused = async (args, env) => {
    const { code, stderr } = await startProgram(args, env);
    assert.equal(code, 2, stderr);
    return stderr;
  };
  const folder = ["--data-dir", dataDir()];
  assert.match(await refused(folder), /no account is configured: give --telegram-token/);
  assert.match(await refused([...folder, "--telegram-token", "t"]), /token is missing; give it or token-file/);
  assert.match(await refused([...folder, "--telegram-token", "t", "--telegram-mode", "push"], { TOKEN: "x" }), /telegram-mode must be polling or webhook/);
  assert.match(await refused([...folder, "--telegram-tokn", "t"]), /Unknown option '--telegram-tokn'; see --help/);
});
