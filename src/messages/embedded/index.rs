//! What is known of the log in memory.

pub mod block_run;
pub mod dedupe;
pub mod recent;
pub mod segment;
pub mod topics;
