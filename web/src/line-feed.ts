// The lines of one file as a pane shows them: rows, notes where something happened to the file, and the state of the stream at
// each row, which is what a link to the row has.
import {
  FileResumedFound,
  type Line,
  type LineItem,
  LineGapReason,
  type LineStreamEvent,
  OnGap,
  type StreamOptions,
  lineText,
} from "perennial-client/web";

import { Reader } from "./reader.js";
import { Rows } from "./rows.js";
import { client } from "./session.js";
import { bytes, count, format } from "./text.js";
import { type View, numberParam } from "./view.js";

export interface LineRow {
  kind: "line";
  text: string;
  offset: number;
  number: number | undefined;
  /** "↪" for a continuation, and the like. */
  flags: string;
  /** How often the stream had changed to another file. */
  switches: number;
  /** The length of a line that may grow. */
  bytes: number | undefined;
}

export interface NoteRow {
  kind: "note";
  tone: "info" | "gap";
  text: string;
}

/** Longer lines come in pieces, so that no row is slow to draw. */
const MAX_LINE_BYTES = 8_192;
/** Rows that are read beyond the last one in sight when the pane does not follow. */
const AHEAD = 2_000;
/** How far back a jump to earlier lines of the same file goes. */
const BACK_BYTES = 256 * 1_024;
/** Rows in which a goal is looked for: more than `BACK_BYTES` have. A goal whose file is gone is nowhere. */
const MAX_ROWS_TO_GOAL = 300_000;
const SWITCHES = ["rotated", "truncated", "opened", "late"];

interface State {
  version: 1;
  kind: "lines";
  cursor: string;
  after?: { switches: number; offset: string; bytes?: string };
}

/** A line of a stream: how often the stream had changed to another file before it, and its first byte in its file. */
export type Place = Pick<LineRow, "switches" | "offset">;

export class LineFeed {
  readonly rows = new Rows<LineRow | NoteRow>();
  readonly reader: Reader<LineItem>;
  isCaughtUp = false;
  /** Read on, whatever is in sight. */
  follows = true;
  lastInSight = 0;
  /** A line to read up to, whatever is in sight. */
  goal: Place | undefined;
  lines = 0;
  #view: View | undefined;
  #switches = 0;
  /** Offsets before the first row are in the file that is at the path now. */
  #isSameFile = true;
  /** The numbers of switches at the marks, by the number of the row. */
  #switchesAt = new Map<number, number>();
  /** The state before the first row. */
  #base: string | undefined;

  constructor(private readonly change: () => void) {
    this.reader = new Reader<LineItem>({
      open: (options) => this.#open(options),
      take: (item) => this.#take(item),
      change,
      resumed: (outageMs) => {
        this.#note("info", `the connection was lost for ${(outageMs / 1_000).toFixed(1)} s, and the stream resumed: no line is missing`);
      },
      wantsMore: () => this.follows || this.goal !== undefined || this.rows.next - this.lastInSight < AHEAD,
    });
  }

  /** Reads from the start that a view asks for. */
  start(view: View): void {
    this.#view = view;
    this.rows.clear();
    this.#switchesAt.clear();
    this.#switches = 0;
    this.#isSameFile = true;
    this.#base = stateOf(view);
    this.isCaughtUp = false;
    this.lines = 0;
    this.lastInSight = 0;
    this.goal = undefined;
    this.reader.start();
    this.change();
  }

  /** The number of the row at the goal, or of the last before it, once that is known. There is no goal any more then. */
  takeGoal(): number | undefined {
    const { goal, rows } = this;
    if (goal === undefined) return undefined;
    const distance = ({ switches, offset }: Place) => switches - goal.switches || offset - goal.offset;
    const last = rows.list.findLast(({ value }) => value.kind === "line")?.value as LineRow | undefined;
    const isReached = this.isCaughtUp || (last !== undefined && distance(last) >= 0);
    if (!isReached && rows.next < MAX_ROWS_TO_GOAL) return undefined;
    this.goal = undefined;
    return rows.list.findLast(({ value }) => value.kind === "line" && distance(value) <= 0)?.n;
  }

