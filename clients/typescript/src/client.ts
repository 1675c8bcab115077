import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { type Client as Calls, Code, ConnectError, type Interceptor, type Transport, createClient } from "@connectrpc/connect";

import { Connections, type Connector } from "./connections.js";
import { Consumer } from "./consumer.js";
import { type CountdownItem, type CountdownStream, countdown } from "./countdown.js";
import { PerennialError, fromConnect } from "./errors.js";
import { type FilesOptions, watchFiles } from "./files.js";
import { CONNECT_TIMEOUT_MS } from "./flow.js";
import { CountdownRequestSchema, CountdownService, type Tick } from "./gen/perennial/v1/countdown_pb.js";
import {
  type Line,
  LineService,
  ReadLinesRequestSchema,
  WatchFilesRequestSchema,
  type WatchFilesResponse,
} from "./gen/perennial/v1/lines_pb.js";
import { MessageService, MessagesRequestSchema, type StoredMessage } from "./gen/perennial/v1/messages_pb.js";
import { type LineItem, readLines } from "./lines.js";
import { type MessageItem, messages } from "./messages.js";
import { Publisher, type PublisherOptions } from "./publisher.js";
import type { ItemStream, StreamOptions } from "./stream.js";
import { Waits, sleep } from "./waits.js";

/** How long a call that is no stream may take, in milliseconds, if its options do not say. */
const CALL_TIMEOUT_MS = 30_000;

/** Methods that can be repeated after a lost answer whatever is in the request. */
const SAFE = /^(Get|List)|^CommitCursor$/;

/**
 * Calls a server. Its streams and calls share a connection. `connect` of `perennial-client/node` makes one.
 */
export class Client {
  readonly #connections: Connections;
  readonly #transport: Transport;

  /** Makes a client whose connections a connector makes. */
  constructor(connector: Connector) {
    this.#connections = new Connections(connector);
    this.#transport = repeating(this.#connections);
  }

