// The page as a whole: how it loads, what it asks for, and who can use it.

import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

import { publish, row, until, violations, withPage, write } from "./harness.mjs";


/** Makes something to see in each view. */
async function furnish({ server, client }) {
  await write(server.path("app.log"), 1, 300, (n) => `2026-12-01T12:00:00Z ${["INFO", "WARN", "ERROR"][n % 3]} request=${n}`);
  const perennial = client();
  await publish(perennial, "orders.new", Array.from({ length: 30 }, (_, n) => `{"order": ${n}}`));
  await perennial.messageService.setConsumer({ consumer: "billing", start: { case: "earliest", value: true } });
  await perennial.countdownService.createCountdown({ name: "launch", target: { case: "start", value: 3_600 } });
  await perennial.countdownService.createCountdown({ name: "tea", target: { case: "start", value: 180 } });
  await perennial.countdownService.pauseCountdown({ name: "tea" });
}

/** Each view, and a selector of something that it shows when it is there. */
const VIEWS = [
  ["#/countdowns", ".card"],
  ["#/countdowns/launch", ".ticks li"],
  ["#/lines", "tbody tr"],
  ["#/lines/logs/app.log?line=1&wrap", ".row"],
  ["#/lines/logs/missing.log?last=5&follow", ".notice.fault"],
  ["#/messages", "tbody tr"],
  ["#/messages?topics=orders.%3E&earliest", ".row"],
  ["#/server", "tbody tr"],
];

test("the files of the page have at most 100 KB, compressed", async () => {
  const dist = path.join(import.meta.dirname, "../dist");
  let sum = 0;
  for (const name of await readdir(dist)) sum += gzipSync(await readFile(path.join(dist, name)), { level: 9 }).length;
  console.log(`# ${sum} bytes`);
  assert.ok(sum <= 100_000, `${sum} bytes`);
});

test("the first response has the page, and forbids what it does not need", withPage({}, async ({ server }) => {
  const times = [];
  let policy = "";
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const from = performance.now();
    const answer = await fetch(server.url);
    times.push(performance.now() - from);
    policy = answer.headers.get("content-security-policy");
    assert.match(await answer.text(), /<p-app>/);
  }
  const [first, ...others] = times;
  console.log(`# the first response took ${first.toFixed(1)} ms, and the fastest of 19 more ${Math.min(...others).toFixed(1)} ms`);
  assert.match(policy, /default-src 'none'/);
  assert.match(policy, /script-src 'self'/);
  assert.doesNotMatch(policy, /unsafe/);
}));

test("axe finds nothing, in both schemes", withPage({}, async (tools) => {
  await furnish(tools);
  const found = [];
  for (const colorScheme of ["light", "dark"]) {
    const context = await tools.newContext({ colorScheme, reducedMotion: "reduce" });
    const page = await tools.open("#/countdowns", context);
    for (const [hash, sign] of VIEWS) {
      await page.evaluate((to) => { window.location.hash = to; }, hash);
      await page.locator(sign).first().waitFor();
      if (sign === ".row") {
        await page.locator(".row").nth(2).click();
        await page.keyboard.press("Enter");
        await page.locator(".details").waitFor();
      }
      found.push(...(await violations(page)).map((text) => `${colorScheme} ${hash} ${text}`));
    }
    await page.evaluate(() => { window.location.hash = "#/messages?topics=orders.%3E&earliest"; });
    await page.locator(".row").first().waitFor();
    await page.getByText("Publish a message").click();
    await page.getByLabel("Headers").waitFor();
    await page.getByRole("button", { name: "Copy as…" }).click();
    await page.locator(".copy pre").first().waitFor();
    found.push(...(await violations(page)).map((text) => `${colorScheme} to publish and to copy: ${text}`));
    await context.close();
  }
  assert.deepEqual(found, []);
}));

test("the keyboard alone opens a file, a line and its details, and goes back", withPage({}, async ({ server, open }) => {
  await write(server.path("app.log"), 1, 50);
  const page = await open("");
  const tabTo = async (what) => {
    for (let step = 0; step < 40; step += 1) {
      await page.keyboard.press("Tab");
      if (await page.evaluate((text) => document.activeElement?.textContent.trim() === text || document.activeElement?.getAttribute("aria-label") === text, what)) return;
    }
    throw new Error(`the key Tab does not reach ${what}`);
  };
  await tabTo("Lines");
  await page.keyboard.press("Enter");
  await page.locator("tbody tr").waitFor();
  await tabTo("logs/app.log");
  await page.keyboard.press("Enter");
  await row(page, "line 50").waitFor();
  await tabTo("Lines of logs/app.log");
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.locator(".details pre", { hasText: "line 2" }).waitFor();
  await page.keyboard.press("Escape");
  await until(page, () => document.querySelector(".details") === null);
  await page.keyboard.press("/");
  await page.keyboard.type("line 4");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Enter");
  await page.locator(".details pre", { hasText: "line 4" }).waitFor();
  await page.keyboard.press("f");
  await page.waitForURL((url) => url.hash.includes("follow"));
}));

test("the tabs of the page open at most four streams, and say so", withPage({}, async ({ server, open }) => {
  for (const name of ["a", "b", "c", "d", "e"]) await write(server.path(`${name}.log`), 1, 5, (n) => `${name} ${n}`);
  const lines = (name) => `/lines/logs/${name}.log?last=5&follow`;
  // One stream takes one slot, also while it takes it.
  const first = await open(`#${lines("a")}`, undefined, (made) => made.addInitScript(() => {
    globalThis.meters = new Set();
    const note = () => globalThis.meters.add(document.querySelector(".meter")?.textContent.trim() ?? "0/4");
    new MutationObserver(note).observe(document, { subtree: true, childList: true, characterData: true });
  }));
  await row(first, "a 5").waitFor();
  await until(first, () => globalThis.meters.has("1/4"));
  assert.deepEqual(await first.evaluate(() => [...globalThis.meters].toSorted()), ["0/4", "1/4"]);
  await first.close();
  const page = await open(`#${["a", "b", "c", "d"].map(lines).join("|")}`);
  for (const name of ["a", "b", "c", "d"]) await row(page, `${name} 5`).waitFor();
  assert.equal(await page.locator(".pane").count(), 4);
  const other = await open(`#${lines("e")}`);
  await other.getByText("keep at most 4 streams open", { exact: false }).waitFor();
  // Calls have a connection all the same.
  const server4 = await open("#/server");
  await server4.getByText("4 in other tabs", { exact: false }).waitFor();
  await page.getByRole("button", { name: "Close this pane" }).first().click();
  await row(other, "e 5").waitFor();
}));

test("the page fits a window of 360 pixels", withPage({ context: { viewport: { width: 360, height: 700 } } }, async (tools) => {
  await furnish(tools);
  const page = await tools.open("");
  for (const [hash, sign] of VIEWS) {
    await page.evaluate((to) => { window.location.hash = to; }, hash);
    await page.locator(sign).first().waitFor();
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 360, `${hash} is ${width} pixels wide`);
  }
}));
