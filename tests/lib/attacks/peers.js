// Connections byte by byte, from any address of the loopback network: what a stock client cannot do.

import { once } from "node:events";
import { Agent } from "node:http";
import net from "node:net";
import { connect } from "../clients.js";
import { Process, SECRET, within } from "../fanfare.js";
import { user } from "../tokens.js";

/** Sends bytes and gives everything that comes until the other side closes; `ended` says whether it did in time. */
export async function exchange({ address }, bytes, { from = "127.0.0.1", ms = 20_000, until = () => false } = {}) {
  const [host, port] = address.split(":");
  const socket = net.connect({ host, port: Number(port), localAddress: from });
  let text = "";
  socket.on("error", () => {});
  const done = new Promise((resolve) => {
    socket.on("data", (data) => {
      text += data.toString("latin1");
      if (until(text)) resolve();
    });
    socket.on("close", resolve);
  });
  socket.write(bytes);
  try {
    await within(done, "an answer or the end of the connection", ms);
    return text;
  } finally {
    socket.destroy();
  }
}

/** A GET over a connection of its own; gives the status, or 0 when it was closed without one. */
export async function status(bridge, path, { before = "", headers = {}, from } = {}) {
  const lines = Object.entries({ host: "x", connection: "close", ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  const bytes = Buffer.concat([Buffer.from(before, "latin1"), Buffer.from(`GET ${path} HTTP/1.1\r\n${lines.join("")}\r\n`)]);
  const text = await exchange(bridge, bytes, { from, until: (text) => text.includes("\r\n\r\n") });
  return Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 0);
}

/** A stock client that is let in, or the reason why not: the code of the error, or what the transport says. */
export async function enter(url, token, { from = "127.0.0.1", headers = {}, ...options } = {}) {
  try {
    const agent = new Agent({ localAddress: from });
    return { socket: await connect(url, token, { agent, extraHeaders: headers, ...options }) };
  } catch (error) {
    return { refused: error.data?.code ?? `${error.message}: ${error.description?.message ?? error.description ?? ""}` };
  }
}

/** As many sessions, each of another user, as are let in from there, at most `most`. */
export async function fill(url, tenant, most, options) {
  const sockets = [];
  for (let i = 0; i < most; i++) {
    const { socket, refused } = await enter(url, user(`${tenant}-${i}`, tenant), options);
    if (refused) return { sockets, refused };
    sockets.push(socket);
  }
  return { sockets };
}

const SIGNATURE = "\r\n\r\n\0\r\nQUIT\n";
const bytes = (...numbers) => String.fromCharCode(...numbers);
const dotted = (address) => bytes(...address.split(".").map(Number));

/** PROXY protocol version 2: a header that names `address`, as Latin-1 text. */
export function proxied(address, { version = 2, command = 1, length } = {}) {
  const rest = dotted(address) + dotted("127.0.0.1") + bytes(0x30, 0x39, 0x1f, 0x90);
  const size = length ?? rest.length;
  return SIGNATURE + bytes((version << 4) | command, 0x11, size >> 8, size & 0xff) + rest;
}

/** The header with which a proxy speaks for itself. */
export const LOCAL = SIGNATURE + bytes(0x20, 0, 0, 0);

/** The same for an IPv6 address, given as 16 numbers. */
export function proxied6(address) {
  const rest = bytes(...address) + bytes(...Array(15).fill(0), 1) + bytes(0x30, 0x39, 0x1f, 0x90);
  return SIGNATURE + bytes(0x21, 0x21, 0, rest.length) + rest;
}

/** A raw WebSocket behind the same header: its CONNECT is sent, and the answer given. */
export async function proxiedSession({ address }, header, token, from) {
  const [host, port] = address.split(":");
  const socket = net.connect({ host, port: Number(port), localAddress: from });
  socket.on("error", () => {});
  let text = "";
  const heard = (matches) => within(new Promise((resolve) => {
    const look = () => matches.test(text) && resolve(text);
    socket.on("data", look);
    socket.on("close", () => resolve(`${text}closed`));
    look();
  }), `${matches} from the bridge`);
  socket.on("data", (data) => (text += data.toString("latin1")));
  await once(socket, "connect");
  const key = Buffer.from("0123456789abcdef").toString("base64");
  socket.write(Buffer.from(`${header}GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n` +
    `sec-websocket-version: 13\r\nsec-websocket-key: ${key}\r\n\r\n`, "latin1"));
  const open = await heard(/"sid"|HTTP\/1\.1 [45]/);
  if (!open.includes('"sid"')) return { socket, answer: open };
  text = "";
  socket.write(frame(`40{"token":"${token}"}`));
  return { socket, answer: await heard(/4[04]\{/) };
}

/** A masked text frame. The mask is 0, so that the text can be read. */
export function frame(text) {
  const payload = Buffer.from(text);
  const head = payload.length < 126 ? [0x81, 0x80 | payload.length] : [0x81, 0xfe, payload.length >> 8, payload.length & 0xff];
  return Buffer.concat([Buffer.from([...head, 0, 0, 0, 0]), payload]);
}

/** A `/ws` session whose owner reads one byte at a time, so many of them in a millisecond. */
export async function readingBytes({ address }, token, perMillisecond) {
  const [host, port] = address.split(":");
  let [budget, open] = [1 << 20, true];
  const socket = net.connect({
    host,
    port: Number(port),
    onread: {
      buffer: Buffer.alloc(1),
      callback: () => --budget > 0,
    },
  });
  socket.on("error", () => {});
  const closed = once(socket, "close").then(() => (open = false));
  await once(socket, "connect");
  const key = Buffer.from("0123456789abcdef").toString("base64");
  socket.write(`GET /ws?token=${token} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: ${key}\r\n\r\n`);
  /** From now on it reads slowly. */
  const slowDown = () => {
    budget = 0;
    let last = performance.now();
    const timer = setInterval(() => {
      if (!open) return clearInterval(timer);
      const now = performance.now();
      budget = Math.round((now - last) * perMillisecond);
      last = now;
      socket.resume();
    }, 5);
  };
  return { socket, closed, slowDown };
}

/** A bridge that may open only so many files. */
export async function startWithFiles(server, files, args = []) {
  const via = ["sh", "-c", `ulimit -n ${files}; exec "$0" "$@"`];
  const all = ["bridge", "--http-listen", "127.0.0.1:0", "--server", server.url, "--jwt-secret", SECRET, ...args];
  const bridge = new Process(all, { via });
  bridge.address = (await bridge.log("bridge listening")).address;
  bridge.url = `http://${bridge.address}`;
  await bridge.log("linked");
  return bridge;
}
