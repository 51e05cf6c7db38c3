// The fields of a message with their types and comments, as documentation.

import type { DescEnum, DescMessage } from "@bufbuild/protobuf";
import { browserType, commentOf, enumText, heldTypes, isInternal, stampOf } from "./catalog";
import { Badge, Comment } from "./ui";

export function FieldTable({ type, label }: { type: DescMessage; label: string }) {
  if (type.fields.length === 0) return <p class="dim">It has no fields.</p>;
  return (
    <div class="table-frame">
      <table class="table fields" aria-label={label}>
        <thead>
          <tr>
            <th>Field</th>
            <th>Type in the browser</th>
            <th>Meaning</th>
          </tr>
        </thead>
        <tbody>
          {type.fields.map((field) => (
            <tr key={field.number} data-field={field.jsonName}>
              <td data-label="Field">
                <span class="mono strong">{field.jsonName}</span>
                <span class="field-marks">
                  {field.proto.proto3Optional ? <Badge>optional</Badge> : null}
                  {field.oneof ? <Badge title={`At most one field of ${field.oneof.name} is set`}>one of {field.oneof.name}</Badge> : null}
                  {isInternal(field) ? <Badge tone="warn" title="Between services only; browsers never see it">internal</Badge> : null}
                </span>
              </td>
              <td data-label="Type" class="mono type">
                {browserType(field)}
              </td>
              <td data-label="Meaning">
                <Comment text={commentOf(field)} />
                {stampOf(field) ? <p class="dim small">In a browser's call the server writes {stampOf(field)} here.</p> : null}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** The same in little room. */
export const FieldList = ({ type }: { type: DescMessage }) => (
  <dl class="field-list">
    {type.fields.map((field) => (
      <div key={field.number} data-field={field.jsonName}>
        <dt>
          <span class="mono strong">{field.jsonName}</span> <span class="mono dim">{browserType(field)}</span>
          {isInternal(field) ? <Badge tone="warn">internal</Badge> : null}
        </dt>
        <dd>
          <Comment text={commentOf(field)} />
        </dd>
      </div>
    ))}
  </dl>
);

const enumsOf = (types: DescMessage[]): DescEnum[] => [...new Set(types.flatMap((type) => type.fields.flatMap((field) => (field.enum ? [field.enum] : []))))];

/** A type, and everything its fields are made of. */
export function TypeDocs({ type }: { type: DescMessage }) {
  const held = heldTypes(type);
  const enums = enumsOf([type, ...held]);
  return (
    <>
      <FieldTable type={type} label={`Fields of ${type.name}`} />
      {held.map((message) => (
        <div key={message.typeName} class="sub">
          <h4 class="mono">{message.name}</h4>
          <Comment text={commentOf(message)} />
          <FieldTable type={message} label={`Fields of ${message.name}`} />
        </div>
      ))}
      {enums.map((type) => (
        <div key={type.typeName} class="sub">
          <h4 class="mono">{type.name}</h4>
          <Comment text={commentOf(type)} />
          <dl class="values">
            {type.values.map((value) => (
              <div key={value.number}>
                <dt class="mono">{enumText(value)}</dt>
                <dd>
                  <Comment text={commentOf(value)} />
                </dd>
              </div>
            ))}
          </dl>
        </div>
      ))}
    </>
  );
}
