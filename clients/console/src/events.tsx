// Events: live, as they are published, and those that are stored.

import type { TailedEvent } from "./gen/fanfare/v1/admin_pb";
import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { admin, follow, problemOf, type Problem } from "./api";
import { catalogs, eventOfType } from "./catalogs_store";
import { clock, count, dateTime, many, millis } from "./format";
import { href, place, refine } from "./router";
import { useStore } from "./store";
import { TenantPicker, useTenant, useTenants, type Tenants } from "./tenant";
import { Badge, Comment, Detail, Empty, Failure, Json, Loading, Page, Panel, parsed, Tabs, TextField } from "./ui";
import { FieldList } from "./fields";

/** So many rows are kept. */
const KEPT = 500;
/** Rows are drawn at most once in so many milliseconds, whatever the rate. */
const DRAW_MS = 120;
const FILTERS_MAX = 64;
/** Stored events that are read at once, and that are kept. */
const PAGE = 50;
const STORED_MAX = 1000;

type Entry = { key: number; kind: "event"; of: TailedEvent } | { key: number; kind: "missed"; missed: bigint };

const listed = (text: string): string[] => text.split(/[\s,]+/).filter(Boolean).slice(0, FILTERS_MAX);

/** Reads the tail into a bounded list; paused, the list stands still and counts what came. */
function useTail(tenant: string, rooms: string, names: string, paused: boolean) {
  const [entries, setEntries] = useState<Entry[]>([]);
  const [waiting, setWaiting] = useState(0);
  const [problem, setProblem] = useState<Problem | undefined>();
  const [totals, setTotals] = useState({ seen: 0, missed: 0 });
  const came = useRef<Entry[]>([]);
  const counted = useRef({ seen: 0, missed: 0 });
  const still = useRef(paused);
  still.current = paused;
  const draw = useRef<() => void>(() => {});
  draw.current = () => {
    if (still.current) {
      setWaiting(came.current.length);
      return;
    }
    setWaiting(0);
    const fresh = came.current;
    came.current = [];
    if (fresh.length > 0) setEntries((old) => [...fresh.reverse(), ...old].slice(0, KEPT));
    setTotals({ ...counted.current });
  };
  useEffect(() => draw.current(), [paused]);
  useEffect(() => {
    came.current = [];
    setEntries([]);
    setProblem(undefined);
    let [key, timer]: [number, ReturnType<typeof setTimeout> | undefined] = [0, undefined];
    const add = (entry: Entry) => {
      came.current.push(entry);
      if (came.current.length > KEPT) came.current.shift();
      timer ??= setTimeout(() => {
        timer = undefined;
        draw.current();
      }, DRAW_MS);
    };
    const stop = follow(
      (signal) => admin.tail({ tenant, rooms: listed(rooms), names: listed(names) }, { signal, timeoutMs: 0 }),
      ({ kind }) => {
        setProblem(undefined);
        if (kind.case === "event") {
          counted.current.seen += 1;
          add({ key: key++, kind: "event", of: kind.value });
        } else if (kind.case === "missed") {
          counted.current.missed += Number(kind.value);
          add({ key: key++, kind: "missed", missed: kind.value });
        }
      },
      setProblem,
    );
    return () => {
      stop();
      clearTimeout(timer);
    };
  }, [tenant, rooms, names]);
  return { entries, waiting, problem, ...totals, clear: () => { came.current = []; setEntries([]); } };
}

const TABS = [
  { key: "live", text: "Live" },
  { key: "stored", text: "Stored" },
] as const;

export function Events() {
  const { params } = useStore(place);
  const tab = params["tab"] === "stored" ? "stored" : "live";
  const tenants = useTenants();
  const tabs = <Tabs label="Which events" chosen={tab} onChoose={(key) => refine({ tab: key === "stored" ? key : undefined })} tabs={TABS} />;
  return tab === "stored" ? <StoredEvents tenants={tenants} tabs={tabs} /> : <LiveEvents tenants={tenants} tabs={tabs} />;
}

interface PartProps {
  tenants: Tenants;
  tabs: VNode;
}

/** The filters of both lists; where one tenant is needed there is no choice of all. */
function Filters({ tenants, tenant, all }: { tenants: Tenants; tenant: string; all: boolean }) {
  const { params } = useStore(place);
  const { value: known } = useStore(catalogs);
  const names = [...new Set(known?.list.flatMap((catalog) => catalog.events.map((event) => event.name)) ?? [])].sort();
  return (
    <div class="filters">
      <TenantPicker tenants={tenants} value={tenant} all={all} onValue={(t) => refine({ tenant: t })} />
      <TextField label="Rooms" value={params["room"] ?? ""} placeholder="e.g. org chat:7" mono onValue={(v) => refine({ room: v })} class="grow" />
      <TextField label="Names" value={params["name"] ?? ""} placeholder="e.g. message:new" mono list={names} onValue={(v) => refine({ name: v })} class="grow" />
    </div>
  );
}

