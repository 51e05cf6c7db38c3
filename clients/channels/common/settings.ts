/** Settings: by flag, by environment, or in a TOML file, in this order. The names are the same in all three. */

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { parse as parseToml } from "smol-toml";
import { addSecret, LOG_LEVELS } from "./log.js";

export interface Setting {
  name: string;
  help: string;
  default?: string;
  /** Never shown. It can also be given as a file, by `NAME-file`. */
  secret?: boolean;
}

const GENERAL: Setting[] = [
  { name: "server", help: "Fanfare's server.", default: "http://127.0.0.1:50051" },
  { name: "token", help: "The token for Fanfare, with the scopes notify and subscribe.", secret: true },
  { name: "tenant", help: "The tenant whose customers write. A token for one tenant needs none.", default: "" },
  { name: "data-dir", help: "Where chats, messages and places are stored.", default: "./fanfare-channels" },
  { name: "grpc-listen", help: "Where Fanfare's server calls: --upstream channels=http://HOST:PORT. Keep it private.", default: "127.0.0.1:50061" },
  { name: "grpc-tls-cert", help: "A file with the certificate (PEM) of that listener." },
  { name: "grpc-tls-key", help: "A file with its key (PEM)." },
  { name: "grpc-client-ca", help: "A file with the authorities (PEM) of its clients. Others are refused." },
  { name: "http-listen", help: "Where webhooks arrive, at /ACCOUNT. The only listener that the Internet may reach.", default: "127.0.0.1:8085" },
  { name: "metrics-listen", help: "Where /healthz, /readyz and /metrics are. Keep it private.", default: "127.0.0.1:9465" },
  { name: "send-timeout", help: "How long a message is tried before it fails.", default: "1h" },
  { name: "outbox-max", help: "Messages that may wait to be sent, per account.", default: "10000" },
  { name: "webhooks-max", help: "Webhook requests that are handled at the same time.", default: "100" },
  { name: "read-back-after", help: "After a stop of this length the log is read for events that were not recorded. Below the server's --idempotency-age.", default: "5m" },
  { name: "shutdown-grace", help: "How long requests may take to end when the service stops.", default: "10s" },
  { name: "log-level", help: `The lowest level that is logged: ${LOG_LEVELS.join(", ")}.`, default: "info" },
];
const PREFIX = "FANFARE_CHANNELS_";

/** A setting is missing or wrong. */
export class SettingsError extends Error {}

/** One account's or the service's settings, by name. */
export class Values {
  constructor(
    readonly where: string,
    readonly values: ReadonlyMap<string, string>,
    readonly settings: readonly Setting[],
  ) {}

  get(name: string): string | undefined {
    return this.values.get(name) ?? this.settings.find((one) => one.name === name)?.default;
  }

  required(name: string): string {
    const value = this.get(name);
    if (!value) throw new SettingsError(`${this.where}${name} is missing${this.#isSecret(name) ? `; give it or ${name}-file` : ""}`);
    return value;
  }

  /** A secret, which log lines never show. */
  secret(name: string): string {
    const file = this.values.get(`${name}-file`);
    const value = file === undefined ? this.required(name) : readSecret(`${this.where}${name}-file`, file);
    addSecret(value);
    return value;
  }

  count(name: string, max: number): number {
    const value = Number(this.required(name));
    if (!Number.isInteger(value) || value < 1 || value > max) throw new SettingsError(`${this.where}${name} must be a number from 1 to ${max}`);
    return value;
  }

  /** A time such as "500ms", "10s", "5m", "1h", in milliseconds. */
  duration(name: string): number {
    const [, digits, unit] = /^(\d{1,9})(ms|s|m|h|d)$/.exec(this.required(name)) ?? [];
    const ms = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[unit ?? ""];
    if (!ms) throw new SettingsError(`${this.where}${name} must be a time such as "30s" or "5m"`);
    return Number(digits) * ms;
  }

  url(name: string): string {
    const value = this.required(name);
    if (!URL.canParse(value) || !/^https?:$/.test(new URL(value).protocol)) throw new SettingsError(`${this.where}${name} must be a URL such as "https://example.com"`);
    return value.replace(/\/+$/, "");
  }

  listen(name: string): { host: string; port: number } {
    const [, host, port] = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(this.required(name))?.filter((part) => part !== undefined) ?? [];
    if (host === undefined || Number(port) > 65_535) throw new SettingsError(`${this.where}${name} must be HOST:PORT, e.g. "127.0.0.1:8085"`);
    return { host, port: Number(port) };
  }

  #isSecret(name: string): boolean {
    return this.settings.some((one) => one.name === name && one.secret);
  }
}

function readSecret(name: string, file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch (error) {
    throw new SettingsError(`${name}: cannot read ${file}`, { cause: error });
  }
}

/** What a channel asks for. Flags have the channel's name before them: `--telegram-token`. */
export interface ChannelSettings {
  channel: string;
  settings: Setting[];
}

export interface AccountValues {
  name: string;
  channel: string;
  tenant: string;
  values: Values;
}

export interface Settings {
  general: Values;
  accounts: AccountValues[];
}

const withFiles = (settings: Setting[]) =>
  settings.flatMap((one) => (one.secret ? [one, { name: `${one.name}-file`, help: "The same, in a file." }] : [one]));

