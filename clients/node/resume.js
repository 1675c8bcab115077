// Resumes a stream over as many connections as it takes: the rule of docs/errors.md, for connect-node.

import { setTimeout as sleep } from "node:timers/promises";

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { ErrorReason } from "./gen/perennial/v1/errors_pb.js";

// The pings find a connection that died in silence.
export const SESSION = { pingIntervalMs: 30_000, pingTimeoutMs: 20_000 };

// connect-node has no reconnect backoff: each call connects at once, so the caller waits.
const FIRST_DELAY_MILLISECONDS = 50;
const LAST_DELAY_MILLISECONDS = 2_000;

// Codes of the transport and of the client's own library. connect-node reports a connection that was reset as ABORTED.
const LOST = [Code.Unavailable, Code.Unknown, Code.Internal, Code.Canceled, Code.Aborted];

/**
 * The milliseconds to wait before the same request is sent with the last cursor, or undefined if that cannot help.
 * An error that is not a ConnectError comes from the program, and is not tried again.
 */
export function retryDelay(error, delay = FIRST_DELAY_MILLISECONDS) {
  if (!(error instanceof ConnectError)) return undefined;
  if (error.findDetails(ErrorInfoSchema).some(({ domain }) => domain === "perennial")) {
    const [retry] = error.findDetails(RetryInfoSchema);
    const given = retry?.retryDelay;
    return given && Number(given.seconds) * 1_000 + given.nanos / 1e6;
  }
  return LOST.includes(error.code) ? delay : undefined;
}

/** Why the server refused a call; ERROR_REASON_UNSPECIFIED if this client does not know the reason. */
export function reason(error) {
  const info = error.findDetails(ErrorInfoSchema).find(({ domain }) => domain === "perennial");
  return ErrorReason[info?.reason] ?? ErrorReason.ERROR_REASON_UNSPECIFIED;
}

/** The responses of a stream. `signal` ends it. */
export async function* resumed(baseUrl, service, method, request, signal) {
  let delay = FIRST_DELAY_MILLISECONDS;
  for (;;) {
    const sessionManager = new Http2SessionManager(baseUrl, SESSION);
    const client = createClient(service, createGrpcTransport({ baseUrl, sessionManager }));
    try {
      for await (const response of client[method](request, { signal })) {
        yield response;
        request.cursor = response.cursor;
        delay = FIRST_DELAY_MILLISECONDS;
      }
      return;
    } catch (error) {
      signal.throwIfAborted();
      const wait = retryDelay(error, delay);
      if (wait === undefined) throw error;
      delay = Math.min(delay * 2, LAST_DELAY_MILLISECONDS);
      await sleep(wait, undefined, { signal });
    } finally {
      sessionManager.abort();
    }
  }
}
