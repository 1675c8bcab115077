import assert from "node:assert/strict";
import { rename, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import {
  ClosedError,
  CountdownChange,
  ErrorReason,
  FileStore,
  MemoryStore,
  OnLag,
  PerennialError,
  StateError,
  lineText,
} from "../dist/node.js";
import { append, collect, failure, text, withServer } from "./harness.js";

const LIMIT = { timeout: 60_000 };

test("a log is followed across a rotation, line by line", LIMIT, withServer([], async ({ server, client, proxy }) => {
  const lines = 30_000;
  const cutting = await proxy(200_000);
  const file = server.path("app.log");
  await append(file, 0, lines / 3);
  const over = new AbortController();
  async function write() {
    for (let start = lines / 3; start < lines && !over.signal.aborted; start += 500) {
      await append(file, start, start + 500);
      if (start === lines / 2) await rename(file, `${file}.1`);
      if (start === (lines * 2) / 3) await server.restart();
      await sleep(10);
    }
  }
  let writer;
  let next = 0;
  let rotations = 0;
  const request = { path: "logs/app.log", follow: true, waitForCreate: true };
  try {
    for await (const item of client(cutting.url).readLines(request, { signal: over.signal, events: true })) {
      if (item.case === "event" && item.value.event.case === "rotated") rotations += 1;
      if (item.case !== "line") continue;
      writer ??= write().catch((error) => over.abort(error));
      assert.deepEqual([next, lineText(item.value)], [next, text(next)]);
      next += 1;
      if (next === lines) break;
    }
  } finally {
    over.abort();
    await writer;
  }
  assert.equal(rotations, 1);
  assert.ok(cutting.cuts > 0, "nothing was cut");
  console.log(`# ${next} lines over ${cutting.cuts} cuts`);
}));

test("every number of a shared countdown is delivered or counted", LIMIT, withServer([], async ({ server, client, proxy }) => {
  const cutting = await proxy(5_000);
  const { countdownService: calls } = client();
  const interval = { seconds: 0n, nanos: 5_000_000 };
  await calls.createCountdown({ name: "show", target: { case: "start", value: 400 }, interval });
  // While it is paused, the time that is left says how many numbers are still to come.
  const { countdown } = await calls.pauseCountdown({ name: "show" });
  const left = Math.ceil(countdown.remainingDuration.nanos / interval.nanos + Number(countdown.remainingDuration.seconds) * 200);
  setTimeout(() => calls.resumeCountdown({ name: "show" }), 200);
  const seen = [];
  const changes = [];
  let skipped = 0;
  let isKilled = false;
  for await (const item of client(cutting.url).countdown({ target: { case: "name", value: "show" } }, { events: true })) {
    if (item.case === "skipped") skipped += Number(item.ticks);
    else if (item.case === "event") changes.push(item.value.event.value.change);
    else {
      seen.push(item.value.remaining);
      if (!isKilled && seen.length > 100) {
        isKilled = true;
        await server.restart();
      }
    }
  }
  assert.equal(seen.length + skipped, left);
  assert.deepEqual(seen, [...new Set(seen)].sort((a, b) => b - a));
  assert.equal(seen.at(-1), 0);
  assert.deepEqual(changes, [CountdownChange.RESUMED, CountdownChange.ENDED]);
  assert.ok(cutting.cuts > 0, "nothing was cut");
}));

test("a program that dies after any item continues with the next one", LIMIT, withServer([], async ({ server, client }) => {
  const made = client();
  await append(server.path("a.log"), 0, 40);
  const publisher = made.publisher();
  for (let n = 0; n < 40; n += 1) await publisher.publish({ topic: `t.${n % 3}`, content: { case: "text", value: `${n}` } });
  await publisher.close();
  const kinds = {
    lines: (options) => [made.readLines({ path: "logs/a.log" }, options), lineText],
    messages: (options) => [
      made.messages({ topics: ["t.>"], start: { case: "earliest", value: true }, untilCaughtUp: true }, options),
      ({ content }) => content.value,
    ],
    countdown: (options) => [
      made.countdown({ target: { case: "start", value: 20 }, interval: { nanos: 1e6 }, onLag: OnLag.BURST }, options),
      ({ remaining }) => remaining,
    ],
  };
  for (const [kind, open] of Object.entries(kinds)) {
    const [stream, name] = open({});
    const all = [];
    for await (const item of stream) all.push([name(item), stream.state]);
    assert.ok(all.length > 20, kind);
    for (const [n, [, state]] of all.entries()) {
      const rest = (await collect(open({ state })[0])).map(name);
      assert.deepEqual(rest, all.slice(n + 1).map(([found]) => found), `${kind} after ${state}`);
    }
  }
}));

test("the rest of a line that grew is handed out", LIMIT, withServer([], async ({ server, client }) => {
  const made = client();
  await writeFile(server.path("a.log"), "one\ntwo\nthr");
  const stream = made.readLines({ path: "logs/a.log" });
  await stream.next();
  const { cursor } = JSON.parse(stream.state);
  await stream.return();
  const state = JSON.stringify({ version: 1, kind: "lines", cursor, after: { switches: 0, offset: "8", bytes: "3" } });
  await writeFile(server.path("a.log"), "one\ntwo\nthree\nfour\n");
  const got = await collect(made.readLines({ path: "logs/a.log" }, { state }));
  assert.deepEqual(got.map((line) => [line.offset, lineText(line), line.continued]), [[11n, "ee", true], [14n, "four", false]]);
}));

test("a store in a file continues after the last processed item", LIMIT, withServer([], async ({ server, client }) => {
  const made = client();
  await append(server.path("a.log"), 0, 30);
  const file = path.join(server.directory, "state");
  let next = 0;
  for (let run = 0; next < 30; run += 1) {
    assert.ok(run < 100, `only ${next} lines`);
    let taken = 0;
    for await (const line of made.readLines({ path: "logs/a.log" }, { store: new FileStore(file) })) {
      // The loop is left with a line in hand, which is not processed: it comes again.
      if (taken === 7) break;
      assert.equal(lineText(line), text(next));
      next += 1;
      taken += 1;
    }
  }
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  for (const damaged of ["", " \n", "{", '{"version":2}', '{"version":1,"kind":"messages","cursor":"a"}']) {
    await writeFile(file, damaged);
    const error = await failure(made.readLines({ path: "logs/a.log" }, { store: new FileStore(file) }));
    assert.ok(error instanceof StateError && error.place === file, `${error}`);
  }
}));

test("a store is saved at most once in the given time, and at the end", LIMIT, withServer([], async ({ server, client }) => {
  await append(server.path("a.log"), 0, 5_000);
  const store = new MemoryStore();
  let saves = 0;
  const counting = { load: () => store.load(), save: (state) => ((saves += 1), store.save(state)) };
  await collect(client().readLines({ path: "logs/a.log" }, { store: counting, saveEveryMs: 60_000 }));
  assert.equal(saves, 2);
  assert.deepEqual(await collect(client().readLines({ path: "logs/a.log" }, { store })), []);
}));

test("a limit counts over cuts and over a state", LIMIT, withServer([], async ({ server, client, proxy }) => {
  const cutting = await proxy(300_000);
  const made = client(cutting.url);
  await append(server.path("a.log"), 0, 20_000);
  const request = { path: "logs/a.log", limit: 12_345n };
  const stream = made.readLines(request);
  let count = 0;
  let state;
  for await (const _ of stream) {
    count += 1;
    if (count === 1_000) state = stream.state;
  }
  assert.equal(count, 12_345);
  assert.ok(cutting.cuts > 0, "nothing was cut");
  assert.equal((await collect(made.readLines(request, { state }))).length, 12_345);
}));

test("a stream that falls silent continues on another connection", LIMIT, withServer([], async ({ server, client, proxy }) => {
  const gate = await proxy();
  await append(server.path("a.log"), 0, 10);
  const request = { path: "logs/a.log", follow: true, heartbeat: { nanos: 200_000_000 } };
  let reason;
  const onRetry = (error) => {
    reason = error;
    gate.isSilent = false;
  };
  let next = 0;
  for await (const line of client(gate.url).readLines(request, { onRetry })) {
    assert.equal(lineText(line), text(next));
    next += 1;
    if (next === 10) {
      gate.isSilent = true;
      await append(server.path("a.log"), 10, 20);
    }
    if (next === 20) break;
  }
  assert.match(`${reason}`, /nothing arrived/);
  assert.ok(gate.connections >= 2, `${gate.connections} connections`);
}));

test("a first call without a server fails after the connect timeout, and an outage is bounded where the caller bounds it",
  LIMIT, withServer([], async ({ server, client }) => {
    await append(server.path("a.log"), 0, 1);
    const request = { path: "logs/a.log", follow: true };
    let start = performance.now();
    const stream = client().readLines(request, { maxOutageMs: 1_000 });
    await stream.next();
    await server.kill();
    start = performance.now();
    const outage = await failure(stream);
    assert.ok(outage instanceof PerennialError && outage.isRetryable, `${outage}`);
    assert.ok(performance.now() - start < 3_000);
    start = performance.now();
    const first = await failure(client().readLines(request, { connectTimeoutMs: 1_000 }));
    assert.ok(first instanceof PerennialError && first.isRetryable, `${first}`);
    assert.ok(performance.now() - start < 3_000);
  }));

test("a signal, a deadline and a closed client end the stream at once", LIMIT, withServer([], async ({ server, client }) => {
  await append(server.path("a.log"), 0, 1);
  const request = { path: "logs/a.log", follow: true };
  const controller = new AbortController();
  const cancelled = new Error("enough");
  let at;
  setTimeout(() => {
    at = performance.now();
    controller.abort(cancelled);
  }, 500);
  assert.equal(await failure(client().readLines(request, { signal: controller.signal })), cancelled);
  assert.ok(performance.now() - at < 100, `${performance.now() - at} ms`);

  const deadline = await failure(client().readLines(request, { timeoutMs: 300 }));
  assert.ok(deadline instanceof PerennialError && deadline.code === 4 && !deadline.isRetryable, `${deadline}`);

  const closing = client();
  setTimeout(() => closing.close(), 300);
  assert.ok((await failure(closing.readLines(request))) instanceof ClosedError);
  assert.ok((await failure(closing.readLines(request))) instanceof ClosedError);

  // Also while the stream waits between two attempts.
  await server.kill();
  const waiting = await failure(client().readLines(request, { timeoutMs: 300 }));
  assert.ok(waiting instanceof PerennialError && waiting.code === 4, `${waiting}`);
}));

test("a refused call has its reason and is not tried again", LIMIT, withServer([], async ({ client }) => {
  const { countdownService } = client();
  const missing = await failure(countdownService.getCountdown({ name: "missing" }));
  assert.ok(missing instanceof PerennialError, `${missing}`);
  assert.deepEqual([missing.reasonCode, missing.isRetryable], [ErrorReason.COUNTDOWN_NOT_FOUND, false]);
  const wrong = await failure(client().countdown({}));
  assert.ok(wrong instanceof PerennialError && wrong.field !== "", `${wrong}`);
  assert.deepEqual([wrong.reason, wrong.isRetryable], ["INVALID_FIELD", false]);
}));

test("a save that comes later has the state of its own item", LIMIT, withServer([], async ({ server, client }) => {
  await append(server.path("a.log"), 0, 9);
  const made = client();
  for (let count = 1; count < 9; count += 1) {
    const store = new MemoryStore();
    // The responses have 1, 3, 3 and 2 lines.
    const request = { path: "logs/a.log", maxBatch: 3 };
    let handedOut = 0;
    for await (const _ of made.readLines(request, { store, saveEveryMs: 3_600_000 })) {
      handedOut += 1;
      if (handedOut === count) break;
    }
    const rest = (await collect(made.readLines(request, { store }))).map(lineText);
    // The line in hand was not processed.
    assert.deepEqual(rest, Array.from({ length: 10 - count }, (_, n) => text(count - 1 + n)), `after ${count}`);
  }
}));

test("the state at an event is that before it", LIMIT, withServer([], async ({ server, client }) => {
  await append(server.path("a.log"), 0, 3);
  const made = client();
  const stream = made.readLines({ path: "logs/a.log" });
  await stream.next();
  await stream.next();
  const { state } = stream;
  await stream.return();
  const again = made.readLines({ path: "logs/a.log" }, { state, events: true });
  const { value } = await again.next();
  assert.equal(value.case, "event");
  assert.equal(again.state, state);
  await again.return();
}));

test("a deadline of months is not one that has passed", LIMIT, withServer([], async ({ server, client }) => {
  await append(server.path("a.log"), 0, 3);
  const timeoutMs = 30 * 24 * 3_600_000;
  assert.equal((await collect(client().readLines({ path: "logs/a.log" }, { timeoutMs }))).length, 3);
}));

test("a token that cannot be read is not tried again", LIMIT, withServer([], async ({ server, client }) => {
  const missing = { tokenFile: path.join(server.directory, "no-token") };
  const start = performance.now();
  const error = await failure(client(server.url, missing).readLines({ path: "logs/a.log" }));
  assert.ok(error instanceof PerennialError && error.code === 16 && !error.isRetryable, `${error}`);
  assert.ok(performance.now() - start < 5_000);
}));
