/** The Bot API over HTTPS: https://core.telegram.org/bots/api. The token is part of each URL, so URLs never appear in texts. */

import { SendError } from "../common/channel.js";
import { postJson } from "../common/http.js";

/** How long nothing is sent when the token is refused, in milliseconds: it may be replaced. */
const TOKEN_PAUSE_MS = 10_000;

export class Api {
  readonly #url: string;

  /** `timeoutMs` is how long a method may take, beside what it waits for on purpose. */
  constructor(
    base: string,
    token: string,
    readonly timeoutMs: number,
  ) {
    this.#url = `${base}/bot${token}`;
  }

  /** Calls a method; gives its result. Throws SendError. */
  async call<T>(method: string, parameters: Record<string, unknown>, { waitMs = 0, signal }: { waitMs?: number; signal?: AbortSignal } = {}): Promise<T> {
    const { status, body } = await postJson(`${this.#url}/${method}`, parameters, { timeoutMs: this.timeoutMs + waitMs, ...(signal ? { signal } : {}) });
    if (status === 200 && body.ok === true) return body.result as T;
    throw refusal(method, status, body);
  }
}

function refusal(method: string, status: number, body: Record<string, unknown>): SendError {
  const text = `${method}: ${status}${typeof body.description === "string" ? ` ${body.description}` : ""}`;
  const { retry_after: seconds } = (body.parameters ?? {}) as { retry_after?: number };
  if (status === 429) return new SendError(text, { label: "rate", retryAfterMs: (Number(seconds) || 1) * 1_000, accountWide: true });
  // 404 is what Telegram answers to a token without its right form.
  if (status === 401 || status === 404) return new SendError(text, { label: "token", retryAfterMs: TOKEN_PAUSE_MS, accountWide: true });
  if (status === 409) return new SendError(text, { label: "conflict", retryAfterMs: 3_000 });
  if (status >= 500 || status < 400) return new SendError(text, { label: "server" });
  return new SendError(text, { label: "refused", final: true });
}
