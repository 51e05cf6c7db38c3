/**
 * WhatsApp by QR code, on `@whiskeysockets/baileys`: pairing, reconnecting, messages both ways. The library confirms
 * messages to WhatsApp by itself. So a message that came within the last moment before a crash can be lost.
 */

import path from "node:path";
import { type Channel, type Desk, type Outbound, SendError } from "../common/channel.js";
import { Channel as Name } from "../common/gen/messenger/v1/messenger_pb.js";
import { idempotencyKey } from "../common/ids.js";
import { describe, log } from "../common/log.js";
import { retries } from "../common/metrics.js";
import { aborted, Backoff, sleep } from "../common/retry.js";
import type { ChannelModule } from "../common/run.js";
import { type AccountValues, SettingsError } from "../common/settings.js";
import { type ConnectionUpdate, type Events, type Library, load, type WhatsAppSocket } from "./library.js";
import { MEDIA_SCHEME, meaning, statusOf } from "./messages.js";

/** The library's code for a phone that ended the pairing. Connecting again needs a new pairing. */
const LOGGED_OUT = 401;
/** The library's code after a pairing: connect again at once. */
const RESTART = 515;
/** Another program uses the same session. */
const REPLACED = 440;
/** How long to wait after the session was replaced, in milliseconds, so that two services do not fight. */
const REPLACED_PAUSE_MS = 60_000;
/** How long sending may take, in milliseconds. */
const SEND_MS = 30_000;
/** Operators that get the QR code. */
const OPERATORS_MAX = 16;
/** Events of the library that wait to be published. */
const QUEUE_MAX = 10_000;

export const baileys: ChannelModule = {
  channel: "baileys",
  settings: [
    { name: "operators", help: "The ids of the users who get the QR code as user:notification, separated by commas." },
    { name: "module", help: "The library's package, or the path of one with its interface.", default: "@whiskeysockets/baileys" },
    { name: "rate", help: "Messages per second. WhatsApp blocks numbers that send fast.", default: "1" },
  ],
  open: async (account, dataDir) => new Baileys(account, dataDir, await load(account.values.required("module"))),
};

class Baileys implements Channel {
  readonly kind = Name.WHATSAPP;
  readonly textMax = 4_096;
  readonly captionMax = 1_024;
  readonly templates = false;
  readonly mediaScheme = MEDIA_SCHEME;
  readonly rate: number;
  readonly #operators: string[];
  readonly #folder: string;
  #socket: WhatsAppSocket | undefined;
  #queue = Promise.resolve();
  #queued = 0;

