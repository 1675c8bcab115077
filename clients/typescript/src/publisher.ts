import { type MessageInitShape, clone, create, toBinary } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";

import type { Connections } from "./connections.js";
import { ClosedError, OutcomeUnknownError, PerennialError, ProtocolError, fromConnect, fromResult, unavailable } from "./errors.js";
import {
  MessageService,
  type PublishRequest,
  PublishRequestSchema,
  type PublishResponse,
  type PublishResult,
  PublishStreamRequestSchema,
} from "./gen/perennial/v1/messages_pb.js";
import { CONNECT_TIMEOUT_MS } from "./flow.js";
import { MAX_TIMER_MS, Waits, after, sleep } from "./waits.js";

/** The unanswered messages: what the server's own window takes, minus those that may be on their way. */
const WINDOW_MESSAGES = 8_192;
const WINDOW_BYTES = 16 << 20;
const FRAME_MESSAGES = 1_024;
const FRAME_BYTES = 256 << 10;
/** Without an answer for this time, the connection is lost. */
const ANSWER_TIMEOUT_MS = 30_000;
/**
 * How long the server knows an id by default. The transport may hold a message that it was given until the call is cancelled,
 * so a call ends this long before the server forgets the id of a message that it has sent again; clocks and the disk need
 * some time, too. A message is sent again only if there is the time for an answer before.
 */
const DEDUPE_WINDOW_MS = 120_000;
const DEDUPE_LAST_MS = 10_000;
const DEDUPE_MARGIN_MS = ANSWER_TIMEOUT_MS + DEDUPE_LAST_MS;
/** How long the end of an answered call is awaited. */
const CLOSE_TIMEOUT_MS = 2_000;

/** Options of a publisher. */
export interface PublisherOptions {
  /** Ends the publisher: messages without an answer fail with the reason of the signal. */
  signal?: AbortSignal;
  /**
   * How long the server remembers the ids of messages, in milliseconds, if its operator changed that from 2 minutes. A
   * message whose answer was lost is not sent again after this time minus 40 s: see {@link OutcomeUnknownError}.
   */
  dedupeWindowMs?: number;
  /**
   * How long to try to reach a server after the first message, in milliseconds. Then the publisher fails, and so does each
   * receipt. A server that it has reached is tried again without limit. Unset: 10,000.
   */
  connectTimeoutMs?: number;
}

/** The answer to one message. */
export interface Receipt {
  /**
   * Resolves when the message is on disk, with its sequence. Rejects with a {@link PerennialError} if the server refused it,
   * and with an {@link OutcomeUnknownError} if nobody knows whether it is published.
   */
  readonly response: Promise<PublishResponse>;
}

interface Entry {
  message: PublishRequest;
  bytes: number;
  response: Promise<PublishResponse>;
  /** When the message was first sent. */
  sent: number | undefined;
  /** An earlier call sent it first. */
  isAgain: boolean;
  resolve: (response: PublishResponse) => void;
  reject: (error: unknown) => void;
}

/**
 * Publishes messages, each on its own and in the order of the calls of `publish`.
 *
 * Each message has an id: its own, or one that the publisher makes. After a lost connection the publisher sends the messages
 * that were not answered again, with the same ids, so that none is published twice. It keeps up to 8,192 messages or 16 MiB
 * without an answer; then `publish` waits.
 */
export class Publisher {
  readonly #connections: Connections;
  readonly #window: number;
  readonly #connectTimeout: number;
  /** When the first attempt began. */
  #began: number | undefined;
  /** A server has accepted a call. */
  #isAccepted = false;
  readonly #ids = newId();
  readonly #ended = new AbortController();
  readonly #over: Promise<void>;
  #number = 0;
  #entries: Entry[] = [];
  /** The number of entries that were sent on this call. */
  #sent = 0;
  #bytes = 0;
  #isClosed = false;
  #failed: { error: unknown } | undefined;
  /** Messages that wait for room, in the order of the calls of `publish`. */
  #queue: { entry: Entry; resolve: (receipt: Receipt) => void; reject: (error: unknown) => void }[] = [];
  /** Those who wait for something to send, or for the end. */
  #waiting: (() => void)[] = [];

  /** @internal */
  constructor(connections: Connections, { signal, dedupeWindowMs, connectTimeoutMs }: PublisherOptions) {
    this.#connections = connections;
    this.#window = dedupeWindowMs ?? DEDUPE_WINDOW_MS;
    this.#connectTimeout = connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
    const abort = () => this.#end(signal?.reason);
    const close = () => this.#end(connections.closed.reason);
    signal?.addEventListener("abort", abort, { once: true });
    connections.closed.addEventListener("abort", close, { once: true });
    if (signal?.aborted) abort();
    this.#over = this.#run()
      .then(
        () => this.#end(new ClosedError("the publisher is closed")),
        (error: unknown) => this.#end(error),
      )
      .finally(() => {
        signal?.removeEventListener("abort", abort);
        connections.closed.removeEventListener("abort", close);
      });
  }

