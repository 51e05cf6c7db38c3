// A process that attacks a bridge in one way until it is stopped, and counts what happened to it. It stands for other
// machines: it connects from an address of its own, and takes only the time that nobody else wants.
//
// The task is the first argument, as JSON: {way, host, port, from, connections, …}. Messages: "begun" when the attack
// goes on, and the counts whenever it is asked for them.

import net from "node:net";
import { setPriority } from "node:os";

const task = JSON.parse(process.argv[2]);
const counts = { opened: 0, refused: 0, closed: 0, open: 0, longestMs: 0, sent: 0, statuses: {} };
setPriority(19);

const POLLING = "/socket.io/?EIO=4&transport=polling";
/** An opening request for a WebSocket. */
const UPGRADE = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n" +
  `sec-websocket-version: 13\r\nsec-websocket-key: ${Buffer.from("0123456789abcdef").toString("base64")}\r\n\r\n`;

/** A connection whose answers and end are counted. */
function connection({ onAnswer, onClose } = {}) {
  const socket = net.connect({ host: task.host, port: task.port, localAddress: task.from });
  let [began, answered, text] = [0, false, ""];
  socket.on("connect", () => {
    began = performance.now();
    counts.opened++;
    counts.open++;
  });
  socket.on("data", (data) => {
    text = (text + data.toString("latin1")).slice(-65_536);
    for (let end; (end = text.indexOf("\r\n\r\n")) >= 0; ) {
      const head = text.slice(0, end);
      const status = /^HTTP\/1\.1 (\d+)/.exec(head)?.[1];
      if (!status) break;
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
      if (text.length < end + 4 + length) break;
      answered = true;
      counts.statuses[status] = (counts.statuses[status] ?? 0) + 1;
      if (status === "503" && !/^retry-after: \d+/im.test(head)) counts.withoutRetryAfter = (counts.withoutRetryAfter ?? 0) + 1;
      const body = text.slice(end + 4, end + 4 + length);
      text = text.slice(end + 4 + length);
      onAnswer?.(Number(status), body);
    }
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    if (began) {
      counts.open--;
      counts.closed++;
      counts.longestMs = Math.max(counts.longestMs, performance.now() - began);
    }
    if (!answered) counts.refused++;
    onClose?.();
  });
  return socket;
}

/** Many connections, each of which is made again when it is closed, if `again` is so. */
function many(open, { again = false } = {}) {
  const one = () => {
    const socket = open({ onClose: () => again && setTimeout(one, 20) });
    return socket;
  };
  // Not all at once: the backlog of the kernel is not what is attacked.
  let left = task.connections;
  const more = () => {
    for (let i = 0; i < 50 && left > 0; i++, left--) one();
    if (left > 0) setTimeout(more, 5);
  };
  more();
}

/** Sends a text byte by byte, `every` so many milliseconds. */
function trickle(socket, text, every) {
  let at = 0;
  const timer = setInterval(() => {
    socket.write(text[at++ % text.length], "latin1");
    counts.sent++;
  }, every);
  socket.on("close", () => clearInterval(timer));
}

const WAYS = {
  /** Handshakes without a token, one after the other on each connection, as fast as they are answered. */
  handshakes() {
    const open = ({ onClose }) => {
      const next = () => {
        if (counts.sent >= task.requests) return;
        counts.sent++;
        socket.write(`GET ${POLLING} HTTP/1.1\r\nhost: x\r\n\r\n`);
      };
      const socket = connection({ onAnswer: next, onClose });
      socket.on("connect", next);
      return socket;
    };
    many(open, { again: true });
  },

  /** WebSockets that answer nothing and never CONNECT. */
  silentWebSockets() {
    many((options) => {
      const socket = connection(options);
      socket.on("connect", () => socket.write(UPGRADE));
      return socket;
    });
  },

  /** Connections that send nothing. */
  idle: () => many(connection, { again: task.again }),

  /** Heads that never end, byte by byte. */
  trickledHeads() {
    many((options) => {
      const socket = connection(options);
      socket.on("connect", () => trickle(socket, "GET / HTTP/1.1\r\nhost: x\r\nx-filler: ".padEnd(100_000, "x"), task.every));
      return socket;
    });
  },

  /** Requests that announce a body and send it byte by byte: packets, or a gRPC-Web message where a path is given. */
  trickledBodies() {
    const head = (path, more = "") => `POST ${path} HTTP/1.1\r\nhost: x\r\n${more}content-length: 60000\r\n\r\n`;
    many(({ onClose }) => {
      const body = (path, more) => {
        socket.write(head(path, more));
        trickle(socket, (task.path ? "\0\0\0\xea\x5b" : "4").padEnd(60_000, "0"), task.every);
      };
      const onAnswer = (status, text) => {
        const sid = status === 200 && /"sid":"([^"]+)"/.exec(text)?.[1];
        if (sid) body(`${POLLING}&sid=${sid}`);
      };
      const socket = connection({ onAnswer, onClose });
      socket.on("connect", () => {
        if (task.path) body(task.path, task.head);
        else socket.write(`GET ${POLLING} HTTP/1.1\r\nhost: x\r\n\r\n`);
      });
      return socket;
    });
  },

  /** Calls whose answers do not end: each is a stream. */
  streams() {
    many((options) => {
      const socket = connection(options);
      socket.on("connect", () => socket.write(`POST ${task.path} HTTP/1.1\r\nhost: x\r\n${task.head}content-length: 5\r\n\r\n\0\0\0\0\0`));
      return socket;
    });
  },

  /** Heads as large as they are taken. */
  hugeHeads() {
    const filler = `x-filler: ${"x".repeat(8000)}\r\n`;
    many((options) => {
      const socket = connection(options);
      const send = () => {
        for (let i = 0; i < 256 && !socket.destroyed && socket.write(filler); i++) counts.sent += filler.length;
        if (!socket.destroyed) setTimeout(send, 20);
      };
      socket.on("connect", () => {
        socket.write("GET / HTTP/1.1\r\nhost: x\r\n");
        send();
      });
      return socket;
    }, { again: true });
  },

  /** Requests that are answered, each on a connection of its own. */
  connects() {
    many(({ onClose }) => {
      const socket = connection({ onAnswer: () => socket.end(), onClose });
      socket.on("connect", () => socket.write("GET /poll HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
      return socket;
    }, { again: true });
  },
};

WAYS[task.way]();
process.on("message", () => process.send(counts));
// Nobody is left to attack for.
process.on("disconnect", () => process.exit());
process.send("begun");
