import { after } from "./waits.js";

/**
 * Keeps the state of one stream, so that a program that ends and starts again continues after the last item that it has
 * processed.
 */
export interface Store {
  /** A name for errors, such as the path of a file. */
  readonly name?: string;
  /** The state that was saved last, or undefined if there is none. */
  load(): Promise<string | undefined> | string | undefined;
  /** Keeps a state instead of the one before. After it has resolved, the state must survive what the program is prepared for. */
  save(state: string): Promise<void> | void;
}

/** Keeps the state while the program runs: for tests, and for streams that are opened several times. */
export class MemoryStore implements Store {
  #state: string | undefined;

  load(): string | undefined {
    return this.#state;
  }

  save(state: string): void {
    this.#state = state;
  }
}

/** How often a stream without items saves its cursor. */
const SAVE_IDLE_MS = 1_000;

/**
 * Saves the state of a stream: at once, or at most once in a given time.
 *
 * @internal
 */
export class Keeper {
  #state: (() => string) | undefined;
  #saved = -Infinity;
  #cancel: (() => void) | undefined;
  /** The save that is under way, and all before it. */
  #saving: Promise<void> = Promise.resolve();
  #failed: { error: unknown } | undefined;

  constructor(
    readonly store: Store,
    private readonly everyMs: number,
  ) {}

  /** Takes the state after an item was processed. */
  done(state: () => string): Promise<void> {
    return this.#take(state, this.everyMs);
  }

  /** Takes the state after a response without items. */
  idle(state: () => string): Promise<void> {
    return this.#take(state, Math.max(this.everyMs, SAVE_IDLE_MS));
  }

  /** Saves what is not saved yet. */
  async finish(): Promise<void> {
    this.#cancel?.();
    this.#cancel = undefined;
    await this.#save();
  }

  async #take(state: () => string, everyMs: number): Promise<void> {
    this.#state = state;
    const wait = everyMs - (performance.now() - this.#saved);
    if (wait <= 0) return this.#save();
    if (this.#failed) throw this.#failed.error;
    this.#cancel ??= after(wait, () => {
      this.#cancel = undefined;
      // The next use of the stream throws the error.
      this.#save().catch(() => {});
    });
  }

  #save(): Promise<void> {
    this.#saving = this.#saving.then(async () => {
      if (this.#failed) throw this.#failed.error;
      const state = this.#state;
      if (state === undefined) return;
      this.#state = undefined;
      try {
        await this.store.save(state());
      } catch (error) {
        this.#failed = { error };
        throw error;
      }
      this.#saved = performance.now();
    });
    return this.#saving;
  }
}
