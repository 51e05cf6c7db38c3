// @vitest-environment happy-dom
// The Vue composables in a page, against a real server and bridge.

import { type Component, createApp, defineComponent, h, ref, watchSyncEffect } from "vue";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { provideFanfare, FANFARE, useEvent, useMissed, usePresence, useRoom, useStatus } from "@fanfare/client/vue";
import { until } from "../../../tests/lib/fanfare.js";
import { user } from "../../../tests/lib/tokens.js";
import { CHAT, type Messenger, QUICK, type World, closeAll, messenger, state, world } from "./world.js";

let fanfare: World;
const apps: (() => void)[] = [];

beforeAll(async () => {
  fanfare = await world({ serverArgs: ["--presence-grace", "200ms"] });
});
afterEach(() => {
  apps.splice(0).forEach((unmount) => unmount());
  closeAll();
});
afterAll(() => fanfare.stop());

function show(component: Component, client?: Messenger): { text: () => string; unmount: () => void } {
  const place = document.createElement("div");
  document.body.append(place);
  const app = createApp(component);
  if (client) app.provide(FANFARE, client);
  app.mount(place);
  let shown = true;
  const unmount = (): void => {
    if (shown) app.unmount();
    shown = false;
    place.remove();
  };
  apps.push(unmount);
  return { text: () => place.textContent ?? "", unmount };
}

const shows = (page: { text: () => string }, text: string): Promise<boolean> => until(() => page.text().includes(text), `"${text}", not "${page.text()}"`);

test("a component has its session, its room and its events, and leaves nothing behind", async () => {
  const token = vi.fn(async () => user(1, "page"));
  const joined = vi.fn();
  const Chat = defineComponent(() => {
    const messages = ref<number[]>([]);
    const status = useStatus();
    const room = useRoom(CHAT, { chatId: 7 }, { onJoined: joined });
    useEvent("message:new", ({ id }) => messages.value.push(id));
    return () => h("p", `${status.value.state}, ${room.value?.state}: ${messages.value.join(" ")}`);
  });
  const App = defineComponent(() => {
    provideFanfare({ url: fanfare.url, token, retry: QUICK });
    return () => h(Chat);
  });
  const page = show(App);
  await shows(page, "connected, joined");
  await fanfare.publish("page", { id: 1 }, ["chat:7"]);
  await shows(page, "joined: 1");
  fanfare.proxy.cut();
  await fanfare.publish("page", { id: 2 }, ["chat:7"]);
  await shows(page, "joined: 1 2");
  expect(joined).toHaveBeenCalledTimes(1);
  expect(token).toHaveBeenCalledTimes(2);
  page.unmount();
  await until(async () => (await fanfare.presence("page")).sessions === 0, "the session to end with the page");
});

test("a room follows its request, and none is wanted without one", async () => {
  const client = messenger(fanfare, "follow");
  const sent: string[] = [];
  client.socket.onAnyOutgoing((name: string, { chatId }: { chatId: number }) => sent.push(`${name} ${chatId}`));
  const id = ref<number | null>(7);
  const history: string[] = [];
  const missed = vi.fn();
  const Room = defineComponent(() => {
    const room = useRoom(CHAT, () => (id.value === null ? null : { chatId: id.value }));
    useMissed(missed);
    watchSyncEffect(() => history.push(room.value?.state ?? "nowhere"));
    return () => h("i", `${id.value ?? "none"} ${room.value?.state ?? "nowhere"}`);
  });
  const page = show(Room, client);
  await shows(page, "7 joined");
  id.value = 8;
  await shows(page, "8 joined");
  id.value = null;
  await shows(page, "none nowhere");
  await until(() => sent.length === 4, "the rooms to be left");
  expect(sent.slice().sort()).toEqual(["subscribe:chat 7", "subscribe:chat 8", "unsubscribe:chat 7", "unsubscribe:chat 8"]);
  expect(history).toEqual(["joining", "joined", "joining", "joined", "nowhere"]);
  expect(missed).not.toHaveBeenCalled();
  page.unmount();
  expect(client.status.getSnapshot().state).toBe("connected");
});

test("who is there", async () => {
  const client = messenger(fanfare, "who");
  const Who = defineComponent(() => {
    const who = usePresence({
      online: "user:online", offline: "user:offline", user: (event) => event.userId,
      query: { call: "get_active_users", request: {}, users: (answer) => answer.users.map((one) => one.userId) },
    });
    return () => h("p", `${who.value.known}: ${[...who.value.users].sort().join(" ")}`);
  });
  const page = show(Who, client);
  await shows(page, "true: 1");
  const other = messenger(fanfare, "who", { token: async () => user(2, "who") });
  await shows(page, "true: 1 2");
  await state(other, "connected");
  other.close();
  await until(() => page.text() === "true: 1", "the other one to go");
});

test("who is in a chat, another chat, and nobody's business elsewhere", async () => {
  const [me, bob, eve] = [1, 2, 3].map((id) => messenger(fanfare, "rooms", { token: async () => user(id, "rooms") }));
  const JOIN = { join: "join_chat", leave: "leave_chat" } as const;
  const chatId = ref("a");
  const seen: string[] = [];
  const Members = defineComponent(() => {
    useRoom(JOIN, () => ({ chatId: chatId.value }));
    const who = usePresence(() => {
      const id = chatId.value;
      return {
        online: "user_joined_chat" as const, offline: "user_left_chat" as const,
        user: (event) => (event.chatId === id ? event.userId : undefined),
        query: { call: "get_chat_info" as const, request: { chatId: id }, users: (answer) => answer.members.map((one) => one.userId) },
      };
    });
    return () => h("p", `${chatId.value}: ${[...who.value.users].sort().join(" ")}`);
  });
  const inA = bob!.room(JOIN, { chatId: "a" });
  await Promise.all([inA.whenJoined(), eve!.room(JOIN, { chatId: "b" }).whenJoined()]);
  const page = show(Members, me);
  page.text = ((text) => () => { seen.push(text()); return seen.at(-1)!; })(page.text);
  await until(() => page.text() === "a: 1 2", "those in the first chat");
  inA.leave();
  await until(() => page.text() === "a: 1", "the first chat without Bob");
  chatId.value = "b";
  await until(() => page.text() === "b: 1 3", "those in the other chat");
  expect(seen.every((text) => !text.includes("a: 1 2 3") && !text.includes("b: 1 2"))).toBe(true);
});
