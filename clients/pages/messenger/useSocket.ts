// The help desk's connection: joins the open chat, again after every reconnect, and hands events to the page.

import { useCallback, useEffect, useRef, useState } from "react";
import { io, type Socket } from "socket.io-client";

export type Channel = "whatsapp" | "waba" | "telegram";
export type ChatStatus = "new" | "open" | "pending" | "closed";
export type MessageStatus = "pending" | "sent" | "delivered" | "read" | "failed";

export interface NewChat {
  id: number;
  name: string;
  channel: Channel;
  status: ChatStatus;
  priority?: string;
  assignedUserId?: number;
  createdAt: string;
}

export interface NewMessage {
  id: number;
  chatId: number;
  content: string;
  fromMe: boolean;
  timestamp: string;
  channel: Channel;
  senderName?: string;
  mediaType?: string;
}

export interface Notice {
  type: string;
  message: string;
}

/** What the server sends, as far as the page looks at it. */
export interface ServerEvents {
  "chat:new": (chat: NewChat) => void;
  "chat:updated": (change: { id: number; status?: ChatStatus; priority?: string; unreadCount?: number; lastMessageAt?: string }) => void;
  "chat:deleted": (chat: { chatId: number }) => void;
  "message:new": (message: NewMessage) => void;
  "message:status": (status: { messageId: number; status: MessageStatus; chatId: number }) => void;
  "messages:read": (read: { chatId: number; readByUserId: number }) => void;
  "user:notification": (notice: Notice) => void;
  "typing:start": (typing: { chatId: number; userId: string }) => void;
  "typing:stop": (typing: { chatId: number; userId: string }) => void;
  "operator:joined": (operator: { chatId: number; userId: string }) => void;
  "operator:left": (operator: { chatId: number; userId: string }) => void;
  "user:online": (operator: { userId: string }) => void;
  "user:offline": (operator: { userId: string }) => void;
  error: (error: { code: string; message: string }) => void;
}

interface ClientEvents {
  "subscribe:chat": (chat: { chatId: number }) => void;
  "unsubscribe:chat": (chat: { chatId: number }) => void;
  "typing:start": (chat: { chatId: number }) => void;
  "typing:stop": (chat: { chatId: number }) => void;
}

export type Status = "connecting" | "connected" | "disconnected" | "ended";

/** How long after the last key the operator still counts as typing. */
const TYPING_PAUSE = 1500;
/** How often somebody who goes on typing says so: others take the end for lost after a while. */
const TYPING_AGAIN = 3000;

export function useSocket(url: string, token: string, chatId: number | undefined, handlers: Partial<ServerEvents>) {
  const [status, setStatus] = useState<Status>("connecting");
  const [problem, setProblem] = useState("");
  const socketRef = useRef<Socket<ServerEvents, ClientEvents>>(undefined);
  const latest = useRef(handlers);
  latest.current = handlers;

  useEffect(() => {
    const socket: Socket<ServerEvents, ClientEvents> = io(url, { auth: { token } });
    socketRef.current = socket;
    socket.on("connect", () => {
      setStatus("connected");
      setProblem("");
    });
    socket.on("connect_error", (error) => {
      setProblem(error.message);
      if (!socket.active) setStatus("ended");
    });
    socket.on("disconnect", (reason) => setStatus(reason === "io server disconnect" ? "ended" : "disconnected"));
    socket.on("error", (error) => setProblem(error.message));
    socket.onAny((name: keyof ServerEvents, payload) => {
      (latest.current[name] as ((payload: unknown) => void) | undefined)?.(payload);
    });
    return () => {
      socket.disconnect();
    };
  }, [url, token]);

  useEffect(() => {
    const socket = socketRef.current;
    if (!socket || status !== "connected" || chatId === undefined) return;
    socket.emit("subscribe:chat", { chatId });
    return () => {
      if (socket.connected) socket.emit("unsubscribe:chat", { chatId });
    };
  }, [status, chatId]);

  // Typing starts with a key and stops after a pause, when the line is emptied, or with the chat.
  const stop = useRef<() => void>(undefined);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const told = useRef(0);
  const stopTyping = useCallback(() => {
    clearTimeout(timer.current);
    stop.current?.();
    stop.current = undefined;
  }, []);
  const typing = useCallback(
    (text: string) => {
      const socket = socketRef.current;
      if (!socket || chatId === undefined) return;
      if (text === "") return stopTyping();
      if (!stop.current || Date.now() - told.current > TYPING_AGAIN) {
        socket.emit("typing:start", { chatId });
        told.current = Date.now();
        stop.current = () => socket.emit("typing:stop", { chatId });
      }
      clearTimeout(timer.current);
      timer.current = setTimeout(stopTyping, TYPING_PAUSE);
    },
    [chatId, stopTyping],
  );
  useEffect(() => stopTyping, [chatId, stopTyping]);

  return { status, problem, typing };
}
