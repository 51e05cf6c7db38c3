// The help desk's connection: joins the open chat, again after every reconnect, and hands events to the page.

import { useCallback, useEffect, useRef, useState } from "react";
import { io, type Socket } from "socket.io-client";
import type { Acknowledged, Answer, ClientToServerEvents, MessageHistory, ServerToClientEvents } from "./events";

export type Status = "connecting" | "connected" | "disconnected" | "ended";

/** Messages that are asked for at once. */
const PAGE = 30;
/** How long after the last key the operator still counts as typing. */
const TYPING_PAUSE = 1500;
/** How often somebody who goes on typing says so: others take the end for lost after a while. */
const TYPING_AGAIN = 3000;
/** How long to wait for the answer to a reply. */
const SEND_WAIT = 10_000;

export function useSocket(url: string, token: string, chatId: number | undefined, handlers: Partial<ServerToClientEvents>, onPage: (page: MessageHistory, isNewest: boolean) => void) {
  const [status, setStatus] = useState<Status>("connecting");
  const [problem, setProblem] = useState("");
  const socketRef = useRef<Socket<ServerToClientEvents, ClientToServerEvents>>(undefined);
  const latest = useRef(handlers);
  latest.current = handlers;
  const page = useRef(onPage);
  page.current = onPage;

  useEffect(() => {
    const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io(url, { auth: { token } });
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
    socket.onAny((name: keyof ServerToClientEvents, payload) => {
      (latest.current[name] as ((payload: unknown) => void) | undefined)?.(payload);
    });
    return () => {
      socket.disconnect();
    };
  }, [url, token]);

  /** Asks for the messages before a place, or for the newest. */
  const load = useCallback((chatId: number, before = "") => {
    const answered = (answer: Answer<MessageHistory>) => {
      if ("error" in answer) setProblem(answer.error.message);
      else page.current(answer, before === "");
    };
    socketRef.current?.emit("message:history", { chatId, limit: PAGE, before }, answered);
  }, []);

  useEffect(() => {
    const socket = socketRef.current;
    if (!socket || status !== "connected" || chatId === undefined) return;
    socket.emit("subscribe:chat", { chatId }, (answer) => {
      // What comes from now on comes as events; what came before is the newest page.
      if (!("error" in answer)) load(chatId);
    });
    return () => {
      if (socket.connected) socket.emit("unsubscribe:chat", { chatId });
    };
  }, [status, chatId, load]);

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

  const send = useCallback(
    async (text: string, clientMessageId: string): Promise<string | undefined> => {
      const socket = socketRef.current as Socket<ServerToClientEvents, Acknowledged<ClientToServerEvents>> | undefined;
      if (!socket?.connected || chatId === undefined) return "Not connected: try again.";
      try {
        const answer = await socket.timeout(SEND_WAIT).emitWithAck("message:send", { chatId, text, clientMessageId });
        return "error" in answer ? answer.error.message : undefined;
      } catch {
        return "No answer came: try again. The message is not sent twice.";
      }
    },
    [chatId],
  );

  return { status, problem, typing, load, send };
}
