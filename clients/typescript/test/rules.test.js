import assert from "node:assert/strict";
import { test } from "node:test";

import { Code, ConnectError } from "@connectrpc/connect";

import { parseAddress } from "../dist/address.js";
import { fromConnect } from "../dist/errors.js";
import { ErrorInfoSchema, RetryInfoSchema } from "../dist/gen/google/rpc/error_details_pb.js";
import { PerennialError, StateError, connect } from "../dist/node.js";
import { idsKnownFor } from "../dist/publisher.js";
import { parseState, stateText } from "../dist/state.js";
import { Keeper } from "../dist/store.js";
import { Waits } from "../dist/waits.js";

test("a reason decides whether a call is tried again, and the code only without one", () => {
  const info = (domain, reason) => ({ desc: ErrorInfoSchema, value: { domain, reason } });
  const delay = { desc: RetryInfoSchema, value: { retryDelay: { seconds: 3n, nanos: 5e8 } } };
  const lost = [Code.Unavailable, Code.Unknown, Code.Internal, Code.Aborted, Code.Canceled];
  for (let code = 1; code <= 16; code += 1) {
    const isLost = lost.includes(code);
    for (const [details, isRetryable, retryDelayMs] of [
      [[info("perennial", "DRAINING"), delay], true, 3_500],
      [[info("perennial", "DRAINING")], false, undefined],
      [[info("perennial", "OF_A_LATER_VERSION"), delay], true, 3_500],
      [[info("proxy.example", "UPSTREAM"), delay], isLost, undefined],
      [[], isLost, undefined],
    ]) {
      const error = fromConnect(new ConnectError("text", code, undefined, details));
      assert.deepEqual([error.code, error.isRetryable, error.retryDelayMs], [code, isRetryable, retryDelayMs]);
    }
  }
  const later = fromConnect(new ConnectError("text", Code.Unavailable, undefined, [info("perennial", "LATER")]));
  assert.deepEqual([later.reason, later.reasonCode], ["LATER", 0]);
  const refused = new ConnectError("text", Code.Internal);
  refused.cause = Object.assign(new Error("self-signed"), { code: "DEPTH_ZERO_SELF_SIGNED_CERT" });
  assert.equal(fromConnect(refused).isRetryable, false);
  // An error of the program itself is passed on.
  const ours = new RangeError("ours");
  assert.equal(fromConnect(ours), ours);
});

test("waits are random up to a bound that doubles to two seconds", () => {
  const failure = new PerennialError({ code: Code.Unavailable, message: "", isRetryable: true });
  for (let run = 0; run < 50; run += 1) {
    const waits = new Waits();
    for (const bound of [100, 200, 400, 800, 1_600, 2_000, 2_000]) {
      const wait = waits.next(failure);
      assert.ok(wait >= 0 && wait <= bound, `${wait} of ${bound}`);
    }
    waits.reset();
    assert.ok(waits.next(failure) <= 100);
  }
  const asked = new PerennialError({ code: Code.Unavailable, message: "", isRetryable: true, retryDelayMs: 60_000 });
  assert.equal(new Waits().next(asked), 60_000);
});

test("an address is read, or refused with one that works", () => {
  for (const [text, url] of [
    ["localhost", "http://localhost:50051"],
    ["10.0.0.1:7", "http://10.0.0.1:7"],
    ["https://a.example", "https://a.example:50051"],
    ["HTTPS://A.example:443/", "https://a.example:443"],
    ["[::1]:9", "http://[::1]:9"],
  ]) {
    assert.equal(parseAddress(text, false).url, url);
  }
  assert.equal(parseAddress("a.example", true).url, "https://a.example:50051");
  assert.equal(parseAddress("unix:/run/a.sock", false).socket, "/run/a.sock");
  for (const text of ["", "ftp://a", "http://", "a:b", "a:0", "a:65536", "http://a/path", "user:secret@a", "unix:", "::1"]) {
    assert.throws(() => parseAddress(text, false), (error) => /try /.test(error.message) && !/secret/.test(error.message));
  }
  assert.throws(() => parseAddress("http://a", true), /plain text/);
});

