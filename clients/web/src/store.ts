// A value that can be watched, in the shape that useSyncExternalStore wants. The methods need no `this`.

import { report } from "./errors.js";

export interface Store<T> {
  /** Calls back after each change, until the returned function is called. */
  readonly subscribe: (listener: () => void) => () => void;
  /** The present value; the same object until it changes. */
  readonly getSnapshot: () => T;
}

/** The writable side. */
export interface Source<T> extends Store<T> {
  readonly set: (value: T) => void;
}

export function source<T>(value: T): Source<T> {
  const signal = new Signal<[]>();
  return {
    subscribe: (listener) => signal.add(listener),
    getSnapshot: () => value,
    set: (next) => {
      if (Object.is(next, value)) return;
      value = next;
      signal.emit();
    },
  };
}

/** Listeners of one kind. */
export class Signal<P extends unknown[]> {
  readonly #listeners = new Set<{ listener: (...parameters: P) => void }>();

  /** The same function may listen twice; each ends on its own. */
  add(listener: (...parameters: P) => void): () => void {
    const entry = { listener };
    this.#listeners.add(entry);
    return () => void this.#listeners.delete(entry);
  }

  emit(...parameters: P): void {
    for (const entry of [...this.#listeners]) {
      if (!this.#listeners.has(entry)) continue;
      try {
        entry.listener(...parameters);
      } catch (error) {
        report(error);
      }
    }
  }
}

