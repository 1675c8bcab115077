//! Errors as `application/problem+json` (RFC 9457), with the reason, the field and the facts that gRPC has as details.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;

use super::full;
use crate::{proto::ErrorReason, reason::code_name};

/// The type of the errors.
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error of the server.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// A name for programs that know RFC 9457 and not this server.
    #[serde(rename = "type")]
    kind: String,
    /// The reason: a value of `ErrorReason`.
    title: String,
    #[serde(serialize_with = "number")]
    status: StatusCode,
    /// The fault, and what would work.
    detail: String,
    /// The code of gRPC.
    code: &'static str,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    /// After this the same request can succeed, in seconds, as JSON has a duration of protobuf.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "seconds")]
    retry_delay: Option<Duration>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

#[expect(clippy::ref_option, reason = "serde passes a reference")]
fn seconds<S: serde::Serializer>(delay: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let delay = delay.unwrap_or_default();
    serializer.collect_str(&format_args!("{}.{:03}s", delay.as_secs(), delay.subsec_millis()))
}

impl From<&Status> for Problem {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let code = code_name(status.code());
        let reason = info.map_or_else(|| code.into(), |info| info.reason.clone());
        let violation = details.bad_request().and_then(|bad| bad.field_violations.first());
        Self {
            kind: format!("urn:perennial:error:{reason}"),
            title: reason.clone(),
            status: http_status(status.code(), &reason),
            detail: status.message().into(),
            code,
            reason,
            field: violation.map(|violation| violation.field.clone()),
            metadata: info.map(|info| info.metadata.clone().into_iter().collect()).unwrap_or_default(),
            retry_delay: details.retry_info().and_then(|retry| retry.retry_delay),
        }
    }
}

impl Problem {
    /// With another status of HTTP, where that says more.
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The error in JSON.
    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// After this the same request can succeed; `None` if it cannot.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.retry_delay
    }

    /// The error as the answer to a request.
    pub fn into_response(self) -> Response<Body> {
        let mut json = self.json();
        // A terminal shows its prompt below it.
        json.push(b'\n');
        let mut response = Response::new(full(json));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(delay) = self.retry_delay {
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The status of HTTP for an error: that of its code, as in the APIs of Google, unless HTTP has a better one.
fn http_status(code: Code, reason: &str) -> StatusCode {
    match ErrorReason::from_str_name(reason) {
        Some(ErrorReason::RequestTooLarge) => return StatusCode::PAYLOAD_TOO_LARGE,
        Some(ErrorReason::CursorExpired) => return StatusCode::GONE,
        Some(ErrorReason::LogFull) => return StatusCode::INSUFFICIENT_STORAGE,
        _ => {}
    }
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Aborted | Code::AlreadyExists => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}
