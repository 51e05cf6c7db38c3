/** The listener for webhooks: routes, bounds on bodies and on the number of requests. Public; serves nothing else. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createHash, timingSafeEqual } from "node:crypto";
import { describe, log } from "./log.js";
import { webhooks } from "./metrics.js";

/** Largest body in bytes. Updates are a few KiB. */
const BODY_BYTES_MAX = 1 << 20;
/** How long a request may take to arrive, and to be answered, in milliseconds. Channels give up later than that. */
const RECEIVE_MS = 10_000;
const ANSWER_MS = 10_000;
const CONNECTIONS_MAX = 1_000;

export interface Request {
  method: string;
  query: URLSearchParams;
  header(name: string): string;
  body: Buffer;
}

export interface Answer {
  status: number;
  text?: string;
}

export type Handler = (request: Request) => Promise<Answer>;

/** Compares without telling by its time how much is equal. */
export function equalSecret(given: string, wanted: string): boolean {
  const hash = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(hash(given), hash(wanted));
}

/** Serves the handlers at their paths. `requestsMax` bounds the requests that are handled at the same time. */
export function webhookServer(handlers: ReadonlyMap<string, Handler>, requestsMax: number): Server {
  let running = 0;
  const server = createServer({ requestTimeout: RECEIVE_MS, headersTimeout: RECEIVE_MS, connectionsCheckingInterval: 1_000 }, async (request, response) => {
    if (running >= requestsMax) return answer(request, response, { status: 503, text: "too many requests at the same time; send it again" });
    running++;
    try {
      answer(request, response, await handle(handlers, request));
    } catch {
      answer(request, response, { status: 503, text: "not stored; send it again" });
    } finally {
      running--;
    }
  });
  server.maxConnections = CONNECTIONS_MAX;
  return server;
}

async function handle(handlers: ReadonlyMap<string, Handler>, request: IncomingMessage): Promise<Answer> {
  const url = URL.canParse(request.url ?? "/", "http://webhook") ? new URL(request.url ?? "/", "http://webhook") : undefined;
  if (!url) return { status: 400, text: "the path is malformed" };
  const handler = handlers.get(url.pathname);
  if (!handler) return { status: 404, text: "no webhook is here" };
  const body = await readBody(request);
  if (!body) return { status: 413, text: `the body has more than ${BODY_BYTES_MAX} bytes` };
  const header = (name: string) => String(request.headers[name] ?? "");
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Answer>((resolve) => {
    timer = setTimeout(() => resolve({ status: 503, text: "not stored in time; send it again" }), ANSWER_MS);
  });
  const done = handler({ method: request.method ?? "", query: url.searchParams, header, body });
  done.catch((error) => log.warn("a webhook request failed; the channel sends it again", { error: describe(error) }));
  return Promise.race([done, late]).finally(() => clearTimeout(timer));
}

async function readBody(request: IncomingMessage): Promise<Buffer | undefined> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request.iterator({ destroyOnReturn: false })) {
    bytes += (part as Buffer).length;
    if (bytes > BODY_BYTES_MAX) return undefined;
    parts.push(part as Buffer);
  }
  return Buffer.concat(parts);
}

function answer(request: IncomingMessage, response: ServerResponse, { status, text = "" }: Answer): void {
  webhooks({ status: String(status) });
  if (response.headersSent || response.destroyed) return;
  // A body that was not read ends the connection.
  const headers = { "content-type": "text/plain; charset=utf-8", ...(request.complete ? {} : { connection: "close" }) };
  response.writeHead(status, headers).end(text);
}
