// Attacks with a token: no user and no tenant gets more than a fair share, each is refused at once for what it is, and
// others go on.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { admin, client, web } from "./lib/admin.js";
import { call, connect, disconnected } from "./lib/clients.js";
import { ENGINE, QUIET, startServer, until, within } from "./lib/fanfare.js";
import { pause } from "./lib/faults/actions.js";
import { Attacker, back, baseline, resident, withstand } from "./lib/attacks/attack.js";
import { both, bridged, close } from "./lib/attacks/bridges.js";
import { enter, fill } from "./lib/attacks/peers.js";
import { EventStream, poll, RawSocket } from "./lib/plain.js";
import { generateStubs } from "./lib/producer.js";
import { producer, soon, token, user } from "./lib/tokens.js";

let server;

before(async () => {
  generateStubs();
  server = await startServer(QUIET);
});

after(async () => {
  await server?.stop();
});

test("connects of one user are bounded, and others of the tenant connect", () =>
  bridged(server, ["--user-connects-per-second", "2", "--user-connects-burst", "10"], async (bridge) => {
    const mine = user(1, "connects");
    let [entered, refused] = [0, ""];
    for (let i = 0; i < 60 && !refused; i++) {
      const attempt = await enter(bridge.url, mine);
      if (attempt.refused) refused = attempt.refused;
      else entered++;
      attempt.socket?.close();
    }
    assert.match(refused, /limit|503/, `${entered} connects`);
    assert.ok(entered >= 10, `${entered} connects`);
    const other = await enter(bridge.url, user(2, "connects"));
    assert.equal(other.refused, undefined);
    const again = await until(async () => (await enter(bridge.url, mine)).socket, "the user to be let in again");
    close(other.socket, again);
  }));

test("rooms per tenant are bounded, and another tenant still joins", () =>
  bridged(server, ["--rooms-per-tenant-max", "20"], async (bridge) => {
    const [greedy, other] = [await connect(bridge.url, user(1, "greedy")), await connect(bridge.url, user(1, "modest"))];
    let [joined, refused] = [0, null];
    for (; !refused && joined <= 20; ) {
      const answer = await call(greedy, "subscribe:chat", { chatId: joined + 1 });
      if (answer.error) refused = answer.error;
      else joined++;
    }
    // The tenant's own room and the user's count too.
    assert.ok(joined > 0 && joined <= 20, `${joined} rooms`);
    assert.equal(refused?.code, "limit");
    const again = await connect(bridge.url, user(1, "greedy"));
    assert.deepStrictEqual(await call(again, "subscribe:chat", { chatId: 1 }), { chatId: 1 }, "a room that is there already costs nothing");
    for (let chatId = 1; chatId <= 5; chatId++) assert.deepStrictEqual(await call(other, "subscribe:chat", { chatId }), { chatId });
    await call(greedy, "unsubscribe:chat", { chatId: 2 });
    await until(async () => !(await call(greedy, "subscribe:chat", { chatId: 1000 })).error, "room for a room");
    close(greedy, again, other);
  }));

for (const scope of ["notify", "bridge"]) test(`a token with the scope ${scope} gets no browser session on any transport`, () =>
  bridged(server, [], async (bridge) => {
    const bearer = token({ sub: "service", tenant: "scoped", scopes: [scope], exp: soon() });
    for (const transport of ["websocket", "polling"]) {
      const { socket, refused } = await enter(bridge.url, bearer, { transports: [transport] });
      socket?.close();
      assert.equal(refused, "forbidden", transport);
    }
    const raw = new RawSocket(bridge.url, { token: bearer });
    assert.equal((await within(raw.closed, "the close")).code, 4504);
    for (const read of [() => poll(bridge.url, { token: bearer }), () => EventStream.open(bridge.url, { token: bearer })]) {
      const answer = await read().then(() => ({ status: 200, body: {} }), (error) => error);
      assert.deepStrictEqual([answer.status, answer.body.code], [403, "forbidden"]);
    }
  }));

const CONSOLE = `content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\nauthorization: Bearer ${admin("slow")}\r\n`;
const SLOW = {
  "calls that are trickled": { way: "trickledBodies", every: 200, path: "/fanfare.v1.Admin/ListSessions" },
  "streams that stay open": { way: "streams", path: "/fanfare.v1.Admin/Tail" },
};

for (const [what, task] of Object.entries(SLOW)) test(`console ${what} of one tenant's admin do not lock out another's`, (t) =>
  bridged(server, ["--request-timeout", "60s", "--connect-timeout", "60s"], (bridge) =>
    withstand(t, bridge, {
      peak: 48,
      begin: async () => {
        const attacker = await Attacker.start(bridge, { connections: 600, head: CONSOLE, ...task });
        await attacker.until(({ opened }) => opened >= 600, "all calls to be under way");
        return attacker;
      },
      finish: async (attacker) => {
        for (let i = 0; i < 20; i++) {
          const began = performance.now();
          const { tenants } = await client(web.Admin, bridge.url, admin("quick")).listTenants({});
          assert.ok(Array.isArray(tenants));
          assert.ok(performance.now() - began < 5_000, "it is answered in time");
        }
        t.diagnostic(JSON.stringify(await attacker.counts()));
        await attacker.stop();
      },
    })));

