// What the compiler must accept and what it must refuse: `npm run check` reads this file.

import { expectTypeOf, test } from "vitest";
import type { AnswerOf, Events, Fanfare, Payload, RequestOf } from "@fanfare/client";
import { type useEvent, type usePresence, type useRoom } from "@fanfare/client/react";
import type {
  ActiveUsers, Answer, ClientToServerEvents, MessengerV1ChatRef as ChatRef, MessengerV1NewMessage as NewMessage, ServerToClientEvents, TypingStart,
} from "./generated/events.js";

/** Shapes besides the messenger's: no request, an optional one, no payload to speak of. */
interface Odd {
  nothing: (acknowledge?: (answer: Answer<ChatRef>) => void) => void;
  bare: () => void;
  optional: (request?: ChatRef, acknowledge?: (answer: Answer<ChatRef>) => void) => void;
  empty: (request: Record<string, never>, acknowledge?: (answer: Answer<ActiveUsers>) => void) => void;
  partial: (request: { limit?: number }, acknowledge?: (answer: Answer<ActiveUsers>) => void) => void;
}

test("names, payloads and answers are those of the maps", () => {
  expectTypeOf<Events>().toEqualTypeOf<ServerToClientEvents>();
  expectTypeOf<Payload<ServerToClientEvents, "message:new">>().toEqualTypeOf<NewMessage>();
  expectTypeOf<RequestOf<ClientToServerEvents, "subscribe:chat">>().toEqualTypeOf<ChatRef>();
  expectTypeOf<AnswerOf<ClientToServerEvents, "subscribe:chat">>().toEqualTypeOf<ChatRef>();
  expectTypeOf<AnswerOf<ClientToServerEvents, "get_active_users">>().toEqualTypeOf<ActiveUsers>();
  expectTypeOf<RequestOf<Odd, "nothing">>().toEqualTypeOf<undefined>();
  expectTypeOf<AnswerOf<Odd, "nothing">>().toEqualTypeOf<ChatRef>();
  expectTypeOf<AnswerOf<Odd, "bare">>().toEqualTypeOf<void>();
  expectTypeOf<AnswerOf<Odd, "optional">>().toEqualTypeOf<ChatRef>();
  expectTypeOf<Parameters<typeof useEvent<"typing:start">>[1]>().parameters.toEqualTypeOf<[event: TypingStart]>();
  expectTypeOf<Parameters<typeof useRoom<"subscribe:chat">>[1]>().toEqualTypeOf<ChatRef | null | undefined>();
  expectTypeOf<Parameters<typeof usePresence<"user:online", "user:offline", never>>[0]["online"]>().toEqualTypeOf<"user:online">();
});

/** Never runs: the compiler reads it. Each expected error that does not come is one. */
export function accepted(client: Fanfare, odd: Fanfare<Events, Odd>): void {
  client.on("message:new", (message, cursor) => {
    expectTypeOf(message).toEqualTypeOf<NewMessage>();
    expectTypeOf(cursor).toEqualTypeOf<string>();
  });
  // @ts-expect-error no such event
  client.on("message:gone", () => {});
  // @ts-expect-error what is never stored has no cursor
  client.on("typing:start", (_typing, _cursor) => {});
  // @ts-expect-error no such field
  client.on("message:new", (message) => message.chat_id);
  expectTypeOf(client.call("subscribe:chat", { chatId: 7 }, { timeout: 1 })).toEqualTypeOf<Promise<ChatRef>>();
  // @ts-expect-error a number is wanted
  void client.call("subscribe:chat", { chatId: "7" });
  // @ts-expect-error the request is missing
  void client.call("subscribe:chat");
  // @ts-expect-error no such call
  void client.call("subscribe:room", { chatId: 7 });
  client.room({ join: "subscribe:chat", leave: "unsubscribe:chat" }, { chatId: 7 });
  client.room({ join: "subscribe:chat" }, { chatId: 7 });
  // @ts-expect-error leaving takes something else than joining
  client.room({ join: "subscribe:chat", leave: "get_active_users" }, { chatId: 7 });
  void odd.call("nothing");
  void odd.call("bare", undefined, { timeout: 1 });
  void odd.call("optional");
  void odd.call("optional", { chatId: 7 });
  void odd.call("empty");
  void odd.call("partial");
  // @ts-expect-error nothing is wanted
  void odd.call("nothing", { chatId: 7 });
}
