// A browser's client inside the page: the stock Socket.IO client, of any identity.

import type { JsonValue } from "@bufbuild/protobuf";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { io, type Socket } from "socket.io-client";
import { socketioPath } from "./access";
import { admin, problemOf } from "./api";
import type { Call, Catalogs } from "./catalog";
import { Editor } from "./editor";
import { Transport } from "./gen/fanfare/v1/catalog_pb";
import { clock } from "./format";
import { check, sampleOf, type Fields, type Problems } from "./values";
import { announce, Badge, Json, Panel, Select, TextField } from "./ui";

/** So many entries of what a client heard are kept. */
const HEARD_MAX = 100;
/** A call that nobody answers has failed, in milliseconds. */
const ANSWER_MS = 5000;
const TOKEN_SECONDS = 3600;

export interface Who {
  tenant: string;
  userId: string;
  userName: string;
}

export interface Sent {
  /** By `performance.now()`. */
  at: number;
  name: string;
  /** Known once the server has answered. */
  id?: string;
  stored?: boolean;
}

interface Heard {
  key: number;
  at: number;
  /** By `performance.now()`. */
  tick: number;
  kind: "event" | "answer" | "state";
  name: string;
  payload?: JsonValue;
  cursor?: string;
  took?: number;
  bad?: boolean;
}

type State = "off" | "connecting" | "on";

interface Props {
  name: string;
  catalogs: Catalogs;
  development: boolean;
  initial: Who;
  sent: readonly Sent[];
  onRemove?: () => void;
}

const isEmittable = (call: Call) => call.catalog.transport === Transport.UNSPECIFIED || call.catalog.transport === Transport.SOCKETIO;
const keyOf = (call: Call) => `${call.catalog.package}/${call.options.on}`;

