// Messages and the state of the server in the page.

import assert from "node:assert/strict";
import { test } from "node:test";

import { placeOf, publish, row, until, withPage } from "./harness.mjs";

test("a message is published, followed, and opened by its link", withPage({}, async ({ open, client }) => {
  const perennial = client();
  await publish(perennial, "orders.new", Array.from({ length: 300 }, (_, n) => `order ${n + 1}`));
  const page = await open("#/messages?topics=orders.%3E&last=100&follow");
  await row(page, "order 300").waitFor();
  await page.getByText("Publish a message").click();
  await page.getByRole("textbox", { name: "Topic", exact: true }).or(page.getByLabel("Topic", { exact: true })).fill("orders.new");
  await page.getByLabel("Key").fill("k1");
  await page.getByLabel("Text").fill('{"total": 12.50, "id": 12345678901234567890}');
  await page.getByLabel("Headers").fill("trace: abc");
  await page.getByLabel("Text").press("Control+Enter");
  await page.getByText("on disk as", { exact: false }).waitFor();
  const made = page.locator(".row", { hasText: "12345678901234567890" });
  await made.click();
  await page.keyboard.press("Enter");
  await page.locator(".details").getByText("trace").waitFor();
  assert.equal(await page.locator(".details pre").textContent(), '{\n  "total": 12.50,\n  "id": 12345678901234567890\n}');
  const hash = await placeOf(page, "seq");
  await publish(perennial, "orders.new", ["after"]);
  const opened = await open(hash);
  await opened.locator(".row[aria-selected=true]").waitFor();
  assert.match(await opened.locator(".row .text").first().textContent(), /12345678901234567890/);
  await row(opened, "after").waitFor();
  await opened.getByRole("button", { name: "Copy as…" }).click();
  const texts = await opened.locator(".copy pre").allTextContents();
  assert.ok(texts.some((text) => /^perennial --server http:\/\/127.0.0.1:\d+ messages 'orders\.>' --from \d+$/.test(text)), texts.join("\n"));
  assert.ok(texts.some((text) => text.includes('"fromSequence":"')), texts.join("\n"));
}));

test("messages that were removed are shown as a gap", withPage({}, async ({ open, client }) => {
  const perennial = client();
  await publish(perennial, "a", ["1", "2", "3"]);
  await perennial.messageService.purgeTopic({ topic: "a", untilSequence: 2n });
  const page = await open("#/messages?topics=a&seq=1");
  await page.locator(".row.gap").getByText("gap: messages from sequence 1", { exact: false }).waitFor();
  await row(page, "3").waitFor();
}));

test("the server's topics and the lag of its consumers are shown", withPage({}, async ({ open, client }) => {
  const perennial = client();
  await publish(perennial, "orders.new", Array.from({ length: 50 }, (_, n) => `order ${n}`));
  await perennial.messageService.setConsumer({ consumer: "billing", start: { case: "fromSequence", value: 11n } });
  const page = await open("#/server");
  const consumer = page.locator("tr", { hasText: "billing" });
  await consumer.getByRole("cell", { name: "40", exact: true }).waitFor();
  await page.locator("tr", { hasText: "orders.new" }).getByRole("cell", { name: "50", exact: true }).waitFor();
  await page.getByText("start the server with").waitFor();
  await until(page, () => document.querySelectorAll(".plots .line").length >= 2);
}));
