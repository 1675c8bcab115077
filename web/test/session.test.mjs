// Signing in, where the server has rules of access.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";

import { row, violations, withPage, write } from "./harness.mjs";

const BINARY = process.env.PERENNIALD ?? path.join(import.meta.dirname, "../../target/release/perenniald");
const directory = await mkdtemp(path.join(tmpdir(), "perennial-rules-"));
after(() => rm(directory, { recursive: true }));
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
    assert.deepEqual(await violations(page), []);
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
  }));

const [certificate, key] = ["server.pem", "server.key"].map((name) => path.join(directory, name));
execFileSync("openssl", [
  ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=ours"],
  ...["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
], { stdio: "ignore" });

test("by TLS the cookie is of this host alone, and an EventSource has its rights",
  withPage({ isSecure: true, server: ["--access", rules, "--tokens", tokens, "--tls-cert", certificate, "--tls-key", key], context: { ignoreHTTPSErrors: true } },
    async ({ server, open }) => {
      await write(server.path("app.log"), 1, 20);
      const page = await open("#/lines/logs/app.log?last=5&follow");
      const events = () => page.evaluate(() => new Promise((resolve) => {
        const source = new EventSource("/v1/lines/logs/app.log?last=1&items");
        const done = (what) => {
          source.close();
          resolve(what);
        };
        source.onmessage = ({ data }) => done(JSON.parse(data).text);
        source.onerror = () => done("refused");
      }));
      await page.getByLabel("This server asks for a token").waitFor();
      assert.equal(await events(), "refused");
      await page.getByLabel("This server asks for a token").fill(token);
      await page.getByRole("button", { name: "Sign in" }).click();
      await row(page, "line 20").waitFor();
      const [cookie, ...others] = await page.context().cookies();
      assert.deepEqual(others, []);
      const { name, domain, path: at, secure, httpOnly, sameSite } = cookie;
      assert.deepEqual({ name, domain, at, secure, httpOnly, sameSite },
        { name: "__Host-perennial-token", domain: "127.0.0.1", at: "/", secure: true, httpOnly: true, sameSite: "Strict" });
      assert.equal(await events(), "line 20");
      await page.getByRole("button", { name: "Sign out" }).click();
      await page.getByLabel("This server asks for a token").waitFor();
      assert.deepEqual(await page.context().cookies(), []);
      assert.equal(await events(), "refused");
    }));