// On Redis and NATS a tenant counts from its first stored event on: sessions alone do not exceed the limit.
test("a tenant over the limit of tenants is refused at once, and told why", { skip: Boolean(ENGINE) }, () =>
  both(["--tenants-max", "2"], [], async (bridge, _server, producing) => {
    for (const tenant of ["t1", "t2"]) {
      await producing.call(producer(tenant), "messenger.v1.Messenger/NotifyNewMessage", { event: { id: "1", chatId: "7", content: "x", channel: "CHANNEL_WABA" } });
    }
    const first = await connect(bridge.url, user(1, "t1"));
    close((await fill(bridge.url, "t1", 40)).sockets);
    const memory = resident(bridge);
    for (let i = 0; i < 10; i++) {
      const began = performance.now();
      const { refused } = await enter(bridge.url, user(1, `beyond-${i}`));
      assert.equal(refused, "limit");
      assert.ok(performance.now() - began < 3_000, `after ${(performance.now() - began).toFixed(0)} ms`);
      const polled = await poll(bridge.url, { token: user(1, `beyond-${i}`) }).catch((error) => error);
      assert.equal(polled.body?.code, "limit");
      assert.match(polled.body.message, /tenant/);
    }
    await back(bridge, memory);
    assert.ok((await call(first, "ping", {})).timestamp, "the tenants that are there go on");
    close(first);
  }));

const FAST = ["--calls-per-second", "100000", "--calls-burst", "100000", "--user-calls-per-second", "100000", "--user-calls-burst", "100000"];

test("calls that wait for a server that does not answer are bounded", (t) =>
  both([], FAST, async (bridge, own) => {
    const sockets = (await fill(bridge.url, "waiting", 20)).sockets;
    for (const socket of sockets) await call(socket, "join_chat", { chatId: "x" });
    const before = await baseline(bridge);
    let most = before;
    own.child.kill("SIGSTOP");
    const payload = { chatId: "x", content: "x".repeat(8_000) };
    for (let i = 0; i < 500; i++) {
      // 80 MB in all, as far as the bridge takes it.
      for (const socket of sockets) socket.emit("send_message", payload);
      if (i % 10 === 0) await pause(1);
      most = Math.max(most, resident(bridge));
    }
    for (let i = 0; i < 30; i++) {
      await pause(100);
      most = Math.max(most, resident(bridge));
    }
    own.child.kill("SIGCONT");
    close(sockets);
    t.diagnostic(`memory ${before.toFixed(1)} MiB before, at most ${most.toFixed(1)} while the server did not answer`);
    assert.ok(most - before <= 48, `the bridge grew by ${(most - before).toFixed(1)} MiB`);
    const again = await until(async () => (await enter(bridge.url, user("again", "waiting"))).socket, "a session when the server answers again");
    assert.ok((await call(again, "ping", {})).timestamp);
    close(again);
    await back(bridge, before);
  }));

test("one burst over the limit is no abuse, staying over it is", () =>
  bridged(server, ["--abuse-after", "2s"], async (bridge) => {
    const socket = await connect(bridge.url, user(1, "burst"));
    const refusals = () => socket.events.filter(([name, error]) => name === "error" && error.code === "limit").length;
    for (let i = 0; i < 260; i++) socket.emit("ping", {});
    await until(() => refusals() > 0, "what is over the limit to be refused");
    // Longer than a client that goes on would be borne.
    const end = Date.now() + 4_000;
    while (Date.now() < end) {
      await pause(250);
      const answer = await call(socket, "ping", {});
      assert.ok(answer.timestamp || answer.error.code === "limit", JSON.stringify(answer));
    }
    assert.ok((await call(socket, "ping", {})).timestamp);
    assert.ok(socket.connected, "a burst is forgiven");
    const [ended, began] = [disconnected(socket), Date.now()];
    const flood = setInterval(() => {
      for (let i = 0; i < 20; i++) socket.emit("ping", {});
    }, 10);
    assert.equal(await ended.finally(() => clearInterval(flood)), "io server disconnect");
    await socket.event("error", (error) => error.code === "abuse");
    assert.ok(Date.now() - began >= 1_500, `after ${Date.now() - began} ms`);
    socket.close();
  }));

test("a user's many recoverable sessions evict only its own", () =>
  both(["--recoverable-per-user-max", "4", "--recoverable-per-tenant-max", "8", "--sessions-per-user-max", "1000"], [], async (bridge, _server, producing) => {
    const notify = (id) => producing.call(producer("kept"), "messenger.v1.Messenger/NotifyNewMessage", { event: { id: String(id), chatId: "7", content: "x", channel: "CHANNEL_WABA" } });
    const cutAfterEvent = async (id) => {
      const socket = await connect(bridge.url, user(id, "kept"));
      await notify(1);
      await socket.event("message:new");
      const resume = { token: user(id, "kept"), pid: socket._pid, offset: socket._lastOffset };
      const ended = disconnected(socket);
      socket.io.engine.transport.ws._socket.destroy();
      await ended;
      return resume;
    };
    const victim = await cutAfterEvent(1);
    const greedy = [];
    for (let i = 0; i < 20; i++) greedy.push(await cutAfterEvent(2));
    const recovered = async (auth) => {
      const socket = await connect(bridge.url, undefined, { auth });
      // The answer gives the same secret again when the session is recovered.
      const { _pid } = socket;
      socket.close();
      return _pid === auth.pid;
    };
    assert.equal(await recovered(greedy[0]), false, "the oldest of the greedy user's are gone");
    assert.equal(await recovered(victim), true, "another user's session is not");
    assert.equal(await recovered(greedy.at(-1)), true, "and neither is its own last");
  }));
