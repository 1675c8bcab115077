//! Finds the file and the position where a reader starts.
//!
//! `start` finds the file, also for a cursor whose file was renamed; `locate` finds a line or an offset in a file, and
//! `index` remembers where numbered lines are.

pub mod index;
pub mod locate;
pub mod start;
