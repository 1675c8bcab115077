//! Access: once rules exist, a caller reads, publishes and changes only what they allow.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

#[path = "../private/authority.rs"]
#[expect(dead_code, reason = "it is also of other tests")]
mod authority;
#[path = "../harness/mod.rs"]
mod harness;

mod audit;
mod commands;
mod denied;
mod ended;
mod files;
mod house;
mod identities;
mod metrics;
mod parts;
mod quotas;
mod random;
mod random_identities;
mod random_things;
