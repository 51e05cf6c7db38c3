// The catalogs as documentation: what there is, what it means, and code to use it.

import { useEffect, useState } from "preact/hooks";
import type { DescMethod } from "@bufbuild/protobuf";
import { admin, useAsked } from "./api";
import { commentOf, effectsOf, PRESENCES, type Call, type Catalog, type CatalogEvent, type Producer } from "./catalog";
import { catalogs, loadCatalogs } from "./catalogs_store";
import { FieldTable, TypeDocs } from "./fields";
import { many, transportName } from "./format";
import { href, place, refine } from "./router";
import { catalogFiles, emitSnippet, listenerSnippet, producerSnippets, type Around } from "./snippets";
import { useStore } from "./store";
import { Badge, Code, Comment, Empty, Failure, Json, Loading, Page, Panel, parsed, Tabs, TextField } from "./ui";

const eventKey = (event: CatalogEvent) => `event:${event.type.typeName}`;
const callKey = (call: Call) => `call:${call.method.parent.typeName}/${call.method.name}`;

export function Catalogs() {
  const { value, problem } = useStore(catalogs);
  const { params } = useStore(place);
  const server = useAsked((signal) => admin.getServer({}, { signal }), []);
  const around: Around = { grpc: server.value?.grpcUrl || "http://127.0.0.1:50051", origin: location.origin, tenant: "1", development: server.value?.development ?? true };
  if (!value) {
    return <Page title="Catalogs">{problem ? <Failure problem={problem} again={() => void loadCatalogs()} /> : <Loading lines={8} />}</Page>;
  }
  const item = params["item"];
  const event = value.list.flatMap((c) => c.events).find((e) => eventKey(e) === item);
  const call = value.list.flatMap((c) => c.calls).find((c) => callKey(c) === item);
  const named = value.list.find((c) => c.package === (params["package"] ?? event?.catalog.package ?? call?.catalog.package));
  const catalog = named ?? value.list[0];
  return (
    <Page title="Catalogs" lead={`${many(value.list.length, "catalog")} loaded. Each event is defined once, in a .proto file, for everybody.`}>
      {catalog ? (
        <div class="catalogs">
          <Tree list={value.list} catalog={catalog} item={item} />
          <div class="catalog-body">
            {event ? <EventPage key={item} event={event} around={around} /> : call ? <CallPage key={item} call={call} /> : <CatalogPage key={catalog.package} catalog={catalog} />}
          </div>
        </div>
      ) : (
        <Panel>
          <Empty title="No catalog is loaded">
            <p>
              Start Fanfare with <code>--catalog FOLDER</code>.
            </p>
          </Empty>
        </Panel>
      )}
    </Page>
  );
}

function Tree({ list, catalog, item }: { list: Catalog[]; catalog: Catalog; item: string | undefined }) {
  const { params } = useStore(place);
  const search = params["search"] ?? "";
  const matches = (name: string) => name.toLowerCase().includes(search.toLowerCase());
  const link = (key: string, text: string, of: string) => (
    <li key={key}>
      <a class="mono" href={href("catalogs", { item: key, search })} {...(item === key ? { "aria-current": "page" as const } : {})}>
        {text}
      </a>
      <span class="dim small">{of}</span>
    </li>
  );
  return (
    <nav class="tree panel" aria-label="Catalogs">
      <TextField label="Search" type="search" value={search} placeholder="Event or call" onValue={(v) => refine({ search: v })} />
      <ul>
        {list.map((one) => {
          const events = one.events.filter((e) => matches(e.name) || matches(e.type.name));
          const calls = one.calls.filter((c) => matches(c.options.on));
          if (search && events.length + calls.length === 0) return null;
          const open = search !== "" || one === catalog;
          return (
            <li key={one.package}>
              <a class="tree-head" href={href("catalogs", { package: one.package })} aria-expanded={open} {...(one === catalog && !item ? { "aria-current": "page" as const } : {})}>
                <span class="mono">{one.package}</span>
                <span class="dim num">{one.events.length + one.calls.length}</span>
              </a>
              {open ? (
                <>
                  {events.length > 0 ? <p class="tree-kind">Events</p> : null}
                  <ul>{events.map((e) => link(eventKey(e), e.name, ""))}</ul>
                  {calls.length > 0 ? <p class="tree-kind">Calls of browsers</p> : null}
                  <ul>{calls.map((c) => link(callKey(c), c.options.on, ""))}</ul>
                </>
              ) : null}
            </li>
          );
        })}
      </ul>
    </nav>
  );
}

