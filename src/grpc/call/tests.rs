//! Calls in virtual time, over streams that the tests make.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    future::Future,
    sync::atomic::AtomicBool,
    task::{Context, Poll, Waker},
};

use futures::{FutureExt, StreamExt, channel::oneshot, stream};
use prometheus_client::encoding::text::encode;
use tonic_types::StatusExt;

use super::*;
use crate::access::{self, Need};

/// Longer than any of these tests takes, in virtual time.
const LONG: Duration = Duration::from_secs(3600);

const STALL: Duration = Duration::from_secs(60);

struct Server {
    calls: Calls,
    registry: Registry,
    shutdown: CancellationToken,
}

impl Server {
    fn new(max_streams: usize) -> Self {
        let (mut registry, shutdown) = (Registry::default(), CancellationToken::new());
        let config = Config { max_streams, stall: STALL, ..Config::default() };
        Self { calls: Calls::new(config, shutdown.clone(), &mut registry), registry, shutdown }
    }

    fn begin(&self) -> Result<Call, Status> {
        self.calls.begin("Test", &Request::new(()), "")
    }

    fn serve(
        &self,
        stream: impl Stream<Item = Result<Outgoing<u32>, Failure>> + Send + 'static,
    ) -> Responses<u32> {
        self.begin().unwrap().serve(stream)
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }

