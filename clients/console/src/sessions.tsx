// Who is connected: sessions and rooms of a tenant, one session in detail, and how to end it.

import { RoomOrder, type GetSessionResponse, type RoomInfo, type SessionInfo } from "./gen/fanfare/v1/admin_pb";
import { Code as StatusCode } from "@connectrpc/connect";
import { useEffect, useRef, useState } from "preact/hooks";
import { admin, problemOf, realtime, useAsked } from "./api";
import { bytes, count, dateTime, many, millis, span, transportName } from "./format";
import { href, place, refine } from "./router";
import { useStore } from "./store";
import { TenantPicker, useTenant, useTenants } from "./tenant";
import { Ago, announce, Ask, Badge, Detail, Empty, Failure, Json, Loading, Meter, Page, Panel, parsed, Select, sorted, SortHead, type Sorting, Tabs, TextField, useNow } from "./ui";

const LIST_EVERY_MS = 2000;
const ONE_EVERY_MS = 1000;
const LIST_MAX = 200;
/** Typing settles for so long before the server is asked, in milliseconds. */
const SETTLE_MS = 150;

const SESSION_COLUMNS: Record<string, (one: SessionInfo) => string | number> = {
  User: (one) => one.userName || one.userId,
  Transport: (one) => transportName(one.session?.transport ?? 0),
  Rooms: (one) => one.session?.rooms.length ?? 0,
  "Connected for": (one) => -millis(one.session?.connectedAt),
  Bridge: (one) => one.session?.bridge ?? "",
};
const ROOM_COLUMNS: Record<string, (one: RoomInfo) => string | number> = {
  Room: (one) => one.room,
  Users: (one) => Number(one.users),
  Sessions: (one) => Number(one.sessions),
};

/** How a table is sorted, and the choice of it where its heads are not seen. */
function useSorting(columns: Record<string, unknown>, first: Sorting = { by: "", backwards: false }) {
  const [sorting, onSort] = useState(first);
  const names = Object.keys(columns);
  const choices = [{ value: "", text: "As listed" }, ...names.flatMap((name) => [{ value: name, text: name }, { value: `-${name}`, text: `${name}, backwards` }])];
  const value = sorting.by && `${sorting.backwards ? "-" : ""}${sorting.by}`;
  const picker = <Select label="Sort by" class="narrow-only" value={value} choices={choices} onValue={(v) => onSort({ by: v.replace(/^-/, ""), backwards: v.startsWith("-") })} />;
  return { sorting, onSort, picker };
}

/** A value once it has not changed for a moment. */
function useSettled<T>(value: T): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), SETTLE_MS);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

export function Sessions() {
  const { params } = useStore(place);
  const tenants = useTenants();
  const tenant = useTenant(tenants);
  const tab = params["tab"] === "rooms" ? "rooms" : "sessions";
  const id = params["id"];
  return (
    <Page
      title="Sessions"
      lead="Who is connected, where they are, and what waits for them."
      actions={<TenantPicker tenants={tenants} value={tenant} onValue={(t) => refine({ tenant: t, room: undefined, id: undefined })} />}
    >
      <Tabs
        label="What to list"
        chosen={tab}
        onChoose={(key) => refine({ tab: key === "rooms" ? key : undefined, search: undefined })}
        tabs={[{ key: "sessions", text: "Sessions" }, { key: "rooms", text: "Rooms" }]}
      />
      {tenants.known && !tenant ? (
        <Panel>
          <Empty title="No tenant yet">
            <p>
              A tenant is there as soon as somebody connects or an event is published. <a href={href("playground")}>Connect a client in the playground.</a>
            </p>
          </Empty>
        </Panel>
      ) : tab === "rooms" ? (
        <Rooms tenant={tenant} />
      ) : (
        <div class={`split ${id ? "has-detail" : ""}`}>
          <List tenant={tenant} />
          {id ? <SessionDetail tenant={tenant} id={id} /> : null}
        </div>
      )}
    </Page>
  );
}

