//! The index of the log in memory.

pub mod block_run;
pub mod builder;
pub mod cache;
pub mod dedupe;
pub mod epochs;
pub mod live;
pub mod quotas;
pub mod recent;
pub mod segment;
pub mod topic;
pub mod topics;
