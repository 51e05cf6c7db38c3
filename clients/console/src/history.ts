// An hour of figures: a point per second of the last minutes, and one per ten seconds of the time before. The hour is kept in
// the tab, so that a reload loses nothing.

import type { Point } from "./stats";

/** Points of the last minutes are kept as they come, for so long, in milliseconds. */
export const FINE_MS = 5 * 60_000;
const HOUR_MS = 60 * 60_000;
const BUCKET_MS = 10_000;
const KEY = "fanfare.hour";

export type Range = "5 min" | "15 min" | "1 h";
export const RANGES: readonly Range[] = ["5 min", "15 min", "1 h"];
export const RANGE_MS: Record<Range, number> = { "5 min": FINE_MS, "15 min": 15 * 60_000, "1 h": HOUR_MS };

type Column = Exclude<keyof Point, "at">;
/** How a bucket is made of its points: the mean of rates, the most of the others. */
const COLUMNS: readonly [Column, "mean" | "most"][] = [
  ["stored", "mean"], ["ephemeral", "mean"], ["refused", "mean"], ["calls", "mean"], ["consumed", "mean"], ["deliveries", "mean"],
  ["sessions", "most"], ["appendP50", "most"], ["appendP99", "most"], ["deliveryP50", "most"], ["deliveryP99", "most"],
];

export interface History {
  fine: Point[];
  /** The points of whole buckets. */
  coarse: Point[];
  /** Points of the bucket that is not whole. */
  open: Point[];
}

export const nothing: History = { fine: [], coarse: [], open: [] };

const bucketOf = (point: Point) => Math.floor(point.at / BUCKET_MS);

function merged(points: Point[]): Point {
  const result = { ...points.at(-1)! };
  for (const [name, how] of COLUMNS) {
    const values = points.map((point) => point[name]).filter((value): value is number => value !== undefined);
    // Latencies may be missing; rates never are.
    const value = values.length === 0 ? undefined : how === "most" ? Math.max(...values) : values.reduce((a, b) => a + b, 0) / values.length;
    Object.assign(result, { [name]: value });
  }
  return result;
}

export function add({ fine, coarse, open }: History, point: Point): History {
  const recent = [...fine.filter((one) => one.at >= point.at - FINE_MS), point];
  if (open.length === 0 || bucketOf(open[0]!) === bucketOf(point)) return { fine: recent, coarse, open: [...open, point] };
  const whole = [...coarse.filter((one) => one.at >= point.at - HOUR_MS), merged(open)];
  keep(whole);
  return { fine: recent, coarse: whole, open: [point] };
}

/** The points of a range. */
export const pointsOf = ({ fine, coarse, open }: History, range: Range): Point[] => {
  if (range === "5 min") return fine;
  const end = fine.at(-1)?.at ?? Date.now();
  const points = open.length > 0 ? [...coarse, merged(open)] : coarse;
  return points.filter((one) => one.at >= end - RANGE_MS[range]);
};

/** How far apart points may be that belong to one line, in milliseconds. */
export const gapOf = (range: Range): number => (range === "5 min" ? 5000 : 3 * BUCKET_MS);

function keep(points: Point[]): void {
  const rounded = (value: number | undefined) => (value === undefined ? null : Math.round(value * 10) / 10);
  try {
    sessionStorage.setItem(KEY, JSON.stringify(points.map((point) => [point.at, ...COLUMNS.map(([name]) => rounded(point[name]))])));
  } catch {
    // Without storage there is what this page has seen.
  }
}

export function forget(): void {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // There is none.
  }
}

/** What an earlier page of this tab has kept. */
export function load(): History {
  try {
    const rows = JSON.parse(sessionStorage.getItem(KEY) ?? "[]") as (number | null)[][];
    const now = Date.now();
    const points = rows.flatMap(([at, ...values]) => {
      if (typeof at !== "number" || values.length !== COLUMNS.length || at < now - HOUR_MS || at > now + BUCKET_MS) return [];
      return [{ at, ...Object.fromEntries(COLUMNS.map(([name], i) => [name, values[i] ?? undefined])) } as unknown as Point];
    });
    return { fine: [], coarse: points, open: [] };
  } catch {
    return nothing;
  }
}
