// What deploy/ ships, with real proxies before two servers and two bridges on a real Redis.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import https from "node:https";
import { tmpdir } from "node:os";
import path from "node:path";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { parse, parseAllDocuments } from "yaml";
import { call, connect } from "./lib/clients.js";
import { DEADLINE, ROOT, run, startBridge, startServer, until, within } from "./lib/fanfare.js";
import { missing as noProxy, PROXY_NAMES, startProxy } from "./lib/front.js";
import { PYTHON } from "./lib/producer.js";
import { missing as noStore, startStore } from "./lib/stores.js";
import { producer, soon, token, user } from "./lib/tokens.js";

const DEPLOY = path.join(ROOT, "deploy");
// Enough that a proxy, which chooses the bridge by the address, hardly gives all of them the same one.
const CLIENTS = 24;

/** Services and messages, from the protos. */
function describeProtos() {
  const file = path.join(ROOT, "target/tests/deploy-descriptors.bin");
  const protos = ["fanfare/v1/realtime.proto", "fanfare/v1/admin.proto", "fanfare/v1/edge.proto", "messenger/v1/messenger.proto"];
  execFileSync(PYTHON, ["-m", "grpc_tools.protoc", `-I${ROOT}/proto`, "--include_imports", `--descriptor_set_out=${file}`, ...protos], { timeout: DEADLINE });
  return createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(file)));
}