function List({ tenant }: { tenant: string }) {
  const { params } = useStore(place);
  const [search, room] = [params["search"] ?? "", params["room"] ?? ""];
  const [settledSearch, settledRoom] = [useSettled(search), useSettled(room)];
  const list = useAsked(
    (signal) => admin.listSessions({ tenant, search: settledSearch, room: settledRoom, limit: LIST_MAX }, { signal }),
    [tenant, settledSearch, settledRoom],
    LIST_EVERY_MS,
  );
  const { sessions = [], total = 0n } = list.value ?? {};
  const { sorting, onSort, picker } = useSorting(SESSION_COLUMNS);
  return (
    <Panel label="Sessions">
      <div class="filters">
        <TextField label="Search" type="search" value={search} placeholder="User id, name or session id" onValue={(v) => refine({ search: v })} class="grow" />
        <TextField label="Room" value={room} placeholder="e.g. chat:7" mono onValue={(v) => refine({ room: v })} />
        {picker}
      </div>
      {list.problem && !list.value ? (
        <Failure problem={list.problem} again={list.again} />
      ) : !list.value ? (
        <Loading lines={5} />
      ) : sessions.length === 0 ? (
        <Empty title={search || room ? "No session matches" : "Nobody is connected"}>
          {search || room ? (
            <button type="button" class="button small" onClick={() => refine({ search: undefined, room: undefined })}>
              Clear the filters
            </button>
          ) : (
            <p>
              <a href={href("playground")}>Connect a client in the playground.</a>
            </p>
          )}
        </Empty>
      ) : (
        <>
          <div class="table-frame">
            <table class="table" data-sessions>
              <thead>
                <tr>
                  {Object.keys(SESSION_COLUMNS).map((name) => (
                    <SortHead key={name} name={name} by={name} sorting={sorting} onSort={onSort} />
                  ))}
                </tr>
              </thead>
              <tbody>
                {sorted(sessions, sorting, SESSION_COLUMNS).map((one) => (
                  <Row key={one.session?.sessionId} one={one} chosen={params["id"] === one.session?.sessionId} />
                ))}
              </tbody>
            </table>
          </div>
          <p class="foot num">{total > BigInt(sessions.length) ? `The first ${count(sessions.length)} of ${many(total, "session")}. Search to see others.` : many(total, "session")}</p>
        </>
      )}
    </Panel>
  );
}

function Row({ one, chosen }: { one: SessionInfo; chosen: boolean }) {
  const session = one.session;
  const rooms = session?.rooms ?? [];
  return (
    <tr class={chosen ? "chosen" : ""} onClick={() => refine({ id: session?.sessionId })}>
      <td data-label="User">
        <button type="button" class="row-link" aria-pressed={chosen} aria-label={`Session of ${one.userName || one.userId}`}>
          <strong>{one.userName || one.userId}</strong>
          <span class="dim mono">{one.userName ? `${one.userId} · ` : ""}{session?.sessionId.slice(0, 12)}</span>
        </button>
      </td>
      <td data-label="Transport">{transportName(session?.transport ?? 0)}</td>
      <td data-label="Rooms">
        <span class="chips">
          {rooms.slice(0, 3).map((room) => (
            <span key={room} class="chip mono">
              {room}
            </span>
          ))}
          {rooms.length > 3 ? <span class="dim num">+{rooms.length - 3}</span> : null}
        </span>
      </td>
      <td data-label="Connected for">
        <Ago at={millis(session?.connectedAt)} />
      </td>
      <td data-label="Bridge" class="mono dim">
        {session?.bridge}
      </td>
    </tr>
  );
}

function SessionDetail({ tenant, id }: { tenant: string; id: string }) {
  const one = useAsked((signal) => admin.getSession({ tenant, sessionId: id }, { signal }), [tenant, id], ONE_EVERY_MS);
  const gone = one.problem?.code === StatusCode.NotFound;
  return (
    <Detail of={id} title={one.value?.session ? one.value.session.userName || one.value.session.userId : "Session"} onClose={() => refine({ id: undefined })}>
      {gone ? (
        <Empty title="This session is not connected any more">
          <p class="mono dim">{id}</p>
        </Empty>
      ) : one.value ? (
        <Facts tenant={tenant} id={id} value={one.value} />
      ) : one.problem ? (
        <Failure problem={one.problem} again={one.again} />
      ) : (
        <Loading lines={8} />
      )}
    </Detail>
  );
}

