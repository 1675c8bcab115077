//! What browsers and plain HTTP use, on the port of gRPC: gRPC-Web, server-sent events, JSON, and the page.
//!
//! Every request becomes a call of gRPC in this process and passes the same gate, so that checks, limits, deadlines,
//! rights, metrics and the log are those of every other call. This module translates and decides nothing, except whom it
//! listens to: a request must name a host of the server, and come from one of its pages ([`origin`]).

use std::{convert::Infallible, fmt::Display, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as HttpBody;
use http_body_util::Full;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tonic::{Status, body::Body};
use tonic_web::GrpcWebLayer;
use tower::{Layer, ServiceExt};

use crate::grpc::{
    call::{Backlog, Calls, Connection},
    gate::Gate,
    status::{self, Failure},
};
use door::{Door, Fault};
use origin::{Origins, Sender};
use problem::Problem;

mod door;
mod events;
mod json;
pub mod origin;
mod page;
mod problem;
mod query;
mod rest;
mod session;

/// The prefix of the content type of calls of gRPC, and of gRPC-Web.
const GRPC: &str = "application/grpc";

/// The prefix of the content type of calls of gRPC-Web.
const GRPC_WEB: &str = "application/grpc-web";

/// The content types of gRPC-Web that are served: protobuf, as bytes or in base64.
const GRPC_WEB_TYPES: [&str; 4] = [
    "application/grpc-web+proto",
    "application/grpc-web",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
];

/// The paths that answer, as the end of an error.
const DOORS: &str = "the methods of gRPC at /perennial.v1.SERVICE/METHOD by gRPC-Web, and";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The doors for browsers and plain HTTP, and the gate behind them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Web(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    gate: Gate,
    origins: Origins,
    /// Connections are by TLS.
    is_secure: bool,
    requests: Family<Answered, Counter>,
}

/// The labels of an answer.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Answered {
    door: &'static str,
    status: u16,
}

impl Web {
    /// The doors of a server, which answers browsers under these names; `is_secure`: by TLS.
    pub fn new(gate: Gate, origins: Origins, is_secure: bool, registry: &mut Registry) -> Self {
        door::prepare();
        let requests = Family::default();
        let help = "Requests of browsers and of plain HTTP, by door and by status of HTTP";
        registry.register("web_requests", help, requests.clone());
        Self(Arc::new(Inner { gate, origins, is_secure, requests }))
    }

    /// What all calls share.
    pub fn calls(&self) -> &Calls {
        self.0.gate.calls()
    }

    /// Answers a request of this connection. A call of gRPC costs two looks at its headers here.
    pub async fn serve<B>(
        &self,
        connection: &Connection,
        backlog: &Arc<Backlog>,
        request: Request<B>,
    ) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError> + Display> + Send + Unpin + 'static,
    {
        if request.version() == Version::HTTP_2 && is_native(&request) {
            return self.0.gate.serve(connection, request).await;
        }
        // In a box, so that a call of gRPC does not carry its size.
        Box::pin(self.answer(connection, backlog, request)).await
    }

    async fn answer<B>(
        &self,
        connection: &Connection,
        backlog: &Arc<Backlog>,
        mut request: Request<B>,
    ) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError> + Display> + Send + Unpin + 'static,
    {
        let Inner { gate, origins, is_secure, requests } = &*self.0;
        let kind = Kind::of(&request);
        let door = kind.name();
        let sender = origins.check(&request).map_err(Failure::from);
        let closes = must_close(&request);
        let (mut response, sender) = match sender {
            Err(failure) => {
                gate.calls().metrics().turned_away(failure.reason().as_str_name());
                (refuse(failure), Sender::Own)
            }
            Ok(sender) if origin::is_preflight(&request) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                if let Sender::Allowed(_) = &sender {
                    origin::allow_requests(request.headers(), response.headers_mut());
                }
                (response, sender)
            }
            Ok(sender) => {
                session::credential(request.headers_mut(), *is_secure);
                let response = match kind {
                    Kind::GrpcWeb => grpc_web(gate, connection, request).await,
                    Kind::Page => page(request),
                    Kind::Session => session::answer(gate, connection, *is_secure, request).await,
                    Kind::Door(door) => rest::answer(door, gate, connection, backlog, request).await,
                    // HTTP/2 would have been left to the gate, unless a browser sends it.
                    Kind::Grpc if request.version() == Version::HTTP_2 => {
                        gate.serve(connection, request).await
                    }
                    Kind::Grpc => refuse_as(StatusCode::HTTP_VERSION_NOT_SUPPORTED, status::needs_http2()),
                    Kind::None(refusal) => *refusal,
                };
                (response, sender)
            }
        };
        let headers = response.headers_mut();
        harden(headers);
        if let Sender::Allowed(origin) = sender {
            origin::allow(origin, headers);
        }
        if origins.are_some() {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if closes {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        requests.get_or_create(&Answered { door, status: response.status().as_u16() }).inc();
        response
    }
}

/// Whether a request over HTTP/2 is left to the gate, which refuses what is no call as other servers of gRPC do. A request
/// with an origin is of a browser, and its origin must be checked.
fn is_native<B>(request: &Request<B>) -> bool {
    let kind = content_type(request);
    let is_of_program = !request.headers().contains_key(header::ORIGIN);
    is_of_program && !kind.starts_with(GRPC_WEB) && (kind.starts_with(GRPC) || !is_door(request))
}

/// Whether something but gRPC answers at the path.
fn is_door<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let is_page = page::is_at(path) && matches!(*request.method(), Method::GET | Method::HEAD);
    is_page || path.starts_with(door::PREFIX)
}

