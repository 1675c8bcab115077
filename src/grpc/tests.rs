//! The services, over a connection within this process.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{io::DuplexStream, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::*;
use crate::proto::{
    self, countdown_request::Target, countdown_service_client::CountdownServiceClient,
    line_service_client::LineServiceClient, message_service_client::MessageServiceClient,
};

mod deadlines;
mod fields;
mod flow;

/// Much longer than any wait in these tests.
const LIMIT: Duration = Duration::from_secs(120);

/// The buffer of the connection, in each direction.
const PIPE_BYTES: usize = 16 * 1024;

const STALL: Duration = Duration::from_secs(60);

/// A server, its data, and the connections to it.
struct House {
    app: App,
    registry: Registry,
    shutdown: CancellationToken,
    directory: tempfile::TempDir,
    connections: JoinSet<()>,
}

impl House {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (root, log) = (directory.path().join("root"), directory.path().join("log"));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&log).unwrap();
        let (mut registry, shutdown) = (Registry::default(), CancellationToken::new());
        let settings = call::Config { stall: STALL, ..call::Config::default() };
        let log = messages::Log::open(&log, messages::Config::default()).unwrap().0;
        let (clock, countdown) = (countdown::Clock::Tokio, countdown::Config::default());
        let opened = countdown::shared::Countdowns::open(log.clone(), clock.clone(), countdown.clone()).await;
        let (countdowns, mut work) = opened.unwrap();
        tokio::spawn(work(false));
        let app = App {
            clock,
            countdown,
            countdowns,
            files: lines::Files::new(vec![lines::Root::new("root", root)], lines::Options::default())
                .unwrap(),
            log,
            calls: call::Calls::new(settings, shutdown.clone(), &mut registry),
            config: Config::default(),
        };
        Self { app, registry, shutdown, directory, connections: JoinSet::new() }
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.directory.path().join("root").join(name), content).unwrap();
    }

    /// The gate in front of the services, and a connection to it.
    fn gate(&self) -> (gate::Gate, call::Connection) {
        let (app, calls) = (self.app.clone(), self.app.calls.clone());
        let gate = gate::Gate::new(routes(app), calls, &self.app.config, 64, &mut Registry::default());
        let connection = self.app.calls.connection(
            1,
            crate::grpc::call::Peer::Address("[::1]:1".parse().unwrap()),
            self.shutdown.child_token(),
        );
        (gate, connection)
    }

    /// Answers a request of a connection of its own.
    async fn answer(
        &self,
        request: http::Request<http_body_util::Full<Bytes>>,
    ) -> http::Response<tonic::body::Body> {
        let (gate, connection) = self.gate();
        limited(gate.serve(&connection, request)).await
    }

    async fn connect(&mut self) -> Channel {
        self.connect_with(&Endpoint::from_static("http://in.process")).await
    }

    async fn connect_with(&mut self, endpoint: &Endpoint) -> Channel {
        let (client, server) = tokio::io::duplex(PIPE_BYTES);
        let (gate, connection) = self.gate();
        let service = hyper::service::service_fn(move |request| {
            let (gate, connection) = (gate.clone(), connection.clone());
            async move { Ok::<_, std::convert::Infallible>(gate.serve(&connection, request).await) }
        });
        self.connections.spawn(async move {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // An error means that the client went away.
            let _ = builder.serve_connection(TokioIo::new(server), service).await;
        });
        let mut client = Some(client);
        let connector = tower::service_fn(move |_| {
            let client = client.take().ok_or(std::io::ErrorKind::ConnectionRefused);
            std::future::ready(client.map(TokioIo::<DuplexStream>::new).map_err(std::io::Error::from))
        });
        limited(endpoint.connect_with_connector(connector)).await.unwrap()
    }

    /// The value of a counter, by its name and labels; 0 if it has not counted yet.
    fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

async fn limited<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap()
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

fn from(number: i32) -> proto::CountdownRequest {
    proto::CountdownRequest { target: Some(Target::Start(number)), ..proto::CountdownRequest::default() }
}

