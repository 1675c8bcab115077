//! Errors of shared countdowns.

use super::{ErrorReason, Failure, name_fault, too_long};
use crate::{
    countdown::shared::{Error, HEADER_PREFIX, MAX_HEADERS, MAX_NAME_BYTES, MAX_REQUEST_ID_BYTES},
    messages,
};

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Name(error) => Self::field("name", name_fault(error, MAX_NAME_BYTES, "auction.42")),
            Error::NotFound => Self::new(
                ErrorReason::CountdownNotFound,
                "there is no such countdown: ListCountdowns tells which there are",
            ),
            Error::Exists => Self::new(
                ErrorReason::CountdownExists,
                "there is a countdown of this name: delete it, or choose another name",
            ),
            Error::Over { is_cancelled } => {
                let how = if is_cancelled { "was cancelled" } else { "has ended" };
                let text =
                    format!("the countdown {how}: delete it, and create it again to have it run once more");
                Self::new(ErrorReason::CountdownOver, text)
            }
            Error::VersionMismatch { expected, current } => {
                let text = format!(
                    "the countdown has version {current}, not {expected}: look what was done to it, and try again \
                     with that version if it is still to be done",
                );
                Self::new(ErrorReason::VersionMismatch, text).with("current", current)
            }
            Error::TooMany { limit } => {
                let text = format!("there are {limit} countdowns, and no more are possible: delete one");
                Self::new(ErrorReason::TooManyCountdowns, text).with("limit", limit)
            }
            Error::Countdown(error) => error.into(),
            Error::NothingLeft { field } => {
                let text = match field {
                    "by" => "leaves nothing of the countdown: bring its end forward by less, or cancel it",
                    "until_time" => "is past: choose a moment to come",
                    _ => "is no time: it must be above zero",
                };
                Self::field(field, text)
            }
            Error::TooLong { field, length, max } => Self::field(field, too_long(length, max)),
            Error::TooManyNumbers { left, max } => {
                let text = format!(
                    "is so long that {left} numbers are left at its interval: at most {max} are possible"
                );
                Self::field("by", text)
            }
            Error::RequestIdLength { bytes } => {
                let text = format!("has {bytes} bytes: from 1 to {MAX_REQUEST_ID_BYTES} are possible");
                Self::field("request_id", text)
            }
            Error::OnEnd(messages::Error::TooManyHeaders { count }) => {
                Self::field("on_end.headers", format!("are {count}: at most {MAX_HEADERS} are possible"))
            }
            Error::OnEnd(error) => Self::from(error).within("on_end"),
            Error::HeaderReserved { name } => {
                let text = format!(
                    "has {}: names that begin with `{HEADER_PREFIX}` are the server's, choose another one",
                    super::quoted(&name)
                );
                Self::field("on_end.headers", text)
            }
            Error::Mismatch => Self::new(
                ErrorReason::CursorMismatch,
                "the cursor is one of another countdown, or of one that had this name before: watch this one anew",
            ),
            Error::Ahead { version } => {
                let text = format!(
                    "the cursor is ahead of the countdown, whose version is {version}: watch it anew",
                );
                Self::new(ErrorReason::CursorAhead, text).with("version", version)
            }
            Error::Log(error) => error.into(),
        }
    }
}