  /**
   * Takes a message, and waits while too many are unanswered. The receipt has the answer; an answer that is an error is
   * not reported elsewhere.
   */
  async publish(message: MessageInitShape<typeof PublishRequestSchema>): Promise<Receipt> {
    if (this.#failed) throw this.#failed.error;
    if (this.#isClosed) throw new ClosedError("the publisher is closed");
    const entry = this.#prepare(message);
    if (this.#queue.length > 0 || !this.#hasRoom()) {
      return new Promise((resolve, reject) => this.#queue.push({ entry, resolve, reject }));
    }
    this.#entries.push(entry);
    this.#bytes += entry.bytes;
    this.#notify();
    return { response: entry.response };
  }

  /** Waits until every message has its answer. It rejects only if the publisher failed: the answers are in the receipts. */
  async flush(): Promise<void> {
    while (this.#failed === undefined && !this.#isEmpty) await this.#change();
    if (this.#failed && !(this.#failed.error instanceof ClosedError)) throw this.#failed.error;
  }

  /** Waits until every message has its answer, and ends the publisher. Rejects if the publisher failed. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#notify();
    await this.#over;
    if (this.#failed && !(this.#failed.error instanceof ClosedError)) throw this.#failed.error;
  }

  #hasRoom(): boolean {
    return this.#entries.length < WINDOW_MESSAGES && this.#bytes < WINDOW_BYTES;
  }

  get #isEmpty(): boolean {
    return this.#entries.length === 0 && this.#queue.length === 0;
  }

  /** Copies a message, so that the caller may use it again, and gives it an id. */
  #prepare(init: MessageInitShape<typeof PublishRequestSchema>): Entry {
    const message = clone(PublishRequestSchema, create(PublishRequestSchema, init));
    if (message.messageId === undefined) {
      this.#number += 1;
      message.messageId = `${this.#ids}-${this.#number}`;
    }
    const bytes = toBinary(PublishRequestSchema, message).length;
    let settle: Pick<Entry, "resolve" | "reject"> | undefined;
    const response = new Promise<PublishResponse>((resolve, reject) => (settle = { resolve, reject }));
    // A caller may leave the receipt alone, and wait for flush or close.
    response.catch(() => {});
    return { message, bytes, response, sent: undefined, isAgain: false, ...(settle as unknown as Pick<Entry, "resolve" | "reject">) };
  }

  /** Takes the messages that wait for room, while there is some. */
  #admit(): void {
    let count = 0;
    for (const { entry, resolve } of this.#queue) {
      if (!this.#hasRoom()) break;
      this.#entries.push(entry);
      this.#bytes += entry.bytes;
      resolve({ response: entry.response });
      count += 1;
    }
    this.#queue.splice(0, count);
    this.#notify();
  }

  /** Resolves at the next change: of what is to send, or of the end. */
  #change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #notify(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  /** Gives the messages without an answer the error. */
  #end(error: unknown): void {
    if (this.#failed !== undefined) return;
    this.#failed = { error };
    this.#ended.abort(error);
    for (const one of this.#entries) one.reject(error);
    for (const one of this.#queue) one.reject(error);
    this.#entries = [];
    this.#queue = [];
    this.#notify();
  }

  get #isOver(): boolean {
    return this.#isClosed && this.#isEmpty;
  }

  /** Sends until the publisher is closed and every message is answered, or until an error that will not pass. */
  async #run(): Promise<void> {
    const waits = new Waits();
    while (this.#failed === undefined) {
      while (this.#entries.length === 0 && this.#failed === undefined) {
        if (this.#isClosed) return;
        await this.#change();
      }
      let failure: Error;
      try {
        await this.#once(waits);
        if (this.#isOver) return;
        failure = unavailable("the server ended the call before it had answered all messages");
      } catch (error) {
        if (this.#isOver || this.#failed !== undefined) return;
        failure = fromConnect(error);
      }
      const wait = waits.next(failure);
      const isLate = !this.#isAccepted && wait >= this.#timeToConnect();
      if (!(failure instanceof PerennialError && failure.isRetryable) || isLate) throw failure;
      await sleep(wait, this.#ended.signal);
      // Every unanswered message is sent again.
      this.#sent = 0;
    }
  }

  /** The milliseconds that are left until a server must have accepted a call. */
  #timeToConnect(): number {
    this.#began ??= performance.now();
    return Math.max(0, this.#began + this.#connectTimeout - performance.now());
  }

  /** Makes one call, up to its end. */
  async #once(waits: Waits): Promise<void> {
    const connection = this.#connections.acquire();
    const call = new AbortController();
    const forward = () => call.abort();
    this.#ended.signal.addEventListener("abort", forward, { once: true });
    let lost: Error | undefined;
    const lose = (why: string) => {
      lost = unavailable(why);
      call.abort();
    };
    let timer: ReturnType<typeof setTimeout> | undefined;
    let watched: ReturnType<typeof setTimeout> | undefined;
    const watch = () => {
      clearTimeout(timer);
      timer = undefined;
      if (this.#isOver) timer = setTimeout(forward, CLOSE_TIMEOUT_MS);
      else if (this.#sent > 0) timer = setTimeout(() => lose("no answer arrived for 30 s"), ANSWER_TIMEOUT_MS);
    };
    // Answers to the messages before may still come, so the watch of answers does not end the call.
    const watchIds = () => {
      const left = idsKnownFor(this.#entries[0], this.#sent, this.#window, performance.now());
      if (left === undefined) return;
      if (left > 0) watched = setTimeout(watchIds, Math.min(left, MAX_TIMER_MS));
      else lose("a message that was sent again has no answer, and the server may forget its id soon");
    };
    watchIds();
    const stop = this.#isAccepted
      ? () => {}
      : after(this.#timeToConnect(), () => lose(`no server accepted the call within ${this.#connectTimeout} ms`));
    const onHeader = () => {
      this.#isAccepted = true;
      stop();
    };
    try {
      const client = createClient(MessageService, connection.transport);
      const requests = this.#frames(call.signal, () => timer === undefined && watch());
      for await (const { results } of client.publishStream(requests, { signal: call.signal, onHeader })) {
        waits.reset();
        this.#answered(results);
        watch();
        this.#admit();
      }
    } catch (error) {
      if (lost === undefined) throw error;
      this.#connections.retire(connection);
      throw lost;
    } finally {
      stop();
      clearTimeout(timer);
      clearTimeout(watched);
      this.#ended.signal.removeEventListener("abort", forward);
      call.abort();
      // The generator of the requests may wait for a message.
      this.#notify();
      this.#connections.release(connection);
    }
  }

  /** The requests of one call: messages that are ready share one. */
  async *#frames(call: AbortSignal, onSend: () => void): AsyncIterable<MessageInitShape<typeof PublishStreamRequestSchema>> {
    while (!call.aborted) {
      const messages = this.#nextFrame();
      if (messages.length > 0) {
        onSend();
        yield { messages };
      } else if (this.#isClosed) {
        return;
      } else {
        await this.#change();
      }
    }
  }

  /**
   * The messages of the next request. The server may have forgotten the ids of those that were first sent long ago, so these
   * fail instead.
   */
  #nextFrame(): PublishRequest[] {
    const messages: PublishRequest[] = [];
    const now = performance.now();
    const count = this.#entries.length;
    let bytes = 0;
    for (let one = this.#entries[this.#sent]; one !== undefined; one = this.#entries[this.#sent]) {
      const waited = one.sent === undefined ? 0 : now - one.sent;
      if (waited > this.#window - DEDUPE_MARGIN_MS) {
        this.#entries.splice(this.#sent, 1);
        this.#bytes -= one.bytes;
        one.reject(new OutcomeUnknownError(one.message.messageId ?? "", waited));
        continue;
      }
      const isFull = messages.length >= FRAME_MESSAGES || (messages.length > 0 && bytes + one.bytes > FRAME_BYTES);
      if (isFull) break;
      one.isAgain = one.sent !== undefined;
      one.sent ??= now;
      messages.push(one.message);
      bytes += one.bytes;
      this.#sent += 1;
    }
    if (this.#entries.length < count) this.#admit();
    return messages;
  }

  #answered(results: readonly PublishResult[]): void {
    if (results.length > this.#sent) throw new ProtocolError("it answered messages that it did not get");
    const answered = this.#entries.splice(0, results.length);
    this.#sent -= answered.length;
    for (const [n, one] of answered.entries()) {
      this.#bytes -= one.bytes;
      const result = results[n];
      if (result?.outcome.case === "published") one.resolve(result.outcome.value);
      else if (result !== undefined) one.reject(fromResult(result));
    }
  }
}

/**
 * How long a call may go on until the server may forget the id of a message that it has sent again. Undefined: it sends none
 * again. Nothing that is sent from now on is so old that its time is shorter than that of an answer.
 *
 * @internal
 */
export function idsKnownFor(
  oldest: Pick<Entry, "sent" | "isAgain"> | undefined,
  sentCount: number,
  windowMs: number,
  now: number,
): number | undefined {
  if (oldest?.sent === undefined) return undefined;
  if (sentCount === 0) return ANSWER_TIMEOUT_MS;
  return oldest.isAgain ? oldest.sent + windowMs - DEDUPE_LAST_MS - now : undefined;
}

/** 128 random bits in the alphabet of URLs. The server keeps each id for a while, so they are short. */
function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
