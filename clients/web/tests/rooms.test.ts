// Rooms: counted, entered again when the server has forgotten them, and only then.

import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import type { Room } from "@fanfare/client";
import { startBridge, startServer, until } from "../../../tests/lib/fanfare.js";
import { soon, user } from "../../../tests/lib/tokens.js";
import { CHAT, type Messenger, QUICK, type World, closeAll, messenger, state, world } from "./world.js";

let fanfare: World;
/** Lets a session be recovered for a second only. */
let brief: World;

beforeAll(async () => {
  fanfare = await world({ serverArgs: ["--presence-grace", "500ms"] });
  brief = await world({ serverArgs: ["--recovery-window", "3s", "--presence-grace", "200ms"], bridgeArgs: ["--calls-per-second", "20", "--calls-burst", "20"] });
});
afterEach(closeAll);
afterAll(async () => {
  await fanfare.stop();
  await brief.stop();
});

/** What a client calls, in order. */
function calls(client: Messenger): string[] {
  const seen: string[] = [];
  client.socket.onAnyOutgoing((name: string, request: { chatId?: number }) => seen.push(`${name} ${request.chatId}`));
  return seen;
}

/** Keeps a client away until its session cannot be recovered any more. */
async function forget(client: Messenger, tenant: string, meanwhile: () => Promise<void> = async () => {}): Promise<void> {
  const { url } = brief;
  (client.socket.io as unknown as { uri: string }).uri = "http://127.0.0.1:9";
  brief.proxy.cut();
  await state(client, "reconnecting");
  await until(async () => !(await brief.presence(tenant)).users.includes("1"), "the session to be gone");
  await meanwhile();
  // Recovered as long as the window is open, whatever presence says.
  await new Promise((resolve) => setTimeout(resolve, 3300));
  (client.socket.io as unknown as { uri: string }).uri = url;
  await state(client, "connected");
}

test("however many want a room, it is entered once and left with the last one", async () => {
  const client = messenger(fanfare, "count");
  const sent = calls(client);
  await state(client, "connected");
  const [one, two] = [client.room(CHAT, { chatId: 7 }), client.room(CHAT, { chatId: 7 })];
  const late = vi.fn();
  await Promise.all([one.whenJoined(), two.whenJoined()]);
  client.room(CHAT, { chatId: 8 }, { onJoined: late });
  await until(() => late.mock.calls.length === 1, "the other room");
  one.leave();
  one.leave();
  // Given up and wanted in the same moment: it stays.
  two.leave();
  const three = client.room(CHAT, { chatId: 7 }, { onJoined: late });
  await three.whenJoined();
  await until(() => late.mock.calls.length === 2, "the word that it is joined already");
  expect((await fanfare.presence("count", "chat:7")).sessions).toBe(1);
  expect(sent).toEqual(["subscribe:chat 7", "subscribe:chat 8"]);
  three.leave();
  await expect(three.whenJoined()).rejects.toMatchObject({ code: "not_connected" });
  await until(async () => (await fanfare.presence("count", "chat:7")).sessions === 0, "the room to be left");
  expect(sent).toEqual(["subscribe:chat 7", "subscribe:chat 8", "unsubscribe:chat 7"]);
});

test("a room wanted before there is a session is entered with it, and one that nobody wants any more is not", async () => {
  const client = messenger(fanfare, "early");
  const sent = calls(client);
  const room = client.room(CHAT, { chatId: 7 });
  client.room(CHAT, { chatId: 8 }).leave();
  await room.whenJoined();
  expect(sent).toEqual(["subscribe:chat 7"]);
});

test("a wish that is given up before there is a session ends, and one made meanwhile holds", async () => {
  const client = messenger(fanfare, "meanwhile", { autoConnect: false });
  const [one, two] = [client.room(CHAT, { chatId: 7 }), client.room(CHAT, { chatId: 7 })];
  const waiting = expect(one.whenJoined()).rejects.toMatchObject({ code: "not_connected" });
  // Between the end of the one and of the other somebody else comes.
  one.leave();
  const other = new Promise<Room>((resolve) => setTimeout(() => resolve(client.room(CHAT, { chatId: 7 }))));
  two.leave();
  await waiting;
  client.open();
  await (await other).whenJoined();
});

test("a recovered session is in its rooms: nothing is called", async () => {
  const client = messenger(fanfare, "kept");
  const sent = calls(client);
  const joined = vi.fn();
  const recovered = vi.fn();
  client.onRecovered(recovered);
  client.onMissed(() => expect.unreachable("nothing was missed"));
  const seen: number[] = [];
  client.on("message:new", ({ id }) => seen.push(id));
  await client.room(CHAT, { chatId: 7 }, { onJoined: joined }).whenJoined();
  fanfare.proxy.cut();
  await until(() => recovered.mock.calls.length === 1, "the recovery");
  await fanfare.publish("kept", { id: 1 }, ["chat:7"]);
  await until(() => seen.length === 1, "the event");
  expect(sent).toEqual(["subscribe:chat 7"]);
  expect(joined).toHaveBeenCalledTimes(1);
});

