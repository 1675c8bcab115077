//! The gate: what every call of every service passes, from its headers to the last byte of its answer.
//!
//! It refuses requests that are no calls of gRPC, gives each call its place among the open ones, bounds its request
//! ([`intake`]) before tonic decodes it, and bounds the answers ([`answer`]) of the methods that do not stream and of
//! the services of other crates. The streams of [`call`](super::call) bound their own responses.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body::Body as HttpBody;
use prometheus_client::registry::Registry;
use tonic::{Code, Status, body::Body, service::Routes};
use tower::ServiceExt;

use super::{
    Config,
    access::{Foreign, foreign},
    body::own_body,
    call::{Calls, Connection, audit, timeout},
    status::{self, Failure, NotACall},
};
use answer::Answer;
use ending::Ending;
use intake::{Intake, Limits};
use method::{Answer as Kind, Methods};
use observed::Observed;

use crate::{
    access::{Access, Caller, Refused},
    blocking,
};

mod answer;
mod elements;
mod ending;
mod intake;
mod method;
mod observed;

/// The prefix of the content type of every call. A `+` and the name of a codec can follow, or a `;` and parameters.
const CONTENT_TYPE: &str = "application/grpc";

/// The beginning of the paths of this package.
const OWN: &str = "/perennial.v1.";

/// The beginning of the paths whose streams end by themselves, with their cursor, when their connection must end.
const RESUMABLE: &str = "/perennial.";

/// How the messages of a request are compressed.
const ENCODING: &str = "grpc-encoding";

/// The gate in front of all services. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    routes: Routes,
    calls: Calls,
    methods: Arc<Methods>,
    observed: Arc<Observed>,
}

impl Gate {
    /// A gate in front of these services: those of the application, and perhaps others. The registry of its metrics adds no
    /// prefix to their names.
    pub fn new(
        routes: Routes,
        calls: Calls,
        config: &Config,
        max_patterns: usize,
        registry: &mut Registry,
    ) -> Self {
        let methods = Arc::new(Methods::new(config, max_patterns));
        let observed = Arc::new(Observed::new(&methods, registry));
        Self { routes: routes.prepare(), calls, methods, observed }
    }

    /// What all calls share.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Whether a caller with this credential may do anything.
    ///
    /// # Errors
    /// The credential is not accepted, or the server has no rules.
    pub fn sign_in(&self, connection: &Connection, credential: http::HeaderValue) -> Result<(), Failure> {
        let access = self.calls.access().ok_or_else(status::no_rules)?;
        let mut request = http::Request::new(());
        *request.uri_mut() = http::Uri::from_static("/v1/session");
        request.headers_mut().insert(http::header::AUTHORIZATION, credential);
        admit(access, connection, &request).map(drop)
    }

    /// The largest request of the method at this path.
    pub fn max_request_bytes(&self, path: &str) -> usize {
        self.methods.find(path).unwrap_or(self.methods.unknown()).max_bytes
    }

    /// Answers a request of this connection.
    pub async fn serve<B>(&self, connection: &Connection, request: http::Request<B>) -> http::Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + Unpin
            + 'static,
    {
        let started = self.observed.start(request.uri().path());
        let ends_by_itself = request.uri().path().starts_with(RESUMABLE);
        let response = self.answer(connection, request).await;
        let response = if ends_by_itself || response.body().is_end_stream() {
            response
        } else {
            response.map(|body| Body::new(Ending::new(body, &connection.ends)))
        };
        started.follow(response)
    }

