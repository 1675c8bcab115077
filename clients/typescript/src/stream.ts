import type { Connections } from "./connections.js";
import { ClosedError } from "./errors.js";
import { CONNECT_TIMEOUT_MS, Flow, deadlineExceeded } from "./flow.js";
import type { Source } from "./flow.js";
import { type Key, type Kind, type State, parseState, stateText } from "./state.js";
import { Keeper, type Store } from "./store.js";
import { after } from "./waits.js";

/** Options of one stream. */
export interface StreamOptions {
  /** Ends the stream: its iterator throws the reason of the signal. */
  signal?: AbortSignal;
  /** How long the whole stream may take, over all its connections, in milliseconds. Then it ends with DEADLINE_EXCEEDED. */
  timeoutMs?: number;
  /**
   * Keeps the state, and continues from the state that is there. The state is saved after each item, before the next one
   * is handed out: an item counts as processed when the loop asks for the next one.
   */
  store?: Store;
  /**
   * Save to the store at most once in this time, in milliseconds, and at the end. A program that is killed then gets the
   * items of up to this time again. Unset: after each item.
   */
  saveEveryMs?: number;
  /** Continue after the item whose {@link ItemStream.state} this is. A bare cursor, as the program `perennial` prints it, is a state, too. */
  state?: string;
  /** How long to try to get the first response, in milliseconds. Unset: 10,000. */
  connectTimeoutMs?: number;
  /** Give up when there was no response for this time after a failure, in milliseconds. Unset: try for ever. */
  maxOutageMs?: number;
  /** Called before each wait for another attempt. */
  onRetry?: (error: Error, waitMs: number) => void;
  /** Called when the first response of an attempt has arrived, also if it has no item. After `onRetry`: the stream resumed. */
  onConnect?: () => void;
}

/**
 * What a response hands out: events, then items, then what follows them.
 *
 * @internal
 */
export interface Batch<T> {
  values: readonly T[];
  /** The position of the first item in `values`, and the number of items there. */
  first: number;
  count: number;
  /** How many items of the response were handed out before the stream was opened. */
  handedOut: number;
  /** The item after which the stream continues is still to come, so the state stays as it is. */
  isPending: boolean;
  /** What identifies an item of the response among those after the last cursor at which keys began anew. */
  key: (item: number) => Key;
  /** The number of items in the response. */
  total: number;
}

/**
 * Makes batches of the responses of a kind of stream.
 *
 * @internal
 */
export interface Visitor<R, T> {
  kind: Kind;
  batch(response: R, pending: Key | undefined): Batch<T>;
  /** What identifies the item `pending`, which this response did not have, among those after the response. */
  carry(pending: Key): Key;
  /** Called when a response is complete and keys begin anew. */
  restart(): void;
}

/** @internal */
export interface Opening<R, T> {
  connections: Connections;
  source: Source<R>;
  visitor: Visitor<R, T>;
  options: StreamOptions;
  /** The cursor of the caller's request. */
  cursor: string | undefined;
  isConsumer?: boolean;
}

/** A batch, and where the stream was when it arrived: the state of its items must not change with what comes later. */
interface Placed<T> extends Batch<T> {
  /** The cursor after which the keys are unique, and the one after the batch. */
  before: string | undefined;
  after: string;
  /** The item after which the stream continues, if it was still to come before this batch. */
  pending: Key | undefined;
  /** What is left of its key after this batch, if the item is still to come. */
  carried: Key | undefined;
}

const DONE = { value: undefined, done: true } as const;

/**
 * The items of a stream, each once and in order, over as many connections as it takes. Leave the loop, call `return`, or
 * abort the signal to end it; the server notices at once.
 */
export class ItemStream<T> implements AsyncIterableIterator<T> {
  readonly #opening: Opening<never, T>;
  readonly #ended = new AbortController();
  #unlink: (() => void) | undefined;
  #flow: Flow<{ cursor: string }> | undefined;
  #keeper: Keeper | undefined;
  #isOver = false;
  /** The call of `next` that is not answered. */
  #busy: Promise<unknown> | undefined;

