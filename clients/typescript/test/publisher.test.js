import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { Code } from "@connectrpc/connect";

import { ClosedError, ErrorReason, OutcomeUnknownError, PerennialError } from "../dist/node.js";
import { collect, failure, withServer } from "./harness.js";

const LIMIT = { timeout: 60_000 };
// A busy machine may need longer for the first answer than a caller should wait.
const PATIENT = { connectTimeoutMs: 60_000 };
const message = (topic, value) => ({ topic, content: { case: "text", value } });
const everything = { topics: [">"], start: { case: "earliest", value: true }, untilCaughtUp: true };

test("a publisher survives cuts and kills without doubles and in order", LIMIT, withServer([], async ({ server, client, proxy }) => {
  const count = 20_000;
  const cutting = await proxy(100_000);
  const publisher = client(cutting.url).publisher(PATIENT);
  const receipts = [];
  for (let n = 0; n < count; n += 1) {
    receipts.push(await publisher.publish(message("t", `${n}`)));
    if (n === count / 2) await server.restart();
  }
  await publisher.flush();
  await publisher.close();
  let last = 0n;
  for (const { response } of receipts) {
    const { sequence } = await response;
    assert.ok(sequence > last);
    last = sequence;
  }
  const texts = (await collect(client().messages(everything))).map(({ content }) => content.value);
  assert.deepEqual(texts, Array.from({ length: count }, (_, n) => `${n}`));
  assert.ok(cutting.cuts > 0, "nothing was cut");
}));

test("a message that is refused has its error, and the others are published", LIMIT, withServer([], async ({ client }) => {
  const publisher = client().publisher(PATIENT);
  const receipts = [];
  for (const topic of ["a", "not a topic", "b"]) receipts.push(await publisher.publish(message(topic, "x")));
  await publisher.close();
  await receipts[0].response;
  await receipts[2].response;
  const error = await failure(receipts[1].response);
  assert.ok(error instanceof PerennialError, `${error}`);
  assert.deepEqual([error.field, error.reasonCode], ["topic", ErrorReason.INVALID_FIELD]);
  assert.ok((await failure(publisher.publish(message("a", "x")))) instanceof ClosedError);
}));

test("a message that the server may have forgotten is not sent twice", LIMIT, withServer([], async ({ client, proxy }) => {
  const gate = await proxy();
  // Messages may be on their way for the window minus 40 s: here 100 ms.
  const publisher = client(gate.url).publisher({ ...PATIENT, dedupeWindowMs: 40_100 });
  await (await publisher.publish(message("t", "first"))).response;
  gate.isSilent = true;
  const lost = await publisher.publish(message("t", "lost"));
  await sleep(300);
  gate.cut();
  gate.isSilent = false;
  assert.ok((await failure(lost.response)) instanceof OutcomeUnknownError);
  await (await publisher.publish(message("t", "after"))).response;
  await publisher.close();
}));

test("flush waits for every receipt, and close, too", LIMIT, withServer([], async ({ client, proxy }) => {
  const gate = await proxy();
  const publisher = client(gate.url).publisher(PATIENT);
  await publisher.flush();
  gate.isSilent = true;
  const receipt = await publisher.publish(message("t", "x"));
  const flushed = publisher.flush().then(() => "flushed");
  assert.equal(await Promise.race([flushed, sleep(200, "waiting")]), "waiting");
  gate.cut();
  gate.isSilent = false;
  await flushed;
  const settled = async (response) => Promise.race([response.then(() => "answered"), sleep(0, "waiting")]);
  assert.equal(await settled(receipt.response), "answered");
  const last = await publisher.publish(message("t", "y"));
  await publisher.close();
  assert.equal(await settled(last.response), "answered");
}));

test("a publisher that reaches no server fails after its connect timeout", LIMIT, withServer([], async ({ client }) => {
  const publisher = client("http://127.0.0.1:1").publisher({ connectTimeoutMs: 300 });
  const receipt = await publisher.publish(message("t", "x"));
  const failures = [receipt.response, publisher.flush(), publisher.close()].map(failure);
  for (const error of await Promise.all(failures)) assert.equal(error.code, Code.Unavailable, `${error}`);
  assert.equal((await failure(publisher.publish(message("t", "y")))).code, Code.Unavailable);
}));

test("too many unanswered messages make publish wait", LIMIT, withServer([], async ({ client, proxy }) => {
  const gate = await proxy();
  gate.isSilent = true;
  const publisher = client(gate.url).publisher(PATIENT);
  let count = 0;
  const publishing = (async () => {
    for (; count < 9_000; count += 1) await publisher.publish(message("t", "x"));
  })();
  await sleep(2_000);
  assert.equal(count, 8_192);
  gate.isSilent = false;
  gate.cut();
  await publishing;
  await publisher.close();
}));

test("a consumer continues after its last commit", LIMIT, withServer([], async ({ client }) => {
  const made = client();
  const publisher = made.publisher(PATIENT);
  for (let n = 0; n < 30; n += 1) await publisher.publish(message("t", `${n}`));
  await publisher.close();
  const request = { ...everything, maxBatch: 5 };
  const read = async (most, commits) => {
    const stream = made.consumer("billing").messages(request);
    const texts = [];
    for await (const { content } of stream) {
      texts.push(content.value);
      if (commits) await stream.commit();
      if (texts.length === most) break;
    }
    return texts;
  };
  assert.equal((await read(12, true))[0], "0");
  // Two responses of five are committed; the messages after them come again.
  assert.equal((await read(3, false))[0], "10");
  await collect(made.consumer("billing").messages(request, { commitEveryMs: 1 }));
  assert.deepEqual(await read(3, false), []);
  assert.throws(() => made.consumer("billing").messages(request, { state: "a" }), TypeError);
}));

test("messages are published in the order of the calls, also by those who wait", LIMIT, withServer([], async ({ client }) => {
  const publisher = client().publisher(PATIENT);
  const calls = [];
  for (let n = 0; n < 9_000; n += 1) calls.push(publisher.publish(message("t", `${n}`)));
  // This call comes when there is room again, while others still wait.
  const first = await calls[0];
  const late = first.response.then(() => publisher.publish(message("t", "late")));
  await (await late).response;
  await publisher.close();
  const texts = (await collect(client().messages(everything))).map(({ content }) => content.value);
  assert.deepEqual(texts, [...Array.from({ length: 9_000 }, (_, n) => `${n}`), "late"]);
}));

test("the last commit of a consumer neither fails the loop nor holds it", LIMIT, withServer([], async ({ server, client }) => {
  const made = client();
  await made.messageService.publish(message("t", "x"));
  const stream = made.consumer("billing").messages({ ...everything, untilCaughtUp: false }, { commitEveryMs: 3_600_000 });
  await stream.next();
  const more = stream.next();
  await made.messageService.publish(message("t", "y"));
  await more;
  await server.kill();
  const start = performance.now();
  await stream.return();
  assert.ok(performance.now() - start < 3_000, `${performance.now() - start} ms`);
}));
