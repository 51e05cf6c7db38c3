// The list's connection: the stock Socket.IO client, and what its events mean for the list.

import { io } from "socket.io-client";

/**
 * @typedef {"low" | "medium" | "high"} Priority
 * @typedef {{ id: string, title: string, description?: string, completed: boolean, priority: Priority, dueDate?: string,
 *   userId: string, createdAt: string, updatedAt: string }} Todo
 * @typedef {{ id: string, username: string, email: string }} User
 * @typedef {object} View
 * @property {(text: string, ended?: boolean) => void} status
 * @property {(message: string, user: User) => void} greet
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
  for (const event of ["todo:created", "todo:updated", "todo:completed"]) socket.on(event, view.put);
  socket.on("todo:deleted", ({ id }) => view.remove(id));
  socket.on("error", ({ message }) => view.problem(message));
  return socket;
}
