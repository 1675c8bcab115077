import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { test } from "node:test";

import { PerennialError } from "../dist/node.js";
import { append, withServer } from "./harness.js";

const LIMIT = { timeout: 60_000 };

/** Takes the changes of a response, and returns whether all files come again. */
function take(files, { events, changes }) {
  const isRelisted = events.some(({ event }) => event.case === "relisted");
  if (isRelisted) files.clear();
  for (const { change } of changes) {
    if (change.case === "added") {
      assert.ok(!files.has(change.value.path), `${change.value.path} comes twice`);
      files.add(change.value.path);
    } else {
      files.delete(change.value.path);
    }
  }
  return isRelisted;
}

test("files that match globs are watched over a server that is killed", LIMIT, withServer([], async ({ server, client }) => {
  for (const name of ["a.log", "a.txt"]) await append(server.path(name), 0, 1);
  const made = client();
  const files = new Set();
  let relisted = 0;
  const responses = made.watchFiles({ globs: ["logs/**/*.log"], heartbeat: { seconds: 1n } });
  const until = async (...wanted) => {
    while ([...files].sort().join() !== wanted.join()) {
      const { value, done } = await responses.next();
      assert.ok(!done);
      if (take(files, value)) relisted += 1;
    }
  };
  await until("logs/a.log");
  await append(server.path("b.log"), 0, 1);
  await until("logs/a.log", "logs/b.log");
  await server.kill();
  await append(server.path("c.log"), 0, 1);
  await rm(server.path("a.log"));
  await server.start();
  await until("logs/b.log", "logs/c.log");
  assert.equal(relisted, 1);
  await responses.return();

  const all = new Set();
  for await (const response of made.watchFiles({ globs: ["logs"], untilCaughtUp: true })) take(all, response);
  assert.deepEqual([...all], ["logs/a.txt", "logs/b.log", "logs/c.log"]);
  const one = new Set();
  for await (const response of made.watchFiles({ globs: ["logs"], limit: 1n })) take(one, response);
  assert.deepEqual([...one], ["logs/a.txt"]);

  const isMissing = (error) => error instanceof PerennialError && error.reason === "FILE_NOT_FOUND";
  await assert.rejects(made.watchFiles({ globs: ["none/*"] }).next(), isMissing);
  const over = new AbortController();
  const quiet = made.watchFiles({ globs: ["logs/none"] }, { signal: over.signal });
  while (!(await quiet.next()).value.caughtUp);
  over.abort(new Error("enough"));
  await assert.rejects(quiet.next(), /enough/);
}));
