import { type MessageInitShape, clone, create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";

import type { Connections } from "./connections.js";
import { ClosedError } from "./errors.js";
import { CONNECT_TIMEOUT_MS, Flow, deadlineExceeded } from "./flow.js";
import { LineService, WatchFilesRequestSchema, type WatchFilesResponse } from "./gen/perennial/v1/lines_pb.js";
import { start } from "./lines.js";
import type { StreamOptions } from "./stream.js";
import { after } from "./waits.js";

/** Options of a stream of files. It keeps no state: a program lists the files when it starts. */
export type FilesOptions = Omit<StreamOptions, "store" | "saveEveryMs" | "state">;

/** @internal */
export async function* watchFiles(
  connections: Connections,
  init: MessageInitShape<typeof WatchFilesRequestSchema>,
  options: FilesOptions,
): AsyncGenerator<WatchFilesResponse, void, undefined> {
  const request = clone(WatchFilesRequestSchema, create(WatchFilesRequestSchema, init));
  const ended = new AbortController();
  const signals = [connections.closed, ended.signal, ...(options.signal === undefined ? [] : [options.signal])];
  const { timeoutMs } = options;
  const cancel = timeoutMs === undefined ? undefined : after(timeoutMs, () => ended.abort(deadlineExceeded()));
  const flow = new Flow<WatchFilesResponse>(
    connections,
    {
      heartbeat: request.heartbeat,
      limit: request.limit,
      open: (transport, { cursor, limit }, call) =>
        createClient(LineService, transport).watchFiles(start(request, cursor, limit), call),
      count: ({ changes }) => changes.length,
    },
    {
      signal: AbortSignal.any(signals),
      deadline: timeoutMs === undefined ? undefined : performance.now() + timeoutMs,
      connectTimeoutMs: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
      maxOutageMs: options.maxOutageMs,
      onRetry: options.onRetry,
      onConnect: options.onConnect,
      // A response is handed out as a whole, so its cursor is enough.
      probes: false,
    },
    request.cursor,
  );
  try {
    for (;;) {
      const response = await flow.next();
      if (response === undefined) return;
      yield response;
    }
  } finally {
    cancel?.();
    flow.close();
    ended.abort(new ClosedError("the stream is closed"));
  }
}
