//! The services of a server in this process, behind the gate that each request passes, over the data of an earlier version.

use std::{
    fs,
    path::PathBuf,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use perennial::{
    countdown::{self, shared::Countdowns},
    grpc::{
        App, Config,
        call::{self, Calls, Connection, Peer},
        gate::Gate,
        routes,
    },
    lines, messages,
};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Longer than any answer takes, also on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(120);

/// A house is built again after this many requests, so that what they leave stays small.
const REQUESTS: usize = 500;

/// The data of an earlier version, for which there are cursors.
const FILES: [(&str, &[u8]); 3] = [
    ("logs/app.log", include_bytes!("../../data/9cbe249/logs/app.log")),
    (
        "messages/00000000000000000001.log",
        include_bytes!("../../data/9cbe249/data/messages/00000000000000000001.log"),
    ),
    ("messages/removed", include_bytes!("../../data/9cbe249/data/messages/removed")),
];

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
});

/// Waits for what must come at once.
pub fn answer<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limited = async { tokio::time::timeout(PATIENCE, future).await };
    RUNTIME.block_on(limited).unwrap_or_else(|_| panic!("{what:?}: nothing within {PATIENCE:?}"))
}

/// A directory whose files need no disk, if there is one.
pub fn in_memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

struct House {
    gate: Gate,
    connection: Connection,
    shutdown: CancellationToken,
    requests: usize,
    _directory: TempDir,
}

static HOUSE: Mutex<Option<House>> = Mutex::new(None);

impl House {
    async fn new() -> Self {
        let directory = TempDir::new_in(in_memory()).unwrap();
        let (root, log) = (directory.path().join("logs"), directory.path().join("messages"));
        for (name, content) in FILES {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let (mut registry, shutdown) = (Registry::default(), CancellationToken::new());
        let log = messages::Log::open(&log, messages::Config::default()).unwrap().0;
        let (clock, countdown) = (countdown::Clock::Tokio, countdown::Config::default());
        let opened = Countdowns::open(log.clone(), clock.clone(), countdown.clone()).await;
        let (countdowns, mut work) = opened.unwrap();
        let ending = shutdown.clone();
        tokio::spawn(async move { ending.run_until_cancelled(work(false)).await });
        let roots = vec![lines::Root::new("logs", root)];
        let app = App {
            clock,
            countdown,
            countdowns,
            files: lines::Files::new(roots, lines::Options::default()).unwrap(),
            log,
            calls: Calls::new(call::Config::default(), shutdown.clone(), &mut registry),
            config: Config::default(),
        };
        let peer = Peer::Address("[::1]:1".parse().unwrap());
        let connection = app.calls.connection(1, peer, shutdown.child_token());
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status("", tonic_health::ServingStatus::Serving).await;
        let (calls, config) = (app.calls.clone(), app.config.clone());
        let services = routes(app).add_service(health_service);
        let gate = Gate::new(services, calls, &config, 64, &mut Registry::default());
        Self { gate, connection, shutdown, requests: 0, _directory: directory }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Calls a method with a body that comes in these parts. Returns the status, as a code and a reason, and the bytes of the
/// first frame of the answer, if it has one.
pub fn call(path: &str, body: Vec<Bytes>) -> (tonic::Status, Option<Bytes>) {
    let mut house = HOUSE.lock().unwrap_or_else(PoisonError::into_inner);
    answer(path, async {
        let mut now = match house.take() {
            Some(house) if house.requests < REQUESTS => house,
            _ => House::new().await,
        };
        now.requests += 1;
        let frames =
            body.into_iter().map(|bytes| Ok::<_, std::convert::Infallible>(http_body::Frame::data(bytes)));
        let request = http::Request::post(path).header("content-type", "application/grpc");
        let request = request.body(StreamBody::new(futures::stream::iter(frames))).unwrap();
        let response = now.gate.serve(&now.connection, request).await;
        let of_headers = tonic::Status::from_header_map(response.headers());
        let mut body = Box::pin(response.into_body());
        let frame = match &of_headers {
            Some(_) => None,
            None => body.frame().await,
        };
        let (mut status, mut first) = (of_headers.unwrap_or_else(|| tonic::Status::ok("")), None);
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => first = Some(data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    status = tonic::Status::from_header_map(&trailers).unwrap_or(status);
                }
            },
            Some(Err(error)) => status = error,
            None => {}
        }
        drop(body);
        *house = Some(now);
        (status, first)
    })
}
