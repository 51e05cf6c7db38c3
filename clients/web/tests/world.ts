// A server, a bridge, a proxy in front of it that can cut, and a producer; and clients of them.

import { type ConnectOptions, type Fanfare, type Status, type Store, connect } from "@fanfare/client";
import { startBridge, startServer, within } from "../../../tests/lib/fanfare.js";
import { Producer } from "../../../tests/lib/producer.js";
import { Proxy } from "../../../tests/lib/proxy.js";
import { producer, user } from "../../../tests/lib/tokens.js";
import type { ClientToServerEvents, MessengerV1NewMessage as NewMessage, ServerToClientEvents } from "./generated/events.js";

export type Messenger = Fanfare<ServerToClientEvents, ClientToServerEvents>;
export const CHAT = { join: "subscribe:chat", leave: "unsubscribe:chat" } as const;
/** Short pauses, for tests that come back often. */
export const QUICK = { minMs: 20, maxMs: 100 };

export interface World {
  /** Of the proxy in front of the bridge. */
  url: string;
  /** Of the server: gRPC. */
  grpc: string;
  proxy: Proxy;
  publish(tenant: string, message: Partial<NewMessage>, rooms?: string[]): Promise<void>;
  presence(tenant: string, room?: string): Promise<{ users: string[]; sessions: number }>;
  disconnect(token: string, request: object): Promise<void>;
  stop(): Promise<void>;
}

export async function world({ serverArgs = [], bridgeArgs = [] }: { serverArgs?: string[]; bridgeArgs?: string[] } = {}): Promise<World> {
  const server = await startServer(["--jwt-leeway", "0s", ...serverArgs]);
  const bridge = await startBridge(server, ["--jwt-leeway", "0s", ...bridgeArgs]);
  const proxy = await Proxy.to(bridge.address);
  const python = new Producer(server.address);
  return {
    url: proxy.url,
    grpc: server.url,
    proxy,
    async publish(tenant, message, rooms) {
      const event = { chatId: 7, content: "x", channel: "CHANNEL_WABA", ...message };
      await python.call(producer(tenant), "messenger.v1.Messenger/NotifyNewMessage", { ...(rooms ? { target: { rooms } } : {}), event });
    },
    async presence(tenant, room = "") {
      const answer = await python.call(producer(tenant), "fanfare.v1.Realtime/GetPresence", { room });
      return { users: (answer.users ?? []).map((one: { userId: string }) => one.userId), sessions: Number(answer.sessionCount ?? 0) };
    },
    async disconnect(token, request) {
      await python.call(token, "fanfare.v1.Realtime/Disconnect", request);
    },
    async stop() {
      python.close();
      proxy.close();
      await bridge.stop();
      await server.stop();
    },
  };
}

const opened: { close(): void }[] = [];

/** A client of the messenger, as user 1 of a tenant; closed at the end of the test. */
export function messenger(world: { url: string }, tenant: string, options: Partial<ConnectOptions> = {}): Messenger {
  const client = connect<ServerToClientEvents, ClientToServerEvents>({
    url: world.url, token: async () => user(1, tenant), retry: QUICK, ...options,
  });
  opened.push(client);
  return client;
}

export function closeAll(): void {
  for (const client of opened.splice(0)) client.close();
}

/** Resolves as soon as a client is in this state. */
export function state(client: { status: Store<Status> }, wanted: Status["state"]): Promise<void> {
  const there = new Promise<void>((resolve) => {
    const look = (): void => void (client.status.getSnapshot().state === wanted && resolve());
    look();
    client.status.subscribe(look);
  });
  return within(there, `the status ${wanted}`);
}

/** Every status that a client goes through from here. */
export function states(client: Messenger): string[] {
  const seen: string[] = [client.status.getSnapshot().state];
  client.status.subscribe(() => {
    const { state } = client.status.getSnapshot();
    if (state !== seen.at(-1)) seen.push(state);
  });
  return seen;
}
