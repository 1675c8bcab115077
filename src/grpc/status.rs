//! The only place where an error becomes a status: its code, its reason, its text, its details.
//!
//! Every error of every module has an arm in one of the tables here and in the modules below. They have no `_` arm, so
//! that a new variant does not compile without a decision on its status. A text names the fault and the remedy.
//! No host path and no inner error leaves the server.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    proto::{ErrorReason, PublishError},
    reason::DOMAIN,
    stream,
};

mod access;
mod countdowns;
mod lines;
mod messages;
mod shared;
mod text;
mod web;

pub use access::{access_changed, denied, quota_exceeded, stranger, topics_of_quota};
use access::{no_storage_left, no_topic_left};
use text::{name_fault, quoted, show, show_both, size, too_long};
pub use web::{
    Foreign, needs_http2, no_rules, not_acceptable, not_json, nothing_here, wrong_content_type, wrong_method,
};

/// The delay in RetryInfo. Clients add a growing backoff of their own.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// A failure on its way to a client.
#[derive(Clone, Debug)]
pub struct Failure {
    reason: ErrorReason,
    text: String,
    field: Option<String>,
    metadata: HashMap<String, String>,
    /// In a box, because few failures have one.
    quota: Option<Box<access::Quota>>,
}

impl Failure {
    /// A failure with a reason, and a text that names the fault and the remedy.
    pub fn new(reason: ErrorReason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), field: None, metadata: HashMap::new(), quota: None }
    }

    /// A wrong field. The text is the name of the field, and then `fault`: `is 0: it must be 1 or more`.
    pub fn field(field: &str, fault: impl AsRef<str>) -> Self {
        let text = format!("{field} {}", fault.as_ref());
        Self { field: Some(field.into()), ..Self::new(ErrorReason::InvalidField, text) }
    }

    /// Replaces the reason.
    #[must_use]
    pub fn with_reason(self, reason: ErrorReason) -> Self {
        Self { reason, ..self }
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.metadata.insert(key.into(), format!("{value}"));
        self
    }

    /// Prefixes the field with the element that contains it.
    #[must_use]
    pub fn within(mut self, element: &str) -> Self {
        if let Some(field) = &mut self.field {
            *field = format!("{element}.{field}");
        }
        self.text = format!("{element}.{}", self.text);
        self
    }

    /// The failure that became this status.
    fn of(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let reason = ErrorReason::from_str_name(&info.reason)?;
        let violation = details.bad_request().and_then(|bad| bad.field_violations.first());
        let field = violation.map(|violation| violation.field.clone());
        let (text, metadata) = (status.message().into(), info.metadata.clone());
        Some(Self { reason, text, field, metadata, quota: None })
    }

    /// The reason of the failure.
    pub fn reason(&self) -> ErrorReason {
        self.reason
    }

    /// The failure as the error of one message of a `PublishStream`.
    pub fn into_publish_error(self) -> PublishError {
        let delay = self.retry_delay();
        let Self { reason, text, field, metadata, .. } = self;
        PublishError {
            code: reason.code().into(),
            reason: reason.into(),
            message: text,
            field: field.unwrap_or_default(),
            metadata,
            retry_delay: delay.map(super::field::signed_duration),
        }
    }

    /// The delay in RetryInfo, if the same call can succeed later.
    fn retry_delay(&self) -> Option<Duration> {
        let wait = self.quota.as_ref().map_or(RETRY_DELAY, |quota| quota.wait);
        self.reason.is_retried().then_some(wait)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let delay = failure.retry_delay();
        let Failure { reason, text, field, metadata, quota } = failure;
        let mut details = ErrorDetails::with_error_info(reason.as_str_name(), DOMAIN, metadata);
        if let Some(field) = field {
            details.add_bad_request_violation(field, &text);
        }
        if delay.is_some() {
            details.set_retry_info(delay);
        }
        if let Some(quota) = quota {
            details.add_quota_failure_violation(quota.subject, &text);
        }
        Self::with_error_details(reason.code(), text, details)
    }
}

