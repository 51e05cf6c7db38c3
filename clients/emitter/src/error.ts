/** What can go wrong, with the server's own reason. */

/** Reasons below 2000: the same request may succeed later. RESET is of subscriptions only. */
const RETRY = new Set(["SHUTDOWN", "UNAVAILABLE", "SLOW", "LIMIT", "INTERNAL", "TIMEOUT", "RECONNECT", "ABORTED"].map((name) => `REASON_${name}`));
/** Codes of answers without a reason, which come from the connection or a proxy. */
const BROKEN = new Set(["unavailable", "unknown", "canceled", "deadline_exceeded", "internal", "aborted", "data_loss"]);

interface Detail {
  type?: string;
  debug?: { reason?: string; domain?: string; metadata?: Record<string, string> };
}

/** An event was refused, or could not be published in time. */
export class EmitterError extends Error {
  override readonly name = "EmitterError";

  constructor(
    message: string,
    /** The code of the Connect protocol, e.g. "invalid_argument". */
    readonly code: string,
    /** The server's reason, e.g. "REASON_UNKNOWN_EVENT" (docs/errors.md); absent when the connection failed. */
    readonly reason?: string,
    /** More of the server, e.g. `path`: the field that is wrong. */
    readonly info: Readonly<Record<string, string>> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** Whether the same request may succeed later. */
  get retryable(): boolean {
    return this.reason === undefined ? BROKEN.has(this.code) : RETRY.has(this.reason);
  }

  /** How long the server asks to wait, in milliseconds; 0 when it does not. */
  get retryAfterMs(): number {
    return Number(this.info.retry_after_millis) || 0;
  }

  /** The error of an answer of the Connect protocol. */
  static async of(response: Response): Promise<EmitterError> {
    const text = await response.text();
    try {
      const { code, message, details = [] } = JSON.parse(text) as { code?: string; message?: string; details?: Detail[] };
      const info = details.find((detail) => detail.type === "google.rpc.ErrorInfo" && detail.debug?.domain === "fanfare")?.debug;
      if (typeof code === "string") return new EmitterError(message ?? code, code, info?.reason, info?.metadata);
    } catch {
      // Not of Fanfare: a proxy.
    }
    const code = response.status >= 500 ? "unavailable" : "unknown";
    return new EmitterError(`HTTP ${response.status}: ${text.slice(0, 200)}`, response.status < 500 ? "failed_precondition" : code);
  }
}
