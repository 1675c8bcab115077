// The shared countdowns of the server, kept up to date by one stream. A change of a countdown is a message of its topic below
// `$countdown`, so the page needs no stream for each.
import { type Countdown, CountdownState, type MessageItem, PerennialError } from "perennial-client/web";

import { toMillis } from "./durations.js";
import { Reader } from "./reader.js";
import { client, faultOf, noticeError } from "./session.js";

const PREFIX = "$countdown.";
const POLL_MS = 3_000;
const PAGE = 1_000;

/** A countdown, and when its answer arrived, by `performance.now()`. */
export interface Known {
  countdown: Countdown;
  at: number;
}

/** What is left of a countdown now, in milliseconds. */
export function remaining({ countdown, at }: Known): number {
  const rest = toMillis(countdown.remainingDuration);
  return countdown.state === CountdownState.RUNNING ? Math.max(rest - (performance.now() - at), 0) : rest;
}

/** The part of a countdown that is left. */
export function partOf(known: Known): number {
  const total = toMillis(known.countdown.totalDuration);
  return total === 0 ? 0 : remaining(known) / total;
}

export class SharedCountdowns {
  readonly reader: Reader<MessageItem>;
  list: Known[] = [];
  isLoaded = false;
  isCaughtUp = false;
  /** The caller may not read the changes: the list is asked for again and again. */
  isPolled = false;
  fault = "";
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(private readonly change: () => void) {
    this.reader = new Reader<MessageItem>({
      open: (options) => client.messages({ topics: [`${PREFIX}>`] }, { ...options, events: true }),
      take: (item) => {
        if (item.case === "caughtUp") this.isCaughtUp = true;
        if (item.case === "message") void this.refresh(item.value.topic.slice(PREFIX.length));
      },
      change: () => this.#changed(),
      resumed: () => void this.load(),
    });
  }

  start(): void {
    this.isPolled = false;
    this.reader.start();
    void this.load();
  }

  stop(): void {
    this.reader.stop();
    clearInterval(this.#timer);
  }

  #changed(): void {
    const { phase, error } = this.reader;
    if (phase === "failed" && error instanceof PerennialError && error.reason === "ACCESS_DENIED" && !this.isPolled) {
      this.isPolled = true;
      this.#timer = setInterval(() => document.hidden || void this.load(), POLL_MS);
    }
    if (phase === "failed") noticeError(error);
    this.change();
  }

  /** Asks for all countdowns. */
  async load(): Promise<void> {
    try {
      const { countdowns } = await client.countdownService.listCountdowns({ pageSize: PAGE });
      const at = performance.now();
      this.list = countdowns.map((countdown) => ({ countdown, at }));
      this.isLoaded = true;
      this.fault = "";
    } catch (error) {
      noticeError(error);
      this.fault = faultOf(error);
    }
    this.change();
  }

  /** Asks for one countdown. */
  async refresh(name: string): Promise<void> {
    try {
      const { countdown } = await client.countdownService.getCountdown({ name });
      if (countdown) this.put(countdown);
    } catch (error) {
      if (error instanceof PerennialError && error.reason === "COUNTDOWN_NOT_FOUND") this.remove(name);
      // Another error is that of a lost connection: the list is loaded again when the stream resumes.
    }
  }

  put(countdown: Countdown): void {
    const known = this.list.find((one) => one.countdown.name === countdown.name);
    if (known && (known.countdown.version ?? 0n) > (countdown.version ?? 0n)) return;
    const others = this.list.filter((one) => one !== known);
    const made = { countdown, at: performance.now() };
    this.list = [...others, made].sort((a, b) => (a.countdown.name < b.countdown.name ? -1 : 1));
    this.change();
  }

  remove(name: string): void {
    this.list = this.list.filter(({ countdown }) => countdown.name !== name);
    this.change();
  }
}
