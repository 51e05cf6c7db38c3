/**
 * A stream of events that outlives its connection.
 *
 * Invariant: what was sent and not answered is in `#unanswered`, in order. A new connection begins with all of it, each event under
 * the key it had, so that the log has each event once and in the order in which it was sent.
 */

import type { DescMessage } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { FanfareError } from "./error.js";
import type { NotifyRequest, NotifyResponse } from "./gen/fanfare/v1/realtime_pb.js";
import { type Message, notifyRequest, type TargetOptions } from "./request.js";
import { Backoff, DEADLINE, sleep } from "./retry.js";

/** Events that were sent and are not answered, at most. */
const UNANSWERED_MAX = 1024;

export interface StreamOptions {
  /** Events that were sent and are not answered, at most. Default: 1,024. */
  unansweredMax?: number;
  /** How long it goes on trying while nothing is answered, in milliseconds. Default: that of the client. */
  deadlineMs?: number;
}

/** An event that was sent. */
export interface Sent {
  /** Resolves with the answer. Answers come in the order of the events. */
  answer: Promise<NotifyResponse>;
}

interface Entry {
  request: NotifyRequest;
  resolve(answer: NotifyResponse): void;
  reject(error: FanfareError): void;
}

type Open = (requests: AsyncIterable<NotifyRequest>, signal: AbortSignal) => AsyncIterable<NotifyResponse>;

/**
 * Publishes events in order, many at a time. Made by `Client.stream`. The first event that is refused ends the stream: its answer has
 * the reason, those behind it were not published.
 */
export class Stream {
  readonly #open: Open;
  readonly #max: number;
  readonly #patience: number;
  readonly #renewable: boolean;
  readonly #unanswered: Entry[] = [];
  readonly #backoff = new Backoff();
  readonly #aborted = new AbortController();
  /** How many of them the present connection has taken. */
  #sent = 0;
  #connections = 0;
  #closed = false;
  #failure: FanfareError | undefined;
  /** Since when nothing was answered that could have been. */
  #since = 0;
  #running: Promise<void> | undefined;
  /** Those who wait for something to send, and for room to send it. */
  #work: (() => void)[] = [];
  #room: (() => void)[] = [];
  /** The last `send`, behind which the next one waits. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(open: Open, { unansweredMax = UNANSWERED_MAX, deadlineMs = DEADLINE }: StreamOptions, renewable: boolean) {
    if (!(unansweredMax >= 1)) throw new RangeError(`unansweredMax is ${unansweredMax}: want at least 1`);
    this.#open = open;
    this.#max = unansweredMax;
    this.#patience = deadlineMs;
    this.#renewable = renewable;
  }

  /**
   * Sends an event as soon as there is room for it. Await it before the next, or memory is not bounded. Throws FanfareError when the
   * stream has ended.
   */
  send<Desc extends DescMessage>(schema: Desc, event: Message<Desc>, target: TargetOptions = {}): Promise<Sent> {
    const request = notifyRequest(schema, event, target);
    const sent = this.#turn.then(() => this.#push(request));
    this.#turn = sent.catch(() => {});
    return sent;
  }

