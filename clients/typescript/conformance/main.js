// Lets the conformance kit test this package: it reads a command from stdin and prints what the package hands out. See
// clients/conformance.

import readline from "node:readline";

import { fromJson, toJson } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import {
  CountdownRequestSchema,
  CountdownStreamEventSchema,
  CreateCountdownRequestSchema,
  CreateCountdownResponseSchema,
  FileStore,
  GapError,
  GetCountdownRequestSchema,
  GetCountdownResponseSchema,
  LineGapSchema,
  LineSchema,
  LineService,
  LineStreamEventSchema,
  ListFilesRequestSchema,
  ListFilesResponseSchema,
  ListTopicsRequestSchema,
  ListTopicsResponseSchema,
  MessageGapSchema,
  MessageStreamEventSchema,
  MessagesRequestSchema,
  OutcomeUnknownError,
  PerennialError,
  ProtocolError,
  PublishRequestSchema,
  PublishResponseSchema,
  ReadLinesRequestSchema,
  StateError,
  StoredMessageSchema,
  TickSchema,
  VERSION,
  connect,
  lineText,
} from "../dist/node.js";

const KINDS = {
  lines: ["readLines", ReadLinesRequestSchema, LineSchema, LineStreamEventSchema],
  messages: ["messages", MessagesRequestSchema, StoredMessageSchema, MessageStreamEventSchema],
  countdown: ["countdown", CountdownRequestSchema, TickSchema, CountdownStreamEventSchema],
};

const CALLS = {
  GetCountdown: ["countdownService", "getCountdown", GetCountdownRequestSchema, GetCountdownResponseSchema],
  CreateCountdown: ["countdownService", "createCountdown", CreateCountdownRequestSchema, CreateCountdownResponseSchema],
  ListTopics: ["messageService", "listTopics", ListTopicsRequestSchema, ListTopicsResponseSchema],
  Publish: ["messageService", "publish", PublishRequestSchema, PublishResponseSchema],
  ListFiles: ["lineService", "listFiles", ListFilesRequestSchema, ListFilesResponseSchema],
};

const stopped = new AbortController();
const STOP = Symbol("the kit said stop");

const input = readline.createInterface({ input: process.stdin });
const commands = input[Symbol.asyncIterator]();
let credit = Infinity;
let wake = () => {};
let stream;

const milliseconds = (seconds) => (seconds === undefined ? undefined : seconds * 1_000);

function print(value) {
  process.stdout.write(JSON.stringify(value, (_, found) => (typeof found === "bigint" ? String(found) : found)) + "\n");
}

/** Reads the lines that follow the command. */
async function listen() {
  for await (const line of { [Symbol.asyncIterator]: () => commands }) {
    const command = JSON.parse(line);
    if (command.do === "stop") break;
    if (command.do === "more") credit += command.items;
    if (command.do === "commit") {
      await stream?.commit?.();
      print({ committed: true });
    }
    wake();
  }
  stopped.abort(STOP);
  wake();
}

const client = (command) =>
  connect(command.server, {
    ...(command.ca && { caFile: command.ca }),
    ...(command.cert && { certFile: command.cert, keyFile: command.key }),
    ...(command.token && { token: command.token }),
    ...(command.token_file && { tokenFile: command.token_file }),
  });

