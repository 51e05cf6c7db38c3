// A real proxy in front of servers and bridges, with the configuration that deploy/ ships: only names, ports and places of
// files are other ones.

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import assert from "node:assert/strict";
import { DEADLINE, ROOT, until, within } from "./fanfare.js";
import { freePort } from "./stores.js";

const PROXIES = {
  nginx: { file: "nginx/nginx.conf", args: (file, folder) => ["-c", file, "-p", folder, "-g", "daemon off;"] },
  haproxy: { file: "haproxy/haproxy.cfg", args: (file) => ["-db", "-f", file] },
  caddy: { file: "caddy/Caddyfile", args: (file) => ["run", "--adapter", "caddyfile", "--config", file] },
};

export const PROXY_NAMES = Object.keys(PROXIES);
const ENV = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

/** Why tests of a proxy are skipped; false when it is installed. */
export const missing = (name) => (spawnSync(name, ["-v"], { env: ENV }).error ? `${name} is not installed` : false);

/** A certificate for 127.0.0.1, of an authority of its own. */
function certify(folder) {
  const [key, crt] = ["tls.key", "tls.crt"].map((name) => path.join(folder, name));
  execFileSync("openssl", [
    "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
    "-keyout", key, "-out", crt,
  ], { timeout: DEADLINE, stdio: "ignore" });
  const ca = readFileSync(crt);
  writeFileSync(path.join(folder, "tls.pem"), Buffer.concat([ca, readFileSync(key)]));
  return ca;
}

/** The shipped text with each pattern replaced; one that occurs nowhere fails. */
function adapt(text, pairs) {
  return pairs.reduce((all, [from, to]) => {
    assert.ok(all.match(from), `the configuration has no ${from}`);
    return all.replaceAll(new RegExp(from.source, `${from.flags}g`), to);
  }, text);
}

/** Starts a proxy before two bridges and two servers, each an address. */
export async function startProxy(name, { bridges, servers }) {
  const { file, args } = PROXIES[name];
  const folder = mkdtempSync(path.join(tmpdir(), `fanfare-${name}-`));
  const ca = certify(folder);
  const [browsers, services] = [await freePort(), await freePort()];
  const pairs = [
    ...[1, 2].map((n) => [new RegExp(`\\bbridge${n}:3000\\b`), bridges[n - 1]]),
    ...[1, 2].map((n) => [new RegExp(`\\bserver${n}:50051\\b`), servers[n - 1]]),
    [/\/etc\/fanfare\/tls\//, `${folder}/`],
  ];
  if (name === "nginx") {
    pairs.push(
      [/listen 443\b/, `listen 127.0.0.1:${browsers}`], [/listen 8443\b/, `listen 127.0.0.1:${services}`],
      [/pid \/run\/nginx.pid;/, `pid ${folder}/nginx.pid;`], [/access_log \/dev\/stdout/, `access_log ${folder}/access.log`],
      // It writes large bodies to files.
      [/server_tokens off;/, `server_tokens off; ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${folder}/${kind};`).join(" ")}`],
    );
  } else {
    // As many connections as a process may have here.
    if (name === "haproxy") pairs.push([/maxconn 65536/, "maxconn 4096"]);
    const host = name === "haproxy" ? "bind 127.0.0.1" : "https://127.0.0.1";
    const before = name === "haproxy" ? "bind " : "^";
    pairs.push(
      [new RegExp(`${before}:443\\b`, "m"), `${host}:${browsers}`], [new RegExp(`${before}:8443\\b`, "m"), `${host}:${services}`],
    );
  }
  const own = path.join(folder, path.basename(file));
  writeFileSync(own, adapt(readFileSync(path.join(ROOT, "deploy", file), "utf8"), pairs));
  const child = spawn(name, args(own, folder), { env: { ...ENV, HOME: folder, XDG_DATA_HOME: folder }, stdio: ["ignore", "pipe", "pipe"] });
  // Caddy waits for connections; nginx and HAProxy do not, and end their workers.
  const signal = name === "caddy" ? "SIGKILL" : "SIGTERM";
  process.on("exit", () => child.kill(signal));
  let log = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (log += data));
  const ended = once(child, "exit");
  const isUp = async () => {
    if (child.exitCode !== null) throw new Error(`${name} has ended:\n${log}`);
    const socket = connect(services, "127.0.0.1");
    return once(socket, "connect").then(() => true, () => false).finally(() => socket.destroy());
  };
  await until(isUp, `${name} to listen`);
  return {
    name, ca, browsers: `https://127.0.0.1:${browsers}`, services: `https://127.0.0.1:${services}`,
    log: () => (name === "nginx" ? readFileSync(path.join(folder, "access.log"), "utf8") : log),
    async stop() {
      child.kill(signal);
      await within(ended, `${name} to end`);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
