// The chat's page: what is unread, what could not be sent, and chats that come and go, in two browsers at once.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { connect } from "./lib/clients.js";
import { until } from "./lib/fanfare.js";
import { gone, Pages, shows } from "./lib/pages.js";
import { user } from "./lib/tokens.js";

let pages;

before(async () => {
  pages = await Pages.start({ serverArgs: ["--presence-grace", "1500ms"] });
});

after(() => pages?.stop());

const names = { ada: "Ada", bob: "Bob" };
const tokenOf = (userId, tenant) => user(userId, tenant, { username: names[userId] });

async function open(userId, tenant, chat = "general", options = {}) {
  const page = await pages.open("chat", tokenOf(userId, tenant), { chat }, options);
  await shows(page.getByLabel("Members"), names[userId]);
  return page;
}

async function write(page, text) {
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.keyboard.press("Enter");
}

/** Gives a window the focus, or takes it: a browser under test has it in every window. */
const focus = (page, has) =>
  page.evaluate((has) => {
    document.hasFocus = () => has;
    window.dispatchEvent(new Event(has ? "focus" : "blur"));
  }, has);

/** A context whose WebSockets lose the messages of one kind. */
async function losing({ toServer, toPage }) {
  const context = await pages.browser.newContext({ viewport: { width: 1440, height: 900 } });
  await context.routeWebSocket(/socket\.io/, (near) => {
    const far = near.connectToServer();
    near.onMessage((text) => !(toServer && String(text).includes(`["${toServer}"`)) && far.send(text));
    far.onMessage((text) => !(toPage && String(text).includes(`["${toPage}"`)) && near.send(text));
  });
  return context;
}

const close = (...opened) => Promise.all(opened.map((page) => page.context().close()));
const titled = (page, title) => until(async () => (await page.title()) === title, `the title to be ${title}`);

test("chat: a message is unread while nobody looks at the window, and read when somebody does", async () => {
  const [ada, bob] = [await open("ada", "focus"), await open("bob", "focus")];
  await focus(bob, false);
  await write(ada, "Are you there?");
  await titled(bob, "(1) Chat");
  await write(ada, "Hello?");
  await titled(bob, "(2) Chat");
  await bob.getByLabel("2 unread").waitFor();
  await until(async () => (await ada.getByLabel("Sent", { exact: true }).count()) === 2, "both to be sent");
  await focus(bob, true);
  await titled(bob, "Chat");
  await until(async () => (await ada.getByLabel("Read by bob").count()) === 2, "both messages to be read");
  await close(ada, bob);
});

test("chat: what one wrote in another window is not unread", async () => {
  const [ada, again] = [await open("ada", "windows"), await open("ada", "windows")];
  const bob = await connect(pages.fanfare.bridge.url, tokenOf("bob", "windows"));
  await focus(again, false);
  await write(ada, "From my other window");
  await shows(again.getByLabel("Messages"), "From my other window");
  // The message before this one is not counted.
  bob.emit("send_message", { chatId: "general", content: "From Bob" });
  await titled(again, "(1) Chat");
  await shows(again.getByLabel("Messages"), "From Bob");
  assert.equal(await again.title(), "(1) Chat");
  bob.close();
  await close(ada, again);
});

test("chat: a message to somebody who is not in the chat opens it in their list", async () => {
  const bob = await open("bob", "invited");
  const ada = await connect(pages.fanfare.bridge.url, tokenOf("ada", "invited"));
  ada.emit("send_message", { chatId: "surprise", content: "A word with you?", recipientId: "bob" });
  await titled(bob, "(1) Chat");
  await bob.getByRole("button", { name: /^surprise/ }).click();
  await shows(bob.getByLabel("Messages"), "A word with you?");
  await shows(bob.getByLabel("Members"), "Bob");
  await titled(bob, "Chat");
  ada.close();
  await close(bob);
});

test("chat: a chat that is left takes its unread messages with it", async () => {
  const [ada, bob] = [await open("ada", "left", "lunch"), await open("bob", "left", "general,lunch")];
  await shows(ada.getByLabel("Members"), "Bob");
  await write(ada, "Pizza?");
  await titled(bob, "(1) Chat");
  await bob.getByRole("button", { name: "Leave lunch" }).click();
  await titled(bob, "Chat");
  await until(async () => (await ada.getByLabel("Members").locator("li").count()) === 1, "Bob to have left");
  await bob.getByLabel("Open a chat").fill("lunch");
  await bob.keyboard.press("Enter");
  await shows(ada.getByLabel("Members"), "Bob");
  await write(ada, "Or soup?");
  await shows(bob.getByLabel("Messages"), "Or soup?");
  await close(ada, bob);
});

test("chat: a chat that cannot be joined says so, and what is written there is not sent", async () => {
  const bob = await open("bob", "refused");
  await bob.getByLabel("Open a chat").fill("x".repeat(300));
  await bob.keyboard.press("Enter");
  await bob.getByRole("alert").waitFor();
  await write(bob, "Anybody?");
  await bob.getByLabel("Not sent").waitFor();
  await pages.picture(bob, "chat-failed");
  await close(bob);
});

test("chat: a message that gets lost on the way is shown as not sent", async () => {
  const context = await losing({ toServer: "send_message" });
  const [ada, bob] = [await open("ada", "lost"), await open("bob", "lost", "general", { context })];
  await write(bob, "Into the void");
  await bob.getByLabel("Sending").waitFor();
  await bob.getByLabel("Not sent").waitFor();
  await write(ada, "Bob?");
  await shows(bob.getByLabel("Messages"), "Bob?");
  assert.equal(await ada.getByText("Into the void").count(), 0);
  await close(ada, bob);
});

test("chat: the acknowledgement alone confirms a message", async () => {
  const context = await losing({ toPage: "message_sent" });
  const [ada, bob] = [await open("ada", "acknowledged"), await open("bob", "acknowledged", "general", { context })];
  await focus(ada, false);
  await write(bob, "Did it arrive?");
  await bob.getByLabel("Sent", { exact: true }).waitFor();
  await shows(ada.getByLabel("Messages"), "Did it arrive?");
  await until(async () => (await bob.getByText("Did it arrive?").count()) === 1, "the message to be there once");
  await focus(ada, true);
  await bob.getByLabel("Read by ada").waitFor();
  await gone(bob.getByLabel("Sent", { exact: true }));
  await close(ada, bob);
});
