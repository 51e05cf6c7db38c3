// The help desk's page: what goes on around the open chat, in two browsers at once.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { connect } from "./lib/clients.js";
import { until } from "./lib/fanfare.js";
import { gone, Pages, shows } from "./lib/pages.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { Proxy } from "./lib/proxy.js";
import { producer, user } from "./lib/tokens.js";

let pages, python;

before(async () => {
  generateStubs();
  pages = await Pages.start({ serverArgs: ["--presence-grace", "1500ms"] });
  python = new Producer(pages.fanfare.server.address);
});

after(async () => {
  python?.close();
  await pages?.stop();
});

/** A tenant of the test's own, with pages of its operators and what happens in it. */
function desk(tenant) {
  const now = () => new Date().toISOString();
  const notify = (method, event) => python.call(producer(tenant), `messenger.v1.Messenger/${method}`, { event });
  return {
    notify,
    async open(userId, options) {
      const page = await pages.open("messenger", user(userId, tenant), {}, options);
      await shows(page.getByRole("status"), "Live");
      return page;
    },
    chat: (id, name) => notify("NotifyNewChat", { id, name, channel: "CHANNEL_WABA", status: "CHAT_STATUS_NEW", createdAt: now() }),
    message: (id, chatId, content, more = {}) =>
      notify("NotifyNewMessage", { id, chatId, content, timestamp: now(), channel: "CHANNEL_WABA", ...more }),
  };
}

const choose = (page, name) => page.getByRole("navigation").getByRole("button", { name }).click();
const close = (...opened) => Promise.all(opened.map((page) => page.context().close()));
const typing = (page) => page.locator(".typing");

/** Records every text that an element of a page shows. */
const record = (page, selector) =>
  page.evaluate((selector) => {
    const element = document.querySelector(selector);
    window.shown = [element.textContent];
    new MutationObserver(() => element.textContent !== window.shown.at(-1) && window.shown.push(element.textContent))
      .observe(element, { childList: true, characterData: true, subtree: true });
  }, selector);

/** First user 2 opens a chat, then user 1: who comes later is told of nobody. */
async function chooseBoth(name, bob, ada) {
  await choose(bob, name);
  await until(async () => (await bob.locator(".operators").textContent()) === "Open by 2", "the one who came first to be shown");
  await choose(ada, name);
  await shows(bob.locator(".operators"), "Open by 2, 1");
}

test("messenger: a deleted chat is closed, and what others do in it does not bring it back", async () => {
  const { chat, message, notify, open } = desk("deleted");
  const [ada, bob] = [await open(1), await open(2)];
  await chat(8, "Alan Turing");
  await chat(9, "Edsger Dijkstra");
  await chooseBoth(/Dijkstra/, bob, ada);
  await notify("NotifyChatDeleted", { chatId: 9 });
  for (const page of [ada, bob]) await shows(page.locator("main"), "Choose a chat to read it");
  await notify("NotifyMessageStatus", { chatId: 9, messageId: 1, status: "MESSAGE_STATUS_READ" });
  await notify("NotifyMessagesRead", { chatId: 9, readByUserId: 1 });
  await choose(ada, /Turing/);
  await message(1, 8, "Good morning");
  await shows(bob.getByRole("navigation"), "Good morning");
  assert.deepStrictEqual(await bob.locator(".entry .name").allTextContents(), ["Alan Turing"]);
  await close(ada, bob);
});

test("messenger: somebody who goes on typing is shown all the time", async () => {
  const { open } = desk("writer");
  const [ada, bob] = [await open(1), await open(2)];
  for (const [page, id] of [[bob, "2"], [ada, "1"]]) {
    await page.getByLabel("Open chat number").fill("7");
    await page.keyboard.press("Enter");
    await shows(page.locator(".operators"), id);
  }
  await shows(bob.locator(".operators"), "1");
  await record(bob, ".typing");
  await ada.getByLabel("Reply").pressSequentially("An answer that takes its time", { delay: 300 });
  assert.equal(await typing(bob).textContent(), "Operator 1 is typing …");
  await until(async () => (await typing(bob).textContent()) === "", "the typing to end");
  assert.deepStrictEqual(await bob.evaluate(() => window.shown), ["", "Operator 1 is typing …", ""]);
  await close(ada, bob);
});

test("messenger: typing ends by itself when its end never comes", async () => {
  const { open } = desk("silent");
  const bob = await open(2);
  await bob.getByLabel("Open chat number").fill("7");
  await bob.keyboard.press("Enter");
  await shows(bob.locator(".operators"), "2");
  const ada = await connect(pages.fanfare.bridge.url, user(1, "silent"));
  ada.emit("subscribe:chat", { chatId: 7 });
  ada.emit("typing:start", { chatId: 7 });
  await shows(typing(bob), "Operator 1 is typing");
  await until(async () => (await typing(bob).textContent()) === "", "the typing to end");
  assert.ok(ada.connected);
  ada.close();
  await close(bob);
});