test("a token leaves the machine only by TLS, and is never in an error", async () => {
  const token = "s3cret\n";
  for (const address of ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/tmp/a", "https://a.example"]) {
    connect(address, { token }).close();
  }
  for (const address of ["http://10.0.0.1:1", "a.example", "127.0.0.1.example"]) {
    assert.throws(() => connect(address, { token }), (error) => /plain text/.test(error.message) && !/s3cret/.test(error.message));
  }
  const client = connect("127.0.0.1:1", { token });
  await assert.rejects(client.messageService.listTopics({}), (error) => !/s3cret/.test(`${error} ${error.stack}`));
  client.close();
});

test("a state has the same text in all languages", () => {
  for (const [kind, text] of [
    ["lines", '{"version":1,"kind":"lines","cursor":"abc","after":{"switches":0,"offset":"4711"}}'],
    ["lines", '{"version":1,"kind":"lines","cursor":"abc","after":{"switches":2,"offset":"9","bytes":"3"}}'],
    ["messages", '{"version":1,"kind":"messages","cursor":"abc","after":{"sequence":"42","publish_time":"1764622800123456789"}}'],
    ["countdown", '{"version":1,"kind":"countdown","cursor":"abc","after":{"remaining":-7,"version":"3"}}'],
    ["countdown", '{"version":1,"kind":"countdown","cursor":"abc"}'],
  ]) {
    assert.equal(stateText(kind, parseState(text, kind, "the state")), text);
  }
  assert.deepEqual(parseState("abc\n", "lines", ""), { cursor: "abc" });
  for (const text of [
    "", " ", "{}", "{", "a b", '{"version":2,"kind":"lines","cursor":"a"}', '{"version":1,"kind":"lines"}',
    '{"version":1,"kind":"messages","cursor":"a"}', '{"version":1,"kind":"lines","cursor":"a","after":{"offset":"1"}}',
    '{"version":1,"kind":"lines","cursor":"a","after":{"switches":0,"offset":"x"}}', "a".repeat(1_025),
  ]) {
    assert.throws(() => parseState(text, "lines", "the file"), (error) => error instanceof StateError && /the file/.test(error.message));
  }
});

test("a state that is saved once in fifty days is not saved at once", async () => {
  const [saved, warnings] = [[], []];
  const note = (warning) => warnings.push(warning.name);
  process.on("warning", note);
  const keeper = new Keeper({ load: () => undefined, save: (state) => void saved.push(state) }, 50 * 86_400_000);
  await keeper.done(() => "first");
  await keeper.done(() => "second");
  await new Promise(setImmediate);
  process.off("warning", note);
  assert.deepEqual([saved, warnings], [["first"], []]);
  await keeper.finish();
  assert.deepEqual(saved, ["first", "second"]);
});

test("a call ends before the server forgets the id of a message that it sends again", () => {
  const [window, now] = [60_000, 1_000_000];
  // The call ends 10 s before the end of the window.
  const known = now - 43_000;
  for (const [name, oldest, sent, expected] of [
    ["no message", undefined, 0, undefined],
    ["a message that was never sent", { sent: undefined, isAgain: false }, 0, undefined],
    ["sent by an earlier call, and not yet by this one", { sent: known, isAgain: false }, 0, 30_000],
    ["sent first by this call", { sent: known, isAgain: false }, 1, undefined],
    ["sent again by this call", { sent: known, isAgain: true }, 1, 7_000],
    ["sent again, and the id is forgotten", { sent: now - 51_000, isAgain: true }, 1, -1_000],
  ]) {
    assert.equal(idsKnownFor(oldest, sent, window, now), expected, name);
  }
});
