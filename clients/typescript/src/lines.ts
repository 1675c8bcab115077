import { type MessageInitShape, clone, create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";

import type { Connections } from "./connections.js";
import { GapError } from "./errors.js";
import {
  FileResumedFound,
  type Line,
  LineSchema,
  LineService,
  type LineStreamEvent,
  ReadLinesRequestSchema,
  type ReadLinesResponse,
} from "./gen/perennial/v1/lines_pb.js";
import type { Key } from "./state.js";
import { type Batch, ItemStream, type StreamOptions, type Visitor } from "./stream.js";

/** What a stream of lines yields with the option `events`. */
export type LineItem =
  | { case: "line"; value: Line }
  /** Before the next line. An event that this package does not know has `event.case` undefined, and `$unknown` fields. */
  | { case: "event"; value: LineStreamEvent }
  /** The stream has reached the end of what there is: from here on it is live. */
  | { case: "caughtUp" };

/** The content of a line as text; bytes that are not UTF-8 are replaced. */
export function lineText({ content }: Line): string {
  if (content.case === "data") return new TextDecoder().decode(content.value);
  return content.value ?? "";
}

/** @internal */
export function readLines(
  connections: Connections,
  init: MessageInitShape<typeof ReadLinesRequestSchema>,
  options: StreamOptions & { events?: boolean },
): ItemStream<Line | LineItem> {
  const request = clone(ReadLinesRequestSchema, create(ReadLinesRequestSchema, init));
  return new ItemStream<Line | LineItem>({
    connections,
    options,
    cursor: request.cursor,
    visitor: new LineVisitor(options.events ?? false) as Visitor<never, Line | LineItem>,
    source: {
      heartbeat: request.heartbeat,
      limit: request.limit,
      open: (transport, { cursor, limit }, call) =>
        createClient(LineService, transport).readLines(start(request, cursor, limit), call) as AsyncIterable<never>,
      count: ({ lines }: ReadLinesResponse) => lines.length,
    },
  });
}

/**
 * Sets the fields that differ between attempts.
 *
 * @internal
 */
export function start<T extends { cursor?: string; limit?: bigint }>(
  request: T,
  cursor: string | undefined,
  limit: bigint | undefined,
): T {
  delete request.cursor;
  delete request.limit;
  if (cursor !== undefined) request.cursor = cursor;
  if (limit !== undefined) request.limit = limit;
  return request;
}

/**
 * Hands out lines. An offset is unique only within a file, so it counts the changes of the file since the cursor to which
 * the keys belong.
 */
class LineVisitor implements Visitor<ReadLinesResponse, Line | LineItem> {
  readonly kind = "lines";
  #switches = 0;
  #isCaughtUp = false;

  constructor(private readonly hasEvents: boolean) {}

  batch(response: ReadLinesResponse, pending: Key | undefined): Batch<Line | LineItem> {
    const { events, lines } = response;
    let isLost = false;
    for (const { event } of events) {
      if (event.case === "rotated" || event.case === "truncated" || event.case === "opened" || event.case === "late") {
        this.#switches += 1;
      }
      isLost ||= event.case === "resumed" && event.value.found === FileResumedFound.LOST;
    }
    const seen = pending === undefined || isLost ? NONE : this.#seen(lines, pending);
    const isWhole = seen.handedOut === 0 && seen.rest === undefined;
    const fresh = isWhole ? lines : lines.slice(seen.handedOut);
    if (seen.rest !== undefined) fresh[0] = seen.rest;
    const hasCaughtUp = response.caughtUp && !this.#isCaughtUp;
    this.#isCaughtUp = response.caughtUp;
    const switches = this.#switches;
    const batch = {
      ...seen,
      count: fresh.length,
      total: lines.length,
      key: (item: number) => keyOf(lines[item], switches),
    };
    if (!this.hasEvents) {
      for (const { event } of events) if (event.case === "gap") throw new GapError(event.value);
      return { ...batch, values: fresh, first: 0 };
    }
    const values: LineItem[] = events.map((value) => ({ case: "event", value }));
    for (const value of fresh) values.push({ case: "line", value });
    if (hasCaughtUp) values.push({ case: "caughtUp" });
    return { ...batch, values, first: events.length };
  }

  carry(pending: Key): Key {
    return { ...pending, switches: (pending.switches ?? 0) - this.#switches };
  }

  restart(): void {
    this.#switches = 0;
  }

  /** How many of the first lines were handed out before the stream was opened. */
  #seen(lines: readonly Line[], pending: Key): { handedOut: number; isPending: boolean; rest?: Line } {
    if (lines.length === 0) return { handedOut: 0, isPending: true };
    const { switches = 0, offset = "0", bytes } = pending;
    // Lines before the change of the file were written after the stream had passed it, so they are new.
    if (this.#switches !== switches) return { handedOut: 0, isPending: this.#switches < switches };
    const last = BigInt(offset);
    for (const [handedOut, line] of lines.entries()) {
      const at = line.offset ?? 0n;
      if (at > last) return { handedOut, isPending: false };
      if (bytes === undefined) continue;
      // The line had no end yet when it was handed out, and may have grown.
      const known = last + BigInt(bytes) - at;
      if (known >= 0n && BigInt(contentOf(line).length) > known) {
        return { handedOut, isPending: false, rest: restOf(line, Number(known)) };
      }
    }
    return { handedOut: lines.length, isPending: true };
  }
}

const NONE: { handedOut: number; isPending: boolean; rest?: Line } = { handedOut: 0, isPending: false };

function keyOf(line: Line | undefined, switches: number): Key {
  const key: Key = { switches, offset: String(line?.offset ?? 0n) };
  if (line?.partial || line?.noNewline) key.bytes = String(contentOf(line).length);
  return key;
}

function contentOf({ content }: Line): Uint8Array {
  return content.case === "data" ? content.value : new TextEncoder().encode(content.value);
}

/** A line without the first bytes of its content. */
function restOf(line: Line, bytes: number): Line {
  const rest = contentOf(line).slice(bytes);
  const made = clone(LineSchema, line);
  made.offset = (line.offset ?? 0n) + BigInt(bytes);
  made.continued = true;
  try {
    const value = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(rest);
    made.content = { case: "text", value };
  } catch {
    made.content = { case: "data", value: rest };
  }
  return made;
}
