//! The gate: what every call of every service passes, from its headers to the last byte of its answer.
//!
//! It refuses requests that are no calls of gRPC, gives each call its place among the open ones, bounds its request
//! ([`intake`]) before tonic decodes it, and bounds the answers ([`answer`]) of the methods that do not stream and of
//! the services of other crates. The streams of [`call`](super::call) bound their own responses.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body::Body as HttpBody;
use tonic::{Status, body::Body, service::Routes};
use tower::ServiceExt;

use super::{
    Config,
    body::own_body,
    call::{Calls, Connection, timeout},
    status::{self, Failure, NotACall},
};
use answer::Answer;
use intake::{Intake, Limits};
use method::{Answer as Kind, Methods};

use crate::blocking;

mod answer;
mod elements;
mod intake;
mod method;

/// The prefix of the content type of every call. A `+` and the name of a codec can follow, or a `;` and parameters.
const CONTENT_TYPE: &str = "application/grpc";

/// The gate in front of all services. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    routes: Routes,
    calls: Calls,
    methods: Arc<Methods>,
}

impl Gate {
    /// A gate in front of these services: those of the application, and perhaps others.
    pub fn new(routes: Routes, calls: Calls, config: &Config, max_patterns: usize) -> Self {
        Self { routes: routes.prepare(), calls, methods: Arc::new(Methods::new(config, max_patterns)) }
    }

    /// What all calls share.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Answers a request of this connection.
    pub async fn serve<B>(&self, connection: &Connection, request: http::Request<B>) -> http::Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + Unpin
            + 'static,
    {
        let timeout = match read_headers(&request) {
            Ok(timeout) => timeout,
            Err(fault) => {
                let (code, status) = status::not_a_call(fault);
                self.calls.metrics().turned_away("REQUEST_MALFORMED");
                let mut response = status.into_http();
                *response.status_mut() = code;
                return response;
            }
        };
        let method = self.methods.at(request.uri().path()).clone();
        let admission = match self.calls.admit(timeout, method.answer == Kind::One) {
            Ok(admission) => admission,
            Err(failure) => return self.turn_away(failure),
        };
        let limits = Limits {
            deadline: admission.deadline,
            stall: self.calls.config().stall,
            ends: connection.ends.clone(),
        };
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(connection.clone());
        parts.extensions.insert(admission.clone());
        let intake = Intake::new(body, method.clone(), connection.buffers.part(), limits);
        let request = http::Request::from_parts(parts, Body::new(intake));
        let response = blocking::of(connection.number, self.routes.clone().oneshot(request)).await;
        let response = own_body(response.unwrap_or_else(|never: Infallible| match never {}));
        if method.answer == Kind::OwnStream || response.body().is_end_stream() {
            return response;
        }
        let (parts, body) = response.into_parts();
        let encodes = method.answer == Kind::One;
        match Answer::new(body, encodes, connection.buffers.part(), admission, &self.calls) {
            Ok(answer) => http::Response::from_parts(parts, Body::new(answer)),
            Err(failure) => self.turn_away(failure),
        }
    }

    /// Refuses a call before its request is read.
    fn turn_away(&self, failure: Failure) -> http::Response<Body> {
        self.calls.metrics().turned_away(failure.reason().as_str_name());
        Status::from(failure).into_http()
    }
}

/// The time that the caller allows.
fn read_headers<B>(request: &http::Request<B>) -> Result<Option<Duration>, NotACall<'_>> {
    if request.method() != http::Method::POST {
        return Err(NotACall::Method(request.method()));
    }
    let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or("not text"));
    let kind = text("content-type").unwrap_or("not set");
    // As in grpc-go: upper case is no gRPC.
    let after = kind.strip_prefix(CONTENT_TYPE);
    if !after.is_some_and(|after| after.is_empty() || after.starts_with(['+', ';'])) {
        return Err(NotACall::ContentType(kind));
    }
    text("grpc-timeout").map(|text| timeout(text).ok_or(NotACall::Timeout(text))).transpose()
}

#[cfg(test)]
mod tests;
