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
 * Waits, or rejects with the reason of the signal.
 *
 * @internal
 */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}
