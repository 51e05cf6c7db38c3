// The four reference front ends, each in two browsers at once.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { until } from "./lib/fanfare.js";
import { gone, Pages, shows } from "./lib/pages.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { Proxy } from "./lib/proxy.js";
import { producer, soon, token, user } from "./lib/tokens.js";

let pages, python;

before(async () => {
  generateStubs();
  pages = await Pages.start({ serverArgs: ["--presence-grace", "6s"] });
  python = new Producer(pages.fanfare.server.address);
});

after(async () => {
  python?.close();
  await pages?.stop();
});

const notify = (tenant, method, event, target) => python.call(producer(tenant), method, { target, event });
const ENDED = "Authentication failed: Token expired";

/** Records every change of the list of users in a page. */
const watch = (page, selector) =>
  page.evaluate((selector) => {
    const list = document.querySelector(selector);
    const users = () => [...list.querySelectorAll("[data-user]")].map((row) => row.dataset.user).sort().join(",");
    window.seen = [users()];
    new MutationObserver(() => users() !== window.seen.at(-1) && window.seen.push(users())).observe(list, { childList: true, subtree: true });
  }, selector);

test("messenger: chats and messages appear, ticks change, reads clear, deleted chats go", async () => {
  const tenant = "desk";
  const [ada, bob] = await Promise.all([user(1, tenant), user(2, tenant)].map((t) => pages.open("messenger", t)));
  for (const page of [ada, bob]) await shows(page.getByRole("status"), "Live");
  const now = () => new Date().toISOString();
  const chat = (id, name, channel, more = {}) =>
    notify(tenant, "messenger.v1.Messenger/NotifyNewChat", { id, name, channel, status: "CHAT_STATUS_NEW", createdAt: now(), ...more });
  const message = (id, chatId, content, more = {}) =>
    notify(tenant, "messenger.v1.Messenger/NotifyNewMessage", { id, chatId, content, timestamp: now(), channel: "CHANNEL_WABA", ...more });
  await chat(7, "Grace Hopper", "CHANNEL_WABA", { priority: "high" });
  await chat(8, "Alan Turing", "CHANNEL_TELEGRAM");
  await chat(9, "Edsger Dijkstra", "CHANNEL_WHATSAPP");
  await message(1, 7, "My invoice is wrong, can you help?");
  // One after the other: who comes later is told of nobody.
  for (const [page, id] of [[ada, "1"], [bob, "2"]]) {
    await shows(page.getByRole("navigation"), "My invoice is wrong");
    await page.getByLabel("1 unread").waitFor();
    await page.getByRole("button", { name: /Grace Hopper/ }).click();
    await shows(page.locator(".operators"), id);
  }
  for (const page of [ada, bob]) await shows(page.locator(".operators"), "2");
  await message(2, 7, "Of course. Which one is it?", { fromMe: true, senderUserId: 1, senderName: "Ada" });
  await shows(bob.getByLabel("Messages"), "Which one is it?");
  const status = (value) => notify(tenant, "messenger.v1.Messenger/NotifyMessageStatus", { messageId: 2, chatId: 7, status: value });
  await status("MESSAGE_STATUS_DELIVERED");
  await bob.getByLabel("delivered").waitFor();
  await status("MESSAGE_STATUS_READ");
  await bob.getByLabel("read", { exact: true }).waitFor();
  await notify(tenant, "messenger.v1.Messenger/NotifyMessagesRead", { chatId: 7, readByUserId: 1 });
  for (const page of [ada, bob]) await gone(page.getByLabel("1 unread"));
  await message(3, 8, "Hello?", { channel: "CHANNEL_TELEGRAM" });
  await notify(tenant, "messenger.v1.Messenger/NotifyUser", { userId: "2", type: "assignment", message: "Grace Hopper was assigned to you" });
  await shows(bob.locator(".notice"), "assigned to you");
  assert.equal(await ada.locator(".notice").count(), 0);
  await ada.getByLabel("Reply").fill("One mom");
  await shows(bob.locator(".typing"), "Operator 1 is typing");
  await pages.picture(bob, "messenger");
  await notify(tenant, "messenger.v1.Messenger/NotifyChatDeleted", { chatId: 9 });
  await gone(bob.getByRole("button", { name: /Dijkstra/ }));
  await Promise.all([ada, bob].map((page) => page.context().close()));
});

