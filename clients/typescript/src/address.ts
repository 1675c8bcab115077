/** @internal */
export const DEFAULT_ADDRESS = "http://127.0.0.1:50051";

const DEFAULT_PORT = 50_051;
const TOKEN_HOST = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

/**
 * A server, and how it is reached.
 *
 * @internal
 */
export interface Address {
  /** The URL of the requests, with its port. */
  url: string;
  isSecure: boolean;
  /** Nothing leaves the machine. */
  isLocal: boolean;
  /** The path of a socket in the file system. */
  socket?: string;
}

/**
 * Reads `HOST[:PORT]`, `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:PATH`.
 *
 * @internal
 */
export function parseAddress(text: string, hasTls: boolean): Address {
  if (text.startsWith("unix:")) {
    const socket = text.slice("unix:".length).replace(/^\/\//, "");
    if (socket === "" || hasTls) {
      throw new TypeError(`the address "${text}": a socket needs a path and has no TLS: try unix:/run/perennial.sock`);
    }
    return { url: "http://localhost", isSecure: false, isLocal: true, socket };
  }
  const refuse = (fault: string) => new TypeError(`the address ${fault}: try ${DEFAULT_ADDRESS}`);
  if (text.includes("@")) throw refuse("has a user name, which is not supported");
  const [scheme = "", authority = ""] = text.includes("://") ? split(text) : [hasTls ? "https" : "http", text];
  if (scheme !== "http" && scheme !== "https") throw refuse(`"${text}" has an unknown scheme`);
  if (scheme === "http" && hasTls) {
    throw new TypeError(`the address "${text}" is plain text, and there are options of TLS: try https://${authority}`);
  }
  const found = /^([^\s/?#:[\]]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?\/?$/i.exec(authority);
  const port = Number(found?.[2] ?? DEFAULT_PORT);
  if (!found?.[1] || port < 1 || port > 65_535) throw refuse(`"${text}" is not HOST:PORT`);
  const host = found[1].toLowerCase();
  return {
    url: `${scheme}://${host}:${port}`,
    isSecure: scheme === "https",
    isLocal: TOKEN_HOST.test(host),
  };
}

function split(text: string): [string, string] {
  const at = text.indexOf("://");
  return [text.slice(0, at).toLowerCase(), text.slice(at + "://".length)];
}
