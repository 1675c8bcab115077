import { type MessageInitShape, clone, create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";

import type { Connections } from "./connections.js";
import {
  type Countdown,
  CountdownRequestSchema,
  type CountdownResponse,
  CountdownService,
  type CountdownStreamEvent,
  type Tick,
} from "./gen/perennial/v1/countdown_pb.js";
import { start } from "./lines.js";
import type { Key } from "./state.js";
import { type Batch, ItemStream, type Opening, type StreamOptions, type Visitor } from "./stream.js";

/** What a countdown yields with the option `events`. */
export type CountdownItem =
  | { case: "tick"; value: Tick }
  /** Before the next tick, with the state of a shared countdown after it. */
  | { case: "event"; value: CountdownStreamEvent; countdown: Countdown | undefined }
  /** So many ticks were due and are not delivered. */
  | { case: "skipped"; ticks: bigint };

/** The ticks of a countdown. */
export class CountdownStream<T> extends ItemStream<T> {
  readonly #visitor: TickVisitor;

  /** @internal */
  constructor(opening: Opening<never, T>, visitor: TickVisitor) {
    super(opening);
    this.#visitor = visitor;
  }

  /** The number of ticks so far that were due and are not delivered. */
  get skippedTicks(): bigint {
    return this.#visitor.skipped;
  }
}

/** @internal */
export function countdown(
  connections: Connections,
  init: MessageInitShape<typeof CountdownRequestSchema>,
  options: StreamOptions & { events?: boolean },
): CountdownStream<Tick | CountdownItem> {
  const request = clone(CountdownRequestSchema, create(CountdownRequestSchema, init));
  const visitor = new TickVisitor(options.events ?? false, request.step ?? 1);
  const opening: Opening<never, Tick | CountdownItem> = {
    connections,
    options,
    cursor: request.cursor,
    visitor: visitor as Visitor<never, Tick | CountdownItem>,
    source: {
      heartbeat: request.heartbeat,
      limit: request.limit,
      open: (transport, { cursor, limit }, call) =>
        createClient(CountdownService, transport).countdown(start(request, cursor, limit), call) as AsyncIterable<never>,
      count: ({ ticks }: CountdownResponse) => ticks.length,
    },
  };
  return new CountdownStream(opening, visitor);
}

/**
 * Hands out ticks. Their numbers fall while the countdown does not change, and each change of a shared countdown gives it
 * another version.
 */
class TickVisitor implements Visitor<CountdownResponse, Tick | CountdownItem> {
  readonly kind = "countdown";
  skipped = 0n;
  #step: number;

  constructor(
    private readonly hasEvents: boolean,
    step: number,
  ) {
    this.#step = step;
  }

  batch(response: CountdownResponse, pending: Key | undefined): Batch<Tick | CountdownItem> {
    const { ticks, events } = response;
    this.#step = response.countdown?.step ?? this.#step;
    const { handedOut, isPending } = seen(ticks, pending);
    const skipped = this.#newlySkipped(response, pending);
    this.skipped += skipped;
    const fresh = handedOut === 0 ? ticks : ticks.slice(handedOut);
    const batch = {
      handedOut,
      isPending,
      count: fresh.length,
      total: ticks.length,
      key: (item: number) => keyOf(ticks[item]),
    };
    if (!this.hasEvents) return { ...batch, values: fresh, first: 0 };
    const values: CountdownItem[] = skipped > 0n ? [{ case: "skipped", ticks: skipped }] : [];
    for (const value of events) values.push({ case: "event", value, countdown: response.countdown });
    const first = values.length;
    for (const value of fresh) values.push({ case: "tick", value });
    return { ...batch, values, first };
  }

  carry(pending: Key): Key {
    return pending;
  }

  restart(): void {}

  /** Of the numbers that were skipped before the first tick, those down to the pending one were handed out. */
  #newlySkipped({ skippedTicks, ticks: [first] }: CountdownResponse, pending: Key | undefined): bigint {
    if (pending?.remaining === undefined || first === undefined || versionOf(first) !== versionOf(pending)) {
      return skippedTicks;
    }
    // The k-th skipped number before the first tick is `first + k × step`; the pending one and higher ones were handed out.
    const fresh = Math.ceil((pending.remaining - (first.remaining ?? 0)) / this.#step) - 1;
    const most = BigInt(Math.max(fresh, 0));
    return skippedTicks < most ? skippedTicks : most;
  }
}

function versionOf({ version }: { version?: bigint | string }): bigint {
  return BigInt(version ?? 0);
}

/** How many of the first ticks were handed out before the stream was opened. */
function seen(ticks: readonly Tick[], pending: Key | undefined): { handedOut: number; isPending: boolean } {
  if (pending === undefined) return { handedOut: 0, isPending: false };
  const version = versionOf(pending);
  const handedOut = ticks.findIndex((tick) => {
    const isOlder = versionOf(tick) < version;
    return !isOlder && (versionOf(tick) > version || (tick.remaining ?? 0) < (pending.remaining ?? 0));
  });
  return handedOut < 0 ? { handedOut: ticks.length, isPending: true } : { handedOut, isPending: false };
}

function keyOf(tick: Tick | undefined): Key {
  const key: Key = { remaining: tick?.remaining ?? 0 };
  if (tick?.version !== undefined) key.version = String(tick.version);
  return key;
}
