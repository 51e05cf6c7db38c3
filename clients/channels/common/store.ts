/**
 * The durable state of one account: a file of JSON lines that is only appended to, and rewritten when most of it is
 * out of date. A record counts only when its promise resolves: then it is on the disk (fdatasync). Knows no channel.
 */

import { type FileHandle, mkdir, open, readFile, rename } from "node:fs/promises";
import path from "node:path";

/** Records of one kind have an id; the newest record of an id counts. A null value removes it. */
interface Line {
  k: string;
  i: string;
  v: unknown;
}

/** Out-of-date bytes that the file may have, beside as many as it has of valid ones. */
const GARBAGE_BYTES = 1 << 20;

/** The file cannot be used. */
export class StoreError extends Error {}

export class Store {
  readonly #kinds = new Map<string, Map<string, unknown>>();
  #file: FileHandle | undefined;
  #bytes = 0;
  #bytesAfterRewrite = 0;
  #queue: { line: Line; resolve(): void; reject(error: unknown): void }[] = [];
  #writing: Promise<void> | undefined;
  #failure: unknown;

  private constructor(readonly path: string) {}

  static async open(file: string): Promise<Store> {
    const store = new Store(file);
    await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
    await store.#load();
    await store.#rewrite();
    return store;
  }

  /** All records of a kind, by id, oldest first. Changed by `put` only. */
  all<T>(kind: string): ReadonlyMap<string, T> {
    let found = this.#kinds.get(kind);
    if (!found) this.#kinds.set(kind, (found = new Map()));
    return found as Map<string, T>;
  }

  get<T>(kind: string, id: string): T | undefined {
    return this.all<T>(kind).get(id);
  }

  /** Writes a record; resolves once it is on the disk. The record can be read at once. */
  put(kind: string, id: string, value: unknown): Promise<void> {
    const line = { k: kind, i: id, v: value };
    this.#apply(line);
    return new Promise((resolve, reject) => {
      this.#queue.push({ line, resolve, reject });
      this.#writing ??= this.#write();
    });
  }

  /** Removes records that `removable` allows: those that `expired` names, and the oldest beyond `max`. */
  prune<T>(kind: string, max: number, expired: (value: T) => boolean, removable: (value: T) => boolean = () => true): void {
    const records = this.all<T>(kind);
    let excess = records.size - max;
    for (const [id, value] of records) {
      if (!removable(value) || (excess <= 0 && !expired(value))) continue;
      this.#kinds.get(kind)?.delete(id);
      excess--;
    }
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The writing failed; nothing is written any more. */
  get failed(): boolean {
    return this.#failure !== undefined;
  }

  async close(): Promise<void> {
    while (this.#writing) await this.#writing;
    await this.#file?.close();
    this.#file = undefined;
  }

  #apply({ k, i, v }: Line): void {
    const records = this.all(k) as Map<string, unknown>;
    // A record that changes becomes the newest.
    records.delete(i);
    if (v !== null) records.set(i, v);
  }

  async #load(): Promise<void> {
    let text: string;
    try {
      text = await readFile(this.path, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
      throw new StoreError(`cannot read ${this.path}`, { cause: error });
    }
    const lines = text.split("\n");
    // What follows the last line end was being written when the process died. Nobody relied on it.
    lines.pop();
    lines.forEach((line, at) => {
      try {
        this.#apply(JSON.parse(line) as Line);
      } catch (error) {
        throw new StoreError(`${this.path}:${at + 1} is damaged; restore the file, or move it away to start without it`, { cause: error });
      }
    });
  }

  /** Appends what waits, many records with one fdatasync. */
  async #write(): Promise<void> {
    // `#writing` is set by the time that the loop begins, and unset as soon as it ends: no record waits for another one.
    await null;
    while (this.#queue.length > 0) {
      const batch = this.#queue;
      this.#queue = [];
      try {
        if (this.#failure) throw this.#failure;
        const bytes = Buffer.from(batch.map(({ line }) => `${JSON.stringify(line)}\n`).join(""));
        await this.#file!.appendFile(bytes);
        await this.#file!.datasync();
        this.#bytes += bytes.length;
        if (this.#bytes > 2 * this.#bytesAfterRewrite + GARBAGE_BYTES) await this.#rewrite();
      } catch (error) {
        // What is on the disk now is not known.
        this.#failure ??= new StoreError(`cannot write ${this.path}; restart the service once the disk can be written`, { cause: error });
        for (const { reject } of batch) reject(this.#failure);
        continue;
      }
      for (const { resolve } of batch) resolve();
    }
    this.#writing = undefined;
  }

  /** Writes the present records to a new file, which then takes the place of the old one. */
  async #rewrite(): Promise<void> {
    const next = `${this.path}.new`;
    const file = await open(next, "w", 0o600);
    let bytes = 0;
    let chunk = "";
    const flush = async () => {
      const data = Buffer.from(chunk);
      chunk = "";
      bytes += data.length;
      await file.appendFile(data);
    };
    for (const [k, records] of this.#kinds) {
      for (const [i, v] of records) {
        chunk += `${JSON.stringify({ k, i, v })}\n`;
        if (chunk.length > 1 << 20) await flush();
      }
    }
    await flush();
    await file.datasync();
    await rename(next, this.path);
    const folder = await open(path.dirname(this.path), "r");
    await folder.sync();
    await folder.close();
    await this.#file?.close();
    await file.close();
    this.#file = await open(this.path, "a", 0o600);
    this.#bytes = this.#bytesAfterRewrite = bytes;
  }
}
