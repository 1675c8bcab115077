//! The errors of a call, and which of them may pass.

use std::{collections::BTreeMap, error::Error as _, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    proto::{ErrorReason, LineGap, MessageGap, PublishError},
    reason::DOMAIN,
};

/// A field of the request that was wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Its name in the contract.
    pub field: String,
    /// The fault, and a value that would work.
    pub description: String,
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address does not have a form that [`Client::new`](super::Client::new) takes.
    #[error("the server {url:?} cannot be used: {reason}; try {hint}")]
    Url {
        /// The address as it was given, without a user name and a password.
        url: String,
        /// What is wrong with the address.
        reason: String,
        /// An address that works, or another way to reach the server.
        hint: String,
    },
    /// A file of the credentials cannot be used.
    #[error("{0}")]
    Credentials(String),
    /// The client and the server do not trust each other, or one of them speaks TLS and the other does not.
    #[error("{url} cannot be used: {cause}")]
    Handshake {
        /// The URL of the server.
        url: String,
        /// The reason in words, and what to do.
        cause: String,
    },
    /// No connection could be made.
    #[error("{url} cannot be reached: {cause}")]
    Unreachable {
        /// The URL of the server.
        url: String,
        /// The reason in words, and what to do where that is known.
        cause: String,
    },
    /// The server sent nothing for some time, not even a heartbeat.
    #[error("nothing arrived for {waited:?}")]
    Silent {
        /// How long the client waited: for a stream three heartbeats, and at least 5 s; for another call 30 s.
        waited: Duration,
    },
    /// The server ended a flow of messages before it had answered all of them.
    #[error("the server ended the flow before it had answered all messages")]
    EndedEarly,
    /// The server does not keep to the protocol, so it is not a server of this version.
    #[error("the server does not keep to the protocol: {fault}")]
    Protocol {
        /// What it did.
        fault: &'static str,
    },
    /// The options of a stream do not fit together.
    #[error("{fault}")]
    Options {
        /// The fault, and what to do.
        fault: &'static str,
    },
    /// A state cannot be used. The stream does not start from the beginning instead.
    #[error("{place} {fault}: restore it, or remove it to start from the beginning")]
    State {
        /// Where the state was: a file, `the state`.
        place: String,
        /// What is wrong with the state.
        fault: String,
    },
    /// A store cannot be read or written.
    #[error("{place} cannot keep the state: {fault}")]
    Store {
        /// The store: a file, `the store`.
        place: String,
        /// Why the store cannot keep the state.
        fault: String,
    },
    /// Lines are missing, and the caller asked for no events.
    #[error("lines are missing here{}", details(.0))]
    LineGap(LineGap),
    /// Messages are missing, and the caller asked for no events.
    #[error("messages from sequence {} to {} are missing ({:?})", .0.first_sequence(), .0.last_sequence(), .0.reason())]
    MessageGap(MessageGap),
    /// The time that the caller gave the stream is over.
    #[error("the stream took longer than {after:?}")]
    Deadline {
        /// The time.
        after: Duration,
    },
    /// A message was sent, its answer was lost, and the server may have forgotten its id: it may be published or not, and
    /// to send it again could publish it twice.
    #[error("the message {message_id} was sent {waited:?} ago and has no answer: it may be published or not")]
    OutcomeUnknown {
        /// The id of the message.
        message_id: String,
        /// The time since it was first sent.
        waited: Duration,
    },
    /// The publisher ended before the answer arrived: it was dropped, or its runtime has ended.
    #[error("the publisher ended before the message had an answer: call `close` before it is dropped")]
    PublisherEnded,
    /// The server, or the transport, ended the call.
    #[error("{message}")]
    Status {
        /// The gRPC code.
        code: Code,
        /// The reason, if the error has an ErrorInfo of the server: `CURSOR_EXPIRED`.
        reason: Option<String>,
        /// The fields that were wrong.
        violations: Vec<Violation>,
        /// Facts for programs, as the metadata of `ErrorInfo` has them.
        metadata: BTreeMap<String, String>,
        /// The text for people.
        message: String,
        /// The delay that the server asks for: the call may be repeated.
        retry_after: Option<Duration>,
        /// The transport failed; the server did not answer.
        transport: bool,
    },
}

