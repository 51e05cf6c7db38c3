// Builds the four pages into dist/, one folder a product.

import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const pages = ["messenger", "todo", "dialogs", "chat"];

export default defineConfig({
  base: "./",
  plugins: [react()],
  build: {
    rollupOptions: { input: Object.fromEntries(pages.map((page) => [page, `${page}/index.html`])) },
  },
});
