import { PerennialError } from "./errors.js";

const MIN_WAIT_MS = 100;
const MAX_WAIT_MS = 2_000;

/**
 * The times between attempts: random up to a bound that doubles, so that the clients of a restarted server do not all
 * return at once.
 *
 * @internal
 */
export class Waits {
  #failures = 0;

  /** The wait after a failure. The server may ask for a longer one. */
  next(failure: Error): number {
    const bound = Math.min(MAX_WAIT_MS, MIN_WAIT_MS * 2 ** Math.min(this.#failures, 10));
    this.#failures += 1;
    const asked = failure instanceof PerennialError && failure.isRetryable ? (failure.retryDelayMs ?? 0) : 0;
    return Math.max(Math.random() * bound, asked);
  }

  /** The next wait is a short one, because the server has answered. */
  reset(): void {
    this.#failures = 0;
  }
}

/**
 * The longest delay of setTimeout; a longer one would end at once.
 *
 * @internal
 */
export const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * Calls a function after a time of any length. Returns a function that prevents it.
 *
 * @internal
 */
export function after(ms: number, run: () => void): () => void {
  let timer: ReturnType<typeof setTimeout>;
  const arm = (left: number) => {
    const next = left > MAX_TIMER_MS ? () => arm(left - MAX_TIMER_MS) : run;
    timer = setTimeout(next, Math.min(left, MAX_TIMER_MS));
  };
  arm(ms);
  return () => clearTimeout(timer);
}

/**
 * Waits, or rejects with the reason of the signal.
 *
 * @internal
 */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      cancel();
      reject(signal.reason);
    };
    const cancel = after(ms, () => {
      signal.removeEventListener("abort", stop);
      resolve();
    });
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}
