//! Access: nobody reads, publishes or changes anything without the right to do so, once rules say who may do what.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod commands;
mod denied;
mod house;
mod parts;
