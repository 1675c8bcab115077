// The lines of files in the page.

import assert from "node:assert/strict";
import { appendFile, rename, rm } from "node:fs/promises";
import { test } from "node:test";

import { entry, haveRead, placeOf, row, trace, until, withPage, write } from "./harness.mjs";

test("lines follow, and a search finds those that are loaded", withPage({}, async ({ server, open }) => {
  const log = server.path("app.log");
  await write(log, 1, 500);
  const page = await open("#/lines");
  await page.getByRole("link", { name: "logs/app.log" }).click();
  await row(page, "line 500").waitFor();
  await write(log, 501, 501);
  await row(page, "line 501").waitFor();
  await page.getByText("live", { exact: true }).waitFor();
  await page.getByRole("searchbox").fill("LINE 45");
  await page.getByText("10 loaded").waitFor();
  await page.getByRole("searchbox").press("Enter");
  await until(page, () => /of 10 loaded/.test(document.querySelector(".found").textContent));
  assert.equal(await page.locator(".row[aria-selected=true] mark").first().textContent(), "line 45");
}));

test("a jump goes to a line, an offset, and the last lines", withPage({}, async ({ server, open }) => {
  await write(server.path("app.log"), 1, 3_000);
  const page = await open("#/lines/logs/app.log?line=1000");
  await row(page, "line 1000").waitFor();
  assert.equal(await page.locator(".row").first().locator(".gutter").textContent(), "1000");
  await page.getByLabel("Start at").selectOption("offset");
  await page.getByRole("spinbutton").fill("7");
  await page.getByRole("button", { name: "Go" }).click();
  await until(page, () => document.querySelector(".row .text")?.textContent === "line 2");
  await page.getByLabel("Start at").selectOption("last");
  await page.getByRole("spinbutton").fill("3");
  await page.getByRole("button", { name: "Go" }).click();
  await until(page, () => document.querySelectorAll(".row").length === 3);
  await page.getByLabel("Wrap").check();
  await page.waitForURL((url) => url.hash.includes("wrap"));
}));

test("a stream resumes after kill -9, and the page says so", withPage({}, async ({ server, open }) => {
  const log = server.path("app.log");
  await write(log, 1, 10);
  const page = await open("#/lines/logs/app.log?last=200&follow");
  await row(page, "line 10").waitFor();
  await server.kill();
  await page.getByText("connection lost", { exact: false }).first().waitFor();
  await write(log, 11, 20);
  await server.start();
  const from = performance.now();
  await row(page, "line 20").waitFor();
  console.log(`# resumed ${Math.round(performance.now() - from)} ms after the server was back`);
  await page.getByText("the stream resumed: no line is missing").waitFor();
  const texts = await page.locator(".row .text").allTextContents();
  assert.deepEqual(texts, Array.from({ length: 20 }, (_, n) => `line ${n + 1}`));
}));

test("a link opens on exactly its line, also after rotations", withPage({}, async ({ server, open }) => {
  const log = server.path("app.log");
  await write(log, 1, 400);
  const page = await open("#/lines/logs/app.log?line=1");
  await row(page, "line 7").click();
  await until(page, () => document.querySelector(".row[aria-selected=true] .text")?.textContent === "line 7");
  const hash = await placeOf(page, "cursor");
  // From the last lines, too: there the stream gives no cursor before its first line.
  const other = await open("#/lines/logs/app.log?last=5&follow");
  await row(other, "line 396").click();
  const first = await placeOf(other, "cursor");
  await rename(log, `${log}.1`);
  await write(log, 401, 410);
  await row(other, "line 410").waitFor();
  for (const [link, text] of [[hash, "line 7"], [first, "line 396"]]) {
    const opened = await open(link);
    await opened.locator(".row[aria-selected=true]").waitFor();
    const rows = opened.locator(".row .text");
    assert.equal(await rows.first().textContent(), text);
    assert.equal(await opened.locator(".row[aria-selected=true] .text").textContent(), text);
    await opened.getByLabel("Follow").check();
    await row(opened, "line 410").waitFor();
    await opened.getByText("the file was rotated", { exact: false }).first().waitFor();
    await opened.close();
  }
}));

test("a gap is shown", withPage({}, async ({ server, open }) => {
  const log = server.path("app.log");
  await write(log, 1, 100);
  const page = await open("#/lines/logs/app.log?line=1");
  await row(page, "line 9").click();
  const hash = await placeOf(page, "cursor");
  await page.close();
  await rm(log);
  await write(log, 1, 5, (n) => `other ${n}`);
  const opened = await open(hash);
  await opened.locator(".row.gap").getByText("gap: lines are missing here", { exact: false }).waitFor();
  await row(opened, "other 5").waitFor();
}));

test("earlier lines are read, and the list stays at its line", withPage({}, async ({ server, open }) => {
  await write(server.path("app.log"), 1, 60_000);
  const page = await open("#/lines/logs/app.log?last=5");
  await row(page, "line 60000").waitFor();
  await page.getByRole("button", { name: "Read them" }).click();
  const selected = page.locator(".row[aria-selected=true] .text");
  await selected.waitFor();
  assert.equal(await selected.textContent(), "line 59996");
  assert.ok(await row(page, "line 59990").isVisible(), "lines before it are in sight");
}));

test("a hostile line is inert, and shows what it hides", withPage({}, async ({ server, open }) => {
  const hostile = `<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\u202egnp.exe\u001b[31m \${7*7} {{7*7}} javascript:x`;
  await appendFile(server.path("app.log"), `${hostile}\n${"long ".repeat(50_000)}\nlast\n`);
  const page = await open("#/lines/logs/app.log?line=1");
  await page.locator(".row .text").first().click();
  await page.keyboard.press("Enter");
  for (const place of [page.locator(".row .text").first(), page.locator(".details pre")]) {
    const text = await place.textContent();
    assert.equal(text, hostile.replace("\u202e", "U+202E").replace("\u001b", "␛"));
  }
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.equal(await page.locator(".row img, .row script, .details img, .details script").count(), 0);
  await page.keyboard.press("End");
  await row(page, "last").waitFor();
}));

test("a hundred thousand lines are followed, drawn in part, and can be gone back to", withPage({}, async ({ server, open }) => {
  const log = server.path("app.log");
  await write(log, 1, 20_000, entry);
  const page = await open("#/lines/logs/app.log?line=1&follow");
  await haveRead(page, 20_000);
  const traced = await trace(page);
  for (let lines = 20_000; lines < 120_000; lines += 20_000) {
    await write(log, lines + 1, lines + 20_000, entry);
    await haveRead(page, lines + 20_000);
  }
  const tasks = await traced();
  assert.ok(tasks.length > 100, "the trace has tasks");
  console.log(`# the longest of ${tasks.length} tasks took ${Math.max(...tasks).toFixed(1)} ms of the processor`);
  await row(page, entry(120_000)).waitFor();
  const drawn = await page.locator(".row").count();
  assert.ok(drawn < 500, `${drawn} rows are drawn`);
  await page.getByText("earlier rows left this list", { exact: false }).waitFor();
  await page.getByRole("button", { name: "Back to earlier lines" }).click();
  await until(page, () => document.querySelector(".row[aria-selected=true]") !== null);
  const selected = await page.locator(".row[aria-selected=true] .text").textContent();
  // The list had kept the last 20,000.
  assert.equal(selected, entry(100_001));
}));
