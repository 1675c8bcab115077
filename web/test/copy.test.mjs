// "Copy as…": each command runs, word for word, and shows what the page shows. It needs perennial, grpcurl and curl, and a
// Python with the package: PERENNIAL and PYTHON name those that are elsewhere.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";

import { PATIENCE_MS, placeOf, publish, row, until, withPage, write } from "./harness.mjs";

const PROGRAM = process.env.PERENNIAL ?? path.join(import.meta.dirname, "../../target/release/perennial");
const PYTHON = process.env.PYTHON ?? path.join(import.meta.dirname, "../../target/page-python/bin/python");
const directory = await mkdtemp(path.join(tmpdir(), "perennial-copy-"));
await symlink(PROGRAM, path.join(directory, "perennial"));
after(() => rm(directory, { recursive: true }));

/** The texts that "Copy as…" offers, by name. */
async function copied(page) {
  await page.getByRole("button", { name: "Copy as…" }).click();
  await page.locator(".copy pre").first().waitFor();
  const texts = await page.locator(".copy section").evaluateAll((sections) =>
    sections.map((section) => [section.querySelector("h3").textContent, section.querySelector("pre").textContent]));
  await page.keyboard.press("Escape");
  return Object.fromEntries(texts);
}

/** What a command prints until it has each of these texts. */
async function output(name, text, expected) {
  const script = path.join(directory, "program.py");
  if (name === "Python") await writeFile(script, text);
  const command = name === "Python" ? [PYTHON, "-u", script] : ["bash", "-c", text];
  const child = spawn(command[0], command.slice(1), {
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, PATH: `${directory}:${process.env.PATH}` },
  });
  let printed = "";
  const done = new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`it did not print ${expected} in ${PATIENCE_MS} ms`)), PATIENCE_MS);
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (data) => {
        printed += data;
        if (expected.every((one) => printed.includes(one))) {
          clearTimeout(timer);
          resolve();
        }
      });
    }
    child.once("error", reject).once("close", (status) => {
      clearTimeout(timer);
      reject(new Error(`it ended with ${status}`));
    });
  });
  try {
    await done;
    return printed;
  } catch (error) {
    throw new Error(`${name}: ${error.message}\n${text}\n${printed}`);
  } finally {
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      // It has ended.
    }
  }
}

/** Runs all commands of a view: each prints what is expected, and nothing that is unexpected. */
async function run(page, expected, unexpected = []) {
  const texts = await copied(page);
  assert.deepEqual(Object.keys(texts), ["perennial", "grpcurl", "Python", "curl", "Link"]);
  assert.equal(texts.Link, page.url());
  for (const name of ["perennial", "grpcurl", "Python", "curl"]) {
    const printed = await output(name, texts[name], expected);
    for (const one of unexpected) assert.ok(!printed.includes(one), `${name} printed ${one}:\n${texts[name]}\n${printed}`);
  }
  return texts;
}

test("the commands of a log run, whatever its name is", withPage({}, async ({ server, open }) => {
  const name = `it's "100%" & $HOME #1 é.log`;
  await write(server.path(name), 1, 40, (n) => `entry-${n}-`);
  const at = `#/lines/logs/${encodeURIComponent(name)}`;
  const page = await open(`${at}?line=1`);
  await row(page, "entry-7-").click();
  await placeOf(page, "cursor");
  const texts = await run(page, ["entry-7-", "entry-40-"], ["entry-6-"]);
  assert.match(texts.curl, /\?cursor=/);
  for (const [query, expected, unexpected] of [
    ["last=5&follow", ["entry-36-", "entry-40-"], ["entry-35-"]],
    ["line=39", ["entry-39-", "entry-40-"], ["entry-38-"]],
    ["offset=8", ["entry-2-", "entry-40-"], ["entry-1-"]],
  ]) {
    const other = await open(`${at}?${query}`);
    await row(other, expected[0]).waitFor();
    await run(other, expected, unexpected);
    await other.close();
  }
}));

test("the commands of messages run, for each start", withPage({}, async ({ open, client }) => {
  const perennial = client();
  await publish(perennial, "orders.new", ["order-1-", "order-2-"]);
  await publish(perennial, "stock", ["stock-3-", "stock-4-"]);
  await publish(perennial, "else", ["else-5-"]);
  const topics = "topics=orders.%3E,stock";
  for (const [query, expected, unexpected] of [
    [`${topics}&seq=2`, ["order-2-", "stock-4-"], ["order-1-", "else-5-"]],
    [`${topics}&earliest`, ["order-1-", "stock-4-"], ["else-5-"]],
    [`${topics}&last=1&follow`, ["stock-4-"], ["stock-3-", "order-"]],
    [`${topics}&state&follow`, ["order-2-", "stock-4-"], ["order-1-", "stock-3-"]],
    [`${topics}&time=2026-01-01T00:00:00.000Z`, ["order-1-", "stock-4-"], ["else-5-"]],
  ]) {
    const page = await open(`#/messages?${query}`);
    await row(page, expected.at(-1)).waitFor();
    const { curl } = await run(page, expected, unexpected);
    assert.match(curl, /\?topic=orders\.%3E&topic=stock/);
    await page.close();
  }
}));

test("the commands of countdowns run", withPage({}, async ({ open, client }) => {
  await client().countdownService.createCountdown({ name: "launch", target: { case: "start", value: 36_000 } });
  const shared = await open("#/countdowns/launch");
  await shared.locator(".ticks li").first().waitFor();
  await run(shared, ["35"]);
  const own = await open("#/countdowns");
  await own.getByLabel("Length or end").fill("70000");
  await own.getByRole("button", { name: "Start" }).click();
  await own.waitForURL((url) => url.hash.includes("cursor="));
  await until(own, () => /^6/.test(document.querySelector(".ring span").textContent));
  const { curl } = await run(own, ["699"], ["70000"]);
  assert.match(curl, /\?cursor=/);
}));
