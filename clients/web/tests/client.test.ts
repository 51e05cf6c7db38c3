// The client against a real server and bridge.

import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { CallError } from "@fanfare/client";
import { startBridge, startServer, until } from "../../../tests/lib/fanfare.js";
import { soon, token, user } from "../../../tests/lib/tokens.js";
import { CHAT, type Messenger, QUICK, type World, closeAll, messenger, state, states, world } from "./world.js";

let fanfare: World;

beforeAll(async () => {
  fanfare = await world({ serverArgs: ["--presence-grace", "500ms"] });
});
afterEach(closeAll);
afterAll(() => fanfare.stop());

const count = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);

test("over many lost connections every event comes exactly once and in order", async () => {
  const client = messenger(fanfare, "once");
  const seen: number[] = [];
  const recoveries: boolean[] = [];
  client.on("message:new", (message, cursor) => {
    expect(cursor).toMatch(/^[0-9a-f]{12}-\d+(-[0-9a-f]{16})?$/);
    seen.push(message.id);
  });
  client.onRecovered(() => recoveries.push(client.recovered));
  client.onMissed(() => expect.unreachable("nothing was missed"));
  const chat = client.room(CHAT, { chatId: 7 });
  await chat.whenJoined();
  for (const id of count(200)) {
    await fanfare.publish("once", { id }, ["chat:7"]);
    if (id % 40 === 0) {
      const before = recoveries.length;
      fanfare.proxy.cut();
      await fanfare.publish("once", { id: 1000 + id }, ["chat:7"]);
      await until(() => recoveries.length > before, "the recovery");
    }
  }
  const sent = count(200).flatMap((id) => (id % 40 === 0 ? [id, 1000 + id] : [id]));
  await until(() => seen.length >= sent.length, "all events");
  expect(seen).toEqual(sent);
  expect(recoveries).toEqual(count(5).map(() => true));
});

test("a token is asked for before each connection, and the session outlives it without a gap or a visible break", async () => {
  let asked = 0;
  // Under way when the connection is about to be changed: none of these may be lost.
  const underWay: Promise<unknown>[] = [];
  const client: Messenger = messenger(fanfare, "refresh", {
    token: async () => {
      asked += 1;
      if (asked > 1) underWay.push(client.call("typing:start", { chatId: 7 }));
      return user(1, "refresh", { exp: soon(8) });
    },
  });
  const seen: number[] = [];
  const rooms: string[] = [];
  client.on("message:new", ({ id }) => seen.push(id));
  client.onMissed(() => expect.unreachable("nothing was missed"));
  await client.room(CHAT, { chatId: 7 }, { onJoined: () => rooms.push("joined") }).whenJoined();
  const history = states(client);
  const session = client.socket.id;
  let sent = 0;
  let answers = 0;
  while (asked < 4) {
    sent += 1;
    await fanfare.publish("refresh", { id: sent }, ["chat:7"]);
    // Not so often that the server minds.
    if (sent % 15 !== 0) continue;
    await client.call("typing:start", { chatId: 7 });
    answers += 1;
  }
  await until(() => seen.length >= sent, "all events");
  expect(seen).toEqual(count(sent));
  expect(answers).toBeGreaterThan(2);
  expect((await Promise.allSettled(underWay)).map((one) => one.status)).toEqual(underWay.map(() => "fulfilled"));
  await until(() => client.socket.id, "the session");
  expect(client.socket.id).toBe(session);
  expect(rooms).toEqual(["joined"]);
  expect(history).toEqual(["connected"]);
});

test("a session whose token the server sees expire comes back with another one", async () => {
  // So short that the client leaves it to the server.
  const ends = [1, 3600];
  const client = messenger(fanfare, "late", {
    token: async () => {
      await until(() => Date.now() % 1000 < 200, "the beginning of a second");
      return user(1, "late", { exp: soon(ends.shift()) });
    },
  });
  const seen: number[] = [];
  const history = states(client);
  client.on("message:new", ({ id }) => seen.push(id));
  await state(client, "connected");
  await fanfare.publish("late", { id: 1 });
  await until(() => ends.length === 0, "another token");
  await state(client, "connected");
  await fanfare.publish("late", { id: 2 });
  await until(() => seen.length === 2, "both events");
  expect(client.recovered).toBe(true);
  expect(history).toEqual(["connecting", "connected", "reconnecting", "connected"]);
});

