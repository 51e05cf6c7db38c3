// How a connection is, as pages show it.

import type { Reason } from "./errors.js";

/** How things are. `attempt` counts from 0; `cause` is why the last attempt or connection failed. */
export type Status =
  | { readonly state: "connecting" | "reconnecting" | "offline"; readonly attempt: number; readonly cause?: Reason }
  | { readonly state: "connected"; readonly recovered: boolean }
  | { readonly state: "ended"; readonly reason: Reason };

/** Where it stands before it was opened, and on a machine that only renders pages. */
export const INITIAL: Status = Object.freeze({ state: "connecting", attempt: 0 });
