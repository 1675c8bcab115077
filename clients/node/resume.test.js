// Cuts the connection of a client that is generated from proto/ again and again, and compares every line.
//
// It needs target/release/perenniald, or the server that PERENNIALD names.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { appendFile, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import readline from "node:readline";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { CountdownService } from "./gen/perennial/v1/countdown_pb.js";
import { ErrorReason } from "./gen/perennial/v1/errors_pb.js";
import { LineService } from "./gen/perennial/v1/lines_pb.js";
import { reason, resumed, retryDelay } from "./resume.js";

const LIMIT_MILLISECONDS = 60_000;
const LINES = 30_000;
const BINARY = process.env.PERENNIALD ?? path.join(import.meta.dirname, "../../target/release/perenniald");

const text = (n) => `line ${n} — ${"x".repeat(n % 90)}`;

const append = (file, from, to) =>
  appendFile(file, Array.from({ length: to - from }, (_, n) => text(from + n) + "\n").join(""));

/** A perenniald that keeps its address when it is killed and started again. */
class Server {
  port = 0;

  constructor(directory) {
    this.directory = directory;
  }

  async start() {
    const { directory, port } = this;
    this.process = spawn(BINARY, [
      ...["--listen", `127.0.0.1:${port}`, "--data", path.join(directory, "data")],
      ...["--root", `logs=${path.join(directory, "logs")}`, "--log", "error"],
    ], { stdio: ["ignore", "ignore", "pipe"] });
    this.exit = new Promise((resolve) => this.process.once("close", resolve).once("error", resolve));
    let printed = "";
    for await (const line of readline.createInterface({ input: this.process.stderr })) {
      printed += line + "\n";
      const found = line.match(/^perenniald: listening on http:\/\/.*:(\d+)$/);
      if (found) {
        this.port = Number(found[1]);
        this.process.stderr.resume();
        return;
      }
    }
    throw new Error(`the server did not start: ${printed || (await this.exit)}`);
  }

  async kill() {
    this.process?.kill("SIGKILL");
    await this.exit;
  }
}

/** Passes bytes on, and cuts each connection after 2,000 to 202,000 of them. */
class Proxy {
  cuts = 0;
  sockets = new Set();

  constructor(server) {
    this.listener = net.createServer((client) => {
      const upstream = net.connect(server.port, "127.0.0.1");
      let left = 2_000 + Math.random() * 200_000;
      for (const [socket, other] of [[client, upstream], [upstream, client]]) {
        this.sockets.add(socket);
        socket.on("error", () => {}).on("close", () => {
          this.sockets.delete(socket);
          other.destroy();
        });
      }
      client.pipe(upstream);
      upstream.pipe(client);
      upstream.on("data", (data) => {
        left -= data.length;
        if (left < 0 && !client.destroyed) {
          this.cuts += 1;
          client.destroy();
        }
      });
    });
  }

  listen() {
    return new Promise((resolve) => this.listener.listen(0, "127.0.0.1", () => resolve(this.listener.address().port)));
  }

  close() {
    this.listener.close();
    this.sockets.forEach((socket) => socket.destroy());
  }
}

test("a log is followed across a rotation, line by line", async () => {
  const directory = await mkdtemp(path.join(tmpdir(), "perennial-"));
  const server = new Server(directory);
  const proxy = new Proxy(server);
  const over = new AbortController();
  const timer = setTimeout(() => over.abort(new Error(`not done within ${LIMIT_MILLISECONDS} ms`)), LIMIT_MILLISECONDS);
  const file = path.join(directory, "logs", "app.log");

  async function write() {
    for (let start = LINES / 3; start < LINES && !over.signal.aborted; start += 500) {
      await append(file, start, start + 500);
      if (start === LINES / 2) await rename(file, `${file}.1`);
      if (start === (LINES * 2) / 3) {
        await server.kill();
        await server.start();
      }
      await sleep(10);
    }
  }

  let writer;
  try {
    await mkdir(path.dirname(file));
    await append(file, 0, LINES / 3);
    await server.start();
    const port = await proxy.listen();
    let next = 0;
    let rotations = 0;
    const request = { path: "logs/app.log", follow: true, waitForCreate: true };
    const url = `http://127.0.0.1:${port}`;
    for await (const response of resumed(url, LineService, "readLines", request, over.signal)) {
      // The first response has the first cursor: without one, the reader would start with the second file. A writer
      // that fails ends the reader at once.
      writer ??= write().catch((error) => over.abort(error));
      rotations += response.events.filter(({ event }) => event.case === "rotated").length;
      for (const { content } of response.lines) {
        assert.deepEqual([next, content.value], [next, text(next)]);
        next += 1;
      }
      if (next >= LINES) break;
    }
    assert.equal(next, LINES);
    assert.equal(rotations, 1, "rotations that were reported");
    assert.ok(proxy.cuts > 0, "nothing was cut");
    console.log(`${next} lines over ${proxy.cuts} cuts`);
  } finally {
    clearTimeout(timer);
    over.abort();
    await writer;
    await server.kill();
    proxy.close();
    await rm(directory, { recursive: true });
  }
});

test("a refused call has its reason and is not tried again", async () => {
  const directory = await mkdtemp(path.join(tmpdir(), "perennial-"));
  const server = new Server(directory);
  try {
    await mkdir(path.join(directory, "logs"));
    await server.start();
    const transport = createGrpcTransport({ baseUrl: `http://127.0.0.1:${server.port}` });
    const countdowns = createClient(CountdownService, transport);

    const missing = await countdowns.getCountdown({ name: "missing" }).catch((error) => error);
    assert.equal(reason(missing), ErrorReason.COUNTDOWN_NOT_FOUND);
    assert.equal(retryDelay(missing), undefined);

    const wrong = await countdowns.countdown({})[Symbol.asyncIterator]().next().catch((error) => error);
    assert.equal(reason(wrong), ErrorReason.INVALID_FIELD);
    assert.equal(retryDelay(wrong), undefined);

    // This library refuses a response that is too large for it. The same one would come again.
    assert.equal(retryDelay(new ConnectError("too large", Code.ResourceExhausted)), undefined);
    assert.ok(retryDelay(new ConnectError("cut", Code.Canceled)) > 0);
  } finally {
    await server.kill();
    await rm(directory, { recursive: true });
  }
});
