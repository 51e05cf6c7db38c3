// A process that abuses a bridge in several ways at once, for as long as it lives, and counts what it was answered.

import { setPriority } from "node:os";
import WebSocket from "ws";

const [url, nice, ...tokens] = process.argv.slice(2);
setPriority(Number(nice));
const counts = {};
const count = (what) => (counts[what] = (counts[what] ?? 0) + 1);
/** Packets in one go; then the event loop has its turn. */
const BURST = 50;

const WAYS = {
  "floods calls": (socket) => socket.send('42["subscribe:chat",{"chatId":7}]'),
  "joins 100,000 rooms": (socket, n) => socket.send(`42${n}["join_chat",{"chatId":"r${n % 100_000}"}]`),
  "sends names with control characters": (socket) => socket.send('421["a\\u0000b",{}]'),
  "forges ids": (socket) => socket.send('422["send_message",{"chatId":"x","content":"x","senderId":"root"}]'),
  "acknowledges what it never got": (socket, n) => socket.send(`43${n}[{}]`),
  "sends 10 MB": (socket) => socket.send(`42["subscribe:chat","${"x".repeat(10 << 20)}"]`),
};

function abuse(way, index) {
  const socket = new WebSocket(`${url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
  let [n, timer] = [0];
  const send = () => {
    const burst = way === "sends 10 MB" ? 1 : BURST;
    for (let i = 0; i < burst && socket.bufferedAmount < 1 << 20; i++) WAYS[way](socket, n++);
    timer = setTimeout(send, 1);
  };
  socket.on("message", (data) => {
    const text = String(data);
    if (text.startsWith("0")) return socket.send(`40{"token":"${tokens[index]}"}`);
    if (text === "2") return socket.send("3");
    if (text.startsWith("40")) return send();
    const code = /"code":"(\w+)"/.exec(text)?.[1];
    if (code) count(`${way}: ${code}`);
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    clearTimeout(timer);
    count(`${way}: closed`);
    setTimeout(() => abuse(way, index), 20);
  });
}

Object.keys(WAYS).forEach(abuse);
process.on("message", () => process.send(counts));
// Nobody is left to be abused for.
process.on("disconnect", () => process.exit());
process.send("begun");
