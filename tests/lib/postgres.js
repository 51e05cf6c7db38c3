// A real PostgreSQL on loopback, from the system's packages, in a folder of its own.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { until, within } from "./fanfare.js";
import { freePort } from "./stores.js";

/** Where Debian's packages put the programs, the newest version first. */
const PACKAGED = "/usr/lib/postgresql";
const versions = existsSync(PACKAGED) ? readdirSync(PACKAGED).sort((a, b) => b - a) : [];
const FOLDERS = [process.env.FANFARE_POSTGRES_BIN, ...versions.map((version) => path.join(PACKAGED, version, "bin"))];
const BIN = FOLDERS.find((folder) => folder && existsSync(path.join(folder, "postgres")));

/** Why tests on PostgreSQL are skipped; false when it is installed. */
export const missing = BIN ? false : "PostgreSQL is not installed";

/** PostgreSQL refuses to run as root: then it runs as the user "nobody". */
const NOBODY = 65534;
const user = process.getuid() === 0 ? { uid: NOBODY, gid: NOBODY } : {};

const CHILDREN = new Set();
process.on("exit", () => CHILDREN.forEach((child) => child.kill("SIGKILL")));

export class Postgres {
  /** Makes a cluster and starts it. */
  static async start() {
    const postgres = new Postgres();
    postgres.folder = mkdtempSync(path.join(tmpdir(), "fanfare-postgres-"));
    if (user.uid) chownSync(postgres.folder, user.uid, user.gid);
    const made = spawnSync(path.join(BIN, "initdb"), ["-D", postgres.folder, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-sync"], {
      ...user,
      env: { ...process.env, LC_ALL: "C" },
    });
    if (made.status !== 0) throw new Error(`initdb: ${made.stderr}`);
    postgres.port = await freePort();
    postgres.url = `postgres://postgres@127.0.0.1:${postgres.port}/postgres`;
    await postgres.run();
    return postgres;
  }

  /** Starts it, again after a crash: what was left of the last one may keep it from starting at first. */
  async run() {
    const settings = ["listen_addresses=127.0.0.1", `port=${this.port}`, "unix_socket_directories=", "shared_buffers=32MB", "max_connections=50"];
    await until(async () => {
      this.child = spawn(path.join(BIN, "postgres"), ["-D", this.folder, ...settings.flatMap((setting) => ["-c", setting])], { ...user, stdio: "ignore" });
      CHILDREN.add(this.child);
      let isGone = false;
      this.ended = once(this.child, "exit").finally(() => {
        isGone = true;
        CHILDREN.delete(this.child);
      });
      await until(async () => isGone || (await this.#answers()), "PostgreSQL to start");
      return !isGone;
    }, "PostgreSQL to run");
  }

  async #answers() {
    const child = spawn(path.join(BIN, "pg_isready"), ["-q", "-d", this.url]);
    return (await once(child, "exit"))[0] === 0;
  }

  /** Runs SQL; gives the rows as arrays of text. */
  async query(sql) {
    const { code, stdout, stderr } = await this.script(sql);
    if (code !== 0) throw new Error(`${stderr}\n${sql.slice(0, 2000)}`);
    return stdout.split("\n").filter(Boolean).map((line) => line.split("|"));
  }

  /** One value. */
  async value(sql) {
    return (await this.query(sql))[0][0];
  }

  /** Runs SQL until the first error; does not fail. */
  async script(sql) {
    const child = spawn(path.join(BIN, "psql"), ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", this.url], { stdio: "pipe" });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (data) => (stdout += data));
    child.stderr.on("data", (data) => (stderr += data));
    // A database that is killed ends psql before it has read everything.
    child.stdin.on("error", () => {});
    child.stdin.end(sql);
    const [code] = await within(once(child, "close"), "psql to end");
    return { code, stdout, stderr };
  }

  /** Ends it as a crash would. */
  async kill() {
    this.child.kill("SIGKILL");
    await within(this.ended, "PostgreSQL to end");
  }

  async stop() {
    // Fast shutdown.
    this.child.kill("SIGINT");
    await within(this.ended, "PostgreSQL to end");
    rmSync(this.folder, { recursive: true, force: true });
  }
}
