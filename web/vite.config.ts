import { defineConfig } from "vite";

// The built files are committed, so that the server builds without Node, and CI compares them with a fresh build. Their names
// are stable: a change of the page is a change of files, and not of names.
export default defineConfig({
  base: "./",
  resolve: { dedupe: ["@bufbuild/protobuf", "@connectrpc/connect"] },
  build: {
    target: "es2022",
    // Colours of both schemes are one declaration each, by light-dark().
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    // A data URL would need an exception in the content security policy of the server.
    assetsInlineLimit: 0,
    modulePreload: false,
    reportCompressedSize: true,
    rolldownOptions: {
      output: {
        entryFileNames: "page.js",
        assetFileNames: "page[extname]",
        codeSplitting: false,
      },
    },
  },
});
