// Who may use a room: every way in under every rule, and users who are taken out of a room.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import path from "node:path";
import { call, connect } from "./lib/clients.js";
import { get, QUIET, ROOT, run, start, startBridge, startServer, until, within } from "./lib/fanfare.js";
import { EventStream, poll, RawSocket } from "./lib/plain.js";
import { missing, startStore } from "./lib/stores.js";
import { producer, soon, token, user } from "./lib/tokens.js";

const CATALOG = ["--catalog", path.join(ROOT, "tests/catalogs-access")];
const ADMIN = token({ sub: "ops", tenant: "*", scopes: ["admin"], exp: soon() });
const RECONNECT = { reconnection: true, reconnectionDelay: 10, reconnectionDelayMax: 50 };

/** A unary RPC as JSON over HTTP; fails with its `code`. */
async function rpc(server, method, request, bearer) {
  const headers = { "content-type": "application/json", authorization: `Bearer ${bearer}` };
  const response = await get(`${server.url}/${method}`, { method: "POST", headers, body: JSON.stringify(request) });
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(body.message), { code: body.code });
  return body;
}

/** A Subscribe stream over gRPC-Web: `status` resolves with its status, or with 0 when it has begun. */
async function subscribe(server, room, bearer) {
  const name = Buffer.from(room);
  const message = Buffer.concat([Buffer.from([0x12, name.length]), name]);
  const frame = Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]);
  const abort = new AbortController();
  const headers = { "content-type": "application/grpc-web+proto", authorization: `Bearer ${bearer}` };
  const response = await within(fetch(`${server.url}/fanfare.v1.Realtime/Subscribe`, { method: "POST", headers, body: frame, signal: abort.signal }), "the stream");
  const known = response.headers.get("grpc-status");
  if (known) return { status: Number(known), close: () => abort.abort() };
  const reader = response.body.getReader();
  const first = await within(reader.read(), "the first message");
  let text = "";
  const ended = (async () => {
    for (let part = first; !part.done; part = await reader.read()) text += Buffer.from(part.value).toString("latin1");
    return Number(/grpc-status: ?(\d+)/i.exec(text)?.[1]);
  })();
  ended.catch(() => {});
  return { status: first.value[0] & 0x80 ? await ended : 0, ended, close: () => abort.abort() };
}

const allowed = (promise) => promise.then(() => true, (error) => {
  assert.ok(["permission_denied", "forbidden"].includes(error.code ?? error.body?.code ?? error.body?.error?.code) || error.status === 403, String(error.message));
  return false;
});
const answered = async (promise) => {
  const { error } = await promise;
  if (error) assert.equal(error.code, "forbidden");
  return !error;
};