test("a token that stays expired ends the connection, and so does having none", async () => {
  const expired = user(1, "end", { exp: soon(-60) });
  const old = messenger(fanfare, "end", { token: async () => expired });
  await state(old, "ended");
  expect(old.status.getSnapshot()).toMatchObject({ reason: { code: "token_expired" } });
  const always = vi.fn(async () => user(1, "end", { exp: soon(-60 - always.mock.calls.length) }));
  await state(messenger(fanfare, "end", { token: always }), "ended");
  expect(always).toHaveBeenCalledTimes(4);
  const nobody = messenger(fanfare, "end", { token: async () => null });
  await state(nobody, "ended");
  expect(nobody.status.getSnapshot()).toMatchObject({ reason: { code: "no_token" } });
  await expect(nobody.call("typing:start", { chatId: 1 })).rejects.toMatchObject({ code: "not_connected" });
});

test("a token that cannot be got now is asked for again", async () => {
  const give = vi.fn(async () => user(1, "flaky"));
  give.mockRejectedValueOnce(new Error("no network")).mockImplementationOnce(() => { throw new Error("a bug"); });
  const client = messenger(fanfare, "flaky", { token: give });
  const history = states(client);
  await state(client, "connected");
  expect(give).toHaveBeenCalledTimes(3);
  expect(history).toEqual(["connecting", "connected"]);
});

test("final refusals and endings end; what may pass is tried again", async () => {
  const refused = messenger(fanfare, "final", { token: async () => "nonsense" });
  await state(refused, "ended");
  expect(refused.status.getSnapshot()).toEqual({ state: "ended", reason: { code: "invalid_token", message: "Authentication failed: Invalid token" } });

  const admin = token({ sub: "ops", tenant: "final", scopes: ["admin"], exp: soon() });
  const client = messenger(fanfare, "final");
  await state(client, "connected");
  const history = states(client);
  await fanfare.disconnect(admin, { userId: "1", reconnect: true });
  await until(() => history.length === 3, "the reconnection");
  expect(history).toEqual(["connected", "reconnecting", "connected"]);
  await fanfare.disconnect(admin, { userId: "1", message: "Too many cats" });
  await state(client, "ended");
  expect(client.status.getSnapshot()).toMatchObject({ reason: { code: "disconnected", message: "Too many cats" } });
  // The application may think otherwise.
  const missed = vi.fn();
  client.onMissed(missed);
  client.open();
  await until(() => missed.mock.calls.length === 1, "the word that events may have been missed");
  await client.call("typing:start", { chatId: 1 });
});

test("too many sessions of a user: refused for now, and tried again", async () => {
  const limited = await world({ serverArgs: ["--sessions-per-user-max", "1"] });
  const first = messenger(limited, "many");
  await state(first, "connected");
  const second = messenger(limited, "many");
  await until(() => {
    const status = second.status.getSnapshot();
    return status.state === "connecting" && status.cause?.code === "limit";
  }, "the refusal");
  first.close();
  await state(second, "connected");
  closeAll();
  await limited.stop();
});

test("calls are answered, refused with a reason, or end in time", async () => {
  const client = messenger(fanfare, "calls");
  // Before there is a session: it waits.
  expect(await client.call("subscribe:chat", { chatId: 7 }, { timeout: Infinity })).toEqual({ chatId: 7 });
  const wrong = client.call("subscribe:chat", { chatId: "seven" as unknown as number });
  await expect(wrong).rejects.toBeInstanceOf(CallError);
  await expect(wrong).rejects.toMatchObject({ code: "invalid_argument", path: "chatId", retry: false });
  const flood = await Promise.allSettled(count(180).map(() => client.call("typing:start", { chatId: 7 })));
  const limited = flood.find((one) => one.status === "rejected");
  expect(limited?.reason).toMatchObject({ code: "limit", retry: true, retryAfterMs: expect.any(Number) });

  const lost = messenger(fanfare, "calls");
  await state(lost, "connected");
  const answer = lost.call("typing:start", { chatId: 7 });
  fanfare.proxy.cut();
  await expect(answer).rejects.toMatchObject({ code: "no_answer", retry: true });

  const away = messenger({ url: "http://127.0.0.1:9" }, "calls");
  await expect(away.call("typing:start", { chatId: 7 }, { timeout: 50 })).rejects.toMatchObject({ code: "not_connected", retry: true });
  const stop = new AbortController();
  const given = away.call("typing:start", { chatId: 7 }, { signal: stop.signal });
  stop.abort();
  await expect(given).rejects.toMatchObject({ code: "not_connected" });
  const waiting = [...count(129)].map(() => away.call("typing:start", { chatId: 7 }));
  await expect(waiting.pop()).rejects.toMatchObject({ code: "not_connected" });
  const ended = Promise.allSettled(waiting);
  away.close();
  expect((await ended).every((one) => one.status === "rejected" && one.reason.code === "not_connected")).toBe(true);
});

