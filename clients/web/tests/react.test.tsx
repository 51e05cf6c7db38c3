// @vitest-environment happy-dom
// The React hooks in a page, always under StrictMode, against a real server and bridge.

import { type Socket, createServer } from "node:net";
import { StrictMode, useState, type ReactNode } from "react";
import { createRoot } from "react-dom/client";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { FanfareProvider, useEvent, useMissed, usePresence, useRoom, useStatus } from "@fanfare/client/react";
import { until } from "../../../tests/lib/fanfare.js";
import { user } from "../../../tests/lib/tokens.js";
import { CHAT, QUICK, type World, closeAll, messenger, state, world } from "./world.js";

let fanfare: World;
const roots: (() => void)[] = [];

beforeAll(async () => {
  fanfare = await world({ serverArgs: ["--presence-grace", "200ms"] });
});
afterEach(() => {
  roots.splice(0).forEach((unmount) => unmount());
  closeAll();
});
afterAll(() => fanfare.stop());

function show(children: ReactNode): { text: () => string; unmount: () => void; find: (selector: string) => HTMLElement } {
  const place = document.createElement("div");
  document.body.append(place);
  const root = createRoot(place);
  root.render(<StrictMode>{children}</StrictMode>);
  let shown = true;
  const unmount = (): void => {
    if (shown) root.unmount();
    shown = false;
    place.remove();
  };
  roots.push(unmount);
  return { text: () => place.textContent ?? "", unmount, find: (selector) => place.querySelector<HTMLElement>(selector)! };
}

const options = (tenant: string, token = vi.fn(async () => user(1, tenant))) => ({ url: fanfare.url, token, retry: QUICK });
const shows = (page: { text: () => string }, text: string): Promise<boolean> => until(() => page.text().includes(text), `"${text}", not "${page.text()}"`);

test("mounted twice by StrictMode: one session, one join, each event once, with the newest handler", async () => {
  const joined = vi.fn();
  const heard: string[] = [];
  function Chat(): ReactNode {
    const [messages, setMessages] = useState<number[]>([]);
    const status = useStatus();
    const room = useRoom(CHAT, { chatId: 7 }, { onJoined: joined });
    useEvent("message:new", ({ id }) => {
      heard.push(`${messages.length} before ${id}`);
      setMessages([...messages, id]);
    });
    return <p>{status.state}, {room?.state}: {messages.join(" ")}</p>;
  }
  const given = options("strict");
  const page = show(<FanfareProvider {...given}><Chat /></FanfareProvider>);
  await shows(page, "connected, joined");
  expect(given.token).toHaveBeenCalledTimes(1);
  expect(await fanfare.presence("strict", "chat:7")).toEqual({ users: ["1"], sessions: 1 });
  await fanfare.publish("strict", { id: 1 }, ["chat:7"]);
  await shows(page, "joined: 1");
  await fanfare.publish("strict", { id: 2 }, ["chat:7"]);
  await shows(page, "joined: 1 2");
  expect(heard).toEqual(["0 before 1", "1 before 2"]);
  expect(joined).toHaveBeenCalledTimes(1);
  page.unmount();
  await until(async () => (await fanfare.presence("strict")).sessions === 0, "the session to end with the page");
});

test("a room is changed, given up and shared", async () => {
  const client = messenger(fanfare, "rooms");
  const sent: string[] = [];
  client.socket.onAnyOutgoing((name: string, { chatId }: { chatId: number }) => sent.push(`${name} ${chatId}`));
  function Room({ id }: { id: number | null }): ReactNode {
    const room = useRoom(CHAT, id === null ? null : { chatId: id });
    return <i>{id ?? "none"} {room?.state ?? "nowhere"}; </i>;
  }
  function Rooms(): ReactNode {
    const [id, setId] = useState<number | null>(7);
    return <>
      <button id="next" onClick={() => setId((id ?? 0) + 1)} />
      <button id="none" onClick={() => setId(null)} />
      <Room id={id} /><Room id={8} />
    </>;
  }
  const page = show(<FanfareProvider client={client}><Rooms /></FanfareProvider>);
  await shows(page, "7 joined; 8 joined;");
  page.find("#next").click();
  await shows(page, "8 joined; 8 joined;");
  await until(() => sent.length === 3, "the first room to be left");
  page.find("#none").click();
  await shows(page, "none nowhere; 8 joined;");
  page.unmount();
  await until(() => sent.length === 4, "the second room to be left");
  expect(sent).toEqual(["subscribe:chat 7", "subscribe:chat 8", "unsubscribe:chat 7", "unsubscribe:chat 8"]);
  // The client is the owner's, not the page's.
  expect(client.status.getSnapshot().state).toBe("connected");
});

