// Pages rendered on a server: no window, nothing connects, nothing is asked.

import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { expect, test, vi } from "vitest";
import { createSSRApp, defineComponent, h } from "vue";
import { renderToString as renderVue } from "vue/server-renderer";
import { FanfareProvider, useEvent, useMissed, usePresence, useRoom, useStatus } from "@fanfare/client/react";
import * as vue from "@fanfare/client/vue";
import { CHAT } from "./world.js";

const online = { online: "user:online", offline: "user:offline", user: (event: { userId: string }) => event.userId } as const;

test("React", () => {
  expect(typeof window).toBe("undefined");
  const [token, handler] = [vi.fn(), vi.fn()];
  function Page() {
    useEvent("message:new", handler);
    useMissed(handler);
    const text = [useStatus().state, useRoom(CHAT, { chatId: 7 })?.state, useRoom(CHAT, null)?.state ?? "none", usePresence(online).users.size];
    return createElement("p", null, text.join(" "));
  }
  const html = renderToString(createElement(FanfareProvider, { url: "http://127.0.0.1:9", token }, createElement(Page)));
  expect(html).toBe("<p>connecting joining none 0</p>");
  expect(token).not.toHaveBeenCalled();
});

test("Vue", async () => {
  const [token, handler] = [vi.fn(), vi.fn()];
  const Page = defineComponent(() => {
    vue.useEvent("message:new", handler);
    vue.useMissed(handler);
    const [status, room, none, who] = [vue.useStatus(), vue.useRoom(CHAT, { chatId: 7 }), vue.useRoom(CHAT, null), vue.usePresence(online)];
    return () => h("p", [status.value.state, room.value?.state, none.value?.state ?? "none", who.value.users.size].join(" "));
  });
  const App = defineComponent(() => {
    vue.provideFanfare({ url: "http://127.0.0.1:9", token });
    return () => h(Page);
  });
  expect(await renderVue(createSSRApp(App))).toBe("<p>connecting joining none 0</p>");
  expect(token).not.toHaveBeenCalled();
});
