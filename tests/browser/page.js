// The page that the browser test loads: a front end that speaks gRPC-Web with @connectrpc/connect-web.

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { create } from "@bufbuild/protobuf";
import { Realtime } from "../../target/tests/web/fanfare/v1/realtime_pb.js";
import { Messenger, NewMessageSchema } from "../../target/tests/web/messenger/v1/messenger_pb.js";

function client(service, url, token) {
  const authorize = (next) => (request) => {
    if (token) request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  return createClient(service, createGrpcWebTransport({ baseUrl: url, interceptors: [authorize] }));
}

const failure = (error) => {
  const { code, rawMessage } = ConnectError.from(error);
  return { code: Code[code], message: rawMessage };
};

window.stops = [];

/** Reads a subscription into a list that the test looks at; `error` is set when it ends. */
window.subscribe = (service, url, token, request) => {
  const chosen = service === "Realtime" ? Realtime : Messenger;
  const state = { messages: [], error: null };
  const stop = new AbortController();
  // A browser has few connections to a host over HTTP/1.1; the test gives this one back.
  window.stops.push(() => stop.abort());
  (async () => {
    for await (const message of client(chosen, url, token).subscribe(request, { signal: stop.signal })) {
      const event = service === "Realtime" ? message.kind : message.event;
      const meta = service === "Realtime" ? message.kind.value : message.meta;
      const content = service === "Realtime" ? undefined : event.value?.content;
      state.messages.push({ case: event.case ?? "position", id: meta.id ?? meta.cursor, content, rooms: meta.rooms });
    }
  })().catch((error) => (state.error = failure(error)));
  return state;
};

/** Publishes by the generic and by the typed method. */
window.notify = async (kind, url, token, message) => {
  const event = create(NewMessageSchema, { ...message, id: BigInt(message.id), chatId: BigInt(message.chatId) });
  try {
    const answer =
      kind === "typed"
        ? await client(Messenger, url, token).notifyNewMessage({ event })
        : await client(Realtime, url, token).notify({ event: anyPack(NewMessageSchema, event) });
    return { id: answer.id };
  } catch (error) {
    return { error: failure(error) };
  }
};

