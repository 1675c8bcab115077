//! The behaviour of `ReadLines` on real files: the library reads a temporary directory on a disk and one in memory, in the
//! process of the test. Only `served`, `remote` and `rotation::watched` start a server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod bed;
mod content;
mod figures;
mod growth;
mod history;
mod nul;
mod remote;
mod rotation;
mod served;
mod start;
mod stream;