test("who is there: the list, those who come, those who go", async () => {
  const [early, late] = [2, 3].map((id) => ({ token: async () => user(id, "who") }));
  const first = messenger(fanfare, "who", early);
  await state(first, "connected");
  function Who(): ReactNode {
    const { users, known } = usePresence({
      online: "user:online",
      offline: "user:offline",
      user: (event) => event.userId,
      query: { call: "get_active_users", request: {}, users: (answer) => answer.users.map((one) => one.userId) },
    });
    return <p>{known ? "known" : "unknown"}: {[...users].sort().join(" ")}</p>;
  }
  const page = show(<FanfareProvider {...options("who")}><Who /></FanfareProvider>);
  await shows(page, "known: 1 2");
  const second = messenger(fanfare, "who", late);
  await shows(page, "known: 1 2 3");
  first.close();
  await shows(page, "known: 1 3");
  fanfare.proxy.cut();
  second.close();
  await until(() => page.text() === "known: 1", "the last one");
});

test("a page is told when it may have missed events", async () => {
  const brief = await world({ serverArgs: ["--recovery-window", "1s"] });
  const client = messenger(brief, "missed");
  const missed = vi.fn();
  function Page(): ReactNode {
    useMissed(missed);
    return useStatus().state;
  }
  const page = show(<FanfareProvider client={client}><Page /></FanfareProvider>);
  await shows(page, "connected");
  client.close();
  await shows(page, "ended");
  await new Promise((resolve) => setTimeout(resolve, 1300));
  client.open();
  await until(() => missed.mock.calls.length === 1, "the word");
  page.unmount();
  closeAll();
  await brief.stop();
});

test("without a provider it says what is missing", () => {
  const Lost = (): ReactNode => useStatus().state;
  const errors: string[] = [];
  const root = createRoot(document.createElement("div"), { onUncaughtError: (error) => errors.push(String(error)) });
  root.render(<Lost />);
  return until(() => errors.length > 0, "the error").then(() => expect(errors[0]).toContain("no FanfareProvider"));
});

test("going online, and being looked at, end a pause", async () => {
  const client = messenger(fanfare, "wake", { retry: { minMs: 600_000, maxMs: 600_000 } });
  await state(client, "connected");
  for (const [target, event] of [[window, "online"], [document, "visibilitychange"]] as const) {
    fanfare.proxy.cut();
    await state(client, "reconnecting");
    target.dispatchEvent(new Event(event));
    await state(client, "connected");
  }
  const onLine = vi.spyOn(navigator, "onLine", "get").mockReturnValue(false);
  fanfare.proxy.cut();
  await state(client, "offline");
  onLine.mockRestore();
  window.dispatchEvent(new Event("online"));
  await state(client, "connected");
  expect(client.recovered).toBe(true);
});

test("going online gives up an attempt that hangs", async () => {
  // Takes connections and never says anything.
  const silent = createServer();
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const { port } = silent.address() as { port: number };
  const connections: Socket[] = [];
  silent.on("connection", (connection) => connections.push(connection));
  messenger({ url: `http://127.0.0.1:${port}` }, "hang");
  await until(() => connections.length === 1, "the first attempt");
  window.dispatchEvent(new Event("online"));
  await until(() => connections.length === 2, "another one");
  closeAll();
  connections.forEach((connection) => connection.destroy());
  silent.close();
});
