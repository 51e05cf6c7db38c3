// A simulator of the WhatsApp Cloud API, from its public documentation: sending, signed webhooks, statuses, and faults.

import { createHmac } from "node:crypto";
import { Simulator } from "./simulator.js";

export class CloudApi extends Simulator {
  token = "EAAG-a-token-of-the-tests";
  appSecret = "an-app-secret-of-the-tests";
  verifyToken = "a-verify-token-of-the-tests";
  phoneNumberId = "106540352242922";
  /** What was sent, in order, each with the `id` that it got. */
  sent = [];
  /** Faults of the next requests: { status, code, message, retryAfter }, or { cut: "before" | "after" }, or { hangs: true }. */
  faults = [];
  /** When requests came. */
  calls = [];
  /** Where webhooks go. */
  webhookUrl = undefined;
  #next = 1;

  async answer(request, response) {
    let body = "";
    for await (const part of request) body += part;
    this.calls.push(Date.now());
    const send = (status, value, headers = {}) => response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));
    const refuse = (status, code, message, headers) => send(status, { error: { message, type: "OAuthException", code, fbtrace_id: "x" } }, headers);
    if (request.url !== `/v23.0/${this.phoneNumberId}/messages`) return refuse(404, 100, "Unsupported post request");
    if (request.headers.authorization !== `Bearer ${this.token}`) return refuse(401, 190, "Invalid OAuth access token");
    const fault = this.faults.shift();
    if (fault?.hangs) return;
    if (fault?.cut === "before") return request.socket.destroy();
    if (fault?.status) return refuse(fault.status, fault.code, fault.message ?? "fault", fault.retryAfter ? { "retry-after": String(fault.retryAfter) } : {});
    const message = JSON.parse(body);
    if (!message[message.type] || message.messaging_product !== "whatsapp") return refuse(400, 100, "Invalid parameter");
    const id = `wamid.${this.#next++}`;
    this.sent.push({ ...message, id });
    if (fault?.cut === "after") return request.socket.destroy();
    send(200, { messaging_product: "whatsapp", contacts: [{ input: message.to, wa_id: message.to }], messages: [{ id }] });
  }

  notification(value) {
    const metadata = { display_phone_number: "15550783881", phone_number_id: this.phoneNumberId };
    return { object: "whatsapp_business_account", entry: [{ id: "1", changes: [{ field: "messages", value: { messaging_product: "whatsapp", metadata, ...value } }] }] };
  }

  /** A customer's message. */
  message(from, id, more) {
    const message = { from, id: `wamid.in.${from}.${id}`, timestamp: String(1_770_000_000 + id), ...more };
    return this.notification({ contacts: [{ profile: { name: `Customer ${from}` }, wa_id: from }], messages: [message] });
  }

  /** What happened to a sent message. */
  status({ id, to, biz_opaque_callback_data }, status, errors) {
    const notice = { id, status, timestamp: "1770000000", recipient_id: to, biz_opaque_callback_data, ...(errors ? { errors } : {}) };
    return this.notification({ statuses: [notice] });
  }

  /** Delivers a webhook; gives the HTTP status. */
  async deliver(notification, { secret = this.appSecret } = {}) {
    const body = JSON.stringify(notification);
    const signature = `sha256=${createHmac("sha256", secret).update(body).digest("hex")}`;
    const response = await fetch(this.webhookUrl, { method: "POST", body, headers: { "content-type": "application/json", "x-hub-signature-256": signature } });
    await response.text();
    return response.status;
  }

  /** Delivers a webhook until it is acknowledged, as Meta does. */
  async insist(notification) {
    for (let tries = 0; tries < 500; tries++) {
      const status = await this.deliver(notification).catch(() => 0);
      if (status === 200) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error("the webhook was never acknowledged");
  }
}
