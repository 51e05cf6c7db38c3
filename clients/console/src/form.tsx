// A form for any message, made from its descriptor: each field with its meaning and what is wrong with it.

import { ScalarType, type DescField, type DescMessage, type DescOneof } from "@bufbuild/protobuf";
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import { browserType, commentOf, enumText, isInternal, isKnown } from "./catalog";
import { at, emptyElement, emptyValue, fieldsFor, isAlwaysThere, isFields, MapDraft, type Draft, type Fields, type Problems, type Side } from "./values";
import { Badge } from "./ui";

interface Within {
  problems: Problems;
  side: Side;
}

interface MessageProps extends Within {
  type: DescMessage;
  value: Fields;
  path: string;
  onChange: (value: Fields) => void;
}

/** The fields of a message. */
export function MessageForm({ type, value, path, onChange, ...within }: MessageProps) {
  const shown = fieldsFor(type, within.side);
  const done = new Set<DescOneof>();
  const set = (name: string, next: Draft | undefined) => {
    const changed: Fields = {};
    for (const field of shown) {
      const draft = field.jsonName === name ? next : value[field.jsonName];
      if (draft !== undefined) changed[field.jsonName] = draft;
    }
    onChange(changed);
  };
  return (
    <div class="form">
      {shown.length === 0 ? <p class="dim">It has no fields.</p> : null}
      {shown.map((field) => {
        if (field.oneof) {
          if (done.has(field.oneof)) return null;
          done.add(field.oneof);
          return <OneofField key={field.oneof.name} oneof={field.oneof} members={shown.filter((f) => f.oneof === field.oneof)} value={value} path={path} onChange={onChange} {...within} />;
        }
        return <FieldForm key={field.number} field={field} value={value[field.jsonName]} path={at(path, field.jsonName)} onChange={(next) => set(field.jsonName, next)} {...within} />;
      })}
    </div>
  );
}

function OneofField({ oneof, members, value, path, onChange, ...within }: Within & { oneof: DescOneof; members: DescField[]; value: Fields; path: string; onChange: (value: Fields) => void }) {
  const id = useId();
  const chosen = members.find((field) => value[field.jsonName] !== undefined);
  const others = Object.fromEntries(Object.entries(value).filter(([key]) => !members.some((field) => field.jsonName === key)));
  const choose = (name: string) => {
    const field = members.find((f) => f.jsonName === name);
    onChange(field ? { ...others, [name]: emptyValue(field, within.side) } : others);
  };
  return (
    <div class="form-field">
      <label for={id}>
        <span class="mono">{oneof.name}</span> <Badge>one of</Badge>
      </label>
      <select id={id} value={chosen?.jsonName ?? ""} onChange={(e) => choose(e.currentTarget.value)}>
        <option value="">none</option>
        {members.map((field) => (
          <option key={field.number} value={field.jsonName}>
            {field.jsonName}
          </option>
        ))}
      </select>
      <Help text={commentOf(oneof)} />
      {chosen ? (
        <div class="nested">
          <FieldForm field={chosen} value={value[chosen.jsonName]} path={at(path, chosen.jsonName)} onChange={(next) => (next === undefined ? onChange(others) : onChange({ ...others, [chosen.jsonName]: next }))} {...within} />
        </div>
      ) : null}
    </div>
  );
}

const Help = ({ text, id }: { text: string; id?: string }) =>
  text ? (
    <small class="help" {...(id ? { id } : {})}>
      {text.replace(/\n/g, " ")}
    </small>
  ) : null;

const Wrong = ({ problems, path, id }: { problems: Problems; path: string; id: string }) => {
  const text = problems.get(path);
  return text ? (
    <p class="field-problem" id={id} role="alert" data-problem={path}>
      {text}
    </p>
  ) : null;
};

interface FieldProps extends Within {
  field: DescField;
  value: Draft | undefined;
  path: string;
  /** `undefined`: it is not set. */
  onChange: (value: Draft | undefined) => void;
}

