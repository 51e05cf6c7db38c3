// Makes what `fanfare types`, protoc-gen-es and protoc make of the catalogs: for `npm run check`, and once before the tests.

import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { BINARY, DEADLINE, ROOT } from "../../../tests/lib/fanfare.js";
import { PYTHON, generateStubs } from "../../../tests/lib/producer.js";

export default function generate() {
  generateStubs();
  const here = path.join(ROOT, "clients/web");
  const out = path.join(here, "tests/generated");
  mkdirSync(out, { recursive: true });
  const packages = ["--package", "messenger.v1", "--package", "chat.v1"];
  execFileSync(BINARY, ["types", ...packages, "--out", path.join(out, "events.ts")], { timeout: DEADLINE });
  execFileSync(PYTHON, [
    "-m", "grpc_tools.protoc", `-I${ROOT}/proto`, `--plugin=protoc-gen-es=${here}/node_modules/.bin/protoc-gen-es`, `--es_out=${out}`,
    "--es_opt=target=ts", "fanfare/v1/realtime.proto", "fanfare/v1/catalog.proto", "messenger/v1/messenger.proto",
  ], { timeout: DEADLINE });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) generate();
