//! The reasons why calls end: their names, their codes, and whether trying again helps.

use tonic::Code;

/// The reasons after which a client must not repeat the call, or resume the stream, as it was: something has to be
/// changed first. All others pass by themselves.
pub const NOT_RETRIED: &[&str] = &[
    "INVALID_FIELD",
    "REQUEST_TOO_LARGE",
    "REQUEST_MALFORMED",
    "CURSOR_MALFORMED",
    "CURSOR_MISMATCH",
    "CURSOR_EXPIRED",
    "CURSOR_AHEAD",
    "OFFSET_BEYOND_END",
    "FILE_NOT_FOUND",
    "SEQUENCE_MISMATCH",
    "CONSUMER_TAKEN_OVER",
    "COMMIT_BEHIND",
    "CONSUMER_NOT_FOUND",
    "TOPIC_NOT_FOUND",
    "TOO_MANY_TOPICS",
    "LOG_FAILED",
    "READ_ERROR",
    "DEADLINE_EXCEEDED",
];

/// Why a call ended, as `ErrorInfo.reason` tells it. `docs/errors.md` lists them for clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "each is described in docs/errors.md")]
pub enum Reason {
    InvalidField,
    RequestTooLarge,
    RequestMalformed,
    CursorMalformed,
    CursorMismatch,
    CursorExpired,
    CursorAhead,
    OffsetBeyondEnd,
    FileNotFound,
    SequenceMismatch,
    ConsumerTakenOver,
    CommitBehind,
    ConsumerNotFound,
    TopicNotFound,
    TooManyTopics,
    LogFull,
    LogFailed,
    ReadError,
    DeadlineExceeded,
    Draining,
    Stalled,
    TooManyStreams,
    TooManyTicks,
}

impl Reason {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 23] = [
        Self::InvalidField,
        Self::RequestTooLarge,
        Self::RequestMalformed,
        Self::CursorMalformed,
        Self::CursorMismatch,
        Self::CursorExpired,
        Self::CursorAhead,
        Self::OffsetBeyondEnd,
        Self::FileNotFound,
        Self::SequenceMismatch,
        Self::ConsumerTakenOver,
        Self::CommitBehind,
        Self::ConsumerNotFound,
        Self::TopicNotFound,
        Self::TooManyTopics,
        Self::LogFull,
        Self::LogFailed,
        Self::ReadError,
        Self::DeadlineExceeded,
        Self::Draining,
        Self::Stalled,
        Self::TooManyStreams,
        Self::TooManyTicks,
    ];

    /// As it stands in `ErrorInfo`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidField => "INVALID_FIELD",
            Self::RequestTooLarge => "REQUEST_TOO_LARGE",
            Self::RequestMalformed => "REQUEST_MALFORMED",
            Self::CursorMalformed => "CURSOR_MALFORMED",
            Self::CursorMismatch => "CURSOR_MISMATCH",
            Self::CursorExpired => "CURSOR_EXPIRED",
            Self::CursorAhead => "CURSOR_AHEAD",
            Self::OffsetBeyondEnd => "OFFSET_BEYOND_END",
            Self::FileNotFound => "FILE_NOT_FOUND",
            Self::SequenceMismatch => "SEQUENCE_MISMATCH",
            Self::ConsumerTakenOver => "CONSUMER_TAKEN_OVER",
            Self::CommitBehind => "COMMIT_BEHIND",
            Self::ConsumerNotFound => "CONSUMER_NOT_FOUND",
            Self::TopicNotFound => "TOPIC_NOT_FOUND",
            Self::TooManyTopics => "TOO_MANY_TOPICS",
            Self::LogFull => "LOG_FULL",
            Self::LogFailed => "LOG_FAILED",
            Self::ReadError => "READ_ERROR",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Draining => "DRAINING",
            Self::Stalled => "STALLED",
            Self::TooManyStreams => "TOO_MANY_STREAMS",
            Self::TooManyTicks => "TOO_MANY_TICKS",
        }
    }

    /// The code it comes with.
    pub const fn code(self) -> Code {
        match self {
            Self::InvalidField | Self::RequestMalformed | Self::CursorMalformed => Code::InvalidArgument,
            Self::CursorMismatch | Self::CommitBehind => Code::FailedPrecondition,
            Self::CursorExpired | Self::CursorAhead | Self::OffsetBeyondEnd => Code::OutOfRange,
            Self::FileNotFound | Self::ConsumerNotFound | Self::TopicNotFound => Code::NotFound,
            Self::SequenceMismatch | Self::ConsumerTakenOver => Code::Aborted,
            Self::RequestTooLarge
            | Self::TooManyTopics
            | Self::LogFull
            | Self::TooManyStreams
            | Self::TooManyTicks => Code::ResourceExhausted,
            Self::LogFailed | Self::Draining | Self::Stalled => Code::Unavailable,
            Self::ReadError => Code::Internal,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
        }
    }

    /// Trying again, later and unchanged, may help: `RetryInfo` says so.
    pub const fn is_retried(self) -> bool {
        matches!(
            self,
            Self::LogFull | Self::Draining | Self::Stalled | Self::TooManyStreams | Self::TooManyTicks
        )
    }
}
