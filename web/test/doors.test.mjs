// What pages of others use, in Chromium: EventSource, the package for TypeScript, and which pages the server refuses.

import assert from "node:assert/strict";
import { readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { after, test } from "node:test";

import { build } from "vite";

import { PATIENCE_MS, publish, until, withPage, write } from "./harness.mjs";

const texts = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => `line ${from + n}`);

/** The package as a bundler makes it for a browser. */
async function bundle() {
  const entry = path.join(import.meta.dirname, "package.mjs");
  const made = await build({
    configFile: false,
    logLevel: "error",
    build: { write: false, minify: false, lib: { entry, formats: ["es"], fileName: "package" } },
  });
  return [made].flat()[0].output[0].code;
}

// A site of its own: the server allows it under its address, and not under its name.
const code = await bundle();
const site = createServer((request, response) => {
  const isCode = request.url === "/package.js";
  response.setHeader("content-type", isCode ? "text/javascript" : "text/html");
  response.end(isCode ? code : "<!doctype html><title>A site</title><link rel=icon href=data:,>");
});
await new Promise((resolve) => site.listen(0, resolve));
after(() => site.close());
const { port } = site.address();
const [allowed, other] = [`http://127.0.0.1:${port}`, `http://localhost:${port}`];

/** A page of a site, which is not the server's own. */
async function visit(newContext, url) {
  const page = await (await newContext()).newPage();
  await page.goto(url);
  return page;
}

/** The HTML of docs/web.md. */
async function example() {
  const document = await readFile(path.join(import.meta.dirname, "../../docs/web.md"), "utf8");
  return /^```html\n(.*?)^```/ms.exec(document)[1].replace("/v1/lines/demo/", "/v1/lines/logs/");
}

