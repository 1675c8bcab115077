//! Errors of lines.

use super::{ErrorReason, Failure, PARTIAL_FLUSH, quoted, read_error, show};
use crate::lines::{Error, MAX_DELIMITER_BYTES, MIN_ASKED_LINE_BYTES};

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
                "the cursor belongs to another path: send it with the path that it came from",
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