    /// The number of streams that ended with this code.
    fn ended(&self, code: &str) -> u32 {
        let line = format!("streams_ended_total{{method=\"Test\",code=\"{code}\"}} ");
        let value = self.metrics().lines().find_map(|text| text.strip_prefix(&line).map(str::to_owned));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// The number of streams that ended, with any code.
    fn ended_in_all(&self) -> u32 {
        let metrics = self.metrics();
        let lines = metrics.lines().filter(|line| line.starts_with("streams_ended_total{"));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum()
    }

    fn open(&self) -> usize {
        self.calls.0.open.load(Ordering::Relaxed)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an item of a stream")]
fn item(response: u32) -> Result<Outgoing<u32>, Failure> {
    Ok(Outgoing { response, items: 1, bytes: 10 })
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

/// A stream that never yields, and a receiver that fails when the stream is dropped.
fn silent() -> (impl Stream<Item = Result<Outgoing<u32>, Failure>> + Send + 'static, oneshot::Receiver<()>) {
    let (is_alive, dropped) = oneshot::channel::<()>();
    let stream = stream::unfold(is_alive, |is_alive| async move {
        std::future::pending::<()>().await;
        Some((item(0), is_alive))
    });
    (stream, dropped)
}

async fn limited<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap()
}

/// Polls once, like a transport that has no room after that.
fn poll_once(responses: &mut Responses<u32>) -> Poll<Option<Result<u32, Status>>> {
    responses.poll_next_unpin(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn a_finished_stream_is_counted_once_with_its_items() {
    let server = Server::new(1);
    let responses = server.serve(stream::iter([item(1), item(2)]));
    assert_eq!(responses.map(Result::unwrap).collect::<Vec<_>>().await, [1, 2]);
    assert_eq!((server.ended("OK"), server.ended_in_all(), server.open()), (1, 1, 0));
    assert!(server.metrics().contains("items_total{method=\"Test\"} 2\n"));
    assert!(server.metrics().contains("bytes_total{method=\"Test\"} 20\n"));
    assert!(server.metrics().contains("streams_open{method=\"Test\"} 0\n"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_generator_ends_the_stream_and_is_counted_once() {
    let server = Server::new(1);
    let mut responses = server.serve(stream::iter([Err(status::draining()), item(1)]));
    assert_eq!(reason(&responses.next().await.unwrap().unwrap_err()), "DRAINING");
    assert!(responses.next().await.is_none());
    drop(responses);
    assert_eq!((server.ended("UNAVAILABLE"), server.ended_in_all()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_is_counted_once_as_cancelled_and_frees_its_generator_and_its_quota() {
    let server = Server::new(1);
    let (stream, dropped) = silent();
    let mut responses = server.serve(stream);
    assert!(poll_once(&mut responses).is_pending());
    assert_eq!(server.open(), 1);
    drop(responses);
    assert!(limited(dropped).await.is_err());
    assert_eq!((server.ended("CANCELLED"), server.ended_in_all(), server.open()), (1, 1, 0));
    assert!(server.calls.0.streams().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_while_it_opens_is_counted_once_as_cancelled() {
    let server = Server::new(1);
    let opening = server.begin().unwrap().open(std::future::pending::<Result<(), Failure>>());
    assert!(opening.now_or_never().is_none());
    assert_eq!((server.ended("CANCELLED"), server.ended_in_all(), server.open()), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_over_the_quota_is_refused_with_the_limit_and_a_retry_delay() {
    let server = Server::new(2);
    let (first, second) = (server.begin().unwrap(), server.begin().unwrap());
    let refused = server.begin().unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "TOO_MANY_STREAMS"));
    assert_eq!(refused.get_details_error_info().unwrap().metadata["limit"], "2");
    assert!(refused.get_details_retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
    drop(first);
    let third = server.begin().unwrap();
    drop((second, third));
    assert_eq!((server.ended("RESOURCE_EXHAUSTED"), server.ended("CANCELLED")), (1, 3));
    assert_eq!(server.open(), 0);
}

fn with_timeout(text: &str) -> Request<()> {
    let mut request = Request::new(());
    request.metadata_mut().insert("grpc-timeout", text.parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_the_callers_deadline_and_not_before() {
    let server = Server::new(1);
    let (stream, dropped) = silent();
    let call = server.calls.begin("Test", &with_timeout("1500m"), "").unwrap();
    let began = Instant::now();
    let status = limited(call.serve(stream).next()).await.unwrap().unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_millis(1500));
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert!(limited(dropped).await.is_err());
    assert_eq!((server.ended("DEADLINE_EXCEEDED"), server.ended_in_all()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_while_a_stream_opens_and_for_a_unary_call() {
    let server = Server::new(1);
    let call = server.calls.begin("Test", &with_timeout("2S"), "").unwrap();
    let status = limited(call.open(std::future::pending::<Result<(), Failure>>())).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let never = async |()| std::future::pending::<Result<(), Failure>>().await;
    let status = limited(server.calls.unary("Test", with_timeout("2S"), never)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(server.metrics().contains("calls_total{method=\"Test\",code=\"DEADLINE_EXCEEDED\"} 1\n"));
}

#[test]
fn a_grpc_timeout_is_read_by_the_grammar_of_the_protocol() {
    let millis = Duration::from_millis;
    for (text, expected) in [
        ("1H", Some(millis(3_600_000))),
        ("2M", Some(millis(120_000))),
        ("3S", Some(millis(3_000))),
        ("4m", Some(millis(4))),
        ("5000u", Some(millis(5))),
        ("6000000n", Some(millis(6))),
        ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
        ("100000000S", None),
        ("", None),
        ("1s", None),
        ("1", None),
        ("S", None),
        ("-1S", None),
        ("+1S", None),
        ("1x", None),
    ] {
        assert_eq!(timeout(text), expected, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_a_waiting_stream_with_retry_info() {
    let server = Server::new(2);
    let (stream, dropped) = silent();
    let mut responses = server.serve(stream::iter([item(1)]).chain(stream));
    assert_eq!(responses.next().await.unwrap().unwrap(), 1);
    let (last, ()) = limited(futures::future::join(responses.next(), async {
        server.shutdown.cancel();
    }))
    .await;
    let status = last.unwrap().unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DRAINING"));
    assert!(status.get_details_retry_info().is_some());
    assert!(limited(dropped).await.is_err());
    assert_eq!(reason(&server.begin().unwrap_err()), "DRAINING");
    assert_eq!((server.ended("UNAVAILABLE"), server.ended_in_all()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_connection_ends_only_its_own_streams() {
    let server = Server::new(3);
    let ends = server.shutdown.child_token();
    let connection = server.calls.connection(1, Peer::Address("[::1]:1".parse().unwrap()), ends.clone());
    let mut request = Request::new(());
    request.extensions_mut().insert(connection);
    let call = server.calls.begin("Test", &request, "").unwrap();
    let mut of_another = server.serve(silent().0);
    let mut responses = call.serve(silent().0);
    assert!(poll_once(&mut responses).is_pending() && poll_once(&mut of_another).is_pending());
    ends.cancel();
    assert_eq!(reason(&limited(responses.next()).await.unwrap().unwrap_err()), "DRAINING");
    assert_eq!(reason(&server.calls.begin("Test", &request, "").unwrap_err()), "DRAINING");
    assert!(poll_once(&mut of_another).is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_loses_the_generator_and_gets_the_reason_when_it_reads_again() {
    let server = Server::new(1);
    let (stream, dropped) = silent();
    let mut responses = server.serve(stream::iter([item(1)]).chain(stream));
    assert!(matches!(poll_once(&mut responses), Poll::Ready(Some(Ok(1)))));
    let began = Instant::now();
    assert!(limited(dropped).await.is_err());
    assert!(began.elapsed() >= STALL && began.elapsed() < 2 * STALL, "after {:?}", began.elapsed());
    assert_eq!((server.open(), server.ended("UNAVAILABLE")), (0, 1));

    let status = limited(responses.next()).await.unwrap().unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STALLED"));
    assert!(responses.next().await.is_none());
    drop(responses);
    assert_eq!(server.ended_in_all(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_the_first_response_is_stalled_too() {
    let server = Server::new(1);
    let (stream, dropped) = silent();
    let _responses = server.serve(stream);
    assert!(limited(dropped).await.is_err());
    assert_eq!(server.open(), 0);
}

/// The encoder polls once more after the only response, and then the transport has no room.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_after_a_waiting_generator_has_woken_is_stalled() {
    let server = Server::new(1);
    let (stream, mut dropped) = silent();
    let (tick, ticked) = oneshot::channel::<()>();
    let later = stream::once(ticked.map(|_| item(2)));
    let mut responses = server.serve(stream::iter([item(1)]).chain(later).chain(stream));
    assert!(matches!(poll_once(&mut responses), Poll::Ready(Some(Ok(1)))));
    assert!(poll_once(&mut responses).is_pending());

    tokio::time::sleep(10 * STALL).await;
    assert_eq!(dropped.try_recv(), Ok(None), "the stream waited for its generator, not for its client");
    tick.send(()).unwrap();
    let began = Instant::now();
    assert!(limited(dropped).await.is_err());
    assert!(began.elapsed() >= STALL && began.elapsed() < 2 * STALL, "after {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_that_reads_from_time_to_time_is_not_stalled() {
    let server = Server::new(1);
    let mut responses = server.serve(stream::iter(1..).map(item));
    for expected in 1..=20 {
        assert_eq!(responses.next().await.unwrap().unwrap(), expected);
        tokio::time::sleep(STALL * 9 / 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_generator_that_is_always_ready_lets_other_tasks_run() {
    let server = Server::new(1);
    let others_ran = Arc::new(AtomicBool::new(false));
    let ran = others_ran.clone();
    let mut responses = server.serve(stream::iter(1..).map(item));
    tokio::spawn(async move { ran.store(true, Ordering::Relaxed) });
    for _ in 0..1_000 {
        responses.next().await.unwrap().unwrap();
    }
    assert!(others_ran.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn the_subject_of_a_call_in_the_log_is_bounded() {
    let server = Server::new(1);
    let call = server.calls.begin("Test", &Request::new(()), "é".repeat(2 * MAX_SUBJECT)).unwrap();
    assert_eq!(call.subject.chars().count(), MAX_SUBJECT);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_always_ready_ends_with_the_next_response_after_its_right_has_ended() {
    let server = Server::new(1);
    let mut call = server.begin().unwrap();
    let ends = Ends::with_permit(&server.shutdown);
    call.ends = ends.clone();
    let mut responses = call.serve(stream::repeat(7).map(item));
    for _ in 0..3 {
        assert_eq!(responses.next().await.unwrap().unwrap(), 7);
    }
    assert!(ends.end(status::access_changed()) && !ends.end(status::draining()));
    assert_eq!(responses.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert!(responses.next().await.is_none());
}

/// A request that counts how often it is asked for its needs.
struct Counting(AtomicUsize);

impl Asks for Counting {
    fn needs(&self) -> Vec<Need<'_>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        vec![Need::own_countdown()]
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_decided_once_whether_a_stream_may_open() {
    let directory = tempfile::tempdir().unwrap();
    let files = access::Files { rules: directory.path().join("access.toml"), tokens: None };
    std::fs::write(&files.rules, "[[rule]]\nwho = ['anyone']\nmay = ['count']").unwrap();
    let mut registry = Registry::default();
    let access = Access::open(files, Vec::new(), &mut registry).unwrap();
    let caller = access.caller(&Arc::default(), []).unwrap();
    let calls = Calls::guarded(Config::default(), Some(access), CancellationToken::new(), &mut registry);
    let mut request = Request::new(Counting(AtomicUsize::new(0)));
    request.extensions_mut().insert(caller);
    let call = calls.begin("Test", &request, "").unwrap();
    assert!(call.permit().is_some() && call.rights().are_any());
    assert_eq!(request.get_ref().0.load(Ordering::Relaxed), 1);
}