  /** Waits until everything is answered. Throws the FanfareError that ended the stream, if one did. */
  async close(): Promise<void> {
    await this.#turn;
    this.#closed = true;
    wake(this.#work);
    await this.#running;
    if (this.#failure) throw this.#failure;
  }

  /** Ends the stream without waiting. What is not answered may be published or not. */
  async abort(): Promise<void> {
    this.#closed = true;
    this.#aborted.abort();
    wake(this.#work);
    this.#fail(new FanfareError("the stream was aborted", Code.Canceled, { retryable: false }));
    await this.#running;
  }

  async #push(request: NotifyRequest): Promise<Sent> {
    while (!this.#failure && !this.#closed && this.#unanswered.length >= this.#max) {
      await new Promise<void>((resolve) => this.#room.push(resolve));
    }
    if (this.#failure) throw behind(this.#failure);
    if (this.#closed) throw new Error("the stream is closed");
    if (this.#unanswered.length === 0) this.#since = performance.now();
    const answer = new Promise<NotifyResponse>((resolve, reject) => this.#unanswered.push({ request, resolve, reject }));
    // Whoever looks at no answer learns of it from `close`.
    answer.catch(() => {});
    wake(this.#work);
    this.#running ??= this.#run();
    return { answer };
  }

  async #run(): Promise<void> {
    let renewed = false;
    while (!this.#failure && (this.#unanswered.length > 0 || !this.#closed)) {
      // Without anything to say there is no need of a connection.
      if (this.#unanswered.length === 0) {
        await this.#waitForWork();
        continue;
      }
      const { answered, error } = await this.#connection();
      if (this.#unanswered.length === 0 || this.#failure) continue;
      if (answered) renewed = false;
      if (this.#renewable && error.isTokenRefused && !renewed) renewed = true;
      else if (!(await this.#isPatient(error))) this.#fail(error);
    }
  }

  /** Sends and receives over one connection until it ends, and says why it did. */
  async #connection(): Promise<{ answered: boolean; error: FanfareError }> {
    const mine = ++this.#connections;
    const late = new AbortController();
    const watch = this.#watch(late);
    let answered = false;
    this.#sent = 0;
    try {
      for await (const answer of this.#open(this.#requests(mine), AbortSignal.any([this.#aborted.signal, late.signal]))) {
        answered = true;
        this.#answered(answer);
      }
      return { answered, error: new FanfareError("the server ended the stream", Code.Unavailable) };
    } catch (failure) {
      if (late.signal.aborted) {
        return { answered, error: new FanfareError(`nothing was answered within ${this.#patience} ms`, Code.DeadlineExceeded) };
      }
      return { answered, error: FanfareError.of(failure) };
    } finally {
      clearInterval(watch);
      this.#connections++;
      wake(this.#work);
    }
  }

  async *#requests(connection: number): AsyncIterable<NotifyRequest> {
    while (this.#connections === connection) {
      const next = this.#unanswered[this.#sent];
      if (next) {
        this.#sent++;
        yield next.request;
      } else if (this.#closed) return;
      else await this.#waitForWork();
    }
  }

  /** Ends a connection over which nothing is answered for too long. */
  #watch(late: AbortController): NodeJS.Timeout {
    return setInterval(() => this.#unanswered.length > 0 && this.#left() <= 0 && late.abort(), Math.max(Math.min(this.#patience / 10, 1000), 10));
  }

  #left(): number {
    return this.#since + this.#patience - performance.now();
  }

  #waitForWork(): Promise<void> {
    return new Promise((resolve) => this.#work.push(resolve));
  }

  #answered(answer: NotifyResponse): void {
    const entry = this.#unanswered.shift();
    this.#sent--;
    this.#since = performance.now();
    this.#backoff.reset();
    entry?.resolve(answer);
    wake(this.#room);
  }

  /** Waits before the next try, unless there shall be none. */
  async #isPatient(error: FanfareError): Promise<boolean> {
    const pause = Math.max(this.#backoff.pause(), error.retryAfterMs);
    return error.retryable && pause < this.#left() && (await sleep(pause, this.#aborted.signal));
  }

  #fail(error: FanfareError): void {
    this.#failure ??= error;
    this.#unanswered.splice(0).forEach((entry, at) => entry.reject(at === 0 || error.retryable ? error : behind(error)));
    wake(this.#room);
  }
}

function wake(waiting: (() => void)[]): void {
  for (const resolve of waiting.splice(0)) resolve();
}

function behind(error: FanfareError): FanfareError {
  const message = `not published, because the stream ended before: ${error.rawMessage}`;
  return new FanfareError(message, Code.Aborted, { retryable: error.retryable, cause: error });
}
