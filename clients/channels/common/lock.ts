/** Keeps two processes from using one data folder: a Unix socket in it, which the kernel closes when its process dies. */

import { connect, createServer, type Server } from "node:net";
import { mkdir, unlink } from "node:fs/promises";
import path from "node:path";

/** Longest path of a Unix socket in bytes, on every system. */
const PATH_BYTES_MAX = 100;

export async function lock(folder: string): Promise<Server> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const file = path.join(folder, "lock");
  if (Buffer.byteLength(file) > PATH_BYTES_MAX) throw new Error(`--data-dir ${folder} is too long: want at most ${PATH_BYTES_MAX - 5} bytes`);
  try {
    return await listen(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw new Error(`cannot write to --data-dir ${folder}`, { cause: error });
  }
  if (await answers(file)) throw new Error(`--data-dir ${folder} is in use by another process`);
  await unlink(file);
  return await listen(file);
}

function listen(file: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", reject);
    server.listen(file, () => resolve(server));
  });
}

function answers(file: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(file);
    socket.once("connect", () => resolve(true));
    socket.once("error", () => resolve(false));
    socket.once("close", () => socket.destroy());
  });
}