/** Reads all settings; undefined when only help was wanted, which is printed. */
export function readSettings(program: string, channels: ChannelSettings[], args: string[], env: NodeJS.ProcessEnv): Settings | undefined {
  const general = withFiles(GENERAL);
  const flags = new Map<string, Setting>(general.map((one) => [one.name, one]));
  for (const { channel, settings } of channels) {
    for (const one of withFiles(settings)) flags.set(`${channel}-${one.name}`, one);
  }
  const given = parseFlags(args, [...flags.keys()]);
  if (given.has("help")) {
    process.stdout.write(help(program, flags));
    return undefined;
  }
  const file = given.get("config") ?? env[`${PREFIX}CONFIG`];
  const [table, accounts] = file === undefined ? [new Map<string, string>(), []] : readFile(file, flags, channels);
  const values = new Map<string, string>();
  for (const name of flags.keys()) {
    const value = given.get(name) ?? env[PREFIX + name.toUpperCase().replaceAll("-", "_")] ?? table.get(name);
    if (value !== undefined) values.set(name, value);
  }
  const all = new Values("", values, general);
  const flagged = channels.flatMap(({ channel, settings }) => {
    const own = new Map([...values].filter(([name]) => name.startsWith(`${channel}-`)).map(([name, value]) => [name.slice(channel.length + 1), value]));
    if (own.size === 0) return [];
    return [{ name: channel, channel, tenant: all.get("tenant") ?? "", values: new Values(`${channel}-`, own, withFiles(settings)) }];
  });
  const found = [...flagged, ...accounts.map((one) => ({ ...one, tenant: one.tenant || (all.get("tenant") ?? "") }))];
  checkAccounts(found, channels);
  return { general: all, accounts: found };
}

function checkAccounts(accounts: AccountValues[], channels: ChannelSettings[]): void {
  if (accounts.length === 0) {
    const wanted = channels.map(({ channel, settings }) => `--${channel}-${settings[0]?.name}`).join(" or ");
    throw new SettingsError(`no account is configured: give ${wanted}, or [[account]] in the file of --config`);
  }
  const names = new Set<string>();
  for (const { name } of accounts) {
    if (!/^[a-z0-9][a-z0-9_-]{0,31}$/.test(name)) throw new SettingsError(`the account name ${JSON.stringify(name)} must be 1 to 32 of a-z, 0-9, '-' and '_'`);
    if (names.has(name)) throw new SettingsError(`two accounts have the name ${JSON.stringify(name)}; names are unique`);
    names.add(name);
  }
}

function parseFlags(args: string[], names: string[]): Map<string, string> {
  const options = Object.fromEntries([...names, "config"].map((name) => [name, { type: "string" as const }]));
  try {
    const { values } = parseArgs({ args, options: { ...options, help: { type: "boolean" } }, strict: true, allowPositionals: false });
    return new Map(Object.entries(values).map(([name, value]) => [name, String(value)]));
  } catch (error) {
    throw new SettingsError(`${(error as Error).message.split(". ")[0]}; see --help`);
  }
}

function readFile(file: string, flags: ReadonlyMap<string, Setting>, channels: ChannelSettings[]): [Map<string, string>, AccountValues[]] {
  let table: Record<string, unknown>;
  try {
    table = parseToml(readFileSync(file, "utf8"));
  } catch (error) {
    throw new SettingsError(`the file ${file} cannot be used: ${(error as Error).message.split("\n")[0]}`, { cause: error });
  }
  const { account = [], ...rest } = table;
  if (!Array.isArray(account)) throw new SettingsError(`${file}: account must be a list of tables: [[account]]`);
  const values = texts(file, rest, (name) => flags.has(name));
  const accounts = (account as Record<string, unknown>[]).map((one, at) => {
    const where = `${file}: account ${at + 1}: `;
    const { channel, name = channel, tenant = "", ...own } = one;
    const settings = channels.find((known) => known.channel === channel)?.settings;
    if (!settings) throw new SettingsError(`${where}channel must be one of ${channels.map((known) => known.channel).join(", ")}`);
    const all = withFiles(settings);
    return { name: String(name), channel: String(channel), tenant: String(tenant), values: new Values(where, texts(where, own, (key) => all.some((s) => s.name === key)), all) };
  });
  return [values, accounts];
}

function texts(where: string, table: Record<string, unknown>, known: (name: string) => boolean): Map<string, string> {
  return new Map(
    Object.entries(table).map(([name, value]) => {
      if (!known(name)) throw new SettingsError(`${where}${where.endsWith(" ") ? "" : ": "}${JSON.stringify(name)} is no setting; see --help`);
      if (Array.isArray(value)) return [name, value.join(",")];
      if (typeof value === "object") throw new SettingsError(`${where}${name} must be a string, number, boolean or list of strings`);
      return [name, String(value)];
    }),
  );
}

function help(program: string, flags: ReadonlyMap<string, Setting>): string {
  let text = `usage: ${program} [--config FILE] [--SETTING VALUE …]\n\nEach setting can be a flag, ${PREFIX}SETTING in the environment, or a key of the TOML file.\n\n`;
  for (const [name, { help, default: value }] of flags) text += `  --${name}\n        ${help}${value ? ` [default: ${value}]` : ""}\n`;
  return text;
}