function CatalogPage({ catalog }: { catalog: Catalog }) {
  return (
    <>
      <Panel title={<span class="mono">{catalog.package}</span>} side={catalog.transport ? <Badge tone="accent">{transportName(catalog.transport)} only</Badge> : null}>
        <div class="prose">
          <Comment text={catalog.comment} />
          <p class="dim small mono">{catalogFiles(catalog).join(", ")}</p>
        </div>
      </Panel>
      <Panel title="Events">
        <div class="table-frame">
          <table class="table">
            <thead>
              <tr>
                <th>Name</th>
                <th>Rooms</th>
                <th>Meaning</th>
              </tr>
            </thead>
            <tbody>
              {catalog.events.map((event) => (
                <tr key={event.type.typeName}>
                  <td data-label="Name">
                    <a class="mono strong" href={href("catalogs", { item: eventKey(event) })}>
                      {event.name}
                    </a>
                    <span class="field-marks">
                      <Marks event={event} />
                    </span>
                  </td>
                  <td data-label="Rooms">
                    <RoomList rooms={event.options.rooms} />
                  </td>
                  <td data-label="Meaning">
                    <Comment text={event.comment} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </Panel>
      {catalog.calls.length > 0 ? (
        <Panel title="Calls of browsers">
          <div class="table-frame">
            <table class="table">
              <thead>
                <tr>
                  <th>Emit</th>
                  <th>Does</th>
                  <th>Meaning</th>
                </tr>
              </thead>
              <tbody>
                {catalog.calls.map((call) => (
                  <tr key={callKey(call)}>
                    <td data-label="Emit">
                      <a class="mono strong" href={href("catalogs", { item: callKey(call) })}>
                        {call.options.on}
                      </a>
                    </td>
                    <td data-label="Does">
                      <Effects call={call} />
                    </td>
                    <td data-label="Meaning">
                      <Comment text={call.comment} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </Panel>
      ) : null}
      <Panel title="Methods for services">
        <div class="table-frame">
          <table class="table">
            <thead>
              <tr>
                <th>Method</th>
                <th>Publishes</th>
                <th>Meaning</th>
              </tr>
            </thead>
            <tbody>
              {catalog.producers.map((producer) => (
                <ProducerRow key={producer.method.name} producer={producer} catalog={catalog} />
              ))}
              {catalog.subscribe ? <SubscribeRow method={catalog.subscribe} /> : null}
            </tbody>
          </table>
        </div>
      </Panel>
      <Panel title="TypeScript">
        {catalog.typescript ? (
          <div class="prose">
            <Code text={catalog.typescript} label={`TypeScript of ${catalog.package}`} />
          </div>
        ) : (
          <p class="dim">This server makes no TypeScript for it.</p>
        )}
      </Panel>
    </>
  );
}

const ProducerRow = ({ producer: { service, method, events, rooms, comment }, catalog }: { producer: Producer; catalog: Catalog }) => (
  <tr>
    <td data-label="Method" class="mono">
      <span class="dim">{service.name}/</span>
      <wbr />
      {method.name}
    </td>
    <td data-label="Publishes">
      {events.length > 3 ? (
        <span>any of {events.length} events</span>
      ) : (
        events.map(({ type }) => {
          const event = catalog.events.find((e) => e.type === type);
          return event ? (
            <a key={type.typeName} class="mono" href={href("catalogs", { item: eventKey(event) })}>
              {event.name}
            </a>
          ) : null;
        })
      )}
      {rooms.length > 0 ? (
        <span class="field-marks">
          to <RoomList rooms={rooms} />
        </span>
      ) : null}
    </td>
    <td data-label="Meaning">
      <Comment text={comment} />
    </td>
  </tr>
);

const SubscribeRow = ({ method }: { method: DescMethod }) => (
  <tr>
    <td data-label="Method" class="mono">
      <span class="dim">{method.parent.name}/</span>
      <wbr />
      {method.name}
    </td>
    <td data-label="Publishes">
      <Badge>stream</Badge>
    </td>
    <td data-label="Meaning">
      <Comment text={commentOf(method)} />
    </td>
  </tr>
);

const RoomList = ({ rooms }: { rooms: string[] }) => (
  <span class="chips">
    {rooms.map((room) => (
      <span key={room} class="chip mono">
        {room}
      </span>
    ))}
    {rooms.length === 0 ? <span class="dim">named by the producer</span> : null}
  </span>
);

const Marks = ({ event: { options } }: { event: CatalogEvent }) => (
  <>
    {options.ephemeral ? <Badge tone="warn" title="Delivered to those present and never stored">ephemeral</Badge> : null}
    {options.state ? <Badge title="The newest event of each key is kept">{options.state.delete ? "ends state" : "state"}</Badge> : null}
    {options.presence ? <Badge tone="accent" title={`Published by the server when ${PRESENCES[options.presence]}`}>presence</Badge> : null}
  </>
);

const Effects = ({ call }: { call: Call }) => (
  <ul class="effects">
    {effectsOf(call).map(({ kind, what, of, more }) => (
      <li key={kind}>
        <Badge tone="accent">{kind}</Badge>
        <span>
          {what} <code>{of}</code>
          {more ? ` ${more}` : ""}
        </span>
      </li>
    ))}
    {effectsOf(call).length === 0 ? <li class="dim">acknowledges</li> : null}
  </ul>
);

function EventPage({ event, around }: { event: CatalogEvent; around: Around }) {
  const { params } = useStore(place);
  const { type, catalog, options } = event;
  const snippets = producerSnippets(event, around);
  const language = snippets.find((s) => s.key === (params["code"] ?? "python")) ?? snippets[0]!;
  return (
    <>
      <Panel title={<span class="mono">{event.name}</span>} side={<Marks event={event} />}>
        <div class="prose">
          <Comment text={event.comment} />
          <dl class="facts-list">
            <dt>Type</dt>
            <dd class="mono break">{type.typeName}</dd>
            <dt>Rooms</dt>
            <dd>
              <RoomList rooms={options.rooms} />
            </dd>
            <dt>Stored</dt>
            <dd>{options.ephemeral ? "no: for those present only" : "yes: who comes back gets it"}</dd>
            {options.state ? (
              <>
                <dt>State</dt>
                <dd>
                  {options.state.delete ? "removes the entry" : "is the entry"} {options.state.key ? <code>{options.state.key}</code> : "of the room"}
                  {options.state.ttlSeconds ? ` for ${options.state.ttlSeconds} s` : ""}
                </dd>
              </>
            ) : null}
            {options.presence ? (
              <>
                <dt>When</dt>
                <dd>published by the server when {PRESENCES[options.presence]}</dd>
              </>
            ) : null}
          </dl>
          <p class="row">
            <a class="button primary" href={href("playground", { event: type.typeName })}>
              Try it in the playground
            </a>
            <a class="button" href={href("events", { name: event.name })}>
              Watch the tail
            </a>
          </p>
        </div>
      </Panel>
      <Panel title="Fields">
        <TypeDocs type={type} />
      </Panel>
      <Panel title="Receive it in a browser">
        <div class="prose">
          <Code text={listenerSnippet(event, around)} label="listener" />
        </div>
      </Panel>
      <Panel title="Publish it" side={event.publisher ? <span class="mono dim small">{`${event.publisher.service.name}/${event.publisher.method.name}`}</span> : null}>
        <div class="prose">
          {event.publisher?.comment ? <Comment text={event.publisher.comment} /> : null}
          <Tabs label="Language" chosen={language.key} onChoose={(key) => refine({ code: key })} tabs={snippets.map(({ key, text }) => ({ key, text }))} />
          <Code text={language.code} label={`${language.text} code`} />
        </div>
      </Panel>
      <Schemas event={event} typescript={catalog.typescript} />
    </>
  );
}

/** The part of a TypeScript file that declares a name, with its comment; all of it where the name is not found. */
function declarationOf(typescript: string, name: string): string {
  const lines = typescript.split("\n");
  const at = lines.findIndex((line) => line.startsWith(`export interface ${name} {`) || line.startsWith(`export type ${name} =`));
  if (at < 0) return typescript;
  let first = at;
  while (first > 0 && /^(\/\*\*| \*)/.test(lines[first - 1]!)) first -= 1;
  const length = lines.slice(at).findIndex((line) => /^\}|^export.*(\}|;)$/.test(line));
  return lines.slice(first, length < 0 ? undefined : at + length + 1).join("\n");
}

function Schemas({ event, typescript }: { event: CatalogEvent; typescript: string }) {
  const [tab, setTab] = useState<"typescript" | "schema">("typescript");
  const schema = parsed(event.jsonSchema);
  return (
    <Panel title="For tools">
      <div class="prose">
        <Tabs label="Format" chosen={tab} onChoose={setTab} tabs={[{ key: "typescript", text: "TypeScript" }, { key: "schema", text: "JSON Schema" }]} />
        {tab === "typescript" ? (
          typescript ? (
            <Code text={declarationOf(typescript, event.type.name)} label="TypeScript" />
          ) : (
            <p class="dim">This server makes no TypeScript for it.</p>
          )
        ) : schema !== undefined ? (
          <Json value={schema} label="JSON Schema" />
        ) : (
          <p class="dim">This server makes no JSON Schema for it.</p>
        )}
      </div>
    </Panel>
  );
}

function CallPage({ call }: { call: Call }) {
  const { method, catalog } = call;
  return (
    <>
      <Panel title={<span class="mono">{call.options.on}</span>} side={<Badge>emitted by browsers</Badge>}>
        <div class="prose">
          <Comment text={call.comment} />
          <dl class="facts-list">
            <dt>Method</dt>
            <dd class="mono break">
              {method.parent.typeName}/{method.name}
            </dd>
            {catalog.transport ? (
              <>
                <dt>Over</dt>
                <dd>{transportName(catalog.transport)} only</dd>
              </>
            ) : null}
            <dt>Does</dt>
            <dd>
              <Effects call={call} />
            </dd>
          </dl>
          <Code text={emitSnippet(call)} label="call" />
        </div>
      </Panel>
      <Panel title="Request" side={<span class="mono dim small">{method.input.name}</span>}>
        <TypeDocs type={method.input} />
      </Panel>
      <Panel title="Acknowledgement" side={<span class="mono dim small">{method.output.name}</span>}>
        {method.output === method.input ? <FieldTable type={method.output} label="Fields of the acknowledgement" /> : <TypeDocs type={method.output} />}
      </Panel>
    </>
  );
}

/** The catalogs are asked for when somebody has signed in. */
export function useCatalogs(): void {
  useEffect(() => void loadCatalogs(), []);
}