function FieldForm({ field, value, path, onChange, ...within }: FieldProps) {
  const id = useId();
  const [helpId, wrongId] = [`${id}-help`, `${id}-wrong`];
  const removable = !isAlwaysThere(field);
  const comment = commentOf(field);
  const composite = field.fieldKind === "list" || field.fieldKind === "map" || (field.fieldKind === "message" && !isKnown(field.message));
  const described = `${comment ? helpId : ""} ${within.problems.has(path) ? wrongId : ""}`.trim();
  const name = (
    <>
      <span class="mono">{field.jsonName}</span> <span class="type-note">{browserType(field).replace(/"/g, "")}</span>{" "}
      {isInternal(field) ? <Badge tone="warn" title="Between services only; browsers never see it">internal</Badge> : null}
    </>
  );
  if (value === undefined) {
    return (
      <div class="form-field unset">
        <span class="form-label">{name}</span>
        <button type="button" class="button small" aria-label={`Add ${path}`} onClick={() => onChange(emptyValue(field, within.side))}>
          Add
        </button>
        <Help text={comment} id={helpId} />
        <Wrong problems={within.problems} path={path} id={wrongId} />
      </div>
    );
  }
  const remove = removable ? (
    <button type="button" class="button small quiet" aria-label={`Remove ${path}`} onClick={() => onChange(undefined)}>
      Remove
    </button>
  ) : null;
  if (composite) {
    return (
      <fieldset class="form-field group" aria-describedby={described}>
        <legend>{name}</legend>
        {remove}
        <Help text={comment} id={helpId} />
        <Wrong problems={within.problems} path={path} id={wrongId} />
        {field.fieldKind === "list" ? (
          <ListForm field={field} value={Array.isArray(value) ? value : []} path={path} onChange={onChange} {...within} />
        ) : field.fieldKind === "map" ? (
          <MapForm field={field} value={value instanceof MapDraft ? value : new MapDraft([])} path={path} onChange={onChange} {...within} />
        ) : field.message ? (
          <div class="nested">
            <MessageForm type={field.message} value={isFields(value) ? value : {}} path={path} onChange={onChange} {...within} />
          </div>
        ) : null}
      </fieldset>
    );
  }
  return (
    <div class="form-field">
      <label for={id}>{name}</label>
      <div class="form-input">
        <Input id={id} field={field} value={value} described={described} wrong={within.problems.has(path)} onChange={onChange} />
        {remove}
      </div>
      <Help text={comment} id={helpId} />
      <Wrong problems={within.problems} path={path} id={wrongId} />
    </div>
  );
}

/** An element of a list or map: the input alone. */
function Element({ field, value, path, label, onChange, children, ...within }: Within & { field: DescField; value: Draft; path: string; label: string; onChange: (value: Draft) => void; children: ComponentChildren }) {
  const id = useId();
  return (
    <li class="element">
      {field.message && !isKnown(field.message) ? (
        <fieldset class="group">
          <legend class="mono">{label}</legend>
          {children}
          <div class="nested">
            <MessageForm type={field.message} value={isFields(value) ? value : {}} path={path} onChange={onChange} {...within} />
          </div>
        </fieldset>
      ) : (
        <div class="form-input">
          <label class="unseen" for={id}>
            {label}
          </label>
          <Input id={id} field={field} value={value} described={within.problems.has(path) ? `${id}-wrong` : ""} wrong={within.problems.has(path)} onChange={onChange} />
          {children}
        </div>
      )}
      <Wrong problems={within.problems} path={path} id={`${id}-wrong`} />
    </li>
  );
}

function ListForm({ field, value, path, onChange, ...within }: Within & { field: DescField; value: Draft[]; path: string; onChange: (value: Draft) => void }) {
  return (
    <ul class="elements">
      {value.map((element, index) => (
        <Element key={index} field={field} value={element} path={`${path}[${index}]`} label={`${field.jsonName}[${index}]`} onChange={(next) => onChange(value.map((old, i) => (i === index ? next : old)))} {...within}>
          <button type="button" class="button small quiet" aria-label={`Remove ${path}[${index}]`} onClick={() => onChange(value.filter((_, i) => i !== index))}>
            Remove
          </button>
        </Element>
      ))}
      <li>
        <button type="button" class="button small" aria-label={`Add to ${path}`} onClick={() => onChange([...value, emptyElement(field, within.side)])}>
          Add one
        </button>
      </li>
    </ul>
  );
}

function MapForm({ field, value, path, onChange, ...within }: Within & { field: DescField; value: MapDraft; path: string; onChange: (value: Draft) => void }) {
  const change = (index: number, entry: [string, Draft]) => onChange(new MapDraft(value.entries.map((old, i) => (i === index ? entry : old))));
  return (
    <ul class="elements">
      {value.entries.map(([key, element], index) => (
        <Element key={index} field={field} value={element} path={at(path, key)} label={`Value of ${key || "the entry"}`} onChange={(next) => change(index, [key, next])} {...within}>
          <input class="mono map-key" aria-label={`Key ${index + 1} of ${path}`} value={key} onInput={(e) => change(index, [e.currentTarget.value, element])} />
          <button type="button" class="button small quiet" aria-label={`Remove ${at(path, key)}`} onClick={() => onChange(new MapDraft(value.entries.filter((_, i) => i !== index)))}>
            Remove
          </button>
        </Element>
      ))}
      <li>
        <button type="button" class="button small" aria-label={`Add to ${path}`} onClick={() => onChange(new MapDraft([...value.entries, ["", emptyElement(field, within.side)]]))}>
          Add one
        </button>
      </li>
    </ul>
  );
}

interface InputProps {
  id: string;
  field: DescField;
  value: Draft;
  described: string;
  wrong: boolean;
  onChange: (value: Draft) => void;
}

/** Texts of this name are written in several lines. */
const LONG_TEXT = /content|text|message|description|body/;

function Input({ id, field, value, described, wrong, onChange }: InputProps) {
  const more = { id, ...(described ? { "aria-describedby": described } : {}), ...(wrong ? { "aria-invalid": true } : {}) };
  if (field.enum) {
    const texts = field.enum.values.map(enumText);
    const unknown = typeof value === "string" && !texts.includes(value) ? [value] : [];
    return (
      <select {...more} value={String(value)} onChange={(e) => onChange(e.currentTarget.value)}>
        {[...unknown, ...texts].map((text) => (
          <option key={text} value={text} selected={text === value}>
            {text}
          </option>
        ))}
      </select>
    );
  }
  const scalar = field.scalar;
  if (scalar === ScalarType.BOOL || field.message?.typeName === "google.protobuf.BoolValue") {
    return (
      <span class="switch">
        <input {...more} type="checkbox" checked={value === true} onChange={(e) => onChange(e.currentTarget.checked)} />
        <span class="mono">{value === true ? "true" : "false"}</span>
      </span>
    );
  }
  if (field.message?.typeName === "google.protobuf.Timestamp") {
    return (
      <>
        <input {...more} class="mono" value={String(value)} spellcheck={false} onInput={(e) => onChange(e.currentTarget.value)} />
        <button type="button" class="button small" aria-label={`Set ${field.jsonName} to now`} onClick={() => onChange(new Date().toISOString())}>
          Now
        </button>
      </>
    );
  }
  if (field.message && /\.(Struct|Value|ListValue|Any|Empty)$/.test(field.message.typeName)) return <JsonInput more={more} value={value} onChange={onChange} />;
  if (scalar === ScalarType.STRING && LONG_TEXT.test(field.name)) {
    return <textarea {...more} rows={2} value={String(value)} onInput={(e) => onChange(e.currentTarget.value)} />;
  }
  const numeric = scalar !== undefined && scalar !== ScalarType.STRING && scalar !== ScalarType.BYTES;
  return <input {...more} class={numeric ? "mono" : ""} inputMode={numeric ? "decimal" : "text"} value={String(value ?? "")} spellcheck={false} autocomplete="off" onInput={(e) => onChange(e.currentTarget.value)} />;
}

/** Any JSON; text that is not JSON stays a text, which the check refuses where it may not be one. */
function JsonInput({ more, value, onChange }: { more: { id: string }; value: Draft; onChange: (value: Draft) => void }) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return (
    <textarea
      {...more}
      class="mono"
      rows={2}
      spellcheck={false}
      value={text}
      onInput={(e) => {
        const typed = e.currentTarget.value;
        try {
          const made: unknown = JSON.parse(typed);
          // Only once it would be written the same way: else the text would change under the cursor.
          onChange(JSON.stringify(made) === typed ? (made as Draft) : typed);
        } catch {
          onChange(typed);
        }
      }}
    />
  );
}
