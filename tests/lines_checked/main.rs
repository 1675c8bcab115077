//! `ReadLines` while logs are rotated, copied, truncated, saved, replaced and deleted: a ledger knows each line that a
//! writer wrote, and accepts only every line once and in order, or a report of each loss.
//!
//! `forged` makes up cursors. `tools` are real processes that work on a log of a real server. `random` makes up the story of
//! two logs. `LINES_CASES` sets how many stories there are, and `LINES_SEED` runs the one that a failed test names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

#[path = "../lines_on_disk/bed.rs"]
mod bed;
#[path = "../harness/mod.rs"]
mod harness;

mod forged;
mod ledger;
mod random;
mod tools;