  /** Counts down, or watches a shared countdown. With `events`, also yields events and skipped ticks. */
  countdown(
    request: MessageInitShape<typeof CountdownRequestSchema>,
    options: StreamOptions & { events: true },
  ): CountdownStream<CountdownItem>;
  countdown(
    request: MessageInitShape<typeof CountdownRequestSchema>,
    options?: StreamOptions & { events?: false },
  ): CountdownStream<Tick>;
  countdown(
    request: MessageInitShape<typeof CountdownRequestSchema>,
    options: StreamOptions & { events?: boolean } = {},
  ): CountdownStream<Tick> | CountdownStream<CountdownItem> {
    return countdown(this.#connections, request, options) as CountdownStream<Tick> | CountdownStream<CountdownItem>;
  }

  /**
   * Reads the lines of a file, and with `follow` those that are written to it. It ends with a {@link GapError} where lines
   * are missing; with `events`, it yields that and all other events, and continues.
   */
  readLines(
    request: MessageInitShape<typeof ReadLinesRequestSchema>,
    options: StreamOptions & { events: true },
  ): ItemStream<LineItem>;
  readLines(
    request: MessageInitShape<typeof ReadLinesRequestSchema>,
    options?: StreamOptions & { events?: false },
  ): ItemStream<Line>;
  readLines(
    request: MessageInitShape<typeof ReadLinesRequestSchema>,
    options: StreamOptions & { events?: boolean } = {},
  ): ItemStream<Line> | ItemStream<LineItem> {
    return readLines(this.#connections, request, options) as ItemStream<Line> | ItemStream<LineItem>;
  }

  /**
   * Yields the files that match globs, such as `logs/app*.log`: those that are there, and then those that appear and go. It
   * yields responses. After a lost connection it continues by itself. Where files came or went meanwhile, a response has an
   * event `relisted`: forget the files, because all come again. Abort the signal to end it while it waits.
   */
  watchFiles(
    request: MessageInitShape<typeof WatchFilesRequestSchema>,
    options: FilesOptions = {},
  ): AsyncGenerator<WatchFilesResponse, void, undefined> {
    return watchFiles(this.#connections, request, options);
  }

  /**
   * Reads the messages of topics. It ends with a {@link GapError} where messages are missing; with `events`, it yields that
   * and all other events, and continues.
   */
  messages(
    request: MessageInitShape<typeof MessagesRequestSchema>,
    options: StreamOptions & { events: true },
  ): ItemStream<MessageItem>;
  messages(
    request: MessageInitShape<typeof MessagesRequestSchema>,
    options?: StreamOptions & { events?: false },
  ): ItemStream<StoredMessage>;
  messages(
    request: MessageInitShape<typeof MessagesRequestSchema>,
    options: StreamOptions & { events?: boolean } = {},
  ): ItemStream<StoredMessage> | ItemStream<MessageItem> {
    return messages(this.#connections, request, options) as ItemStream<StoredMessage> | ItemStream<MessageItem>;
  }

  /** The consumer of this name. */
  consumer(name: string): Consumer {
    if (name === "") throw new TypeError("a consumer needs a name");
    const commit = async (cursor: string, timeoutMs?: number) => {
      await this.messageService.commitCursor({ consumer: name, cursor }, timeoutMs === undefined ? {} : { timeoutMs });
    };
    return new Consumer(this.#connections, commit, name);
  }

  /** Makes a publisher. It needs a connection of HTTP/2 from end to end, which browsers do not give. */
  publisher(options: PublisherOptions = {}): Publisher {
    return new Publisher(this.#connections, options);
  }

  /** The methods of countdowns: create, pause, extend, list. */
  get countdownService(): Calls<typeof CountdownService> {
    return createClient(CountdownService, this.#transport);
  }

  /** The methods of files: list. */
  get lineService(): Calls<typeof LineService> {
    return createClient(LineService, this.#transport);
  }

  /** The methods of messages: publish, topics, consumers. */
  get messageService(): Calls<typeof MessageService> {
    return createClient(MessageService, this.#transport);
  }

  /** Ends all streams and calls, and closes the connection. Close a publisher before, or its unanswered messages are lost. */
  close(): void {
    this.#connections.close();
  }
}

/** Makes calls with a deadline, with errors of the type PerennialError, and again where that is safe. */
function repeating(connections: Connections): Transport {
  const once = async <T>(call: (transport: Transport) => Promise<T>) => {
    const connection = connections.acquire();
    try {
      return await call(connection.transport);
    } finally {
      connections.release(connection);
    }
  };
  return {
    async unary(method, signal, timeoutMs = CALL_TIMEOUT_MS, header, input, contextValues) {
      const waits = new Waits();
      const start = performance.now();
      const until = start + Math.min(timeoutMs, CONNECT_TIMEOUT_MS);
      const ended = signal ? AbortSignal.any([signal, connections.closed]) : connections.closed;
      for (;;) {
        try {
          const left = Math.max(Math.ceil(timeoutMs - (performance.now() - start)), 1);
          return await once((transport) => transport.unary(method, ended, left, header, input, contextValues));
        } catch (error) {
          ended.throwIfAborted();
          const failure = fromConnect(error);
          const wait = waits.next(failure);
          const canRepeat = failure instanceof PerennialError && failure.isRetryable && isSafe(method.name, input);
          if (!canRepeat || performance.now() + wait > until) throw failure;
          await sleep(wait, ended);
        }
      }
    },
    stream(method, signal, timeoutMs, header, input, contextValues) {
      return once((transport) => transport.stream(method, signal, timeoutMs, header, input, contextValues));
    },
  };
}

/** Whether a call that was repeated after a lost answer has the effect of one call. */
function isSafe(method: string, input: MessageInitShape<DescMessage>): boolean {
  const has = (value: unknown, field: string) =>
    typeof value === "object" && value !== null && (value as Record<string, unknown>)[field] !== undefined;
  switch (method) {
    case "Publish":
      return has(input, "messageId");
    case "PublishBatch": {
      const { messages = [] } = input as { messages?: unknown[] };
      return messages.every((message) => has(message, "messageId"));
    }
    case "CreateCountdown":
      return has(input, "requestId");
    default:
      return SAFE.test(method);
  }
}

/**
 * Sends a token with each call.
 *
 * @internal
 */
export function withToken(token: () => Promise<string> | string): Interceptor {
  return (next) => async (request) => {
    let value: string;
    try {
      value = await token();
    } catch (error) {
      throw unauthenticated(`the token cannot be read: ${error instanceof Error ? error.message : error}`);
    }
    if (!/^[\x21-\x7e]+$/.test(value)) throw unauthenticated("the token is empty or has characters that a header cannot have");
    request.header.set("authorization", `Bearer ${value}`);
    return next(request);
  };
}

/** An error that no attempt with the same token would pass, so it is none that is tried again. */
function unauthenticated(message: string): ConnectError {
  return new ConnectError(message, Code.Unauthenticated);
}
