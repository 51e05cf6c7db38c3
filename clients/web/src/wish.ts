// What a component wants while it is shown, as a store: subscribing is wanting.

import type { Fanfare, RoomCalls } from "./client.js";
import { JOINING, type Room, type RoomStatus, keyOf } from "./rooms.js";
import type { Store } from "./store.js";
import type { AnyCalls, AnyEvents } from "./types.js";

/** The client where its catalog does not matter. */
export type Untyped = Fanfare<AnyEvents, AnyCalls>;

/** The session is in a room while the store is subscribed to. */
export function wish(client: Untyped, calls: RoomCalls<AnyCalls, string>, request: unknown, onJoined: () => void): Store<RoomStatus> {
  let room: Room | undefined;
  return {
    getSnapshot: () => room?.status.getSnapshot() ?? JOINING,
    subscribe(listener) {
      const mine = client.room(calls, request, { onJoined });
      room = mine;
      const off = mine.status.subscribe(listener);
      return () => {
        off();
        mine.leave();
      };
    },
  };
}

/** Nothing is wanted. */
export const NOTHING: Store<undefined> = { getSnapshot: () => undefined, subscribe: () => () => {} };

/** Whether two renderings mean the same list of those who are there. */
export function presenceKey({ online, offline, query, of }: { online: string; offline: string; query?: { call: string; request?: unknown }; of?: unknown }): string {
  return JSON.stringify([online, offline, query && keyOf(query.call, query.request), of]);
}
