/**
 * The numbers of chats and messages, and the idempotency keys, made from the channel's own ids. The same input always
 * gives the same number, so that a repeated message has its number again, also after the data folder was lost.
 */

import { createHash } from "node:crypto";

function digest(parts: readonly (string | number | bigint)[]): Buffer {
  // The lengths keep ["a", "bc"] and ["ab", "c"] apart.
  const text = parts.map(String).map((part) => `${Buffer.byteLength(part)}:${part}`).join("");
  return createHash("sha256").update(text).digest();
}

/** A number from 1 to 2^53 - 1: the first 53 bits of the SHA-256. Browsers read numbers up to there. */
export function number(...parts: (string | number | bigint)[]): bigint {
  return digest(parts).readBigUInt64BE() >> 11n || 1n;
}

/** An idempotency key of 43 characters. */
export function idempotencyKey(...parts: (string | number | bigint)[]): string {
  return digest(parts).toString("base64url");
}
