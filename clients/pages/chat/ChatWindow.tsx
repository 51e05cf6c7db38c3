// One chat: who is in it, what was said, and a line to write.

import { useEffect, useRef, useState, type FormEvent } from "react";
import type { Member } from "./events";
import { useOlder } from "../useOlder";
import type { Message } from "./useSocketChat";

const time = (timestamp?: string) => (timestamp ? new Date(timestamp).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : "");
const initials = (name: string) => name.slice(0, 2).toUpperCase();

function Ticks({ message }: { message: Message }) {
  const [text, mark] =
    message.state === "sending" ? ["Sending", "…"]
    : message.state === "failed" ? ["Not sent", "!"]
    : message.readBy.length > 0 ? [`Read by ${message.readBy.join(", ")}`, "✓✓"]
    : ["Sent", "✓"];
  return <span className={`ticks ${message.readBy.length > 0 ? "read" : message.state}`} role="img" aria-label={text} title={text}>{mark}</span>;
}

interface Props {
  chatId: string;
  userId?: string;
  messages: Message[];
  members: Member[];
  online: Record<string, string | undefined>;
  canSend: boolean;
  /** Where the page of older messages begins. */
  older?: string;
  onOlder(before: string): void;
  onSend(content: string): void;
}

export function ChatWindow({ chatId, userId, messages, members, online, canSend, older, onOlder, onSend }: Props) {
  const [draft, setDraft] = useState("");
  const end = useRef<HTMLLIElement>(null);
  useEffect(() => {
    end.current?.scrollIntoView({ block: "end" });
  }, [chatId, messages.at(-1)?.id]);
  const list = useRef<HTMLOListElement>(null);
  const keep = useOlder(list, older, messages[0]?.id, onOlder);

  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (!draft.trim()) return;
    onSend(draft.trim());
    setDraft("");
  };

  return (
    <section className="window" aria-label={`Chat ${chatId}`}>
      <header>
        <h2>{chatId}</h2>
        <ul className="members" aria-label="Members">
          {members.map((member) => (
            <li key={member.userId}>
              <span className="avatar">{initials(member.name ?? member.userId)}</span>
              {member.name ?? member.userId}
              <span className={member.userId in online ? "dot on" : "dot"} role="img" aria-label={member.userId in online ? "online" : "offline"} />
            </li>
          ))}
        </ul>
      </header>
      <ol className="messages" aria-label="Messages" aria-live="polite" ref={list} onScroll={keep}>
        {messages.length === 0 && <li className="empty">Nobody has written here yet.</li>}
        {messages.map((message) => (
          <li key={message.clientMessageId ?? message.id} className={message.senderId === userId ? "mine" : "theirs"}>
            {message.senderId !== userId && <span className="sender">{message.senderName ?? message.senderId}</span>}
            <p>{message.content}</p>
            <footer>
              <time dateTime={message.timestamp}>{time(message.timestamp)}</time>
              {message.state === "failed" && <span aria-hidden="true">Not sent</span>}
              {message.senderId === userId && <Ticks message={message} />}
            </footer>
          </li>
        ))}
        <li ref={end} aria-hidden="true" className="end" />
      </ol>
      <form onSubmit={submit}>
        <input aria-label="Message" placeholder="Write a message" value={draft} onChange={(event) => setDraft(event.target.value)} disabled={!canSend} />
        <button disabled={!canSend || !draft.trim()}>Send</button>
      </form>
    </section>
  );
}
