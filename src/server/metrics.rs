//! The endpoint for operators, on a listener of its own: metrics as Prometheus text over HTTP/1, and the probes `/healthz` and
//! `/readyz`, which speak neither TLS nor gRPC.

use std::{
    convert::Infallible,
    fmt,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::gauge::ConstGauge,
    registry::Registry,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::consumer_lags::ConsumerLags;
use crate::{blocking::Pool, messages::Log};

/// The type of the metrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The type of every other answer.
const TEXT: &str = "text/plain; charset=utf-8";

/// Up to this many scrapes are answered at once. A further connection is closed.
const MAX_CONNECTIONS: usize = 64;

/// A scraper must send its request within this time.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// The answers of the endpoint. It answers from before the log is opened until the server has stopped.
#[derive(Debug)]
pub struct Endpoint {
    state: watch::Sender<State>,
    /// Set once everything is registered.
    served: OnceLock<Served>,
    pool: Pool,
}

#[derive(Debug)]
struct Served {
    registry: Registry,
    log: Log,
    lags: ConsumerLags,
}

/// Where the server is between its start and its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// The log is being opened.
    Opening,
    /// Calls are served.
    Ready,
    /// No call is accepted any more, and streams end.
    Draining,
}

impl Endpoint {
    /// An endpoint of a server that opens its log.
    pub fn new(pool: Pool) -> Arc<Self> {
        Arc::new(Self { state: watch::Sender::new(State::Opening), served: OnceLock::new(), pool })
    }

    /// Has the metrics of this registry, and those of the consumers of the log.
    pub fn serve_metrics(&self, mut registry: Registry, log: Log) {
        let lags = ConsumerLags::new(registry.sub_registry_with_prefix("perennial"));
        // It is called once.
        let _ = self.served.set(Served { registry, log, lags });
    }

    /// The server has come to another state.
    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<String> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are answered\n");
        }
        match request.uri().path() {
            "/metrics" => self.metrics().await,
            // The process answers: a restart would not help with anything else.
            "/healthz" => response(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => self.ready(false),
            "/readyz/publish" => self.ready(true),
            _ => response(
                StatusCode::NOT_FOUND,
                TEXT,
                "there are /metrics, /healthz, /readyz and /readyz/publish\n",
            ),
        }
    }

    async fn metrics(self: Arc<Self>) -> Response<String> {
        let Some(served) = self.served.get() else {
            return response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the log is being opened\n");
        };
        served.lags.update(&served.log).await;
        let endpoint = self.clone();
        // The room of the data directory is read from its file system, which may be slow.
        let encoded = self.pool.run(move || {
            let mut text = String::new();
            let served = endpoint.served.get()?;
            encode(&mut text, &served.registry).ok().map(|()| text)
        });
        match encoded.await {
            Ok(Some(text)) => response(StatusCode::OK, OPEN_METRICS, text),
            _ => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, ""),
        }
    }

    /// Whether calls are served. While the log refuses messages, reads go on, so only a probe that asks for it fails.
    fn ready(&self, publishes: bool) -> Response<String> {
        let state = *self.state.borrow();
        let log = self.served.get().map(|served| &served.log);
        let refusal = log.and_then(|log| {
            if *log.failed().borrow() {
                return Some("LOG_FAILED: a write to the log has failed".to_owned());
            }
            let needed = *log.needed_room().borrow();
            needed.map(|needed| format!("LOG_FULL: the disk has no room for publishing, {needed}"))
        });
        match (state, refusal) {
            (State::Opening, _) => {
                response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the log is being opened\n")
            }
            (State::Draining, _) => {
                response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the server is stopping\n")
            }
            (State::Ready, Some(refusal)) if publishes => response(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                format!("no message is accepted: {refusal}\n"),
            ),
            (State::Ready, Some(refusal)) => {
                response(StatusCode::OK, TEXT, format!("ready to read; no message is accepted: {refusal}\n"))
            }
            (State::Ready, None) => response(StatusCode::OK, TEXT, "ready\n"),
        }
    }
}

/// Answers scrapes and probes until it is dropped.
pub async fn serve(listener: TcpListener, endpoint: Arc<Endpoint>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            continue;
        }
        let endpoint = endpoint.clone();
        connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let endpoint = endpoint.clone();
                async move { Ok::<_, Infallible>(endpoint.answer(request).await) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIME);
            // An error means that the scraper went away.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn response(status: StatusCode, kind: &'static str, text: impl Into<String>) -> Response<String> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// The room in the file system of the data directory, as it is when it is scraped.
#[derive(Debug)]
pub struct DataRoom(pub PathBuf);

impl Collector for DataRoom {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Without an answer of the file system there is no value, which an alert can notice.
        let Ok(room) = rustix::fs::statvfs(&self.0) else { return Ok(()) };
        let figures = [
            (
                "data_available_bytes",
                "Bytes that the server can still write in the file system of the data directory",
                room.f_bavail.saturating_mul(room.f_frsize),
            ),
            (
                "data_size_bytes",
                "The size of the file system of the data directory in bytes",
                room.f_blocks.saturating_mul(room.f_frsize),
            ),
            (
                "data_available_files",
                "Files that the server can still create in the file system of the data directory; 0 where that is not \
                 counted",
                room.f_favail,
            ),
        ];
        for (name, help, value) in figures {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_the_data_directory_is_that_of_its_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let mut registry = Registry::with_prefix("perennial");
        registry.register_collector(Box::new(DataRoom(directory.path().into())));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("perennial_{name} ")));
            line.unwrap().split(' ').next_back().unwrap().parse::<u64>().unwrap()
        };
        let room = rustix::fs::statvfs(directory.path()).unwrap();
        assert_eq!(value("data_size_bytes"), room.f_blocks * room.f_frsize);
        assert!(value("data_available_bytes") <= value("data_size_bytes"));
        assert!(value("data_available_bytes") > 0, "{text}");
        assert!(text.contains("# HELP perennial_data_available_files"), "{text}");
    }

    #[test]
    fn a_directory_that_is_gone_has_no_figures() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(DataRoom("/nonexistent/data".into())));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(!text.contains("data_"), "{text}");
    }
}