test("what was wanted or given up while away is done in the recovered session", async () => {
  const client = messenger(fanfare, "away");
  const sent = calls(client);
  const old = client.room(CHAT, { chatId: 7 });
  await old.whenJoined();
  fanfare.proxy.cut();
  await state(client, "reconnecting");
  old.leave();
  await client.room(CHAT, { chatId: 8 }).whenJoined();
  await until(() => sent.length === 3, "both");
  expect(client.recovered).toBe(true);
  expect(sent.slice(1).sort()).toEqual(["subscribe:chat 8", "unsubscribe:chat 7"]);
});

test("a session that could not be recovered enters its rooms, before it is told to read current state", async () => {
  const client = messenger(brief, "anew");
  const story: string[] = [];
  client.on("message:new", ({ id }) => story.push(`event ${id}`));
  client.onRecovered(() => story.push("recovered"));
  const room = client.room(CHAT, { chatId: 7 }, { onJoined: () => story.push("joined") });
  await room.whenJoined();
  client.onMissed(() => story.push(`missed, ${room.status.getSnapshot().state}`));
  await forget(client, "anew", () => brief.publish("anew", { id: 1 }, ["chat:7"]));
  await until(() => story.length === 3, "the whole story");
  await brief.publish("anew", { id: 2 }, ["chat:7"]);
  await until(() => story.length === 4, "the event");
  expect(story).toEqual(["joined", "joined", "missed, joined", "event 2"]);
  expect(client.recovered).toBe(false);
});

test("a loss during the return does not hide that events were missed", async () => {
  const client = messenger(brief, "twice");
  const missed = vi.fn();
  await client.room(CHAT, { chatId: 7 }).whenJoined();
  client.onMissed(missed);
  // Cut again as soon as it is back, before it can be in its room; the second return is a recovery.
  const recovered = vi.fn();
  client.onRecovered(recovered);
  client.socket.once("connect", () => brief.proxy.cut());
  await forget(client, "twice");
  await until(() => missed.mock.calls.length > 0, "the word that events were missed");
  expect(recovered).toHaveBeenCalledTimes(1);
  expect(missed).toHaveBeenCalledTimes(1);
  expect((await brief.presence("twice", "chat:7")).sessions).toBe(1);
});

test("a server that begins with an empty log: the rooms are entered again, and that events were missed is said", async () => {
  const server = await startServer();
  const bridge = await startBridge(server);
  const client = messenger(bridge, "restart");
  const missed = vi.fn();
  client.onMissed(missed);
  const joined = vi.fn();
  await client.room(CHAT, { chatId: 7 }, { onJoined: joined }).whenJoined();
  await server.kill();
  const again = await startServer([], server.address);
  await until(() => missed.mock.calls.length === 1, "the word that events were missed");
  expect(joined).toHaveBeenCalledTimes(2);
  expect(await client.call("typing:start", { chatId: 7 })).toEqual({ chatId: 7 });
  closeAll();
  await bridge.stop();
  await again.stop();
});

test("many rooms are entered again in spite of the limit on calls", async () => {
  const client = messenger(brief, "many");
  const rooms = Array.from({ length: 60 }, (_, id) => client.room(CHAT, { chatId: id }));
  await Promise.all(rooms.map((room) => room.whenJoined()));
  await forget(client, "many");
  await until(() => rooms.every((room) => room.status.getSnapshot().state === "joined"), "all rooms");
  const sent = calls(client);
  await brief.publish("many", { id: 1 }, ["chat:59"]);
  expect(sent).toEqual([]);
});

test("a refused room says why, leaves the others alone, and is tried again with the next session", async () => {
  let rooms = ["chat:7"];
  const client = messenger(fanfare, "refused", { token: async () => user(1, "refused", { rooms, exp: soon() }), retry: QUICK });
  const allowed = client.room(CHAT, { chatId: 7 });
  const refused = client.room(CHAT, { chatId: 8 });
  await expect(refused.whenJoined()).rejects.toMatchObject({ code: "forbidden" });
  expect(refused.status.getSnapshot()).toMatchObject({ state: "refused", error: { code: "forbidden" } });
  await allowed.whenJoined();
  rooms = ["chat:7", "chat:8"];
  fanfare.proxy.cut();
  await until(() => refused.status.getSnapshot().state === "joined", "the room");
});

test("a token that allows less takes the session out of a room, and the room says so", async () => {
  let rooms = ["chat:7", "chat:8"];
  const client = messenger(fanfare, "less", { token: async () => user(1, "less", { rooms, name: "Zoë", exp: soon() }), retry: QUICK });
  const [kept, lost] = [client.room(CHAT, { chatId: 7 }), client.room(CHAT, { chatId: 8 })];
  await Promise.all([kept.whenJoined(), lost.whenJoined()]);
  rooms = ["chat:7"];
  fanfare.proxy.cut();
  await until(() => lost.status.getSnapshot().state === "refused", "the refusal");
  await kept.whenJoined();
  expect(client.recovered).toBe(true);
});
