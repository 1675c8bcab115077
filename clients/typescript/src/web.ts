/**
 * The entry point for browsers: calls over gRPC-Web, which a browser's `fetch` carries.
 *
 * A browser keeps up to six connections to a server without TLS, and each stream takes one of them: keep up to four streams
 * open, over all tabs, so that calls have a connection. It gives no stream of requests, so `publisher` does not work here:
 * `messageService.publish` with a `messageId` does.
 *
 * @module
 */
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import { Client, withToken } from "./client.js";

export * from "./index.js";

/** Options of {@link connect}. */
export interface ConnectOptions {
  /**
   * A token to send with each call, or a function that is asked for it before each call. A page of the server's own origin
   * needs none after it has signed in: the browser sends its cookie.
   */
  token?: string | (() => string | Promise<string>);
}

/** Hosts of this machine, to which a browser sends nothing over a network. */
const LOCAL_HOST = /^(localhost|.*\.localhost|127(\.\d{1,3}){3}|\[::1\])$/;

/**
 * Makes a client of the server at an address: `http://HOST[:PORT]` or `https://HOST[:PORT]`. Unset: the origin of the page.
 * A server answers a page of another origin only if its operator allows that origin.
 *
 * It does not connect. It throws for an address that cannot be used, and for a token that would leave the machine in plain
 * text.
 */
export function connect(address: string = globalThis.location.origin, { token }: ConnectOptions = {}): Client {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (url === undefined || (url.protocol !== "http:" && url.protocol !== "https:") || url.username !== "") {
    throw new TypeError(`the address "${address}" is not http://HOST:PORT or https://HOST:PORT: try http://127.0.0.1:50051`);
  }
  if (token !== undefined && url.protocol === "http:" && !LOCAL_HOST.test(url.hostname)) {
    throw new TypeError(`the token would be sent in plain text to ${url.origin}: try https`);
  }
  const transport = createGrpcWebTransport({
    baseUrl: url.origin,
    interceptors: token === undefined ? [] : [withToken(typeof token === "string" ? () => token : token)],
  });
  // The browser makes connections, and closes those that no call uses.
  return new Client({ open: () => ({ transport, close: () => {} }) });
}