test("messenger: typing shows in the other browser alone, and ends", async () => {
  const [ada, bob] = await Promise.all([user(1, "typing"), user(2, "typing")].map((t) => pages.open("messenger", t)));
  for (const [page, id] of [[ada, "1"], [bob, "2"]]) {
    await shows(page.getByRole("status"), "Live");
    await page.getByLabel("Open chat number").fill("7");
    await page.keyboard.press("Enter");
    await shows(page.locator(".operators"), id);
  }
  for (const page of [ada, bob]) await shows(page.locator(".operators"), "2");
  await ada.getByLabel("Reply").fill("Hel");
  await shows(bob.locator(".typing"), "Operator 1 is typing");
  assert.equal(await ada.locator(".typing").textContent(), "");
  await until(async () => (await bob.locator(".typing").textContent()) === "", "the typing to end after a pause");
  await ada.getByLabel("Reply").fill("Hello");
  await shows(bob.locator(".typing"), "Operator 1 is typing");
  await ada.getByLabel("Reply").fill("");
  await until(async () => (await bob.locator(".typing").textContent()) === "", "the typing to end with the text");
  await Promise.all([ada, bob].map((page) => page.context().close()));
});

test("messenger: dots follow a closed tab and do not flicker on reload", async () => {
  const ada = await pages.open("messenger", user(1, "dots"));
  await shows(ada.locator(".team"), "1");
  await watch(ada, ".team");
  const bob = await pages.open("messenger", user(2, "dots"));
  await shows(ada.locator(".team li"), "2");
  await bob.reload();
  await shows(bob.getByRole("status"), "Live");
  const cem = await pages.open("messenger", user(3, "dots"));
  await shows(ada.locator(".team li"), "3");
  await cem.context().close();
  await gone(ada.locator('[data-user="3"]'));
  assert.deepStrictEqual(await ada.evaluate(() => window.seen), ["1", "1,2", "1,2,3", "1,2"]);
  await Promise.all([ada, bob].map((page) => page.context().close()));
});

test("chat: messages, read marks, unread counts and dots", async () => {
  const tenant = "friends";
  const [ada, bob] = await Promise.all([
    pages.open("chat", user("ada", tenant, { username: "Ada" }), { chat: "general,lunch" }),
    pages.open("chat", user("bob", tenant, { username: "Bob" }), { chat: "general,lunch" }),
  ]);
  for (const page of [ada, bob]) {
    await shows(page.getByRole("status"), "Connected");
    await shows(page.getByLabel("Members"), "Ada");
    await shows(page.getByLabel("Members"), "Bob");
    await shows(page.getByLabel("Online", { exact: true }), "Bob");
  }
  const write = async (page, text) => {
    await page.getByLabel("Message", { exact: true }).fill(text);
    await page.keyboard.press("Enter");
  };
  await bob.bringToFront();
  await write(ada, "Lunch at noon?");
  await shows(bob.getByLabel("Messages"), "Lunch at noon?");
  await ada.getByLabel("Read by bob").waitFor();
  await write(bob, "Yes! The usual place.");
  await shows(ada.getByLabel("Messages"), "The usual place");
  assert.equal(await ada.getByText("Lunch at noon?").count(), 1, "one's own message is there once");
  // In another chat it is unread until somebody looks.
  await ada.getByRole("button", { name: "lunch", exact: true }).click();
  await write(ada, "Table for two is booked");
  await bob.getByLabel("1 unread").waitFor();
  await until(async () => (await bob.title()) === "(1) Chat", "the title to say so");
  await pages.picture(bob, "chat");
  await bob.getByRole("button", { name: /^lunch/ }).click();
  await gone(bob.getByLabel("1 unread"));
  await ada.getByLabel("Read by bob").waitFor();
  await until(async () => (await bob.title()) === "Chat", "the title to say so");
  await watch(ada, ".online");
  await bob.reload();
  await shows(bob.getByRole("status"), "Connected");
  await write(bob, "I am back");
  await ada.getByLabel("1 unread").waitFor();
  assert.deepStrictEqual(await ada.evaluate(() => window.seen), ["ada,bob"]);
  await bob.context().close();
  await gone(ada.locator('[data-user="bob"]'));
  assert.deepStrictEqual(await ada.evaluate(() => window.seen), ["ada,bob", "ada"]);
  await ada.context().close();
});

const owner = (name, more = {}) => token({ sub: name, username: name, email: `${name}@example.com`, exp: soon(), ...more });
const item = (id, userId, more = {}) => ({
  id, title: `Item ${id}`, priority: "PRIORITY_MEDIUM", userId, createdAt: new Date().toISOString(), updatedAt: new Date().toISOString(), ...more,
});

