// What happens now: the way of the events with their rates, and the last five minutes.

import type { GetServerResponse } from "./gen/fanfare/v1/admin_pb";
import { Code as StatusCode } from "@connectrpc/connect";
import type { ComponentChildren } from "preact";
import { admin, useAsked } from "./api";
import { bytes, count, dateTime, many, micros, millis, rate, short, transportName } from "./format";
import { Plot } from "./plot";
import { href } from "./router";
import { figures, type Figures, type Point } from "./stats";
import { useStore } from "./store";
import { Ago, Badge, Code, Failure, Loading, Page, Panel } from "./ui";

const SERVER_EVERY_MS = 5000;
/** So much of a bridge's instance tells it from others of its name. */
const INSTANCE_CHARS = 4;

export function Overview() {
  const server = useAsked((signal) => admin.getServer({}, { signal }), [], SERVER_EVERY_MS);
  const now = useStore(figures);
  const nothingYet = now.latest !== undefined && now.latest.eventsStored + now.latest.eventsEphemeral === 0n && now.latest.sessions === 0n;
  return (
    <Page title="Overview" lead={server.value ? <ServerLine server={server.value} /> : <span class="ghost">…</span>}>
      {now.problem?.code === StatusCode.PermissionDenied ? (
        <div class="note">
          <p>
            Figures of the whole server need a token for all tenants. With this one: <a href={href("sessions")}>sessions</a>, <a href={href("events")}>events</a> and{" "}
            <a href={href("catalogs")}>catalogs</a> of its own tenant.
          </p>
        </div>
      ) : !now.latest && !now.problem ? (
        <Panel label="Figures">
          <Loading lines={16} />
        </Panel>
      ) : (
        <>
          {nothingYet ? <TryIt server={server.value} /> : null}
          {now.latest ? <Flow figures={now} server={server.value} /> : now.problem ? <Failure problem={now.problem} /> : null}
          <Numbers figures={now} />
          <Plots points={now.points} />
        </>
      )}
    </Page>
  );
}

const ServerLine = ({ server }: { server: GetServerResponse }) => (
  <span class="facts">
    <span>
      Server <strong>{server.name || "server"}</strong>
    </span>
    <span class="num">{server.version}</span>
    <span>{server.engine === "disk" ? "log on disk" : server.engine === "memory" ? "log in memory" : `${server.engine} log`}</span>
    <span title={dateTime(millis(server.startedAt))}>
      up for <Ago at={millis(server.startedAt)} />
    </span>
    {server.development ? <Badge tone="warn">development</Badge> : null}
  </span>
);

function TryIt({ server }: { server: GetServerResponse | undefined }) {
  const at = server?.grpcUrl ? ` --server ${server.grpcUrl}` : "";
  // Only `fanfare dev` takes what the tools sign by themselves.
  const key = server?.development === false ? ' --jwt-secret "$SECRET"' : "";
  const notify = `fanfare notify messenger.v1.NewMessage${at}${key} --tenant 1 \\
'{"id":1,"chatId":7,"content":"Hello","fromMe":true,"channel":"whatsapp","timestamp":"2026-01-31T12:00:00Z"}'`;
  const listen = `curl -N "${location.origin}/events?token=$(fanfare token${key} --user 42 --tenant 1)"`;
  return (
    <Panel class="try" title="Nothing has happened yet. Try it">
      <div class="try-steps">
        <div>
          <h3>In this page</h3>
          <p>Connect a client, compose an event and see it arrive. Nothing to install.</p>
          <p>
            <a class="button primary" href={href("playground")}>
              Open the playground
            </a>
          </p>
        </div>
        <div>
          <h3>1. Listen in a shell</h3>
          <Code text={listen} label="command that listens" />
        </div>
        <div>
          <h3>2. Publish in another</h3>
          <Code text={notify} label="command that publishes" />
        </div>
      </div>
    </Panel>
  );
}

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

