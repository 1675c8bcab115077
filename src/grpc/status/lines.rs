//! Errors of lines.

use super::{ErrorReason, Failure, PARTIAL_FLUSH, quoted, read_error, show};
use crate::lines::{
    Error, MAX_DELIMITER_BYTES, MAX_PATTERN_BYTES, MAX_PATTERNS, MIN_ASKED_LINE_BYTES, PatternFault,
};

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::PathInvalid { fault } => {
                let text = format!("{fault}: write `ROOT/relative/path`, as ListFiles returns it");
                Self::field("path", text)
            }
            Error::NotFound { path } => {
                let text =
                    format!("the server has no readable file {}: ListFiles lists the files", quoted(&path));
                Self::new(ErrorReason::FileNotFound, text)
            }
            Error::LineZero { field } => Self::field(field, "is 0: the first line has number 1"),
            Error::NeedsFollow { field } => {
                Self::field(field, "is set without `follow`: set `follow` as well, or leave this field out")
            }
            Error::NotInHistory { field } => Self::field(
                field,
                "is set with `history`, which reads all generations of the file: leave this field out, or `history`",
            ),
            Error::NeedsHistory => Self::field(
                "history",
                "is not set, but the cursor is in a compressed generation: send it with the request that it came from",
            ),
            Error::PartialFlush { pause } => {
                Self::field("partial_flush", format!("is {}: {PARTIAL_FLUSH}", show(pause)))
            }
            Error::DelimiterLength { bytes } => {
                let text = format!("has {bytes} bytes: it must have from 1 to {MAX_DELIMITER_BYTES}");
                Self::field("delimiter", text)
            }
            Error::LineBytes { asked, limit } => {
                let text = format!("is {asked}: this server allows from {MIN_ASKED_LINE_BYTES} to {limit}");
                Self::field("max_line_bytes", text)
            }
            Error::Globs { fault } => Self::field("globs", fault),
            Error::Glob { index, fault } => Self::field(&format!("globs[{index}]"), fault),
            Error::TooManyFiles { limit } => {
                let text = format!(
                    "match or lead through more than {limit} files and directories, the most of a stream \
                     (--max-watched-per-stream): write globs that match fewer, such as `logs/app/*.log`"
                );
                Self::field("globs", text).with("limit", limit)
            }
            Error::TooManyWatched { limit } => {
                let text = format!(
                    "the streams of files of this server would hold more than {limit} files and directories \
                     (--max-watched): try again later, or with globs that match fewer"
                );
                Self::new(ErrorReason::TooManyWatched, text).with("limit", limit)
            }
            Error::Pattern { field, fault } => Self::field(field, pattern_fault(&fault)),
            Error::NumbersUnknown => Self::field(
                "until_line",
                "needs line numbers, which this start does not have: start at the head or with `from_line`, or set \
                 `until_offset` instead",
            ),
            Error::OffsetBeyondEnd { offset, size } => {
                let text =
                    format!("from_offset is {offset}, but the file has {size} bytes: use a smaller offset");
                Self::new(ErrorReason::OffsetBeyondEnd, text).with("size", size)
            }
            Error::Mismatch => Self::new(
                ErrorReason::CursorMismatch,
                "the cursor belongs to another path, or to other globs: send it with those that it came from",
            ),
            Error::Expired => Self::new(
                ErrorReason::CursorExpired,
                "the file of the cursor no longer exists: start without the cursor, or set `on_gap` to ON_GAP_SKIP",
            ),
            Error::PositionInvalid => {
                Self::field("cursor", "holds an impossible position: start without the cursor")
                    .with_reason(ErrorReason::CursorMalformed)
            }
            Error::Io(error) => read_error(&error),
        }
    }
}

/// The fault of the patterns of a field, and patterns that would work.
fn pattern_fault(fault: &PatternFault) -> String {
    match fault {
        PatternFault::Count(count) => {
            format!("has {count} patterns: up to {MAX_PATTERNS} are possible; join some with `|`")
        }
        PatternFault::Bytes(_) => {
            format!("has too much text: the patterns of a call have up to {MAX_PATTERN_BYTES} bytes")
        }
        PatternFault::Empty => "has an empty pattern, which every line matches: leave it out".to_owned(),
        PatternFault::Syntax { pattern, fault } => format!(
            "has the pattern {}, which is no regular expression: {fault}; escape characters with `\\`, or set \
             `literal_patterns` to search for the text itself",
            quoted(pattern)
        ),
        PatternFault::Size => {
            "has patterns that are too large: use lower counts in `{…}`, fewer classes such as \
                               `\\w` inside them, or ASCII classes such as `(?-u:\\w)`"
                .to_owned()
        }
    }
}
