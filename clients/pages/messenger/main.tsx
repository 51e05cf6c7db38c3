// The operator's view of the help desk: chats on the left, the open one on the right. Replies go to the customer by `message:send`,
// which needs the service of the channels; without it the page shows what happens and why nothing can be sent.

import { StrictMode, useEffect, useMemo, useReducer, useRef, useState, type FormEvent } from "react";
import { createRoot } from "react-dom/client";
import { tell, type Chat, type Event, type Message } from "./desk";
import type { ChatDeleted, MessageHistory, ServerToClientEvents, TypingStart, UserNotification } from "./events";
import { useOlder } from "../useOlder";
import { useSocket, type Status } from "./useSocket";
import "./messenger.css";

const params = new URLSearchParams(location.search);
const url = params.get("url") ?? "http://127.0.0.1:3000";
/** Others' typing ends by itself, should its end get lost. */
const TYPING_MAX = 6000;
const NOTICE_MS = 8000;

const STATUS: Record<Status, string> = {
  connecting: "Connecting …", connected: "Live", disconnected: "Reconnecting …", ended: "Signed out",
};
const CHANNEL = { whatsapp: "WhatsApp", waba: "WhatsApp Business", telegram: "Telegram" };
const TICKS = { pending: "◷", sent: "✓", delivered: "✓✓", read: "✓✓", failed: "!" };
const time = (at?: string) => (at ? new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : "");
/** A picture may come without a word. */
const textOf = (message: Message) => message.content || `[${message.mediaType ?? "no text"}]`;

function ChannelBadge({ chat }: { chat: Chat }) {
  return chat.channel ? <span className={`channel ${chat.channel}`}>{CHANNEL[chat.channel]}</span> : null;
}

function Bubble({ message }: { message: Message }) {
  return (
    <li className={message.fromMe ? "out" : "in"}>
      {message.senderName && <span className="sender">{message.senderName}</span>}
      <p>{textOf(message)}</p>
      <footer>
        {message.edited && <span>edited</span>}
        <time dateTime={message.timestamp}>{time(message.timestamp)}</time>
        {message.fromMe && (
          <span className={`ticks ${message.status ?? "sent"}`} role="img" aria-label={message.status ?? "sent"} title={message.error}>
            {TICKS[message.status ?? "sent"]}
          </span>
        )}
      </footer>
    </li>
  );
}

interface ChatViewProps {
  chat: Chat;
  onType(text: string): void;
  /** Sends a reply; gives why it was refused, or nothing. */
  onSend(text: string, clientMessageId: string): Promise<string | undefined>;
  onOlder(before: string): void;
  onClose(): void;
}

function ChatView({ chat, onType, onSend, onOlder, onClose }: ChatViewProps) {
  const [draft, setDraft] = useState("");
  const [refused, setRefused] = useState("");
  const [sending, setSending] = useState(false);
  // Sending the same draft again after an error must not send it twice.
  const draftId = useRef("");
  const shown = useRef(chat.id);
  shown.current = chat.id;
  const change = (text: string) => {
    setDraft(text);
    setRefused("");
    draftId.current = "";
    onType(text);
  };
  useEffect(() => {
    setDraft("");
    setRefused("");
    draftId.current = "";
  }, [chat.id]);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (!draft.trim() || sending) return;
    draftId.current ||= Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
    setSending(true);
    const why = await onSend(draft, draftId.current);
    setSending(false);
    // The operator may have opened another chat in the meantime.
    if (shown.current !== chat.id) return;
    if (why) setRefused(why);
    else change("");
  };
  const end = useRef<HTMLLIElement>(null);
  const last = chat.messages.at(-1)?.id;
  useEffect(() => {
    end.current?.scrollIntoView({ block: "end" });
  }, [chat.id, last]);
  const list = useRef<HTMLOListElement>(null);
  const keep = useOlder(list, chat.older, chat.messages[0]?.id, onOlder);
  return (
    <section className="chat" aria-label={chat.name}>
      <header>
        <button className="back" aria-label="Back to the chats" onClick={onClose}>‹</button>
        <h2>{chat.name}</h2>
        <ChannelBadge chat={chat} />
        {chat.status && <span className={`state ${chat.status}`}>{chat.status}</span>}
        <span className="operators">{chat.operators.length > 0 && `Open by ${chat.operators.join(", ")}`}</span>
      </header>
      <ol className="messages" aria-label="Messages" aria-live="polite" ref={list} onScroll={keep}>
        {chat.messages.length === 0 && <li className="empty">No messages yet.</li>}
        {chat.messages.map((message) => <Bubble key={message.id} message={message} />)}
        <li ref={end} aria-hidden="true" className="end" />
      </ol>
      <p className="typing" role="status">{chat.typing.length > 0 && `Operator ${chat.typing.join(", ")} is typing …`}</p>
      {refused && <p className="problem" role="alert">{refused}</p>}
      <form onSubmit={submit}>
        <input aria-label="Reply" placeholder="Write a reply" value={draft} readOnly={sending} onChange={(event) => change(event.target.value)} />
        <button disabled={!draft.trim() || sending}>Send</button>
      </form>
    </section>
  );
}

