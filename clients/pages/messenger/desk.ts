// The desk's state: chats, messages and operators, as the events tell of them.

import type { Channel, ChatUpdated, MessageHistory, MessageStatus, NewMessage, ServerToClientEvents } from "./events";

export interface Message extends NewMessage {
  status?: MessageStatus;
  /** Why it failed. */
  error?: string;
  edited?: boolean;
}

export interface Chat {
  id: number;
  name: string;
  channel?: Channel;
  status?: ChatUpdated["status"];
  priority?: string;
  unread: number;
  lastAt: string;
  messages: Message[];
  /** Where the page of older messages begins; empty: there are none; absent: nothing is known yet. */
  older?: string;
  /** Operators who have the chat open. */
  operators: string[];
  typing: string[];
}

export interface Desk {
  chats: Record<number, Chat>;
  online: string[];
}

export type Event = { [Name in keyof ServerToClientEvents]: { name: Name; payload: Parameters<ServerToClientEvents[Name]>[0] } }[keyof ServerToClientEvents]
  | { name: "opened" | "closed"; payload: { chatId: number } }
  | { name: "history"; payload: MessageHistory };

const blank = (id: number): Chat => ({
  id, name: `Chat ${id}`, unread: 0, lastAt: new Date().toISOString(), messages: [], operators: [], typing: [],
});
const add = (list: string[], one: string) => (list.includes(one) ? list : [...list, one]);
const without = (list: string[], one: string) => list.filter((other) => other !== one);

function change(desk: Desk, id: number, make: (chat: Chat) => Partial<Chat>): Desk {
  const chat = desk.chats[id] ?? blank(id);
  return { ...desk, chats: { ...desk.chats, [id]: { ...chat, ...make(chat) } } };
}

/** Changes a chat that is in the list. What is still said of a deleted chat does not bring it back. */
const amend: typeof change = (desk, id, make) => (desk.chats[id] ? change(desk, id, make) : desk);

export function tell(desk: Desk, event: Event): Desk {
  switch (event.name) {
    case "chat:new": {
      const { id, name, channel, status, priority, createdAt } = event.payload;
      return change(desk, id, (chat) => ({
        name, channel, status, priority, lastAt: chat.messages.length > 0 ? chat.lastAt : createdAt ?? chat.lastAt,
      }));
    }
    case "chat:updated": {
      const { id, unreadCount, lastMessageAt, ...rest } = event.payload;
      return change(desk, id, (chat) => ({ ...rest, unread: unreadCount ?? chat.unread, lastAt: lastMessageAt ?? chat.lastAt }));
    }
    case "chat:deleted": {
      const { [event.payload.chatId]: _, ...chats } = desk.chats;
      return { ...desk, chats };
    }
    case "message:new": {
      const message = event.payload;
      if (desk.chats[message.chatId]?.messages.some((known) => known.id === message.id)) return desk;
      return change(desk, message.chatId, (chat) => ({
        channel: message.channel,
        messages: [...chat.messages, message],
        unread: chat.unread + (message.fromMe ? 0 : 1),
        lastAt: message.timestamp ?? chat.lastAt,
      }));
    }
    case "message:status": {
      const { chatId, messageId, status, error } = event.payload;
      return amend(desk, chatId, (chat) => ({ messages: chat.messages.map((m) => (m.id === messageId ? { ...m, status, error } : m)) }));
    }
    case "message:edited": {
      const { chatId, messageId, content } = event.payload;
      return amend(desk, chatId, (chat) => ({ messages: chat.messages.map((m) => (m.id === messageId ? { ...m, content, edited: true } : m)) }));
    }
    case "messages:read":
      return amend(desk, event.payload.chatId, () => ({ unread: 0 }));
    case "history": {
      const { chatId, messages, next } = event.payload;
      return amend(desk, chatId, (chat) => {
        const isNew = (message: NewMessage) => !chat.messages.some((known) => known.id === message.id);
        const older = messages.filter(isNew).reverse();
        return {
          messages: [...older, ...chat.messages],
          older: next,
          channel: chat.channel ?? messages[0]?.channel ?? undefined,
          lastAt: chat.messages.length > 0 ? chat.lastAt : messages[0]?.timestamp ?? chat.lastAt,
        };
      });
    }
    case "opened":
      return change(desk, event.payload.chatId, () => ({}));
    case "closed":
      // Nobody tells us any more who comes and goes there.
      return amend(desk, event.payload.chatId, () => ({ operators: [], typing: [] }));
    case "typing:start":
      return amend(desk, event.payload.chatId, (chat) => ({ typing: add(chat.typing, event.payload.userId) }));
    case "typing:stop":
      return amend(desk, event.payload.chatId, (chat) => ({ typing: without(chat.typing, event.payload.userId) }));
    case "operator:joined":
      return amend(desk, event.payload.chatId, (chat) => ({ operators: add(chat.operators, event.payload.userId) }));
    case "operator:left":
      return amend(desk, event.payload.chatId, (chat) => ({
        operators: without(chat.operators, event.payload.userId),
        typing: without(chat.typing, event.payload.userId),
      }));
    case "user:online":
      return { ...desk, online: add(desk.online, event.payload.userId) };
    case "user:offline":
      return { ...desk, online: without(desk.online, event.payload.userId) };
    case "user:notification":
    case "error":
      return desk;
  }
}
