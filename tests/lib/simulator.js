// An HTTP server that stands for the API of a channel. A subclass answers.

import { once } from "node:events";
import { createServer } from "node:http";

export class Simulator {
  static async start() {
    const api = new this();
    api.server = createServer((request, response) => api.answer(request, response)).listen(0, "127.0.0.1");
    await once(api.server, "listening");
    api.url = `http://127.0.0.1:${api.server.address().port}`;
    return api;
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}
