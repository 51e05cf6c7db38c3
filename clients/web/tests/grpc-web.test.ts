// Subscriptions over gRPC-Web against a real server, through a proxy that cuts.

import { createServer, type Server } from "node:net";
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { afterAll, beforeAll, expect, expectTypeOf, test } from "vitest";
import { CallError, type Item, type SubscribeOptions, subscribe } from "@fanfare/client/grpc-web";
import { startServer, until } from "../../../tests/lib/fanfare.js";
import { Producer } from "../../../tests/lib/producer.js";
import { Proxy } from "../../../tests/lib/proxy.js";
import { producer, soon, user } from "../../../tests/lib/tokens.js";
import { Realtime } from "./generated/fanfare/v1/realtime_pb.js";
import { Messenger, type MessengerEvent } from "./generated/messenger/v1/messenger_pb.js";

let server: Awaited<ReturnType<typeof startServer>>;
let python: Producer;
let proxy: Proxy;

beforeAll(async () => {
  server = await startServer(["--heartbeat-interval", "100ms", "--jwt-leeway", "0s", "--retention-events", "1000"]);
  python = new Producer(server.address);
  proxy = await Proxy.to(server.address);
});
afterAll(async () => {
  python.close();
  proxy.close();
  await server.stop();
});

const QUICK = { minMs: 20, maxMs: 50 };
const messenger = (baseUrl = proxy.url) => createClient(Messenger, createGrpcWebTransport({ baseUrl }));
const publish = (tenant: string, id: number, to = python) =>
  to.call(producer(tenant), "messenger.v1.Messenger/NotifyNewMessage", { event: { id, chatId: 7, content: "x", channel: "CHANNEL_WABA" } });

/** Reads a subscription into lists. */
function read(tenant: string, options: Partial<SubscribeOptions> = {}, open = messenger().subscribe) {
  const stop = new AbortController();
  const ids: number[] = [];
  const items: Item<MessengerEvent>[] = [];
  const retries: CallError[] = [];
  const all = subscribe(open, {
    rooms: ["org"], token: async () => user(1, tenant), signal: stop.signal, retry: QUICK, onRetry: (error) => retries.push(error), ...options,
  });
  const ended = (async () => {
    for await (const item of all) {
      items.push(item);
      if (item.type === "event" && item.event.case === "newMessage") ids.push(Number(item.event.value.id));
    }
  })();
  ended.catch(() => {});
  return { ids, items, retries, ended, stop: () => stop.abort(), ready: () => until(() => items.length > 0, "the first item") };
}

test("over cut connections every event comes exactly once and in order, and the signal ends the loop", async () => {
  const one = read("cut");
  await one.ready();
  expect(one.items[0]).toMatchObject({ type: "position" });
  for (let id = 1; id <= 60; id += 1) {
    await publish("cut", id);
    if (id % 20 !== 0) continue;
    const before = one.retries.length;
    proxy.cut();
    await publish("cut", 1000 + id);
    await until(() => one.retries.length > before, "the loss");
  }
  await until(() => one.ids.length >= 63, "all events");
  expect(one.ids).toEqual(Array.from({ length: 60 }, (_, i) => i + 1).flatMap((id) => (id % 20 === 0 ? [id, 1000 + id] : [id])));
  expect(one.retries.every((error) => error.retry)).toBe(true);
  one.stop();
  await one.ended;
});

test("a token that expires is followed by another, and nothing is missed", async () => {
  const ends: number[] = [];
  const one = read("token", {
    token: async () => {
      ends.push(soon(2));
      return user(1, "token", { exp: ends.at(-1) });
    },
  });
  await one.ready();
  let sent = 0;
  while (ends.length < 3) await publish("token", ++sent);
  await until(() => one.ids.length >= sent, "all events");
  expect(one.ids).toEqual(Array.from({ length: sent }, (_, i) => i + 1));
  expect(one.retries.map((error) => error.code)).toContain("token_expired");
  one.stop();
  await one.ended;
});

test("a token that stays expired, none, a wrong one and a foreign room end it with a reason", async () => {
  const expired = user(1, "end", { exp: soon(-60) });
  await expect(read("end", { token: async () => expired }).ended).rejects.toMatchObject({ code: "token_expired" });
  await expect(read("end", { token: async () => null }).ended).rejects.toMatchObject({ code: "no_token" });
  await expect(read("end", { token: async () => "nonsense" }).ended).rejects.toMatchObject({ code: "invalid_token" });
  await expect(read("end", { rooms: ["user:2"] }).ended).rejects.toBeInstanceOf(CallError);
  await expect(read("end", { rooms: ["user:2"] }).ended).rejects.toMatchObject({ code: "forbidden" });
});

