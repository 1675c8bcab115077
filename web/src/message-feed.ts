// The messages of some topics as a pane shows them.
import {
  type MessageGap,
  MessageGapReason,
  type MessageItem,
  type MessageStreamEvent,
  OnGap,
  type StoredMessage,
  type StreamOptions,
} from "perennial-client/web";

import { toTimestamp } from "./durations.js";
import { Reader } from "./reader.js";
import { Rows } from "./rows.js";
import { client } from "./session.js";
import { count, format } from "./text.js";
import { type View, numberParam } from "./view.js";

export interface MessageRow {
  kind: "message";
  message: StoredMessage;
  /** The payload as text; of bytes, their size. */
  text: string;
}

export interface NoteRow {
  kind: "note";
  tone: "info" | "gap";
  text: string;
}

/** Rows that are read beyond the last one in sight when the pane does not follow. */
const AHEAD = 2_000;
/** The seconds of the plot. */
export const SECONDS = 120;

export class MessageFeed {
  readonly rows = new Rows<MessageRow | NoteRow>();
  readonly reader: Reader<MessageItem>;
  isCaughtUp = false;
  follows = true;
  lastInSight = 0;
  messages = 0;
  /** Messages by the second in which they arrived, the last one being the current second. */
  rates: number[] = [];
  #second = 0;
  #view: View | undefined;

  constructor(private readonly change: () => void) {
    this.reader = new Reader<MessageItem>({
      open: (options) => this.#open(options),
      take: (item) => this.#take(item),
      change,
      resumed: (outageMs) => {
        this.#note("info", `the connection was lost for ${(outageMs / 1_000).toFixed(1)} s, and the stream resumed: no message is missing`);
      },
      wantsMore: () => this.follows || this.rows.next - this.lastInSight < AHEAD,
    });
  }

  start(view: View): void {
    this.#view = view;
    this.rows.clear();
    this.isCaughtUp = false;
    this.messages = 0;
    this.lastInSight = 0;
    this.rates = new Array<number>(SECONDS).fill(0);
    this.#second = Math.floor(performance.now() / 1_000);
    this.reader.start();
    this.change();
  }

  #open(options: StreamOptions) {
    return client.messages({ ...requestOf(this.#view as View), onGap: OnGap.SKIP }, { ...options, events: true });
  }

  #take(item: MessageItem): void {
    if (item.case === "caughtUp") {
      this.isCaughtUp = true;
    } else if (item.case === "event") {
      this.#event(item.value);
    } else {
      const message = item.value;
      const { content } = message;
      const text = content.case === "data" ? `${count(content.value.length, "byte")} of binary data` : (content.value ?? "");
      this.messages += 1;
      this.#count();
      this.rows.push({ kind: "message", message, text }, text.length + 300);
    }
  }

  #event({ event }: MessageStreamEvent): void {
    if (event.case === "gap") this.#note("gap", gapText(event.value));
    else if (event.case === "narrowed") this.#note("info", `you may read a part of these topics only: ${event.value.topics.join(", ")}`);
    else this.#note("info", "something happened to the log that this page does not know");
  }

  #note(tone: "info" | "gap", text: string): void {
    this.rows.push({ kind: "note", tone, text }, 64);
    this.change();
  }

  /** Moves the plot on to the current second. */
  advance(): void {
    const now = Math.floor(performance.now() / 1_000);
    for (let passed = Math.min(now - this.#second, SECONDS); passed > 0; passed -= 1) {
      this.rates.shift();
      this.rates.push(0);
    }
    this.#second = now;
  }

  #count(): void {
    this.advance();
    this.rates[SECONDS - 1] = (this.rates[SECONDS - 1] ?? 0) + 1;
  }

  /** The sequence of a row, or of the next message after a note. */
  sequenceAt(n: number): bigint | undefined {
    for (let at = n; at < this.rows.next; at += 1) {
      const row = this.rows.get(at);
      if (row?.kind === "message") return row.message.sequence;
    }
    return undefined;
  }

  /** The sequence of the first message that is kept. */
  get firstSequence(): bigint | undefined {
    return this.sequenceAt(this.rows.first);
  }
}

/** The patterns of a view. */
export function topicsOf({ params }: View): string[] {
  return (params["topics"] ?? "").split(",").map((topic) => topic.trim()).filter(Boolean);
}

/** The request of a view. */
export function requestOf(view: View) {
  return { topics: topicsOf(view), start: startOf(view) };
}

function startOf(view: View) {
  const [sequence, last] = [numberParam(view, "seq"), numberParam(view, "last")];
  const { earliest, state, time } = view.params;
  if (sequence !== undefined) return { case: "fromSequence" as const, value: BigInt(sequence) };
  if (last !== undefined) return { case: "last" as const, value: BigInt(last) };
  if (earliest !== undefined) return { case: "earliest" as const, value: true };
  if (state !== undefined) return { case: "lastPerTopic" as const, value: true };
  const moment = new Date(time ?? "");
  if (time !== undefined && !Number.isNaN(moment.getTime())) return { case: "fromTime" as const, value: toTimestamp(moment) };
  return { case: undefined };
}

const GAPS: Record<MessageGapReason, string> = {
  [MessageGapReason.UNSPECIFIED]: "the server gives no reason that this page knows",
  [MessageGapReason.DAMAGED]: "their bytes on disk are damaged",
  [MessageGapReason.REMOVED]: "retention or a purge removed them",
  [MessageGapReason.DIVERGED]: "the log has another history now, as after a restored copy",
};

function gapText({ firstSequence = 0n, lastSequence = 0n, reason }: MessageGap): string {
  return `gap: messages from sequence ${format(firstSequence)} to ${format(lastSequence)} are missing: ${GAPS[reason] ?? GAPS[MessageGapReason.UNSPECIFIED]}`;
}
