//! Errors of shared countdowns.

use super::{ErrorReason, Failure, messages::diverged_from, name_fault, quoted, too_long};
use crate::{
    countdown::shared::{Error, HEADER_PREFIX, MAX_HEADERS, MAX_NAME_BYTES, MAX_REQUEST_ID_BYTES},
    messages,
};

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NoTarget => Self::field(
                "target",
                "is not set: set `duration`, as in \"600s\", `until_time` to a moment, or `start` to a number",
            ),
            Error::Name(error) => Self::field("name", name_fault(error, MAX_NAME_BYTES, "auction.42")),
            Error::NotFound => Self::new(
                ErrorReason::CountdownNotFound,
                "there is no countdown of this name: ListCountdowns lists the countdowns",
            ),
            Error::Exists => Self::new(
                ErrorReason::CountdownExists,
                "a countdown of this name exists: delete it, or choose another name",
            ),
            Error::Over { is_cancelled } => {
                let how = if is_cancelled { "was cancelled" } else { "has ended" };
                let text = format!("the countdown {how}: to run it again, delete it and create it again");
                Self::new(ErrorReason::CountdownOver, text)
            }
            Error::VersionMismatch { expected, current } => {
                let text = format!(
                    "the countdown has version {current}, not {expected}: read its current state, and send the change \
                     again with version {current} if it still applies",
                );
                Self::new(ErrorReason::VersionMismatch, text).with("current", current)
            }
            Error::TooMany { limit } => {
                let text = format!("the server's limit of {limit} countdowns is reached: delete one");
                Self::new(ErrorReason::TooManyCountdowns, text).with("limit", limit)
            }
            Error::Countdown(error) => error.into(),
            Error::ByZero => Self::field(
                "by",
                "is 0: it must be above zero to move the end later, or below zero to move it earlier",
            ),
            Error::NothingLeft { field } => {
                let text = match field {
                    "by" => "leaves no time: move the end earlier by less, or cancel the countdown",
                    "until_time" => "is in the past: set a moment in the future",
                    _ => "is 0: it must be above zero",
                };
                Self::field(field, text)
            }
            Error::TooLong { field, length, max } => Self::field(field, too_long(length, max)),
            Error::TooManyNumbers { left, max } => {
                let text = format!(
                    "makes the countdown so long that {left} numbers are left at its interval: at most {max} are allowed"
                );
                Self::field("by", text)
            }
            Error::RequestIdLength { bytes } => {
                let text = format!("has {bytes} bytes: it must have from 1 to {MAX_REQUEST_ID_BYTES}");
                Self::field("request_id", text)
            }
            Error::OnEnd(messages::Error::TooManyHeaders { count }) => Self::field(
                "on_end.headers",
                format!("has {count} headers: at most {MAX_HEADERS} are allowed"),
            ),
            Error::OnEnd(error) => Self::from(error).within("on_end"),
            Error::HeaderReserved { name } => {
                let text = format!(
                    "has {}: names that begin with `{HEADER_PREFIX}` are reserved for the server, choose another one",
                    quoted(&name)
                );
                Self::field("on_end.headers", text)
            }
            Error::Mismatch => Self::new(
                ErrorReason::CursorMismatch,
                "the cursor belongs to another countdown, or to an earlier one of this name: watch without the cursor",
            ),
            Error::Diverged(diverged) => diverged_from(
                diverged,
                "the cursor is from another history of the server's log: a copy of its data was restored; watch without \
                 the cursor"
                    .into(),
            ),
            Error::Ahead { version } => {
                let text = format!(
                    "the cursor is ahead of the countdown, which has version {version}: watch without the cursor",
                );
                Self::new(ErrorReason::CursorAhead, text).with("version", version)
            }
            Error::Log(error) => error.into(),
        }
    }
}
