//! The content of one file: its bytes, the lines in them, and the proof that they are still the same bytes.
//!
//! `pread` reads at an offset, and `cached` does so without waiting. `position` is a place in the lines, `rules` what a
//! line is, `split` finds and encodes lines, `filter` chooses among them, `hole` finds what was never written,
//! `checkpoint` proves a position, and `fill` reads one batch.

pub mod cached;
pub mod checkpoint;
pub mod fill;
pub mod filter;
pub mod hole;
pub mod position;
pub mod pread;
pub mod rules;
pub mod split;