  #batch: Placed<T> | undefined;
  /** The number of values of the batch that were handed out. */
  #at = 0;
  /** The cursor after which the keys of the next batch are unique. */
  #base: string | undefined;
  #pending: Key | undefined;
  #rest: bigint | undefined;

  /** @internal */
  constructor(opening: Opening<never, T>) {
    this.#opening = opening;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /**
   * The state of the stream after the item that was handed out last: save it together with the result of that item, and
   * continue with the option `state`. Undefined before the first response.
   */
  get state(): string | undefined {
    const batch = this.#batch;
    if (batch === undefined) return this.#text(this.#base, this.#pending);
    // What follows the items leaves the stream where the last item left it.
    const item = Math.min(this.#at - 1 - batch.first, batch.count - 1);
    const isEmpty = batch.count === 0 && !batch.isPending;
    return isEmpty && this.#at > batch.first ? this.#text(batch.after, undefined) : this.#stateAfter(batch, item);
  }

  /** The next item. Rejects when the stream fails, and when its signal is aborted. */
  next(): Promise<IteratorResult<T, undefined>> {
    if (this.#busy !== undefined) return this.#busy.then(() => this.next(), () => this.next());
    const batch = this.#batch;
    // The common case needs no call of an async function.
    const isNext = batch !== undefined && this.#at < batch.values.length;
    if (isNext && this.#keeper === undefined && this.#rest === undefined && !this.#ended.signal.aborted) {
      return Promise.resolve({ value: batch.values[this.#at++] as T, done: false });
    }
    const step = this.#step();
    this.#busy = step;
    const free = () => (this.#busy = undefined);
    step.then(free, free);
    return step;
  }

  /** Ends the stream. The item that was handed out last does not count as processed. */
  async return(): Promise<IteratorReturnResult<undefined>> {
    if (!this.#isOver) {
      this.#ended.abort(new ClosedError("the stream is closed"));
      await this.#end();
    }
    return DONE;
  }

  /**
   * The cursor after the last response whose items are all processed, if the one that was handed out last is.
   *
   * @internal
   */
  protected get processed(): string | undefined {
    const batch = this.#batch;
    const isComplete = batch !== undefined && this.#at >= batch.first + batch.count && !batch.isPending;
    return isComplete ? batch.after : this.#base;
  }

  /**
   * Called when a response is complete, and at the end.
   *
   * @internal
   */
  protected async completed(_cursor: string | undefined, _isEnd: boolean): Promise<void> {}

  async #step(): Promise<IteratorResult<T, undefined>> {
    if (this.#isOver) return DONE;
    try {
      const value = await this.#advance();
      if (value !== undefined) return value;
      await this.#end();
      return DONE;
    } catch (error) {
      if (!this.#isOver) {
        // The error of the stream counts, and not one of its last save.
        await this.#end().catch(() => {});
      }
      throw error;
    }
  }

  async #advance(): Promise<IteratorYieldResult<T> | undefined> {
    this.#flow ??= await this.#open();
    const { signal } = this.#ended;
    signal.throwIfAborted();
    for (;;) {
      if (this.#batch !== undefined && this.#at > 0) await this.#done(this.#batch);
      if (this.#rest !== undefined && this.#rest <= 0n) return undefined;
      if (this.#batch !== undefined && this.#at < this.#batch.values.length) {
        return { value: this.#batch.values[this.#at++] as T, done: false };
      }
      await this.#complete();
      const response = await this.#flow.next();
      if (response === undefined) return undefined;
      const [before, pending] = [this.#base, this.#pending];
      const batch = this.#opening.visitor.batch(response as never, pending);
      const isPending = batch.isPending && pending !== undefined;
      const carried = isPending ? this.#opening.visitor.carry(pending) : undefined;
      this.#batch = { ...batch, before, after: response.cursor, pending, carried };
      this.#at = 0;
      if (!batch.isPending) this.#pending = undefined;
    }
  }

  /** Takes notice that the value that was handed out last is processed. */
  async #done(batch: Placed<T>): Promise<void> {
    const item = this.#at - 1 - batch.first;
    if (item < 0 || item >= batch.count) return;
    if (this.#rest !== undefined) this.#rest -= 1n;
    await this.#keeper?.done(() => this.#stateAfter(batch, item) ?? "");
  }

  /** Takes notice that all values of the response are processed. */
  async #complete(): Promise<void> {
    const batch = this.#batch;
    if (batch === undefined) return;
    this.#batch = undefined;
    this.#at = 0;
    this.#base = batch.after;
    this.#opening.visitor.restart();
    if (this.#pending !== undefined) {
      this.#pending = batch.carried;
      return;
    }
    await this.completed(batch.after, false);
    if (batch.total === 0) await this.#keeper?.idle(() => this.#text(batch.after, undefined) ?? "");
  }

  #stateAfter(batch: Placed<T>, item: number): string | undefined {
    if (item < 0) return this.#text(batch.before, batch.pending);
    const index = item + batch.handedOut;
    if (index === batch.total - 1) return this.#text(batch.after, batch.carried);
    if (batch.isPending) return this.#text(batch.before, batch.pending);
    return this.#text(batch.before, batch.key(index));
  }

  #text(cursor: string | undefined, after: Key | undefined): string | undefined {
    return cursor === undefined ? undefined : stateText(this.#opening.visitor.kind, { cursor, after });
  }

  async #open(): Promise<Flow<{ cursor: string }>> {
    const { connections, options, visitor, cursor, isConsumer } = this.#opening;
    const source = { ...this.#opening.source } as Source<{ cursor: string }>;
    const { signal, timeoutMs } = options;
    signal?.throwIfAborted();
    connections.closed.throwIfAborted();
    this.#link(connections.closed, signal, timeoutMs);
    const start = await this.#start(visitor.kind);
    this.#base = start?.cursor ?? cursor;
    this.#pending = start?.after;
    if (this.#pending !== undefined && source.limit !== undefined) {
      // The limit of a call would count items that were handed out before.
      this.#rest = source.limit;
      source.limit = undefined;
    }
    const flowOptions = {
      signal: this.#ended.signal,
      deadline: timeoutMs === undefined ? undefined : performance.now() + timeoutMs,
      connectTimeoutMs: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
      maxOutageMs: options.maxOutageMs,
      onRetry: options.onRetry,
      onConnect: options.onConnect,
      probes: !(isConsumer ?? false),
    };
    return new Flow(connections, source, flowOptions, this.#base);
  }

  async #start(kind: Kind): Promise<State | undefined> {
    const { state, store, saveEveryMs } = this.#opening.options;
    if (store !== undefined) this.#keeper = new Keeper(store, saveEveryMs ?? 0);
    if (state !== undefined) return parseState(state, kind, "the state");
    const saved = await store?.load();
    return saved === undefined ? undefined : parseState(saved, kind, store?.name ?? "the state in the store");
  }

  /** Ends the stream when the client is closed, when the caller's signal is aborted, and at the deadline. */
  #link(closed: AbortSignal, signal: AbortSignal | undefined, timeoutMs: number | undefined): void {
    const close = () => this.#ended.abort(closed.reason);
    const abort = () => this.#ended.abort(signal?.reason);
    closed.addEventListener("abort", close, { once: true });
    signal?.addEventListener("abort", abort, { once: true });
    const cancel =
      timeoutMs === undefined ? undefined : after(timeoutMs, () => this.#ended.abort(deadlineExceeded()));
    this.#unlink = () => {
      closed.removeEventListener("abort", close);
      signal?.removeEventListener("abort", abort);
      cancel?.();
    };
  }

  async #end(): Promise<void> {
    this.#isOver = true;
    this.#unlink?.();
    this.#flow?.close();
    await this.#keeper?.finish();
    await this.completed(this.#base, true);
  }
}
