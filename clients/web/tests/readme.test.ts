// @vitest-environment happy-dom
// The examples of README.md: compiled against the built package, and run. Needs `npm run build`.

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { type ReactElement, createElement } from "react";
import { createRoot } from "react-dom/client";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Component, createApp } from "vue";
import { until } from "../../../tests/lib/fanfare.js";
import { type Examples, HERE, examples } from "./examples.js";
import { type World, world } from "./world.js";

let fanfare: World;
let readme: Examples;

beforeAll(async () => {
  fanfare = await world();
  readme = examples("readme", fanfare, "readme");
});
afterAll(() => fanfare.stop());

const say = (content: string): Promise<void> => fanfare.publish("readme", { id: 1, content }, ["chat:7"]);

test("they compile", () => {
  expect(readme.names).toEqual(["realtime.ts", "room.ts", "App.tsx", "Chat.ts", "feed.ts"]);
  // What is registered holds: a name that no catalog has is refused.
  const refused = `import { client } from "./realtime.js";\n// @ts-expect-error no such event\nclient.on("message:gone", () => {});\n`;
  writeFileSync(path.join(readme.folder, "refused.ts"), refused);
  let problems = "";
  try {
    execFileSync(path.join(HERE, "node_modules/.bin/tsc"), ["-p", readme.folder], { encoding: "utf8" });
  } catch (error) {
    problems = (error as { stdout: string }).stdout;
  }
  expect(problems).toBe("");
});

test("connecting, rooms and calls", async () => {
  const { client } = await readme.load<{ client: { close(): void } }>("realtime.ts");
  const { leave } = await readme.load<{ leave(): void }>("room.ts");
  await readme.prints("read the chat's messages now");
  await say("Hello from the README");
  await readme.prints("Hello from the README");
  expect((await fanfare.presence("readme", "chat:7")).users).toEqual(["1"]);
  leave();
  await until(async () => (await fanfare.presence("readme", "chat:7")).sessions === 0, "the room to be left");
  client.close();
});

test("React", async () => {
  const { App } = await readme.load<{ App: () => ReactElement }>("App.tsx");
  const place = document.createElement("div");
  const root = createRoot(place);
  root.render(createElement(App));
  await until(() => place.textContent?.includes("connected, joined"), "the page");
  await say("Hello React");
  await until(() => place.textContent?.includes("Hello React"), "the message");
  root.unmount();
});

test("Vue", async () => {
  const { App } = await readme.load<{ App: Component }>("Chat.ts");
  const place = document.createElement("div");
  const app = createApp(App);
  app.mount(place);
  await until(() => place.textContent?.includes("connected, joined"), "the page");
  await say("Hello Vue");
  await until(() => place.textContent?.includes("Hello Vue"), "the message");
  app.unmount();
});
