// The reference front ends in a real browser: built, served on a port of their own, opened as different users.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { chromium } from "playwright-core";
import { ROOT, start } from "./fanfare.js";

const DIST = path.join(ROOT, "clients/pages/dist");
const SCREENSHOTS = path.join(ROOT, "target/screenshots");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const WIDE = { width: 1440, height: 900 };
const NARROW = { width: 390, height: 844 };

/** A server of the built pages. */
async function serve() {
  const server = createServer(async (request, response) => {
    const file = path.join(DIST, path.normalize(new URL(request.url, "http://x").pathname));
    try {
      response.setHeader("content-type", TYPES[path.extname(file)] ?? "application/octet-stream");
      response.end(await readFile(file));
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

/** Fanfare, the pages and a browser. */
export class Pages {
  static async start({ serverArgs = [], bridgeArgs = [] } = {}) {
    const pages = new Pages();
    pages.server = await serve();
    pages.origin = `http://127.0.0.1:${pages.server.address().port}`;
    pages.fanfare = await start({ serverArgs, bridgeArgs: ["--cors-origin", pages.origin, "--jwt-leeway", "0s", ...bridgeArgs] });
    const executablePath = process.env.FANFARE_CHROMIUM ?? "/usr/bin/chromium";
    pages.browser = await chromium.launch({ executablePath, headless: true, args: FLAGS });
    pages.problems = [];
    return pages;
  }

  /** Opens a page in a browser context of its own, as the user of a token. */
  async open(name, token, query = {}, { url = this.fanfare.bridge.url, context } = {}) {
    context ??= await this.browser.newContext({ viewport: WIDE, colorScheme: "light" });
    const page = await context.newPage();
    page.setDefaultTimeout(45_000);
    page.on("pageerror", (error) => this.problems.push(String(error)));
    page.on("console", (message) => {
      // A connection that is refused on purpose is told by the browser itself.
      if (message.type() === "error" && !/WebSocket connection|Failed to load resource/.test(message.text())) this.problems.push(message.text());
    });
    page.on("request", (request) => {
      const { origin } = new URL(request.url());
      if (![this.origin, new URL(url).origin, "null"].includes(origin) && !request.url().startsWith("data:")) {
        this.problems.push(`an external request: ${request.url()}`);
      }
    });
    const parameters = new URLSearchParams({ url, ...(token ? { token } : {}), ...query });
    await page.goto(`${this.origin}/${name}/index.html?${parameters}`);
    return page;
  }

  /** Saves what the page looks like, wide and narrow, light and dark. */
  async picture(page, name) {
    mkdirSync(SCREENSHOTS, { recursive: true });
    for (const [width, viewport] of [["1440", WIDE], ["390", NARROW]]) {
      await page.setViewportSize(viewport);
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        await page.screenshot({ path: path.join(SCREENSHOTS, `${name}-${width}-${colorScheme}.png`) });
      }
    }
    await page.setViewportSize(WIDE);
    await page.emulateMedia({ colorScheme: "light" });
  }

  async stop() {
    await this.browser.close();
    this.server.close();
    await this.fanfare.stop();
    assert.deepStrictEqual(this.problems, []);
  }
}

/** Whether the text of what a locator finds comes to be this. */
export async function shows(locator, text) {
  await locator.filter({ hasText: text }).first().waitFor({ state: "visible" });
}

/** Resolves when a locator finds nothing visible any more. */
export const gone = (locator) => locator.first().waitFor({ state: "hidden" });