fn content_type<B>(request: &Request<B>) -> &str {
    request.headers().get(header::CONTENT_TYPE).map_or("", |kind| kind.to_str().unwrap_or("not text"))
}

/// Whether the connection ends after this request. Its body comes in chunks, and proxies disagree about where such a body
/// ends: one could let a second request through as part of the first.
fn must_close<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(header::TRANSFER_ENCODING)
}

/// What answers a request.
#[derive(Debug)]
enum Kind {
    GrpcWeb,
    Page,
    Session,
    Door(Door),
    /// A call of gRPC over HTTP/1.1, or of a browser.
    Grpc,
    /// Nothing: the answer says what there is.
    None(Box<Response<Body>>),
}

impl Kind {
    fn of<B>(request: &Request<B>) -> Self {
        let (kind, path) = (content_type(request), request.uri().path());
        if kind.starts_with(GRPC_WEB) {
            return Self::GrpcWeb;
        } else if kind.starts_with(GRPC) {
            return Self::Grpc;
        } else if page::is_at(path) {
            return Self::Page;
        } else if path == session::PATH {
            return Self::Session;
        }
        match door::find(request.method(), path) {
            Ok(door) => Self::Door(door),
            Err(Fault::Verb(allowed)) => {
                Self::None(Box::new(refuse_method(request.method(), path, &[allowed])))
            }
            Err(Fault::Path(failure)) => Self::None(Box::new(refuse(failure))),
            Err(Fault::Nothing) => {
                let failure = status::nothing_here(path, &format!("{DOORS} {}", door::PATHS));
                Self::None(Box::new(refuse_as(StatusCode::NOT_FOUND, failure)))
            }
        }
    }

    /// The label in the metrics.
    fn name(&self) -> &'static str {
        match self {
            Self::GrpcWeb => "grpc_web",
            Self::Page => "page",
            Self::Session => "session",
            Self::Door(door) => door.name,
            Self::Grpc | Self::None(_) => "none",
        }
    }
}

/// Serves a file of the page.
fn page<B>(request: Request<B>) -> Response<Body> {
    let parts = request.into_parts().0;
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return refuse_method(&parts.method, parts.uri.path(), &[&Method::GET, &Method::HEAD]);
    }
    page::answer(&parts).unwrap_or_else(|| {
        refuse_as(StatusCode::NOT_FOUND, status::nothing_here(parts.uri.path(), door::PATHS))
    })
}

/// Serves a call of gRPC-Web: its trailers leave as a last message of the body.
async fn grpc_web<B>(gate: &Gate, connection: &Connection, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError> + Display> + Send + Unpin + 'static,
{
    if request.method() != Method::POST {
        return refuse_method(request.method(), request.uri().path(), &[&Method::POST]);
    }
    let kind = content_type(&request);
    if !GRPC_WEB_TYPES.contains(&kind) {
        let failure = status::wrong_content_type(kind, &GRPC_WEB_TYPES.join(", "));
        return refuse_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, failure);
    }
    let call = tower::service_fn(|request: Request<Body>| async {
        Ok::<_, Infallible>(gate.serve(connection, request).await)
    });
    GrpcWebLayer::new().layer(call).oneshot(request).await.unwrap_or_else(|never| match never {})
}

/// What holds for every answer: a browser must not guess its type, show it in a frame, or name the page to other sites.
fn harden(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(nothing);
}

fn refuse(failure: Failure) -> Response<Body> {
    Problem::from(&Status::from(failure)).into_response()
}

fn refuse_as(status: StatusCode, failure: Failure) -> Response<Body> {
    Problem::from(&Status::from(failure)).with_status(status).into_response()
}

/// Refuses a method of HTTP at a path that answers others.
fn refuse_method(method: &Method, path: &str, allowed: &[&Method]) -> Response<Body> {
    let names = allowed.iter().map(|allowed| allowed.as_str()).collect::<Vec<_>>();
    let failure = status::wrong_method(method, path, &names.join(" and "));
    let mut response = refuse_as(StatusCode::METHOD_NOT_ALLOWED, failure);
    if let Ok(allowed) = HeaderValue::try_from(names.join(", ")) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// A body of known bytes.
fn full(bytes: impl Into<Bytes>) -> Body {
    Body::new(Full::new(bytes.into()))
}