describe("every way in, under every rule", () => {
  let fanfare;
  before(async () => {
    fanfare = await start({
      serverArgs: [...QUIET, ...CATALOG],
      bridgeArgs: ["--user-calls-burst", "2000", "--user-calls-per-second", "2000", "--poll-wait", "100ms"],
    });
  });
  after(() => fanfare?.stop());

  // [room, the token's claim, may enter and read, may publish without being in it, and while in it]
  const MATRIX = [
    ["lobby:1", undefined, true, true, true],
    ["lobby:1", ["lobby:1"], true, true, true],
    ["lobby:1", ["lobby:2"], false, false, undefined],
    ["vip:1", undefined, false, false, undefined],
    ["vip:1", ["vip:1"], true, true, true],
    ["vip:1", ["vip:2"], false, false, undefined],
    ["stage:1", undefined, true, false, true],
    ["stage:1", ["stage:1"], true, false, true],
    ["stage:1", [], false, false, undefined],
  ];
  for (const [room, rooms, enters, publishes, publishesInside] of MATRIX) {
    test(`${room} with ${rooms ? `rooms ${JSON.stringify(rooms)}` : "no rooms claim"}`, async () => {
      const { server, bridge } = fanfare;
      const [kind, id] = room.split(":");
      const bearer = user(7, "matrix", rooms && { rooms });
      const service = `club.v1.${kind[0].toUpperCase()}${kind.slice(1)}Client`;
      const socket = await connect(bridge.url, bearer);
      const found = {
        say: await answered(call(socket, `${kind}:say`, { id })),
        sayByGrpc: await allowed(rpc(server, `${service}/Say`, { id }, bearer)),
        hear: await answered(call(socket, `${kind}:hear`, { id })),
        hearByGrpc: await allowed(rpc(server, `${service}/Hear`, { id }, bearer)),
        who: await answered(call(socket, `${kind}:who`, { id })),
        history: await allowed(rpc(server, "fanfare.v1.Realtime/GetHistory", { room }, bearer)),
        presence: await allowed(rpc(server, "fanfare.v1.Realtime/GetPresence", { room }, bearer)),
        join: await answered(call(socket, `${kind}:join`, { id })),
        poll: await allowed(poll(bridge.url, { token: bearer, room })),
        sse: await allowed(EventStream.open(bridge.url, { token: bearer, room }).then((stream) => stream.close())),
      };
      const stream = await subscribe(server, room, bearer);
      found.subscribe = stream.status === 0;
      stream.close();
      const raw = new RawSocket(bridge.url, { token: bearer, room, after: "" });
      found.websocket = await Promise.race([
        raw.closed.then(() => false),
        raw.opened.then(async () => {
          raw.send({ type: `${kind}:hear`, id, ref: 1 });
          return Promise.race([raw.closed.then(() => false), raw.message("ack").then(() => true)]);
        }),
      ]);
      await raw.close();
      assert.deepStrictEqual(found, {
        say: publishes, sayByGrpc: publishes, hear: enters, hearByGrpc: enters, who: enters, history: enters,
        presence: enters, join: enters, poll: enters, sse: enters, subscribe: enters, websocket: enters,
      });
      if (enters) assert.equal(await answered(call(socket, `${kind}:say`, { id })), publishesInside);
      socket.close();
    });
  }

  test("services are not restricted", async () => {
    const { events } = await rpc(fanfare.server, "fanfare.v1.Realtime/GetHistory", { room: "vip:1" }, producer("matrix"));
    assert.ok(events.length > 0);
    await rpc(fanfare.server, "fanfare.v1.Realtime/GetPresence", { room: "vip:1" }, producer("matrix"));
  });

  test("a session that is recovered with a token that allows less is not in the room any more", async () => {
    const { server, bridge } = fanfare;
    const socket = await connect(bridge.url, user(8, "less", { rooms: ["vip:1", "lobby:1"] }), RECONNECT);
    for (const kind of ["vip", "lobby"]) await call(socket, `${kind}:join`, { id: "1" });
    socket.auth = { token: user(8, "less", {}) };
    const back = within(new Promise((resolve) => socket.once("connect", resolve)), "the client to be back");
    socket.io.engine.close();
    await back;
    assert.equal(socket.recovered, true);
    // The bridge reports the rooms just after its answer to the client.
    const rooms = async () => (await rpc(server, "fanfare.v1.Realtime/GetPresence", {}, producer("less"))).users[0].sessions[0].rooms;
    await until(async () => (await rooms()).includes("lobby:1"), "the session in its room");
    assert.deepStrictEqual((await rooms()).sort(), ["lobby:1", "org", "user:8"]);
    socket.close();
  });
});

test("fanfare check warns of rooms that are open to the tenant without being declared", async () => {
  const { code, stdout } = await run(["check", "--catalog", path.join(ROOT, "tests/catalogs")]);
  assert.equal(code, 0);
  assert.match(stdout, /warning: rooms of the kind "order" are open to every user of the tenant/);
  assert.doesNotMatch((await run(["check", ...CATALOG])).stdout, /warning/);
});

