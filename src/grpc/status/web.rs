//! Refusals of requests of browsers and of plain HTTP.

use super::{ErrorReason, Failure, quoted};

/// Why the server does not take a request of a browser.
#[derive(Clone, Copy, Debug)]
pub enum Foreign<'a> {
    /// The header `host` names no host, or several.
    NoHost,
    /// The server does not answer under this host.
    Host(&'a str),
    /// The page of this origin may not use the server.
    Origin(&'a str),
    /// The browser says that another site sent the request.
    Site,
}

impl From<Foreign<'_>> for Failure {
    fn from(fault: Foreign<'_>) -> Self {
        let text = match fault {
            Foreign::NoHost => {
                let text = "the request names no host, or several: send one header `host`";
                return Self::new(ErrorReason::RequestMalformed, text);
            }
            Foreign::Host(host) => format!(
                "the host of the request is {}: the server answers browsers and plain HTTP as localhost, at the address \
                 on which it listens, and under the names of --web-host",
                quoted(host)
            ),
            Foreign::Origin(origin) => format!(
                "the page is of the origin {}: only pages of this server, and those of the origins of --cors-origin, may \
                 use it",
                quoted(origin)
            ),
            Foreign::Site => {
                "a page of another site sent the request: only pages of this server, and those of the \
                              origins of --cors-origin, may use it"
                    .into()
            }
        };
        Self::new(ErrorReason::AccessDenied, text)
    }
}

/// There is nothing at this path. `doors` are the paths at which there is something.
pub fn nothing_here(path: &str, doors: &str) -> Failure {
    Failure::new(
        ErrorReason::RequestMalformed,
        format!("there is nothing at {}: there are {doors}", quoted(path)),
    )
}

/// The path does not answer this method.
pub fn wrong_method(method: &http::Method, path: &str, allowed: &str) -> Failure {
    let text = format!("the method of the request is {method}: {} answers {allowed}", quoted(path));
    Failure::new(ErrorReason::RequestMalformed, text)
}

/// A call of gRPC that came over HTTP/1.1.
pub fn needs_http2() -> Failure {
    let text = "a call of gRPC needs HTTP/2: over HTTP/1.1 the server speaks gRPC-Web (application/grpc-web+proto), and \
                answers GET and POST below /v1/";
    Failure::new(ErrorReason::RequestMalformed, text)
}

/// A request with a content type that its path does not take.
pub fn wrong_content_type(kind: &str, expected: &str) -> Failure {
    let text = format!("the content-type is {}: send {expected}", quoted(kind));
    Failure::new(ErrorReason::RequestMalformed, text)
}

/// The client accepts only types that a stream does not have.
pub fn not_acceptable(accepted: &str) -> Failure {
    let text = format!(
        "the client accepts {} only: a stream is text/event-stream, or application/x-ndjson",
        quoted(accepted)
    );
    Failure::new(ErrorReason::RequestMalformed, text)
}

/// A response has no form in JSON. The log has the error, which is a fault of this program.
pub fn not_json(error: &dyn std::fmt::Display) -> Failure {
    tracing::error!(%error, "a response could not be written as JSON");
    let text = "the server could not write a response as JSON: the log of the server has the error";
    Failure::new(ErrorReason::ReadError, text)
}

/// There is nothing to sign in to.
pub fn no_rules() -> Failure {
    let text =
        "the server has no rules (--access), so every client may do everything, and no one needs to sign in";
    Failure::new(ErrorReason::RequestMalformed, text)
}
