// Operators and customers: the help desk's page in a browser, and customers of Telegram and WhatsApp behind the service of the channels.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { dataDir, freePort, startChannels } from "./lib/channels.js";
import { CloudApi } from "./lib/cloud_api.js";
import { until } from "./lib/fanfare.js";
import { gone, Pages, shows } from "./lib/pages.js";
import { TelegramApi } from "./lib/telegram_api.js";
import { producer, user } from "./lib/tokens.js";

const TENANT = "channels";
let pages, telegram, cloud, service;

before(async () => {
  const grpc = await freePort();
  pages = await Pages.start({ serverArgs: ["--upstream", `channels=http://127.0.0.1:${grpc}`] });
  [telegram, cloud] = [await TelegramApi.start(), await CloudApi.start()];
  const args = [
    "--server", pages.fanfare.server.url, "--tenant", TENANT, "--data-dir", dataDir(), "--telegram-api", telegram.url,
    "--waba-api", cloud.url, "--waba-phone-number-id", cloud.phoneNumberId,
  ];
  const secrets = { WABA_TOKEN: cloud.token, WABA_APP_SECRET: cloud.appSecret, WABA_VERIFY_TOKEN: cloud.verifyToken };
  service = await startChannels(args, { TOKEN: producer(TENANT), TELEGRAM_TOKEN: telegram.token, ...secrets }, { ports: { grpc } });
  cloud.webhookUrl = `${await service.webhook()}/waba`;
  await service.ready();
});

after(async () => {
  await pages?.stop();
  await service?.stop();
  telegram?.stop();
  cloud?.stop();
});

const open = async (userId, username) => {
  const page = await pages.open("messenger", user(userId, TENANT, { username }));
  await shows(page.getByRole("status"), "Live");
  return page;
};
const choose = (page, name) => page.getByRole("navigation").getByRole("button", { name }).click();
const reply = async (page, text) => {
  await page.getByLabel("Reply").pressSequentially(text);
  await page.getByRole("button", { name: "Send" }).click();
  await shows(page.getByLabel("Messages"), text);
};

test("an operator answers a customer of Telegram and one of WhatsApp; both sides see messages and ticks", async () => {
  const [ada, bob] = [await open(1, "Ada"), await open(2, "Bob")];
  telegram.push(telegram.message(5, 1, { text: "Hello from Telegram", chat: { id: 5, type: "private", first_name: "Grace", last_name: "Hopper" } }));
  const phone = "4915112345678";
  const hello = cloud.message(phone, 1, { type: "text", text: { body: "Hello from WhatsApp" } });
  hello.entry[0].changes[0].value.contacts[0].profile.name = "Alan Turing";
  await cloud.insist(hello);
  for (const page of [ada, bob]) {
    await shows(page.getByRole("navigation"), "Hello from Telegram");
    await shows(page.getByRole("navigation"), "Hello from WhatsApp");
  }

  await choose(bob, /Grace Hopper/);
  await choose(ada, /Grace Hopper/);
  await ada.getByLabel("Reply").pressSequentially("Good");
  await shows(bob.locator(".typing"), "Operator 1 is typing");
  await reply(ada, " morning, Grace");
  await until(() => telegram.sent.some((m) => m.chat_id === 5 && m.text === "Good morning, Grace"), "the customer to get the answer");
  for (const page of [ada, bob]) {
    await page.getByLabel("sent", { exact: true }).waitFor();
    await shows(page.getByLabel("Messages"), "Good morning, Grace");
  }
  telegram.push(telegram.edit(5, 1, { text: "Hello from Telegram!" }));
  await shows(bob.getByLabel("Messages"), "Hello from Telegram!");

  for (const page of [ada, bob]) await choose(page, /Alan Turing/);
  await reply(ada, "Good morning, Alan");
  const sent = await until(() => cloud.sent.find((m) => m.text?.body === "Good morning, Alan"), "the customer to get the answer");
  assert.equal(sent.to, phone);
  for (const status of ["delivered", "read"]) {
    await cloud.insist(cloud.status(sent, status));
    for (const page of [ada, bob]) await page.getByLabel(status, { exact: true }).waitFor();
  }
  cloud.faults.push({ status: 400, code: 131047, message: "Re-engagement message" });
  await reply(ada, "One more thing");
  const failed = bob.getByLabel("failed", { exact: true });
  await failed.waitFor();
  assert.match(await failed.getAttribute("title"), /Re-engagement message/);
  await pages.picture(ada, "messenger-channels");
  await Promise.all([ada, bob].map((page) => page.context().close()));
});

test("a reply that nobody can send says why, and keeps the text", async () => {
  const ada = await open(1, "Ada");
  await ada.getByLabel("Open chat number").fill("7");
  await ada.keyboard.press("Enter");
  await ada.getByLabel("Reply").fill("Is anybody there?");
  await ada.getByRole("button", { name: "Send" }).click();
  await shows(ada.getByRole("alert"), "no channel has the chat 7");
  assert.equal(await ada.getByLabel("Reply").inputValue(), "Is anybody there?");
  await ada.getByLabel("Reply").fill("Hello?");
  await gone(ada.getByRole("alert"));
  await ada.context().close();
});
