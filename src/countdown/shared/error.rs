//! Why a shared countdown cannot be read or changed.

use std::time::Duration;

use crate::{
    countdown,
    messages::{self, topic},
};

/// Why a shared countdown cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a name for a countdown.
    #[error("the name {0}")]
    Name(topic::Error),
    /// There is no such countdown, or no more.
    #[error("no countdown")]
    NotFound,
    /// There is one of this name that was not created by the same request.
    #[error("a countdown of this name is there")]
    Exists,
    /// It has ended, or was cancelled.
    #[error("the countdown is over")]
    Over {
        /// It was cancelled.
        is_cancelled: bool,
    },
    /// It has changed since.
    #[error("the countdown has version {current}, not {expected}")]
    VersionMismatch {
        /// As asked for.
        expected: u64,
        /// As it is.
        current: u64,
    },
    /// One more than [`Config::max_countdowns`](countdown::Config::max_countdowns).
    #[error("there are {limit} countdowns")]
    TooMany {
        /// The most.
        limit: usize,
    },
    /// As it was asked for, no countdown can be.
    #[error(transparent)]
    Countdown(#[from] countdown::Error),
    /// Its end would not be in the future.
    #[error("nothing would be left")]
    NothingLeft {
        /// The field that says so.
        field: &'static str,
    },
    /// It would be longer than [`Config::max_length`](countdown::Config::max_length).
    #[error("a length of {length:?} is over the maximum of {max:?}")]
    TooLong {
        /// The field that says so.
        field: &'static str,
        /// As asked for.
        length: Duration,
        /// The longest allowed.
        max: Duration,
    },
    /// So long, it would have more numbers than there are.
    #[error("{left} intervals would be left, more than the maximum of {max}")]
    TooManyNumbers {
        /// Whole intervals until the end.
        left: i64,
        /// The most there can be with its last number and step.
        max: i64,
    },
    /// Empty, or more than [`MAX_REQUEST_ID_BYTES`](super::MAX_REQUEST_ID_BYTES).
    #[error("a request id of {bytes} bytes")]
    RequestIdLength {
        /// Its length.
        bytes: usize,
    },
    /// The message to publish at the end.
    #[error("the message at the end: {0}")]
    OnEnd(messages::Error),
    /// A header of that message with a name that is the server's.
    #[error("a header {name:?}")]
    HeaderReserved {
        /// Its name.
        name: String,
    },
    /// The position is one of another countdown.
    #[error("a position in another countdown")]
    Mismatch,
    /// The countdown has never been that far.
    #[error("a position ahead of the countdown, whose version is {version}")]
    Ahead {
        /// As it is.
        version: u64,
    },
    /// The log.
    #[error(transparent)]
    Log(#[from] messages::Error),
}
