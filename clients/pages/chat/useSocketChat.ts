// The chat's connection: one socket, and what its events say, as React state.

import { useCallback, useEffect, useReducer, useRef, useState } from "react";
import { io, type Socket } from "socket.io-client";
import type { Acknowledged, ActiveUser, Answer, ChatHistory, ClientToServerEvents, Member, MessageSent, NewMessage, ServerToClientEvents } from "./events";

export interface Message extends NewMessage {
  /** What we called it before it had an id. */
  clientMessageId?: string;
  state: "sending" | "sent" | "failed";
  readBy: string[];
}

interface Chat {
  messages: Message[];
  members: Member[];
  unread: number;
  /** Where the page of older messages begins; empty: there are none; absent: nothing is known yet. */
  older?: string;
}

interface State {
  userId?: string;
  online: Record<string, string | undefined>;
  chats: Record<string, Chat>;
}

type Action =
  | { type: "connected"; userId: string }
  | { type: "active"; users: ActiveUser[] }
  | { type: "online"; userId: string }
  | { type: "offline"; userId: string }
  | { type: "open"; chatId: string }
  | { type: "members"; chatId: string; members: Member[] }
  | { type: "message"; message: Message; unread: boolean }
  | { type: "confirmed"; clientMessageId?: string; id: string; timestamp?: string }
  | { type: "failed"; clientMessageId: string }
  | { type: "read"; chatId: string; messageIds: string[]; readBy: string }
  | { type: "history"; page: ChatHistory }
  | { type: "seen"; chatId: string }
  | { type: "left"; chatId: string };

/** A message that is not confirmed by then is shown as not sent. */
const SEND_TIMEOUT = 8000;

/** Entries of a history that are asked for at once. */
const PAGE = 50;

const EMPTY: Chat = { messages: [], members: [], unread: 0 };

function inChat(state: State, chatId: string, change: (chat: Chat) => Chat): State {
  return { ...state, chats: { ...state.chats, [chatId]: change(state.chats[chatId] ?? EMPTY) } };
}

function inMessages(state: State, change: (message: Message) => Message): State {
  const chats = Object.entries(state.chats).map(([id, chat]) => [id, { ...chat, messages: chat.messages.map(change) }]);
  return { ...state, chats: Object.fromEntries(chats) };
}

function reduce(state: State, action: Action): State {
  switch (action.type) {
    case "connected":
      return { ...state, userId: action.userId };
    case "active":
      return { ...state, online: Object.fromEntries(action.users.map((user) => [user.userId, user.name ?? user.userId])) };
    case "online":
      return { ...state, online: { ...state.online, [action.userId]: state.online[action.userId] ?? action.userId } };
    case "offline": {
      const { [action.userId]: _, ...online } = state.online;
      return { ...state, online };
    }
    case "open":
      return inChat(state, action.chatId, (chat) => chat);
    case "members":
      // The answer may come after the chat was left.
      return state.chats[action.chatId] ? inChat(state, action.chatId, (chat) => ({ ...chat, members: action.members })) : state;
    case "message":
      return inChat(state, action.message.chatId, (chat) => {
        // Our own message comes back, perhaps before it is confirmed.
        if (chat.messages.some((known) => known.id === action.message.id)) return chat;
        return { ...chat, messages: [...chat.messages, action.message], unread: chat.unread + Number(action.unread) };
      });
    case "confirmed":
      return confirm(state, action.id, action.timestamp, action.clientMessageId);
    case "failed":
      return inMessages(state, (message) => (message.clientMessageId === action.clientMessageId && message.state === "sending" ? { ...message, state: "failed" } : message));
    case "read":
      return inMessages(state, (message) =>
        action.messageIds.includes(message.id) && !message.readBy.includes(action.readBy)
          ? { ...message, readBy: [...message.readBy, action.readBy] }
          : message,
      );
    case "history":
      return state.chats[action.page.chatId] ? inChat(state, action.page.chatId, (chat) => withPage(chat, action.page)) : state;
    case "seen":
      return inChat(state, action.chatId, (chat) => ({ ...chat, unread: 0 }));
    case "left": {
      const { [action.chatId]: _, ...chats } = state.chats;
      return { ...state, chats };
    }
  }
}

