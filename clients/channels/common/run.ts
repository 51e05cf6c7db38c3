/** Wires the parts of the service: accounts, listeners, signals. */

import { createServer, type Server } from "node:http";
import type { Server as NetServer, Socket } from "node:net";
import path from "node:path";
import { Account } from "./account.js";
import type { Channel } from "./channel.js";
import { lock } from "./lock.js";
import { describe, log, LOG_LEVELS, setLevel } from "./log.js";
import { exposition, observe } from "./metrics.js";
import { Publisher, tokenSource } from "./publisher.js";
import { Backoff, sleep } from "./retry.js";
import { type AccountValues, type ChannelSettings, readSettings, type Settings, SettingsError, type Values } from "./settings.js";
import { Store } from "./store.js";
import { upstreamServer } from "./upstream.js";
import { type Handler, webhookServer } from "./webhooks.js";

/** How often what is too old is forgotten, in milliseconds. */
const PRUNE_MS = 600_000;

/** One kind of channel. */
export interface ChannelModule extends ChannelSettings {
  open(account: AccountValues, dataDir: string): Promise<Channel> | Channel;
}

/** Runs the program until a signal ends it. */
export async function main(program: string, modules: ChannelModule[]): Promise<void> {
  try {
    const settings = readSettings(program, modules, process.argv.slice(2), process.env);
    if (settings) await run(settings, modules);
  } catch (error) {
    process.stderr.write(`${program}: ${describe(error)}\n`);
    // Listeners that are open already must not keep the process.
    process.exit(error instanceof SettingsError ? 2 : 1);
  }
}

async function run({ general, accounts: all }: Settings, modules: ChannelModule[]): Promise<void> {
  const level = general.required("log-level");
  if (!LOG_LEVELS.includes(level)) throw new SettingsError(`log-level must be one of ${LOG_LEVELS.join(", ")}`);
  setLevel(level);
  const dataDir = path.resolve(general.required("data-dir"));
  const held = await lock(dataDir);
  const stopping = new AbortController();
  const accounts = await Promise.all(all.map((one) => openAccount(one, general, modules, dataDir, stopping.signal)));
  observe(() => accounts.forEach((account) => account.observe()));
  const servers = await listenAll(general, accounts);
  const readBackAfter = general.duration("read-back-after");
  const running = accounts.map((account) => keepRunning(account, readBackAfter));
  const prune = setInterval(() => accounts.forEach((account) => account.prune()), PRUNE_MS);

  const signal = await new Promise<string>((resolve) => ["SIGTERM", "SIGINT"].forEach((name) => process.once(name, () => resolve(name))));
  log.info("shutting down", { signal });
  clearInterval(prune);
  stopping.abort();
  const grace = general.duration("shutdown-grace");
  const clean = await Promise.race([Promise.all([...running, ...servers.map(close)]).then(() => true), sleep(grace, new AbortController().signal).then(() => false)]);
  for (const account of accounts) {
    account.publisher.close();
    await account.store.close();
  }
  held.close();
  log.info("stopped", { clean });
  process.exit(0);
}

async function openAccount(one: AccountValues, general: Values, modules: ChannelModule[], dataDir: string, signal: AbortSignal): Promise<Account> {
  const module = modules.find(({ channel }) => channel === one.channel)!;
  const channel = await module.open(one, dataDir);
  const token = general.get("token-file") === undefined ? general.secret("token") : undefined;
  const publisher = new Publisher(general.url("server"), tokenSource(token, general.get("token-file")), one.name, one.tenant, signal);
  const store = await Store.open(path.join(dataDir, `${one.name}.jsonl`));
  const options = { name: one.name, tenant: one.tenant, outboxMax: general.count("outbox-max", 1_000_000), sendTimeoutMs: general.duration("send-timeout") };
  return new Account(options, channel, store, publisher, signal);
}

/** A channel that ends is started again: one account must not end the others. */
async function keepRunning(account: Account, readBackAfterMs: number): Promise<void> {
  await account.open(readBackAfterMs);
  const backoff = new Backoff();
  while (!account.signal.aborted) {
    try {
      await account.channel.run(account);
    } catch (error) {
      if (account.signal.aborted) return;
      account.report(describe(error));
      log.error("the channel ended; starting it again", { account: account.options.name, error: describe(error) });
    }
    await sleep(backoff.pause(), account.signal);
  }
}

async function listenAll(general: Values, accounts: Account[]): Promise<NetServer[]> {
  const { cert, key, clientCa } = { cert: general.get("grpc-tls-cert"), key: general.get("grpc-tls-key"), clientCa: general.get("grpc-client-ca") };
  if ((cert === undefined) !== (key === undefined)) throw new SettingsError("grpc-tls-cert and grpc-tls-key belong together; give both");
  if (clientCa && !cert) throw new SettingsError("grpc-client-ca needs grpc-tls-cert and grpc-tls-key");
  const grpc = upstreamServer(accounts, cert && key ? { cert, key, clientCa } : undefined);
  await listen(grpc as unknown as NetServer, general, "grpc-listen", "serving message:send");
  const metrics = metricsServer(accounts);
  await listen(metrics, general, "metrics-listen", "serving metrics");
  const handlers = new Map<string, Handler>();
  for (const account of accounts) {
    const { webhook } = account.channel;
    if (webhook) handlers.set(`/${account.options.name}`, webhook.bind(account.channel));
  }
  const servers = [grpc as unknown as NetServer, metrics];
  if (handlers.size > 0) {
    const http = webhookServer(handlers, general.count("webhooks-max", 10_000));
    await listen(http, general, "http-listen", "serving webhooks");
    servers.push(http);
  }
  return servers;
}

const sockets = new WeakMap<NetServer, Set<Socket>>();

async function listen(server: NetServer, general: Values, name: string, body: string): Promise<void> {
  const { host, port } = general.listen(name);
  const open = new Set<Socket>();
  sockets.set(server, open);
  server.on("connection", (socket: Socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => reject(new Error(`cannot listen on ${name} ${host}:${port}`, { cause: error })));
    server.listen(port, host, resolve);
  });
  const address = server.address() as { address: string; port: number };
  log.info(body, { address: address.address.includes(":") ? `[${address.address}]:${address.port}` : `${address.address}:${address.port}` });
}

/** Stops accepting, and resolves once the connections are gone. Idle ones are closed at once. */
function close(server: NetServer): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    (server as Partial<Server>).closeIdleConnections?.();
    // HTTP/2 connections stay open while nothing is asked; what was asked is answered within this time.
    if (!("closeIdleConnections" in server)) setTimeout(() => sockets.get(server)?.forEach((socket) => socket.destroy()), 500);
  });
}

function metricsServer(accounts: Account[]): Server {
  return createServer((request, response) => {
    const problems = accounts.flatMap(({ problem, options }) => (problem ? [`${options.name}: ${problem}`] : []));
    const pages: Record<string, () => [number, string]> = {
      // The process can go on by itself with everything except a folder that cannot be written.
      "/healthz": () => (accounts.some(({ store }) => store.failed) ? [503, "the data folder cannot be written\n"] : [200, "ok\n"]),
      "/readyz": () => (problems.length > 0 ? [503, `${problems.join("\n")}\n`] : [200, "ok\n"]),
      "/metrics": () => [200, exposition()],
    };
    const [status, text] = pages[request.url ?? ""]?.() ?? [404, "there are /healthz, /readyz and /metrics\n"];
    response.writeHead(status, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }).end(text);
    request.resume();
  });
}