function Flow({ figures, server }: { figures: Figures; server: GetServerResponse | undefined }) {
  const latest = figures.latest!;
  const point = figures.points.at(-1);
  const published = (point?.stored ?? 0) + (point?.ephemeral ?? 0);
  const rows = latest.bridges.map((bridge) => {
    const isOnly = latest.bridges.filter((b) => b.name === bridge.name).length === 1;
    const name = isOnly ? bridge.name || "bridge" : `${bridge.name} ${bridge.instance.slice(0, INSTANCE_CHARS)}`;
    return { bridge, name, point: point?.bridges.find((b) => b.instance === bridge.instance) };
  });
  return (
    <section class="flow" aria-label="The way of the events" data-flow>
      <div class="flow-in">
        <Box kind="In" title="Producers">
          <ul class="box-facts">
            <li>
              <b class="num">{rate(point?.stored ?? 0)}</b> stored/s
            </li>
            <li>
              <b class="num">{rate(point?.ephemeral ?? 0)}</b> ephemeral/s
            </li>
          </ul>
        </Box>
        <Arrow value={rate(published)} unit="events/s" label="From producers to the server" live={published > 0} />
        <Box kind="Server" title={server?.name || "server"} class="core">
          <ul class="box-facts">
            <li>
              <b class="num">{count(latest.tenants)}</b> {latest.tenants === 1n ? "tenant" : "tenants"}
            </li>
            <li>
              append p99 <b class="num">{point?.append ? micros(Number(point.append.p99Micros)) : "—"}</b>
            </li>
          </ul>
        </Box>
      </div>
      <div class="flow-out">
        {rows.length === 0 ? (
          <div class="flow-row">
            <Arrow value="0" unit="events/s" label="From the server to bridges" live={false} />
            <Box kind="Bridge" title="None is linked" class="missing" />
          </div>
        ) : null}
        {rows.map(({ bridge, name, point: of }) => (
          <div class="flow-row" key={bridge.instance}>
            <Arrow value={rate(of?.events ?? 0)} unit="events/s" label={`From the server to ${name}`} live={(of?.events ?? 0) > 0} />
            <Box kind="Bridge" title={name}>
              <ul class="box-facts">
                <li>
                  queued <b class="num">{bytes(Number(bridge.queuedBytes))}</b>
                </li>
              </ul>
            </Box>
            <Arrow value={rate(of?.deliveries ?? 0)} unit="deliveries/s" label={`From ${name} to its sessions`} live={(of?.deliveries ?? 0) > 0} />
            <Box kind="Sessions" title={many(of?.sessions ?? bridge.sessions.reduce((n, s) => n + Number(s.count), 0), "session")}>
              <ul class="box-facts">
                {bridge.sessions.filter((s) => s.count > 0n).length === 0 ? <li>nobody is connected</li> : null}
                {bridge.sessions
                  .filter((s) => s.count > 0n)
                  .map((s) => (
                    <li key={s.transport}>
                      <b class="num">{count(s.count)}</b> {transportName(s.transport)}
                    </li>
                  ))}
              </ul>
            </Box>
          </div>
        ))}
        <div class="flow-row">
          <Arrow value={rate(point?.consumed ?? 0)} unit="events/s" label="From the server to subscriptions" live={(point?.consumed ?? 0) > 0} />
          <Box kind="Consumers" title={many(latest.subscriptions, "subscription")} class="wide">
            <ul class="box-facts">
              <li>over gRPC and gRPC-Web</li>
            </ul>
          </Box>
        </div>
      </div>
    </section>
  );
}

function Numbers({ figures: { latest, points } }: { figures: Figures }) {
  const now = points.at(-1);
  const overflows = latest?.bridges.reduce((n, b) => n + Number(b.overflows), 0) ?? 0;
  const byTransport = new Map<number, number>();
  for (const { transport, count: n } of latest?.bridges.flatMap((b) => b.sessions) ?? []) byTransport.set(transport, (byTransport.get(transport) ?? 0) + Number(n));
  const split = [...byTransport].filter(([, n]) => n > 0).map(([transport, n]) => `${transportName(transport)} ${count(n)}`);
  const cells: [string, string, string?][] = [
    ["Users online", count(latest?.users ?? 0)],
    ["Sessions", count(latest?.sessions ?? 0), split.join(" · ") || "none connected"],
    ["Tenants", count(latest?.tenants ?? 0)],
    ["Subscriptions", count(latest?.subscriptions ?? 0), "gRPC, open now"],
    ["Events stored", short(Number(latest?.eventsStored ?? 0)), "since the start"],
    ["Ephemeral", short(Number(latest?.eventsEphemeral ?? 0)), "since the start"],
    ["Calls of browsers", short(Number(latest?.calls ?? 0)), `${rate(now?.calls ?? 0)} a second`],
    ["Refused", short(Number(latest?.eventsRefused ?? 0)), `${short(Number(latest?.eventsDuplicate ?? 0))} repeated`],
    ["Overflows", short(overflows), "sessions too slow"],
  ];
  return (
    <dl class="numbers">
      {cells.map(([name, value, more]) => (
        <div key={name} class={(name === "Overflows" || name === "Refused") && value !== "0" ? "attention" : ""}>
          <dt>{name}</dt>
          <dd class="num">{latest ? value : "—"}</dd>
          <dd class="more">{more ?? "\u00a0"}</dd>
        </div>
      ))}
    </dl>
  );
}

function Plots({ points }: { points: Point[] }) {
  const times = points.map((p) => p.at);
  const of = (pick: (p: Point) => number | undefined) => points.map(pick);
  return (
    <div class="plots">
      <Plot title="Events a second" times={times} text={rate} lines={[{ name: "stored", values: of((p) => p.stored) }, { name: "ephemeral", values: of((p) => p.ephemeral) }]} />
      <Plot title="Deliveries a second" times={times} text={rate} lines={[{ name: "deliveries", values: of((p) => p.deliveries) }]} />
      <Plot
        title="Append latency"
        times={times}
        text={micros}
        least={100}
        lines={[
          { name: "p50", values: of((p) => (p.append ? Number(p.append.p50Micros) : undefined)) },
          { name: "p99", values: of((p) => (p.append ? Number(p.append.p99Micros) : undefined)) },
        ]}
      />
      <Plot title="Delivery latency" times={times} text={micros} least={1000} lines={[{ name: "p50", values: of((p) => p.deliveryP50) }, { name: "p99", values: of((p) => p.deliveryP99) }]} />
      <Plot title="Sessions" times={times} text={short} least={4} lines={[{ name: "connected", values: of((p) => p.sessions) }]} />
      <Plot title="Calls a second" times={times} text={rate} lines={[{ name: "calls", values: of((p) => p.calls) }, { name: "refused events", values: of((p) => p.refused) }]} />
    </div>
  );
}