/** A page of the chat's history: messages, and who has read them, the newest first. */
function withPage(chat: Chat, { entries, next }: ChatHistory): Chat {
  const readBy = new Map<string, string[]>();
  const older: Message[] = [];
  for (const entry of entries) {
    if (entry.messagesRead) {
      const { messageIds, readBy: reader } = entry.messagesRead;
      for (const id of messageIds) readBy.set(id, [...(readBy.get(id) ?? []).filter((one) => one !== reader), reader]);
    }
    const message = entry.newMessage;
    if (message && !chat.messages.some((known) => known.id === message.id)) older.unshift({ ...message, state: "sent", readBy: [] });
  }
  const messages = [...older, ...chat.messages].map((message) => {
    const readers = (readBy.get(message.id) ?? []).filter((one) => !message.readBy.includes(one));
    return readers.length > 0 ? { ...message, readBy: [...message.readBy, ...readers] } : message;
  });
  return { ...chat, messages, older: next };
}

/** Our message has an id. It may have come back to the chat before, and have been read. */
function confirm(state: State, id: string, timestamp?: string, clientMessageId?: string): State {
  const chats = Object.entries(state.chats).map(([chatId, chat]) => {
    const own = chat.messages.find((message) => message.clientMessageId === clientMessageId);
    if (!own || clientMessageId === undefined) return [chatId, chat];
    const echo = chat.messages.find((message) => message.id === id && message !== own);
    const confirmed: Message = { ...own, id, timestamp: timestamp ?? own.timestamp, state: "sent", readBy: echo?.readBy ?? own.readBy };
    const messages = chat.messages.filter((message) => message !== echo).map((message) => (message === own ? confirmed : message));
    return [chatId, { ...chat, messages }];
  });
  return { ...state, chats: Object.fromEntries(chats) };
}

export type Status = "connecting" | "connected" | "disconnected" | "ended";

