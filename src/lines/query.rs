//! Which lines to read, and the position after them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    content::{checkpoint::Checkpoint, position::LinePosition, rules::Rules},
    identity::Identity,
};
use crate::{cursor, stream::Batching};

/// Which lines to read.
#[derive(Clone, Debug)]
pub struct Query {
    /// `ROOT/relative/path`, as the caller gave it.
    pub path: String,
    /// Where the stream starts.
    pub start: Start,
    /// At the end of the file, wait for more lines and for the files that replace it. Otherwise the stream ends there.
    pub follow: bool,
    /// Wait for a file that does not exist yet, instead of [`Error::NotFound`](super::Error::NotFound). Needs `follow`.
    pub wait_for_create: bool,
    /// What to do when the file that a position is in is gone.
    pub on_gap: OnGap,
    /// What a line is, and which line is the last.
    pub rules: Rules,
    /// Deliver the part of a line that did not grow for this long. Needs `follow`.
    pub partial_flush: Option<Duration>,
    /// How the stream is divided into batches.
    pub batching: Batching,
}

/// Where a stream starts.
#[derive(Clone, Debug, Default)]
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

/// A position in a stream of lines: which file, how far it was read, and the bytes that prove it. At most 500 bytes when
/// serialised.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    /// A checksum of the path.
    pub(super) path: u32,
    pub(super) identity: Identity,
    pub(super) checkpoint: Checkpoint,
    /// Lines before this number are not delivered.
    pub(super) skip_to: Option<u64>,
    /// All of the file was delivered and it is gone; the next file at the path comes next.
    pub(super) deleted: bool,
    /// While late lines of an older file are read: where the newer file is read on.
    pub(super) resume_at: Option<(Identity, Checkpoint)>,
}

impl cursor::Position for Position {
    const KIND: cursor::Kind = cursor::Kind::Lines;
    const DECODERS: &'static [cursor::Decoder<Self>] = &[cursor::decode_fields];
}

impl Position {
    /// Whether a reader could have made this position, which may be forged.
    pub(super) fn is_sound(&self) -> bool {
        // An offset is signed in the system's interface; a line has at least one byte, its newline.
        let is_sound = |Checkpoint { line: LinePosition { offset, number, .. }, .. }: &Checkpoint| {
            i64::try_from(*offset).is_ok() && number.is_none_or(|number| (1..=offset + 1).contains(&number))
        };
        is_sound(&self.checkpoint)
            && self.resume_at.as_ref().is_none_or(|(_, checkpoint)| is_sound(checkpoint))
            && self.skip_to.is_none_or(|number| i64::try_from(number).is_ok())
    }
}