const HEAD = (
  <thead>
    <tr>
      <th>Time</th>
      <th>Event</th>
      <th>Tenant</th>
      <th>Rooms</th>
      <th class="payload-head">Payload</th>
    </tr>
  </thead>
);

/** Events of a tenant's log, the newest first, read on demand. */
function StoredEvents({ tenants, tabs }: PartProps) {
  const { params } = useStore(place);
  const tenant = useTenant(tenants);
  const [room, name] = [useCommitted(params["room"] ?? ""), useCommitted(params["name"] ?? "")];
  const [chosen, setChosen] = useState<TailedEvent | undefined>();
  const [list, setList] = useState<TailedEvent[]>([]);
  const [next, setNext] = useState<bigint | undefined>();
  const [problem, setProblem] = useState<Problem | undefined>();
  const [busy, setBusy] = useState(false);
  const turn = useRef(0);
  const read = async (until: bigint, before: TailedEvent[]) => {
    const own = ++turn.current;
    setBusy(true);
    try {
      const page = await admin.listEvents({ tenant, rooms: listed(room), names: listed(name), until, limit: PAGE });
      if (own !== turn.current) return;
      setList([...before, ...page.events].slice(-STORED_MAX));
      setNext(page.next);
      setProblem(undefined);
    } catch (cause) {
      if (own === turn.current) setProblem(problemOf(cause));
    } finally {
      if (own === turn.current) setBusy(false);
    }
  };
  useEffect(() => {
    setList([]);
    setNext(undefined);
    setChosen(undefined);
    if (tenant) void read(0n, []);
    return () => void turn.current++;
  }, [tenant, room, name]);
  return (
    <Page
      title="Events"
      lead="Those in a tenant's log, the newest first. Ephemeral events are not stored."
      actions={
        <button type="button" class="button" disabled={busy || !tenant} onClick={() => void read(0n, [])}>
          Newest
        </button>
      }
    >
      {tabs}
      <div class={`split ${chosen ? "has-detail" : ""}`}>
        <Panel label="Stored events">
          <Filters tenants={tenants} tenant={tenant} all={false} />
          {problem ? <Failure problem={problem} again={() => void read(0n, [])} /> : null}
          {list.length === 0 ? (
            busy ? (
              <Loading lines={5} />
            ) : problem ? null : (
              <Empty title={next ? "None among the last 1,000 events" : "No stored event"}>
                <p>{room || name ? "Only what matches the filters is listed." : "Nothing was published, or it is older than the retention."}</p>
              </Empty>
            )
          ) : (
            <div class="table-frame tail">
              <table class="table" data-stored>
                {HEAD}
                <tbody>
                  {list.map((one) => (
                    <TailRow key={one.event?.id} of={one} chosen={chosen === one} onChoose={() => setChosen(one)} />
                  ))}
                </tbody>
              </table>
            </div>
          )}
          <p class="foot num">
            {many(list.length, "event")}{" "}
            {next ? (
              <button type="button" class="button small" disabled={busy} onClick={() => void read(next, list)}>
                Older
              </button>
            ) : null}
          </p>
        </Panel>
        {chosen ? <EventDetail of={chosen} onClose={() => setChosen(undefined)} /> : null}
      </div>
    </Page>
  );
}

function LiveEvents({ tenants, tabs }: PartProps) {
  const { params } = useStore(place);
  const [tenant, room, name] = [params["tenant"] ?? "", params["room"] ?? "", params["name"] ?? ""];
  const [paused, setPaused] = useState(false);
  const [chosen, setChosen] = useState<TailedEvent | undefined>();
  const [typedRoom, typedName] = [useCommitted(room), useCommitted(name)];
  const tail = useTail(tenant, typedRoom, typedName, paused);
  return (
    <Page
      title="Events"
      lead="As they are published, from now on, with the JSON that browsers get."
      actions={
        <>
          <button type="button" class="button" aria-pressed={paused} onClick={() => setPaused(!paused)}>
            {paused ? `Resume${tail.waiting > 0 ? ` (${count(tail.waiting)}${tail.waiting >= KEPT ? "+" : ""} new)` : ""}` : "Pause"}
          </button>
          <button type="button" class="button" onClick={() => { tail.clear(); setChosen(undefined); }}>
            Clear
          </button>
        </>
      }
    >
      {tabs}
      <div class={`split ${chosen ? "has-detail" : ""}`}>
        <Panel label="Live events">
          <Filters tenants={tenants} tenant={tenant} all />
          {tail.problem ? <Failure problem={tail.problem} /> : null}
          {tail.entries.length === 0 ? (
            <Empty title={paused ? "Paused" : "Waiting for events"}>
              <p>
                {room || name || tenant ? "Only what matches the filters is shown. " : null}
                <a href={href("playground")}>Send one from the playground.</a>
              </p>
            </Empty>
          ) : (
            <div class="table-frame tail">
              <table class="table" data-tail>
                {HEAD}
                <tbody>
                  {tail.entries.map((entry) => rowOf(entry, entry.kind === "event" && chosen === entry.of, setChosen))}
                </tbody>
              </table>
            </div>
          )}
          <p class="foot num">
            {many(tail.seen, "event")} seen
            {tail.missed > 0 ? `, ${count(tail.missed)} missed` : ""}
            {tail.entries.length >= KEPT ? `, the last ${KEPT} kept` : ""}
          </p>
        </Panel>
        {chosen ? <EventDetail of={chosen} onClose={() => setChosen(undefined)} /> : null}
      </div>
    </Page>
  );
}

