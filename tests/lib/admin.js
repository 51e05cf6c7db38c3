// A client of fanfare.v1.Admin over gRPC-Web: code of protoc-gen-es, transport of @connectrpc/connect-web, on Node.

import { execFileSync } from "node:child_process";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";
import { DEADLINE, ownFolder, ROOT, within } from "./fanfare.js";
import { PYTHON } from "./producer.js";
import { soon, token } from "./tokens.js";

/** Makes the code and loads it. */
async function load() {
  const out = ownFolder("web");
  const plugin = path.join(ROOT, "tests/node_modules/.bin/protoc-gen-es");
  const protos = ["fanfare/v1/admin.proto", "fanfare/v1/reason.proto", "fanfare/v1/realtime.proto", "fanfare/v1/catalog.proto", "messenger/v1/messenger.proto"];
  execFileSync(PYTHON, [
    "-m", "grpc_tools.protoc", `-I${ROOT}/proto`, `--plugin=protoc-gen-es=${plugin}`, `--es_out=${out}`, "--es_opt=target=js", ...protos,
  ], { timeout: DEADLINE });
  const outfile = path.join(out, "admin.bundle.mjs");
  const contents = `
    export * from "@connectrpc/connect";
    export * from "@connectrpc/connect-web";
    export { create, createFileRegistry, fromBinary } from "@bufbuild/protobuf";
    export { FileDescriptorSetSchema, anyPack, timestampDate } from "@bufbuild/protobuf/wkt";
    export { Admin } from "./fanfare/v1/admin_pb.js";
    export { Realtime } from "./fanfare/v1/realtime_pb.js";
    export { NewMessageSchema, TypingStartSchema } from "./messenger/v1/messenger_pb.js";`;
  await build({
    stdin: { contents, resolveDir: out }, bundle: true, platform: "node", format: "esm", outfile, logLevel: "error",
    nodePaths: [path.join(ROOT, "tests/node_modules")],
  });
  return import(pathToFileURL(outfile));
}

export const web = await load();

/** Somebody who administers one tenant, or all. */
export const admin = (tenant = "*", more = {}) => token({ sub: "ops", tenant, scopes: ["admin"], exp: soon(), ...more });

/** A client of a service, at a server or through a bridge. */
export function client(service, url, bearer) {
  const authorize = (next) => (request) => {
    if (bearer) request.header.set("authorization", `Bearer ${bearer}`);
    return next(request);
  };
  const transport = web.createGrpcWebTransport({ baseUrl: url, interceptors: [authorize], defaultTimeoutMs: DEADLINE });
  return web.createClient(service, transport);
}

/** What a call is refused with. */
export async function refused(call) {
  const error = await call.then(() => null, (error) => web.ConnectError.from(error));
  return error && { code: web.Code[error.code], message: error.rawMessage };
}

const show = (value) => JSON.stringify(value, (_, field) => (typeof field === "bigint" ? Number(field) : field));

/** An open stream whose messages are taken one by one. */
export class Stream {
  #abort = new AbortController();

  constructor(open) {
    this.messages = open({ signal: this.#abort.signal, timeoutMs: 0 })[Symbol.asyncIterator]();
  }

  /** The next message that fits; those before it are passed over. */
  async next(fits = () => true, what = "a message") {
    const end = Date.now() + DEADLINE;
    for (;;) {
      const { value, done } = await within(this.messages.next(), what);
      if (done) throw new Error(`the stream ended before ${what}`);
      if (fits(value)) return value;
      if (Date.now() > end) throw new Error(`timed out after ${DEADLINE} ms: ${what}; the last is ${show(value)}`);
    }
  }

  /** How the stream ends. */
  async end() {
    const rest = async () => { while (!(await this.messages.next()).done); };
    try {
      return await within(refused(rest()), "the end of the stream");
    } catch (error) {
      this.#abort.abort();
      throw error;
    }
  }

  async close() {
    this.#abort.abort();
    await this.messages.next().catch(() => {});
  }
}
