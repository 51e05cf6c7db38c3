// Drives a stock socket.io-client 3 or 4. The lines are described in ../lib/foreign.js.
// Arguments: the package's name, URL, token, transports.

import { createInterface } from "node:readline";

const [name, url, token, transports] = process.argv.slice(2);
const { io } = await import(name);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const socket = io(url, { auth: { token }, transports: transports.split(","), forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });

socket.on("connect", () => say({ connected: socket.id, recovered: socket.recovered === true }));
socket.on("disconnect", (reason) => say({ disconnected: reason }));
socket.on("connect_error", (error) => say({ refused: error.message }));
socket.onAny((...event) => say({ event }));

const does = {
  call: ({ ref, event, payload }) => socket.emit(event, payload, (answer) => say({ ref, answer })),
  close: () => socket.close(),
};
createInterface({ input: process.stdin }).on("line", (text) => {
  const line = JSON.parse(text);
  does[line.do](line);
}).on("close", () => process.exit());
