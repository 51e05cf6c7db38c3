// What happens: the differences of the counters that the server sends each second, of all servers of the group.

import type { BridgeStats, EngineState, Latency, Stats } from "./gen/fanfare/v1/admin_pb";
import { admin, follow, type Problem } from "./api";
import { millis } from "./format";
import { add, forget, type History, load, nothing } from "./history";
import { Store } from "./store";

const INTERVAL_MS = 1000;
/** Rates of the graph are those of so much time, in milliseconds: bridges and servers count at different moments. */
const SMOOTH_MS = 5000;

/** Rates a second since the point before, and what is now; sums over all servers. */
export interface Point {
  at: number;
  stored: number;
  ephemeral: number;
  refused: number;
  calls: number;
  consumed: number;
  deliveries: number;
  sessions: number;
  /** Of the server that is asked. */
  appendP50: number | undefined;
  appendP99: number | undefined;
  /** The worst of all bridges. */
  deliveryP50: number | undefined;
  deliveryP99: number | undefined;
}

/** A server with its rates a second. */
export interface ServerFigures {
  /** Empty for the server that is asked. */
  id: string;
  name: string;
  stats: Stats;
  rates: Rates;
}

export interface Rates {
  stored: number;
  ephemeral: number;
  refused: number;
  calls: number;
  consumed: number;
  bridges: BridgeRates[];
}

export interface BridgeRates {
  instance: string;
  events: number;
  deliveries: number;
}

export interface Figures {
  latest?: Stats;
  servers: ServerFigures[];
  history: History;
  problem?: Problem;
}

export const figures = new Store<Figures>({ servers: [], history: nothing });

/** What came since; a process that began anew counts from nothing. */
const since = (now: bigint, before: bigint | undefined) => (before === undefined || now < before ? 0 : Number(now - before));

export function ratesOf(now: Stats, before: Stats): Rates {
  const seconds = Math.max(0.001, (millis(now.time) - millis(before.time)) / 1000);
  const per = (a: bigint, b: bigint | undefined) => since(a, b) / seconds;
  return {
    stored: per(now.eventsStored, before.eventsStored),
    ephemeral: per(now.eventsEphemeral, before.eventsEphemeral),
    refused: per(now.eventsRefused, before.eventsRefused),
    calls: per(now.calls, before.calls),
    consumed: per(now.subscriptionEvents, before.subscriptionEvents),
    bridges: now.bridges.map((bridge) => {
      const earlier = before.bridges.find((b) => b.instance === bridge.instance);
      return { instance: bridge.instance, events: per(bridge.events, earlier?.events), deliveries: per(bridge.deliveries, earlier?.deliveries) };
    }),
  };
}

export const sessionsOf = (bridge: BridgeStats): number => bridge.sessions.reduce((sum, one) => sum + Number(one.count), 0);

/** What was heard of one server, oldest first; never the same twice. */
const heardOf = new Map<string, Stats[]>();

function hear(id: string, stats: Stats): Stats[] {
  const heard = heardOf.get(id) ?? [];
  const last = heard.at(-1);
  // What another server said is asked for once a second, and may be told twice.
  if (!last || millis(stats.time) > millis(last.time)) heard.push(stats);
  while (heard.length > 2 && millis(heard[1]!.time) < millis(stats.time) - SMOOTH_MS) heard.shift();
  heardOf.set(id, heard);
  return heard;
}

function note(now: Stats): void {
  const all = [{ id: "", name: "", stats: now }, ...now.others.flatMap(({ id, name, stats }) => (stats ? [{ id, name, stats }] : []))];
  for (const id of heardOf.keys()) if (!all.some((one) => one.id === id)) heardOf.delete(id);
  const latest: Rates[] = [];
  const servers = all.map(({ id, name, stats }) => {
    const heard = hear(id, stats);
    if (heard.length > 1) {
      // A bridge may report just after one of the server's seconds, and twice in the next.
      const { bridges } = ratesOf(stats, heard.at(-3) ?? heard.at(-2)!);
      latest.push({ ...ratesOf(heard.at(-1)!, heard.at(-2)!), bridges });
    }
    return { id, name, stats, rates: ratesOf(stats, heard[0]!) };
  });
  figures.update(({ history, latest: before }) => ({ latest: now, servers, history: before === undefined ? history : add(history, pointOf(now, servers, latest)) }));
}

function pointOf(now: Stats, servers: ServerFigures[], rates: Rates[]): Point {
  const sum = (pick: (rates: Rates) => number) => rates.reduce((total, one) => total + pick(one), 0);
  const bridges = servers.flatMap((server) => server.stats.bridges);
  const delivered = bridges.map((bridge) => bridge.delivery).filter((one): one is Latency => one !== undefined && one.count > 0n);
  const worst = (pick: (latency: Latency) => bigint) => (delivered.length > 0 ? Math.max(...delivered.map((one) => Number(pick(one)))) : undefined);
  const append = now.append && now.append.count > 0n ? now.append : undefined;
  return {
    at: millis(now.time),
    stored: sum((one) => one.stored),
    ephemeral: sum((one) => one.ephemeral),
    refused: sum((one) => one.refused),
    calls: sum((one) => one.calls),
    consumed: sum((one) => one.consumed),
    deliveries: sum((one) => one.bridges.reduce((total, bridge) => total + bridge.deliveries, 0)),
    sessions: servers.reduce((total, server) => total + Number(server.stats.sessions), 0),
    appendP50: append && Number(append.p50Micros),
    appendP99: append && Number(append.p99Micros),
    deliveryP50: worst((one) => one.p50Micros),
    deliveryP99: worst((one) => one.p99Micros),
  };
}

/** What is wrong with the store, as any server sees it, each once, the worst first. */
export function problemsOf(servers: ServerFigures[]): { text: string; stopsPublishing: boolean }[] {
  const found = new Map<string, boolean>();
  for (const { stats } of servers) for (const { text, stopsPublishing } of stats.engine?.problems ?? []) found.set(text, stopsPublishing || (found.get(text) ?? false));
  return [...found].map(([text, stopsPublishing]) => ({ text, stopsPublishing })).sort((a, b) => Number(b.stopsPublishing) - Number(a.stopsPublishing));
}

export const engineOf = (latest: Stats | undefined): EngineState | undefined => latest?.engine;

/** Reads the figures for as long as somebody is signed in. */
export function readFigures(): () => void {
  heardOf.clear();
  figures.set({ servers: [], history: load() });
  const stop = follow(
    (signal) => admin.watchStats({ intervalMillis: INTERVAL_MS }, { signal, timeoutMs: 0 }),
    note,
    (problem) => figures.update((old) => ({ ...old, problem })),
  );
  return () => {
    stop();
    // Whoever signs in next sees nothing of it.
    forget();
  };
}
