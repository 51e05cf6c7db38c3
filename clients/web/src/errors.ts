// Why something did not happen, by the codes of docs/errors.md.

/** Why a connection, a session or a call ended. */
export interface Reason {
  /** Stable: a code of docs/errors.md, or one of this package's own. */
  code: string;
  /** For people. */
  message: string;
}

/** Codes whose meaning is: the same again is pointless. An unknown code is one to try again, as a lost connection is. */
const FINAL: ReadonlySet<string> = new Set([
  "no_token", "invalid_token", "token_expired", "token_revoked", "forbidden", "invalid_argument", "unknown_event", "too_large", "protocol",
  "invalid_namespace", "disconnected", "abuse", "not_found", "failed_precondition", "already_exists", "unimplemented", "revision",
]);

/** Whether a code means that the same request will not succeed later either. */
export const isFinal = (code: string): boolean => FINAL.has(code);

/** What a refusal tells besides its code and message. */
export interface Details {
  path?: string | undefined;
  retryAfterMs?: number | undefined;
  cause?: unknown;
}

/**
 * A call that was refused or had no answer. Besides the server's codes there are two:
 * `not_connected`, it was never sent; `no_answer`, it was, and nobody knows whether it has run.
 */
export class CallError extends Error {
  override readonly name = "CallError";
  /** Stable: a code of docs/errors.md, `not_connected` or `no_answer`. */
  readonly code: string;
  /** The field of the request that it is about. */
  readonly path: string | undefined;
  /** When the same may be tried again, where that is known. */
  readonly retryAfterMs: number | undefined;

  constructor(code: string, message: string, { path, retryAfterMs, cause }: Details = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.path = path;
    this.retryAfterMs = retryAfterMs;
  }

  /** The same call may succeed later. */
  get retry(): boolean {
    return !isFinal(this.code);
  }
}

/** Tells the world of an exception in a handler, which must cost neither the other handlers nor the connection. */
export function report(error: unknown): void {
  if (typeof reportError === "function") reportError(error);
  else setTimeout(() => { throw error; });
}
