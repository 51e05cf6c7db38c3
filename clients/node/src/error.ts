/** What can go wrong, as one error with the server's own reason. */

import { BinaryReader } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";
import { Reason } from "./gen/fanfare/v1/reason_pb.js";

const FINAL_FROM = 2000;

/**
 * What a broken connection looks like. Internal, Aborted and DataLoss are among them only because Connect reports reset and
 * truncated streams so; the server's own have a reason.
 */
const BROKEN = new Set([Code.Unavailable, Code.Unknown, Code.Canceled, Code.DeadlineExceeded, Code.Internal, Code.Aborted, Code.DataLoss]);

interface ErrorInfo {
  reason: string;
  domain: string;
  metadata: Record<string, string>;
}

interface Known {
  reason?: string | undefined;
  metadata?: Record<string, string>;
  retryable?: boolean;
  cause?: unknown;
}

/** A call was refused, or could not be made in time. It is a ConnectError, so that code written for plain clients catches it (which is why its `name` is that of a ConnectError). */
export class FanfareError extends ConnectError {
  /** The server's reason, e.g. "REASON_FORBIDDEN" (see docs/errors.md); absent when the connection failed. */
  readonly reason: string | undefined;
  /**
   * Whether the same request may succeed later. Publishing again is safe under the same idempotency key only.
   */
  readonly retryable: boolean;
  /** More of the server, e.g. `path`: the field that is wrong. */
  readonly info: Readonly<Record<string, string>>;

  constructor(message: string, code: Code, { reason, metadata = {}, retryable, cause }: Known = {}) {
    super(message, code, undefined, undefined, cause);
    this.reason = reason;
    this.info = metadata;
    this.retryable = retryable ?? isRetryable(code, reason);
  }

  /** `instanceof`; ConnectError's own takes every ConnectError for one of these. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && FanfareError.prototype.isPrototypeOf(value);
  }

  /** The error that a call of Connect ended with. */
  static of(error: unknown): FanfareError {
    if (error instanceof FanfareError) return error;
    const failure = ConnectError.from(error);
    const info = errorInfo(failure);
    return new FanfareError(failure.rawMessage, failure.code, { reason: info?.reason, metadata: info?.metadata ?? {}, cause: failure });
  }

  /** With REASON_RESET: from where a fresh subscription can start. */
  get cursor(): string | undefined {
    return this.info.cursor;
  }

  /** How long the server asks to wait, in milliseconds; 0 when it does not. */
  get retryAfterMs(): number {
    return Number(this.info.retry_after_millis) || 0;
  }

  /** The token itself is the matter, so that another one may do. */
  get isTokenRefused(): boolean {
    return ["REASON_TOKEN_EXPIRED", "REASON_TOKEN_REVOKED", "REASON_INVALID_TOKEN"].includes(this.reason ?? "");
  }
}

function isRetryable(code: Code, reason: string | undefined): boolean {
  const known = reason?.startsWith("REASON_") ? Reason[reason.slice("REASON_".length) as keyof typeof Reason] : undefined;
  if (known === undefined) return BROKEN.has(code);
  return known < FINAL_FROM && known !== Reason.RESET;
}

function errorInfo(error: ConnectError): ErrorInfo | undefined {
  for (const detail of error.details) {
    if (!("type" in detail) || detail.type !== "google.rpc.ErrorInfo") continue;
    const info = readErrorInfo(detail.value);
    if (info.domain === "fanfare") return info;
  }
  return undefined;
}

/** Fields 1 to 3 of google.rpc.ErrorInfo: two strings, and a map of strings. */
function readErrorInfo(bytes: Uint8Array): ErrorInfo {
  const info: ErrorInfo = { reason: "", domain: "", metadata: {} };
  fields(new BinaryReader(bytes), (number, reader) => {
    if (number === 1) info.reason = reader.string();
    else if (number === 2) info.domain = reader.string();
    else if (number === 3) {
      const entry = ["", ""];
      fields(new BinaryReader(reader.bytes()), (which, inner) => which <= 2 && ((entry[which - 1] = inner.string()), true));
      info.metadata[entry[0]!] = entry[1]!;
    } else return false;
    return true;
  });
  return info;
}

function fields(reader: BinaryReader, take: (number: number, reader: BinaryReader) => boolean): void {
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    if (!take(number, reader)) reader.skip(wireType, number);
  }
}
