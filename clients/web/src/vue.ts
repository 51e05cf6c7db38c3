// Fanfare for Vue 3. Nothing connects while a page is rendered on a server.

import {
  type InjectionKey, type ShallowRef, getCurrentInstance, getCurrentScope, inject, onMounted, onScopeDispose, provide, shallowRef, toValue, watch,
  type MaybeRefOrGetter,
} from "vue";
import { type ConnectOptions, Fanfare, type RoomCalls } from "./client.js";
import { NOBODY, type Presence, type PresenceOptions, presence } from "./presence.js";
import { JOINING, type RoomOptions, type RoomStatus, keyOf } from "./rooms.js";
import { INITIAL, type Status } from "./status.js";
import type { Store } from "./store.js";
import type { AnyCalls, Calls, Events, Handler, Name, RequestOf } from "./types.js";
import { type Untyped, presenceKey, wish } from "./wish.js";

/** Under which a client is provided; `app.provide(FANFARE, client)` does for a whole application. */
export const FANFARE: InjectionKey<Fanfare<any, any>> = Symbol("fanfare");

/** Makes a client for as long as this component is shown, for it and all in it. */
export function provideFanfare(options: Omit<ConnectOptions, "autoConnect">): Fanfare {
  const client = new Fanfare(options);
  provide(FANFARE, client);
  whileShown(() => {
    client.open();
    return () => client.close();
  });
  return client;
}

/** The client. */
export function useFanfare(): Fanfare {
  const client = inject(FANFARE, undefined);
  if (!client) throw new Error("no client is provided here: call provideFanfare in a component above, or app.provide(FANFARE, client)");
  return client as unknown as Fanfare;
}

const useClient = useFanfare as unknown as () => Untyped;

/** How the connection is. */
export function useStatus(): Readonly<ShallowRef<Status>> {
  const { status } = useClient();
  const state = shallowRef(INITIAL);
  whileShown(() => follow(status, state));
  return state;
}

/** Handles an event while the component is shown. */
export function useEvent<N extends Name<Events>>(name: N, handler: Handler<Events, N>): void {
  const client = useClient();
  whileShown(() => client.on(name, handler as (...parameters: unknown[]) => void));
}

/** Is called when events may have been missed: read current state. */
export function useMissed(handler: () => void): void {
  const client = useClient();
  whileShown(() => client.onMissed(handler));
}

/** Is in a room while the component is shown, and in none while there is no request. */
export function useRoom<J extends Name<Calls>>(
  calls: RoomCalls<Calls, J>, request: MaybeRefOrGetter<RequestOf<Calls, J> | null | undefined>, options?: RoomOptions,
): Readonly<ShallowRef<RoomStatus | undefined>> {
  const client = useClient();
  const wanted = (): unknown => toValue(request) ?? undefined;
  const state = shallowRef<RoomStatus | undefined>(wanted() === undefined ? undefined : JOINING);
  whileTrue(() => (wanted() === undefined ? undefined : keyOf(calls.join, wanted())), () => {
    const room = wish(client, calls as unknown as RoomCalls<AnyCalls, string>, wanted(), () => options?.onJoined?.());
    const off = follow<RoomStatus | undefined>(room, state);
    return () => {
      off();
      state.value = wanted() === undefined ? undefined : JOINING;
    };
  });
  return state;
}

/** Who is there. `of` is what the list is about, e.g. a chat: another one begins anew. */
export function usePresence<On extends Name<Events>, Off extends Name<Events>, Q extends Name<Calls>>(
  options: MaybeRefOrGetter<PresenceOptions<Events, Calls, On, Off, Q> & { of?: unknown }>,
): Readonly<ShallowRef<Presence>> {
  const client = useFanfare();
  const state = shallowRef(NOBODY);
  whileTrue(() => presenceKey(toValue(options) as Parameters<typeof presenceKey>[0]), () => {
    state.value = NOBODY;
    return follow(presence<On, Off, Q>(client, toValue(options)), state);
  });
  return state;
}

/** Keeps a ref at a store's value. */
function follow<T>(store: Store<T>, state: ShallowRef<T>): () => void {
  const look = (): void => void (state.value = store.getSnapshot());
  const off = store.subscribe(look);
  look();
  return off;
}

/** Runs something when the component is mounted, and ends it with the component. Never on a server. */
function whileShown(begin: () => () => void): void {
  let end: (() => void) | undefined;
  const start = (): void => void (end = begin());
  if (getCurrentInstance()) onMounted(start);
  else start();
  if (getCurrentScope()) onScopeDispose(() => end?.());
}

/** The same for each value of a key; `undefined`: nothing. */
function whileTrue(key: () => string | undefined, begin: () => () => void): void {
  whileShown(() => {
    let end: (() => void) | undefined;
    const stop = watch(key, (now) => {
      end?.();
      end = now === undefined ? undefined : begin();
    }, { immediate: true, flush: "sync" });
    return () => {
      stop();
      end?.();
    };
  });
}