test("todo: items appear for their owner alone, in every tab, and follow what happens to them", async () => {
  const [ada, again, bob] = await Promise.all([
    pages.open("todo", owner("ada")), pages.open("todo", owner("ada"), { via: "query" }), pages.open("todo", owner("bob")),
  ]);
  for (const page of [ada, again]) await shows(page.locator("#greeting"), "Successfully connected to real-time updates, ada");
  await shows(bob.locator("#greeting"), "bob");
  const send = (method, event) => notify("default", `todo.v1.Todo/${method}`, event);
  await send("NotifyCreated", item("1", "ada", { title: "Water the plants", description: "The fern too", priority: "PRIORITY_LOW" }));
  await send("NotifyCreated", item("2", "ada", { title: "File the tax return", priority: "PRIORITY_HIGH", dueDate: "2026-01-31T12:00:00Z" }));
  await send("NotifyCreated", item("3", "ada", { title: "Book the train" }));
  await send("NotifyCreated", item("4", "bob", { title: "Learn to juggle" }));
  await shows(bob.locator("#open"), "Learn to juggle");
  for (const page of [ada, again]) {
    await shows(page.locator("#open"), "Book the train");
    assert.deepStrictEqual(await page.locator("#open .title").allTextContents(), ["File the tax return", "Book the train", "Water the plants"]);
  }
  assert.equal(await bob.locator("#open li").count(), 1);
  await send("NotifyUpdated", item("3", "ada", { title: "Book the night train" }));
  await send("NotifyCompleted", item("1", "ada", { title: "Water the plants", completed: true }));
  for (const page of [ada, again]) {
    await shows(page.locator("#open"), "Book the night train");
    await shows(page.locator("#done"), "Water the plants");
    assert.equal(await page.locator("#open-count").textContent(), "2");
  }
  await pages.picture(ada, "todo");
  await send("NotifyDeleted", { id: "2", userId: "ada" });
  await gone(ada.getByText("File the tax return"));
  await Promise.all([ada, again, bob].map((page) => page.context().close()));
});

test("dialogs: polling takes over when WebSocket is refused and gives back, and no event is missed or doubled", async () => {
  const proxy = await Proxy.to(pages.fanfare.bridge.address);
  const page = await pages.open("dialogs", user("dora", "feed"), { retry: "300" }, { url: proxy.url });
  await shows(page.locator("#mode"), "live");
  const other = await pages.open("dialogs", user("emil", "feed"));
  await shows(other.locator("#mode"), "live");
  let [sent, done] = [0, false];
  const publishing = (async () => {
    while (!done) {
      sent += 1;
      const message = { id: String(sent), text: `Message ${sent}`, from: "Grace", createdAt: new Date().toISOString() };
      await notify("feed", "dialogs.v1.Dialogs/NotifyNewMessage", { userId: "dora", dialogId: sent % 2 ? "invoices" : "travel", message });
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  })();
  const seen = () => page.locator("#messages li").count();
  const more = async () => {
    const before = await seen();
    await until(async () => (await seen()) > before + 3, "more messages");
  };
  await more();
  for (let round = 0; round < 2; round++) {
    proxy.refuseUpgrades = true;
    proxy.cut();
    await shows(page.locator("#mode"), "polling");
    await more();
    proxy.refuseUpgrades = false;
    await shows(page.locator("#mode"), "live");
    await more();
  }
  done = true;
  await publishing;
  await until(async () => (await seen()) >= sent, "all messages");
  const ids = await page.locator("#messages li").evaluateAll((rows) => rows.map((row) => Number(row.dataset.id)));
  assert.deepStrictEqual(ids, Array.from({ length: sent }, (_, i) => i + 1));
  assert.equal(await other.locator("#messages li").count(), 0, "another user sees nothing of it");
  await notify("feed", "dialogs.v1.Dialogs/NotifyDialogUpdate", {
    userId: "emil", dialog: { id: "Travel to Oslo", status: "open", unreadCount: 3, lastMessage: "The tickets are here", updatedAt: new Date().toISOString() },
  });
  for (const [id, text] of [["1", "Your booking is confirmed."], ["2", "The tickets are here."]]) {
    const message = { id, text, from: "Travel agent", createdAt: new Date().toISOString() };
    await notify("feed", "dialogs.v1.Dialogs/NotifyNewMessage", { userId: "emil", dialogId: "Travel to Oslo", message });
  }
  await shows(other.locator("#messages"), "The tickets are here");
  await other.getByLabel("3 unread").waitFor();
  await pages.picture(other, "dialogs");
  await Promise.all([page, other].map((one) => one.context().close()));
  proxy.close();
});

test("an expired token ends the session with a message, on every page", async () => {
  const exp = () => soon(3);
  const ended = [
    [await pages.open("messenger", user(1, "end", { exp: exp() })), "Live"],
    [await pages.open("chat", user(1, "end", { exp: exp() })), "Connected"],
    [await pages.open("todo", owner("end", { exp: exp() })), "Up to date"],
    [await pages.open("dialogs", user(1, "end", { exp: exp() })), "live"],
  ];
  for (const [page] of ended) {
    await shows(page.getByRole("alert"), ENDED);
    await shows(page.getByRole("status"), /signed out/i);
    await page.context().close();
  }
});

test("a refused connection says why, on every page", async () => {
  for (const name of ["messenger", "chat", "todo", "dialogs"]) {
    const page = await pages.open(name, "nonsense");
    await shows(page.getByRole("alert"), "Authentication failed: Invalid token");
    await page.context().close();
  }
});