  #open(options: StreamOptions) {
    const view = this.#view as View;
    const state = this.#base;
    return client.readLines(
      { ...requestOf(view), follow: true, maxLineBytes: MAX_LINE_BYTES },
      { ...options, events: true, ...(state === undefined ? {} : { state }) },
    );
  }

  #take(item: LineItem): void {
    if (item.case === "line") {
      this.#takeLine(item.value);
    } else if (item.case === "event") {
      this.#takeEvent(item.value);
    } else {
      this.isCaughtUp = true;
    }
    if (item.case === "caughtUp" || !this.rows.needsMark) return;
    const { state } = this.reader;
    if (state === undefined) return;
    this.rows.mark(state);
    this.#switchesAt.set(this.rows.next - 1, this.#switches);
    if (this.#switchesAt.size > 2_000) this.#forgetSwitches();
  }

  #takeLine(line: Line): void {
    const text = lineText(line);
    const offset = Number(line.offset ?? 0n);
    if (this.rows.next === 0 && this.#base === undefined) void this.#findBase(offset);
    const mayGrow = line.partial || line.noNewline;
    const size = mayGrow ? (line.content.case === "data" ? line.content.value : new TextEncoder().encode(text)).length : undefined;
    const value: LineRow = {
      kind: "line",
      text,
      offset,
      number: line.number === undefined ? undefined : Number(line.number),
      flags: flagsOf(line),
      switches: this.#switches,
      bytes: size,
    };
    this.lines += 1;
    this.rows.push(value, text.length + 64);
  }

  #takeEvent({ event }: LineStreamEvent): void {
    if (event.case !== undefined && SWITCHES.includes(event.case)) this.#switches += 1;
    if (event.case === "resumed" && event.value.found !== FileResumedFound.EXACT) this.#isSameFile = false;
    const note = noteOf(event);
    if (note !== undefined) this.#note(event.case === "gap" ? "gap" : "info", note);
  }

  #note(tone: "info" | "gap", text: string): void {
    this.rows.push({ kind: "note", tone, text }, 64);
    this.change();
  }

  #forgetSwitches(): void {
    const first = this.rows.first;
    for (const n of this.#switchesAt.keys()) if (n < first && this.#switchesAt.size > 1_000) this.#switchesAt.delete(n);
  }

  /** Gets a cursor before the first line, which the stream itself does not give. */
  async #findBase(offset: number): Promise<void> {
    const view = this.#view;
    const at = BigInt(offset);
    const path = view?.path ?? "";
    const start = { case: "fromOffset" as const, value: at };
    try {
      for await (const { cursor } of client.lineService.readLines({ path, start, untilOffset: at })) {
        if (view === this.#view) this.#base ??= cursor;
        return;
      }
    } catch {
      // The first line has no link then; each later one has.
    }
  }

  /** The parameters of a view that opens on a row, or undefined if there is no cursor before it. */
  placeOf(n: number): { cursor: string; after?: string } | undefined {
    const state = this.#stateBefore(n);
    if (state === undefined) return undefined;
    const { cursor, after } = state;
    if (after === undefined) return { cursor };
    return { cursor, after: [after.switches, after.offset, after.bytes].filter((part) => part !== undefined).join(".") };
  }

  /** The state of the stream after the row before a row. */
  #stateBefore(n: number): State | undefined {
    const mark = this.rows.markBefore(n);
    const base = mark === undefined ? this.#base : mark.state;
    if (base === undefined) return undefined;
    const state = parse(base);
    const from = mark?.n ?? -1;
    for (let before = n - 1; before > from; before -= 1) {
      const row = this.rows.get(before);
      if (row?.kind !== "line") continue;
      const known = mark === undefined ? 0 : (this.#switchesAt.get(mark.n) ?? 0);
      const switches = (state.after?.switches ?? 0) + row.switches - known;
      const after = { switches, offset: String(row.offset), ...(row.bytes === undefined ? {} : { bytes: String(row.bytes) }) };
      return { ...state, after };
    }
    return state;
  }

  /** A cursor of the server itself at a row, for programs that know nothing of states. */
  async exactCursor(n: number): Promise<string | undefined> {
    const state = this.#stateBefore(n);
    if (state === undefined) return undefined;
    const { cursor, after } = state;
    if (after === undefined) return cursor;
    let switches = 0;
    const path = this.#view?.path ?? "";
    const request = { path, cursor, maxBatch: 1, maxLineBytes: MAX_LINE_BYTES, onGap: OnGap.SKIP };
    for await (const response of client.lineService.readLines(request)) {
      for (const { event } of response.events) if (event.case !== undefined && SWITCHES.includes(event.case)) switches += 1;
      const [line] = response.lines;
      if (switches === after.switches && String(line?.offset) === after.offset) return response.cursor;
      if (switches > after.switches) break;
    }
    return undefined;
  }

  /** Where earlier rows can be read: a state of this stream, or an offset of the same file. `goal` is the line that is first now. */
  earlier(): { params: Record<string, string | undefined>; goal: Place } | undefined {
    const first = this.rows.first;
    const line = this.rows.list.find(({ value }) => value.kind === "line")?.value as LineRow | undefined;
    if (line === undefined) return undefined;
    const { offset } = line;
    const cleared = { cursor: undefined, after: undefined, last: undefined, line: undefined, offset: undefined };
    if (first > 0) {
      const mark = this.rows.markBefore(Math.max(first - AHEAD, 1));
      const state = mark === undefined ? this.#base : mark.state;
      if (state !== undefined) {
        const { cursor, after } = parse(state);
        const text = after && [after.switches, after.offset, after.bytes].filter((part) => part !== undefined).join(".");
        const switches = line.switches - (mark === undefined ? 0 : (this.#switchesAt.get(mark.n) ?? 0));
        return { params: { ...cleared, cursor, after: text }, goal: { switches, offset } };
      }
    }
    const isCurrent = this.#isSameFile && line.switches === this.#switches;
    if (!isCurrent || offset === 0) return undefined;
    return { params: { ...cleared, offset: String(Math.max(offset - BACK_BYTES, 0)) }, goal: { switches: 0, offset } };
  }
}

/** The request of a view, without a cursor. */
export function requestOf(view: View) {
  const [last, line, offset] = ["last", "line", "offset"].map((name) => numberParam(view, name));
  let start: { case: "last" | "fromLine" | "fromOffset"; value: bigint } | { case: undefined } = { case: undefined };
  if (last !== undefined) start = { case: "last", value: BigInt(last) };
  if (line !== undefined) start = { case: "fromLine", value: BigInt(line) };
  if (offset !== undefined) start = { case: "fromOffset", value: BigInt(offset) };
  return { path: view.path, start, onGap: OnGap.SKIP, waitForCreate: view.params["wait"] !== undefined };
}

/** The state that the parameters of a view have. */
function stateOf({ params }: View): string | undefined {
  const { cursor, after } = params;
  if (cursor === undefined || cursor === "") return undefined;
  const [switches, offset, bytes] = after?.split(".") ?? [];
  if (switches === undefined || offset === undefined) return cursor;
  const key = { switches: Number(switches), offset, ...(bytes === undefined ? {} : { bytes }) };
  return JSON.stringify({ version: 1, kind: "lines", cursor, after: key });
}

/** A bare cursor is a state, too. */
function parse(text: string): State {
  return text.startsWith("{") ? (JSON.parse(text) as State) : { version: 1, kind: "lines", cursor: text };
}

function flagsOf(line: Line): string {
  if (line.skipped) return "too long, left out";
  if (line.truncated) return "cut";
  if (line.partial) return "no line end yet";
  if (line.noNewline) return "no line end";
  if (line.continued) return "continued";
  return line.content.case === "data" ? "not UTF-8" : "";
}

const GAPS: Record<LineGapReason, string> = {
  [LineGapReason.UNSPECIFIED]: "the server gives no reason that this page knows",
  [LineGapReason.TRUNCATED]: "the file was truncated before they were read",
  [LineGapReason.DELETED]: "the rotated file that had them was deleted, or is compressed",
  [LineGapReason.EXPIRED]: "the file at the cursor is gone",
  [LineGapReason.FILLED]: "they were written into a hole that the stream had passed",
  [LineGapReason.UNREADABLE]: "their compressed file cannot be read",
};

function noteOf(event: LineStreamEvent["event"]): string | undefined {
  switch (event.case) {
    case "rotated": {
      const next = Number(event.value.nextOffset ?? 0n);
      return `the file was rotated: the next lines are from its successor${next > 0 ? `, from byte ${format(next)} on` : ""}`;
    }
    case "truncated":
      return `the file was truncated after byte ${format(event.value.readOffset ?? 0n)}: the next lines are from its start`;
    case "deleted":
      return "the file was deleted or renamed: the stream waits for another file at this path";
    case "opened":
      return "a file appeared at this path: the next lines are from its start";
    case "hole":
      return `${bytes(event.value.byteCount ?? 0n)} that were never written are skipped`;
    case "late":
      return "lines that were written to the rotated file late:";
    case "gap": {
      const { byteCount, reason, file, fault } = event.value;
      const size = byteCount === undefined ? "" : ` (${count(byteCount, "byte")})`;
      const why = file === "" ? (GAPS[reason] ?? GAPS[LineGapReason.UNSPECIFIED]) : `${file} ${fault}`;
      return `gap: lines are missing here${size}: ${why}`;
    }
    case "resumed":
      if (event.value.found === FileResumedFound.MOVED) return "the file was rotated since: the stream continues in the rotated file";
      if (event.value.found === FileResumedFound.TRUNCATED) return "the file was truncated since";
      return undefined;
    default:
      return "something happened to the file that this page does not know";
  }
}
