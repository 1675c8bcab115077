//! Which file comes after which at a path.
//!
//! `generation` is one file that has been at a followed path, `siblings` are the files beside it that may be generations,
//! `overlap` is what a file has in common with one that replaces it, and `rotation` is a reader's place among them.

pub mod generation;
mod overlap;
pub mod rotation;
pub mod siblings;
