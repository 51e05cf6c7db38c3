// What a bundle holds of the built package: only what it uses. Needs `npm run build`.

import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { expect, test } from "vitest";
import { ROOT } from "../../../tests/lib/fanfare.js";

const PEERS = ["socket.io-client", "react", "vue", "@bufbuild/protobuf", "@bufbuild/protobuf/wire", "@connectrpc/connect"];
/** The core without the stock client, minified and compressed. Raise it knowingly. */
const CORE_BYTES_MAX = 6 * 1024;

async function bundle(code: string): Promise<{ files: string[]; imports: string[]; bytes: number; text: string }> {
  const { metafile, outputFiles } = await build({
    stdin: { contents: code, resolveDir: `${ROOT}/clients/web`, loader: "js" },
    bundle: true, minify: true, format: "esm", platform: "browser", target: "es2022", write: false, metafile: true, external: PEERS, tsconfigRaw: {}, logLevel: "error",
  });
  const [output] = Object.values(metafile.outputs);
  const { text, contents } = outputFiles[0]!;
  const used = Object.entries(output!.inputs).filter(([name, { bytesInOutput }]) => name !== "<stdin>" && bytesInOutput > 0);
  const imports = output!.imports.map((one) => one.path);
  return { files: used.map(([name]) => name.replace(/^.*dist\//, "")).sort(), imports, bytes: gzipSync(contents).length, text };
}

test("the core holds nothing of React, Vue and gRPC, and is small", async () => {
  const core = await bundle(`import { connect } from "@fanfare/client"; window.client = connect({});`);
  expect(core.files).toEqual(["calls.js", "client.js", "connection.js", "errors.js", "retry.js", "rooms.js", "status.js", "store.js", "token.js"]);
  expect(core.imports).toEqual(["socket.io-client"]);
  expect(core.bytes).toBeLessThan(CORE_BYTES_MAX);
});

test("what is not used is not there", async () => {
  expect(await bundle(`import "@fanfare/client"; import "@fanfare/client/react"; import "@fanfare/client/vue"; import "@fanfare/client/grpc-web";`))
    .toMatchObject({ files: [], imports: [] });
  const one = await bundle(`import { isFinal } from "@fanfare/client"; window.final = isFinal("slow");`);
  expect(one).toMatchObject({ files: ["errors.js"], imports: [] });
});

test("each entry brings its own framework only", async () => {
  const entry = async (code: string): Promise<string[]> => [...new Set((await bundle(code)).imports)].sort();
  expect(await entry(`import { useStatus } from "@fanfare/client/react"; window.use = useStatus;`)).toEqual(["react"]);
  expect(await entry(`import { useStatus } from "@fanfare/client/vue"; window.use = useStatus;`)).toEqual(["vue"]);
  expect(await entry(`import { subscribe } from "@fanfare/client/grpc-web"; window.use = subscribe;`)).toEqual(["@bufbuild/protobuf/wire", "@connectrpc/connect"]);
});