#[tokio::test]
async fn a_step_of_the_wall_clock_is_an_event_of_an_aligned_countdown() {
    let mut house = House::new().await;
    let clock = countdown::Clock::manual();
    house.app.clock = clock.clone();
    let interval = Some(prost_types::Duration { seconds: 86_400, nanos: 0 });
    let request = proto::CountdownRequest { align: true, interval, ..from(100) };
    let mut client = CountdownServiceClient::new(house.connect().await);
    let mut stream = limited(client.countdown(request)).await.unwrap().into_inner();
    let first = limited(stream.message()).await.unwrap().unwrap();
    assert!(first.ticks.is_empty() && first.events.is_empty());
    clock.step(countdown::Nanos::new(-1_500_000_000));
    let reported = limited(stream.message()).await.unwrap().unwrap();
    let [
        proto::CountdownStreamEvent {
            event: Some(proto::countdown_stream_event::Event::ClockStepped(stepped)),
        },
    ] = &reported.events[..]
    else {
        panic!("{reported:?}");
    };
    let by = stepped.by.unwrap();
    // The two clocks are read one after the other, so the difference is not exact.
    let nanos = by.seconds * 1_000_000_000 + i64::from(by.nanos);
    assert!((nanos + 1_500_000_000).abs() < 20_000_000, "{by:?}");
    assert!(by.seconds == -1 && by.nanos <= 0, "{by:?}");
}

