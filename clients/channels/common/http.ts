/** Requests to a channel's API: JSON in both directions, a time limit, and a bound on the answer. */

import { SendError } from "./channel.js";

/** Largest answer in bytes. A page of 100 updates is far smaller. */
const ANSWER_BYTES_MAX = 8 << 20;

export interface JsonAnswer {
  status: number;
  /** The JSON object; empty when the answer is none. */
  body: Record<string, unknown>;
  retryAfterMs: number;
}

/** Posts JSON. Throws SendError when there is no whole answer; the channel may have done what was asked. */
export async function postJson(url: string, body: unknown, options: { headers?: Record<string, string>; timeoutMs: number; signal?: AbortSignal }): Promise<JsonAnswer> {
  const late = AbortSignal.timeout(options.timeoutMs);
  const signal = options.signal ? AbortSignal.any([late, options.signal]) : late;
  try {
    const response = await fetch(url, {
      method: "POST", headers: { "content-type": "application/json", ...options.headers }, body: JSON.stringify(body), signal, redirect: "error",
    });
    const retryAfterMs = Number(response.headers.get("retry-after")) * 1_000 || 0;
    return { status: response.status, body: parse(await readText(response)), retryAfterMs };
  } catch (cause) {
    if (late.aborted) throw new SendError(`the channel did not answer within ${options.timeoutMs} ms`, { label: "timeout" });
    throw new SendError("the channel cannot be reached", { label: "network", cause });
  }
}

async function readText(response: Response): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += (part as Uint8Array).length;
    if (bytes > ANSWER_BYTES_MAX) throw new Error(`the answer has more than ${ANSWER_BYTES_MAX} bytes`);
    parts.push(part as Uint8Array);
  }
  return Buffer.concat(parts).toString("utf8");
}

function parse(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
