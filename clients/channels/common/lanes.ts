/** Runs jobs of the same key one after the other, and jobs of different keys at the same time. */

/** Too many jobs wait. */
export class LanesFull extends Error {
  constructor(readonly max: number) {
    super(`${max} jobs wait already`);
  }
}

export class Lanes {
  readonly #tails = new Map<string, Promise<unknown>>();
  #waiting = 0;

  /** `jobsMax` bounds the jobs of all keys together, those that run included. */
  constructor(readonly jobsMax: number) {}

  get size(): number {
    return this.#waiting;
  }

  /** Runs the job after those of the same key. Throws LanesFull, or what the job throws. */
  async run<T>(key: string, job: () => Promise<T>): Promise<T> {
    if (this.#waiting >= this.jobsMax) throw new LanesFull(this.jobsMax);
    this.#waiting++;
    const earlier = this.#tails.get(key) ?? Promise.resolve();
    const mine = earlier.then(job, job);
    const tail = mine.then(() => {}, () => {});
    this.#tails.set(key, tail);
    try {
      return await mine;
    } finally {
      this.#waiting--;
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    }
  }
}

/** Lets at most so many jobs run at the same time; the others wait in order. */
export class Slots {
  #free: number;
  readonly #queue: (() => void)[] = [];

  constructor(slots: number) {
    this.#free = slots;
  }

  async run<T>(job: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#queue.push(resolve));
    try {
      return await job();
    } finally {
      const next = this.#queue.shift();
      if (next) next();
      else this.#free++;
    }
  }
}
