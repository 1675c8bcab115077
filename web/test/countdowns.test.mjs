// Countdowns in the page.

import assert from "node:assert/strict";
import { test } from "node:test";

import { until, withPage } from "./harness.mjs";

const textOf = (page, selector) => page.locator(selector).first().textContent();

test("a shared countdown is made, paused, extended and deleted, and shows its ring", withPage({}, async ({ open, client }) => {
  const page = await open("#/countdowns");
  await page.getByLabel("Length or end").fill("10m");
  await page.getByLabel("Name").fill("launch");
  await page.getByLabel("At its end publish to").fill("launches");
  await page.getByRole("button", { name: "Start" }).click();
  const card = page.locator(".card");
  await card.getByRole("link", { name: "launch", exact: true }).waitFor();
  const before = await textOf(page, ".ring b");
  await until(page, (text) => document.querySelector(".ring b").textContent !== text, before);
  const parts = await page.locator(".ring .rest").first().getAttribute("stroke-dasharray");
  assert.ok(Number(parts.split(" ")[0]) > 300, `the ring is nearly full: ${parts}`);
  await card.getByRole("button", { name: "Pause" }).click();
  await card.getByText("paused", { exact: true }).waitFor();
  const paused = await textOf(page, ".ring b");
  await card.getByRole("button", { name: "+1 min" }).click();
  await until(page, (text) => document.querySelector(".ring b").textContent !== text, paused);
  // Another client changes it, and the page shows that without being asked.
  const { countdownService } = client();
  await countdownService.resumeCountdown({ name: "launch" });
  await card.getByText("running", { exact: true }).waitFor();
  await countdownService.createCountdown({ name: "other", target: { case: "start", value: 60 } });
  await page.getByRole("link", { name: "other", exact: true }).waitFor();
  const launch = page.locator(".card", { hasText: "launch" });
  await launch.getByRole("button", { name: "Delete" }).click();
  await launch.getByRole("button", { name: "Really delete" }).click();
  await until(page, () => document.querySelectorAll(".card").length === 1);
  const { countdowns } = await countdownService.listCountdowns({});
  assert.deepEqual(countdowns.map(({ name }) => name), ["other"]);
}));

test("a countdown of one's own continues when the page is loaded again", withPage({}, async ({ open }) => {
  const page = await open("#/countdowns");
  await page.getByLabel("Length or end").fill("500");
  await page.getByRole("button", { name: "Start" }).click();
  await page.waitForURL((url) => url.hash.includes("cursor="));
  const number = async () => Number((await textOf(page, ".ring span")).replaceAll(",", ""));
  await until(page, () => /^\d+$/.test(document.querySelector(".ring span").textContent));
  const before = await number();
  assert.ok(before > 300 && before <= 500, `it counts: ${before}`);
  await page.reload();
  await until(page, () => /^\d+$/.test(document.querySelector(".ring span")?.textContent ?? ""));
  const after = await number();
  assert.ok(after < 500 && after <= before, `it went on at ${after} after ${before}`);
}));

test("a shared countdown is watched to its end, with each change", withPage({}, async ({ open, client }) => {
  const { countdownService } = client();
  await countdownService.createCountdown({ name: "tea", target: { case: "start", value: 600 } });
  const page = await open("#/countdowns/tea");
  await page.locator(".ticks li").first().waitFor();
  await countdownService.pauseCountdown({ name: "tea" });
  await page.getByText("paused", { exact: true }).first().waitFor();
  await page.getByLabel("Extend by").fill("-599s");
  await page.getByRole("button", { name: "Extend" }).click();
  await page.getByText("moved its end by −9:59").or(page.locator(".fault")).first().waitFor();
  await countdownService.resumeCountdown({ name: "tea" }).catch(() => {});
  await countdownService.cancelCountdown({ name: "tea" }).catch(() => {});
  await page.locator(".state", { hasText: "ended" }).waitFor();
}));
