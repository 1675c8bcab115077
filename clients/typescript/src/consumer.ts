import { type MessageInitShape, clone, create } from "@bufbuild/protobuf";

import type { Connections } from "./connections.js";
import {
  MessagesRequestSchema,
  type StoredMessage,
} from "./gen/perennial/v1/messages_pb.js";
import { type MessageItem, opening } from "./messages.js";
import { ItemStream, type Opening, type StreamOptions } from "./stream.js";

/** Options of a stream of a consumer. */
export interface ConsumerOptions extends Omit<StreamOptions, "store" | "saveEveryMs" | "state"> {
  /** Commit at most once in this time, in milliseconds, and at the end. Unset: only by {@link ConsumerStream.commit}. */
  commitEveryMs?: number;
}

/** @internal */
export type Commit = (cursor: string, timeoutMs?: number) => Promise<void>;

/** How long the commit at the end of a stream may take. */
const LAST_COMMIT_MS = 2_000;

/**
 * The messages of a consumer, whose position is kept on the server.
 *
 * A commit is that of a whole response of the server: after a crash, the messages since the last response that was processed
 * and committed come again, and no message is missed.
 */
export class ConsumerStream<T> extends ItemStream<T> {
  readonly #commit: Commit;
  readonly #everyMs: number | undefined;
  #committed: string | undefined;
  #last = performance.now();

  /** @internal */
  constructor(opening: Opening<never, T>, commit: Commit, everyMs: number | undefined) {
    super(opening);
    this.#commit = commit;
    this.#everyMs = everyMs;
  }

  /**
   * Makes the position of the consumer that after the last response whose messages are all processed. The message that was
   * handed out last counts as processed. It makes no call if nothing is new.
   */
  async commit(): Promise<void> {
    await this.#commitAt(this.processed);
  }

  protected override async completed(cursor: string | undefined, isEnd: boolean): Promise<void> {
    if (this.#everyMs === undefined) return;
    if (isEnd) {
      // A commit that is lost here costs only that messages come again, and the loop may have an error of its own.
      await this.#commitAt(cursor, LAST_COMMIT_MS).catch(() => {});
    } else if (performance.now() - this.#last >= this.#everyMs) {
      await this.#commitAt(cursor);
    }
  }

  async #commitAt(cursor: string | undefined, timeoutMs?: number): Promise<void> {
    if (cursor === undefined || cursor === this.#committed) return;
    await this.#commit(cursor, timeoutMs);
    this.#committed = cursor;
    this.#last = performance.now();
  }
}

/** A position in the log that is kept on the server. It exists from its first commit. One stream at a time reads as it. */
export class Consumer {
  /** @internal */
  constructor(
    private readonly connections: Connections,
    private readonly commitTo: Commit,
    /** The name. */
    readonly name: string,
  ) {}

  /** The messages after the last commit, or from the start of the request if there is none. */
  messages(
    request: MessageInitShape<typeof MessagesRequestSchema>,
    options: ConsumerOptions & { events: true },
  ): ConsumerStream<MessageItem>;
  messages(
    request: MessageInitShape<typeof MessagesRequestSchema>,
    options?: ConsumerOptions & { events?: false },
  ): ConsumerStream<StoredMessage>;
  messages(
    init: MessageInitShape<typeof MessagesRequestSchema>,
    options: ConsumerOptions & { events?: boolean } = {},
  ): ConsumerStream<StoredMessage> | ConsumerStream<MessageItem> {
    if ("store" in options || "state" in options) {
      throw new TypeError("a consumer keeps its position on the server: leave out `store` and `state`");
    }
    const request = clone(MessagesRequestSchema, create(MessagesRequestSchema, init));
    request.consumer = this.name;
    const { commitEveryMs, ...rest } = options;
    const made = new ConsumerStream(opening(this.connections, request, rest), this.commitTo, commitEveryMs);
    return made as ConsumerStream<StoredMessage> | ConsumerStream<MessageItem>;
  }
}
