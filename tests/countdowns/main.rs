//! Shared countdowns over real sockets: an acknowledged change is kept, each end is published once, and a watcher gets
//! or counts every number, also when the server is killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod account;
mod calls;
mod ends;
mod full;
mod grpcurl;
mod kept;
mod limits;
mod many;
mod races;
mod refused;
mod watcher;
mod watchers;