const STORES = ["memory", "redis"];
for (const kind of STORES) {
  describe(`RemoveFromRoom on ${kind}`, { skip: kind === "redis" && missing("redis") }, () => {
    let store, servers, bridges;
    before(async () => {
      store = kind === "redis" ? await startStore("redis") : undefined;
      const args = [...QUIET, ...CATALOG, ...(store?.serverArgs ?? [])];
      servers = [await startServer(args)];
      if (store) servers.push(await startServer(args));
      bridges = [await startBridge(servers[0]), await startBridge(servers.at(-1))];
    });
    after(async () => {
      for (const one of [...(bridges ?? []), ...(servers ?? [])]) await one.stop();
      await store?.stop();
    });

    const remove = (userId, room, bearer = ADMIN) => rpc(servers[0], "fanfare.v1.Realtime/RemoveFromRoom", { tenant: "5", userId: String(userId), room }, bearer);
    const members = async (room) => (await rpc(servers[0], "fanfare.v1.Realtime/GetPresence", { room }, producer("5"))).users.map((u) => u.userId);
    const heard = (socket) => socket.events.filter(([name]) => name === "lobby:said").length;

    test("the user's sessions leave the room on every bridge, and nobody else's", async () => {
      const sockets = [await connect(bridges[0].url, user(1, "5")), await connect(bridges[1].url, user(1, "5")), await connect(bridges[1].url, user(2, "5"))];
      for (const socket of sockets) await call(socket, "lobby:join", { id: "1" });
      const streams = await Promise.all(servers.map((server) => subscribe(server, "lobby:1", user(1, "5"))));
      const other = await subscribe(servers[0], "lobby:1", user(2, "5"));
      assert.equal((await remove(1, "lobby:1")).sessions, 2);
      for (const stream of streams) assert.equal(await within(stream.ended, "the subscription to end"), 7);
      await until(async () => (await members("lobby:1")).join() === "2", "the room to be left");
      // What is said is heard by the other alone; after the answer of a later call nothing can be on its way.
      const admitted = async () => {
        await call(sockets[2], "lobby:say", { id: "1" });
        await sockets[2].event("lobby:said");
        for (const socket of sockets) await call(socket, "lobby:who", { id: "1" });
      };
      await until(async () => {
        const before = sockets.map(heard);
        await admitted();
        return sockets.map((socket, i) => heard(socket) - before[i]).join() === "0,0,1";
      }, "the removal to reach both bridges");
      // It is no ban.
      await call(sockets[0], "lobby:join", { id: "1" });
      await call(sockets[2], "lobby:say", { id: "1" });
      await until(() => heard(sockets[0]) > 0, "the event after joining again");
      assert.deepStrictEqual((await members("lobby:1")).sort(), ["1", "2"]);
      other.close();
      sockets.forEach((socket) => socket.close());
    });

    test("recovery does not bring the room back", async () => {
      const [ada, bob] = [await connect(bridges[1].url, user(3, "5"), RECONNECT), await connect(bridges[0].url, user(4, "5"))];
      for (const socket of [ada, bob]) await call(socket, "lobby:join", { id: "2" });
      ada.io.reconnection(false);
      const lost = within(new Promise((resolve) => ada.once("disconnect", resolve)), "the loss");
      ada.io.engine.close();
      await lost;
      await until(async () => (await remove(3, "lobby:2")).sessions === 0, "the loss to be known");
      await call(bob, "lobby:say", { id: "2" });
      const back = within(new Promise((resolve) => ada.once("connect", resolve)), "the client to be back");
      ada.connect();
      await back;
      assert.equal(ada.recovered, true);
      await call(ada, "lobby:who", { id: "2" });
      assert.equal(heard(ada), 0);
      assert.deepStrictEqual(await members("lobby:2"), ["4"]);
      [ada, bob].forEach((socket) => socket.close());
    });

    test("it needs the scope admin, and a room that can be left", async () => {
      await assert.rejects(remove(1, "lobby:1", producer("5")), { code: "permission_denied" });
      await assert.rejects(remove(1, "lobby:1", user(1, "5")), { code: "permission_denied" });
      await assert.rejects(remove(1, "org"), { code: "invalid_argument" });
      await assert.rejects(remove(1, "user:1"), { code: "invalid_argument" });
      await assert.rejects(remove("", "lobby:1"), { code: "invalid_argument" });
      assert.equal((await remove("nobody", "lobby:1")).sessions, 0);
    });
  });
}
