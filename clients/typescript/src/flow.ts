import type { Duration } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import type { CallOptions, Transport } from "@connectrpc/connect";

import type { Connections, Shared } from "./connections.js";
import { PerennialError, ProtocolError, fromConnect, unavailable } from "./errors.js";
import { MAX_TIMER_MS, Waits, after, sleep } from "./waits.js";

const HEARTBEAT_MS = 15_000;
/** A stream that misses this number of heartbeats is lost. */
const MISSED_HEARTBEATS = 3;
/** A busy machine may pause for this time, so a short heartbeat does not shorten it. */
const MIN_SILENCE_MS = 5_000;
/** How much longer the first response of an attempt may take, because the connection is made first. */
const CONNECT_ALLOWANCE_MS = 10_000;

/** @internal */
export const CONNECT_TIMEOUT_MS = 10_000;

/**
 * How a kind of stream is called.
 *
 * @internal
 */
export interface Source<R> {
  heartbeat: Duration | undefined;
  /** The limit of the caller. */
  limit: bigint | undefined;
  open(
    transport: Transport,
    start: { cursor: string | undefined; limit: bigint | undefined },
    options: CallOptions,
  ): AsyncIterable<R>;
  count(response: R): number;
}

/** @internal */
export interface FlowOptions {
  signal: AbortSignal;
  /** When the stream has to end, by `performance.now()`. */
  deadline: number | undefined;
  connectTimeoutMs: number;
  maxOutageMs: number | undefined;
  onRetry: ((error: Error, waitMs: number) => void) | undefined;
  onConnect: (() => void) | undefined;
  /** The first call asks for one item. */
  probes: boolean;
}

interface Attempt<R> {
  responses: AsyncIterator<R>;
  connection: Shared;
  controller: AbortController;
  unlink: () => void;
  isSilent: boolean;
  /** The call ends after one item, whatever the caller's limit. */
  isProbe: boolean;
  hasAnswered: boolean;
}

/**
 * One stream over many calls. It yields each response once and in order.
 *
 * @internal
 */
export class Flow<R extends { cursor: string }> {
  readonly #silenceMs: number;
  readonly #waits = new Waits();
  #cursor: string | undefined;
  /** The rest of the caller's limit. */
  #left: bigint | undefined;
  /** The next call asks for one item. */
  #isProbe: boolean;
  #attempt: Attempt<R> | undefined;
  /** When the stream began to wait for a response; undefined while it has one. */
  #outage: number | undefined = performance.now();
  #hasAnswered = false;

  constructor(
    private readonly connections: Connections,
    private readonly source: Source<R>,
    private readonly options: FlowOptions,
    cursor: string | undefined,
  ) {
    const { heartbeat } = source;
    const heartbeatMs = heartbeat ? Number(heartbeat.seconds) * 1_000 + heartbeat.nanos / 1e6 : HEARTBEAT_MS;
    this.#silenceMs = Math.max(MISSED_HEARTBEATS * heartbeatMs, MIN_SILENCE_MS);
    this.#cursor = cursor;
    this.#left = source.limit;
    // The first response has items, and no cursor is before them. So the first call asks for one item, after which there is
    // a cursor. A consumer has its position on the server, and a second call would take over from the first.
    this.#isProbe = cursor === undefined && options.probes;
  }

