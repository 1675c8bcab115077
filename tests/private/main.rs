//! Private: what is sent cannot be read or changed between client and server, and only a client that the operator accepts is
//! served.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod authority;
mod plain;
mod renewal;
mod slow;
mod socket;
mod trust;