/// The range of a heartbeat, as the end of an error text.
pub const HEARTBEAT: &str = "it must be from 100 ms to 1 h";

/// The range of `partial_flush`, as the end of an error text.
pub const PARTIAL_FLUSH: &str = "it must be from 10 ms to 1 h";

/// The range of a `ttl`, as the end of an error text.
pub const TTL: &str = "it must be from 1 ms to 10 years";

impl From<stream::Error> for Failure {
    fn from(error: stream::Error) -> Self {
        use stream::Error as E;
        match error {
            E::Limit { limit } => Self::field("limit", format!("is {limit}: it must be 1 or more")),
            E::Heartbeat { heartbeat } => {
                Self::field("heartbeat", format!("is {}: {HEARTBEAT}", show(heartbeat)))
            }
            E::MaxBatch { max_batch } => {
                Self::field("max_batch", format!("is {max_batch}: it must be from 1 to 100,000"))
            }
        }
    }
}

/// Logs the error for the operator. The client learns only that the fault is not its own.
fn read_error(error: &std::io::Error) -> Failure {
    tracing::error!(%error, "the server could not read its disk");
    Failure::new(
        ErrorReason::ReadError,
        "the server could not read its disk: the log of the server has the error",
    )
}

/// A request that could not be decoded. tonic distinguishes the causes by code, and has the sizes only in its text.
pub fn unreadable(refusal: &Status) -> Failure {
    if let Some(failure) = Failure::of(refusal) {
        return failure;
    }
    if !matches!(refusal.code(), Code::OutOfRange | Code::ResourceExhausted) {
        let text = "the request cannot be decoded as a request of this method: generate the client again from the contract";
        return Failure::new(ErrorReason::RequestMalformed, text);
    }
    let sizes = refusal.message().split(' ').filter_map(|word| word.parse().ok()).collect::<Vec<usize>>();
    match *sizes {
        [bytes, limit] => too_large(bytes, limit),
        _ => Failure::new(ErrorReason::RequestTooLarge, "the request is larger than the server allows"),
    }
}

/// A request that is larger than its method accepts.
pub fn too_large(bytes: usize, limit: usize) -> Failure {
    let text = format!("the request has {bytes} bytes: at most {} are allowed", size(limit));
    Failure::new(ErrorReason::RequestTooLarge, text).with("limit", limit)
}

/// A repeated field, or a map, that has more elements than a request may have.
pub fn too_many_elements(field: &str, noun: &str, count: usize, limit: usize) -> Failure {
    let text = format!("has {count} {noun}: at most {limit} are allowed");
    Failure::field(field, text).with("limit", limit)
}

/// A request that ends within a message, or that goes on after its only message.
pub fn malformed(fault: &str) -> Failure {
    Failure::new(ErrorReason::RequestMalformed, format!("the request {fault}"))
}

/// The request of a client arrives too slowly.
pub fn request_slow(limit: Duration) -> Failure {
    let text = format!("the request was not complete after {} s: send it again, and faster", limit.as_secs());
    Failure::new(ErrorReason::Stalled, text)
}

/// A client that sent nothing for too long before its request was complete.
pub fn request_stalled(stall: Duration) -> Failure {
    let text = format!(
        "the client sent nothing for {} s before its request was complete: send it again",
        stall.as_secs_f64()
    );
    Failure::new(ErrorReason::Stalled, text)
}

/// The server holds as many bytes of incomplete requests and waiting answers as it may.
pub fn buffers_full(limit: usize, is_of_connection: bool) -> Failure {
    let (holder, setting) = if is_of_connection {
        ("for this connection", "--max-buffered-per-connection")
    } else {
        ("for all clients", "--max-buffered")
    };
    let text = format!(
        "the server holds {} {holder} of requests that are not complete and of answers that were not read, and takes no more ({setting}): read the answers, and try again",
        size(limit)
    );
    Failure::new(ErrorReason::BuffersFull, text).with("limit", limit)
}

