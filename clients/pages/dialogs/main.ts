// The page: the user's dialogs, and the messages of all or of one of them.

import type { Dialog, Message, WebSocketEvents } from "./events";
import { DialogFeed, type Mode } from "./feed";

const params = new URLSearchParams(location.search);
const url = params.get("url") ?? "http://127.0.0.1:3000";
const retryMs = Number(params.get("retry") ?? 5000);

const element = <E extends HTMLElement>(id: string) => document.getElementById(id) as E;
const MODES: Record<Mode, string> = { connecting: "connecting", live: "live", polling: "polling", ended: "signed out" };
const time = (at?: string) => (at ? new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : "");

const dialogs = new Map<string, Dialog>();
type Shown = Message & { dialogId: string };
const messages: Shown[] = [];
let selected: string | undefined;
let feed: DialogFeed | undefined;
let lastPong = 0;

function make(tag: string, className: string, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function messageRow(message: Shown) {
  const row = make("li", "");
  row.dataset.id = message.id;
  const from = make("span", "from", selected ? message.from : `${message.from} · ${message.dialogId}`);
  row.append(from, make("p", "", message.text), make("time", "", time(message.createdAt)));
  return row;
}

/** A message that came is added, so that a long list is not made anew. */
function add(message: Shown) {
  messages.push(message);
  if (selected && message.dialogId !== selected) return;
  const row = messageRow(message);
  element("messages").append(row);
  element("empty").hidden = true;
  row.scrollIntoView({ block: "nearest" });
}

function show() {
  const rows = [...dialogs.values()].sort((a, b) => (b.updatedAt ?? "").localeCompare(a.updatedAt ?? "")).map((dialog) => {
    const row = make("li", "");
    const button = make("button", dialog.id === selected ? "dialog active" : "dialog") as HTMLButtonElement;
    button.setAttribute("aria-pressed", String(dialog.id === selected));
    button.onclick = () => {
      selected = selected === dialog.id ? undefined : dialog.id;
      show();
    };
    button.append(make("span", "name", dialog.id), make("time", "", time(dialog.updatedAt)), make("span", "last", dialog.lastMessage ?? ""));
    if (dialog.unreadCount) {
      const unread = make("b", "unread", String(dialog.unreadCount));
      unread.setAttribute("aria-label", `${dialog.unreadCount} unread`);
      button.append(unread);
    }
    if (dialog.status) button.append(make("span", "state", dialog.status));
    row.append(button);
    return row;
  });
  element("dialogs").replaceChildren(...rows);
  element("selected").textContent = selected ?? "All messages";
  const shown = messages.filter((message) => !selected || message.dialogId === selected);
  element("messages").replaceChildren(...shown.map(messageRow));
  element("empty").hidden = shown.length > 0;
  element("messages").lastElementChild?.scrollIntoView({ block: "nearest" });
}

function take(message: WebSocketEvents) {
  switch (message.type) {
    case "dialog_update":
      if (!message.dialog) return;
      dialogs.set(message.dialog.id, { ...dialogs.get(message.dialog.id), ...message.dialog });
      return show();
    case "new_message":
      if (!message.message) return;
      return add({ ...message.message, dialogId: message.dialogId });
    case "pong":
      lastPong = message.timestamp ? Date.parse(message.timestamp) : Date.now();
      element("latency").textContent = `last answer ${time(new Date(lastPong).toISOString())}`;
      return;
    case "reset":
      element("problem").textContent = "Some history is gone; reload to see the present state.";
      element("problem").hidden = false;
      return;
    case "connected":
    case "subscribed":
    case "ack":
    case "error":
  }
}

function start(token: string) {
  element("signin").hidden = true;
  element("app").hidden = false;
  feed?.close();
  feed = new DialogFeed(url, token, {
    message: take,
    mode(mode) {
      element("mode").textContent = MODES[mode];
      element("mode").className = mode;
      if (mode === "live" || mode === "polling") element("problem").hidden = true;
      if (mode === "ended") element("signin").hidden = false;
    },
    problem(text) {
      element("problem").textContent = text;
      element("problem").hidden = false;
    },
  }, retryMs);
}

element("signin").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = element<HTMLTextAreaElement>("token").value.trim();
  if (token) start(token);
});
const given = params.get("token");
if (given) start(given);
else element("signin").hidden = false;
