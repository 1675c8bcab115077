//! Which file comes after which at a path.
//!
//! `generation` is one file that has been at a followed path, `siblings` are the files beside it that may be generations,
//! and `rotation` is a reader's place among them.

pub mod generation;
pub mod rotation;
pub mod siblings;