export function Client({ name, catalogs, development, initial, sent, onRemove }: Props) {
  const [who, setWho] = useState(initial);
  const [pasted, setPasted] = useState("");
  const [state, setState] = useState<State>("off");
  const [problem, setProblem] = useState("");
  const [heard, setHeard] = useState<Heard[]>([]);
  const socket = useRef<Socket | undefined>(undefined);
  const next = useRef(0);
  const add = (entry: Omit<Heard, "key" | "at" | "tick">) => {
    const whole = { ...entry, key: next.current++, at: Date.now(), tick: performance.now() };
    setHeard((old) => [whole, ...old].slice(0, HEARD_MAX));
  };
  useEffect(() => () => void socket.current?.disconnect(), []);

  const token = async () => {
    if (!development) return pasted.trim();
    return (await admin.signToken({ tenant: who.tenant, userId: who.userId, userName: who.userName, ttlSeconds: TOKEN_SECONDS })).token;
  };
  const connect = async () => {
    setProblem("");
    setState("connecting");
    try {
      const first = await token();
      if (!first) throw new Error("Paste a user's token first.");
      open(first);
    } catch (cause) {
      setState("off");
      setProblem(cause instanceof Error && !("code" in cause) ? cause.message : problemOf(cause).message);
    }
  };
  const open = (first: string) => {
    socket.current?.disconnect();
    let unused: string | undefined = first;
    // A client that comes back after its token ended needs a new one.
    const auth = (give: (data: object) => void) => {
      if (unused) {
        give({ token: unused });
        unused = undefined;
      } else {
        token().then((fresh) => give({ token: fresh }), () => give({ token: first }));
      }
    };
    const made = io(location.origin, { auth, path: socketioPath(), forceNew: true, transports: ["websocket"], reconnectionDelayMax: 3000 });
    socket.current = made;
    made.on("connect", () => {
      setState("on");
      setProblem("");
      add({ kind: "state", name: made.recovered ? "connected again, nothing missed" : "connected" });
      announce(`${name} is connected`);
    });
    made.on("connect_error", (error) => {
      setProblem(error.message);
      if (!made.active) setState("off");
    });
    made.on("disconnect", (reason) => {
      setState(made.active ? "connecting" : "off");
      add({ kind: "state", name: `disconnected: ${reason}`, bad: reason !== "io client disconnect" });
    });
    made.onAny((event: string, ...args: unknown[]) => {
      const [payload, cursor] = args;
      add({
        kind: "event",
        name: event,
        ...(payload !== undefined ? { payload: payload as JsonValue } : {}),
        ...(typeof cursor === "string" ? { cursor } : {}),
      });
    });
  };
  const close = () => {
    socket.current?.disconnect();
    setState("off");
  };
  const off = state === "off";

  return (
    <Panel
      class="client"
      title={name}
      side={
        <span class="row">
          <Badge tone={state === "on" ? "good" : state === "connecting" ? "warn" : "plain"}>{state === "on" ? "connected" : state === "connecting" ? "connecting" : "not connected"}</Badge>
          {onRemove ? (
            <button type="button" class="button small quiet" aria-label={`Remove ${name}`} onClick={onRemove}>
              Remove
            </button>
          ) : null}
        </span>
      }
    >
      <div data-client={name}>
        {development ? (
          <div class="who">
            <TextField label="Tenant" value={who.tenant} mono onValue={(tenant) => setWho({ ...who, tenant })} />
            <TextField label="User id" value={who.userId} mono onValue={(userId) => setWho({ ...who, userId })} />
            <TextField label="Name" value={who.userName} onValue={(userName) => setWho({ ...who, userName })} />
          </div>
        ) : (
          <TextField label="Token of a user" value={pasted} mono placeholder="eyJ…" onValue={setPasted} />
        )}
        <div class="row">
          {off ? (
            <button type="button" class="button primary" onClick={() => void connect()}>
              Connect
            </button>
          ) : (
            <button type="button" class="button" onClick={close}>
              Disconnect
            </button>
          )}
          {heard.length > 0 ? (
            <button type="button" class="button quiet" onClick={() => setHeard([])}>
              Clear
            </button>
          ) : null}
        </div>
        {problem ? <p class="field-problem" role="alert">{problem}</p> : null}
        <Log heard={heard} sent={sent} />
        <Emit catalogs={catalogs} ready={state === "on"} who={who} socket={socket} onAnswer={add} />
      </div>
    </Panel>
  );
}

/** How long an event took from the click to its arrival, when it is one that this page has sent. */
function latencyOf(entry: Heard, sent: readonly Sent[]): number | undefined {
  const own = entry.cursor
    ? sent.find((s) => s.id === entry.cursor)
    : [...sent].reverse().find((s) => s.name === entry.name && s.stored === false && s.at <= entry.tick && entry.tick - s.at < ANSWER_MS);
  return own ? entry.tick - own.at : undefined;
}

function Log({ heard, sent }: { heard: Heard[]; sent: readonly Sent[] }) {
  const [open, setOpen] = useState<number | undefined>();
  if (heard.length === 0) return <p class="log-empty dim">What arrives is shown here.</p>;
  return (
    <ol class="log" aria-label="What arrived">
      {heard.map((entry) => {
        const latency = entry.took ?? latencyOf(entry, sent);
        const shown = open === entry.key || (open === undefined && entry === heard.find((e) => e.payload !== undefined));
        return (
          <li key={entry.key} class={`heard ${entry.kind} ${entry.bad ? "bad" : ""}`} data-heard={entry.kind === "state" ? undefined : entry.name}>
            {entry.payload !== undefined ? (
              <button type="button" class="heard-head" aria-expanded={shown} onClick={() => setOpen(shown ? -1 : entry.key)}>
                <span class="num dim">{clock(entry.at)}</span>
                <strong class="mono">{entry.name}</strong>
                <Badge tone={entry.bad ? "bad" : entry.kind === "answer" ? "accent" : "good"}>{entry.kind === "answer" ? "acknowledgement" : "event"}</Badge>
                <span class="preview mono dim">{shown ? "" : JSON.stringify(entry.payload)}</span>
                <span class="num latency" title={entry.kind === "answer" ? "From the call to its answer" : "From the click to the arrival"}>
                  {latency === undefined ? "" : `${latency < 10 ? latency.toFixed(1) : Math.round(latency)} ms`}
                </span>
              </button>
            ) : (
              <span class="heard-head">
                <span class="num dim">{clock(entry.at)}</span>
                <span>{entry.name}</span>
              </span>
            )}
            {shown && entry.payload !== undefined ? <Json value={entry.payload} label={`payload of ${entry.name}`} /> : null}
          </li>
        );
      })}
    </ol>
  );
}

