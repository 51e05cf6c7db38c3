// The catalog that these tests speak, registered as an application does it.

import type { ClientToServerEvents, ServerToClientEvents } from "./generated/events.js";

declare module "@fanfare/client" {
  interface Register {
    events: ServerToClientEvents;
    calls: ClientToServerEvents;
  }
}
