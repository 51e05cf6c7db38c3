// Composing one message: as a form, or as JSON.

import type { DescMessage, FileRegistry } from "@bufbuild/protobuf";
import { useId, useState } from "preact/hooks";
import { MessageForm } from "./form";
import { check, draftOf, isFields, type Fields, type Problems, type Side } from "./values";
import { Tabs } from "./ui";

interface Props {
  label: string;
  type: DescMessage;
  side: Side;
  registry: FileRegistry;
  value: Fields;
  problems: Problems;
  onChange: (value: Fields) => void;
}

export function Editor({ label, type, side, registry, value, problems, onChange }: Props) {
  const [tab, setTab] = useState<"form" | "json">("form");
  const [text, setText] = useState("");
  const [wrong, setWrong] = useState("");
  const id = useId();
  const choose = (next: "form" | "json") => {
    if (next === "json") setText(JSON.stringify(check(type, value, side, registry).json, null, 2));
    setWrong("");
    setTab(next);
  };
  const typed = (next: string) => {
    setText(next);
    try {
      const draft = draftOf(type, JSON.parse(next));
      if (!isFields(draft)) throw new Error("Give a JSON object.");
      setWrong("");
      onChange(draft);
    } catch (error) {
      setWrong(error instanceof Error ? error.message : String(error));
    }
  };
  const elsewhere = tab === "json" ? [...problems] : [...problems].filter(([path]) => path === "");
  return (
    <div class="editor" role="group" aria-label={label}>
      <Tabs label="How to compose" chosen={tab} onChoose={choose} tabs={[{ key: "form", text: "Form" }, { key: "json", text: "JSON" }]} />
      {tab === "form" ? (
        <MessageForm type={type} value={value} path="" side={side} problems={problems} onChange={onChange} />
      ) : (
        <>
          <label class="unseen" for={id}>
            JSON of {type.name}
          </label>
          <textarea id={id} class="mono json" rows={Math.min(20, Math.max(6, text.split("\n").length + 1))} spellcheck={false} value={text} onInput={(e) => typed(e.currentTarget.value)} />
          {wrong ? <p class="field-problem" role="alert">{wrong} It is not used until it is right.</p> : null}
        </>
      )}
      {elsewhere.map(([path, problem]) => (
        <p key={path} class="field-problem" role="alert" data-problem={path}>
          {path ? <b class="mono">{path}: </b> : null}
          {problem}
        </p>
      ))}
    </div>
  );
}