    async fn answer<B>(&self, connection: &Connection, request: http::Request<B>) -> http::Response<Body>
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
        let known = self.methods.find(request.uri().path());
        let method = known.unwrap_or(self.methods.unknown()).clone();
        let unknown = known.is_none().then(|| request.uri().path().to_owned());
        let admission = match self.calls.admit(timeout, method.answer == Kind::One) {
            // The methods of this package look by themselves, and are counted.
            Ok(_) if timeout == Some(Duration::ZERO) && !request.uri().path().starts_with(OWN) => {
                return self.turn_away(status::deadline_exceeded());
            }
            Ok(admission) => admission,
            Err(failure) => return self.turn_away(failure),
        };
        let caller = match self.calls.access().map(|access| admit(access, connection, &request)) {
            None => None,
            Some(Ok(caller)) => caller,
            Some(Err(failure)) => return self.turn_away(failure),
        };
        let limits = Limits {
            deadline: admission.deadline,
            stall: self.calls.config().stall,
            ends: connection.ends.clone(),
        };
        let (mut parts, body) = request.into_parts();
        // Nothing is no encoding, as in grpc-go.
        if parts.headers.get(ENCODING).is_some_and(http::HeaderValue::is_empty) {
            parts.headers.remove(ENCODING);
        }
        parts.extensions.insert(connection.clone());
        parts.extensions.insert(admission.clone());
        if let Some(caller) = caller {
            parts.extensions.insert(caller);
        }
        let intake = Intake::new(body, method.clone(), connection.buffers.part(), limits);
        let request = http::Request::from_parts(parts, Body::new(intake));
        let response = blocking::of(connection.number, self.routes.clone().oneshot(request)).await;
        let response = explained(own_body(response.unwrap_or_else(|never: Infallible| match never {})));
        if let Some(path) = unknown.filter(|_| is_unexplained(&response)) {
            return status::unknown_method(&path).into_http();
        }
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

/// The caller; `None` if every caller may make the call. It is counted among the calls of its caller. The methods of this
/// package check by themselves what the caller may do.
fn admit<B>(
    access: &Access,
    connection: &Connection,
    request: &http::Request<B>,
) -> Result<Option<Caller>, Failure> {
    let path = request.uri().path();
    let foreign = foreign(path);
    if foreign == Some(Foreign::Open) {
        return Ok(None);
    }
    let refused = |caller: Option<&Caller>, failure: Failure| {
        audit::turned_away(connection, caller, path, &failure);
        failure
    };
    let headers = request.headers().get_all(http::header::AUTHORIZATION);
    if connection.is_exposed && headers.iter().next().is_some() {
        return Err(refused(None, access.refuse(Refused::PlainText).into()));
    }
    let caller = access.caller(&connection.identities, headers.iter().map(http::HeaderValue::as_bytes));
    let caller = caller.map_err(|fault| refused(None, fault.into()))?;
    if foreign == Some(Foreign::Known) && !caller.rights().are_any() {
        return Err(refused(Some(&caller), status::stranger(&caller, caller.is_known())));
    }
    // Before the rights are checked, so that a limit also slows a caller that guesses names.
    if let Err(exceeded) = caller.quotas().take_call() {
        let failure = status::quota_exceeded(&caller, access.exceed(exceeded));
        return Err(refused(Some(&caller), failure));
    }
    if foreign == Some(Foreign::Known) {
        audit::let_in(connection, &caller, path);
    }
    Ok(Some(caller))
}

/// Replaces the transport's error for a request that is too large or malformed, which no service sees.
fn explained(response: http::Response<Body>) -> http::Response<Body> {
    let refusal = Status::from_header_map(response.headers());
    refusal.as_ref().and_then(status::explained).map_or(response, Status::into_http)
}

/// Whether a response says that no service has the method, and no more.
fn is_unexplained<B>(response: &http::Response<B>) -> bool {
    let refusal = Status::from_header_map(response.headers());
    refusal.is_some_and(|refusal| refusal.code() == Code::Unimplemented && refusal.message().is_empty())
}

/// The time that the caller allows.
fn read_headers<B>(request: &http::Request<B>) -> Result<Option<Duration>, NotACall<'_>> {
    if request.method() != http::Method::POST {
        return Err(NotACall::Method(request.method()));
    }
    let kind = request.headers().get("content-type").map_or("not set", text);
    // As in grpc-go: upper case is no gRPC.
    let after = kind.strip_prefix(CONTENT_TYPE);
    if !after.is_some_and(|after| after.is_empty() || after.starts_with(['+', ';'])) {
        return Err(NotACall::ContentType(kind));
    }
    if request.uri().query().is_some() {
        return Err(NotACall::Query(request.uri().path()));
    }
    let mut allowed = None;
    // The last one holds, as in grpc-go, and each must be well formed.
    for value in request.headers().get_all("grpc-timeout") {
        allowed = Some(timeout(text(value)).ok_or_else(|| NotACall::Timeout(text(value)))?);
    }
    Ok(allowed)
}

fn text(value: &http::HeaderValue) -> &str {
    value.to_str().unwrap_or("not text")
}

#[cfg(test)]
mod tests;
