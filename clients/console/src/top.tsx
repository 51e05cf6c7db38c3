// What there is most of: types of events, rooms, and reasons of refusals.

import type { RefusalCount, Stats } from "./gen/fanfare/v1/admin_pb";
import { Reason } from "./gen/fanfare/v1/reason_pb";
import type { ComponentChildren } from "preact";
import { admin, useAsked } from "./api";
import { count, dateTime, many, millis, short } from "./format";
import { RoomOrder } from "./gen/fanfare/v1/admin_pb";
import { href } from "./router";
import type { ServerFigures } from "./stats";
import { useTenants } from "./tenant";
import { Ago, Panel } from "./ui";

const ROWS = 8;
const ROOMS_EVERY_MS = 5000;

export function TopLists({ latest, servers }: { latest: Stats | undefined; servers: ServerFigures[] }) {
  if (!latest) return null;
  return (
    <div class="tops">
      <TopEvents servers={servers} />
      <TopRooms />
      <Refusals servers={servers} />
    </div>
  );
}

const List = ({ title, empty, children }: { title: string; empty: string; children: ComponentChildren[] }) => (
  <Panel title={title} class="top">
    {children.length === 0 ? <p class="dim top-empty">{empty}</p> : <ul class="top-list">{children}</ul>}
  </Panel>
);

function TopEvents({ servers }: { servers: ServerFigures[] }) {
  const sums = new Map<string, { name: string; total: number }>();
  for (const { stats } of servers) for (const one of stats.events) sums.set(one.type, { name: one.name, total: (sums.get(one.type)?.total ?? 0) + Number(one.count) });
  const rows = [...sums].sort(([, a], [, b]) => b.total - a.total).slice(0, ROWS);
  return (
    <List title="Most frequent events" empty="No event was published since the start.">
      {rows.map(([type, { name, total }]) => (
        <li key={type}>
          <a class="mono" href={href("catalogs", { item: `event:${type}` })} title={type}>
            {name}
          </a>
          <span class="num">{short(total)}</span>
        </li>
      ))}
    </List>
  );
}

/** Of the tenant with the most sessions. */
function TopRooms() {
  const tenants = useTenants();
  const busiest = tenants.list.reduce((best, one) => (!best || one.sessions > best.sessions ? one : best), tenants.list[0]);
  const tenant = busiest?.tenant ?? "";
  const asked = useAsked(
    async (signal) => (tenant ? (await admin.listRooms({ tenant, limit: ROWS, order: RoomOrder.SESSIONS }, { signal })).rooms : []),
    [tenant],
    ROOMS_EVERY_MS,
  );
  const rooms = asked.value ?? [];
  return (
    <List title={tenant && rooms.length > 0 ? `Largest rooms of tenant ${tenant}` : "Largest rooms"} empty="No room has a session.">
      {rooms.map((room) => (
        <li key={room.room}>
          <a class="mono" href={href("sessions", { tenant, room: room.room })}>
            {room.room}
          </a>
          <span class="num">{many(room.sessions, "session")}</span>
        </li>
      ))}
    </List>
  );
}

function Refusals({ servers }: { servers: ServerFigures[] }) {
  const sums = new Map<string, { reason: Reason; what: string; total: number; at: number; message: string }>();
  const add = (what: string, { reason, count: n, lastAt, lastMessage: message }: RefusalCount) => {
    const known = sums.get(`${what} ${reason}`);
    const [at, total] = [millis(lastAt), (known?.total ?? 0) + Number(n)];
    sums.set(`${what} ${reason}`, !known || at > known.at ? { reason, what, total, at, message } : { ...known, total });
  };
  for (const { stats } of servers) {
    stats.refusals.forEach((one) => add("requests", one));
    for (const bridge of stats.bridges) bridge.refusals.forEach((one) => add("connections", one));
  }
  const rows = [...sums].sort(([, a], [, b]) => b.total - a.total).slice(0, ROWS);
  return (
    <List title="Refusals" empty="Nothing was refused since the start.">
      {rows.map(([key, { reason, what, total, at, message }]) => (
        <li key={key} class="refusal">
          <strong class="mono">{(Reason[reason] ?? String(reason)).toLowerCase()}</strong>
          <span class="num">
            {count(total)} {what}
          </span>
          <p class="dim" title={dateTime(at)}>
            {message} <span class="num">(<Ago at={at} /> ago)</span>
          </p>
        </li>
      ))}
    </List>
  );
}