test("messenger: an operator who left while another chat was open is not shown on return", async () => {
  const { chat, open } = desk("return");
  const [ada, bob] = [await open(1), await open(2)];
  for (const [id, name] of [[7, "Grace Hopper"], [8, "Alan Turing"], [9, "Edsger Dijkstra"]]) await chat(id, name);
  await chooseBoth(/Hopper/, bob, ada);
  await chooseBoth(/Turing/, bob, ada);
  await choose(bob, /Hopper/);
  await until(async () => (await bob.locator(".operators").textContent()) === "Open by 2", "the operators of the chat");
  await close(ada, bob);
});

test("messenger: after a broken connection the open chat is followed again", async () => {
  const { message, open } = desk("broken");
  const proxy = await Proxy.to(pages.fanfare.bridge.address);
  const [ada, bob] = [await open(1), await open(2, { url: proxy.url })];
  for (const [page, id] of [[bob, "2"], [ada, "1"]]) {
    await page.getByLabel("Open chat number").fill("7");
    await page.keyboard.press("Enter");
    await shows(page.locator(".operators"), id);
  }
  await shows(bob.locator(".operators"), "1");
  await record(bob, "aside .status");
  proxy.cut();
  await until(() => bob.evaluate(() => window.shown.length === 3), "the connection to come back");
  assert.deepStrictEqual(await bob.evaluate(() => window.shown), ["Live", "Reconnecting …", "Live"]);
  await ada.getByLabel("Reply").fill("Still there?");
  await shows(typing(bob), "Operator 1 is typing");
  await message(1, 7, "I am back");
  await shows(bob.getByLabel("Messages"), "I am back");
  await close(ada, bob);
  proxy.close();
});

test("messenger: ticks show every delivery status, and updates change, count and order the chats", async () => {
  const { chat, message, notify, open } = desk("changes");
  const [ada, bob] = [await open(1), await open(2)];
  await chat(7, "Grace Hopper");
  await chat(8, "Alan Turing");
  for (const page of [ada, bob]) {
    await shows(page.getByRole("navigation"), "Alan Turing");
    await choose(page, /Hopper/);
  }
  await message(1, 7, "We are looking into it", { fromMe: true });
  for (const status of ["pending", "sent", "delivered", "read", "failed"]) {
    await notify("NotifyMessageStatus", { messageId: 1, chatId: 7, status: `MESSAGE_STATUS_${status.toUpperCase()}` });
    for (const page of [ada, bob]) await page.getByLabel(status, { exact: true }).waitFor();
  }
  const names = (page) => page.locator(".entry .name").allTextContents();
  assert.deepStrictEqual(await names(bob), ["Grace Hopper", "Alan Turing"]);
  const later = new Date(Date.now() + 60_000).toISOString();
  await notify("NotifyChatUpdated", { id: 8, unreadCount: 4, lastMessageAt: later });
  await notify("NotifyChatUpdated", { id: 7, status: "CHAT_STATUS_CLOSED", priority: "low" });
  for (const page of [ada, bob]) {
    await shows(page.locator(".chat > header"), "closed");
    await shows(page.getByRole("navigation"), "low");
    await page.getByLabel("4 unread").waitFor();
    assert.deepStrictEqual(await names(page), ["Alan Turing", "Grace Hopper"]);
  }
  await notify("NotifyMessagesRead", { chatId: 8, readByUserId: 1 });
  for (const page of [ada, bob]) await gone(page.getByLabel("4 unread"));
  await close(ada, bob);
});

test("messenger: the newest message is in view, and on a small screen the chat takes the list's place", async () => {
  const { chat, message, open } = desk("small");
  const bob = await open(2);
  await chat(7, "Grace Hopper");
  await choose(bob, /Hopper/);
  for (let id = 1; id <= 30; id++) await message(id, 7, `Line ${id} of a long story`, { fromMe: id % 3 === 0 });
  const last = bob.getByLabel("Messages").getByText("Line 30");
  const inView = () =>
    last.evaluate((row) => {
      const { top, bottom } = row.getBoundingClientRect();
      const list = row.closest("ol").getBoundingClientRect();
      return top >= list.top && bottom <= list.bottom;
    });
  await last.waitFor();
  await until(inView, "the newest message to be in view");
  await pages.picture(bob, "messenger-long");
  await bob.setViewportSize({ width: 390, height: 844 });
  await gone(bob.getByRole("navigation"));
  await bob.getByRole("button", { name: "Back to the chats" }).click();
  await bob.getByRole("navigation").waitFor();
  await gone(bob.getByLabel("Messages"));
  await close(bob);
});