function described(error) {
  const made = { code: "UNKNOWN", reason: "", field: "", metadata: {}, message: error.message, retryable: false };
  if (error instanceof PerennialError) {
    const { reason, field, metadata, isRetryable } = error;
    Object.assign(made, { reason, field, metadata, retryable: isRetryable });
    made.code = error.code === Code.Canceled ? "CANCELLED" : Code[error.code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
  } else if (error instanceof StateError) made.kind = "state";
  else if (error instanceof OutcomeUnknownError) made.kind = "outcome_unknown";
  else if (error instanceof ProtocolError) made.kind = "protocol";
  else if (error instanceof GapError) {
    made.kind = "gap";
    made.gap = toJson(error.gap.$typeName === "perennial.v1.LineGap" ? LineGapSchema : MessageGapSchema, error.gap);
  }
  return made;
}

async function read(command, client) {
  const [method, request, item, event] = KINDS[command.kind];
  const options = {
    signal: stopped.signal,
    events: command.events ?? false,
    timeoutMs: milliseconds(command.timeout),
    connectTimeoutMs: milliseconds(command.connect_timeout),
    maxOutageMs: milliseconds(command.max_outage),
    ...(command.state !== undefined && { state: command.state }),
    ...(command.store && { store: new FileStore(command.store), saveEveryMs: milliseconds(command.save_every) }),
  };
  credit = command.credit ?? Infinity;
  const init = fromJson(request, command.request ?? {});
  const name = init.consumer;
  if (name) delete init.consumer;
  const { commit_every: every } = command;
  if (name && every !== undefined) options.commitEveryMs = milliseconds(every);
  stream = name ? client.consumer(name).messages(init, options) : client[method](init, options);
  let skipped = 0n;
  for await (const value of stream) {
    // With events, the skipped ticks are values in their place.
    if (!command.events && command.kind === "countdown" && stream.skippedTicks > skipped) {
      print({ skipped: stream.skippedTicks - skipped });
      skipped = stream.skippedTicks;
    }
    if (command.events && value.case === "event") {
      print({ event: value.value.event.case ? toJson(event, value.value) : { unknown: true } });
    } else if (command.events && value.case === "skipped") print({ skipped: value.ticks });
    else if (command.events && value.case === "caughtUp") print({ caught_up: true });
    else {
      const printed = { item: toJson(item, command.events ? value.value : value) };
      if (command.states) printed.state = stream.state;
      print(printed);
      if (command.consumer_commit) await stream.commit();
      credit -= 1;
      while (credit <= 0 && !stopped.signal.aborted) await new Promise((resolve) => (wake = resolve));
    }
  }
}

async function publish(command, client) {
  const { topic, count, first = 0, prefix = "" } = command;
  const { dedupe_window: window, connect_timeout: timeout } = command;
  const publisher = client.publisher({
    signal: stopped.signal,
    ...(window !== undefined && { dedupeWindowMs: milliseconds(window) }),
    ...(timeout !== undefined && { connectTimeoutMs: milliseconds(timeout) }),
  });
  const receipts = [];
  let hasEnded = false;
  let more = () => {};
  const printed = (async () => {
    for (let n = 0; !hasEnded || n < receipts.length; n += 1) {
      while (n >= receipts.length && !hasEnded) await new Promise((resolve) => (more = resolve));
      if (n >= receipts.length) return;
      const receipt = { n: first + n };
      await receipts[n].response.then(
        ({ sequence, duplicate }) => Object.assign(receipt, { sequence, duplicate }),
        (error) => (receipt.error = described(error)),
      );
      print({ receipt });
    }
  })();
  try {
    for (let n = first; n < first + count; n += 1) {
      receipts.push(await publisher.publish({ topic, content: { case: "text", value: `${prefix}${n}` } }));
      more();
    }
    await publisher.close();
  } finally {
    hasEnded = true;
    more();
    await printed;
  }
}

async function call(command, client) {
  const [service, method, request, response] = CALLS[command.method];
  const answer = await client[service][method](fromJson(request, command.request ?? {}));
  print({ response: toJson(response, answer) });
}

async function bench(command, client) {
  const request = fromJson(ReadLinesRequestSchema, command.request);
  let [items, bytes] = [0, 0];
  const start = performance.now();
  if (command.do === "bench") {
    for await (const line of client.readLines(request)) {
      items += 1;
      bytes += lineText(line).length;
    }
  } else {
    const lines = createClient(LineService, createGrpcTransport({ baseUrl: command.server }));
    for await (const response of lines.readLines(request)) {
      for (const line of response.lines) {
        items += 1;
        bytes += lineText(line).length;
      }
    }
  }
  print({ bench: { items, bytes, seconds: (performance.now() - start) / 1_000 } });
}

const DO = { stream: read, publish, call, bench, bench_generated: bench };

async function main() {
  const { value } = await commands.next();
  const command = JSON.parse(value);
  if (command.do === "info") {
    const can = ["stream", "store", "events", "publish", "consumer", "call", "bench", "bench_generated", "token", "tls"];
    print({ info: { package: "perennial-client", version: VERSION, language: "typescript", can } });
    return print({ end: "ok" });
  }
  listen();
  let opened;
  try {
    opened = client(command);
    await DO[command.do](command, opened);
    print({ end: stopped.signal.aborted ? "stopped" : "ok" });
  } catch (error) {
    if (stopped.signal.aborted) print({ end: "stopped" });
    else {
      print({ error: described(error instanceof ConnectError ? new Error(error.message) : error) });
      print({ end: "error" });
    }
  } finally {
    opened?.close();
    input.close();
    process.stdin.destroy();
  }
}

await main();
