// Signing in, where the server has rules of access.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";

import { row, withPage, write } from "./harness.mjs";

const BINARY = process.env.PERENNIALD ?? path.join(import.meta.dirname, "../../target/release/perenniald");
const directory = await mkdtemp(path.join(tmpdir(), "perennial-rules-"));
const [rules, tokens] = ["access.toml", "tokens.toml"].map((name) => path.join(directory, name));
await writeFile(rules, `[[rule]]\nwho = ["token:alice"]\nmay = ["read", "list"]\nfiles = ["*"]\n`, { mode: 0o600 });
const token = execFileSync(BINARY, ["token", "--tokens", tokens, "new", "alice"], { encoding: "utf8" }).trim();

test("a token opens the page, and is kept where scripts do not see it", withPage({ server: ["--access", rules, "--tokens", tokens] },
  async ({ server, open }) => {
    await write(server.path("app.log"), 1, 20);
    const page = await open("#/lines/logs/app.log?last=5&follow");
    const field = page.getByLabel("This server asks for a token");
    await field.fill(`perennial_${"0".repeat(64)}`);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.locator(".sign-in .fault").waitFor();
    await field.fill(token);
    await page.getByRole("button", { name: "Sign in" }).click();
    await row(page, "line 20").waitFor();
    const kept = await page.evaluate(() => [document.cookie, JSON.stringify({ ...localStorage, ...sessionStorage }), document.documentElement.outerHTML, location.href].join());
    assert.ok(!kept.includes(token), "a script finds the token");
    const [cookie] = await page.context().cookies();
    assert.equal(cookie.httpOnly, true);
    assert.equal(cookie.sameSite, "Strict");
    // What the rules do not allow is said where it is asked for.
    await page.goto(`${server.url}/#/messages?topics=a`);
    await page.locator(".notice.fault").getByText("no right", { exact: false }).waitFor();
    await page.goto(`${server.url}/#/countdowns`);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.waitForFunction(() => document.querySelector(".sign-in") !== null);
    assert.deepEqual(await page.context().cookies(), []);
    await rm(directory, { recursive: true });
  }));
