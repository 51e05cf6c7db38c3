// A simulator of Telegram's Bot API, from its public documentation: updates by polling or webhook, sending, and faults.

import { Simulator } from "./simulator.js";

const METHODS = { sendMessage: "text", sendPhoto: "photo", sendVideo: "video", sendAudio: "audio", sendDocument: "document" };

export class TelegramApi extends Simulator {
  token = "123456:a-token-of-the-tests";
  /** What is not confirmed yet. */
  updates = [];
  /** What was sent, in order: { method, chat_id, … }. */
  sent = [];
  /** Faults of the next calls, by method: { status, description, retryAfter }, or { cut: "before" | "after" }, or { hangs: true }. */
  faults = {};
  webhook = undefined;
  /** The offsets that were confirmed, and the times of calls. */
  confirmed = 0;
  calls = [];
  #next = 1000;
  #waiting = new Set();

  /** A customer's message; gives the update. */
  message(chat, id, more) {
    const from = { id: chat, is_bot: false, first_name: `Customer ${chat}` };
    return { update_id: this.#next++, message: { message_id: id, date: 1_770_000_000 + id, chat: { id: chat, type: "private", first_name: from.first_name }, from, ...more } };
  }

  edit(chat, id, more) {
    const { update_id, message } = this.message(chat, id, { edit_date: 1_770_000_500 + id, ...more });
    return { update_id, edited_message: message };
  }

  /** Hands updates out to whoever polls, again and again until they are confirmed. */
  push(...updates) {
    this.updates.push(...updates);
    for (const wake of this.#waiting) wake();
  }

  fail(method, ...faults) {
    (this.faults[method] ??= []).push(...faults);
  }

  async answer(request, response) {
    const [, token, method] = /^\/bot([^/]+)\/(\w+)$/.exec(request.url) ?? [];
    let body = "";
    for await (const part of request) body += part;
    const send = (status, value) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
    const refuse = (code, description, parameters) => send(code, { ok: false, error_code: code, description, ...(parameters ? { parameters } : {}) });
    if (token !== this.token) return refuse(401, "Unauthorized");
    this.calls.push({ method, at: Date.now() });
    const fault = this.faults[method]?.shift();
    if (fault?.hangs) return;
    if (fault?.cut === "before") return request.socket.destroy();
    if (fault?.status) return refuse(fault.status, fault.description ?? "fault", fault.retryAfter ? { retry_after: fault.retryAfter } : undefined);
    const parameters = JSON.parse(body || "{}");
    const result = await this.#run(method, parameters, request);
    if (fault?.cut === "after") return request.socket.destroy();
    if (result instanceof Error) return refuse(400, result.message);
    send(200, { ok: true, result });
  }

  async #run(method, parameters, request) {
    if (method === "getUpdates") return this.#poll(parameters, request);
    if (method === "setWebhook") return (this.webhook = parameters), true;
    if (method === "deleteWebhook") return (this.webhook = undefined), true;
    if (!(method in METHODS)) return new Error("Bad Request: method not found");
    const { chat_id, [METHODS[method]]: content } = parameters;
    if (!content) return new Error(`Bad Request: ${METHODS[method]} is empty`);
    if (chat_id === 666) return new Error("Bad Request: chat not found");
    this.sent.push({ method, ...parameters });
    return { message_id: this.#next++, date: 1_770_000_000, chat: { id: chat_id } };
  }

  async #poll({ offset = 0, timeout = 0, limit = 100 }, request) {
    this.confirmed = Math.max(this.confirmed, offset);
    this.updates = this.updates.filter(({ update_id }) => update_id >= offset);
    if (this.updates.length === 0 && timeout > 0) {
      await new Promise((resolve) => {
        const wake = () => (this.#waiting.delete(wake), clearTimeout(timer), resolve());
        const timer = setTimeout(wake, timeout * 1000);
        this.#waiting.add(wake);
        request.socket.once("close", wake);
      });
    }
    return this.updates.slice(0, limit);
  }

  /** Delivers an update to the registered webhook; gives the status. */
  async deliver(update, { secret = this.webhook.secret_token } = {}) {
    const headers = { "content-type": "application/json", "x-telegram-bot-api-secret-token": secret };
    const response = await fetch(this.webhook.url, { method: "POST", headers, body: JSON.stringify(update) });
    await response.text();
    return response.status;
  }
}
