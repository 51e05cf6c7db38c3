// The page: a list of items that follows what the server tells.

import { connect } from "./connection.js";

/** @typedef {import("./connection.js").Todo} Todo */

const params = new URLSearchParams(location.search);
const url = params.get("url") ?? "http://127.0.0.1:3000";

/** @param {string} id */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** @type {Map<string, Todo>} */
const todos = new Map();
const RANK = { high: 0, medium: 1, low: 2 };

/**
 * @param {string} tag
 * @param {string} className
 * @param {string} text
 */
function make(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** @param {Todo} todo */
function row(todo) {
  const item = document.createElement("li");
  item.dataset.id = todo.id;
  item.className = todo.completed ? "done" : "";
  const mark = make("span", "mark", todo.completed ? "✓" : "");
  mark.setAttribute("role", "img");
  mark.setAttribute("aria-label", todo.completed ? "done" : "open");
  const body = make("div", "body", "");
  body.append(make("span", "title", todo.title));
  if (todo.description) body.append(make("p", "description", todo.description));
  const facts = make("div", "facts", "");
  facts.append(make("span", `priority ${todo.priority}`, todo.priority));
  if (todo.dueDate) {
    const due = /** @type {HTMLTimeElement} */ (make("time", "due", `Due ${new Date(todo.dueDate).toLocaleDateString()}`));
    due.dateTime = todo.dueDate;
    if (!todo.completed && Date.parse(todo.dueDate) < Date.now()) due.classList.add("late");
    facts.append(due);
  }
  item.append(mark, body, facts);
  return item;
}

function show() {
  const all = [...todos.values()].sort((a, b) => RANK[a.priority] - RANK[b.priority] || (a.createdAt ?? "").localeCompare(b.createdAt ?? ""));
  const [open, done] = [all.filter((todo) => !todo.completed), all.filter((todo) => todo.completed)];
  element("open").replaceChildren(...open.map(row));
  element("done").replaceChildren(...done.map(row));
  element("open-count").textContent = String(open.length);
  element("done-count").textContent = String(done.length);
  element("empty").hidden = open.length > 0;
  element("done-section").hidden = done.length === 0;
}

/** @param {string} token */
function start(token) {
  element("signin").hidden = true;
  element("app").hidden = false;
  connect(url, token, params.get("via") === "query", {
    status(text, ended = false) {
      element("status").textContent = text;
      element("status").className = ended ? "ended" : text === "Up to date" ? "on" : "";
      if (ended) element("signin").hidden = false;
    },
    greet(message, user) {
      element("greeting").textContent = user ? `${message}, ${user.username}` : message;
      element("greeting").title = user?.email ?? "";
    },
    put(todo) {
      todos.set(todo.id, todo);
      show();
    },
    remove(id) {
      todos.delete(id);
      show();
    },
    problem(text) {
      /** @type {HTMLElement} */ (element("problem").firstElementChild).textContent = text;
      element("problem").hidden = false;
    },
  });
}

element("problem").querySelector("button")?.addEventListener("click", () => (element("problem").hidden = true));
element("signin").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = /** @type {HTMLTextAreaElement} */ (element("token"));
  if (!field.value.trim()) return;
  element("problem").hidden = true;
  start(field.value.trim());
});
show();
const given = params.get("token");
if (given) start(given);
else element("signin").hidden = false;
