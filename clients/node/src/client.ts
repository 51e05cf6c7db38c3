/** Connects, and publishes one by one. */

import type { SecureClientSessionOptions } from "node:http2";
import type { DescMessage, DescMethodStreaming, DescMethodUnary, MessageInitShape } from "@bufbuild/protobuf";
import { Code, type ContextValues, createClient, type StreamResponse, type Transport, type UnaryResponse } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { FanfareError } from "./error.js";
import { type NotifyResponse, Realtime } from "./gen/fanfare/v1/realtime_pb.js";
import { keyed, type Message, notifyRequest, type TargetOptions } from "./request.js";
import { ATTEMPT_MAX, Attempts, DEADLINE, sleep } from "./retry.js";
import { Stream, type StreamOptions } from "./stream.js";
import { type SubscribeOptions, Subscription } from "./subscription.js";

/** A token, or a function that gives the one to use now; it is asked before every try, so it should cache. */
export type Token = string | (() => string | Promise<string>);

export interface ConnectOptions {
  /**
   * What a call may take with all its tries, unless the call says otherwise, and how long a stream tries to come back, in
   * milliseconds. Default: 15,000.
   */
  deadlineMs?: number;
  /** For https URLs that want more than the system's certificates, e.g. `ca`. */
  tls?: SecureClientSessionOptions;
}

/** Prepares a connection to e.g. "http://127.0.0.1:50051"; it is made when it is first used. */
export function connect(url: string, token: Token, options: ConnectOptions = {}): Client {
  return new Client(url, token, options);
}

/** Publishes and subscribes. Made by `connect`. */
export class Client {
  /** For the typed clients of a catalog: `createClient(Messenger, client.transport)`. Their calls get the token, a deadline, an idempotency key and retries. */
  readonly transport: Transport;
  readonly #sessions: Http2SessionManager;
  readonly #realtime;
  readonly #deadline: number;
  readonly #renewable: boolean;

  constructor(url: string, token: Token, { deadlineMs = DEADLINE, tls }: ConnectOptions = {}) {
    const { protocol, origin, pathname } = parsed(url);
    if (!["http:", "https:"].includes(protocol) || pathname !== "/") throw notUrl(url);
    // A server that is gone without a word is noticed after 20 s.
    this.#sessions = new Http2SessionManager(origin, { pingIntervalMs: 10_000, pingTimeoutMs: 10_000, pingIdleConnection: true }, tls);
    const grpc = createGrpcTransport({ baseUrl: origin, sessionManager: this.#sessions });
    this.#deadline = deadlineMs;
    this.#renewable = typeof token === "function";
    this.transport = new Patient(grpc, token, deadlineMs);
    this.#realtime = createClient(Realtime, this.transport);
  }

  /**
   * Publishes one event of any catalog, given with its schema. Answered once it is in the log. Throws FanfareError.
   */
  async notify<Desc extends DescMessage>(
    schema: Desc,
    event: Message<Desc>,
    { deadlineMs, signal, ...target }: TargetOptions & { deadlineMs?: number; signal?: AbortSignal } = {},
  ): Promise<NotifyResponse> {
    return this.#realtime.notify(notifyRequest(schema, event, target), {
      ...(deadlineMs === undefined ? {} : { timeoutMs: deadlineMs }),
      ...(signal ? { signal } : {}),
    });
  }

  /** A stream of events that outlives its connection. */
  stream(options: StreamOptions = {}): Stream {
    return new Stream((requests, signal) => this.#realtime.notifyStream(requests, { signal }), { deadlineMs: this.#deadline, ...options }, this.#renewable);
  }

  /** The events of some rooms, after the cursor `after` or from now on. Needs the scope `subscribe`. */
  subscribe(rooms: string[], options: SubscribeOptions = {}): Subscription {
    return new Subscription((request, signal) => this.#realtime.subscribe(request, { signal }), rooms, options, this.#renewable);
  }

  /** Closes the connection and ends what runs over it. */
  close(): void {
    this.#sessions.abort();
  }
}

function parsed(url: string): URL {
  try {
    return new URL(url);
  } catch {
    throw notUrl(url);
  }
}

const notUrl = (url: string) =>
  new TypeError(`${JSON.stringify(url)} is no server URL: want e.g. "http://127.0.0.1:50051" or "https://fanfare.example.com"`);

type HeaderValues = ConstructorParameters<typeof Headers>[0];

/** A transport that adds the token, and tries again what may be tried again. */
class Patient implements Transport {
  constructor(
    readonly inner: Transport,
    readonly token: Token,
    readonly deadline: number,
  ) {}

  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeaderValues | undefined,
    input: MessageInitShape<I>,
    contextValues?: ContextValues,
  ): Promise<UnaryResponse<I, O>> {
    const request = keyed(method.input, input);
    const attempts = new Attempts(timeoutMs ?? this.deadline);
    for (;;) {
      const timeout = request ? Math.min(attempts.remaining(), ATTEMPT_MAX) : attempts.remaining();
      try {
        const headers = await this.authorized(header);
        return await this.inner.unary(method, signal, timeout, headers, (request ?? input) as MessageInitShape<I>, contextValues);
      } catch (failure) {
        const error = FanfareError.of(failure);
        if (signal?.aborted) throw new FanfareError("the caller gave up", Code.Canceled, { retryable: false, cause: signal.reason });
        if (typeof this.token === "function" && attempts.mayRenew(error)) continue;
        const pause = request ? attempts.pauseAfter(error) : undefined;
        if (pause === undefined || !(await sleep(pause, signal))) throw error;
      }
    }
  }

  async stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeaderValues | undefined,
    input: AsyncIterable<MessageInitShape<I>>,
    contextValues?: ContextValues,
  ): Promise<StreamResponse<I, O>> {
    return this.inner.stream(method, signal, timeoutMs, await this.authorized(header), input, contextValues);
  }

  private async authorized(header: HeaderValues | undefined): Promise<Headers> {
    const headers = new Headers(header);
    if (!headers.has("authorization")) {
      headers.set("authorization", `Bearer ${typeof this.token === "function" ? await this.token() : this.token}`);
    }
    return headers;
  }
}
