// Fanfare for React 18 and later. Nothing connects while a page is rendered on a server, and StrictMode's second mounting costs nothing.

import {
  type ReactElement, type ReactNode, createContext, createElement, useContext, useEffect, useInsertionEffect, useMemo, useRef, useState, useSyncExternalStore,
} from "react";
import { type ConnectOptions, Fanfare, type RoomCalls } from "./client.js";
import { NOBODY, type Presence, type PresenceOptions, presence } from "./presence.js";
import { JOINING, type RoomOptions, type RoomStatus, keyOf } from "./rooms.js";
import { INITIAL, type Status } from "./status.js";
import type { AnyCalls, Calls, Events, Handler, Name, RequestOf } from "./types.js";
import { NOTHING, type Untyped, presenceKey, wish } from "./wish.js";

const Context = createContext<Untyped | undefined>(undefined);

export type FanfareProviderProps = { children?: ReactNode } & (
  /** A client of your own, which you open and close. */
  | { client: Fanfare<any, any> }
  /** One for as long as the provider is shown. Another `url` makes another one; the newest `token` is asked. */
  | Omit<ConnectOptions, "autoConnect">
);

/** Gives a client to the components in it. */
export function FanfareProvider(props: FanfareProviderProps): ReactElement {
  return "client" in props
    ? createElement(Context.Provider, { value: props.client as unknown as Untyped }, props.children)
    : createElement(Owner, props);
}

function Owner({ children, ...options }: { children?: ReactNode } & ConnectOptions): ReactElement {
  const latest = useLatest(options);
  const { url } = options;
  // Without a connection a client is nothing but an object; one that is thrown away needs no end.
  const client = useMemo<Untyped>(() => new Fanfare({ ...latest.current, url, token: () => latest.current.token() }), [url, latest]);
  const [leases] = useState(() => new WeakMap<object, ReturnType<typeof setTimeout>>());
  useEffect(() => {
    clearTimeout(leases.get(client));
    client.open();
    // Not before the moment in which StrictMode mounts again is over.
    return () => void leases.set(client, setTimeout(() => client.close()));
  }, [client, leases]);
  return createElement(Context.Provider, { value: client }, children);
}

/** The client. */
export function useFanfare(): Fanfare {
  const client = useContext(Context);
  if (!client) throw new Error("there is no FanfareProvider around this component");
  return client as unknown as Fanfare;
}

const useClient = useFanfare as unknown as () => Untyped;

/** How the connection is. */
export function useStatus(): Status {
  const { status } = useClient();
  return useSyncExternalStore(status.subscribe, status.getSnapshot, () => INITIAL);
}

/** Handles an event while the component is shown, always with the newest handler. */
export function useEvent<N extends Name<Events>>(name: N, handler: Handler<Events, N>): void {
  const client = useClient();
  const latest = useLatest(handler as (...parameters: unknown[]) => void);
  useEffect(() => client.on(name, (...parameters) => latest.current(...parameters)), [client, name, latest]);
}

/** Is called when events may have been missed: read current state. */
export function useMissed(handler: () => void): void {
  const client = useClient();
  const latest = useLatest(handler);
  useEffect(() => client.onMissed(() => latest.current()), [client, latest]);
}

/** Is in a room while the component is shown, and in none while there is no request. */
export function useRoom<J extends Name<Calls>>(
  calls: RoomCalls<Calls, J>, request: RequestOf<Calls, J> | null | undefined, options?: RoomOptions,
): RoomStatus | undefined {
  const client = useClient();
  const latest = useLatest(options);
  const key = request === null || request === undefined ? undefined : keyOf(calls.join, request);
  const store = useMemo(() => {
    if (key === undefined) return NOTHING;
    // The key says all that is read of the request.
    return wish(client, calls as unknown as RoomCalls<AnyCalls, string>, request, () => latest.current?.onJoined?.());
  }, [client, key, latest]);
  return useSyncExternalStore<RoomStatus | undefined>(store.subscribe, store.getSnapshot, () => (key === undefined ? undefined : JOINING));
}

/** Who is there. `of` is what the list is about, e.g. a chat: another one begins anew. */
export function usePresence<On extends Name<Events>, Off extends Name<Events>, Q extends Name<Calls>>(
  options: PresenceOptions<Events, Calls, On, Off, Q> & { of?: unknown },
): Presence {
  const client = useFanfare();
  const latest = useLatest(options);
  const key = presenceKey(options as Parameters<typeof presenceKey>[0]);
  const store = useMemo(() => {
    // The key says all that is read of the options, besides their functions.
    const { query } = options;
    return presence<On, Off, Q>(client, {
      ...options,
      user: (event) => latest.current.user(event),
      ...(query && { query: { ...query, users: (answer) => (latest.current.query ?? query).users(answer) } }),
    });
  }, [client, key, latest]);
  return useSyncExternalStore(store.subscribe, store.getSnapshot, () => NOBODY);
}

/** The value of the newest rendering that is shown. */
function useLatest<T>(value: T): { current: T } {
  const latest = useRef(value);
  useInsertionEffect(() => {
    latest.current = value;
  });
  return latest;
}