#[tokio::test]
async fn the_first_response_of_every_stream_leaves_at_once_and_has_a_cursor() {
    let mut house = House::new().await;
    house.write("a.log", "");
    let channel = house.connect().await;

    let request = proto::CountdownRequest { wait_first: true, ..from(3) };
    let stream = limited(CountdownServiceClient::new(channel.clone()).countdown(request)).await;
    let first = limited(stream.unwrap().into_inner().message()).await.unwrap().unwrap();
    assert!(first.ticks.is_empty() && !first.cursor.is_empty());

    let request = proto::ReadLinesRequest { path: "root/a.log".into(), follow: true, ..Default::default() };
    let stream = limited(LineServiceClient::new(channel.clone()).read_lines(request)).await;
    let first = limited(stream.unwrap().into_inner().message()).await.unwrap().unwrap();
    assert!(first.lines.is_empty() && first.caught_up && !first.cursor.is_empty());
    assert_eq!((first.next_offset, first.size), (Some(0), Some(0)));

    let request = proto::WatchFilesRequest { globs: vec!["root/*".into()], ..Default::default() };
    let stream = limited(LineServiceClient::new(channel.clone()).watch_files(request)).await;
    let first = limited(stream.unwrap().into_inner().message()).await.unwrap().unwrap();
    assert!(first.changes.is_empty() && !first.caught_up && !first.cursor.is_empty());

    let request = proto::MessagesRequest { topics: vec![">".into()], ..Default::default() };
    let stream = limited(MessageServiceClient::new(channel).messages(request)).await;
    let first = limited(stream.unwrap().into_inner().message()).await.unwrap().unwrap();
    assert!(first.messages.is_empty() && first.caught_up && !first.cursor.is_empty());
    assert_eq!(first.head_sequence, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_countdown_delivers_its_last_tick_and_ends_with_ok() {
    let mut house = House::new().await;
    let mut client = CountdownServiceClient::new(house.connect().await);
    let mut stream = client.countdown(from(2)).await.unwrap().into_inner();
    let mut ticks = Vec::new();
    while let Some(response) = stream.message().await.unwrap() {
        ticks.extend(response.ticks.into_iter().map(|tick| tick.remaining));
    }
    assert_eq!(ticks, [Some(2), Some(1), Some(0)]);
    assert_eq!(house.metric("streams_ended_total{method=\"Countdown\",code=\"OK\"}"), 1);
    assert_eq!(house.metric("items_total{method=\"Countdown\"}"), 3);
}

#[tokio::test]
async fn lines_and_messages_arrive_as_they_were_written_and_resume_after_their_cursor() {
    let mut house = House::new().await;
    house.write("a.log", "one\ntwo\n");
    let channel = house.connect().await;

    let mut client = LineServiceClient::new(channel.clone());
    let mut request =
        proto::ReadLinesRequest { path: "root/a.log".into(), max_batch: Some(1), ..Default::default() };
    for expected in ["one", "two"] {
        let mut stream = client.read_lines(request.clone()).await.unwrap().into_inner();
        let response = loop {
            let response = limited(stream.message()).await.unwrap().unwrap();
            if !response.lines.is_empty() {
                break response;
            }
        };
        assert_eq!(response.lines.len(), 1);
        assert_eq!(response.lines[0].content, Some(proto::line::Content::Text(expected.into())));
        request.cursor = Some(response.cursor);
    }

    let mut client = MessageServiceClient::new(channel);
    for text in ["one", "two"] {
        limited(client.publish(flow::message("a.b", text))).await.unwrap();
    }
    let mut request = proto::MessagesRequest {
        topics: vec!["a.*".into()],
        start: Some(proto::messages_request::Start::Earliest(true)),
        max_batch: Some(1),
        ..Default::default()
    };
    for (sequence, expected) in [(1, "one"), (2, "two")] {
        let mut stream = client.messages(request.clone()).await.unwrap().into_inner();
        let response = limited(stream.message()).await.unwrap().unwrap();
        assert_eq!(response.messages.len(), 1);
        assert_eq!(response.messages[0].sequence, Some(sequence));
        assert_eq!(response.messages[0].content, Some(proto::stored_message::Content::Text(expected.into())));
        assert_eq!(response.head_sequence, Some(2));
        request.cursor = Some(response.cursor);
    }
}

#[tokio::test]
async fn the_error_of_a_request_that_is_too_large_has_the_limit() {
    let mut house = House::new().await;
    let channel = house.connect().await;
    let request = proto::CountdownRequest { cursor: Some("x".repeat(REQUEST_BYTES)), ..from(3) };
    let status = limited(CountdownServiceClient::new(channel.clone()).countdown(request)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "REQUEST_TOO_LARGE"));
    assert_eq!(status.get_details_error_info().unwrap().metadata["limit"], REQUEST_BYTES.to_string());

    // A message that is within its own limit is within that of the request.
    let message = flow::message("a", &"x".repeat(1024 * 1024));
    limited(MessageServiceClient::new(channel).publish(message)).await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_not_a_request_are_an_invalid_argument() {
    let house = House::new().await;
    // One message of one byte, which begins a field and ends there.
    let body = http_body_util::Full::new(Bytes::from_static(&[0, 0, 0, 0, 1, 0x08]));
    let request = http::Request::post("/perennial.v1.CountdownService/Countdown")
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap();
    let response = house.answer(request).await;
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "REQUEST_MALFORMED"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_disconnects_frees_its_stream() {
    let mut house = House::new().await;
    let mut client = CountdownServiceClient::new(house.connect().await);
    let mut stream = client.countdown(from(1_000_000)).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    assert_eq!(house.metric("streams_open{method=\"Countdown\"}"), 1);
    drop(stream);
    // Well before the next tick.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(house.metric("streams_open{method=\"Countdown\"}"), 0);
    assert_eq!(house.metric("streams_ended_total{method=\"Countdown\",code=\"CANCELLED\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_loses_its_stream_and_gets_the_reason_when_it_reads_again() {
    let mut house = House::new().await;
    let endpoint = Endpoint::from_static("http://in.process").initial_stream_window_size(1024);
    let mut client = CountdownServiceClient::new(house.connect_with(&endpoint).await);
    let mut stream = client.countdown(from(1_000_000)).await.unwrap().into_inner();
    assert_eq!(house.metric("streams_open{method=\"Countdown\"}"), 1);
    // A tick a second fills a window of 1 KiB in a quarter of a minute.
    tokio::time::sleep(3 * STALL).await;
    assert_eq!(house.metric("streams_open{method=\"Countdown\"}"), 0);
    let ending = loop {
        match stream.message().await {
            Ok(response) => assert!(response.is_some(), "it ends with OK"),
            Err(status) => break status,
        }
    };
    assert_eq!((ending.code(), reason(&ending).as_str()), (Code::Unavailable, "STALLED"));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_and_a_shutdown_end_a_stream_over_its_connection_too() {
    let mut house = House::new().await;
    let mut client = CountdownServiceClient::new(house.connect().await);
    let mut request = Request::new(from(1_000_000));
    request.set_timeout(Duration::from_millis(2500));
    let stream = client.countdown(request).await.unwrap().into_inner();
    let (mut ticks, ending) = drain(stream).await;
    assert_eq!((ticks.len(), ending.code()), (3, Code::DeadlineExceeded));

    let mut stream = client.countdown(from(1_000_000)).await.unwrap().into_inner();
    ticks.extend(stream.message().await.unwrap().unwrap().ticks);
    house.shutdown.cancel();
    let (_, ending) = drain(stream).await;
    assert_eq!((ending.code(), reason(&ending).as_str()), (Code::Unavailable, "DRAINING"));
    let refused = client.countdown(from(1)).await.unwrap_err();
    assert_eq!(reason(&refused), "DRAINING");
}

/// Reads a stream to its end, which is an error.
async fn drain(mut stream: tonic::Streaming<proto::CountdownResponse>) -> (Vec<proto::Tick>, Status) {
    let mut ticks = Vec::new();
    loop {
        match stream.message().await {
            Ok(response) => ticks.extend(response.unwrap().ticks),
            Err(status) => return (ticks, status),
        }
    }
}