impl Error {
    pub(super) fn from_status(status: &Status, url: &str) -> Self {
        let transport = status.source().is_some();
        if let Some(cause) = unreachable_because(status, url) {
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
        // A proxy may answer with an ErrorInfo of its own domain.
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let metadata = info.map(|info| info.metadata.clone().into_iter().collect());
        Self::Status {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()),
            metadata: metadata.unwrap_or_default(),
            violations: violations.unwrap_or_default(),
            message: broken_off(status, url).unwrap_or_else(|| status.message().to_owned()),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            transport,
        }
    }

    /// Whether the same call, with the last cursor, may succeed later.
    ///
    /// An error with an ErrorInfo of the domain `perennial` comes from the server: it may pass if it also has a
    /// RetryInfo. Any other error comes from a proxy, the transport or the client's library, which report a lost
    /// connection by several codes.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Url { .. }
            | Self::Credentials(_)
            | Self::Handshake { .. }
            | Self::Protocol { .. }
            | Self::Options { .. }
            | Self::State { .. }
            | Self::Store { .. }
            | Self::LineGap(_)
            | Self::MessageGap(_)
            | Self::Deadline { .. }
            | Self::OutcomeUnknown { .. }
            | Self::PublisherEnded => false,
            Self::Unreachable { .. } | Self::Silent { .. } | Self::EndedEarly => true,
            Self::Status { reason: Some(_), retry_after, .. } => retry_after.is_some(),
            Self::Status { reason: None, code, transport, .. } => match code {
                Code::Unavailable | Code::Unknown | Code::Internal | Code::Aborted | Code::Cancelled => true,
                // HTTP/2's ENHANCE_YOUR_CALM. Without a failed transport it is a limit of this client, which the same
                // response would exceed again.
                Code::ResourceExhausted => *transport,
                _ => false,
            },
        }
    }

    /// The reason, if the server sent one: `CURSOR_EXPIRED`.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Status { reason, .. } => reason.as_deref(),
            _ => None,
        }
    }

    /// Whether the server sent this reason.
    pub fn has_reason(&self, reason: ErrorReason) -> bool {
        self.reason() == Some(reason.as_str_name())
    }

    /// The gRPC code of the status, or the closest one.
    pub fn code(&self) -> Code {
        match self {
            Self::Url { .. } | Self::Credentials(_) | Self::Options { .. } | Self::State { .. } => {
                Code::InvalidArgument
            }
            Self::Store { .. } | Self::OutcomeUnknown { .. } => Code::Unknown,
            Self::LineGap(_) | Self::MessageGap(_) => Code::DataLoss,
            Self::Deadline { .. } => Code::DeadlineExceeded,
            Self::PublisherEnded => Code::Cancelled,
            Self::Handshake { .. } | Self::Unreachable { .. } | Self::Silent { .. } | Self::EndedEarly => {
                Code::Unavailable
            }
            Self::Protocol { .. } => Code::Internal,
            Self::Status { code, .. } => *code,
        }
    }

    /// The first field of the request that was wrong: `interval`.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Status { violations, .. } => violations.first().map(|violation| violation.field.as_str()),
            _ => None,
        }
    }

    /// Facts for programs: `oldest`, `limit`. Empty if the server sent none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        match self {
            Self::Status { metadata, .. } => metadata,
            _ => &NONE,
        }
    }

    /// The delay that the server asks for before the call is repeated.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<PublishError> for Error {
    /// Why one message was not published, as [`Client::publish`](super::Client::publish) would have returned it.
    fn from(error: PublishError) -> Self {
        let reason = error.reason();
        let violation = |field| Violation { field, description: error.message.clone() };
        Self::Status {
            code: Code::from_i32(error.code),
            reason: (reason != ErrorReason::Unspecified).then(|| reason.as_str_name().to_owned()),
            violations: Some(error.field.clone())
                .filter(|it| !it.is_empty())
                .into_iter()
                .map(violation)
                .collect(),
            metadata: error.metadata.into_iter().collect(),
            message: error.message,
            retry_after: error.retry_delay.map(|delay| delay.try_into().unwrap_or_default()),
            transport: false,
        }
    }
}