test("an EventSource of the documents shows each line once, over kill -9, and a gap", withPage({}, async ({ server, newContext }) => {
  const log = server.path("app.log");
  await write(log, 1, 20);
  const page = await (await newContext()).newPage();
  const warnings = [];
  page.on("console", (message) => message.type() === "warning" && warnings.push(message.text()));
  const html = await example();
  await page.route(`${server.url}/visitors`, (route) => route.fulfill({ contentType: "text/html", body: html }));
  await page.goto(`${server.url}/visitors`);
  const shows = (last) => until(page, (text) => [...document.querySelectorAll("#log li")].at(-1)?.textContent === text, last);
  await shows("line 20");
  await server.kill();
  await write(log, 21, 30);
  await server.start();
  await shows("line 30");
  assert.deepEqual(await page.locator("#log li").allTextContents(), texts(11, 30));
  await server.kill();
  await rm(log);
  await write(log, 1, 3, (n) => `other ${n}`);
  await server.start();
  await shows("other 3");
  assert.deepEqual(await page.locator("#log li").allTextContents(), [...texts(11, 30), "other 1", "other 2", "other 3"]);
  assert.equal(warnings.length, 1, warnings.join("\n"));
  assert.match(warnings[0], /^lines are missing \{.*"reason":/);
}));

test("a shared countdown for visitors ends at 0, and its EventSource does not come back", withPage({}, async ({ server, open, client }) => {
  await client().countdownService.createCountdown({ name: "launch", target: { case: "start", value: 3 }, interval: { seconds: 0n, nanos: 2e8 } });
  const page = await open("#/server");
  const requests = [];
  page.on("request", (request) => request.url().includes("/v1/") && requests.push(request.url()));
  const seen = await page.evaluate(() => new Promise((resolve) => {
    const values = [];
    const source = new EventSource("/v1/countdowns/launch?items");
    source.onmessage = ({ data }) => values.push(JSON.parse(data).remaining);
    // Not closed on `end`: the server itself ends it, with 204.
    source.onerror = () => source.readyState === EventSource.CLOSED && resolve(values);
  }));
  assert.equal(seen.at(-1), 0);
  assert.deepEqual(seen, seen.toSorted((a, b) => b - a));
  assert.equal(new Set(seen).size, seen.length);
  // The browser reports a request to the test on its own way, perhaps after the page has its answer.
  for (const limit = Date.now() + PATIENCE_MS; requests.length < 2 && Date.now() < limit;) await page.waitForTimeout(20);
  assert.equal(requests.length, 2, requests.join("\n"));
}));

test("the package streams in a page of an origin that is allowed, over kill -9", withPage({ server: ["--cors-origin", allowed] },
  async ({ server, newContext, client }) => {
    const log = server.path("app.log");
    await write(log, 1, 500);
    await publish(client(), "orders.new", ["first"]);
    const page = await visit(newContext, allowed);
    await page.evaluate(async (url) => {
      const { connect, lineText } = await import("/package.js");
      globalThis.client = connect(url);
      globalThis.read = [];
      globalThis.stop = new AbortController();
      const lines = globalThis.client.readLines({ path: "logs/app.log", start: { case: "fromLine", value: 1n }, follow: true }, { signal: globalThis.stop.signal });
      const run = async () => {
        for await (const line of lines) globalThis.read.push(lineText(line));
      };
      globalThis.ended = run().catch((error) => error.name);
    }, server.url);
    const has = (count) => until(page, (least) => globalThis.read.length >= least, count);
    await has(500);
    await server.kill();
    await write(log, 501, 600);
    await server.start();
    await has(600);
    assert.deepEqual(await page.evaluate(() => globalThis.read), texts(1, 600));
    // An aborted stream has ended on the server, too.
    await page.evaluate(() => globalThis.stop.abort());
    assert.equal(await page.evaluate(() => globalThis.ended), "AbortError");
    const found = await page.evaluate(async () => {
      const { client } = globalThis;
      const { receipt, sequence } = await client.messageService.publish({ topic: "orders.new", content: { case: "text", value: "second" } });
      const read = [];
      for await (const message of client.messages({ topics: ["orders.>"], start: { case: "earliest", value: true }, untilCaughtUp: true })) read.push(message.content.value);
      const refused = await client.countdownService.getCountdown({ name: "absent" }).catch((error) => [error.reason, error.message]);
      return { sequence: Number(sequence ?? receipt?.sequence), read, refused };
    });
    assert.deepEqual(found.read, ["first", "second"]);
    assert.equal(found.refused[0], "COUNTDOWN_NOT_FOUND");
    assert.match(found.refused[1], /ListCountdowns/);
  }));

test("a page of another origin reads nothing and changes nothing", withPage({ server: ["--cors-origin", allowed] },
  async ({ server, newContext, client }) => {
    await write(server.path("app.log"), 1, 5);
    await publish(client(), "orders.new", ["first"]);
    const page = await visit(newContext, other);
    const answers = await page.evaluate(async (url) => {
      const outcome = (promise) => promise.then((response) => `read ${response.status} ${response.type}`, (error) => error.name);
      const json = { method: "POST", headers: { "content-type": "application/json" }, body: '{"text": "hacked"}' };
      const { connect } = await import("/package.js");
      const events = (credentials) => new Promise((resolve) => {
        const source = new EventSource(`${url}/v1/lines/logs/app.log?last=5`, { withCredentials: credentials });
        source.onmessage = () => resolve("an event came");
        source.onerror = () => resolve(source.readyState === EventSource.CLOSED ? "refused" : "tries again");
      });
      const form = document.createElement("form");
      Object.assign(form, { method: "post", action: `${url}/v1/messages/orders.new`, enctype: "text/plain", target: "frame" });
      form.innerHTML = `<input name='{"text": "hacked", "x": "' value='"}'>`;
      const frame = document.createElement("iframe");
      frame.name = "frame";
      document.body.append(frame, form);
      const submitted = new Promise((resolve) => frame.addEventListener("load", () => resolve(), { once: true }));
      form.submit();
      await submitted;
      return {
        read: await outcome(fetch(`${url}/v1/messages?topic=orders.new&earliest&until_caught_up`)),
        posted: await outcome(fetch(`${url}/v1/messages/orders.new`, json)),
        blind: await outcome(fetch(`${url}/v1/messages/orders.new`, { method: "POST", mode: "no-cors", body: '{"text": "hacked"}' })),
        events: await events(false),
        cookies: await events(true),
        call: await connect(url).messageService.publish({ topic: "orders.new", content: { case: "text", value: "hacked" } }).then(() => "published", () => "refused"),
      };
    }, server.url);
    assert.deepEqual(answers, { read: "TypeError", posted: "TypeError", blind: "TypeError", events: "refused", cookies: "refused", call: "refused" });
    const { topics } = await client().messageService.listTopics({});
    assert.deepEqual(topics.map(({ name, messageCount }) => [name, messageCount]), [["orders.new", 1n]]);
  }));

test("a name that was made to lead to the server is refused, and so is a frame", withPage({}, async ({ server, newContext }) => {
  const page = await (await newContext()).newPage();
  const answer = await page.goto(`http://rebound.test:${server.port}/`);
  assert.equal(answer.status(), 403);
  assert.equal((await answer.json()).reason, "ACCESS_DENIED");
  const outer = await visit(newContext, allowed);
  await outer.evaluate((url) => {
    const frame = document.createElement("iframe");
    frame.src = url;
    const loaded = new Promise((resolve) => frame.addEventListener("load", resolve, { once: true }));
    document.body.append(frame);
    return loaded.then(() => undefined);
  }, server.url);
  assert.equal(await outer.frames().at(-1).locator("p-app").count(), 0);
}));
