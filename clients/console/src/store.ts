// A value that components watch. All state that outlives a view is in stores.

import { useEffect, useState } from "preact/hooks";

export class Store<T> {
  private readonly watchers = new Set<() => void>();

  constructor(private current: T) {}

  get(): T {
    return this.current;
  }

  set(next: T): void {
    if (Object.is(next, this.current)) return;
    this.current = next;
    for (const watcher of [...this.watchers]) watcher();
  }

  update(change: (value: T) => T): void {
    this.set(change(this.current));
  }

  watch(watcher: () => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }
}

/** The value of a store; the component is drawn again when it changes. */
export function useStore<T>(store: Store<T>): T {
  const [, redraw] = useState(0);
  useEffect(() => {
    let seen = store.get();
    const look = () => {
      if (Object.is(seen, store.get())) return;
      seen = store.get();
      redraw((n) => n + 1);
    };
    redraw((n) => n + 1);
    return store.watch(look);
  }, [store]);
  return store.get();
}
