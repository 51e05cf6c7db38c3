// Starts the service of the channels.

import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { get, Process, ROOT, until, within } from "./fanfare.js";

export const PROGRAM = path.join(ROOT, "clients/channels/dist/main.js");

/** A folder for the service's data. */
export const dataDir = () => mkdtempSync(path.join(tmpdir(), "fanfare-channels-"));

/** Starts the service; `env` has its secrets, without the prefix of their names. */
export async function startChannels(args, env = {}, { program = PROGRAM, ports = {}, env: more = {} } = {}) {
  const { grpc = 0, http = 0 } = ports;
  const listen = ["--grpc-listen", `127.0.0.1:${grpc}`, "--http-listen", `127.0.0.1:${http}`, "--metrics-listen", "127.0.0.1:0"];
  const service = new Process([...listen, ...args], {
    via: ["node"],
    program,
    env: { ...more, ...Object.fromEntries(Object.entries(env).map(([name, value]) => [`FANFARE_CHANNELS_${name}`, value])) },
  });
  service.url = `http://${(await service.log("serving message:send")).address}`;
  service.metricsUrl = `http://${(await service.log("serving metrics")).address}`;
  service.ready = () => until(async () => (await get(`${service.metricsUrl}/readyz`)).ok, "the channels to be ready");
  service.webhook = async () => `http://${(await service.log("serving webhooks")).address}`;
  /** The value of a metric; 0 when it is absent. */
  service.metric = async (series) => {
    const text = await (await get(`${service.metricsUrl}/metrics`)).text();
    return Number(text.split("\n").find((line) => line.startsWith(`${series} `))?.slice(series.length + 1) ?? 0);
  };
  return service;
}

/** A port that is free now, for a service that is started again at the same place. */
export async function freePort() {
  const { createServer } = await import("node:net");
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Runs the program to its end. */
export async function startProgram(args, env = {}) {
  const process = new Process(args, {
    via: ["node"],
    program: PROGRAM,
    env: Object.fromEntries(Object.entries(env).map(([name, value]) => [`FANFARE_CHANNELS_${name}`, value])),
  });
  const { code } = await within(process.ended, "the program to end");
  await process.closed;
  return { code, stdout: process.stdout, stderr: process.text() };
}