describe("behind a proxy", { skip: noStore("redis") }, () => {
  let store, servers, bridges, registry;

  before(async () => {
    registry = describeProtos();
    store = await startStore("redis");
    const start = (name) => startServer([...store.serverArgs, "--server-name", name, "--heartbeat-interval", "1s"]);
    servers = [await start("one"), await start("two")];
    const bridge = (at, name) => startBridge(servers[at], ["--bridge-name", name, "--trusted-proxy", "127.0.0.0/8"]);
    bridges = [await bridge(0, "left"), await bridge(1, "right")];
  });
  after(async () => {
    for (const one of [...(bridges ?? []), ...(servers ?? [])]) await one.stop();
    await store?.stop();
  });

  const client = (service, transport) => createClient(registry.getService(service), transport);
  const authorize = (bearer) => [(next) => (request) => {
    request.header.set("authorization", `Bearer ${bearer}`);
    return next(request);
  }];

  for (const name of PROXY_NAMES) {
    describe(name, { skip: noProxy(name) }, () => {
      let proxy;
      before(async () => {
        proxy = await startProxy(name, { bridges: bridges.map((b) => b.address), servers: servers.map((s) => s.address) });
      });
      after(() => proxy?.stop());

      const over = (make, bearer, more = {}) =>
        make({ baseUrl: proxy.services, httpVersion: "2", nodeOptions: { ca: proxy.ca }, interceptors: authorize(bearer), ...more });
      const publish = (tenant, id, room = "org") =>
        client("messenger.v1.Messenger", over(createGrpcTransport, producer(tenant)))
          .notifyNewMessage({ target: { rooms: [room] }, event: { id: BigInt(id), chatId: 7n, content: "x", channel: 1 } });
      /** The sessions of a tenant, as an operator sees them at a server. */
      const sessions = async (tenant) => {
        const bearer = token({ sub: "ops", tenant, scopes: ["admin"], exp: soon() });
        const transport = createGrpcTransport({ baseUrl: servers[0].url, interceptors: authorize(bearer) });
        return (await client("fanfare.v1.Admin", transport).listSessions({})).sessions;
      };

      for (const transports of [["polling"], ["websocket"], ["polling", "websocket"]]) {
        test(`Socket.IO over ${transports.join(", then ")}: each client has one bridge, and the bridges share them`, async () => {
          const tenant = `${name}-${transports.join("-")}`;
          const sockets = await Promise.all(Array.from({ length: CLIENTS }, (_, n) => {
            // Clients at addresses of their own.
            const agent = new https.Agent({ localAddress: `127.0.0.${n + 2}`, ca: proxy.ca, keepAlive: false });
            return connect(proxy.browsers, user(n + 1, tenant), { transports, agent, ca: proxy.ca });
          }));
          for (const socket of sockets) assert.deepStrictEqual(await call(socket, "subscribe:chat", { chatId: 7 }), { chatId: 7 });
          await publish(tenant, 1, "chat:7");
          for (const socket of sockets) await socket.event("message:new", (m) => m.id === 1);
          const seen = await sessions(tenant);
          assert.equal(seen.length, CLIENTS);
          assert.deepStrictEqual([...new Set(seen.map((s) => s.session.bridge))].sort(), ["left", "right"]);
          sockets.forEach((socket) => socket.close());
        });
      }

      test("SSE comes as it is published, and stays open", async () => {
        const tenant = `${name}-sse`;
        const request = https.get(`${proxy.browsers}/events?token=${user(1, tenant)}`, { ca: proxy.ca });
        let text = "";
        const response = await within(new Promise((resolve, reject) => request.once("response", resolve).once("error", reject)), "the stream");
        response.on("data", (data) => (text += data));
        assert.equal(response.headers["content-type"].split(";")[0], "text/event-stream");
        for (const id of [1, 2]) {
          await publish(tenant, id);
          await until(() => text.includes(`"id":${id},`), `event ${id}`);
        }
        request.destroy();
      });

      test("gRPC: calls, a stream in and a stream out; gRPC-Web; Connect", async () => {
        const tenant = `${name}-grpc`;
        const realtime = client("fanfare.v1.Realtime", over(createGrpcTransport, producer(tenant)));
        const abort = new AbortController();
        const stream = realtime.subscribe({ rooms: ["org"] }, { signal: abort.signal })[Symbol.asyncIterator]();
        const next = async () => (await within(stream.next(), "a message")).value;
        assert.equal((await next()).kind.case, "position");
        const first = await publish(tenant, 1);
        const event = async () => {
          for (;;) {
            const { kind } = await next();
            if (kind.case === "event") return kind.value.id;
          }
        };
        assert.equal(await event(), first.id);
        for (const [make, more] of [
          [createGrpcWebTransport, {}], [createGrpcWebTransport, { httpVersion: "1.1" }],
          [createConnectTransport, { useBinaryFormat: false }], [createConnectTransport, { httpVersion: "1.1", useBinaryFormat: true }],
        ]) {
          const answer = await client("messenger.v1.Messenger", over(make, producer(tenant), more))
            .notifyNewMessage({ event: { id: 2n, chatId: 7n, content: "x", channel: 1 } });
          assert.equal(await event(), answer.id);
        }
        // A producer's stream: each answer comes while the stream is open.
        const payload = { typeUrl: "type.googleapis.com/messenger.v1.NewMessage", value: new Uint8Array([0x08, 3, 0x10, 7, 0x30, 1]) };
        let more;
        async function* requests() {
          for (let sent = 0; sent < 3; sent++) {
            yield { event: payload };
            await new Promise((resolve) => (more = resolve));
          }
        }
        const answers = realtime.notifyStream(requests())[Symbol.asyncIterator]();
        for (let got = 0; got < 3; got++) {
          const { value } = await within(answers.next(), "an answer");
          assert.equal(await event(), value.id);
          more();
        }
        assert.ok((await within(answers.next(), "the end")).done);
        abort.abort();
      });

      test("what is not for the outside is not there", async () => {
        const operator = token({ sub: "ops", tenant: "*", scopes: ["admin", "bridge"], exp: soon() });
        const admin = client("fanfare.v1.Admin", over(createGrpcTransport, operator));
        await assert.rejects(admin.getServer({}), /unimplemented|404/i);
        const edge = client("fanfare.v1.Edge", over(createGrpcTransport, operator));
        await assert.rejects(edge.call({ name: "x" }), /unimplemented|404/i);
      });

      test("a bridge that is lost takes only its own clients along, and they come back", async () => {
        const tenant = `${name}-lost`;
        const lost = await startBridge(servers[0], ["--bridge-name", "lost", "--trusted-proxy", "127.0.0.0/8"]);
        const own = await startProxy(name, { bridges: [lost.address, bridges[1].address], servers: servers.map((s) => s.address) });
        const sockets = await Promise.all(Array.from({ length: CLIENTS }, (_, n) => {
          const agent = new https.Agent({ localAddress: `127.0.0.${n + 2}`, ca: own.ca, keepAlive: false });
          return connect(own.browsers, user(n + 1, tenant), { agent, ca: own.ca, reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
        }));
        const cut = new Set();
        sockets.forEach((socket, n) => socket.on("disconnect", () => cut.add(n)));
        await lost.kill();
        await until(() => cut.size > 0 && sockets.every((socket) => socket.connected), "all clients to be back");
        assert.ok(cut.size < CLIENTS, "those of the other bridge stay");
        await publish(tenant, 1);
        for (const socket of sockets) await socket.event("message:new");
        sockets.forEach((socket) => socket.close());
        await own.stop();
      });

      test("no token is in its log", async () => {
        await until(() => proxy.log().includes("/events"), "the log", 10_000);
        assert.doesNotMatch(proxy.log(), /token=|eyJ/);
      });
    });
  }
});

test("every setting that deploy/ names is one", () => {
  const help = ["server", "bridge"].map((command) => execFileSync(process.env.FANFARE_BIN ?? path.join(ROOT, "target/debug/fanfare"), [command, "--help"], { timeout: DEADLINE }).toString()).join("\n");
  const files = readdirSync(DEPLOY, { recursive: true, withFileTypes: true }).filter((f) => f.isFile());
  let count = 0;
  for (const file of files) {
    const text = readFileSync(path.join(file.parentPath ?? file.path, file.name), "utf8");
    for (const [, name] of text.matchAll(/\bFANFARE_([A-Z_]*[A-Z])\b/g)) {
      const flag = `--${name.toLowerCase().replaceAll("_", "-")}`;
      assert.ok(help.includes(`${flag} `) || help.includes(`${flag}\n`), `${file.name}: FANFARE_${name}`);
      count++;
    }
  }
  assert.ok(count > 20, `${count} settings`);
});

test("systemd takes the units, and finds them hardened", { skip: spawnSync("systemd-analyze", ["--version"]).error && "systemd-analyze is not installed" }, () => {
  for (const unit of ["fanfare-server.service", "fanfare-bridge.service"]) {
    const file = path.join(DEPLOY, "systemd", unit);
    const checked = spawnSync("systemd-analyze", ["verify", "--man=no", file], { timeout: DEADLINE });
    const problems = checked.stderr.toString().split("\n").filter((line) => line.includes(unit) && !line.includes("/usr/local/bin/fanfare is not executable"));
    assert.deepStrictEqual(problems, []);
    const rated = spawnSync("systemd-analyze", ["security", "--offline=true", "--threshold=15", file], { timeout: DEADLINE });
    assert.equal(rated.status, 0, rated.stdout.toString());
  }
});

const yaml = (file) => parse(readFileSync(path.join(DEPLOY, file), "utf8"), { merge: true });

test("the image and the composition give no process a shell, a right or a writable root", () => {
  const dockerfile = readFileSync(path.join(DEPLOY, "Dockerfile"), "utf8");
  assert.match(dockerfile, /^FROM gcr\.io\/distroless\/cc-debian12:nonroot$/m);
  assert.match(dockerfile, /^USER 65532:65532$/m);
  const { services } = yaml("compose.yaml");
  assert.deepStrictEqual(Object.keys(services), ["redis", "server1", "server2", "bridge1", "bridge2", "proxy"]);
  for (const [name, service] of Object.entries(services).filter(([name]) => /\d$/.test(name))) {
    assert.deepStrictEqual([service.command, service.read_only, service.cap_drop], [[name.slice(0, -1)], true, ["ALL"]]);
    assert.equal(service.environment[`FANFARE_${name.slice(0, -1).toUpperCase()}_NAME`], name);
    assert.ok(service.secrets[0] === path.basename(service.environment.FANFARE_JWT_SECRET_FILE) && !service.ports, "only the proxy can be reached from outside");
  }
  for (const volume of services.proxy.volumes.filter((v) => v.startsWith("./nginx"))) readFileSync(path.join(DEPLOY, volume.split(":")[0]));
});

test("Envoy's routes lead to clusters that it has", () => {
  const { listeners, clusters } = yaml("envoy/envoy.yaml").static_resources;
  const routes = listeners.flatMap((l) => l.filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes);
  const named = routes.flatMap((r) => r.route?.cluster ?? []);
  assert.deepStrictEqual(named, clusters.map((c) => c.name));
  const addresses = clusters.flatMap((c) => c.load_assignment.endpoints[0].lb_endpoints.map((e) => Object.values(e.endpoint.address.socket_address).join(":")));
  assert.deepStrictEqual(addresses, ["bridge1:3000", "bridge2:3000", "server1:50051", "server2:50051"]);
});

const HELM = process.env.FANFARE_HELM ?? "helm";

describe("the chart", { skip: spawnSync(HELM, ["version"]).error && "helm is not installed" }, () => {
  const helm = (...args) => spawnSync(HELM, [...args, "--kube-version", "1.30.0"], { timeout: DEADLINE, encoding: "utf8" });
  const chart = path.join(DEPLOY, "helm/fanfare");
  /** The objects that it makes, by kind and name. */
  const objects = (...values) => {
    const { status, stdout, stderr } = helm("template", "rt", chart, ...values.flatMap((v) => ["--set-string", v]));
    assert.equal(status, 0, stderr);
    const all = parseAllDocuments(stdout).map((d) => d.toJS());
    return Object.fromEntries(all.map((o) => [`${o.kind} ${o.metadata.name}`, o]));
  };

  test("helm finds nothing wrong", () => {
    const { status, stdout } = helm("lint", "--strict", chart, "--set", "jwtSecret=x");
    assert.equal(status, 0, stdout);
  });

  test("servers on Redis and bridges are ready, drained and hardened", () => {
    const made = objects("jwtSecret=x", "server.redis.existingSecret=store");
    const pods = [made["StatefulSet rt-fanfare-server"], made["Deployment rt-fanfare-bridge"]].map((o) => o.spec.template.spec);
    for (const pod of pods) {
      const [container] = pod.containers;
      assert.equal(container.readinessProbe.httpGet.path, "/readyz");
      assert.equal(container.livenessProbe.httpGet.path, "/healthz");
      assert.ok(container.lifecycle.preStop.sleep.seconds > 0);
      assert.ok(container.securityContext.readOnlyRootFilesystem && pod.securityContext.runAsNonRoot);
      const [secret] = container.volumeMounts.filter((m) => container.env.some((e) => e.name === "FANFARE_JWT_SECRET_FILE" && e.value.startsWith(m.mountPath)));
      assert.equal(pod.volumes.find((v) => v.name === secret.name).secret.secretName, "rt-fanfare");
      assert.ok(container.ports.some((p) => p.name === "metrics" && p.containerPort === 9101));
      const grace = parseInt(container.env.find((e) => e.name === "FANFARE_SHUTDOWN_GRACE").value);
      assert.ok(pod.terminationGracePeriodSeconds >= container.lifecycle.preStop.sleep.seconds + grace);
    }
    const env = Object.fromEntries(pods[0].containers[0].env.map((e) => [e.name, e.value]));
    assert.deepStrictEqual([env.FANFARE_REDIS, env.FANFARE_REDIS_PASSWORD_FILE], ["redis://redis:6379", "/etc/fanfare/store/password"]);
    const linked = pods[1].containers[0].env.find((e) => e.name === "FANFARE_SERVER").value;
    assert.equal(linked, "http://rt-fanfare-server-each:50051");
    assert.equal(made["Service rt-fanfare-server-each"].spec.clusterIP, "None");
    assert.equal(made["Service rt-fanfare-bridge"].spec.sessionAffinity, "ClientIP");
    for (const part of ["server", "bridge"]) assert.equal(made[`PodDisruptionBudget rt-fanfare-${part}`].spec.maxUnavailable, 1);
  });

  test("bridges are scaled by sessions, catalogs are mounted, and a disk belongs to one server", () => {
    const scaled = objects("existingSecret=x", "bridge.autoscaling.enabled=true", "bridge.ingress.enabled=true", "catalogs.orders\\.proto=x");
    const [metric] = scaled["HorizontalPodAutoscaler rt-fanfare-bridge"].spec.metrics;
    assert.equal(metric.pods.metric.name, "fanfare_bridge_sessions");
    assert.equal(scaled["Deployment rt-fanfare-bridge"].spec.replicas, undefined);
    assert.ok(scaled["Ingress rt-fanfare-bridge"] && scaled["ConfigMap rt-fanfare-catalogs"].data["orders.proto"]);
    const disk = objects("existingSecret=x", "server.store=disk", "server.replicas=1");
    assert.equal(disk["StatefulSet rt-fanfare-server"].spec.volumeClaimTemplates.length, 1);
    assert.equal(disk["PodDisruptionBudget rt-fanfare-server"], undefined);
  });

  test("values that cannot work are refused with what would be right", () => {
    const refused = (...values) => helm("template", "rt", chart, ...values.flatMap((v) => ["--set", v])).stderr;
    assert.match(refused(), /give existingSecret, or jwtSecret/);
    assert.match(refused("jwtSecret=x", "server.store=disk"), /want server.replicas 1, or redis or nats/);
    assert.match(refused("jwtSecret=x", "server.store=etcd"), /want redis, nats or disk/);
  });
});

test("a folder of catalogs as Kubernetes mounts it is read once", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "fanfare-mounted-"));
  mkdirSync(path.join(folder, "..2026"));
  writeFileSync(path.join(folder, "..2026", "orders.proto"), `
    syntax = "proto3"; package orders.v1; import "fanfare/v1/catalog.proto";
    message Placed { option (fanfare.v1.event) = { name: "order:placed" rooms: "org" }; string id = 1; }`);
  symlinkSync("..2026", path.join(folder, "..data"));
  symlinkSync("..data/orders.proto", path.join(folder, "orders.proto"));
  const { code, stdout, stderr } = await run(["check", "--catalog", folder]);
  assert.deepStrictEqual([code, stdout.includes("orders.v1: 1 events")], [0, true], stderr);
});
