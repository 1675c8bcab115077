//! Perennial turns time, files and messages into gRPC streams that any program can call, cut anywhere, and continue
//! exactly where they stopped.
//!
//! # The map
//! Arrows point one way:
//!
//! ```text
//! bin → server → web → grpc → { countdown, lines, messages } → { stream, cursor, wire }     countdown → messages (shared ones)
//!                grpc → { cursor, proto, reason }     bin → client → { proto, reason, whole_file }     bin, server → units
//! { lines, messages, grpc, server } → blocking → system    { client, server, access } → pem     server → system
//! { blocking, messages, grpc, server } → supervised     { server, access } → watched
//! { grpc, server } → access → the grammars of topics and globs
//! ```
//!
//! - [`countdown`], [`lines`], [`messages`]: the three generators. They know time, files and a log, and nothing of gRPC.
//!   A query goes in, and a stream of batches comes out.
//! - [`access`]: who may do what: callers, rules, tokens.
//! - [`stream`]: what the generators share: how a call divides its stream into batches, when a batch leaves, and the
//!   shape of a batch.
//! - [`cursor`]: the text form of a position, with versions for each kind of stream, and a checksum.
//! - [`wire`]: the protobuf of ticks, lines and messages, written by hand, so that an item is encoded once.
//! - [`proto`]: the code that is generated from `proto/`.
//! - [`reason`]: the one table of error reasons: gRPC code, and whether to try again.
//! - [`grpc`]: translates requests into queries, batches into responses, and errors into statuses. It decides nothing.
//! - [`web`]: what browsers and plain HTTP use: gRPC-Web, and the page. It translates and decides nothing.
//! - [`server`]: composes configuration, log, roots, services and listener, and shuts them down in order.
//! - [`units`]: the one grammar of durations and sizes.
//! - [`blocking`]: the one pool of threads for work that blocks, with a queue for each connection.
//! - `system`: what only the C library gives: slices of the processor, and memory that goes back to the system.
//! - [`supervised`]: tasks that must not end, and panics that would go unnoticed.
//! - `watched`: files that are read from time to time, and used again when they have changed.
//! - [`pem`]: certificates, keys and revocation lists from files.
//! - [`package`]: completions of shells and manual pages, from a command line.
//! - [`whole_file`]: files that keep where a reader is, whole at every moment, for the client and the command line.
//! - [`client`]: the typed client, which reconnects and resumes by itself.
//!
//! # Features
//! `client` has [`client`], [`proto`] and [`reason`], and nothing of the server; `server` has the rest, and the program
//! `perenniald`; `cli` has the program `perennial`. The default is all. A program that is a client depends on it by
//!
//! ```toml
//! perennial = { version = "0.1", default-features = false, features = ["client"] }
//! ```
//!
//! # Words
//! Each word has one meaning in code, comments, errors and documents.
//!
//! | word | meaning |
//! |---|---|
//! | item | a tick, a line or a message |
//! | batch | the items and events of one response |
//! | event | something that happened to the source of a stream: a rotation, a change, a gap |
//! | gap | items that will never come; always reported in an event, or as an error |
//! | cursor | the opaque text in a response; the same request with it continues after that response |
//! | position | the decoded content of a cursor |
//! | offset | bytes from the start of a file |
//! | sequence | the number of a message in the log |
//! | head | the highest sequence on disk |
//! | oldest, newest | the first and the last item that are kept |
//! | subscription | an open `Messages` call and its state |
//! | consumer | a name under which a cursor is stored in the log |
//! | commit | to store the cursor of a consumer; a group commit makes many messages durable at once |
//! | follower | an open `ReadLines` call with `follow` |
//! | generation | one file that has been at a followed path |
//! | rotation, siblings | renaming a log away; the files beside it that may be generations |
//! | fingerprint, checkpoint | bytes that prove a file's identity; the saved state of a follower |
//! | root | a directory whose files may be read |
//! | tick | one number of a countdown, and the moment when it is due |
//! | run | the ticks of a shared countdown between two changes |
//! | snapshot | a state at a version or a sequence |
//! | version | the sequence of the last change of a shared countdown |
//! | incarnation | one run of a server on a log |
//! | maintenance, compaction, trim point | background work on the log; rewriting segments; the highest sequence removed |
//! | retention | the rules that say which messages are kept |
//! | notify, wake | to signal a waiting task that there is more |
//! | wake group | streams that are woken back to back, so that their writes coalesce |
//! | heartbeat | an empty batch that shows that a stream is alive |
//! | deadline, stall, drain, lag, backpressure | as in gRPC and Kafka |
//! | resume | to continue a stream after the batch of a cursor |
//! | report, record, poll, inspect | verbs: for events, for counters, for waiting, for reading a file's state |

#[cfg(feature = "server")]
pub mod access;
#[cfg(feature = "server")]
pub mod blocking;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod countdown;
#[cfg(feature = "server")]
pub mod cursor;
#[cfg(any(feature = "client", feature = "server"))]
pub mod directory;
#[cfg(feature = "server")]
pub mod grpc;
#[cfg(any(feature = "cli", feature = "server"))]
pub mod json;
#[cfg(feature = "server")]
pub mod lines;
#[cfg(feature = "server")]
pub mod messages;
#[cfg(any(feature = "cli", feature = "server"))]
pub mod package;
#[cfg(any(feature = "client", feature = "server"))]
pub mod pem;
pub mod proto;
pub mod reason;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod stream;
#[cfg(feature = "server")]
pub mod supervised;
#[cfg(feature = "server")]
mod system;
#[cfg(any(feature = "cli", feature = "server"))]
pub mod units;
#[cfg(feature = "server")]
mod watched;
#[cfg(feature = "server")]
pub mod web;
#[cfg(feature = "client")]
pub mod whole_file;
#[cfg(feature = "server")]
pub mod wire;
