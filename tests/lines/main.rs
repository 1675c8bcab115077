//! The conformance list of `ReadLines`: each case a test by its number and name, on real files of a disk and of memory.

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
mod growth;
mod remote;
mod rotation;
mod served;
mod start;
mod stream;
