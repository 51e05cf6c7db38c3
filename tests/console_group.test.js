// The console over a group of servers on a shared store: what it shows of them, and how it tells what is wrong.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { admin } from "./lib/admin.js";
import { connect } from "./lib/clients.js";
import { Browser, shows } from "./lib/console.js";
import { startBridge, startServer, until } from "./lib/fanfare.js";
import { missing, startStore } from "./lib/stores.js";
import { user } from "./lib/tokens.js";

for (const kind of ["redis", "nats"]) {
  describe(`the console of two servers on ${kind}`, { skip: missing(kind) }, () => {
    let store, servers, bridges, browser, page, socket;

    before(async () => {
      [store, browser] = await Promise.all([startStore(kind), Browser.start()]);
      servers = [await startServer([...store.serverArgs, "--server-name", "one"]), await startServer([...store.serverArgs, "--server-name", "two"])];
      bridges = [await startBridge(servers[0], ["--bridge-name", "left"]), await startBridge(servers[1], ["--bridge-name", "right"])];
      socket = await connect(bridges[1].url, user(1, "group"));
      page = await browser.open(bridges[0].url, "overview", { expected: /Failed to load resource|net::ERR/ });
      await page.getByLabel("Admin token").fill(admin());
      await page.getByRole("button", { name: "Sign in" }).click();
    });

    after(async () => {
      socket?.close();
      await browser?.stop();
      for (const one of [...(bridges ?? []), ...(servers ?? [])]) await one.stop();
      await store?.stop();
    });

    test("both servers are drawn with their bridges, and the store with its state", async () => {
      const box = (name) => page.locator(`[data-server="${name}"]`);
      await box("one").waitFor();
      await box("two").waitFor();
      await shows(box("one"), "left");
      await shows(box("two"), "right");
      await shows(box("two"), "1 session");
      const card = page.locator("[data-store]");
      await shows(card, kind === "redis" ? "Redis" : "NATS JetStream");
      await shows(card, kind === "redis" ? `127.0.0.1:${store.port}` : "4 of 4 partitions");
      await shows(card, "Store, shared by 2 servers");
      assert.equal(await page.locator('[data-degraded="stopped"]').count(), 0);
      await browser.picture(page, `group-${kind}`);
    });

    test("a store that stops is told on every view, and that it goes on", async () => {
      await page.evaluate(() => void (location.hash = "#/sessions"));
      store.child.kill("SIGSTOP");
      try {
        await shows(page.getByRole("alert"), "Events cannot be published");
        await page.locator('[data-degraded="stopped"]').waitFor();
      } finally {
        store.child.kill("SIGCONT");
      }
      await page.locator('[data-degraded="stopped"]').waitFor({ state: "hidden" });
      await page.evaluate(() => void (location.hash = "#/overview"));
    });

    test("a server that does not answer is told, and drawn as silent", async () => {
      await page.locator('[data-server="two"]').waitFor();
      servers[1].child.kill("SIGSTOP");
      try {
        await shows(page.getByRole("alert"), "1 server does not answer");
        await shows(page.locator("[data-silent]"), "two");
        await browser.picture(page, `silent-${kind}`);
      } finally {
        servers[1].child.kill("SIGCONT");
      }
      await until(async () => (await page.locator("[data-silent]").count()) === 0, "the server to answer again");
      await page.locator('[data-server="two"]').waitFor();
      assert.deepStrictEqual(browser.problems, []);
    });
  });
}