/// Why no connection could be made, or `None` for another failure. The last cause of the chain names it best.
fn unreachable_because(status: &Status, url: &str) -> Option<String> {
    let is_path = url.starts_with("unix:");
    let mut connecting = false;
    let mut last = None;
    let mut cause = status.source();
    while let Some(error) = cause {
        connecting |= error.is::<tonic::ConnectError>();
        let io = error.downcast_ref::<std::io::Error>().filter(|_| connecting);
        match io.map(std::io::Error::kind) {
            Some(std::io::ErrorKind::ConnectionRefused) => {
                return Some("no server listens there; start one with: perenniald".into());
            }
            Some(std::io::ErrorKind::NotFound) if is_path => {
                return Some("no socket is there; does the server run, and listen there?".into());
            }
            Some(std::io::ErrorKind::PermissionDenied) if is_path => {
                return Some("this account may not use the socket (--socket-mode of the server)".into());
            }
            _ => {}
        }
        last = Some(error);
        cause = error.source();
    }
    last.filter(|_| connecting).map(ToString::to_string)
}

/// The text for a call that the transport ended; its own is `transport error`. The last cause of the chain names it best.
fn broken_off(status: &Status, url: &str) -> Option<String> {
    let mut cause = status.source()?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(format!("the call to {url} broke off: {cause}"))
}

/// The file or the size of a gap, and its reason.
fn details(gap: &LineGap) -> String {
    let reason = gap.reason();
    match gap.byte_count {
        // The name is that of a file, which may have any characters.
        _ if !gap.file.is_empty() => format!(": {:?} {}", gap.file, gap.fault),
        Some(bytes) => format!(", {bytes} bytes ({reason:?})"),
        None => format!(" ({reason:?})"),
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;
    use crate::grpc::status::Failure;

    #[test]
    fn a_reason_decides_whether_a_call_is_repeated_whatever_its_code() {
        for reason in ErrorReason::all() {
            let status = Status::from(Failure::new(reason, ""));
            let error = Error::from_status(&status, "http://127.0.0.1:50051");
            assert_eq!(error.reason(), Some(reason.as_str_name()));
            assert_eq!(error.is_retryable(), reason.is_retried(), "{reason:?}");
        }
    }

    #[test]
    fn an_error_info_of_another_domain_is_no_reason() {
        let details =
            ErrorDetails::with_error_info("UPSTREAM_DOWN", "proxy.example", [("a".into(), "b".into())]);
        for (code, is_retryable) in [(Code::Unavailable, true), (Code::NotFound, false)] {
            let status = Status::with_error_details(code, "", details.clone());
            let error = Error::from_status(&status, "http://127.0.0.1:50051");
            assert_eq!((error.reason(), error.is_retryable()), (None, is_retryable), "{code:?}");
            assert!(matches!(error, Error::Status { metadata, .. } if metadata.is_empty()));
        }
    }

    #[test]
    fn a_gap_says_which_file_it_is_or_how_many_bytes() {
        let gap = LineGap { reason: crate::proto::LineGapReason::Deleted.into(), ..LineGap::default() };
        let shown = |gap| Error::LineGap(gap).to_string();
        assert_eq!(shown(gap.clone()), "lines are missing here (Deleted)");
        let counted = LineGap { byte_count: Some(7), ..gap.clone() };
        assert_eq!(shown(counted), "lines are missing here, 7 bytes (Deleted)");
        let named = LineGap { file: "a\nb.gz".into(), fault: "is damaged".into(), ..gap };
        assert_eq!(shown(named), r#"lines are missing here: "a\nb.gz" is damaged"#);
    }

    #[test]
    fn without_a_reason_the_codes_of_a_lost_connection_are_repeated_and_no_others() {
        let retried = [Code::Unavailable, Code::Unknown, Code::Internal, Code::Aborted, Code::Cancelled];
        for number in 1..=16 {
            let code = Code::from(number);
            let error = Error::from_status(&Status::new(code, ""), "http://127.0.0.1:50051");
            assert_eq!(error.is_retryable(), retried.contains(&code), "{code:?}");
        }
    }
}
