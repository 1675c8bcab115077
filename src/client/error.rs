//! What a call can fail with, and which failures may pass.

use std::{error::Error as _, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A field of the request that was wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Its name in the contract.
    pub field: String,
    /// What was wrong and what would work.
    pub description: String,
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not the URL of a server.
    #[error("{url:?} is not the URL of a server; try http://127.0.0.1:50051")]
    Url {
        /// What was given.
        url: String,
    },
    /// No connection could be made.
    #[error("{url} cannot be reached: {cause}; a server is started with: perenniald")]
    Unreachable {
        /// Where.
        url: String,
        /// Why, in words.
        cause: String,
    },
    /// Nothing came, not even a heartbeat.
    #[error("nothing arrived for {waited:?}")]
    Silent {
        /// Three heartbeats.
        waited: Duration,
    },
    /// The server ended a flow of messages before it had answered all of them.
    #[error("the server ended the flow before it had answered all messages")]
    EndedEarly,
    /// The server, or the transport, ended the call.
    #[error("{message}")]
    Status {
        /// The gRPC code.
        code: Code,
        /// The reason, where the server told one: `CURSOR_EXPIRED`.
        reason: Option<String>,
        /// The fields that were wrong.
        violations: Vec<Violation>,
        /// For people.
        message: String,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
        /// It was the transport that failed, not the server that answered.
        transport: bool,
    },
}

impl Error {
    pub(super) fn from_status(status: &Status, url: &str) -> Self {
        let transport = status.source().is_some();
        if let Some(cause) = unreachable_because(status) {
            return Self::Unreachable { url: url.to_owned(), cause };
        }
        let details = status.get_error_details();
        let violations = details.bad_request().map(|bad| {
            let one = |v: &tonic_types::FieldViolation| Violation {
                field: v.field.clone(),
                description: v.description.clone(),
            };
            bad.field_violations.iter().map(one).collect()
        });
        Self::Status {
            code: status.code(),
            reason: details.error_info().map(|info| info.reason.clone()),
            violations: violations.unwrap_or_default(),
            message: status.message().to_owned(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            transport,
        }
    }

    /// Whether the same call, with the last cursor, may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Url { .. } => false,
            Self::Unreachable { .. } | Self::Silent { .. } | Self::EndedEarly => true,
            Self::Status { reason: Some(_), retry_after, .. } => retry_after.is_some(),
            Self::Status { code, transport, .. } => match code {
                Code::Unavailable | Code::Cancelled => true,
                Code::Internal | Code::Unknown | Code::ResourceExhausted => *transport,
                _ => false,
            },
        }
    }

    /// The reason that the server told, if it told one: `CURSOR_EXPIRED`.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Status { reason, .. } => reason.as_deref(),
            Self::Url { .. } | Self::Unreachable { .. } | Self::Silent { .. } | Self::EndedEarly => None,
        }
    }

    /// The gRPC code that stands for it.
    pub fn code(&self) -> Code {
        match self {
            Self::Url { .. } => Code::InvalidArgument,
            Self::Unreachable { .. } | Self::Silent { .. } | Self::EndedEarly => Code::Unavailable,
            Self::Status { code, .. } => *code,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Url { .. } | Self::Unreachable { .. } | Self::Silent { .. } | Self::EndedEarly => None,
        }
    }
}

/// Why no connection could be made, if that is what happened: the last cause of the chain, which names it best.
fn unreachable_because(status: &Status) -> Option<String> {
    let mut connecting = false;
    let mut last = None;
    let mut cause = status.source();
    while let Some(error) = cause {
        connecting |= error.is::<tonic::ConnectError>();
        let io = error.downcast_ref::<std::io::Error>();
        if connecting && io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return Some("nothing listens there; start it with: perenniald".into());
        }
        last = Some(error);
        cause = error.source();
    }
    last.filter(|_| connecting).map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{grpc::status::Failure, proto::ErrorReason};

    #[test]
    fn the_reason_decides_whether_a_call_is_repeated_whatever_its_code() {
        for reason in ErrorReason::all() {
            let status = Status::from(Failure::new(reason, ""));
            let error = Error::from_status(&status, "http://127.0.0.1:50051");
            assert_eq!(error.reason(), Some(reason.as_str_name()));
            assert_eq!(error.is_retryable(), reason.is_retried(), "{reason:?}");
        }
    }
}
