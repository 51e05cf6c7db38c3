// The console in a real browser: opened, watched for what it must not do, and looked at.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { chromium } from "playwright-core";
import { Process, ROOT, within } from "./fanfare.js";

const SCREENSHOTS = path.join(ROOT, "target/screenshots");
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
export const WIDE = { width: 1440, height: 900 };
export const NARROW = { width: 390, height: 844 };

/** The public key of `fanfare dev`. */
export const DEVELOPMENT_SECRET = "fanfare-development-key-never-for-production";

/** `fanfare dev` on ports of its own. */
export async function startDev(args = []) {
  const dev = new Process(["dev", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", ...args]);
  dev.grpc = `http://${(await dev.log("server listening")).address}`;
  dev.url = `http://${(await dev.log("bridge listening")).address}`;
  await dev.log("linked");
  return dev;
}

export class Browser {
  static async start() {
    const browser = new Browser();
    const executablePath = process.env.FANFARE_CHROMIUM ?? "/usr/bin/chromium";
    browser.chromium = await chromium.launch({ executablePath, headless: true, args: FLAGS });
    browser.problems = [];
    return browser;
  }

  /** Opens a place of the console, e.g. `sessions?tenant=1`, in a context of its own. What is not its origin's is refused and noted. */
  async open(url, place = "overview", { viewport = WIDE, expected = /$^/ } = {}) {
    const context = await this.chromium.newContext({ viewport, colorScheme: "light", permissions: ["clipboard-read", "clipboard-write"] });
    const page = await context.newPage();
    page.setDefaultTimeout(45_000);
    const { origin, host } = new URL(url);
    await context.route((asked) => asked.origin !== origin, (route) => {
      this.problems.push(`an external request: ${route.request().url()}`);
      return route.abort();
    });
    page.on("websocket", (socket) => {
      if (new URL(socket.url()).host !== host) this.problems.push(`an external WebSocket: ${socket.url()}`);
    });
    page.on("pageerror", (error) => this.problems.push(String(error)));
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type()) && !expected.test(message.text())) this.problems.push(`${place}: ${message.text()}`);
    });
    await page.goto(`${url}/#/${place}`);
    return page;
  }

  /** Saves what a page looks like, wide and narrow, light and dark; in each nothing may stick out or be too faint to read. */
  async picture(page, name) {
    mkdirSync(SCREENSHOTS, { recursive: true });
    for (const [width, viewport] of [["1440", WIDE], ["390", NARROW]]) {
      await page.setViewportSize(viewport);
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        const where = `${name} at ${width}, ${colorScheme}`;
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth), true, `${where} is wider than the window`);
        assert.deepStrictEqual(await page.evaluate(faint), [], `${where} has text of too little contrast`);
        // As high as the page is, so that what sticks to the window's edges stands where it belongs.
        const height = await page.evaluate(() => document.documentElement.scrollHeight);
        await page.setViewportSize({ width: viewport.width, height: Math.max(viewport.height, height) });
        await page.screenshot({ path: path.join(SCREENSHOTS, `console-${name}-${width}-${colorScheme}.png`) });
        await page.setViewportSize(viewport);
      }
    }
    await page.setViewportSize(WIDE);
    await page.emulateMedia({ colorScheme: "light" });
  }

  async stop() {
    await this.chromium.close();
    assert.deepStrictEqual(this.problems, []);
  }
}

/** Runs in the page: texts whose contrast with what is behind them is below WCAG AA (4.5, large ones 3). */
function faint() {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const part = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || element.closest(".unseen, .ghost, :disabled, noscript, option") || !element.checkVisibility({ visibilityProperty: true })) continue;
    const style = getComputedStyle(element);
    const [a, b] = [luminance(rgba(element.closest("svg") ? style.fill : style.color)), luminance(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (contrast < needed) found.add(`${contrast.toFixed(2)}: ${texts.currentNode.data.trim().slice(0, 40)} (${element.className || element.tagName})`);
  }
  return [...found];
}

/** Presses Tab until all of these have had the focus, by the start of their label or text; fails when one is never reached. */
export async function reach(page, wanted, most = 150) {
  const left = new Set(wanted);
  const seen = [];
  for (let n = 0; n < most && left.size > 0; n++) {
    await page.keyboard.press("Tab");
    const name = await page.evaluate(() => {
      const e = document.activeElement;
      const style = getComputedStyle(e);
      const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
      const text = e.getAttribute("aria-label") ?? e.labels?.[0]?.textContent ?? e.textContent ?? "";
      return `${text.trim()}${ring ? "" : " WITHOUT A RING"}`;
    });
    seen.push(name);
    for (const one of left) if (name.startsWith(one)) {
      assert.ok(!name.endsWith("WITHOUT A RING"), `${one} shows no focus`);
      left.delete(one);
    }
  }
  assert.deepStrictEqual([...left], [], `not reached by Tab; reached were ${seen.join(" | ")}`);
}

/** Whether the text of what a locator finds comes to be this. */
export const shows = (locator, text) => within(locator.filter({ hasText: text }).first().waitFor({ state: "visible" }), `the text ${text}`);