test("handlers: once, off, and one that throws disturbs nobody", async () => {
  const client = messenger(fanfare, "handlers");
  const [all, once, off] = [vi.fn(), vi.fn(), vi.fn()];
  const thrown: unknown[] = [];
  vi.stubGlobal("reportError", (error: unknown) => thrown.push(error));
  client.on("message:new", () => { throw new Error("a bug"); });
  client.on("message:new", all);
  client.once("message:new", once);
  client.on("message:new", off);
  client.off("message:new", off);
  const stop = client.on("message:new", off);
  stop();
  await state(client, "connected");
  for (const id of count(3)) await fanfare.publish("handlers", { id });
  await until(() => all.mock.calls.length === 3, "the events");
  expect([once.mock.calls.length, off.mock.calls.length, thrown.length]).toEqual([1, 0, 3]);
  // The place in the log is kept although a handler threw: nothing comes twice.
  fanfare.proxy.cut();
  await fanfare.publish("handlers", { id: 4 });
  await until(() => all.mock.calls.length === 4, "the event");
  expect(all.mock.calls.map(([message]) => message.id)).toEqual([1, 2, 3, 4]);
  client.close();
  vi.unstubAllGlobals();
});

test("a bridge that is not there yet is waited for, with longer and longer pauses", async () => {
  const client = messenger({ url: "http://127.0.0.1:9" }, "wait", { retry: { minMs: 10, maxMs: 40 } });
  await until(() => {
    const status = client.status.getSnapshot();
    return status.state === "connecting" && status.attempt >= 4 && status.cause?.code === "unreachable";
  }, "some attempts");
  expect(client.recovered).toBe(false);
  client.close();
  expect(client.status.getSnapshot()).toMatchObject({ state: "ended", reason: { code: "closed" } });
});

test("pauses do not begin anew for connections that do not last", async () => {
  const client = messenger(fanfare, "brief", { retry: QUICK });
  const attempts: number[] = [];
  client.status.subscribe(() => {
    const status = client.status.getSnapshot();
    if (status.state === "reconnecting") attempts.push(status.attempt);
  });
  for (const n of count(3)) {
    await state(client, "connected");
    fanfare.proxy.cut();
    await until(() => attempts.length === n, "the loss");
  }
  expect(attempts).toEqual([1, 2, 3]);
});

test("while the bridge has no server the pauses grow, and then it connects", async () => {
  const server = await startServer();
  const bridge = await startBridge(server, ["--connect-timeout", "1s"]);
  await server.kill();
  const client = messenger(bridge, "alone");
  await until(() => {
    const status = client.status.getSnapshot();
    return status.state === "connecting" && status.attempt > 3;
  }, "some attempts");
  const again = await startServer([], server.address);
  await state(client, "connected");
  closeAll();
  await bridge.stop();
  await again.stop();
});

test("who ends it when told of a change has ended it", async () => {
  for (const moment of ["reconnecting", "connected"] as const) {
    const token = vi.fn(async () => user(1, "ended"));
    const client = messenger(fanfare, "ended", { token, autoConnect: false });
    if (moment === "reconnecting") {
      client.open();
      await state(client, "connected");
    }
    const off = client.status.subscribe(() => client.status.getSnapshot().state === moment && client.close());
    if (moment === "reconnecting") fanfare.proxy.cut();
    else client.open();
    await state(client, "ended");
    off();
    const asked = token.mock.calls.length;
    // Another one, that is lost later, has had its pause and is back.
    const other = messenger(fanfare, "ended", { retry: { minMs: 200, maxMs: 200 } });
    await state(other, "connected");
    fanfare.proxy.cut();
    await state(other, "reconnecting");
    await state(other, "connected");
    expect(client.status.getSnapshot().state).toBe("ended");
    expect(token).toHaveBeenCalledTimes(asked);
    await expect(client.call("typing:start", { chatId: 7 })).rejects.toMatchObject({ code: "not_connected" });
  }
});
