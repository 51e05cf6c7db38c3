// WhatsApp by the Cloud API: a simulator of it on one side, operators on the other, and faults in between.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { dataDir, freePort, startChannels } from "./lib/channels.js";
import { call, connect } from "./lib/clients.js";
import { CloudApi } from "./lib/cloud_api.js";
import { QUIET, start, until } from "./lib/fanfare.js";
import { producer, user } from "./lib/tokens.js";

let ports, fanfare, api, folder, service, operator;

async function startService() {
  const args = ["--server", fanfare.server.url, "--tenant", "5", "--data-dir", folder, "--waba-api", api.url, "--waba-phone-number-id", api.phoneNumberId, "--waba-rate", "1000", "--waba-timeout", "2s"];
  const secrets = { TOKEN: producer("5"), WABA_TOKEN: api.token, WABA_APP_SECRET: api.appSecret, WABA_VERIFY_TOKEN: api.verifyToken };
  service = await startChannels(args, secrets, { ports });
  api.webhookUrl = `${await service.webhook()}/waba`;
}

before(async () => {
  ports = { grpc: await freePort(), http: await freePort() };
  fanfare = await start({ serverArgs: [...QUIET, "--upstream", `channels=http://127.0.0.1:${ports.grpc}`] });
  api = await CloudApi.start();
  folder = dataDir();
  await startService();
  operator = await connect(fanfare.bridge.url, user(7, "5", { username: "Ada" }));
  await service.ready();
});

after(async () => {
  operator?.close();
  await service?.stop();
  api?.stop();
  await fanfare?.stop();
});

const of = (name) => operator.events.filter(([event]) => event === name).map(([, payload]) => payload);
const chatOf = (from) => of("chat:new").find((chat) => chat.externalId === from).id;
const messagesOf = (from) => of("message:new").filter((m) => !m.fromMe && m.chatId === chatOf(from));
const statuses = (id) => of("message:status").filter((s) => s.messageId === id).map((s) => s.status);
const text = (body) => ({ type: "text", text: { body } });

test("the webhook is verified and its signature is checked over the bytes that came", async () => {
  const verify = async (query) => {
    const response = await fetch(`${api.webhookUrl}?${new URLSearchParams(query)}`);
    return [response.status, await response.text()];
  };
  const query = { "hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": api.verifyToken };
  assert.deepStrictEqual(await verify(query), [200, "1158201444"]);
  assert.equal((await verify({ ...query, "hub.verify_token": "wrong" }))[0], 403);
  assert.equal((await verify({ ...query, "hub.challenge": "<script>" }))[0], 400);
  const message = api.message("4915112345678", 0, text("forged"));
  assert.equal(await api.deliver(message, { secret: "wrong" }), 401);
  assert.equal((await fetch(api.webhookUrl, { method: "POST", body: JSON.stringify(message) })).status, 401);
  assert.equal(await api.deliver({ object: "x", entry: 5 }), 400);
  assert.equal(of("message:new").length, 0);
});

test("messages of every kind become events, once, and those of other numbers do not", async () => {
  const from = "4915112345678";
  const kinds = [
    text("Hello"),
    { type: "image", image: { id: "1234", mime_type: "image/png", caption: "Look" } },
    { type: "location", location: { latitude: 52.5, longitude: 13.4 } },
    { type: "interactive", interactive: { button_reply: { id: "1", title: "Yes" } } },
    { type: "reaction", reaction: { message_id: "x", emoji: "👍" } },
    { type: "order", order: {} },
  ];
  const notifications = kinds.map((kind, at) => api.message(from, at + 1, kind));
  for (const one of [...notifications, ...notifications]) assert.equal(await api.deliver(one), 200);
  const other = api.message(from, 99, text("for another number"));
  other.entry[0].changes[0].value.metadata.phone_number_id = "1";
  assert.equal(await api.deliver(other), 200);
  assert.deepStrictEqual(messagesOf(from).map((m) => m.content), ["Hello", "Look", "geo:52.5,13.4", "Yes", "👍", "[order]"]);
  const [, image] = messagesOf(from);
  assert.deepStrictEqual([image.mediaUrl, image.mediaType, image.channel, image.senderName], ["waba:1234", "image/png", "waba", `Customer ${from}`]);
  assert.equal(await service.metric('fanfare_channels_received_total{account="waba",kind="message",outcome="duplicate"}'), 6);
});