  /** The next response, or undefined at the end of the stream. */
  async next(): Promise<R | undefined> {
    for (;;) {
      let failure: unknown;
      try {
        this.options.signal.throwIfAborted();
        const { value, done } = await this.#once();
        if (!done) {
          this.#received(value);
          return value;
        }
        const isOver = !this.#attempt?.isProbe || this.#isProbe || this.#isComplete();
        this.close();
        if (isOver) return undefined;
        continue;
      } catch (error) {
        failure = error;
      }
      const silent = this.#attempt?.isSilent ? this.#attempt : undefined;
      if (silent !== undefined) this.connections.retire(silent.connection);
      this.close();
      this.options.signal.throwIfAborted();
      // Every item was delivered; only the OK was lost.
      if (this.#isComplete()) return undefined;
      if (silent !== undefined) failure = unavailable("nothing arrived for too long, not even a heartbeat");
      await this.#failed(fromConnect(failure));
    }
  }

  /** Ends the open call. The server gets a reset of the stream. */
  close(): void {
    const attempt = this.#attempt;
    if (attempt === undefined) return;
    this.#attempt = undefined;
    attempt.unlink();
    attempt.controller.abort();
    // The error of the abort is nobody's.
    attempt.responses.return?.().then(undefined, () => {});
    this.connections.release(attempt.connection);
  }

  #isComplete(): boolean {
    return this.#left !== undefined && this.#left <= 0n;
  }

  #received(response: R): void {
    if (response.cursor === "") throw new ProtocolError("a response has no cursor");
    this.#cursor = response.cursor;
    const items = this.source.count(response);
    if (items > 0) this.#isProbe = false;
    if (this.#left !== undefined) this.#left -= BigInt(items);
    this.#waits.reset();
    this.#hasAnswered = true;
    this.#outage = undefined;
    if (this.#attempt === undefined || this.#attempt.hasAnswered) return;
    this.#attempt.hasAnswered = true;
    this.options.onConnect?.();
  }

  async #once(): Promise<IteratorResult<R, undefined>> {
    const attempt = (this.#attempt ??= this.#open());
    let wait = this.#silenceMs;
    if (!attempt.hasAnswered) wait = Math.min(wait + CONNECT_ALLOWANCE_MS, Math.max(this.#rest() ?? Infinity, 0));
    // The timer runs only while the stream waits for a response, not while the caller works on one.
    const cancel = after(wait, () => {
      attempt.isSilent = true;
      attempt.controller.abort();
    });
    try {
      return await attempt.responses.next();
    } finally {
      cancel();
    }
  }

  /** How long the stream may still try to get a response, if that is bounded. */
  #rest(): number | undefined {
    const { connectTimeoutMs, maxOutageMs } = this.options;
    const limit = this.#hasAnswered ? maxOutageMs : connectTimeoutMs;
    if (limit === undefined || this.#outage === undefined) return undefined;
    return limit - (performance.now() - this.#outage);
  }

  #open(): Attempt<R> {
    const { signal, deadline } = this.options;
    const connection = this.connections.acquire();
    const controller = new AbortController();
    const forward = () => controller.abort();
    signal.addEventListener("abort", forward, { once: true });
    const limit = this.#isProbe ? 1n : this.#left;
    const options: CallOptions = { signal: controller.signal };
    const left = deadline === undefined ? Infinity : deadline - performance.now();
    // The timer of Connect cannot be longer. The stream has one of its own.
    if (left < MAX_TIMER_MS) options.timeoutMs = Math.max(Math.ceil(left), 1);
    const responses = this.source.open(connection.transport, { cursor: this.#cursor, limit }, options);
    return {
      responses: responses[Symbol.asyncIterator](),
      connection,
      controller,
      unlink: () => signal.removeEventListener("abort", forward),
      isSilent: false,
      isProbe: this.#isProbe,
      hasAnswered: false,
    };
  }

  /** Waits before the next attempt, or throws the error if there should be no other one. */
  async #failed(failure: Error): Promise<void> {
    if (!(failure instanceof PerennialError && failure.isRetryable)) throw failure;
    this.#outage ??= performance.now();
    const wait = this.#waits.next(failure);
    const rest = this.#rest();
    if (rest !== undefined && wait >= rest) throw failure;
    this.options.onRetry?.(failure, wait);
    await sleep(wait, this.options.signal);
  }
}

/** @internal */
export function deadlineExceeded(): PerennialError {
  return new PerennialError({ code: Code.DeadlineExceeded, message: "the deadline of the caller has passed" });
}
