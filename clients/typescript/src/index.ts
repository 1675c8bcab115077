/**
 * Streams of a Perennial server as async iterables that continue by themselves, and a publisher that never publishes twice.
 * This entry point has nothing of Node; `perennial-client/node` adds `connect` and `FileStore`.
 *
 * @module
 */
export { Client } from "./client.js";
export type { Connection, Connector } from "./connections.js";
export { Consumer, type ConsumerOptions, type ConsumerStream } from "./consumer.js";
export type { CountdownItem, CountdownStream } from "./countdown.js";
export {
  ClosedError,
  type Facts,
  GapError,
  OutcomeUnknownError,
  PerennialError,
  ProtocolError,
  StateError,
} from "./errors.js";
export type { FilesOptions } from "./files.js";
export { type LineItem, lineText } from "./lines.js";
export type { MessageItem } from "./messages.js";
export type { Publisher, PublisherOptions, Receipt } from "./publisher.js";
export { MemoryStore, type Store } from "./store.js";
export type { ItemStream, StreamOptions } from "./stream.js";
export * from "./gen/perennial/v1/countdown_pb.js";
export * from "./gen/perennial/v1/errors_pb.js";
export * from "./gen/perennial/v1/gap_pb.js";
export * from "./gen/perennial/v1/lines_pb.js";
export * from "./gen/perennial/v1/messages_pb.js";

/** The version of this package. */
export const VERSION = "0.1.0";