test("webhooks come twice and out of order, and the service is killed: nothing is lost, nothing is doubled", async () => {
  const customers = ["4915100000001", "4915100000002", "4915100000003"];
  for (const from of customers) await api.insist(api.message(from, 0, text("message 0")));
  const all = Array.from({ length: 150 }, (_, at) => api.message(customers[at % 3], at + 1, text(`message ${at + 1}`)));
  const delivering = Promise.all([...all, ...all.slice(0, 40)].map((one) => api.insist(one)));
  for (let kills = 0; kills < 2; kills++) {
    const before = of("message:new").length;
    await until(() => of("message:new").length > before + 10, "some of the messages to be published");
    await service.kill();
    await startService();
  }
  await delivering;
  await until(() => customers.flatMap(messagesOf).length >= 153, "all messages");
  const got = customers.flatMap(messagesOf).map((m) => m.content).sort();
  assert.deepStrictEqual(got, ["message 0", "message 0", "message 0", ...all.map((_, at) => `message ${at + 1}`)].sort());
});

test("an operator answers: limits, failures, a lost answer, statuses out of order, a template", async () => {
  const from = "4915112340000";
  await api.insist(api.message(from, 1, text("Hello")));
  await until(() => of("chat:new").some((chat) => chat.externalId === from), "the chat");
  await service.ready();
  const chatId = chatOf(from);
  const send = (request) => call(operator, "message:send", { chatId, ...request });
  const sentAs = async ({ messageId }) => until(() => api.sent.find((m) => m.biz_opaque_callback_data === String(messageId)), "the message to be sent");

  api.faults.push({ status: 400, code: 130429, message: "Rate limit hit", retryAfter: 1 }, { status: 503, code: 2 }, { hangs: true }, { cut: "before" });
  const calls = api.calls.length;
  const first = await send({ text: "Good morning", clientMessageId: "a" });
  const sent = await sentAs(first);
  assert.deepStrictEqual([sent.to, sent.type, sent.text.body], [from, "text", "Good morning"]);
  assert.ok(api.calls[calls + 1] - api.calls[calls] >= 1_000, "the limit is respected");
  await until(() => statuses(first.messageId).length === 2, "the message to be sent");
  for (const status of ["read", "delivered", "sent", "read", "failed"]) assert.equal(await api.deliver(api.status(sent, status)), 200);
  assert.deepStrictEqual(statuses(first.messageId), ["pending", "sent", "read"]);

  // The answer is lost; the status tells that the message was sent, so it is not sent again.
  api.faults.push({ cut: "after" });
  const lost = await send({ text: "Did you get this?", clientMessageId: "b" });
  const wamid = await sentAs(lost);
  await api.insist(api.status(wamid, "delivered"));
  await until(() => statuses(lost.messageId).at(-1) === "delivered", "the delivery");

  const template = await send({ clientMessageId: "c", template: { name: "order_ready", language: "en_US", parameters: ["Ada", "42"] } });
  const { template: body } = await sentAs(template);
  const parameters = [{ type: "text", text: "Ada" }, { type: "text", text: "42" }];
  assert.deepStrictEqual(body, { name: "order_ready", language: { code: "en_US" }, components: [{ type: "body", parameters }] });
  const file = await send({ text: "The plan", clientMessageId: "d", media: { url: "waba:1234", type: "application/pdf", fileName: "plan.pdf" } });
  assert.deepStrictEqual((await sentAs(file)).document, { id: "1234", filename: "plan.pdf", caption: "The plan" });
  assert.equal(api.sent.filter((m) => m.biz_opaque_callback_data === String(lost.messageId)).length, 1);

  api.faults.push({ status: 400, code: 131047, message: "Re-engagement message" });
  const late = await send({ text: "Are you still there?", clientMessageId: "e" });
  await until(() => statuses(late.messageId).at(-1) === "failed", "the message to fail");
  assert.match(of("message:status").find((s) => s.messageId === late.messageId && s.status === "failed").error, /Re-engagement message/);
  const undelivered = await send({ text: "And now?", clientMessageId: "f" });
  await api.insist(api.status(await sentAs(undelivered), "failed", [{ code: 131026, title: "Message undeliverable" }]));
  await until(() => statuses(undelivered.messageId).at(-1) === "failed", "the delivery to fail");
  assert.deepStrictEqual(await send({ text: "Listen", clientMessageId: "g", media: { url: "waba:1", type: "audio/ogg" } }).then((a) => a.error.code), "invalid_argument");
  for (const secret of [api.token, api.appSecret, api.verifyToken]) assert.ok(!service.text().includes(secret));
});