  constructor(
    readonly account: AccountValues,
    dataDir: string,
    readonly library: Library,
  ) {
    const { values, name } = account;
    this.rate = values.count("rate", 100);
    this.#operators = values.required("operators").split(",").map((one) => one.trim()).filter(Boolean);
    if (this.#operators.length === 0 || this.#operators.length > OPERATORS_MAX) throw new SettingsError(`${values.where}operators must be 1 to ${OPERATORS_MAX} user ids`);
    this.#folder = path.join(dataDir, `${name}.session`);
  }

  refuse({ media }: Pick<Outbound, "media">): { path: string; why: string } | undefined {
    // The library would fetch the URL from inside the operator's network.
    return media ? { path: "media", why: "WhatsApp by QR code sends text only" } : undefined;
  }

  /** The library lets us choose the id, so a message that is sent again is the same message to WhatsApp. */
  plannedId(number: bigint): string {
    return `FF${Buffer.from(idempotencyKey(this.account.name, number), "base64url").toString("hex").slice(0, 18).toUpperCase()}`;
  }

  async run(desk: Desk): Promise<void> {
    const backoff = new Backoff(1_000, 60_000);
    while (!desk.signal.aborted) {
      const code = await this.#session(desk, () => backoff.reset());
      if (desk.signal.aborted) return;
      retries({ account: this.account.name, cause: code === LOGGED_OUT ? "logged_out" : "connection" });
      if (code === LOGGED_OUT) {
        await this.#notify(desk, "whatsapp:logged_out", "WhatsApp ended the pairing. Remove the session's folder and pair again.", {});
        log.error("WhatsApp ended the pairing; remove the session's folder and start again to pair", { account: this.account.name, folder: this.#folder });
        return await aborted(desk.signal);
      }
      if (code !== RESTART) await sleep(code === REPLACED ? REPLACED_PAUSE_MS : backoff.pause(), desk.signal);
    }
  }

  /** One connection, from its beginning to its end; gives the code that it ended with. */
  async #session(desk: Desk, connected: () => void): Promise<number> {
    const { state, saveCreds } = await this.library.useMultiFileAuthState(this.#folder);
    const socket = this.library.makeWASocket({ auth: state, markOnlineOnConnect: false, syncFullHistory: false });
    return new Promise((resolve) => {
      const end = (code: number) => {
        this.#socket = undefined;
        desk.signal.removeEventListener("abort", stop);
        for (const name of ["creds.update", "connection.update", "messages.upsert", "messages.update"] as const) socket.ev.removeAllListeners(name);
        resolve(code);
      };
      const stop = () => {
        socket.end(undefined);
        end(0);
      };
      desk.signal.addEventListener("abort", stop);
      socket.ev.on("creds.update", () => void saveCreds().catch((error) => log.error("the session cannot be stored", { account: this.account.name, error: describe(error) })));
      socket.ev.on("connection.update", (update) => this.#connection(desk, socket, update, connected, end));
      socket.ev.on("messages.upsert", (event) => this.#take(desk, () => this.#upsert(desk, event)));
      socket.ev.on("messages.update", (event) => this.#take(desk, () => this.#update(desk, event)));
    });
  }

  #connection(desk: Desk, socket: WhatsAppSocket, { connection, qr, lastDisconnect }: ConnectionUpdate, connected: () => void, end: (code: number) => void): void {
    if (qr) {
      desk.report("not paired; scan the QR code");
      void this.#notify(desk, "whatsapp:qr", "Scan this code with WhatsApp: Linked devices.", { qr, account: this.account.name });
    }
    if (connection === "open") {
      this.#socket = socket;
      connected();
      desk.report(undefined);
    }
    if (connection === "close") {
      const { message = "closed", output } = lastDisconnect?.error ?? {};
      desk.report(`WhatsApp ended the connection: ${message}`);
      end(output?.statusCode ?? 0);
    }
  }

  /** What comes is published in the order in which it came. */
  #take(desk: Desk, job: () => Promise<void>): void {
    if (this.#queued >= QUEUE_MAX) return void log.error("too much waits to be published; a message is left out", { account: this.account.name });
    this.#queued++;
    this.#queue = this.#queue.then(job).then(
      () => void this.#queued--,
      (error) => {
        this.#queued--;
        if (!desk.signal.aborted) log.error("a message could not be published", { account: this.account.name, error: describe(error) });
      },
    );
  }

  async #upsert(desk: Desk, { messages }: Events["messages.upsert"]): Promise<void> {
    for (const message of messages) {
      // Our own come back as events; the outbox has published them.
      if (message.key.fromMe && message.key.id && desk.isOwn(message.key.id)) continue;
      const found = meaning(message);
      if (found.kind === "message") await desk.receive(found.message);
      else if (found.kind === "edit") await desk.edit(found.edit);
      else desk.ignore(found.what);
    }
  }

  async #update(desk: Desk, updates: Events["messages.update"]): Promise<void> {
    for (const { key, update } of updates) {
      const change = statusOf(key, update.status);
      if (change) await desk.status(change);
    }
  }

  async send({ number, chatId, text }: Outbound): Promise<string> {
    const socket = this.#socket;
    if (!socket) throw new SendError("WhatsApp is not connected", { label: "connection", accountWide: true, retryAfterMs: 1_000 });
    const id = this.plannedId(number);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new SendError(`WhatsApp did not answer within ${SEND_MS} ms`, { label: "timeout" })), SEND_MS);
    });
    try {
      await Promise.race([socket.sendMessage(chatId, { text }, { messageId: id }), late]);
      return id;
    } catch (cause) {
      if (cause instanceof SendError) throw cause;
      throw new SendError("WhatsApp did not take the message", { label: "server", cause });
    } finally {
      clearTimeout(timer);
    }
  }

  async #notify(desk: Desk, type: string, text: string, data: Record<string, string>): Promise<void> {
    try {
      await desk.notice(this.#operators, type, text, data, `${type} ${data.qr ?? Date.now()}`);
    } catch (error) {
      if (!desk.signal.aborted) log.error("operators could not be told", { account: this.account.name, error: describe(error) });
    }
  }
}
