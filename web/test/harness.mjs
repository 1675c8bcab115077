// A real server and a real Chromium. The server is target/release/perenniald, or the one that PERENNIALD names; the browser is
// Debian's, or the one that CHROMIUM names. With PAGE=dist the page is that of a directory, and not the one that the server has:
// a change of the page is tested without a build of the server.

import { appendFile, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";

import { connect } from "perennial-client/web";
import { chromium } from "playwright-core";

import { Server } from "../../clients/typescript/test/harness.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
// A machine that builds something beside is slow: what takes longer than this never comes.
export const PATIENCE_MS = 120_000;

/** A server by TLS. */
class SecureServer extends Server {
  get url() {
    return `https://127.0.0.1:${this.port}`;
  }
}

/** Runs a test with a server, and ends what it has opened. */
export function withPage(options, run) {
  return async (test) => {
    const directory = await mkdtemp(path.join(tmpdir(), "perennial-page-"));
    await mkdir(path.join(directory, "logs"));
    const server = new (options.isSecure ? SecureServer : Server)(directory, options.server ?? []);
    const browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: [
        ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
        // A name that leads to this machine, as an attacker makes one.
        ...["--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP rebound.test 127.0.0.1"],
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
      const open = async (hash, of, prepare) => {
        context ??= await newContext();
        const page = await (of ?? context).newPage();
        if (process.env.PAGE !== undefined) await page.route(/\/(page\.\w+|icon\.svg|)([?#].*)?$/, takeFile);
        await prepare?.(page);
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

/** Answers as the server does, with the content of a file of PAGE. */
async function takeFile(route) {
  const response = await route.fetch().catch(() => undefined);
  // The page was closed, or the server is away.
  if (response === undefined) return route.abort().catch(() => {});
  const name = new URL(route.request().url()).pathname.slice(1) || "index.html";
  const headers = { ...response.headers() };
  delete headers["content-encoding"];
  const body = await readFile(path.join(process.env.PAGE, name));
  await route.fulfill({ response, headers, body }).catch(() => {});
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

/** A line as a service logs it. */
export const entry = (n) => `2026-12-01T12:00:00.000Z INFO request=${n} path=/api/orders/${n} ${"x".repeat(n % 60)}`;

/** Waits until a pane has read this many lines. */
export const haveRead = (page, least) =>
  until(page, (n) => {
    const [status] = [...document.querySelectorAll(".status span")].map(({ textContent }) => /^([\d,]+) line/.exec(textContent)?.[1]).filter(Boolean);
    return Number((status ?? "0").replaceAll(",", "")) >= n;
  }, least);

/**
 * Traces the tasks of a page. Returns a function that ends it and returns the processor time of each, in milliseconds: a
 * busy machine makes no task long.
 */
export async function trace(page) {
  const session = await page.context().newCDPSession(page);
  const events = [];
  session.on("Tracing.dataCollected", ({ value }) => events.push(...value));
  await session.send("Tracing.start", { transferMode: "ReportEvents", traceConfig: { includedCategories: ["toplevel"] } });
  return async () => {
    const done = new Promise((resolve) => session.once("Tracing.tracingComplete", resolve));
    await session.send("Tracing.end");
    await done;
    await session.detach();
    return events.filter(({ name, tdur }) => /RunTask/.test(name) && tdur !== undefined).map(({ tdur }) => tdur / 1_000);
  };
}

/** The bytes of the heap of a page that are in use. */
export async function heapOf(page) {
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.collectGarbage");
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  await session.detach();
  return usedSize;
}

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

/** What axe finds in a page. */
export async function violations(page) {
  // The policy of the page forbids to add a script, and evaluating one is the tool's own way.
  await page.evaluate(await readFile(AXE, "utf8"));
  const found = await page.evaluate(() => globalThis.axe.run(document));
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
}
