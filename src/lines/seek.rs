//! Finds the file and the position where a reader starts.
//!
//! `start` finds the file, also for a cursor whose file was renamed; `locate` finds a line or an offset in a file,
//! `last_admitted` the last lines that a filter admits, and `index` remembers where numbered lines are.

pub mod index;
pub mod last_admitted;
pub mod locate;
pub mod start;
