// Compose an event, send it, and see it arrive in clients beside it.

import { useMemo, useRef, useState } from "preact/hooks";
import { access } from "./access";
import { admin, problemOf, realtimeWith } from "./api";
import type { CatalogEvent, Catalogs } from "./catalog";
import { PRESENCES } from "./catalog";
import { catalogs, loadCatalogs } from "./catalogs_store";
import { Client, type Sent, type Who } from "./client";
import { Editor } from "./editor";
import { count } from "./format";
import { href, place, refine } from "./router";
import { ROOM } from "./snippets";
import { useStore } from "./store";
import { check, renderRoom, sampleOf, type Fields, type Problems } from "./values";
import { announce, Badge, Failure, Loading, Page, Panel, Select, TextField } from "./ui";

const SENT_MAX = 200;
const CLIENTS_MAX = 4;
const TENANT = "1";
const PEOPLE: Who[] = [
  { tenant: TENANT, userId: "42", userName: "Ada" },
  { tenant: TENANT, userId: "43", userName: "Bob" },
  { tenant: TENANT, userId: "44", userName: "Cleo" },
  { tenant: TENANT, userId: "45", userName: "Dan" },
];
const TOKEN_SECONDS = 3600;
/** A producer's token is signed anew this long before it ends, in milliseconds. */
const RENEW_EARLY_MS = 60_000;

export function Playground() {
  const { value, problem } = useStore(catalogs);
  const now = useStore(access);
  const development = now.state === "signed-in" && now.development;
  return (
    <Page title="Playground" lead="Compose an event, send it as a service would, and see it arrive in a browser's client.">
      {value ? value.list.length > 0 ? <Bench catalogs={value} development={development} /> : <p>No catalog is loaded.</p> : problem ? <Failure problem={problem} again={() => void loadCatalogs()} /> : <Loading lines={8} />}
    </Page>
  );
}

/** What is most instructive first: a stored event for everybody. */
const firstEvent = (all: CatalogEvent[]): CatalogEvent =>
  all.find((e) => e.options.rooms.includes("org") && e.options.rooms.length > 1 && !e.options.presence) ??
  all.find((e) => e.options.rooms.includes("org") && !e.options.presence) ??
  all.find((e) => !e.options.presence) ??
  all[0]!;

function Bench({ catalogs, development }: { catalogs: Catalogs; development: boolean }) {
  const [sent, setSent] = useState<Sent[]>([]);
  const [clients, setClients] = useState([0]);
  const next = useRef(1);
  const add = () => setClients((old) => [...old, next.current++]);
  return (
    <div class="bench">
      <Composer catalogs={catalogs} development={development} onSent={setSent} />
      <section class="clients" aria-label="Clients">
        {clients.map((n) => (
          <Client
            key={n}
            name={`Client ${n + 1}`}
            catalogs={catalogs}
            development={development}
            initial={PEOPLE[n % PEOPLE.length]!}
            sent={sent}
            {...(clients.length > 1 ? { onRemove: () => setClients((old) => old.filter((m) => m !== n)) } : {})}
          />
        ))}
        {clients.length < CLIENTS_MAX ? (
          <button type="button" class="button add-client" onClick={add}>
            Add a client
          </button>
        ) : null}
      </section>
    </div>
  );
}

interface Outcome {
  good: boolean;
  text: string;
}

