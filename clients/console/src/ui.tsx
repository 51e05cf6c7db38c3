// Small parts that all views are made of.

import type { JsonValue } from "@bufbuild/protobuf";
import { Fragment, type ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Problem } from "./api";
import { span } from "./format";
import { Store, useStore } from "./store";

/** Says something to those who hear the page. */
const announced = new Store("");
export const announce = (text: string): void => announced.set(text);
export const Announcer = () => (
  <div class="unseen" role="status" aria-live="polite" data-announcer>
    {useStore(announced)}
  </div>
);

/** One clock for all that shows how long something takes. */
const ticking = new Store(Date.now());
setInterval(() => ticking.set(Date.now()), 1000);
/** The time, each second. */
export const useNow = (): number => useStore(ticking);

export function Page({ title, lead, actions, children }: { title: string; lead?: ComponentChildren; actions?: ComponentChildren; children: ComponentChildren }) {
  return (
    <>
      <header class="page-head">
        <div>
          <h1 tabIndex={-1}>{title}</h1>
          {lead ? <p class="lead">{lead}</p> : null}
        </div>
        {actions ? <div class="row">{actions}</div> : null}
      </header>
      {children}
    </>
  );
}

interface PanelProps {
  title?: ComponentChildren;
  side?: ComponentChildren;
  class?: string;
  label?: string;
  children: ComponentChildren;
}
export function Panel({ title, side, class: more = "", label, children }: PanelProps) {
  const id = useId();
  return (
    <section class={`panel ${more}`} {...(title ? { "aria-labelledby": id } : label ? { "aria-label": label } : {})}>
      {title || side ? (
        <header class="panel-head">
          <h2 id={id}>{title}</h2>
          {side}
        </header>
      ) : null}
      {children}
    </section>
  );
}

interface DetailProps {
  /** What is shown; another one takes the focus again. */
  of: string;
  title: ComponentChildren;
  onClose: () => void;
  children: ComponentChildren;
}
/** One thing of a list beside it. Whoever opens it goes on here, and by closing it (or Escape) back where they were. */
export function Detail({ of, title, onClose, children }: DetailProps) {
  const panel = useRef<HTMLElement>(null);
  const before = useRef<Element | null>(null);
  const id = useId();
  useEffect(() => {
    before.current = document.activeElement;
    // Beside the list it is in view; above it, on narrow pages, one is taken there.
    panel.current?.focus({ preventScroll: matchMedia("(min-width: 1100px)").matches });
  }, [of]);
  useEffect(
    () => () => {
      if (before.current instanceof HTMLElement && before.current.isConnected) before.current.focus({ preventScroll: true });
    },
    [],
  );
  const keys = (event: KeyboardEvent) => {
    if (event.key === "Escape" && !panel.current?.querySelector("dialog[open]")) onClose();
  };
  return (
    <section class="panel detail" aria-labelledby={id} tabIndex={-1} ref={panel} onKeyDown={keys}>
      <header class="panel-head">
        <h2 id={id}>{title}</h2>
        <button type="button" class="button small quiet" onClick={onClose} aria-label="Close the details">
          Close
        </button>
      </header>
      {children}
    </section>
  );
}

export const Empty = ({ title, children }: { title: string; children?: ComponentChildren }) => (
  <div class="empty">
    <p class="empty-title">{title}</p>
    {children}
  </div>
);

/** Stands where an answer will be, of about its size. */
export const Loading = ({ lines = 3 }: { lines?: number }) => (
  <div class="loading" aria-busy="true" aria-label="Loading">
    {Array.from({ length: lines }, (_, i) => (
      <span key={i} />
    ))}
  </div>
);

export const Failure = ({ problem, again }: { problem: Problem; again?: () => void }) => (
  <div class="note bad" role="alert">
    <p>{problem.message}</p>
    {again ? (
      <button type="button" class="button small" onClick={again}>
        Try again
      </button>
    ) : null}
  </div>
);

type Tone = "plain" | "good" | "warn" | "bad" | "accent";
export const Badge = ({ tone = "plain", title, children }: { tone?: Tone; title?: string; children: ComponentChildren }) => (
  <span class={`badge ${tone}`} {...(title ? { title } : {})}>
    {children}
  </span>
);