export function useSocketChat(url: string, token: string, chatIds: string[], activeChat: string, focused: boolean) {
  const [state, dispatch] = useReducer(reduce, { online: {}, chats: {} });
  const [status, setStatus] = useState<Status>("connecting");
  const [problem, setProblem] = useState("");
  const [latency, setLatency] = useState<number>();
  const socketRef = useRef<Socket<ServerToClientEvents, ClientToServerEvents>>(undefined);
  const looking = useRef({ activeChat, focused, userId: state.userId });
  looking.current = { activeChat, focused, userId: state.userId };

  useEffect(() => {
    const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io(url, { auth: { token }, transports: ["websocket", "polling"] });
    socketRef.current = socket;
    socket.on("connect", () => {
      setStatus("connected");
      setProblem("");
      socket.emit("get_active_users", {});
    });
    socket.on("connect_error", (error) => {
      setProblem(error.message);
      if (!socket.active) setStatus("ended");
    });
    socket.on("disconnect", (reason) => setStatus(reason === "io server disconnect" ? "ended" : "disconnected"));
    socket.on("error", ({ message }) => setProblem(message));
    socket.on("connected", ({ userId }) => dispatch({ type: "connected", userId }));
    socket.on("active_users", ({ users }) => dispatch({ type: "active", users }));
    socket.on("user_online", ({ userId }) => {
      dispatch({ type: "online", userId });
      // The list knows names.
      socket.emit("get_active_users", {});
    });
    socket.on("user_offline", ({ userId }) => dispatch({ type: "offline", userId }));
    const askForMembers = ({ chatId }: { chatId: string }) => socket.emit("get_chat_info", { chatId });
    socket.on("user_joined_chat", askForMembers);
    socket.on("user_left_chat", askForMembers);
    socket.on("chat_info", ({ chatId, members }) => dispatch({ type: "members", chatId, members }));
    socket.on("new_message", (message) => {
      const { activeChat, focused, userId } = looking.current;
      // What we wrote ourselves, perhaps in another window, is not news.
      const unread = message.senderId !== userId && !(focused && activeChat === message.chatId);
      dispatch({ type: "message", message: { ...message, state: "sent", readBy: [] }, unread });
    });
    socket.on("message_sent", ({ id, clientMessageId, timestamp }) => dispatch({ type: "confirmed", id, clientMessageId, timestamp }));
    socket.on("messages_read", ({ chatId, messageIds, readBy }) => dispatch({ type: "read", chatId, messageIds, readBy }));
    const pings = setInterval(() => {
      const began = performance.now();
      if (socket.connected) socket.emit("ping", {}, () => setLatency(performance.now() - began));
    }, 2000);
    return () => {
      clearInterval(pings);
      socket.disconnect();
    };
  }, [url, token]);

  /** Asks for what happened before a place, or for the newest. */
  const load = useCallback((chatId: string, before = "") => {
    const answered = (answer: Answer<ChatHistory>) => {
      if ("error" in answer) setProblem(answer.error.message);
      else dispatch({ type: "history", page: answer });
    };
    socketRef.current?.emit("get_chat_history", { chatId, limit: PAGE, before }, answered);
  }, []);

  // Each chat is joined once a connection, and again after a reconnect.
  const joined = useRef(new Set<string>());
  /** What we have said we read: its marks take a moment to come back. */
  const marked = useRef(new Set<string>());
  useEffect(() => {
    const socket = socketRef.current;
    if (!socket || status !== "connected") {
      joined.current.clear();
      marked.current.clear();
      return;
    }
    for (const chatId of chatIds.filter((chatId) => !joined.current.has(chatId))) {
      joined.current.add(chatId);
      dispatch({ type: "open", chatId });
      socket.emit("join_chat", { chatId }, (answer) => {
        if ("error" in answer) setProblem(answer.error.message);
        else {
          socket.emit("get_chat_info", { chatId });
          load(chatId);
        }
      });
    }
  }, [chatIds, status, load]);

  // What is on the screen of somebody who looks at it has been read.
  const chat = state.chats[activeChat] ?? EMPTY;
  useEffect(() => {
    const own = state.userId;
    if (!focused || !own || status !== "connected") return;
    const unreadIds = chat.messages
      .filter((m) => m.senderId !== own && !m.readBy.includes(own) && !marked.current.has(m.id))
      .map((m) => m.id);
    unreadIds.forEach((id) => marked.current.add(id));
    if (unreadIds.length > 0) socketRef.current?.emit("mark_messages_read", { chatId: activeChat, messageIds: unreadIds });
    if (chat.unread > 0) dispatch({ type: "seen", chatId: activeChat });
  }, [chat, activeChat, focused, state.userId, status]);

  const send = useCallback(
    (content: string) => {
      const clientMessageId = crypto.randomUUID();
      const message: Message = {
        id: clientMessageId, clientMessageId, chatId: activeChat, senderId: state.userId ?? "", content,
        timestamp: new Date().toISOString(), state: "sending", readBy: [],
      };
      dispatch({ type: "message", message, unread: false });
      setProblem("");
      const answered = (late: Error | null, answer?: Answer<MessageSent>) => {
        if (answer && !("error" in answer)) {
          dispatch({ type: "confirmed", clientMessageId, id: answer.id, timestamp: answer.timestamp });
          return;
        }
        if (answer) setProblem(answer.error.message);
        else if (late) setProblem("A message could not be sent: no answer from the server.");
        dispatch({ type: "failed", clientMessageId });
      };
      const socket: Socket<ServerToClientEvents, Acknowledged<ClientToServerEvents>> | undefined = socketRef.current;
      socket?.timeout(SEND_TIMEOUT).emit("send_message", { chatId: activeChat, content, clientMessageId }, answered);
    },
    [activeChat, state.userId],
  );

  const leave = useCallback((chatId: string) => {
    joined.current.delete(chatId);
    socketRef.current?.emit("leave_chat", { chatId });
    dispatch({ type: "left", chatId });
  }, []);

  return { ...state, chat, status, problem, latency, send, leave, load };
}
