import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const source = (file: string): string => fileURLToPath(new URL(`src/${file}`, import.meta.url));

export default defineConfig({
  resolve: {
    alias: [
      { find: /^@fanfare\/client$/, replacement: source("index.ts") },
      { find: /^@fanfare\/client\/(.*)$/, replacement: source("$1.ts") },
    ],
  },
  test: {
    include: ["tests/**/*.test.{ts,tsx}"],
    globalSetup: "tests/generate.js",
    // Each file starts real processes of its own.
    fileParallelism: false,
    testTimeout: 150_000,
    hookTimeout: 150_000,
  },
});
