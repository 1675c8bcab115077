import { type MessageInitShape, clone, create } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";

import type { Connections } from "./connections.js";
import { GapError, PerennialError } from "./errors.js";
import {
  type MessageGap,
  MessageGapReason,
  MessageService,
  type MessageStreamEvent,
  type MessagesRequest,
  MessagesRequestSchema,
  type MessagesResponse,
  type StoredMessage,
} from "./gen/perennial/v1/messages_pb.js";
import { start } from "./lines.js";
import type { Key } from "./state.js";
import { type Batch, ItemStream, type Opening, type StreamOptions, type Visitor } from "./stream.js";

/** What a stream of messages yields with the option `events`. */
export type MessageItem =
  | { case: "message"; value: StoredMessage }
  /** Before the next message. An event that this package does not know has `event.case` undefined, and `$unknown` fields. */
  | { case: "event"; value: MessageStreamEvent }
  /** The stream has reached the end of what there is: from here on it is live. */
  | { case: "caughtUp" };

/** @internal */
export function messages(
  connections: Connections,
  init: MessageInitShape<typeof MessagesRequestSchema>,
  options: StreamOptions & { events?: boolean },
): ItemStream<StoredMessage | MessageItem> {
  const request = clone(MessagesRequestSchema, create(MessagesRequestSchema, init));
  if (request.consumer !== undefined) {
    throw new TypeError("the request has a consumer: read it by client.consumer(name), which also commits");
  }
  return new ItemStream(opening(connections, request, options));
}

/** @internal */
export function opening(
  connections: Connections,
  request: MessagesRequest,
  options: StreamOptions & { events?: boolean },
): Opening<never, StoredMessage | MessageItem> {
  return {
    connections,
    options,
    cursor: request.cursor,
    isConsumer: request.consumer !== undefined,
    visitor: new MessageVisitor(options.events ?? false) as Visitor<never, StoredMessage | MessageItem>,
    source: {
      heartbeat: request.heartbeat,
      limit: request.limit,
      open: (transport, { cursor, limit }, call) =>
        createClient(MessageService, transport).messages(start(request, cursor, limit), call) as AsyncIterable<never>,
      count: ({ messages }: MessagesResponse) => messages.length,
    },
  };
}

/** Hands out messages, which their sequence identifies. */
class MessageVisitor implements Visitor<MessagesResponse, StoredMessage | MessageItem> {
  readonly kind = "messages";
  #isCaughtUp = false;

  constructor(private readonly hasEvents: boolean) {}

  batch(response: MessagesResponse, pending: Key | undefined): Batch<StoredMessage | MessageItem> {
    const all = response.messages;
    const { handedOut, isPending } = seen(response, pending);
    const last = pending === undefined ? undefined : BigInt(pending.sequence ?? 0);
    const events = response.events.filter(({ event }) => {
      const isGap = event.case === "gap" && !isDiverged(event.value);
      return !(isGap && last !== undefined && (event.value.lastSequence ?? 0n) <= last);
    });
    const fresh = handedOut === 0 ? all : all.slice(handedOut);
    const hasCaughtUp = response.caughtUp && !this.#isCaughtUp;
    this.#isCaughtUp = response.caughtUp;
    const batch = {
      handedOut,
      isPending,
      count: fresh.length,
      total: all.length,
      key: (item: number) => keyOf(all[item]),
    };
    if (!this.hasEvents) {
      for (const { event } of events) if (event.case === "gap") throw new GapError(event.value);
      return { ...batch, values: fresh, first: 0 };
    }
    const values: MessageItem[] = events.map((value) => ({ case: "event", value }));
    for (const value of fresh) values.push({ case: "message", value });
    if (hasCaughtUp) values.push({ case: "caughtUp" });
    return { ...batch, values, first: events.length };
  }

  carry(pending: Key): Key {
    return pending;
  }

  restart(): void {}
}

/** How many of the first messages were handed out before the stream was opened. */
function seen(response: MessagesResponse, pending: Key | undefined): { handedOut: number; isPending: boolean } {
  // In a log with another history, sequences may go back.
  const hasDiverged = response.events.some(({ event }) => event.case === "gap" && isDiverged(event.value));
  if (pending === undefined || hasDiverged) return { handedOut: 0, isPending: false };
  const last = BigInt(pending.sequence ?? 0);
  for (const [handedOut, { sequence = 0n, publishTime }] of response.messages.entries()) {
    if (sequence > last) return { handedOut, isPending: false };
    const isOther = pending.publish_time !== undefined && nanoseconds(publishTime) !== BigInt(pending.publish_time);
    if (sequence === last && isOther) {
      throw new PerennialError({
        code: Code.OutOfRange,
        reason: "LOG_DIVERGED",
        message: "the log has another message at the sequence of the last one: it was restored from a copy",
      });
    }
  }
  return { handedOut: response.messages.length, isPending: true };
}

function isDiverged({ reason }: MessageGap): boolean {
  return reason === MessageGapReason.DIVERGED;
}

function nanoseconds(time: Timestamp | undefined): bigint {
  return (time?.seconds ?? 0n) * 1_000_000_000n + BigInt(time?.nanos ?? 0);
}

function keyOf(message: StoredMessage | undefined): Key {
  return { sequence: String(message?.sequence ?? 0n), publish_time: String(nanoseconds(message?.publishTime)) };
}
