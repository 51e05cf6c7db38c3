// Servers that share a store are one: whichever a producer, a bridge or an operator talks to.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { admin, client, Stream, web } from "./lib/admin.js";
import { call, connect } from "./lib/clients.js";
import { startBridge, startServer, until, within } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { missing, startStore } from "./lib/stores.js";
import { producer, soon, token, user } from "./lib/tokens.js";

const { Admin } = web;
const RECONNECT = { reconnection: true, reconnectionDelay: 10, reconnectionDelayMax: 50 };
const ids = (socket) => socket.events.filter(([name]) => name === "message:new").map(([, m]) => m.id);
const told = (socket, userId) => socket.events.filter(([name, p]) => /^user_(on|off)line$/.test(name) && p.userId === userId).map(([name]) => name);

before(() => generateStubs());

for (const kind of ["redis", "nats"]) {
  describe(`two servers on ${kind}`, { skip: missing(kind) }, () => {
    let store, servers, bridges, producers;

    before(async () => {
      store = await startStore(kind);
      const args = [...store.serverArgs, "--presence-catalog", "chat.v1", "--presence-grace", "2s"];
      servers = [await startServer([...args, "--server-name", "one"]), await startServer([...args, "--server-name", "two"])];
      bridges = [await startBridge(servers[0], ["--bridge-name", "left"]), await startBridge(servers[1], ["--bridge-name", "right"])];
      producers = servers.map((server) => new Producer(server.address));
    });

    after(async () => {
      producers?.forEach((one) => one.close());
      for (const one of [...(bridges ?? []), ...(servers ?? [])]) await one.stop();
      await store?.stop();
    });

    const notify = (at, tenant, id, rooms = ["org"]) =>
      producers[at].call(producer(tenant), "messenger.v1.Messenger/NotifyNewMessage", { target: { rooms }, event: { id, chatId: "7", content: "x", channel: "CHANNEL_WABA" } });
    const presence = (at, tenant) => producers[at].call(producer(tenant), "fanfare.v1.Realtime/GetPresence", {});

    test("what one server takes, sessions of both get, once and in one order", async () => {
      const sockets = [await connect(bridges[0].url, user(1, "order")), await connect(bridges[1].url, user(2, "order"))];
      await Promise.all(Array.from({ length: 40 }, (_, id) => notify(id % 2, "order", id + 1)));
      for (const socket of sockets) await until(() => ids(socket).length >= 40, "all events");
      assert.deepStrictEqual(ids(sockets[0]), ids(sockets[1]));
      assert.deepStrictEqual([...ids(sockets[0])].sort((a, b) => a - b), Array.from({ length: 40 }, (_, id) => id + 1));
      sockets.forEach((socket) => socket.close());
    });

    test("an idempotency key counts on both", async () => {
      const send = (at) => producers[at].call(producer("keys"), "messenger.v1.Messenger/NotifyNewMessage", { target: { rooms: ["org"], idempotencyKey: "k" }, event: { id: 1, chatId: "7", content: "x", channel: "CHANNEL_WABA" } });
      const first = await send(0);
      const again = await send(1);
      assert.deepStrictEqual([again.id, again.duplicate], [first.id, true]);
    });

    test("who is there is known on both, and told once", async () => {
      const witness = await connect(bridges[1].url, user(9, "who"));
      const ada = await connect(bridges[0].url, user(1, "who"));
      const again = await connect(bridges[1].url, user(1, "who"));
      for (const at of [0, 1]) await until(async () => (await presence(at, "who")).sessionCount === "3", "three sessions");
      assert.deepStrictEqual((await presence(0, "who")).users.map((u) => [u.userId, u.sessions.length]), [["1", 2], ["9", 1]]);
      ada.close();
      again.close();
      await until(() => told(witness, "1").length >= 2, "the user to come and go");
      assert.deepStrictEqual(told(witness, "1"), ["user_online", "user_offline"]);
      witness.close();
    });

    test("a session is ended through the other server", async () => {
      const socket = await connect(bridges[0].url, user(1, "end"));
      const gone = new Promise((resolve) => socket.once("disconnect", resolve));
      await until(async () => (await presence(1, "end")).sessionCount === "1", "the session");
      const ops = token({ sub: "ops", tenant: "end", scopes: ["admin"], exp: soon() });
      const { sessions } = await producers[1].call(ops, "fanfare.v1.Realtime/Disconnect", { userId: "1" });
      assert.equal(sessions, 1);
      await within(gone, "the end of the session");
      socket.close();
    });

    test("a client that returns to a bridge of the other server goes on where it was", async () => {
      const socket = await connect(bridges[0].url, user(1, "move"), RECONNECT);
      await call(socket, "subscribe:chat", { chatId: 7 });
      const { id } = socket;
      await notify(0, "move", 1, ["chat:7"]);
      await socket.event("message:new");
      socket.io.reconnection(false);
      const gone = new Promise((resolve) => socket.once("disconnect", resolve));
      socket.io.engine.close();
      await within(gone, "the disconnect");
      await notify(1, "move", 2, ["chat:7"]);
      socket.io.uri = bridges[1].url;
      const back = new Promise((resolve) => socket.once("connect", resolve));
      socket.connect();
      await within(back, "the client to be back");
      await until(() => ids(socket).length >= 2, "what was missed");
      assert.deepStrictEqual([socket.recovered, socket.id, ids(socket)], [true, id, [1, 2]]);
      socket.close();
    });

    test("an operator sees both servers and the bridges of both, and inspects a session of the other one", async () => {
      const api = client(Admin, servers[0].url, admin());
      await until(async () => (await api.getServer({})).servers.length === 2, "both servers");
      const seen = await api.getServer({});
      assert.deepStrictEqual(seen.servers.map((one) => one.name), ["one", "two"]);
      assert.deepStrictEqual(seen.bridges.map((one) => one.name), ["left", "right"]);
      assert.deepStrictEqual([seen.engine, seen.silentServers], [kind, []]);
      const socket = await connect(bridges[1].url, user(1, "look"));
      const own = client(Admin, servers[0].url, admin("look"));
      await until(async () => (await own.listSessions({})).total === 1n, "the session");
      const { sessions } = await own.listSessions({});
      const { session, connection } = await own.getSession({ sessionId: sessions[0].session.sessionId });
      assert.equal(session.userId, "1");
      assert.ok(connection, "its bridge has answered through the other server");
      socket.close();
    });

    test("what the other server takes is tailed too, of one tenant and of all, in the order of the log", async () => {
      const tail = (at, request) => new Stream((options) => client(Admin, servers[at].url, admin()).tail(request, options));
      const seqs = async (stream, tenant, count) => {
        const seen = [];
        while (seen.length < count) {
          const { kind } = await stream.next(({ kind }) => kind.case === "event" && kind.value.event.tenant === tenant, `events of ${tenant}`);
          seen.push([Number(kind.value.event.seq), Number(JSON.parse(kind.value.json).id)]);
        }
        return seen;
      };
      await notify(0, "known", 1);
      const streams = [tail(0, { tenant: "known" }), tail(0, {}), tail(1, {})];
      for (const stream of streams) assert.equal((await stream.next()).kind.case, "heartbeat");
      await Promise.all(Array.from({ length: 20 }, (_, id) => notify(id % 2, "known", id + 2)));
      const [first, ...others] = await Promise.all(streams.map((stream) => seqs(stream, "known", 20)));
      assert.deepStrictEqual(first.map(([seq]) => seq), Array.from({ length: 20 }, (_, n) => n + 2));
      for (const other of others) assert.deepStrictEqual(other, first);
      // A tenant that is new: at the server itself, and at the other one.
      for (let id = 1; id <= 3; id++) await notify(1, "new", id);
      for (const stream of streams.slice(1)) assert.deepStrictEqual(await seqs(stream, "new", 3), [[1, 1], [2, 2], [3, 3]]);
      for (const stream of streams) await stream.close();
    });

    test("when a server is killed its sessions go on elsewhere, and who is really gone is told gone once", async () => {
      const args = [...store.serverArgs, "--presence-catalog", "chat.v1", "--presence-grace", "2s"];
      const third = await startServer([...args, "--server-name", "three"]);
      const bridge = await startBridge(third, ["--bridge-name", "third", "--server", servers[0].url]);
      const witness = await connect(bridges[1].url, user(9, "kill"));
      const stays = await connect(bridge.url, user(1, "kill"), RECONNECT);
      const lost = await startServer([...args, "--server-name", "four"]);
      const apart = await startBridge(lost, ["--bridge-name", "fourth"]);
      await connect(apart.url, user(2, "kill"));
      await until(() => told(witness, "2").length === 1 && told(witness, "1").length === 1, "both to be online");
      // A server and its bridge at once: nobody reports that the session is gone.
      await Promise.all([apart.kill(), lost.kill(), third.kill()]);
      await notify(1, "kill", 1);
      await until(() => ids(stays).includes(1), "the event over the other server");
      await until(() => told(witness, "2").length === 2, "the lost user to be told gone");
      assert.deepStrictEqual(told(witness, "2"), ["user_online", "user_offline"]);
      assert.deepStrictEqual(told(witness, "1"), ["user_online"]);
      assert.deepStrictEqual((await presence(0, "kill")).users.map((u) => u.userId), ["1", "9"]);
      stays.close();
      witness.close();
      await bridge.stop();
    });
  });
}