export function Labelled({ label, hint, class: more = "", children }: { label: string; hint?: string; class?: string; children: (id: string) => ComponentChildren }) {
  const id = useId();
  return (
    <div class={`labelled ${more}`}>
      <label for={id}>{label}</label>
      {children(id)}
      {hint ? <small>{hint}</small> : null}
    </div>
  );
}

interface TextProps {
  label: string;
  value: string;
  onValue: (value: string) => void;
  placeholder?: string;
  hint?: string;
  class?: string;
  type?: "text" | "search";
  mono?: boolean;
  list?: readonly string[];
}
export function TextField({ label, value, onValue, placeholder, hint, class: more = "", type = "text", mono, list }: TextProps) {
  const listId = useId();
  const common = (id: string) => ({
    id,
    class: mono ? "mono" : "",
    value,
    placeholder: placeholder ?? "",
    autocomplete: "off",
    autocapitalize: "off" as const,
    spellcheck: false,
    onInput: (e: { currentTarget: HTMLInputElement }) => onValue(e.currentTarget.value),
  });
  return (
    <Labelled label={label} {...(hint ? { hint } : {})} class={more}>
      {(id) => (
        <>
          {list ? <input type="text" list={listId} {...common(id)} /> : type === "search" ? <input type="search" {...common(id)} /> : <input type="text" {...common(id)} />}
          {list ? (
            <datalist id={listId}>
              {list.map((option) => (
                <option key={option} value={option} />
              ))}
            </datalist>
          ) : null}
        </>
      )}
    </Labelled>
  );
}

export interface Choice {
  value: string;
  text: string;
  group?: string;
}
export function Select({ label, value, choices, onValue, class: more = "", hint }: { label: string; value: string; choices: readonly Choice[]; onValue: (value: string) => void; class?: string; hint?: string }) {
  const groups = [...new Set(choices.map((choice) => choice.group))];
  return (
    <Labelled label={label} class={more} {...(hint ? { hint } : {})}>
      {(id) => (
        <select id={id} value={value} onChange={(e) => onValue(e.currentTarget.value)}>
          {groups.map((group) => {
            const options = choices
              .filter((choice) => choice.group === group)
              .map((choice) => (
                <option key={choice.value} value={choice.value} selected={choice.value === value}>
                  {choice.text}
                </option>
              ));
            return group === undefined ? <Fragment key="">{options}</Fragment> : <optgroup key={group} label={group}>{options}</optgroup>;
          })}
        </select>
      )}
    </Labelled>
  );
}

export function Copy({ text, label = "Copy" }: { text: string; label?: string }) {
  const [said, setSaid] = useState("");
  useEffect(() => {
    if (!said) return;
    const timer = setTimeout(() => setSaid(""), 1500);
    return () => clearTimeout(timer);
  }, [said]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setSaid("Copied");
      announce("Copied");
    } catch {
      // Pages that came without TLS from another machine may not.
      setSaid("Not allowed");
      announce("The browser does not allow copying here");
    }
  };
  return (
    <button type="button" class="button small quiet copy" aria-label={label} onClick={() => void copy()}>
      {said || "Copy"}
    </button>
  );
}

export const Code = ({ text, label }: { text: string; label: string }) => (
  <div class="code">
    <Copy text={text} label={`Copy ${label}`} />
    <pre tabIndex={0} role="region" aria-label={label}>
      <code>{text}</code>
    </pre>
  </div>
);

/** JSON with its parts told apart. */
export function Json({ value, label }: { value: JsonValue; label: string }) {
  const text = JSON.stringify(value, null, 2);
  return (
    <div class="code">
      <Copy text={text} label={`Copy ${label}`} />
      <pre tabIndex={0} role="region" aria-label={label}>
        <code>{coloured(text)}</code>
      </pre>
    </div>
  );
}

const PARTS = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(true|false|null)\b|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)/g;
/** A text longer than this is not coloured: it would cost more than it helps. */
const COLOURED_CHARS_MAX = 20_000;

function coloured(text: string): ComponentChildren {
  if (text.length > COLOURED_CHARS_MAX) return text;
  const parts: ComponentChildren[] = [];
  let end = 0;
  for (const match of text.matchAll(PARTS)) {
    parts.push(text.slice(end, match.index));
    const [whole, quoted, colon, word] = match;
    const kind = quoted ? (colon ? "j-key" : "j-text") : word ? "j-word" : "j-number";
    parts.push(<span class={kind}>{quoted ?? whole}</span>, colon ?? "");
    end = match.index + whole.length;
  }
  parts.push(text.slice(end));
  return parts;
}

