//! The metrics endpoint: Prometheus text over HTTP/1, on a listener of its own.

use std::{convert::Infallible, fmt, path::PathBuf, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::gauge::ConstGauge,
    registry::Registry,
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::blocking::Pool;

/// Up to this many scrapes are answered at once. A further connection is closed.
const MAX_CONNECTIONS: usize = 64;

/// A scraper must send its request within this time.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Answers scrapes until it is dropped.
pub async fn serve(listener: TcpListener, registry: Registry, pool: Pool) {
    let registry = Arc::new(registry);
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
        let (registry, pool) = (registry.clone(), pool.clone());
        connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let (registry, pool) = (registry.clone(), pool.clone());
                async move {
                    // The room of the data directory is read from its file system, which may be slow.
                    let answer = pool.run(move || answer(&request, &registry)).await;
                    Ok::<_, Infallible>(
                        answer.unwrap_or_else(|_| response(StatusCode::INTERNAL_SERVER_ERROR, "")),
                    )
                }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIME);
            // An error means that the scraper went away.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(request: &Request<Incoming>, registry: &Registry) -> Response<String> {
    let mut text = String::new();
    let status = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") if encode(&mut text, registry).is_ok() => StatusCode::OK,
        (&Method::GET, "/metrics") => StatusCode::INTERNAL_SERVER_ERROR,
        _ => {
            text = "the metrics are at /metrics\n".into();
            StatusCode::NOT_FOUND
        }
    };
    response(status, text)
}

fn response(status: StatusCode, text: impl Into<String>) -> Response<String> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
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
