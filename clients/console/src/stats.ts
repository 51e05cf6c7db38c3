// What has happened in the last five minutes: the differences of the counters that the server sends each second.

import type { Latency, Stats } from "./gen/fanfare/v1/admin_pb";
import { admin, follow, type Problem } from "./api";
import { millis } from "./format";
import { Store } from "./store";

export const KEPT_MS = 5 * 60_000;
const INTERVAL_MS = 1000;

export interface BridgePoint {
  name: string;
  instance: string;
  events: number;
  deliveries: number;
  sessions: number;
}

/** Rates a second since the point before, and what is now. */
export interface Point {
  at: number;
  stored: number;
  ephemeral: number;
  refused: number;
  calls: number;
  consumed: number;
  deliveries: number;
  sessions: number;
  append: Latency | undefined;
  /** The worst of all bridges. */
  deliveryP50: number | undefined;
  deliveryP99: number | undefined;
  bridges: BridgePoint[];
}

export interface Figures {
  latest?: Stats;
  points: Point[];
  problem?: Problem;
}

export const figures = new Store<Figures>({ points: [] });

/** What came since; a process that began anew counts from nothing. */
const since = (now: bigint, before: bigint | undefined) => (before === undefined || now < before ? 0 : Number(now - before));

export function pointOf(now: Stats, before: Stats): Point {
  const seconds = Math.max(0.001, (millis(now.time) - millis(before.time)) / 1000);
  const per = (a: bigint, b: bigint | undefined) => since(a, b) / seconds;
  const bridges = now.bridges.map((bridge) => {
    const earlier = before.bridges.find((b) => b.instance === bridge.instance);
    return {
      name: bridge.name,
      instance: bridge.instance,
      events: per(bridge.events, earlier?.events),
      deliveries: per(bridge.deliveries, earlier?.deliveries),
      sessions: bridge.sessions.reduce((sum, s) => sum + Number(s.count), 0),
    };
  });
  const delivered = now.bridges.map((b) => b.delivery).filter((d): d is Latency => d !== undefined && d.count > 0n);
  const worst = (pick: (l: Latency) => bigint) => (delivered.length > 0 ? Math.max(...delivered.map((l) => Number(pick(l)))) : undefined);
  return {
    at: millis(now.time),
    stored: per(now.eventsStored, before.eventsStored),
    ephemeral: per(now.eventsEphemeral, before.eventsEphemeral),
    refused: per(now.eventsRefused, before.eventsRefused),
    calls: per(now.calls, before.calls),
    consumed: per(now.subscriptionEvents, before.subscriptionEvents),
    deliveries: bridges.reduce((sum, b) => sum + b.deliveries, 0),
    sessions: Number(now.sessions),
    append: now.append && now.append.count > 0n ? now.append : undefined,
    deliveryP50: worst((l) => l.p50Micros),
    deliveryP99: worst((l) => l.p99Micros),
    bridges,
  };
}

function note(now: Stats): void {
  figures.update(({ latest, points }) => {
    if (latest === undefined) return { latest: now, points };
    const from = millis(now.time) - KEPT_MS;
    return { latest: now, points: [...points.filter((p) => p.at >= from), pointOf(now, latest)] };
  });
}

/** Reads the figures for as long as somebody is signed in. */
export function readFigures(): () => void {
  figures.set({ points: [] });
  return follow(
    (signal) => admin.watchStats({ intervalMillis: INTERVAL_MS }, { signal, timeoutMs: 0 }),
    note,
    (problem) => figures.update((old) => ({ ...old, problem })),
  );
}
