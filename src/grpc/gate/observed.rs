//! The metrics of calls under the names that dashboards for gRPC know, those of go-grpc-middleware: `grpc_server_started_total`,
//! `grpc_server_handled_total`, `grpc_server_msg_sent_total` and `grpc_server_handling_seconds`.
//!
//! Every call of every service is counted once when it starts and once when it ends, however it ends: with the status of its
//! headers or trailers, or as canceled when its client goes away. Paths that no contract names share the name `unknown`, so
//! clients cannot add series.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use tonic::{Code, Status, body::Body};

use super::method::Methods;

/// The default buckets of Prometheus, and longer ones for streams, in seconds.
const BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0];

/// The name of services and methods that no contract has.
const UNKNOWN: &str = "unknown";

/// The labels of a method.
#[expect(clippy::struct_field_names, reason = "the names of the fields are those of the labels")]
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Method {
    grpc_type: &'static str,
    grpc_service: String,
    grpc_method: String,
}

/// The labels of the calls of a method that ended in one way.
#[expect(clippy::struct_field_names, reason = "the names of the fields are those of the labels")]
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Handled {
    grpc_type: &'static str,
    grpc_service: String,
    grpc_method: String,
    grpc_code: &'static str,
}

/// The metrics of a method.
#[derive(Clone, Debug)]
struct Series {
    labels: Method,
    started: Counter,
    sent: Counter,
    seconds: Histogram,
    handled: Family<Handled, Counter>,
}

/// The metrics of all methods.
#[derive(Debug)]
pub struct Observed {
    by_path: HashMap<String, Arc<Series>>,
    unknown: Arc<Series>,
}

impl Observed {
    /// Registers the metrics. The registry adds no prefix.
    pub fn new(methods: &Methods, registry: &mut Registry) -> Self {
        let started = Family::<Method, Counter>::default();
        let sent = Family::<Method, Counter>::default();
        let handled = Family::<Handled, Counter>::default();
        let seconds = Family::<Method, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register("grpc_server_started", "Calls that have started", started.clone());
        registry.register("grpc_server_handled", "Calls that have ended, by status code", handled.clone());
        registry.register("grpc_server_msg_sent", "Messages sent by calls", sent.clone());
        let help = "How long calls took from their headers to their end, in seconds";
        registry.register("grpc_server_handling_seconds", help, seconds.clone());
        let series = |labels: Method| {
            Arc::new(Series {
                started: started.get_or_create(&labels).clone(),
                sent: sent.get_or_create(&labels).clone(),
                seconds: seconds.get_or_create(&labels).clone(),
                handled: handled.clone(),
                labels,
            })
        };
        let by_path = methods.paths().map(|(path, grpc_type)| {
            let (service, method) =
                path.trim_start_matches('/').split_once('/').unwrap_or((UNKNOWN, UNKNOWN));
            let labels = Method { grpc_type, grpc_service: service.into(), grpc_method: method.into() };
            (path.to_owned(), series(labels))
        });
        let by_path = by_path.collect();
        let unknown =
            series(Method { grpc_type: UNKNOWN, grpc_service: UNKNOWN.into(), grpc_method: UNKNOWN.into() });
        Self { by_path, unknown }
    }

    /// A call of the method at a path has started.
    pub fn start(&self, path: &str) -> Started {
        let series = self.by_path.get(path).unwrap_or(&self.unknown).clone();
        series.started.inc();
        Started { series, start: Instant::now(), code: None }
    }
}

/// A call that has started. Dropping it ends it, as canceled unless its status is known.
#[derive(Debug)]
pub struct Started {
    series: Arc<Series>,
    start: Instant,
    code: Option<Code>,
}

impl Started {
    /// Follows the answer of the call to its end.
    pub fn follow(mut self, response: http::Response<Body>) -> http::Response<Body> {
        if let Some(code) = code_in(response.headers()) {
            self.code = Some(code);
            return response;
        }
        response.map(|body| Body::new(Followed { body, prefix: Prefix::default(), started: Some(self) }))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let Self { series, start, code } = self;
        let Method { grpc_type, grpc_service, grpc_method } = series.labels.clone();
        let grpc_code = name(code.unwrap_or(Code::Cancelled));
        series.handled.get_or_create(&Handled { grpc_type, grpc_service, grpc_method, grpc_code }).inc();
        series.seconds.observe(start.elapsed().as_secs_f64());
    }
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    Status::from_header_map(headers).map(|status| status.code())
}

/// The names of grpc-go, which dashboards use.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// Finds where messages begin in the bytes of a body: each has a prefix of one byte and of its length in four.
#[derive(Debug, Default)]
struct Prefix {
    /// Bytes that are left of a message.
    left: usize,
    /// The bytes of an incomplete prefix.
    bytes: [u8; 5],
    length: usize,
}

impl Prefix {
    /// Passes over bytes. Returns the number of messages that begin in them.
    fn pass(&mut self, mut bytes: &[u8]) -> u64 {
        let mut messages = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            let missing = self.bytes.len() - self.length;
            let (some, rest) = bytes.split_at(missing.min(bytes.len()));
            if let Some(to) = self.bytes.get_mut(self.length..self.length + some.len()) {
                to.copy_from_slice(some);
            }
            self.length += some.len();
            bytes = rest;
            if self.length == self.bytes.len() {
                let [_, length @ ..] = self.bytes;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.length = 0;
                messages += 1;
            }
        }
        messages
    }
}

/// The body of an answer that is followed.
#[derive(Debug)]
struct Followed {
    body: Body,
    prefix: Prefix,
    /// `None` after the end.
    started: Option<Started>,
}

impl Followed {
    fn end(&mut self, code: Option<Code>) {
        if let Some(mut started) = self.started.take() {
            started.code = code;
        }
    }
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    let messages = self.prefix.pass(data);
                    if let Some(started) = &self.started {
                        started.series.sent.inc_by(messages);
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.end(code_in(trailers).or(Some(Code::Unknown)));
                }
            }
            Poll::Ready(Some(Err(status))) => self.end(Some(status.code())),
            Poll::Ready(None) => self.end(Some(Code::Ok)),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_their_bytes_are_cut() {
        let mut bytes = Vec::new();
        for length in [0_u32, 1, 4, 5, 300] {
            bytes.push(0);
            bytes.extend(length.to_be_bytes());
            bytes.extend(vec![7; length as usize]);
        }
        for size in 1..=bytes.len() {
            let mut prefix = Prefix::default();
            assert_eq!(bytes.chunks(size).map(|piece| prefix.pass(piece)).sum::<u64>(), 5, "{size}");
            assert_eq!((prefix.left, prefix.length), (0, 0), "{size}");
        }
    }
}