export const parsed = (text: string): JsonValue | undefined => {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    return undefined;
  }
};

/** Tabs in one row; arrow keys move between them. */
export function Tabs<T extends string>({ label, tabs, chosen, onChoose }: { label: string; tabs: readonly { key: T; text: ComponentChildren }[]; chosen: T; onChoose: (key: T) => void }) {
  const row = useRef<HTMLDivElement>(null);
  const keys = (event: KeyboardEvent) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step === 0) return;
    const index = tabs.findIndex((tab) => tab.key === chosen);
    const next = (index + step + tabs.length) % tabs.length;
    onChoose(tabs[next]!.key);
    (row.current?.children[next] as HTMLElement | undefined)?.focus();
    event.preventDefault();
  };
  return (
    <div class="tabs" role="tablist" aria-label={label} ref={row} onKeyDown={keys}>
      {tabs.map(({ key, text }) => (
        <button key={key} type="button" role="tab" aria-selected={key === chosen} tabIndex={key === chosen ? 0 : -1} onClick={() => onChoose(key)}>
          {text}
        </button>
      ))}
    </div>
  );
}

/** How a table is sorted: by a column, and whether backwards. */
export interface Sorting {
  by: string;
  backwards: boolean;
}

/** A column's head by which its table is sorted; again, backwards. */
export function SortHead({ name, by, sorting, onSort, class: more = "" }: { name: string; by: string; sorting: Sorting; onSort: (sorting: Sorting) => void; class?: string }) {
  const chosen = sorting.by === by;
  return (
    <th class={`sortable ${more}`} aria-sort={chosen ? (sorting.backwards ? "descending" : "ascending") : "none"}>
      <button type="button" onClick={() => onSort({ by, backwards: chosen && !sorting.backwards })}>
        {name}
        <span aria-hidden="true">{chosen ? (sorting.backwards ? "↓" : "↑") : "↕"}</span>
      </button>
    </th>
  );
}

/** The rows in order of a column; those that are equal stay as they came. */
export function sorted<T>(rows: readonly T[], sorting: Sorting, columns: Record<string, (row: T) => string | number>): T[] {
  const key = columns[sorting.by];
  if (!key) return [...rows];
  const order = (a: T, b: T) => {
    const [left, right] = [key(a), key(b)];
    return typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right), "en", { numeric: true });
  };
  return [...rows].sort((a, b) => (sorting.backwards ? order(b, a) : order(a, b)));
}

export function Meter({ value, most, label }: { value: number; most: number; label: string }) {
  const share = most > 0 ? Math.min(1, value / most) : 0;
  return (
    <div class="meter" role="meter" aria-label={label} aria-valuemin={0} aria-valuemax={most} aria-valuenow={value}>
      <span class={share > 0.75 ? "full" : ""} style={{ width: `${Math.max(share * 100, value > 0 ? 1 : 0)}%` }} />
    </div>
  );
}

/** How long ago. */
export function Ago({ at }: { at: number }) {
  const now = useNow();
  return <span class="num">{at ? span(now - at) : "—"}</span>;
}

/** A question before something that cannot be undone. */
export function Ask({ title, open, onClose, children }: { title: string; open: boolean; onClose: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const element = dialog.current;
    if (open && element && !element.open) element.showModal();
    if (!open) element?.close();
  }, [open]);
  return (
    <dialog ref={dialog} aria-labelledby={id} onClose={onClose}>
      <h2 id={id}>{title}</h2>
      {open ? children : null}
    </dialog>
  );
}

/** A .proto comment: paragraphs, with `code` marked. */
export function Comment({ text, class: more = "" }: { text: string; class?: string }) {
  if (!text) return null;
  return (
    <div class={`comment ${more}`}>
      {text.split(/\n\s*\n/).map((paragraph, i) => (
        <p key={i}>{paragraph.split(/(`[^`]+`)/).map((part) => (part.startsWith("`") ? <code>{part.slice(1, -1)}</code> : part))}</p>
      ))}
    </div>
  );
}
