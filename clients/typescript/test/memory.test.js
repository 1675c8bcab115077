// What a long stream holds. It is a file of its own, because the heap of a process is measured.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { append, text, withServer } from "./harness.js";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc");

function heapBytes() {
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

test("a stream does not hold the lines that it has handed out", { timeout: 300_000 }, withServer([], async ({ server, client }) => {
  const [lines, allowed] = [300_000, 20 << 20];
  await append(server.path("app.log"), 0, lines);
  let [count, first] = [0, 0];
  for await (const line of client().readLines({ path: "logs/app.log" })) {
    count += 1;
    if (count === 20_000) first = heapBytes();
    if (count === lines) {
      const grown = heapBytes() - first;
      assert.ok(grown < allowed, `the heap grew by ${grown >> 20} MiB over ${lines} lines`);
      assert.equal(line.content.value, text(lines - 1));
    }
  }
  assert.equal(count, lines);
}));
