//! Perennial turns time, files and messages into gRPC streams that any program can call, cut anywhere, and continue
//! exactly where they stopped. This is the map; arrows point one way:
//!
//! ```text
//! bin → server → grpc → { countdown, lines, messages } → wire          bin → client → proto
//!                                             grpc, client → proto, cursor        messages → cursor
//! ```
//!
//! - [`countdown`], [`lines`], [`messages`]: the three generators. They know time, files and a log, and nothing of
//!   gRPC: a query goes in, a stream of batches comes out, each with the position behind it.
//!   Messages also keep the cursors of consumers, and have tools that read their log without a server.
//! - [`wire`]: the few bytes of protobuf that [`lines`] and [`messages`] write themselves, so that an item is encoded
//!   once, straight from where it lies.
//! - [`cursor`]: the text form of a position: versioned, checked, opaque.
//! - [`proto`]: what `proto/` compiles to.
//! - [`grpc`]: translates requests into queries, batches into responses, and errors into statuses; decides nothing.
//! - [`server`]: composes configuration, log, roots, services and the listener, and shuts them down in order.
//! - [`units`]: the one grammar of durations and sizes.
//! - [`client`]: the typed client, which reconnects and resumes by itself.

pub mod client;
pub mod countdown;
pub mod cursor;
pub mod grpc;
pub mod lines;
pub mod messages;
pub mod proto;
pub mod reason;
pub mod server;
pub mod stream;
pub mod units;
pub mod wire;