/// The status and the HTTP code for a request that is not a call of gRPC. Codes as in grpc-go.
pub fn not_a_call(fault: NotACall<'_>) -> (http::StatusCode, Status) {
    let (http, code, text) = match fault {
        NotACall::Method(method) => {
            let text = format!("the method of the request is {method}: a call of gRPC is a POST");
            (http::StatusCode::METHOD_NOT_ALLOWED, Code::Internal, text)
        }
        NotACall::ContentType(kind) => {
            let text = format!("the content-type is {}: a call of gRPC has application/grpc", quoted(kind));
            (http::StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, text)
        }
        NotACall::Timeout(timeout) => {
            let text = format!(
                "malformed grpc-timeout: {}: write up to eight digits and one of H, M, S, m, u, n",
                quoted(timeout)
            );
            (http::StatusCode::BAD_REQUEST, Code::Internal, text)
        }
        NotACall::Query(path) => {
            let text = format!("the path {} has a query: the path of a call of gRPC has none", quoted(path));
            (http::StatusCode::OK, Code::Unimplemented, text)
        }
    };
    (http, malformed_with(code, text))
}

/// No service has a method at this path.
pub fn unknown_method(path: &str) -> Status {
    let text = format!("unknown method: {}: see the services by reflection, or in proto/", quoted(path));
    malformed_with(Code::Unimplemented, text)
}

fn malformed_with(code: Code, text: String) -> Status {
    let reason = ErrorReason::RequestMalformed.as_str_name();
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, text, details)
}

/// Why a request is not a call of gRPC.
#[derive(Clone, Copy, Debug)]
pub enum NotACall<'a> {
    /// The method is not POST.
    Method(&'a http::Method),
    /// The content type is missing or of another protocol.
    ContentType(&'a str),
    /// `grpc-timeout` is malformed.
    Timeout(&'a str),
    /// There is a query after this path.
    Query(&'a str),
}

/// Translates the transport's error for a request that it could not decode.
pub fn explained(refusal: &Status) -> Option<Status> {
    // An error of this service has details. Other errors of the transport are not about the bytes of the request.
    let is_refusal = refusal.details().is_empty()
        && matches!(refusal.code(), Code::OutOfRange | Code::ResourceExhausted | Code::Internal);
    is_refusal.then(|| unreadable(refusal).into())
}

/// The deadline of the caller has passed.
pub fn deadline_exceeded() -> Failure {
    Failure::new(
        ErrorReason::DeadlineExceeded,
        "the deadline of the call has passed: send the request again with the last cursor and a new deadline",
    )
}

/// The end of a stream that ended as its caller asked.
pub fn ok() -> Status {
    Status::ok("")
}

/// The server shuts down, or the connection has reached its maximum age.
pub fn draining() -> Failure {
    Failure::new(
        ErrorReason::Draining,
        "the server closes this connection: connect again, and resume with the last cursor",
    )
}

/// The client has read nothing for too long.
pub fn stalled(stall: Duration) -> Failure {
    let text = format!(
        "the client read nothing for {} s while responses waited: resume with the last cursor",
        stall.as_secs()
    );
    Failure::new(ErrorReason::Stalled, text)
}

/// All streams hold more than they may, and this one has waited for its client among the longest.
pub fn too_much_unsent(limit: usize) -> Failure {
    let text = format!(
        "the server holds more than {} of responses that clients do not read (--max-unsent), and this client is one of those that read nothing for longest: resume with the last cursor",
        size(limit)
    );
    Failure::new(ErrorReason::Stalled, text)
}

/// A call whose status cannot be sent, because a part of a response has left: the transport resets its stream. Clients see
/// UNAVAILABLE, after which they resume, as after STALLED.
pub fn cut_off(status: &Status) -> Status {
    let mut status = Status::unavailable(status.message());
    status.set_source(Arc::new(h2::Error::from(h2::Reason::REFUSED_STREAM)));
    status
}

/// The server has as many streams as it allows.
pub fn too_many_streams(limit: usize) -> Failure {
    let text = format!("the server's limit of {limit} open streams is reached: try again later");
    Failure::new(ErrorReason::TooManyStreams, text).with("limit", limit)
}

#[cfg(test)]
mod tests;
