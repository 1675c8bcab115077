// A real server and proxies between it and the client. The server is target/release/perenniald, or the one that PERENNIALD
// names.

import { spawn } from "node:child_process";
import { appendFile, mkdir, mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import readline from "node:readline";

import { connect } from "../dist/node.js";

const BINARY = process.env.PERENNIALD ?? path.join(import.meta.dirname, "../../../target/release/perenniald");

export const text = (n) => `line ${n} — ${"x".repeat(n % 90)}`;

export const append = (file, from, to) =>
  appendFile(file, Array.from({ length: to - from }, (_, n) => text(from + n) + "\n").join(""));

/** A perenniald that keeps its address when it is killed and started again. */
export class Server {
  port = 0;

  constructor(directory, options) {
    this.directory = directory;
    this.options = options;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** The path of a log. */
  path(name) {
    return path.join(this.directory, "logs", name);
  }

  async start() {
    const { directory, port } = this;
    this.process = spawn(BINARY, [
      ...["--listen", `127.0.0.1:${port}`, "--data", path.join(directory, "data")],
      ...["--root", `logs=${path.join(directory, "logs")}`, "--log", "error", ...this.options],
    ], { stdio: ["ignore", "ignore", "pipe"] });
    this.exit = new Promise((resolve) => this.process.once("close", resolve).once("error", resolve));
    let printed = "";
    for await (const line of readline.createInterface({ input: this.process.stderr })) {
      printed += line + "\n";
      const found = line.match(/^perenniald: listening on https?:\/\/.*:(\d+)$/);
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

  async restart() {
    await this.kill();
    await this.start();
  }
}

/** Passes bytes on, and cuts each connection after 2,000 to 2,000 + `most` of them. It can hold back those of the server. */
export class Proxy {
  cuts = 0;
  connections = 0;
  isSilent = false;
  sockets = new Set();

  constructor(server, most) {
    this.listener = net.createServer((client) => {
      this.connections += 1;
      const upstream = net.connect(server.port, "127.0.0.1");
      let left = most === undefined ? Infinity : 2_000 + Math.random() * most;
      for (const [socket, other] of [[client, upstream], [upstream, client]]) {
        this.sockets.add(socket);
        socket.on("error", () => {}).on("close", () => {
          this.sockets.delete(socket);
          other.destroy();
        });
      }
      client.pipe(upstream);
      upstream.on("data", (data) => {
        if (this.isSilent) return;
        client.write(data);
        left -= data.length;
        if (left < 0 && !client.destroyed) {
          this.cuts += 1;
          client.destroy();
        }
      });
    });
  }

  async listen() {
    await new Promise((resolve) => this.listener.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.listener.address().port}`;
  }

  cut() {
    for (const socket of this.sockets) socket.destroy();
  }

  close() {
    this.listener.close();
    this.cut();
  }
}

/** Runs a test with a server, and ends what it has opened. */
export function withServer(options, run) {
  return async () => {
    const directory = await mkdtemp(path.join(tmpdir(), "perennial-"));
    await mkdir(path.join(directory, "logs"));
    const server = new Server(directory, options);
    const opened = [];
    const tools = {
      server,
      client(url = server.url, more = {}) {
        const made = connect(url, more);
        opened.push(made);
        return made;
      },
      async proxy(most) {
        const made = new Proxy(server, most);
        await made.listen();
        opened.push(made);
        return made;
      },
    };
    try {
      await server.start();
      await run(tools);
    } finally {
      for (const one of opened) one.close();
      await server.kill();
      await rm(directory, { recursive: true });
    }
  };
}

export async function collect(stream) {
  const all = [];
  for await (const value of stream) all.push(value);
  return all;
}

/** The error of a stream or a promise. */
export async function failure(of) {
  try {
    await (Symbol.asyncIterator in of ? collect(of) : of);
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}
