//! Which lines to read.

use std::time::Duration;

use super::{
    content::{filter::Patterns, rules::Rules},
    position::Position,
    root::MayRead,
};
use crate::stream::Batching;

/// Which lines to read.
#[derive(Clone, Debug)]
pub struct Query {
    /// `ROOT/relative/path`, as the caller gave it.
    pub path: String,
    /// The files that may be taken for generations of the log, besides its rotations.
    pub may_read: MayRead,
    /// Where the stream starts.
    pub start: Start,
    /// Read the generations of the log that were rotated away first, the oldest first, also compressed ones. Needs
    /// [`Start::Head`] or [`Start::Resume`], and has no end by a line or an offset.
    pub history: bool,
    /// At the end of the file, wait for more lines and for the files that replace it. Otherwise the stream ends there.
    pub follow: bool,
    /// Wait for a file that does not exist yet, instead of [`Error::NotFound`](super::Error::NotFound). Needs `follow`.
    pub wait_for_create: bool,
    /// What to do when the file that a position is in is gone.
    pub on_gap: OnGap,
    /// What a line is, and which line is the last.
    pub rules: Rules,
    /// Which lines are delivered.
    pub patterns: Patterns,
    /// Deliver the part of a line that did not grow for this long. Needs `follow`.
    pub partial_flush: Option<Duration>,
    /// How the stream is divided into batches.
    pub batching: Batching,
}

/// Where a stream starts.
#[derive(Clone, Debug, Default)]
#[expect(clippy::large_enum_variant, reason = "there is one for each call")]
pub enum Start {
    /// At the first byte.
    #[default]
    Head,
    /// This many lines before the end; at the first line if there are fewer.
    Last(u64),
    /// At the line of this number, from 1. A line that does not exist yet is waited for.
    Line(u64),
    /// At this offset in bytes, also within a line.
    Offset(u64),
    /// After a batch that was delivered.
    Resume(Position),
}

/// What to do when the file that a position is in is gone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnGap {
    /// Fail with [`Error::Expired`](super::Error::Expired).
    #[default]
    Fail,
    /// Start at the head of the file at the path, and report a gap.
    Skip,
}
