/// <reference types="vitest/config" />
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** `<!-- part NAME -->` in a page is src/parts/NAME.html: what several pages have alike. */
const parts: Plugin = {
  name: "parts",
  transformIndexHtml: {
    order: "pre",
    handler: (html) =>
      html.replace(/ *<!-- part (\w+) -->\n/g, (_, name: string) =>
        readFileSync(at(`src/parts/${name}.html`), "utf8"),
      ),
  },
};

/** The typeface is served with its licence, as that asks for; Vite collects those of scripts. */
const fontLicence: Plugin = {
  name: "font-licence",
  generateBundle() {
    const source = readFileSync(at("node_modules/@fontsource-variable/atkinson-hyperlegible-next/LICENSE"));
    this.emitFile({ type: "asset", fileName: "assets/atkinson-hyperlegible-next-LICENSE.txt", source });
  },
};

export default defineConfig({
  plugins: [parts, fontLicence],
  // Relative addresses: the pages work behind any path prefix.
  base: "./",
  build: {
    outDir: at("../agent/nemostream_agent/gateway/pages"),
    emptyOutDir: true,
    target: "es2022",
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    // No data: URLs and no inline scripts: a strict Content-Security-Policy holds.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: { fileName: "licenses.md" },
    // livekit-client is one chunk of half a megabyte, loaded by the pages that talk to a LiveKit server.
    chunkSizeWarningLimit: 700,
    rolldownOptions: {
      input: [
        "index.html",
        "solo/index.html",
        "room/index.html",
        "socket/index.html",
        "overlay/index.html",
      ].map(at),
    },
  },
  server: {
    proxy: {
      "^/(config.json|whip|rooms|livekit|v1)": {
        target: process.env.GATEWAY ?? "http://127.0.0.1:8000",
        ws: true,
      },
    },
  },
  test: { include: ["test/**/*.test.ts"] },
});
