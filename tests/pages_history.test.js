// The reference pages open with the history of a chat, and load older messages when one scrolls back.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { call, connect } from "./lib/clients.js";
import { get, until } from "./lib/fanfare.js";
import { Pages, shows } from "./lib/pages.js";
import { producer, user } from "./lib/tokens.js";

let pages;

before(async () => {
  pages = await Pages.start({ bridgeArgs: ["--user-calls-burst", "2000", "--user-calls-per-second", "2000"] });
});

after(() => pages?.stop());

async function notify(event, tenant) {
  const headers = { "content-type": "application/json", authorization: `Bearer ${producer(tenant)}` };
  const url = `${pages.fanfare.server.url}/messenger.v1.Messenger/NotifyNewMessage`;
  const response = await get(url, { method: "POST", headers, body: JSON.stringify({ event }) });
  assert.equal(response.status, 200, await response.text());
}

const lines = (page) => page.getByLabel("Messages", { exact: true }).locator("li > p").allTextContents();
const scroll = (page) => page.getByLabel("Messages", { exact: true }).evaluate((list) => (list.scrollTop = 0));
const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => `Line ${from + i}`);

/** Scrolls back until the page shows so many messages. */
async function back(page, count) {
  await until(async () => {
    await scroll(page);
    return (await lines(page)).length >= count;
  }, `${count} messages`);
}

test("messenger: a chat opens with its newest messages and shows all when one scrolls back", async () => {
  const now = Date.now();
  for (let id = 1; id <= 75; id++) {
    await notify({ id, chatId: 7, content: `Line ${id}`, fromMe: id % 3 === 0, timestamp: new Date(now + id * 1000).toISOString(), channel: "CHANNEL_WABA" }, "desk");
  }
  const page = await pages.open("messenger", user(1, "desk"));
  await shows(page.getByRole("status"), "Live");
  await page.getByLabel("Open chat number").fill("7");
  await page.keyboard.press("Enter");
  await shows(page.getByLabel("Messages"), "Line 75");
  assert.deepStrictEqual(await lines(page), numbers(46, 75));
  await pages.picture(page, "messenger-history");
  await notify({ id: 76, chatId: 7, content: "Line 76", timestamp: new Date(now + 76_000).toISOString(), channel: "CHANNEL_WABA" }, "desk");
  await shows(page.getByLabel("Messages"), "Line 76");
  await back(page, 76);
  assert.deepStrictEqual(await lines(page), numbers(1, 76));
  await page.context().close();
});

test("chat: a chat opens with what was said and read in it", async () => {
  const ada = await connect(pages.fanfare.bridge.url, user("ada", "talk", { username: "Ada" }));
  await call(ada, "join_chat", { chatId: "general" });
  const sent = [];
  for (let id = 1; id <= 70; id++) sent.push((await call(ada, "send_message", { chatId: "general", content: `Line ${id}` })).id);
  const open = (userId) => pages.open("chat", user(userId, "talk", { username: userId }), { chat: "general" });
  const bob = await open("bob");
  await shows(bob.getByLabel("Messages"), "Line 70");
  await back(bob, 70);
  assert.deepStrictEqual(await lines(bob), numbers(1, 70));
  // Bob has seen them, which is history for Ada's page.
  await ada.event("messages_read", ({ messageIds }) => messageIds.includes(sent[69]));
  const page = await open("ada");
  await page.getByLabel("Read by bob").first().waitFor();
  await back(page, 70);
  assert.deepStrictEqual(await lines(page), numbers(1, 70));
  await pages.picture(page, "chat-history");
  ada.close();
  await Promise.all([bob, page].map((one) => one.context().close()));
});