test("a log that does not reach back is said, and reading goes on behind it", async () => {
  const lost = await startServer(["--jwt-leeway", "0s", "--heartbeat-interval", "100ms"]);
  const first = new Producer(lost.address);
  const way = await Proxy.to(lost.address);
  const one = read("reset", {}, messenger(way.url).subscribe);
  await one.ready();
  await publish("reset", 1, first);
  await until(() => one.ids.length === 1, "the event");
  // In memory: the log is gone with the server.
  await lost.stop();
  const again = await startServer(["--jwt-leeway", "0s", "--heartbeat-interval", "100ms"], lost.address);
  const second = new Producer(again.address);
  await until(() => one.items.some((item) => item.type === "reset"), "the reset");
  await publish("reset", 2, second);
  await until(() => one.ids.length === 2, "the event after it");
  const kinds = one.items.map((item) => item.type);
  expect(kinds.filter((kind) => kind === "reset")).toHaveLength(1);
  expect(kinds.lastIndexOf("event")).toBeGreaterThan(kinds.indexOf("reset"));
  one.stop();
  await one.ended;
  first.close();
  second.close();
  way.close();
  await again.stop();
});

test("a silent stream is given up, and resumed elsewhere", async () => {
  // Takes connections and never says anything.
  const silent: Server = createServer();
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const { port } = silent.address() as { port: number };
  const [deaf, good] = [messenger(`http://127.0.0.1:${port}`), messenger()];
  let tries = 0;
  const one = read("silent", { silenceMs: 3000 }, (request, options) => (tries++ === 0 ? deaf : good).subscribe(request, options));
  await one.ready();
  expect(one.retries.map((error) => error.message)).toEqual(["the stream was silent for 3000 ms"]);
  // Heartbeats are life enough.
  await until(() => one.items.length > 8, "heartbeats");
  expect(tries).toBe(2);
  one.stop();
  await one.ended;
  silent.close();
});

test("who leaves the loop ends the stream, and who comes back with the cursor goes on", async () => {
  const all = subscribe(messenger().subscribe, { rooms: ["org"], token: async () => user(1, "leave") });
  let after = "";
  for await (const item of all) {
    // Heartbeats may come between.
    const first = after === "";
    if (item.cursor) after = item.cursor;
    if (first) await publish("leave", 1);
    if (first) await publish("leave", 2);
    if (item.type === "event") break;
  }
  const one = read("leave", { after });
  await until(() => one.ids.length > 0, "the next event");
  expect(one.ids).toEqual([2]);
  one.stop();
  await one.ended;
});

test("what is never stored is no place to resume at", async () => {
  const one = read("typing", { rooms: ["chat:7"] });
  await one.ready();
  await python.call(producer("typing"), "messenger.v1.Messenger/NotifyTypingStart", { event: { chatId: 7, userId: "2" } });
  await until(() => one.items.some((item) => item.type === "event"), "the event");
  expect(one.items.find((item) => item.type === "event")).toMatchObject({ cursor: undefined, event: { case: "typingStart" } });
  proxy.cut();
  await until(() => one.retries.length > 0, "the loss");
  const count = one.items.length;
  await until(() => one.items.length > count, "the resumed stream");
  expect(one.items.filter((item) => item.type === "reset")).toEqual([]);
  one.stop();
  await one.ended;
});

test("the general Subscribe works as well, and both are typed", async () => {
  const open = createClient(Realtime, createGrpcWebTransport({ baseUrl: proxy.url })).subscribe;
  const seen: string[] = [];
  for await (const item of subscribe(open, { rooms: ["org"], token: async () => user(1, "general") })) {
    if (seen.length === 0) {
      seen.push("position");
      await publish("general", 1);
    }
    if (item.type !== "event") continue;
    expectTypeOf(item.event.case).toEqualTypeOf<"event">();
    expectTypeOf(item.event.value.rooms).toEqualTypeOf<string[]>();
    seen.push(item.event.value.payload?.typeUrl ?? "");
    break;
  }
  expect(seen).toEqual(["position", "type.googleapis.com/messenger.v1.NewMessage"]);
  type TypedEvent = Extract<Item<MessengerEvent>, { type: "event" }>["event"];
  expectTypeOf<Extract<TypedEvent, { case: "newMessage" }>["value"]["content"]>().toEqualTypeOf<string>();
  expectTypeOf<undefined>().not.toMatchTypeOf<TypedEvent["case"]>();
});