/** A filter once typing has settled: each change opens the tail anew. */
function useCommitted(text: string): string {
  const [value, setValue] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => setValue(text), 300);
    return () => clearTimeout(timer);
  }, [text]);
  return value;
}

/** Rows as they were drawn: the same one again costs nothing, so a new event costs one row and not five hundred. */
const drawn = new WeakMap<Entry, { chosen: boolean; row: VNode }>();

function rowOf(entry: Entry, chosen: boolean, onChoose: (of: TailedEvent) => void): VNode {
  const kept = drawn.get(entry);
  if (kept?.chosen === chosen) return kept.row;
  const row =
    entry.kind === "missed" ? (
      <tr key={entry.key} class="missed">
        <td colSpan={5}>{many(entry.missed, "event")} missed: more came than this page could take.</td>
      </tr>
    ) : (
      <TailRow key={entry.key} of={entry.of} chosen={chosen} onChoose={() => onChoose(entry.of)} />
    );
  drawn.set(entry, { chosen, row });
  return row;
}

function TailRow({ of, chosen, onChoose }: { of: TailedEvent; chosen: boolean; onChoose: () => void }) {
  const event = of.event;
  return (
    <tr class={chosen ? "chosen" : ""} onClick={onChoose}>
      <td data-label="Time" class="num mono">
        {clock(millis(event?.time))}
      </td>
      <td data-label="Event">
        <button type="button" class="row-link" aria-pressed={chosen}>
          <strong class="mono">{of.name}</strong>
        </button>
      </td>
      <td data-label="Tenant" class="mono">
        {event?.tenant}
      </td>
      <td data-label="Rooms">
        <span class="chips">
          {event?.rooms.slice(0, 3).map((room) => (
            <span key={room} class="chip mono">
              {room}
            </span>
          ))}
          {(event?.rooms.length ?? 0) > 3 ? <span class="dim num">+{event!.rooms.length - 3}</span> : null}
        </span>
      </td>
      <td class="payload mono dim" data-label="Payload">
        <span>{of.json}</span>
      </td>
    </tr>
  );
}

function EventDetail({ of, onClose }: { of: TailedEvent; onClose: () => void }) {
  const { value: known } = useStore(catalogs);
  const event = of.event;
  const typeName = event?.payload?.typeUrl.split("/").at(-1) ?? "";
  const declared = eventOfType(known, typeName);
  return (
    <Detail of={event?.id ?? ""} title={<span class="mono">{of.name}</span>} onClose={onClose}>
      <div data-detail>
        <dl class="facts-list">
          <dt>Time</dt>
          <dd class="num">
            {dateTime(millis(event?.time)).slice(0, 10)} {clock(millis(event?.time))}
          </dd>
          <dt>Tenant</dt>
          <dd class="mono">{event?.tenant}</dd>
          <dt>Rooms</dt>
          <dd class="chips">
            {event?.rooms.map((room) => (
              <a key={room} class="chip mono" href={href("sessions", { tenant: event.tenant, room })}>
                {room}
              </a>
            ))}
          </dd>
          <dt>Sender</dt>
          <dd class="mono">{event?.sender || "—"}</dd>
          <dt>{event?.seq ? "Cursor" : "Id"}</dt>
          <dd class="mono break">{event?.id}</dd>
          <dt>Position</dt>
          <dd class="num">{event?.seq ? `${count(event.seq)} in the tenant's log` : <Badge>ephemeral, not stored</Badge>}</dd>
        </dl>
        <h3>JSON</h3>
        <Json value={parsed(of.json) ?? of.json} label="payload" />
        <h3>Schema</h3>
        <p class="mono dim">{typeName}</p>
        {declared ? (
          <>
            <Comment text={declared.comment} />
            <FieldList type={declared.type} />
            <p>
              <a href={href("catalogs", { item: `event:${typeName}` })}>See it in the catalog</a>
            </p>
          </>
        ) : (
          <p class="dim">No loaded catalog declares this type.</p>
        )}
      </div>
    </Detail>
  );
}