function Emit({ catalogs, ready, who, socket, onAnswer }: { catalogs: Catalogs; ready: boolean; who: Who; socket: { current: Socket | undefined }; onAnswer: (entry: Omit<Heard, "key" | "at" | "tick">) => void }) {
  const calls = useMemo(() => catalogs.list.flatMap((catalog) => catalog.calls).filter(isEmittable), [catalogs]);
  const [chosen, setChosen] = useState("");
  const call = calls.find((c) => keyOf(c) === chosen) ?? calls[0];
  const [drafts, setDrafts] = useState<Record<string, Fields>>({});
  const [problems, setProblems] = useState<Problems>(new Map());
  const [open, setOpen] = useState(false);
  const sample = useMemo(() => (call ? sampleOf(call.method.input, "browser", who) : {}), [call, who.userId]);
  if (!call) return null;
  const type = call.method.input;
  const draft = drafts[keyOf(call)] ?? sample;
  const emit = async () => {
    const checked = check(type, draft, "browser", catalogs.registry);
    setProblems(checked.problems);
    if (checked.problems.size > 0 || !socket.current) return;
    const began = performance.now();
    const args = type.fields.length > 0 ? [checked.json] : [];
    try {
      const answer = (await socket.current.timeout(ANSWER_MS).emitWithAck(call.options.on, ...args)) as JsonValue | undefined;
      const error = refusalOf(answer);
      if (error?.path) setProblems(new Map([[error.path, error.message]]));
      onAnswer({ kind: "answer", name: call.options.on, payload: answer ?? null, took: performance.now() - began, bad: error !== undefined });
    } catch {
      onAnswer({ kind: "answer", name: call.options.on, payload: "no answer in time", bad: true });
    }
  };
  return (
    <details class="emit" open={open} onToggle={(e) => setOpen(e.currentTarget.open)}>
      <summary>Emit a call</summary>
      <Select
        label="Call"
        value={keyOf(call)}
        onValue={(key) => {
          setChosen(key);
          setProblems(new Map());
        }}
        choices={calls.map((c) => ({ value: keyOf(c), text: c.options.on, group: c.catalog.package }))}
      />
      {call.comment ? <p class="dim small">{call.comment.replace(/\n/g, " ")}</p> : null}
      {open ? (
        <Editor
          key={keyOf(call)}
          label={`Payload of ${call.options.on}`}
          type={type}
          side="browser"
          registry={catalogs.registry}
          value={draft}
          problems={problems}
          onChange={(value) => {
            setDrafts({ ...drafts, [keyOf(call)]: value });
            setProblems(new Map());
          }}
        />
      ) : null}
      <button type="button" class="button" disabled={!ready} onClick={() => void emit()}>
        Emit
      </button>
      {ready ? null : <small class="help">Connect first.</small>}
    </details>
  );
}

function refusalOf(answer: JsonValue | undefined): { message: string; path: string } | undefined {
  if (typeof answer !== "object" || answer === null || Array.isArray(answer)) return undefined;
  const error = answer["error"];
  if (typeof error !== "object" || error === null || Array.isArray(error)) return undefined;
  const { message, path } = error;
  return { message: String(message ?? ""), path: typeof path === "string" ? path : "" };
}