function Composer({ catalogs, development, onSent }: { catalogs: Catalogs; development: boolean; onSent: (change: (old: Sent[]) => Sent[]) => void }) {
  const { params } = useStore(place);
  const events = useMemo(() => catalogs.list.flatMap((catalog) => catalog.events), [catalogs]);
  const event = events.find((e) => e.type.typeName === params["event"]) ?? firstEvent(events);
  const { type } = event;
  const [drafts, setDrafts] = useState<Record<string, Fields>>({});
  const sample = useMemo(() => sampleOf(type, "service", PEOPLE[0]!), [type]);
  const draft = drafts[type.typeName] ?? sample;
  const [problems, setProblems] = useState<Problems>(new Map());
  const [tenant, setTenant] = useState(TENANT);
  const [typedRooms, setTypedRooms] = useState<Record<string, string>>({});
  const rooms = typedRooms[type.typeName] ?? (event.options.rooms.length > 0 ? "" : ROOM);
  const [pasted, setPasted] = useState("");
  const [outcome, setOutcome] = useState<Outcome | undefined>();
  const [busy, setBusy] = useState(false);
  const signed = useRef<{ tenant: string; token: string; until: number } | undefined>(undefined);

  const token = async (): Promise<string> => {
    if (!development) {
      if (!pasted.trim()) throw new Error("Paste a producer's token first.");
      return pasted.trim();
    }
    const kept = signed.current;
    if (kept && kept.tenant === tenant && kept.until - RENEW_EARLY_MS > Date.now()) return kept.token;
    const made = await admin.signToken({ tenant, userId: "playground", scopes: ["notify"], ttlSeconds: TOKEN_SECONDS });
    signed.current = { tenant, token: made.token, until: Date.now() + TOKEN_SECONDS * 1000 };
    return made.token;
  };

  const send = async () => {
    setOutcome(undefined);
    const checked = check(type, draft, "service", catalogs.registry);
    setProblems(checked.problems);
    if (!checked.bytes) {
      setOutcome({ good: false, text: "Not sent: something in the event is not right yet." });
      return;
    }
    setBusy(true);
    try {
      const bearer = await token();
      const entry: Sent = { at: performance.now(), name: event.name, stored: !event.options.ephemeral };
      onSent((old) => [...old.slice(1 - SENT_MAX), entry]);
      const answer = await realtimeWith(bearer).notify({
        target: { tenant: development ? tenant : "", rooms: rooms.split(/[\s,]+/).filter(Boolean) },
        event: { typeUrl: `type.googleapis.com/${type.typeName}`, value: checked.bytes },
      });
      const took = performance.now() - entry.at;
      onSent((old) => old.map((s) => (s === entry ? { ...s, id: answer.id } : s)));
      const where = answer.seq > 0n ? `in the log as number ${count(answer.seq)}` : "handed to those present";
      setOutcome({ good: true, text: `Accepted in ${took < 10 ? took.toFixed(1) : Math.round(took)} ms, ${where}.` });
      announce("Event sent");
    } catch (cause) {
      if (cause instanceof Error && !("code" in cause)) {
        setOutcome({ good: false, text: cause.message });
      } else {
        const { path, message } = problemOf(cause);
        if (path) setProblems(new Map([[path, message.startsWith(`${path}: `) ? message.slice(path.length + 2) : message]]));
        setOutcome({ good: false, text: `Refused: ${message}` });
      }
    } finally {
      setBusy(false);
    }
  };

  const goes = rooms.trim() ? rooms.split(/[\s,]+/).filter(Boolean) : event.options.rooms.map((room) => renderRoom(room, type, draft)).filter((room): room is string => room !== undefined);
  return (
    <Panel class="composer" title="Event">
      <form
        onSubmit={(e) => {
          e.preventDefault();
          void send();
        }}
      >
        <Select
          label="Event"
          value={type.typeName}
          onValue={(name) => {
            refine({ event: name });
            setProblems(new Map());
            setOutcome(undefined);
          }}
          choices={events.map((e) => ({ value: e.type.typeName, text: `${e.name}${e.options.presence ? " (presence)" : ""}`, group: e.catalog.package }))}
        />
        <div class="about">
          <p>
            {event.comment.replace(/\n/g, " ")} <a href={href("catalogs", { item: `event:${type.typeName}` })}>Documentation</a>
          </p>
          {event.options.ephemeral ? <Badge tone="warn">ephemeral</Badge> : null}
          {event.options.presence ? <p class="dim small">The server publishes it by itself when {PRESENCES[event.options.presence]}.</p> : null}
        </div>
        <div class="target">
          {development ? <TextField label="Tenant" value={tenant} mono onValue={setTenant} /> : <TextField label="Token of a producer" value={pasted} mono placeholder="eyJ…" onValue={setPasted} class="grow" />}
          <TextField label="Rooms" value={rooms} mono placeholder={event.options.rooms.join(" ") || "e.g. org"} onValue={(text) => setTypedRooms({ ...typedRooms, [type.typeName]: text })} class="grow" />
        </div>
        <p class="goes" aria-live="polite">
          Goes to{" "}
          {goes.length > 0
            ? goes.map((room) => (
                <span key={room} class="chip mono">
                  {room}
                </span>
              ))
            : "no room yet"}
        </p>
        <Editor
          key={type.typeName}
          label={`Payload of ${event.name}`}
          type={type}
          side="service"
          registry={catalogs.registry}
          value={draft}
          problems={problems}
          onChange={(value) => {
            setDrafts({ ...drafts, [type.typeName]: value });
            setProblems(new Map());
          }}
        />
        <div class="send">
          <button type="submit" class="button primary" disabled={busy}>
            Send
          </button>
          <p class={outcome ? (outcome.good ? "outcome good" : "outcome bad") : "outcome"} role="status" data-outcome>
            {outcome?.text ?? ""}
          </p>
        </div>
      </form>
    </Panel>
  );
}
