//! Which file comes after which at a path.
//!
//! `generation` is one file that has been at a followed path, and `rotation` is a reader's place among them. For a reader
//! that was away, `search` finds the file that a position is in, and `siblings` those that came after it, in the order that
//! `numbered` finds; `copies` leaves out what is no generation, and `stable` lists until a list can be believed. `overlap` is what a file has in common with one that replaces
//! it. `listed` are all generations of a log, for a reader of its whole history; `archive` reads a compressed one, and `archived` finds the one that a position is in.

pub mod archive;
pub mod archived;
mod copies;
pub mod generation;
pub mod listed;
mod numbered;
mod overlap;
pub mod rotation;
pub mod search;
pub mod siblings;
mod stable;
