// The calls to the server, over gRPC-Web on the page's own origin.

import { BinaryReader } from "@bufbuild/protobuf/wire";
import { Code, ConnectError, createClient, type Client, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { useEffect, useRef, useState } from "preact/hooks";
import { access, refused } from "./access";
import { Admin } from "./gen/fanfare/v1/admin_pb";
import { Realtime } from "./gen/fanfare/v1/realtime_pb";
import { Store } from "./store";

/** How a stream that was cut comes back, in milliseconds. */
const BACK_FIRST_MS = 400;
const BACK_MAX_MS = 5000;
/** A unary call that takes longer has failed, in milliseconds. */
const CALL_MS = 10_000;

const transport = (token: () => string | undefined) => {
  const authorize: Interceptor = (next) => (request) => {
    const bearer = token();
    if (bearer) request.header.set("authorization", `Bearer ${bearer}`);
    return next(request);
  };
  return createGrpcWebTransport({ baseUrl: location.origin, interceptors: [authorize], defaultTimeoutMs: CALL_MS });
};

const own = transport(() => {
  const now = access.get();
  return now.state === "signed-in" ? now.token : undefined;
});
export const admin: Client<typeof Admin> = createClient(Admin, own);
export const realtime: Client<typeof Realtime> = createClient(Realtime, own);

/** The Admin service with a token that is being tried. */
export const adminWith = (token: string): Client<typeof Admin> => createClient(Admin, transport(() => token));
/** The Realtime service with a producer's token. */
export const realtimeWith = (token: string): Client<typeof Realtime> => createClient(Realtime, transport(() => token));

/** What went wrong, for people. */
export interface Problem {
  code: Code;
  message: string;
  /** The field that was refused, as browsers name it. */
  path: string;
}

/** The metadata of a google.rpc.ErrorInfo, whose field 3 is a map of texts. */
function errorInfo(bytes: Uint8Array): Map<string, string> {
  const found = new Map<string, string>();
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wire] = reader.tag();
    if (field !== 3) {
      reader.skip(wire);
      continue;
    }
    const end = reader.uint32() + reader.pos;
    let [key, value] = ["", ""];
    while (reader.pos < end) {
      const [part, type] = reader.tag();
      if (part === 1) key = reader.string();
      else if (part === 2) value = reader.string();
      else reader.skip(type);
    }
    found.set(key, value);
  }
  return found;
}

export function problemOf(cause: unknown): Problem {
  const error = ConnectError.from(cause);
  let path = "";
  for (const detail of error.details) {
    if ("type" in detail && detail.type === "google.rpc.ErrorInfo" && detail.value instanceof Uint8Array) {
      path = errorInfo(detail.value).get("path") ?? path;
    }
  }
  return { code: error.code, message: sentence(error), path };
}

const AWAY = new Set([Code.Unavailable, Code.Unknown, Code.DeadlineExceeded, Code.Internal, Code.Aborted]);

function sentence(error: ConnectError): string {
  if (error.code === Code.DeadlineExceeded) return "No answer in time.";
  if (error.code === Code.Unimplemented) return `This server does not offer that: ${error.rawMessage}`;
  return error.rawMessage || Code[error.code] || "It failed without a reason.";
}

/** Whether the server can be reached, as the last calls have shown. */
export const contact = new Store<{ up: boolean; since: number }>({ up: true, since: Date.now() });

export function heard(): void {
  if (!contact.get().up) contact.set({ up: true, since: Date.now() });
}

/** Notes a failure: a refused token leads to the sign-in, a server that is away to the banner. */
export function failed(cause: unknown): Problem {
  const problem = problemOf(cause);
  if (problem.code === Code.Unauthenticated) refused(problem.message);
  else if (AWAY.has(problem.code) && contact.get().up) contact.set({ up: false, since: Date.now() });
  return problem;
}

/** Whether trying again is pointless until something else changes. */
const final = (code: Code) =>
  code === Code.PermissionDenied || code === Code.Unimplemented || code === Code.InvalidArgument || code === Code.NotFound;

/** Reads a stream for as long as it is wanted, and opens it again when it is cut. */
export function follow<T>(open: (signal: AbortSignal) => AsyncIterable<T>, each: (message: T) => void, ended: (problem: Problem) => void): () => void {
  const stop = new AbortController();
  let [wait, timer]: [number, ReturnType<typeof setTimeout> | undefined] = [BACK_FIRST_MS, undefined];
  const run = async () => {
    try {
      for await (const message of open(stop.signal)) {
        wait = BACK_FIRST_MS;
        heard();
        each(message);
      }
      throw new ConnectError("the stream ended", Code.Unavailable);
    } catch (cause) {
      if (stop.signal.aborted) return;
      const problem = failed(cause);
      ended(problem);
      if (final(problem.code)) return;
      timer = setTimeout(() => void run(), wait * (0.75 + Math.random() / 2));
      wait = Math.min(wait * 2, BACK_MAX_MS);
    }
  };
  void run();
  return () => {
    stop.abort();
    clearTimeout(timer);
  };
}

/** What a question to the server has come to. */
export interface Asked<T> {
  value?: T;
  problem?: Problem;
  /** Asks now. */
  again: () => void;
}

/** Asks when `keys` change, and every `everyMs` while the page is seen. The last answer stays while the next is awaited. */
export function useAsked<T>(ask: (signal: AbortSignal) => Promise<T>, keys: unknown[], everyMs = 0): Asked<T> {
  const [state, setState] = useState<{ value?: T; problem?: Problem }>({});
  const [turn, setTurn] = useState(0);
  const asked = useRef("");
  useEffect(() => {
    const key = JSON.stringify(keys);
    if (asked.current !== key) setState({});
    asked.current = key;
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const run = async () => {
      let next = everyMs;
      if (document.visibilityState === "visible" || turn === 0) {
        try {
          const value = await ask(stop.signal);
          heard();
          if (!stop.signal.aborted) setState({ value });
        } catch (cause) {
          if (stop.signal.aborted) return;
          const problem = failed(cause);
          setState((old) => ({ ...(old.value !== undefined && !final(problem.code) ? { value: old.value } : {}), problem }));
          next ||= BACK_MAX_MS;
        }
      }
      if (next > 0 && !stop.signal.aborted) timer = setTimeout(() => void run(), next);
    };
    void run();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [...keys, turn]);
  return { ...state, again: () => setTurn((n) => n + 1) };
}
