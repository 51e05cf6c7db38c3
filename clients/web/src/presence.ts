// Who is there: a list that a call gives, kept up to date by the events of those who come and go.

import type { Fanfare } from "./client.js";
import { CallError } from "./errors.js";
import { pauseMs } from "./retry.js";
import { type Store, source } from "./store.js";
import type { AnswerOf, AnyCalls, AnyEvents, Calls, Events, Name, Payload, RequestOf } from "./types.js";

export interface PresenceOptions<S, C, On extends Name<S>, Off extends Name<S>, Q extends Name<C>> {
  /** The event of somebody who comes. */
  online: On;
  /** The event of somebody who goes. */
  offline: Off;
  /** Whom an event is about; `undefined`: nobody of interest, e.g. somebody in another room. */
  user: (event: Payload<S, On> | Payload<S, Off>) => string | undefined;
  /** The call that lists who is there. Without one, those are known who came while we were looking. */
  query?: { call: Q; request: RequestOf<C, Q>; users: (answer: AnswerOf<C, Q>) => readonly string[] };
}

export interface Presence {
  readonly users: ReadonlySet<string>;
  /** The list has been read; without a query: there is a session. */
  readonly known: boolean;
}

export const NOBODY: Presence = Object.freeze({ users: new Set<string>(), known: false });

/** A store of who is there. It listens while it is subscribed to, and not on a machine that only renders pages. */
export function presence<On extends Name<S>, Off extends Name<S>, Q extends Name<C>, S = Events, C = Calls>(
  client: Fanfare<S, C>,
  options: PresenceOptions<S, C, On, Off, Q>,
): Store<Presence> {
  const state = source(NOBODY);
  let watchers = 0;
  let stop: (() => void) | undefined;
  return {
    getSnapshot: state.getSnapshot,
    subscribe(listener) {
      const off = state.subscribe(listener);
      if (++watchers === 1) stop = watch(client, options, state.set);
      let subscribed = true;
      return () => {
        if (!subscribed) return;
        subscribed = false;
        off();
        if (--watchers === 0) stop?.();
      };
    },
  };
}

function watch<S, C, On extends Name<S>, Off extends Name<S>, Q extends Name<C>>(
  client: Fanfare<S, C>,
  { online, offline, user, query }: PresenceOptions<S, C, On, Off, Q>,
  set: (state: Presence) => void,
): () => void {
  let users = new Set<string>();
  let known = false;
  /** What happened while the list was on its way, which may be older. */
  const meanwhile = new Map<string, boolean>();
  let reading = false;
  let turn = 0;

  const apply = (id: string, there: boolean): void => void (there ? users.add(id) : users.delete(id));
  const tell = (): void => set({ users: new Set(users), known });
  const handle = (there: boolean) => (...[event]: unknown[]): void => {
    const id = user(event as Payload<S, On> | Payload<S, Off>);
    if (id === undefined) return;
    if (reading) meanwhile.set(id, there);
    apply(id, there);
    tell();
  };

  function replace(list: readonly string[]): void {
    users = new Set(list);
    known = true;
    meanwhile.forEach((there, id) => apply(id, there));
    tell();
  }

  async function read(): Promise<void> {
    if (!query) return replace([]);
    const mine = ++turn;
    reading = true;
    meanwhile.clear();
    for (let attempt = 0; mine === turn; attempt += 1) {
      const answer = await call(client, query.call, query.request);
      if (mine !== turn) return;
      if (!(answer instanceof CallError)) replace(query.users(answer as AnswerOf<C, Q>));
      // Without a session, the next one reads.
      if (!(answer instanceof CallError) || !answer.retry || client.status.getSnapshot().state !== "connected") break;
      await new Promise((resolve) => setTimeout(resolve, answer.retryAfterMs ?? pauseMs(attempt)));
    }
    if (mine === turn) reading = false;
  }

  // A recovered session has missed nothing; but what was read in the one before may have been lost with it.
  const connected = (): void => {
    if (!known && !reading && client.status.getSnapshot().state === "connected") void read();
  };
  const offs = [
    client.on(online, handle(true)),
    client.on(offline, handle(false)),
    client.onMissed(() => void read()),
    client.status.subscribe(connected),
  ];
  connected();
  return () => {
    turn += 1;
    offs.forEach((off) => off());
  };
}

/** Calls; gives the answer or why there is none. */
function call<S, C>(client: Fanfare<S, C>, name: string, request: unknown): Promise<unknown> {
  const untyped = client as unknown as Fanfare<AnyEvents, AnyCalls>;
  return untyped.call(name, request).catch((error: unknown) => (error instanceof CallError ? error : new CallError("internal", String(error))));
}
