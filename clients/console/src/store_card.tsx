// The store of the log: what is wrong with it, how fast it answers, how full it is, and who it is made of.

import type { EngineState, StoreNode, StorePartition } from "./gen/fanfare/v1/admin_pb";
import { bytes, capital, count, many, micros, span } from "./format";
import { Badge, Meter } from "./ui";

const NAMES: Record<string, string> = { memory: "Memory of the server", disk: "Disk of the server", redis: "Redis", nats: "NATS JetStream" };
/** Partitions are drawn one by one up to so many. */
const PARTITIONS_DRAWN = 64;

export const storeName = (kind: string): string => NAMES[kind] ?? kind;

export function StoreCard({ state, servers }: { state: EngineState; servers: number }) {
  const stopped = state.problems.some((one) => one.stopsPublishing);
  const tone = stopped ? "bad" : state.problems.length > 0 ? "warn" : "good";
  const commands = state.commands && state.commands.count > 0n ? state.commands : undefined;
  const [used, most] = [Number(state.bytesUsed), Number(state.bytesMax)];
  const isShared = state.kind === "redis" || state.kind === "nats";
  return (
    <div class={`store ${tone}`} data-store={tone}>
      <header>
        <span class="box-kind">{isShared ? `Store, shared by ${many(servers, "server")}` : "Store"}</span>
        <strong class="box-title">{storeName(state.kind)}</strong>
        <Badge tone={tone}>{stopped ? "takes no events" : state.problems.length > 0 ? "degraded" : "healthy"}</Badge>
      </header>
      <div class="store-body">
        <dl class="store-facts">
        {commands ? (
          <div>
            <dt>Commands</dt>
            <dd class="num">
              {micros(Number(commands.p50Micros))} <span class="dim">p50</span> · {micros(Number(commands.p99Micros))} <span class="dim">p99</span>
            </dd>
          </div>
        ) : null}
        <div class={state.feedSilentMillis > 0n ? "attention" : ""}>
          <dt>Lag of the feed</dt>
          <dd class="num">{state.feedSilentMillis > 0n ? `nothing for ${span(Number(state.feedSilentMillis))}` : micros(Number(state.feedMicros))}</dd>
        </div>
        <div>
          <dt>{state.kind === "disk" || state.kind === "nats" ? "Disk" : "Memory"}</dt>
          <dd class="num">
            {used > 0 || most > 0 ? bytes(used) : "—"} {most > 0 ? <span class="dim">of {bytes(most)}</span> : used > 0 ? <span class="dim">no bound is known</span> : null}
            {most > 0 ? <Meter value={used} most={most} label="Bytes that the store uses" /> : null}
          </dd>
        </div>
      </dl>
      {state.problems.length > 0 ? (
        <ul class="store-problems">
          {state.problems.map((one) => (
            <li key={one.text} class={one.stopsPublishing ? "bad" : "warn"}>
              {capital(one.text)}
            </li>
          ))}
        </ul>
      ) : null}
      {state.nodes.length > 0 ? (
        <ul class="store-nodes">
          {state.nodes.map((node) => (
            <Node key={node.name} node={node} />
          ))}
        </ul>
      ) : null}
      {state.partitions.length > 0 ? <Partitions partitions={state.partitions} /> : null}
      </div>
    </div>
  );
}

function Node({ node }: { node: StoreNode }) {
  const facts = [
    node.offline ? "cannot be reached" : "",
    node.answerMicros > 0n ? `answers in ${micros(Number(node.answerMicros))}` : "",
    node.bytesUsed > 0n ? `${bytes(Number(node.bytesUsed))}${node.bytesMax > 0n ? ` of ${bytes(Number(node.bytesMax))}` : ""}` : "",
    node.role === "primary" ? (node.replicas > 0 ? `${many(node.replicas, "replica")}, ${bytes(Number(node.replicaLagBytes))} behind` : "no replica") : "",
    node.leads > 0 ? `leads ${many(node.leads, "partition")}` : "",
  ].filter(Boolean);
  return (
    <li class={node.offline ? "bad" : ""}>
      <strong class="mono">{node.name}</strong> {node.role ? <Badge>{node.role}</Badge> : null}
      <span class="dim">{facts.join(" · ")}</span>
    </li>
  );
}

function Partitions({ partitions }: { partitions: StorePartition[] }) {
  const toneOf = (one: StorePartition) => (!one.leader ? "bad" : one.current < one.replicas ? "warn" : "good");
  const lag = partitions.reduce((most, one) => (one.lag > most ? one.lag : most), 0n);
  const whole = partitions.filter((one) => toneOf(one) === "good").length;
  return (
    <div class="partitions">
      <p>
        <span class="num">
          {count(whole)} of {many(partitions.length, "partition")}
        </span>{" "}
        with a leader and all copies up to date. <span class="dim num">Lag: {many(lag, "entry", "entries")} at most.</span>
      </p>
      <ul class="partition-list">
        {partitions.slice(0, PARTITIONS_DRAWN).map((one) => {
          const text = `Partition ${one.number}: ${one.leader ? `led by ${one.leader}` : "no leader"}, ${one.current} of ${one.replicas} copies up to date, lag ${one.lag}`;
          return (
            <li key={one.number} class={toneOf(one)} title={text}>
              <span class="num">{one.number}</span> <span class="mono">{one.leader || "no leader"}</span>{" "}
              <span class="num dim">
                {one.current}/{one.replicas}
              </span>
              <span class="unseen">{text}</span>
            </li>
          );
        })}
      </ul>
      {partitions.length > PARTITIONS_DRAWN ? <p class="dim">The first {PARTITIONS_DRAWN} are listed.</p> : null}
    </div>
  );
}