function Facts({ tenant, id, value: { session: info, claimsJson, connection } }: { tenant: string; id: string; value: GetSessionResponse }) {
  const now = useNow();
  const session = info?.session;
  const expires = millis(connection?.expiresAt);
  const [queued, most] = [Number(connection?.queuedBytes ?? 0), Number(connection?.queueBytesMax ?? 0)];
  return (
    <div data-detail>
      <dl class="facts-list">
        <dt>User id</dt>
        <dd class="mono">{info?.userId}</dd>
        <dt>Session</dt>
        <dd class="mono break">{id}</dd>
        <dt>Transport</dt>
        <dd>
          {transportName(session?.transport ?? 0)}
          {connection?.carrier ? <span class="dim"> over {connection.carrier === "polling" ? "long polling" : "WebSocket"}</span> : null}
        </dd>
        <dt>Bridge</dt>
        <dd class="mono">{session?.bridge}</dd>
        <dt>Connected</dt>
        <dd class="num">
          {dateTime(millis(session?.connectedAt))} <span class="dim">({span(now - millis(session?.connectedAt))})</span>
        </dd>
        {connection ? (
          <>
            <dt>Address</dt>
            <dd class="mono">{connection.address || "—"}</dd>
            <dt>Client</dt>
            <dd class="break">{connection.userAgent || <span class="dim">says nothing of itself</span>}</dd>
            <dt>Delivered</dt>
            <dd class="num">{many(connection.eventsDelivered, "event")}</dd>
            <dt>Calls</dt>
            <dd class="num">{count(connection.calls)}</dd>
            <dt>Queue</dt>
            {most > 0 ? (
              <dd class="num">
                {bytes(queued)} <span class="dim">of {bytes(most)}</span>
                <Meter value={queued} most={most} label="Waiting in the queue, in bytes" />
              </dd>
            ) : (
              <dd class="dim">counted in packets by its transport, not in bytes</dd>
            )}
            <dt>Token ends</dt>
            <dd class="num">{expires ? <>in {span(expires - now)} <span class="dim">({dateTime(expires)})</span></> : "never"}</dd>
          </>
        ) : (
          <>
            <dt>Connection</dt>
            <dd class="dim">The bridge did not answer.</dd>
          </>
        )}
      </dl>
      <h3>Rooms</h3>
      <div class="chips">
        {(session?.rooms ?? []).map((room) => (
          <a key={room} class="chip mono" href={href("sessions", { tenant, room })}>
            {room}
          </a>
        ))}
        {session?.rooms.length === 0 ? <span class="dim">none</span> : null}
      </div>
      <h3>Claims of its token</h3>
      <Json value={parsed(claimsJson) ?? claimsJson} label="claims" />
      <Disconnect tenant={tenant} id={id} userId={info?.userId ?? ""} />
    </div>
  );
}

