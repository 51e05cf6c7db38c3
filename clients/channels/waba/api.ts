/** The Graph API of the WhatsApp Cloud API: https://developers.facebook.com/docs/whatsapp/cloud-api. */

import { SendError } from "../common/channel.js";
import { postJson } from "../common/http.js";

/** How long nothing is sent when the token is refused, in milliseconds: it may be replaced. */
const TOKEN_PAUSE_MS = 10_000;
/** How long nothing is sent to anybody, and to one customer, after a limit without a time, in milliseconds. */
const RATE_PAUSE_MS = 5_000;

/** Codes for limits of the app, the business account or the phone number. */
const ACCOUNT_LIMITS = new Set([4, 80007, 130429, 131048]);
/** Too many messages to one customer. */
const PAIR_LIMIT = 131056;
/** The service is temporarily unavailable, overloaded, or in maintenance. */
const TEMPORARY = new Set([1, 2, 131000, 131016, 131057, 133004]);
/** The access token has expired, is invalid, or lacks a permission. */
const TOKEN = new Set([0, 3, 10, 190, 131005]);

export class GraphApi {
  readonly #url: string;
  readonly #token: string;

  constructor(
    base: string,
    version: string,
    phoneNumberId: string,
    token: string,
    readonly timeoutMs: number,
  ) {
    this.#url = `${base}/${version}/${phoneNumberId}`;
    this.#token = token;
  }

  /** Sends a message; gives its id. Throws SendError. */
  async send(message: Record<string, unknown>): Promise<string> {
    const headers = { authorization: `Bearer ${this.#token}` };
    const { status, body, retryAfterMs } = await postJson(`${this.#url}/messages`, message, { headers, timeoutMs: this.timeoutMs });
    const id = (body.messages as { id?: unknown }[] | undefined)?.[0]?.id;
    if (status === 200 && typeof id === "string") return id;
    throw refusal(status, body, retryAfterMs);
  }
}

/** What an answer means that is no success. */
export function refusal(status: number, body: Record<string, unknown>, retryAfterMs: number): SendError {
  const { code = -1, message = "", error_data: data } = (body.error ?? {}) as { code?: number; message?: string; error_data?: { details?: string } };
  const text = [String(status), message, data?.details].filter(Boolean).join(" ");
  if (ACCOUNT_LIMITS.has(code) || (status === 429 && code !== PAIR_LIMIT)) {
    return new SendError(text, { label: "rate", retryAfterMs: retryAfterMs || RATE_PAUSE_MS, accountWide: true });
  }
  if (code === PAIR_LIMIT) return new SendError(text, { label: "rate", retryAfterMs: retryAfterMs || RATE_PAUSE_MS });
  if (status === 401 || TOKEN.has(code)) return new SendError(text, { label: "token", retryAfterMs: TOKEN_PAUSE_MS, accountWide: true });
  if (TEMPORARY.has(code) || status >= 500 || status < 400) return new SendError(text, { label: "server", retryAfterMs });
  return new SendError(text, { label: "refused", final: true });
}
