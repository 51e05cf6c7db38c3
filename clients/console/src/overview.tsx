// What happens now: servers, bridges and the store with their rates, and the last hour.

import type { GetServerResponse } from "./gen/fanfare/v1/admin_pb";
import { Code as StatusCode } from "@connectrpc/connect";
import { useState } from "preact/hooks";
import { admin, useAsked } from "./api";
import { count, dateTime, micros, millis, rate, short, transportName } from "./format";
import { gapOf, pointsOf, type Range, RANGE_MS, RANGES } from "./history";
import { Plot } from "./plot";
import { href } from "./router";
import { figures, type Figures, sessionsOf } from "./stats";
import { useStore } from "./store";
import { storeName } from "./store_card";
import { TopLists } from "./top";
import { Topology } from "./topology";
import { Ago, Badge, Code, Failure, Loading, Page, Panel, Tabs } from "./ui";

const SERVER_EVERY_MS = 5000;

export function Overview() {
  const server = useAsked((signal) => admin.getServer({}, { signal }), [], SERVER_EVERY_MS);
  const now = useStore(figures);
  const nothingYet = now.latest !== undefined && now.servers.every(({ stats }) => stats.eventsStored + stats.eventsEphemeral + stats.sessions === 0n);
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
          {now.latest ? <Topology figures={now} server={server.value} /> : now.problem ? <Failure problem={now.problem} /> : null}
          <Numbers figures={now} />
          <Plots figures={now} />
          <TopLists latest={now.latest} servers={now.servers} />
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
    <span>{server.engine === "disk" ? "log on disk" : server.engine === "memory" ? "log in memory" : `log on ${storeName(server.engine)}`}</span>
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

function Numbers({ figures: { latest, servers } }: { figures: Figures }) {
  const bridges = servers.flatMap((server) => server.stats.bridges);
  const slow = bridges.reduce((n, b) => n + Number(b.overflows), 0);
  const byTransport = new Map<number, number>();
  for (const { transport, count: n } of bridges.flatMap((b) => b.sessions)) byTransport.set(transport, (byTransport.get(transport) ?? 0) + Number(n));
  const split = [...byTransport].filter(([, n]) => n > 0).map(([transport, n]) => `${transportName(transport)} ${count(n)}`);
  const sum = (pick: (server: Figures["servers"][number]) => bigint | number) => servers.reduce((total, server) => total + Number(pick(server)), 0);
  const most = (pick: (server: Figures["servers"][number]) => bigint) => servers.reduce((found, server) => Math.max(found, Number(pick(server))), 0);
  const cells: [string, string, string?][] = [
    ["Users online", count(most((s) => s.stats.users))],
    ["Sessions", count(bridges.reduce((n, b) => n + sessionsOf(b), 0)), split.join(" · ") || "none connected"],
    ["Tenants", count(most((s) => s.stats.tenants))],
    ["Subscriptions", count(sum((s) => s.stats.subscriptions)), "gRPC, open now"],
    ["Events stored", short(sum((s) => s.stats.eventsStored)), "since the start"],
    ["Ephemeral", short(sum((s) => s.stats.eventsEphemeral)), "since the start"],
    ["Calls of browsers", short(sum((s) => s.stats.calls)), `${rate(sum((s) => s.rates.calls))} a second`],
    ["Refused events", short(sum((s) => s.stats.eventsRefused)), `${short(sum((s) => s.stats.eventsDuplicate))} repeated`],
    ["Closed as too slow", short(slow), "sessions"],
  ];
  return (
    <dl class="numbers">
      {cells.map(([name, value, more]) => (
        <div key={name} class={(name === "Closed as too slow" || name === "Refused events") && value !== "0" ? "attention" : ""}>
          <dt>{name}</dt>
          <dd class="num">{latest ? value : "—"}</dd>
          <dd class="more">{more ?? "\u00a0"}</dd>
        </div>
      ))}
    </dl>
  );
}

function Plots({ figures: { history } }: { figures: Figures }) {
  const [range, setRange] = useState<Range>("5 min");
  const points = pointsOf(history, range);
  const times = points.map((p) => p.at);
  const of = (pick: (p: (typeof points)[number]) => number | undefined) => points.map(pick);
  const shared = { times, most: RANGE_MS[range], gap: gapOf(range) };
  return (
    <>
      <div class="plots-head">
        <h2>Over time</h2>
        <Tabs label="How much time is shown" chosen={range} onChoose={setRange} tabs={RANGES.map((key) => ({ key, text: key }))} />
      </div>
      <div class="plots">
        <Plot title="Events a second" {...shared} text={rate} lines={[{ name: "stored", values: of((p) => p.stored) }, { name: "ephemeral", values: of((p) => p.ephemeral) }]} />
        <Plot title="Deliveries a second" {...shared} text={rate} lines={[{ name: "deliveries", values: of((p) => p.deliveries) }]} />
        <Plot title="Append latency" {...shared} text={micros} least={100} lines={[{ name: "p50", values: of((p) => p.appendP50) }, { name: "p99", values: of((p) => p.appendP99) }]} />
        <Plot title="Delivery latency" {...shared} text={micros} least={1000} lines={[{ name: "p50", values: of((p) => p.deliveryP50) }, { name: "p99", values: of((p) => p.deliveryP99) }]} />
        <Plot title="Sessions" {...shared} text={short} least={4} lines={[{ name: "connected", values: of((p) => p.sessions) }]} />
        <Plot title="Calls a second" {...shared} text={rate} lines={[{ name: "calls", values: of((p) => p.calls) }, { name: "refused events", values: of((p) => p.refused) }]} />
      </div>
    </>
  );
}
