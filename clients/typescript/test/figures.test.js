// The figures of the manual, which take minutes: PERENNIAL_FIGURES=1 node --test test/figures.test.js.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { lineText } from "../dist/node.js";
import { append, text, withServer } from "./harness.js";

const options = { skip: process.env.PERENNIAL_FIGURES ? false : "PERENNIAL_FIGURES is not set", timeout: 600_000 };

test("a million lines through twenty kills arrive once", options, withServer([], async ({ server, client }) => {
  const [lines, kills] = [1_000_000, 20];
  const file = server.path("app.log");
  await append(file, 0, 1);
  const writer = (async () => {
    for (let from = 1; from < lines; from += 20_000) {
      await append(file, from, Math.min(from + 20_000, lines));
      await sleep(200);
    }
  })();
  const killer = (async () => {
    for (let n = 0; n < kills; n += 1) {
      await sleep(300 + Math.random() * 200);
      await server.restart();
    }
  })();
  let [next, attempts] = [0, 1];
  const start = performance.now();
  for await (const line of client().readLines({ path: "logs/app.log", follow: true }, { onRetry: () => (attempts += 1) })) {
    if (lineText(line) !== text(next)) assert.fail(`line ${next} is ${lineText(line)}`);
    next += 1;
    if (next === lines) break;
  }
  await Promise.all([writer, killer]);
  console.log(`# ${next} lines through ${kills} kills, each once, over ${attempts} attempts, in ${performance.now() - start} ms`);
}));

test("a stream is back after an outage of thirty seconds", options, withServer([], async ({ server, client }) => {
  const file = server.path("app.log");
  await append(file, 0, 1);
  let back;
  for await (const line of client().readLines({ path: "logs/app.log", follow: true })) {
    if (lineText(line) === text(1)) break;
    await server.kill();
    await append(file, 1, 2);
    setTimeout(() => server.start().then(() => (back = performance.now())), 30_000);
  }
  const took = performance.now() - (back ?? performance.now());
  console.log(`# back ${took} ms after the server`);
  assert.ok(took < 2_500, `${took} ms`);
}));
