// Builds the Socket.IO client into the file that the bridge serves as socket.io.js.

import { defineConfig } from "vite";

export default defineConfig({
  build: {
    outDir: "../../bridge/client",
    emptyOutDir: true,
    target: "es2022",
    lib: { entry: "client/main.js", formats: ["iife"], name: "io", fileName: () => "socket.io.js" },
  },
});
