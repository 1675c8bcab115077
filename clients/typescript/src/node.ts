/**
 * The entry point for Node: connections over HTTP/2 with TLS and tokens, and a store in a file.
 *
 * @module
 */
import { open, readFile, rename } from "node:fs/promises";
import { readFileSync } from "node:fs";
import type { ClientSessionOptions, SecureClientSessionOptions } from "node:http2";
import net from "node:net";
import path from "node:path";

import { Code, ConnectError } from "@connectrpc/connect";
import { Http2SessionManager, createGrpcTransport } from "@connectrpc/connect-node";

import { DEFAULT_ADDRESS, parseAddress } from "./address.js";
import { Client, withToken } from "./client.js";
import { StateError } from "./errors.js";
import type { Store } from "./store.js";

export * from "./index.js";

/** The largest response. The server's limits of a line and of a message are far lower unless its operator raised them. */
const MAX_RESPONSE_BYTES = 64 << 20;

/** The pings that find a connection that died in silence. */
const PINGS = { pingIntervalMs: 30_000, pingTimeoutMs: 20_000 };

/** The room for a response that arrives while the one before is being processed: the default of HTTP/2 is 64 KiB. */
const WINDOW_BYTES = 1 << 20;

/**
 * Options of {@link connect}. Files are of PEM, and are read for each new connection, so that they can be renewed. If one
 * cannot be read then, the calls that need the connection fail, and are not tried again.
 */
export interface ConnectOptions {
  /** The file of the authorities to trust, instead of those of the system. */
  caFile?: string;
  /** The file of a certificate to show to the server, with `keyFile`. */
  certFile?: string;
  /** The file of the key of the certificate. */
  keyFile?: string;
  /** A token to send with each call, or a function that is asked for it before each call. */
  token?: string | (() => string | Promise<string>);
  /** A file with the token, which is read before each call. */
  tokenFile?: string;
}

/**
 * Makes a client of the server at an address: `HOST[:PORT]`, `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:PATH`.
 * The default port is 50051. Unset: the address in the environment variable PERENNIAL_SERVER, or http://127.0.0.1:50051
 * if that is not set. Without an option for it, the token is that of PERENNIAL_TOKEN, if that is set.
 *
 * It does not connect. It throws for an address or a file that cannot be used, and for a token that would leave the machine in
 * plain text.
 */
export function connect(address?: string, options: ConnectOptions = {}): Client {
  const { caFile, certFile, keyFile, tokenFile } = options;
  const hasTls = caFile !== undefined || certFile !== undefined || keyFile !== undefined;
  const at = parseAddress(address ?? (process.env["PERENNIAL_SERVER"] || DEFAULT_ADDRESS), hasTls);
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw new TypeError("a certificate needs its key: give both certFile and keyFile");
  }
  const token = options.token ?? (tokenFile ? () => fromFile(tokenFile) : process.env["PERENNIAL_TOKEN"] || undefined);
  if (token !== undefined && !at.isSecure && !at.isLocal) {
    throw new TypeError(`the token would be sent in plain text to ${at.url}: try https`);
  }
  const interceptors = token === undefined ? [] : [withToken(typeof token === "string" ? () => token : token)];
  const session: ClientSessionOptions | SecureClientSessionOptions = {
    settings: { initialWindowSize: WINDOW_BYTES },
    ...(at.socket === undefined ? {} : { createConnection: () => net.connect(at.socket ?? "") }),
  };
  const files = { ca: caFile, cert: certFile, key: keyFile };
  for (const [option, file] of Object.entries(files)) {
    if (!at.isSecure || file === undefined) continue;
    // A file that cannot be read fails here, and not at the first call.
    readFileSync(file);
    // Node copies the options for each connection, and reads the file.
    Object.defineProperty(session, option, { enumerable: true, get: () => pem(file) });
  }
  return new Client({
    open() {
      const sessionManager = new Http2SessionManager(at.url, PINGS, session);
      const transport = createGrpcTransport({
        baseUrl: at.url,
        sessionManager,
        readMaxBytes: MAX_RESPONSE_BYTES,
        interceptors,
      });
      return { transport, close: () => sessionManager.abort() };
    },
  });
}

/** A file of the credentials. An error that the transport reports as lost connections would be tried again. */
function pem(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    const cause = error instanceof Error ? error.message : String(error);
    throw new ConnectError(`a file of the credentials cannot be read: ${cause}`, Code.InvalidArgument);
  }
}

async function fromFile(file: string): Promise<string> {
  return (await readFile(file, "utf8")).trim();
}

/**
 * Keeps the state in a file. A state is written to a file beside it, synchronized, and renamed over the one before, so that a
 * crash leaves one of the two. The file is readable by its owner only.
 */
export class FileStore implements Store {
  /** The path of the file. */
  readonly name: string;
  #hasSynced = false;

  /** @param file its path; the directory must exist. */
  constructor(file: string) {
    this.name = file;
  }

  /** The state in the file. A missing file is no state; an empty one throws a {@link StateError}. */
  async load(): Promise<string | undefined> {
    let text: string;
    try {
      text = await readFile(this.name, "utf8");
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
      throw error;
    }
    if (text === "") throw new StateError(this.name, "is empty");
    return text;
  }

  /** Replaces the file. */
  async save(state: string): Promise<void> {
    const beside = `${this.name}.new`;
    const file = await open(beside, "w", 0o600);
    try {
      await file.writeFile(`${state}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(beside, this.name);
    if (this.#hasSynced) return;
    const directory = await open(path.dirname(this.name), "r");
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
    this.#hasSynced = true;
  }
}
