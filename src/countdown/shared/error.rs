//! Why a shared countdown cannot be read or changed.

use std::time::Duration;

use crate::{
    countdown,
    messages::{self, topic},
};

/// Why a shared countdown cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request to create a countdown sets no target.
    #[error("no target")]
    NoTarget,
    /// The name is not valid.
    #[error("the name {0}")]
    Name(topic::Error),
    /// The countdown does not exist, or was deleted.
    #[error("no countdown")]
    NotFound,
    /// Another request created a countdown of this name.
    #[error("a countdown of this name exists")]
    Exists,
    /// It has ended, or was cancelled.
    #[error("the countdown is over")]
    Over {
        /// Whether it was cancelled.
        is_cancelled: bool,
    },
    /// The countdown was changed after the version that the caller expects.
    #[error("the countdown has version {current}, not {expected}")]
    VersionMismatch {
        /// The version that the caller expects.
        expected: u64,
        /// The version that the countdown has.
        current: u64,
    },
    /// There are already [`Config::max_countdowns`](countdown::Config::max_countdowns).
    #[error("the limit of {limit} countdowns is reached")]
    TooMany {
        /// The most that the operator allows.
        limit: usize,
    },
    /// The schedule is not valid.
    #[error(transparent)]
    Countdown(#[from] countdown::Error),
    /// The extension does not move the end.
    #[error("an extension by 0")]
    ByZero,
    /// Its end would not be in the future.
    #[error("no time would be left")]
    NothingLeft {
        /// The field that sets its end.
        field: &'static str,
    },
    /// It would be longer than [`Config::max_length`](countdown::Config::max_length).
    #[error("a length of {length:?} is over the maximum of {max:?}")]
    TooLong {
        /// The field that sets its length.
        field: &'static str,
        /// The length that it would have.
        length: Duration,
        /// The longest length that the operator allows.
        max: Duration,
    },
    /// The extension would need numbers above the range of an `i32`.
    #[error("{left} intervals would be left, more than the maximum of {max}")]
    TooManyNumbers {
        /// Whole intervals until the end.
        left: i64,
        /// The most that its last number and its step allow.
        max: i64,
    },
    /// The request id is empty, or longer than [`MAX_REQUEST_ID_BYTES`](super::MAX_REQUEST_ID_BYTES).
    #[error("a request id of {bytes} bytes")]
    RequestIdLength {
        /// The length of the request id.
        bytes: usize,
    },
    /// The end message cannot be published.
    #[error("the end message: {0}")]
    OnEnd(messages::Error),
    /// A header of the end message has a name that is reserved for the server.
    #[error("the header name {name:?} is reserved")]
    HeaderReserved {
        /// The name of the header.
        name: String,
    },
    /// The position belongs to another countdown.
    #[error("a position in another countdown")]
    Mismatch,
    /// The position is one of another history of the log: a copy of the log was restored, or two copies went on.
    #[error("a position in another history of the log")]
    Diverged(messages::Diverged),
    /// The position names a version that the countdown does not have yet.
    #[error("a position ahead of the countdown, whose version is {version}")]
    Ahead {
        /// The version that the countdown has.
        version: u64,
    },
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] messages::Error),
}
