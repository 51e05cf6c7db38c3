// What a refusal over gRPC-Web says: the google.rpc.ErrorInfo in its details, read without generated code.

import { BinaryReader } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";
import { CallError } from "./errors.js";

/** A refusal, and where the log stands when the cursor was too old. */
export interface Refusal {
  error: CallError;
  cursor: string | undefined;
}

/** Statuses that come from elsewhere than Fanfare and mean that the same again is pointless. */
const FINAL: ReadonlyMap<Code, string> = new Map([
  [Code.InvalidArgument, "invalid_argument"],
  [Code.NotFound, "not_found"],
  [Code.AlreadyExists, "already_exists"],
  [Code.PermissionDenied, "forbidden"],
  [Code.FailedPrecondition, "failed_precondition"],
  [Code.Unimplemented, "unimplemented"],
  [Code.Unauthenticated, "invalid_token"],
]);

/** Reads what was thrown. */
export function refusal(thrown: unknown): Refusal {
  const cause = ConnectError.from(thrown);
  const detail = cause.details.find((one) => "type" in one && one.type === "google.rpc.ErrorInfo");
  const info = detail && "value" in detail && detail.value instanceof Uint8Array ? read(detail.value) : undefined;
  if (info?.domain !== "fanfare") {
    return { error: new CallError(FINAL.get(cause.code) ?? "unreachable", cause.rawMessage, { cause }), cursor: undefined };
  }
  const code = info.reason.replace(/^REASON_/, "").toLowerCase();
  const wait = Number(info.metadata.get("retry_after_millis"));
  const retryAfterMs = wait > 0 ? wait : undefined;
  return { error: new CallError(code, cause.rawMessage, { retryAfterMs, cause }), cursor: info.metadata.get("cursor") };
}

/** google.rpc.ErrorInfo: reason = 1, domain = 2, map<string, string> metadata = 3. */
function read(bytes: Uint8Array): { reason: string; domain: string; metadata: Map<string, string> } {
  const info = { reason: "", domain: "", metadata: new Map<string, string>() };
  fields(bytes, (field, reader) => {
    if (field === 1) info.reason = reader.string();
    else if (field === 2) info.domain = reader.string();
    else if (field === 3) {
      const entry = ["", "", ""];
      fields(reader.bytes(), (part, inner) => (part === 1 || part === 2) && (entry[part] = inner.string(), true));
      info.metadata.set(entry[1]!, entry[2]!);
    } else return false;
    return true;
  });
  return info;
}

/** Goes through the fields of a message; `take` says whether it has read one. */
function fields(bytes: Uint8Array, take: (field: number, reader: BinaryReader) => boolean): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (!take(field, reader)) reader.skip(type, field);
  }
}
