// The messenger's maps, in the shape in which `fanfare types` writes them, as far as these tests use them.

import type { Answer } from "@fanfare/client";

export interface NewMessage {
  id: number;
  chatId: number;
  content: string;
  fromMe: boolean;
  timestamp: string;
  channel: "whatsapp" | "waba" | "telegram";
  senderName?: string;
}

export interface ChatRef {
  chatId: number;
}

export interface Typing {
  chatId: number;
  userId: string;
}

export interface UserRef {
  userId: string;
}

export interface ActiveUsers {
  users: { userId: string; name?: string }[];
}

export interface ServerToClientEvents {
  "message:new": (event: NewMessage, cursor: string) => void;
  "operator:joined": (event: Typing, cursor: string) => void;
  "operator:left": (event: Typing, cursor: string) => void;
  "typing:start": (event: Typing) => void;
  "user:online": (event: UserRef, cursor: string) => void;
  "user:offline": (event: UserRef, cursor: string) => void;
}

export interface ClientToServerEvents {
  "subscribe:chat": (request: ChatRef, acknowledge?: (answer: Answer<ChatRef>) => void) => void;
  "unsubscribe:chat": (request: ChatRef, acknowledge?: (answer: Answer<ChatRef>) => void) => void;
  "typing:start": (request: ChatRef, acknowledge?: (answer: Answer<ChatRef>) => void) => void;
  get_active_users: (request: Record<string, never>, acknowledge?: (answer: Answer<ActiveUsers>) => void) => void;
}
