// Stock clients, with waits that end.

import { io } from "socket.io-client";
import { within } from "./fanfare.js";

/**
 * A connected stock client that records every event in `events` as [name, ...arguments], without the offset that stored
 * events carry as last argument, which it records in `offsets`; and its packets in `texts` as they came: "2" and the JSON of the event.
 */
export async function connect(url, token, options = {}, connector = io) {
  const socket = connector(url, { auth: { token }, transports: ["websocket"], forceNew: true, reconnection: false, ...options });
  const heard = record(socket);
  socket.onAny((...event) => heard(event));
  socket.texts = [];
  socket.once("connect", () => socket.io.engine.on("data", (text) => socket.texts.push(text)));
  await within(
    new Promise((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("connect_error", (error) => {
        socket.close();
        reject(error);
      });
      // Where it comes back by itself, that is waited for.
      if (!socket.io.reconnection()) socket.once("disconnect", (reason) => reject(new Error(`disconnected: ${reason}`)));
    }),
    "the client to connect",
  );
  return socket;
}

/** Gives a client `events`, `offsets` and `event()`, and what is to be told of each event that it gets. */
export function record(client) {
  client.events = [];
  client.offsets = [];
  const waiting = new Set();
  /** Resolves with the first event that matches, also one that has come already. */
  client.event = (name, matches = () => true) =>
    within(
      new Promise((resolve) => {
        const look = (event) => {
          const found = event[0] === name && matches(event[1]);
          if (found) resolve(event);
          return found;
        };
        if (!client.events.some(look)) waiting.add(look);
      }),
      `event ${name}`,
    );
  return (event) => {
    if (/^[0-9a-f]{12}-\d+(-[0-9a-f]{16})?$/.test(event.at(-1))) client.offsets.push(event.pop());
    client.events.push(event);
    for (const look of [...waiting]) if (look(event)) waiting.delete(look);
  };
}

/** Emits and waits for the acknowledgement. */
export const call = (socket, name, ...args) =>
  within(new Promise((resolve) => socket.emit(name, ...args, resolve)), `the acknowledgement of ${name}`);

/** The reason with which a client is disconnected. */
export const disconnected = (socket) =>
  within(new Promise((resolve) => socket.once("disconnect", resolve)), "the client to be disconnected");

/** The error with which a connection is refused. */
export async function refusal(url, options, connector = io) {
  try {
    const socket = await connect(url, undefined, options, connector);
    socket.close();
  } catch (error) {
    return error;
  }
  throw new Error("the connection was accepted");
}
