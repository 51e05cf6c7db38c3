/** Counters and gauges as Prometheus reads them. */

type Labels = Record<string, string>;

interface Family {
  kind: "counter" | "gauge";
  help: string;
  /** By the rendered labels. Labels come from the code and the settings only, so their number is bounded. */
  values: Map<string, number>;
}

const families = new Map<string, Family>();
const observers: (() => void)[] = [];

const render = (labels: Labels) =>
  Object.entries(labels)
    .map(([name, value]) => `${name}=${JSON.stringify(value)}`)
    .join(",");

function family(kind: Family["kind"], name: string, help: string): Family {
  let found = families.get(name);
  if (!found) families.set(name, (found = { kind, help, values: new Map() }));
  return found;
}

/** A counter; call it to add one. */
export function counter(name: string, help: string): (labels: Labels, by?: number) => void {
  const { values } = family("counter", name, help);
  return (labels, by = 1) => {
    const key = render(labels);
    values.set(key, (values.get(key) ?? 0) + by);
  };
}

/** A gauge; call it to set it. */
export function gauge(name: string, help: string): (labels: Labels, value: number) => void {
  const { values } = family("gauge", name, help);
  return (labels, value) => void values.set(render(labels), value);
}

/** Registers a function that sets gauges before each scrape. */
export function observe(set: () => void): void {
  observers.push(set);
}

/** The page for Prometheus. */
export function exposition(): string {
  for (const set of observers) set();
  let text = "";
  for (const [name, { kind, help, values }] of families) {
    if (values.size === 0) continue;
    text += `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n`;
    for (const [labels, value] of values) text += `${name}{${labels}} ${value}\n`;
  }
  return text;
}

export const received = counter("fanfare_channels_received_total", "Messages, edits and statuses from the channel, by kind and outcome.");
export const sends = counter("fanfare_channels_sends_total", "Messages to the channel that reached a final outcome: sent or failed.");
export const retries = counter("fanfare_channels_retries_total", "Tries that are repeated, by what failed.");
export const publishes = counter("fanfare_channels_publishes_total", "Events that Fanfare acknowledged, by event.");
export const webhooks = counter("fanfare_channels_webhooks_total", "Webhook requests, by HTTP status.");
export const outboxMessages = gauge("fanfare_channels_outbox_messages", "Messages that wait to be sent.");
export const ready = gauge("fanfare_channels_ready", "1 while the account can publish and its channel answers.");
export const storeBytes = gauge("fanfare_channels_store_bytes", "Size of the account's file.");