function Disconnect({ tenant, id, userId }: { tenant: string; id: string; userId: string }) {
  const [open, setOpen] = useState(false);
  const [whom, setWhom] = useState<"session" | "user">("session");
  const [reconnect, setReconnect] = useState(false);
  const [message, setMessage] = useState("");
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const opener = useRef<HTMLButtonElement>(null);
  const run = async () => {
    setBusy(true);
    setProblem("");
    try {
      const target = whom === "user" ? { case: "userId" as const, value: userId } : { case: "sessionId" as const, value: id };
      const { sessions } = await realtime.disconnect({ tenant, whom: target, reconnect, message });
      announce(`${many(sessions, "session")} disconnected`);
      setOpen(false);
    } catch (cause) {
      setProblem(problemOf(cause).message);
    } finally {
      setBusy(false);
    }
  };
  return (
    <div class="danger-zone">
      <button type="button" class="button danger" ref={opener} onClick={() => setOpen(true)}>
        Disconnect…
      </button>
      <Ask title="Disconnect" open={open} onClose={() => { setOpen(false); opener.current?.focus(); }}>
        <form method="dialog" onSubmit={(e) => { e.preventDefault(); void run(); }}>
          <fieldset>
            <legend>Whom</legend>
            <label class="check">
              <input type="radio" name="whom" checked={whom === "session"} onChange={() => setWhom("session")} /> This session
            </label>
            <label class="check">
              <input type="radio" name="whom" checked={whom === "user"} onChange={() => setWhom("user")} /> All sessions of user <span class="mono">{userId}</span>
            </label>
          </fieldset>
          <fieldset>
            <legend>Afterwards</legend>
            <label class="check">
              <input type="radio" name="after" checked={!reconnect} onChange={() => setReconnect(false)} /> Stay away: stock clients do not come back by themselves
            </label>
            <label class="check">
              <input type="radio" name="after" checked={reconnect} onChange={() => setReconnect(true)} /> Connect again, e.g. to another bridge
            </label>
          </fieldset>
          <TextField label="Message for the client (optional)" value={message} onValue={setMessage} />
          {problem ? <p class="field-problem" role="alert">{problem}</p> : null}
          <div class="row end">
            <button type="button" class="button" onClick={() => setOpen(false)}>
              Cancel
            </button>
            <button type="submit" class="button danger" disabled={busy}>
              {whom === "user" ? "Disconnect the user" : "Disconnect the session"}
            </button>
          </div>
        </form>
      </Ask>
    </div>
  );
}

function Rooms({ tenant }: { tenant: string }) {
  const { params } = useStore(place);
  const search = params["search"] ?? "";
  const settled = useSettled(search);
  const { sorting, onSort, picker } = useSorting(ROOM_COLUMNS);
  // Of many rooms those with the most sessions are wanted, and not the first by name.
  const order = sorting.by === "Sessions" && sorting.backwards ? RoomOrder.SESSIONS : RoomOrder.UNSPECIFIED;
  const list = useAsked((signal) => admin.listRooms({ tenant, search: settled, limit: LIST_MAX, order }, { signal }), [tenant, settled, order], LIST_EVERY_MS);
  const { rooms = [], total = 0n } = list.value ?? {};
  return (
    <Panel label="Rooms">
      <div class="filters">
        <TextField label="Search" type="search" value={search} placeholder="Part of a room's name" onValue={(v) => refine({ search: v })} class="grow" />
        {picker}
      </div>
      {list.problem && !list.value ? (
        <Failure problem={list.problem} again={list.again} />
      ) : !list.value ? (
        <Loading lines={5} />
      ) : rooms.length === 0 ? (
        <Empty title={search ? "No room matches" : "No room has a session"} />
      ) : (
        <>
          <div class="table-frame">
            <table class="table" data-rooms>
              <thead>
                <tr>
                  {Object.keys(ROOM_COLUMNS).map((name) => (
                    <SortHead key={name} name={name} by={name} sorting={sorting} onSort={onSort} class={name === "Room" ? "" : "right"} />
                  ))}
                  <th>
                    <span class="unseen">Actions</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {sorted(rooms, sorting, ROOM_COLUMNS).map((room) => (
                  <tr key={room.room}>
                    <td data-label="Room">
                      <a class="mono" href={href("sessions", { tenant, room: room.room })}>
                        <Badge tone={room.room === "org" ? "accent" : "plain"}>{room.room}</Badge>
                      </a>
                    </td>
                    <td data-label="Users" class="right num">
                      {count(room.users)}
                    </td>
                    <td data-label="Sessions" class="right num">
                      {count(room.sessions)}
                    </td>
                    <td class="right">
                      <span class="row end">
                        <a class="button small" href={href("sessions", { tenant, room: room.room })}>
                          Sessions
                        </a>
                        <a class="button small" href={href("events", { tenant, room: room.room })}>
                          Events
                        </a>
                      </span>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          <p class="foot num">{total > BigInt(rooms.length) ? `The first ${count(rooms.length)} of ${many(total, "room")}. Search to see others.` : many(total, "room")}</p>
        </>
      )}
    </Panel>
  );
}
