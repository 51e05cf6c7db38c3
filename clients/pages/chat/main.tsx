// Person-to-person chat: a list of chats beside the window of one of them.

import { StrictMode, useEffect, useState, type FormEvent } from "react";
import { createRoot } from "react-dom/client";
import { ChatWindow } from "./ChatWindow";
import { useSocketChat, type Status } from "./useSocketChat";
import "./chat.css";

const params = new URLSearchParams(location.search);
const url = params.get("url") ?? "http://127.0.0.1:3000";

const STATUS: Record<Status, string> = {
  connecting: "Connecting …",
  connected: "Connected",
  disconnected: "Reconnecting …",
  ended: "Signed out",
};

function useFocus() {
  const [focused, setFocused] = useState(document.hasFocus());
  useEffect(() => {
    const look = () => setFocused(document.hasFocus() && document.visibilityState === "visible");
    const events = ["focus", "blur", "visibilitychange"];
    events.forEach((event) => window.addEventListener(event, look));
    return () => events.forEach((event) => window.removeEventListener(event, look));
  }, []);
  return focused;
}

function Chats({ token, onSignOut }: { token: string; onSignOut(): void }) {
  const [chatIds, setChatIds] = useState((params.get("chat") ?? "general").split(",").filter(Boolean));
  const [active, setActive] = useState(chatIds[0] ?? "");
  const [other, setOther] = useState("");
  const chat = useSocketChat(url, token, chatIds, active, useFocus());
  const unread = Object.values(chat.chats).reduce((sum, { unread }) => sum + unread, 0);
  useEffect(() => {
    document.title = unread > 0 ? `(${unread}) Chat` : "Chat";
  }, [unread]);

  // Somebody may write to us in a chat that we have not opened.
  const listed = [...new Set([...chatIds, ...Object.keys(chat.chats)])];
  const show = (chatId: string) => {
    if (!chatIds.includes(chatId)) setChatIds([...chatIds, chatId]);
    setActive(chatId);
  };
  const open = (event: FormEvent) => {
    event.preventDefault();
    const chatId = other.trim();
    if (!chatId) return;
    show(chatId);
    setOther("");
  };
  const close = (chatId: string) => {
    chat.leave(chatId);
    const rest = chatIds.filter((id) => id !== chatId);
    setChatIds(rest);
    if (active === chatId) setActive(rest[0] ?? "");
  };

  return (
    <main>
      <aside>
        <h1>Chat</h1>
        <p className={`status ${chat.status}`} role="status">
          {STATUS[chat.status]}
          {chat.status === "connected" && chat.latency !== undefined && <small> {Math.max(1, Math.round(chat.latency))} ms</small>}
        </p>
        <nav aria-label="Chats">
          {listed.map((chatId) => (
            <div key={chatId} className={chatId === active ? "entry active" : "entry"}>
              <button onClick={() => show(chatId)} aria-current={chatId === active}>
                <span>{chatId}</span>
                {(chat.chats[chatId]?.unread ?? 0) > 0 && (
                  <b className="unread" aria-label={`${chat.chats[chatId]?.unread} unread`}>{chat.chats[chatId]?.unread}</b>
                )}
              </button>
              <button className="leave" aria-label={`Leave ${chatId}`} onClick={() => close(chatId)}>×</button>
            </div>
          ))}
        </nav>
        <form onSubmit={open}>
          <input aria-label="Open a chat" placeholder="Open a chat" value={other} onChange={(event) => setOther(event.target.value)} />
        </form>
        <h2>Online</h2>
        <ul className="online" aria-label="Online">
          {Object.entries(chat.online).map(([userId, name]) => (
            <li key={userId} data-user={userId}>
              <span className="dot on" />
              {name}
              {userId === chat.userId && <small> you</small>}
            </li>
          ))}
        </ul>
      </aside>
      {chat.problem && (
        <p className="problem" role="alert">
          {chat.problem}
          {chat.status === "ended" && <button onClick={onSignOut}>Sign in again</button>}
        </p>
      )}
      {active ? (
        <ChatWindow
          chatId={active} userId={chat.userId} messages={chat.chat.messages} members={chat.chat.members}
          online={chat.online} older={chat.chat.older} onOlder={(before) => chat.load(active, before)} canSend={chat.status === "connected" && chat.userId !== undefined} onSend={chat.send}
        />
      ) : (
        <p className="empty">Open a chat to begin.</p>
      )}
    </main>
  );
}

function App() {
  const [token, setToken] = useState(params.get("token") ?? "");
  const [draft, setDraft] = useState("");
  if (token) return <Chats token={token} onSignOut={() => setToken("")} />;
  const signIn = (event: FormEvent) => {
    event.preventDefault();
    setToken(draft.trim());
  };
  return (
    <form className="signin" onSubmit={signIn}>
      <h1>Chat</h1>
      <label>
        Token
        <textarea rows={5} value={draft} onChange={(event) => setDraft(event.target.value)} />
      </label>
      <button disabled={!draft.trim()}>Sign in</button>
    </form>
  );
}

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
