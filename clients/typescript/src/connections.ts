import type { Transport } from "@connectrpc/connect";

import { ClosedError } from "./errors.js";

/** A connection to the server, or what stands for one where the platform makes connections by itself. */
export interface Connection {
  readonly transport: Transport;
  /** Ends the connection and the calls that are on it. */
  close(): void;
}

/** Makes connections. `connect` of `perennial-client/node` makes them for Node. */
export interface Connector {
  open(): Connection;
}

/** @internal */
export interface Shared extends Connection {
  users: number;
  isRetired: boolean;
}

/**
 * Holds the connection that new calls take, and those that older calls still use. One that fell silent is left to the calls
 * that are on it, because only the network knows whether it is dead.
 *
 * @internal
 */
export class Connections {
  readonly #connector: Connector;
  readonly #all = new Set<Shared>();
  readonly #closed = new AbortController();
  #current: Shared | undefined;

  constructor(connector: Connector) {
    this.#connector = connector;
  }

  /** Ends when the client is closed. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  acquire(): Shared {
    this.closed.throwIfAborted();
    if (this.#current === undefined) {
      const made = this.#connector.open();
      this.#current = { transport: made.transport, close: () => made.close(), users: 0, isRetired: false };
      this.#all.add(this.#current);
    }
    this.#current.users += 1;
    return this.#current;
  }

  release(used: Shared): void {
    used.users -= 1;
    this.#closeUnused(used);
  }

  /** Makes new calls take another connection. */
  retire(used: Shared): void {
    used.isRetired = true;
    if (this.#current === used) this.#current = undefined;
    this.#closeUnused(used);
  }

  close(): void {
    this.#closed.abort(new ClosedError("the client is closed"));
    for (const one of this.#all) one.close();
    this.#all.clear();
    this.#current = undefined;
  }

  #closeUnused(used: Shared): void {
    if (used.isRetired && used.users === 0 && this.#all.delete(used)) used.close();
  }
}
