//! The one table of error reasons: the gRPC code of each, and whether the same call can succeed later.
//!
//! The names are the values of `ErrorReason` in `proto/`, so that clients in every language match on generated
//! constants. The server makes its statuses from this table, and the client decides by it whether to resume.

use tonic::Code;

use crate::proto::ErrorReason;

/// The domain of every reason.
pub const DOMAIN: &str = "perennial";

impl ErrorReason {
    /// Every reason that the server sends, in the order of `proto/`.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..).map_while(|number| Self::try_from(number).ok())
    }

    /// The gRPC code of an error with this reason.
    pub const fn code(self) -> Code {
        match self {
            Self::Unspecified => Code::Unknown,
            Self::InvalidField | Self::RequestMalformed | Self::CursorMalformed => Code::InvalidArgument,
            Self::CursorMismatch | Self::CommitBehind | Self::ConsumerConnected | Self::CountdownOver => {
                Code::FailedPrecondition
            }
            Self::CountdownExists => Code::AlreadyExists,
            Self::CursorExpired | Self::CursorAhead | Self::OffsetBeyondEnd | Self::LogDiverged => {
                Code::OutOfRange
            }
            Self::FileNotFound | Self::ConsumerNotFound | Self::TopicNotFound | Self::CountdownNotFound => {
                Code::NotFound
            }
            Self::SequenceMismatch | Self::ConsumerTakenOver | Self::VersionMismatch => Code::Aborted,
            Self::RequestTooLarge
            | Self::TooManyTopics
            | Self::TooManyConsumers
            | Self::TooManyCountdowns
            | Self::LogFull
            | Self::BuffersFull
            | Self::TooManyStreams
            | Self::TooManyTicks
            | Self::TooManyWatched
            | Self::QuotaExceeded => Code::ResourceExhausted,
            Self::LogFailed
            | Self::Draining
            | Self::Stalled
            | Self::AccessChanged
            | Self::ClusterUnreachable => Code::Unavailable,
            Self::Unsupported => Code::Unimplemented,
            Self::ReadError => Code::Internal,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::CredentialsMissing
            | Self::CredentialsInvalid
            | Self::CredentialsExpired
            | Self::CredentialsRevoked => Code::Unauthenticated,
            Self::AccessDenied => Code::PermissionDenied,
        }
    }

    /// Whether the same call, with the last cursor, can succeed later. Exactly these errors carry `RetryInfo`.
    pub const fn is_retried(self) -> bool {
        match self {
            Self::LogFull
            | Self::ClusterUnreachable
            | Self::AccessChanged
            | Self::QuotaExceeded
            | Self::BuffersFull
            | Self::Draining
            | Self::Stalled
            | Self::TooManyStreams
            | Self::TooManyTicks
            | Self::TooManyWatched => true,
            Self::Unspecified
            | Self::InvalidField
            | Self::RequestTooLarge
            | Self::RequestMalformed
            | Self::CursorMalformed
            | Self::CursorMismatch
            | Self::CursorExpired
            | Self::CursorAhead
            | Self::LogDiverged
            | Self::OffsetBeyondEnd
            | Self::FileNotFound
            | Self::SequenceMismatch
            | Self::ConsumerTakenOver
            | Self::CommitBehind
            | Self::ConsumerNotFound
            | Self::ConsumerConnected
            | Self::TooManyConsumers
            | Self::TopicNotFound
            | Self::TooManyTopics
            | Self::CountdownNotFound
            | Self::CountdownExists
            | Self::CountdownOver
            | Self::VersionMismatch
            | Self::TooManyCountdowns
            | Self::LogFailed
            | Self::ReadError
            | Self::DeadlineExceeded
            | Self::CredentialsMissing
            | Self::CredentialsInvalid
            | Self::CredentialsExpired
            | Self::CredentialsRevoked
            | Self::AccessDenied
            | Self::Unsupported => false,
        }
    }
}

/// The name of a status code, as the gRPC specification writes it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
