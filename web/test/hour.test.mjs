// An hour of the page, by a clock that the test moves: each view beside the others, with lines, messages and ticks.

import assert from "node:assert/strict";
import { test } from "node:test";

import { entry, haveRead, heapOf, publish, until, withPage, write } from "./harness.mjs";

const MINUTES = 60;
const LINES = 3_000;
const MESSAGES = 1_500;
/** Minutes after which each list is as full as it gets. */
const FULL = 20;

test("the heap stays flat for an hour", withPage({}, async ({ server, open, client }) => {
  const log = server.path("app.log");
  await write(log, 1, 100, entry);
  const perennial = client();
  await publish(perennial, "orders.new", ["first"]);
  await perennial.countdownService.createCountdown({ name: "launch", target: { case: "start", value: 36_000 } });
  const page = await open("", undefined, (made) => made.clock.install());
  await page.evaluate(() => { window.location.hash = "#/countdowns|/lines/logs/app.log?line=1&follow|/messages?topics=orders.%3E&earliest&follow|/server"; });
  await haveRead(page, 100);
  const number = (n) => `{"order": ${n}, "text": "${"x".repeat(n % 40)}"}`;
  const heaps = [];
  for (let minute = 0; minute < MINUTES; minute += 1) {
    await write(log, 101 + minute * LINES, 100 + (minute + 1) * LINES, entry);
    const first = 1 + minute * MESSAGES;
    await publish(perennial, "orders.new", Array.from({ length: MESSAGES }, (_, n) => number(first + n)));
    for (let second = 0; second < 60; second += 5) {
      await page.clock.fastForward(4_000);
      await page.clock.runFor(1_000);
    }
    await forward(page, () => haveRead(page, 100 + (minute + 1) * LINES));
    heaps.push(await heapOf(page));
  }
  const text = heaps.map((size) => (size / 1e6).toFixed(1));
  console.log(`# the heap after each minute, in MB: ${text.join(" ")}`);
  await until(page, (last) => document.body.textContent.includes(last), number(MINUTES * MESSAGES));
  const [early, late] = [heaps.slice(FULL, 2 * FULL), heaps.slice(-FULL)].map((part) => Math.max(...part));
  assert.ok(late < early * 1.1 + 1e6, `the heap grew from ${early} to ${late}: ${text.join(" ")}`);
}));

/** Moves the clock while it waits. */
async function forward(page, wait) {
  let isDone = false;
  const waiting = wait().finally(() => (isDone = true));
  while (!isDone) await page.clock.runFor(100);
  await waiting;
}