function HelpDesk({ token, onSignOut }: { token: string; onSignOut(): void }) {
  const [desk, dispatch] = useReducer(tell, { chats: {}, online: [] });
  const [open, setOpen] = useState<number>();
  const [number, setNumber] = useState("");
  const typingEnds = useRef(new Map<string, ReturnType<typeof setTimeout>>());
  const [notices, setNotices] = useState<(UserNotification & { key: number })[]>([]);

  const handlers = useMemo(() => {
    const handle = (name: keyof ServerToClientEvents) => (payload: unknown) => dispatch({ name, payload } as Event);
    const names: (keyof ServerToClientEvents)[] = [
      "chat:new", "chat:updated", "message:new", "message:edited", "message:status", "messages:read", "typing:stop",
      "operator:joined", "operator:left", "user:online", "user:offline",
    ];
    return {
      ...Object.fromEntries(names.map((name) => [name, handle(name)])),
      "typing:start": (payload: TypingStart) => {
        dispatch({ name: "typing:start", payload });
        const key = `${payload.chatId} ${payload.userId}`;
        clearTimeout(typingEnds.current.get(key));
        typingEnds.current.set(key, setTimeout(() => dispatch({ name: "typing:stop", payload }), TYPING_MAX));
      },
      "chat:deleted": (payload: ChatDeleted) => {
        dispatch({ name: "chat:deleted", payload });
        setOpen((open) => (open === payload.chatId ? undefined : open));
      },
      "user:notification": (notice: UserNotification) => {
        const key = Math.random();
        setNotices((all) => [...all, { ...notice, key }]);
        setTimeout(() => setNotices((all) => all.filter((other) => other.key !== key)), NOTICE_MS);
      },
    } as Partial<ServerToClientEvents>;
  }, []);
  const onPage = (payload: MessageHistory) => dispatch({ name: "history", payload });
  const { status, problem, typing, load, send } = useSocket(url, token, open, handlers, onPage);

  const chats = Object.values(desk.chats).sort((a, b) => b.lastAt.localeCompare(a.lastAt));
  const chat = open === undefined ? undefined : desk.chats[open];
  useEffect(() => {
    if (open !== undefined) return () => dispatch({ name: "closed", payload: { chatId: open } });
  }, [open]);
  const show = (chatId: number) => {
    dispatch({ name: "opened", payload: { chatId } });
    setOpen(chatId);
  };
  const openByNumber = (event: FormEvent) => {
    event.preventDefault();
    if (/^\d+$/.test(number)) show(Number(number));
    setNumber("");
  };

  return (
    <main className={chat && "reading"}>
      <aside>
        <header>
          <h1>Help desk</h1>
          <p className={`status ${status}`} role="status">{STATUS[status]}</p>
        </header>
        <form onSubmit={openByNumber}>
          <input aria-label="Open chat number" placeholder="Open chat number" inputMode="numeric" value={number} onChange={(event) => setNumber(event.target.value)} />
        </form>
        <nav aria-label="Chats">
          {chats.length === 0 && <p className="empty">No chats yet. They appear as customers write.</p>}
          {chats.map((one) => {
            const last = one.messages.at(-1);
            return <button key={one.id} className={one.id === open ? "entry active" : "entry"} aria-current={one.id === open} onClick={() => show(one.id)}>
              <span className="name">{one.name}</span>
              <time dateTime={one.lastAt}>{time(one.lastAt)}</time>
              <span className="last">{last ? textOf(last) : one.status ?? ""}</span>
              {one.unread > 0 && <b className="unread" aria-label={`${one.unread} unread`}>{one.unread}</b>}
              <span className="badges"><ChannelBadge chat={one} />{one.priority && <span className="priority">{one.priority}</span>}</span>
            </button>;
          })}
        </nav>
        <section className="team" aria-label="Operators online">
          <h2>Operators online</h2>
          <ul>
            {desk.online.map((userId) => <li key={userId} data-user={userId}><span className="dot" />{userId}</li>)}
          </ul>
        </section>
      </aside>
      {problem && (
        <p className="problem" role="alert">
          {problem}
          {status === "ended" && <button onClick={onSignOut}>Sign in again</button>}
        </p>
      )}
      {chat ? (
        <ChatView chat={chat} onType={typing} onSend={send} onOlder={(before) => load(chat.id, before)} onClose={() => setOpen(undefined)} />
      ) : (
        <p className="empty hint">Choose a chat to read it.</p>
      )}
      <div className="notices" aria-live="polite">
        {notices.map((notice) => <p key={notice.key} className="notice"><b>{notice.type}</b>{notice.message}</p>)}
      </div>
    </main>
  );
}

function App() {
  const [token, setToken] = useState(params.get("token") ?? "");
  const [draft, setDraft] = useState("");
  if (token) return <HelpDesk token={token} onSignOut={() => setToken("")} />;
  return (
    <form className="signin" onSubmit={(event) => { event.preventDefault(); setToken(draft.trim()); }}>
      <h1>Help desk</h1>
      <label>Token<textarea rows={5} value={draft} onChange={(event) => setDraft(event.target.value)} /></label>
      <button disabled={!draft.trim()}>Sign in</button>
    </form>
  );
}

createRoot(document.getElementById("root")!).render(<StrictMode><App /></StrictMode>);
