// A page with the package @fanfare/client in a real browser that loses its network.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { createServer } from "node:http";
import path from "node:path";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { ROOT, start, until } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { Proxy } from "./lib/proxy.js";
import { producer, user } from "./lib/tokens.js";

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const HTML = "<!doctype html><title>Client</title><p id=status></p><ol id=messages></ol><script src=/page.js></script>";
/** How long the network is away, in milliseconds. */
const AWAY = 10_000;

let fanfare, proxy, python, pages, browser, problems, origin;

before(async () => {
  generateStubs();
  const entry = path.join(ROOT, "tests/browser/web_client.js");
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, format: "iife", write: false });
  pages = createServer((request, response) => {
    const script = request.url === "/page.js";
    response.setHeader("content-type", script ? "text/javascript" : "text/html").end(script ? outputFiles[0].text : HTML);
  });
  await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${pages.address().port}`;
  fanfare = await start({ bridgeArgs: ["--cors-origin", origin] });
  proxy = await Proxy.to(fanfare.bridge.address);
  python = new Producer(fanfare.server.address);
  const executablePath = process.env.FANFARE_CHROMIUM ?? "/usr/bin/chromium";
  browser = await chromium.launch({ executablePath, headless: true, args: FLAGS });
  problems = [];
});

after(async () => {
  await browser?.close();
  pages?.close();
  proxy?.close();
  python?.close();
  await fanfare?.stop();
});

/** Publishes to a tenant until it is told to stop; gives how many. */
function load(tenant) {
  let [sent, done] = [0, false];
  const publishing = (async () => {
    while (!done) {
      sent += 1;
      const event = { id: sent, chatId: 7, content: "x", channel: "CHANNEL_WABA" };
      await python.call(producer(tenant), "messenger.v1.Messenger/NotifyNewMessage", { event });
    }
  })();
  return {
    sent: () => sent,
    async stop() {
      done = true;
      await publishing;
      return sent;
    },
  };
}

test("a page without network for ten seconds under load shows every event exactly once afterwards", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(`${origin}/?${new URLSearchParams({ url: proxy.url, token: user(1, "offline") })}`);
  const ids = () => page.locator("#messages li").evaluateAll((rows) => rows.map((row) => Number(row.dataset.id)));
  const shows = (status) => page.locator("#status", { hasText: new RegExp(`^${status}$`) }).waitFor();
  await page.waitForFunction(() => window.told.includes("joined"));
  const publishing = load("offline");
  await until(async () => (await ids()).length > 20, "events before the loss");

  await context.setOffline(true);
  proxy.cut();
  await shows("offline");
  const [shown, sent, since] = [(await ids()).length, publishing.sent(), Date.now()];
  await until(() => Date.now() - since > AWAY, "the time without network", 2 * AWAY);
  assert.ok(publishing.sent() > sent + 100, "there was load");
  assert.equal((await ids()).length, shown, "nothing came through");
  await context.setOffline(false);
  await shows("connected");
  const total = await publishing.stop();
  await until(async () => (await ids()).length >= total, "all events");

  assert.deepStrictEqual(await ids(), Array.from({ length: total }, (_, i) => i + 1));
  // Not after the pause of some seconds that it has come to.
  const took = await page.evaluate(() => window.connectedAt - window.onlineAt);
  assert.ok(took > 0 && took < 5000, `it comes back at once when the network does, not after ${took} ms`);
  assert.deepStrictEqual(await page.evaluate(() => window.told), ["joined", "recovered"]);
  const history = await page.evaluate(() => window.history_.filter((state, i, all) => state !== all[i - 1]));
  assert.deepStrictEqual([history[0], history[1], history.at(-1)], ["connecting", "connected", "connected"]);
  assert.deepStrictEqual(problems, []);
  await context.close();
});
