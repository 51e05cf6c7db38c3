// Builds the console into the folder that the bridge embeds.

import { defineConfig } from "vite";

export default defineConfig({
  // The bridge serves the page at "/" and its files beside it.
  base: "./",
  build: {
    outDir: "../../bridge/console",
    emptyOutDir: true,
    target: "es2022",
    // The page's policy allows files of its own origin only: nothing inline, no data: addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    // `npm run dev` shows a running `fanfare dev`.
    proxy: {
      "^/(console/config.json|fanfare\\.v1\\.)": { target: "http://127.0.0.1:3000" },
      "/socket.io": { target: "http://127.0.0.1:3000", ws: true },
    },
  },
});
