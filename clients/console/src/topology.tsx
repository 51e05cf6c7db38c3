// The group as a graph: what is published at each server, its bridges and their sessions, and the store that they share.

import type { GetServerResponse } from "./gen/fanfare/v1/admin_pb";
import type { ComponentChildren } from "preact";
import { bytes, count, many, micros, rate, transportName } from "./format";
import { sessionsOf, type Figures, type ServerFigures } from "./stats";
import { StoreCard } from "./store_card";

/** So much of an id tells it from others of the same name. */
const ID_CHARS = 4;

const Arrow = ({ value, unit, label, live }: { value: string; unit: string; label: string; live: boolean }) => (
  <div class={`arrow ${live ? "live" : ""}`} role="img" aria-label={`${label}: ${value} ${unit}`}>
    <span class="arrow-text">
      <strong class="num">{value}</strong> {unit}
    </span>
    <span class="arrow-line" />
  </div>
);

const Box = ({ title, kind, children, class: more = "" }: { title: string; kind: string; children?: ComponentChildren; class?: string }) => (
  <div class={`box ${more}`}>
    <span class="box-kind">{kind}</span>
    <strong class="box-title">{title}</strong>
    {children}
  </div>
);

const Fact = ({ value, text }: { value: string; text: string }) => (
  <li>
    <b class="num">{value}</b> {text}
  </li>
);

/** Names of servers that were seen, by id: one that does not answer cannot say its own. */
const namesSeen = new Map<string, string>();

export function Topology({ figures, server }: { figures: Figures; server: GetServerResponse | undefined }) {
  const { latest, servers } = figures;
  for (const { id, name } of [...(server?.servers ?? []), ...servers]) if (id && name) namesSeen.set(id, name);
  const silent = latest?.silentServers ?? [];
  const named = servers.map((one) => ({ ...one, name: one.name || (one.id ? one.id.slice(0, ID_CHARS) : server?.name || "server") }));
  const shown = named.map((one) => (named.filter((other) => other.name === one.name).length > 1 && one.id ? { ...one, name: `${one.name} ${one.id.slice(0, ID_CHARS)}` } : one));
  const sorted = shown.sort((a, b) => a.name.localeCompare(b.name));
  const isGroup = sorted.length > 1 || silent.length > 0;
  return (
    <section class="topology" aria-label="Servers, bridges and the store" data-flow>
      {sorted.map((one) => (
        <Flow key={one.id} server={one} isGroup={isGroup} />
      ))}
      {silent.map((id) => (
        <div class="flow silent" key={id} data-silent>
          <Box kind="Server" title={namesSeen.get(id) || `Server ${id.slice(0, ID_CHARS)}`} class="down">
            <span class="box-facts">does not answer; what it and its bridges have is missing here</span>
          </Box>
        </div>
      ))}
      {latest?.engine ? <StoreCard state={latest.engine} servers={sorted.length + silent.length} /> : null}
    </section>
  );
}

function Flow({ server, isGroup }: { server: ServerFigures; isGroup: boolean }) {
  const { stats, rates, name } = server;
  const published = rates.stored + rates.ephemeral;
  const at = isGroup ? ` ${name}` : "";
  const rows = stats.bridges.map((bridge) => {
    const isOnly = stats.bridges.filter((other) => other.name === bridge.name).length === 1;
    const shown = isOnly ? bridge.name || "bridge" : `${bridge.name} ${bridge.instance.slice(0, ID_CHARS)}`;
    return { bridge, shown, rates: rates.bridges.find((one) => one.instance === bridge.instance) };
  });
  return (
    <div class="flow" data-server={name}>
      <div class="flow-in">
        <Box kind="Published by" title="Producers and browsers">
          <ul class="box-facts">
            <Fact value={rate(rates.stored)} text="stored/s" />
            <Fact value={rate(rates.ephemeral)} text="ephemeral/s" />
          </ul>
        </Box>
        <Arrow value={rate(published)} unit="events/s" label={`From producers to the server${at}`} live={published > 0} />
        <Box kind="Server" title={name} class="core">
          <ul class="box-facts">
            {stats.append && stats.append.count > 0n ? <Fact value={micros(Number(stats.append.p99Micros))} text="append p99" /> : null}
            <Fact value={rate(rates.calls)} text="calls/s" />
            {isGroup ? <Fact value={count(stats.sessions)} text={stats.sessions === 1n ? "session" : "sessions"} /> : null}
          </ul>
        </Box>
      </div>
      <div class="flow-out">
        {rows.length === 0 ? (
          <div class="flow-row">
            <Arrow value="0" unit="events/s" label={`From the server${at} to bridges`} live={false} />
            <Box kind="Bridge" title="None is linked" class="missing" />
          </div>
        ) : null}
        {rows.map(({ bridge, shown, rates: of }) => (
          <div class="flow-row" key={bridge.instance}>
            <Arrow value={rate(of?.events ?? 0)} unit="events/s" label={`From the server to ${shown}`} live={(of?.events ?? 0) > 0} />
            <Box kind="Bridge" title={shown}>
              <ul class="box-facts">
                <Fact value={bytes(Number(bridge.queuedBytes))} text="queued" />
                {bridge.overflows > 0n ? <Fact value={count(bridge.overflows)} text="closed as too slow" /> : null}
              </ul>
            </Box>
            <Arrow value={rate(of?.deliveries ?? 0)} unit="deliveries/s" label={`From ${shown} to its sessions`} live={(of?.deliveries ?? 0) > 0} />
            <Box kind="Sessions" title={many(sessionsOf(bridge), "session")}>
              <ul class="box-facts">
                {sessionsOf(bridge) === 0 ? <li>nobody is connected</li> : null}
                {bridge.sessions
                  .filter((one) => one.count > 0n)
                  .map((one) => (
                    <Fact key={one.transport} value={count(one.count)} text={transportName(one.transport)} />
                  ))}
              </ul>
            </Box>
          </div>
        ))}
        {!isGroup || stats.subscriptions > 0n ? (
          <div class="flow-row">
            <Arrow value={rate(rates.consumed)} unit="events/s" label={`From the server${at} to subscriptions`} live={rates.consumed > 0} />
            <Box kind="Consumers" title={many(stats.subscriptions, "subscription")} class="wide">
              <ul class="box-facts">
                <li>over gRPC and gRPC-Web</li>
              </ul>
            </Box>
          </div>
        ) : null}
      </div>
    </div>
  );
}
