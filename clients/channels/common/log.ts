/** Log lines as JSON on standard error, with the field names of `fanfare`. Knows which texts are secret. */

export type Fields = Record<string, unknown>;

const LEVELS = ["debug", "info", "warn", "error"] as const;
export type Level = (typeof LEVELS)[number];
export const LOG_LEVELS: readonly string[] = LEVELS;

/** Longest text of a field, in characters: answers of channels can be long. */
const TEXT_CHARS_MAX = 500;

let least = 1;
const secrets = new Set<string>();

/** Sets the lowest level that is written. */
export function setLevel(level: string): void {
  least = Math.max(0, LEVELS.indexOf(level as Level));
}

/** Registers a text that never appears in a log line, an error or an event. */
export function addSecret(secret: string): void {
  if (secret.length >= 4) secrets.add(secret);
}

/** The text without secrets. */
export function redact(text: string): string {
  let clean = text;
  for (const secret of secrets) clean = clean.replaceAll(secret, "***");
  return clean;
}

/** An error and its causes as one line without secrets. */
export function describe(error: unknown): string {
  const parts: string[] = [];
  for (let next = error; next !== undefined && next !== null && parts.length < 5; next = (next as { cause?: unknown }).cause) {
    const text = next instanceof Error ? next.message || (next as { code?: string }).code || next.name : String(next);
    if (text && !parts.includes(text)) parts.push(text);
  }
  return redact(parts.join(": ")).slice(0, TEXT_CHARS_MAX);
}

function write(level: Level, body: string, fields: Fields): void {
  if (LEVELS.indexOf(level) < least) return;
  const line = JSON.stringify({ timestamp: new Date().toISOString(), severity_text: level.toUpperCase(), body, ...fields }, (_, value) =>
    typeof value === "bigint" ? String(value) : typeof value === "string" ? value.slice(0, TEXT_CHARS_MAX) : value,
  );
  process.stderr.write(`${redact(line)}\n`);
}

export const log = {
  debug: (body: string, fields: Fields = {}) => write("debug", body, fields),
  info: (body: string, fields: Fields = {}) => write("info", body, fields),
  warn: (body: string, fields: Fields = {}) => write("warn", body, fields),
  error: (body: string, fields: Fields = {}) => write("error", body, fields),
};
