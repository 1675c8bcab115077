// A real server and a real Chromium. The server is target/release/perenniald, or the one that PERENNIALD names; the browser is
// Debian's, or the one that CHROMIUM names.

import { appendFile, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";

import { connect } from "perennial-client/web";
import { chromium } from "playwright-core";

import { Server } from "../../clients/typescript/test/harness.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
// A machine that builds something beside is slow: what takes longer than this never comes.
export const PATIENCE_MS = 120_000;

/** Runs a test with a server, and ends what it has opened. */
export function withPage(options, run) {
  return async (test) => {
    const directory = await mkdtemp(path.join(tmpdir(), "perennial-page-"));
    await mkdir(path.join(directory, "logs"));
    const server = new Server(directory, options.server ?? []);
    const browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: [
        ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
        ...["--disable-component-update", "--disable-sync", "--enable-precise-memory-info", "--js-flags=--expose-gc"],
      ],
      timeout: PATIENCE_MS,
    });
    const faults = [];
    let context;
    try {
      await server.start();
      const newContext = async (more = {}) => {
        const made = await browser.newContext({ viewport: { width: 1_200, height: 800 }, ...options.context, ...more });
        made.setDefaultTimeout(PATIENCE_MS);
        return made;
      };
      const open = async (hash, of) => {
        context ??= await newContext();
        const page = await (of ?? context).newPage();
        page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
        page.on("console", (message) => {
          // A connection that a test cuts is reported by the browser itself.
          const isExpected = /Failed to load resource|net::ERR_/.test(message.text());
          if (message.type() === "error" && !isExpected) faults.push(message.text());
        });
        page.on("request", (request) => {
          if (new URL(request.url()).origin !== server.url) faults.push(`a request to ${request.url()}`);
        });
        await page.goto(`${server.url}/${hash}`, { timeout: PATIENCE_MS });
        return page;
      };
      await run({ server, open, newContext, client: () => connect(server.url), test });
      if (faults.length > 0) throw new Error(`the page reported faults:\n${faults.join("\n")}`);
    } finally {
      await browser.close();
      await server.kill();
      await rm(directory, { recursive: true, force: true });
    }
  };
}

/** Writes lines to a log: "line 1", "line 2", … */
export const write = (file, from, to, text = (n) => `line ${n}`) =>
  appendFile(file, Array.from({ length: to - from + 1 }, (_, n) => `${text(from + n)}\n`).join(""));

/** The row with this text. */
export const row = (page, text) => page.locator(".row", { has: page.locator(".text").getByText(text, { exact: true }) });

/** Waits until a function in the page is true. */
export const until = (page, what, argument) => page.waitForFunction(what, argument, { timeout: PATIENCE_MS });

/** The address of the page, when it says where the list is. */
export async function placeOf(page, parameter) {
  await page.waitForURL((url) => url.hash.includes(`${parameter}=`), { timeout: PATIENCE_MS });
  return new URL(page.url()).hash;
}

/** Publishes texts to a topic by gRPC-Web. */
export async function publish(client, topic, texts) {
  await client.messageService.publishBatch({ messages: texts.map((value) => ({ topic, content: { case: "text", value } })) });
}
