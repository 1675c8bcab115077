// Reads one stream into a pane, and keeps what a person wants to know about it: whether it waits for a slot, is live, is lost
// and tried again, or has ended.
import type { ItemStream, StreamOptions } from "perennial-client/web";

import { takeSlot } from "./slots.js";

export type Phase = "idle" | "waiting" | "opening" | "open" | "held" | "lost" | "ended" | "failed";

export interface ReaderOptions<T> {
  open(options: StreamOptions): ItemStream<T>;
  /** Takes one item. `reader.state` is the state of the stream after it. */
  take(item: T): void;
  /** Called after each change of the phase, and after each run of items. */
  change(): void;
  /** The stream resumed after it was lost for this time. */
  resumed?(outageMs: number, error: Error): void;
  /** Whether the pane wants more items. If not, the reader waits for `wake`, and the server keeps the rest. */
  wantsMore?(): boolean;
}

/** How long items are taken before the browser may draw. */
const SLICE_MS = 6;
/** How long items are collected before the pane hears of them. */
const FRAME_MS = 16;

export class Reader<T> {
  phase: Phase = "idle";
  error: Error | undefined;
  /** When the next attempt begins, by `performance.now()`. */
  retryAt = 0;
  #stop: AbortController | undefined;
  #stream: ItemStream<T> | undefined;
  #wake: (() => void) | undefined;
  #lostAt: number | undefined;
  #soon: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly options: ReaderOptions<T>) {}

  get state(): string | undefined {
    return this.#stream?.state;
  }

  start(): void {
    this.stop();
    const stop = new AbortController();
    this.#stop = stop;
    this.#run(stop.signal).catch((error: unknown) => {
      if (stop.signal.aborted) return;
      this.error = error instanceof Error ? error : new Error(String(error));
      this.#set("failed");
    });
  }

  stop(): void {
    this.#stop?.abort();
    this.#stop = undefined;
    this.#stream = undefined;
    this.#lostAt = undefined;
    this.error = undefined;
    this.phase = "idle";
  }

  /** Asks `wantsMore` again. */
  wake(): void {
    this.#wake?.();
  }

  #set(phase: Phase): void {
    if (this.phase === phase) return;
    this.phase = phase;
    this.options.change();
  }

  async #run(signal: AbortSignal): Promise<void> {
    this.#set("waiting");
    const give = await takeSlot(signal);
    try {
      signal.throwIfAborted();
      this.#set("opening");
      await this.#read(signal);
      if (!signal.aborted) this.#set("ended");
    } finally {
      give();
    }
  }

  async #read(signal: AbortSignal): Promise<void> {
    const { open, take, change, wantsMore } = this.options;
    const stream = open({
      signal,
      // The pane shows that the server is away, for as long as it takes.
      connectTimeoutMs: Infinity,
      onRetry: (error, waitMs) => {
        if (signal.aborted) return;
        this.#lostAt ??= performance.now();
        this.error = error;
        this.retryAt = performance.now() + waitMs;
        this.phase = "lost";
        change();
      },
      onConnect: () => {
        if (signal.aborted) return;
        const [lostAt, error] = [this.#lostAt, this.error];
        this.#lostAt = undefined;
        this.error = undefined;
        if (lostAt !== undefined && error) this.options.resumed?.(performance.now() - lostAt, error);
        this.#set("open");
      },
    });
    this.#stream = stream;
    let from = performance.now();
    for await (const item of stream) {
      if (signal.aborted) return;
      take(item);
      while (!signal.aborted && wantsMore?.() === false) await this.#hold(signal);
      this.#changeSoon();
      if (performance.now() - from > SLICE_MS) {
        await nextTask();
        from = performance.now();
      }
    }
  }

  /** Thousands of items are one change. */
  #changeSoon(): void {
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined;
      this.options.change();
    }, FRAME_MS);
  }

  async #hold(signal: AbortSignal): Promise<void> {
    if (this.phase === "open") this.#set("held");
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
    this.#wake = undefined;
    if (this.phase === "held") this.#set("open");
  }
}

const { port1, port2 } = new MessageChannel();
const tasks: (() => void)[] = [];
port1.onmessage = () => tasks.shift()?.();

/** Lets the browser draw and handle input. Unlike a timer it does not become slow in a tab that is hidden. */
function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    tasks.push(resolve);
    port2.postMessage(0);
  });
}
