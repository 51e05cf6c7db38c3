// A place for a log whose space the test takes and gives back.

import { spawnSync } from "node:child_process";
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { until } from "../fanfare.js";

/** What a server's log says while its disk refuses. */
const REFUSES = /^the log (cannot be written|stays closed)$/;

/** A small file system of its own: needs the right to mount one. */
class SmallFileSystem {
  what = "tmpfs";

  static mount(folder) {
    const { status } = spawnSync("mount", ["-t", "tmpfs", "-o", "size=256m", "fanfare-faults", folder], { stdio: "ignore" });
    return status === 0 ? Object.assign(new SmallFileSystem(), { folder }) : undefined;
  }

  take() {
    // The server takes some of it meanwhile.
    try {
      for (;;) appendFileSync(path.join(this.folder, "ballast"), Buffer.alloc(1 << 20));
    } catch (error) {
      if (error.code !== "ENOSPC") throw error;
    }
  }

  give() {
    rmSync(path.join(this.folder, "ballast"), { force: true });
  }

  remove() {
    spawnSync("umount", ["-l", this.folder], { stdio: "ignore" });
  }
}

/** A server that may write to no file: needs no rights. */
class SmallFiles {
  what = "file size limit";
  /** For the process, that is an error, not a signal that kills. */
  via = ["sh", "-c", 'trap "" XFSZ; exec "$0" "$@"'];

  take(server) {
    this.#limit(server, 0);
  }

  give(server) {
    this.#limit(server, "unlimited");
  }

  remove() {}

  #limit(server, size) {
    if (server.child.signalCode !== null) return;
    const { status, stderr } = spawnSync("prlimit", ["--pid", `${server.child.pid}`, `--fsize=${size}:`], { encoding: "utf8" });
    if (status !== 0) throw new Error(`prlimit: ${stderr}`);
  }
}

/** The best of them that works here; `FANFARE_FAULT_DISK=limit` forces the one that always does. */
export function disk(kind = process.env.FANFARE_FAULT_DISK) {
  const folder = mkdtempSync(path.join(tmpdir(), "fanfare-disk-"));
  const disk = (kind !== "limit" && SmallFileSystem.mount(folder)) || Object.assign(new SmallFiles(), { folder });
  const remove = disk.remove.bind(disk);
  let isThere = true;
  disk.remove = () => {
    if (!isThere) return;
    isThere = false;
    remove();
    rmSync(folder, { recursive: true, force: true });
  };
  process.on("exit", disk.remove);
  return disk;
}

/** Takes a server's space, and resolves when that has been noticed. */
export async function fill(disk, server) {
  const known = server.logs.length;
  server.provoked = REFUSES;
  disk.take(server);
  await until(() => server.logs.slice(known).some((entry) => REFUSES.test(entry.message)), "the disk to refuse", 60_000);
}
