// Numbers and times as people read them.

import { timestampDate, type Timestamp } from "@bufbuild/protobuf/wkt";

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (n: number | bigint): string => WHOLE.format(n);
/** Exact below ten thousand, short above. */
export const short = (n: number): string => (Math.abs(n) < 10_000 ? WHOLE.format(Math.round(n)) : COMPACT.format(n));

/** Of something a second. */
export function rate(n: number): string {
  if (n === 0) return "0";
  if (n < 10) return n.toFixed(1);
  return short(n);
}

/** Microseconds. */
export function micros(us: number): string {
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 10_000) return `${(us / 1000).toFixed(1)} ms`;
  if (us < 1_000_000) return `${Math.round(us / 1000)} ms`;
  return `${(us / 1_000_000).toFixed(1)} s`;
}

export function bytes(n: number): string {
  if (n < 1024) return `${n} B`;
  if (n < 1024 * 1024) return `${(n / 1024).toFixed(n < 10_240 ? 1 : 0)} KiB`;
  if (n < 1024 ** 3) return `${(n / 1024 ** 2).toFixed(1)} MiB`;
  return `${(n / 1024 ** 3).toFixed(1)} GiB`;
}

export const millis = (time: Timestamp | undefined): number => (time ? timestampDate(time).getTime() : 0);

/** How long ago or ahead, in one or two units. */
export function span(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

const pad = (n: number, width = 2) => String(n).padStart(width, "0");
/** Time of day with milliseconds. */
export function clock(ms: number): string {
  const d = new Date(ms);
  return `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}.${pad(d.getMilliseconds(), 3)}`;
}
export function dateTime(ms: number): string {
  const d = new Date(ms);
  return `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
}

/** "1 session", "2 sessions". */
export const many = (n: number | bigint, one: string, more = `${one}s`): string => `${count(n)} ${n == 1 ? one : more}`;

const TRANSPORTS = ["Unknown", "Socket.IO", "WebSocket", "SSE", "Long poll", "gRPC"];
export const transportName = (transport: number): string => TRANSPORTS[transport] ?? `Transport ${transport}`;

/** A sentence that begins with a capital letter. */
export const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
