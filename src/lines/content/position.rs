//! A position in the lines of a file.

use serde::{Deserialize, Serialize};

/// Where the next byte is, and in which line.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LinePosition {
    /// In bytes from the start of the file.
    pub offset: u64,
    /// The number of the line that the byte belongs to, from 1; `None` where it is not known.
    pub number: Option<u64>,
    pub within: Within,
}

/// How much of the line at a position was delivered.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Within {
    /// Nothing: the line starts here.
    #[default]
    Start,
    /// The part before this position; the rest is delivered too.
    Continued,
    /// All that will be delivered: the rest is left out.
    Dropped,
}

/// The start of a file.
pub const HEAD: LinePosition = LinePosition { offset: 0, number: Some(1), within: Within::Start };
