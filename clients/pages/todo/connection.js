// The list's connection: the stock Socket.IO client, and what its events mean for the list.

import { io } from "socket.io-client";

/**
 * @typedef {import("./events").Created} Todo
 * @typedef {import("./events").User} User
 * @typedef {import("socket.io-client").Socket<import("./events").ServerToClientEvents, import("./events").ClientToServerEvents>} TodoSocket
 * @typedef {object} View
 * @property {(text: string, ended?: boolean) => void} status
 * @property {(message: string, user?: User) => void} greet
 * @property {(todo: Todo) => void} put
 * @property {(id: string) => void} remove
 * @property {(text: string) => void} problem
 */

/**
 * Connects; the token goes into `auth`, or into the query.
 * @param {string} url
 * @param {string} token
 * @param {boolean} inQuery
 * @param {View} view
 */
export function connect(url, token, inQuery, view) {
  /** @type {TodoSocket} */
  const socket = io(url, inQuery ? { query: { token } } : { auth: { token } });
  socket.on("connect", () => {
    view.status("Up to date");
    socket.emit("join");
  });
  socket.on("connect_error", (error) => {
    view.problem(error.message);
    view.status(socket.active ? "Reconnecting …" : "Signed out", !socket.active);
  });
  socket.on("disconnect", (reason) => {
    const ended = reason === "io server disconnect";
    view.status(ended ? "Signed out" : "Reconnecting …", ended);
  });
  socket.on("joined", ({ message, user }) => view.greet(message, user));
  socket.on("todo:created", view.put);
  socket.on("todo:updated", view.put);
  socket.on("todo:completed", view.put);
  socket.on("todo:deleted", ({ id }) => view.remove(id));
  socket.on("error", ({ message }) => view.problem(message));
  return socket;
}
