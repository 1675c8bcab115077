#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, TryStreamExt};
use tonic::{Code, Request, Response, Status};

use crate::{
    client::{
        Client, Error, MAX_RESPONSE_BYTES, Notice,
        resume::{Call, HEARTBEAT},
        test_server,
        waits::{Limits, MAX_WAIT, MIN_WAIT, Waits},
    },
    grpc::codec::Encoded,
    proto::{
        CountdownRequest, CountdownResponse, Line, ListFilesRequest, ListFilesResponse, LongLine, OnGap,
        ReadLinesRequest, ReadLinesResponse, WatchFilesRequest, countdown_request, line,
        line_service_server::{LineService, LineServiceServer},
        read_lines_request::Start,
    },
};

const FOR_EVER: Limits = Limits { connect: Duration::ZERO, outage: None };

/// Yields the lines 0 to `numbers` in batches of three, and ends each call but the last with `cut` after `calls % 5`
/// batches.
#[derive(Clone)]
struct Cutting {
    numbers: i64,
    cut: Option<Code>,
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl LineService for Cutting {
    type ReadLinesStream = Pin<Box<dyn Stream<Item = Result<Encoded, Status>> + Send>>;
    type WatchFilesStream = Self::ReadLinesStream;

    async fn watch_files(
        &self,
        _: Request<WatchFilesRequest>,
    ) -> Result<Response<Self::WatchFilesStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_files(&self, _: Request<ListFilesRequest>) -> Result<Response<ListFilesResponse>, Status> {
        Err(Status::unimplemented("there are no files"))
    }

    async fn read_lines(
        &self,
        request: Request<ReadLinesRequest>,
    ) -> Result<Response<Self::ReadLinesStream>, Status> {
        let request = request.into_inner();
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let start: i64 = request.cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let limit = request.limit.unwrap_or(i64::MAX);
        assert!(limit > 0, "a call for nothing");
        let end = self.numbers.min(start.saturating_add(limit));
        let mut out = Vec::new();
        let mut at = start;
        while at < end {
            if let Some(code) = self.cut
                && out.len() == call % 5
            {
                out.push(Err(Status::new(code, "cut")));
                break;
            }
            let next = end.min(at + 3);
            let lines = (at..next)
                .map(|n| Line { number: Some(n), offset: Some(10 * n), ..Line::default() })
                .collect();
            let response = ReadLinesResponse { lines, cursor: next.to_string(), ..Default::default() };
            out.push(Ok(Encoded::new(Vec::new(), &response)));
            at = next;
        }
        Ok(Response::new(futures::stream::iter(out).boxed()))
    }
}

#[derive(Clone)]
struct Large {
    bytes: usize,
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl LineService for Large {
    type ReadLinesStream = Pin<Box<dyn Stream<Item = Result<Encoded, Status>> + Send>>;
    type WatchFilesStream = Self::ReadLinesStream;

    async fn watch_files(
        &self,
        _: Request<WatchFilesRequest>,
    ) -> Result<Response<Self::WatchFilesStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_files(&self, _: Request<ListFilesRequest>) -> Result<Response<ListFilesResponse>, Status> {
        Err(Status::unimplemented("there are no files"))
    }

    async fn read_lines(
        &self,
        _: Request<ReadLinesRequest>,
    ) -> Result<Response<Self::ReadLinesStream>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let content = Some(line::Content::Data(vec![0; self.bytes]));
        let line = Line { content, ..Line::default() };
        let response = ReadLinesResponse { lines: vec![line], cursor: "1".into(), ..Default::default() };
        let out = [Ok(Encoded::new(Vec::new(), &response))];
        Ok(Response::new(futures::stream::iter(out).boxed()))
    }
}

pub(in crate::client) async fn serve(numbers: i64, cut: Option<Code>) -> (Client, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let service = LineServiceServer::new(Cutting { numbers, cut, calls: calls.clone() });
    (test_server::serve(tonic::service::Routes::new(service)).await, calls)
}

/// Answers each call with one response of this size.
async fn serve_large(bytes: usize) -> (Client, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let service = LineServiceServer::new(Large { bytes, calls: calls.clone() });
    let client = test_server::serve(tonic::service::Routes::new(service)).await;
    // A busy machine may take longer than the usual time for so large a first response.
    (client.with_connect_timeout(Duration::ZERO), calls)
}

async fn numbers(client: &Client, request: ReadLinesRequest) -> Result<Vec<i64>, Error> {
    let all = client.read_lines(request).responses().try_collect::<Vec<_>>();
    let all = tokio::time::timeout(Duration::from_secs(30), all).await.unwrap()?;
    Ok(all.iter().flat_map(|batch| &batch.lines).map(|line| line.number.unwrap()).collect())
}

#[test]
fn the_default_heartbeat_is_that_of_the_server() {
    assert_eq!(HEARTBEAT, crate::stream::HEARTBEAT);
}

#[tokio::test]
async fn a_stream_cut_again_and_again_gives_each_item_once_and_in_order() {
    let (client, calls) = serve(40, Some(Code::Unavailable)).await;
    let (lost, resumed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (lost.clone(), resumed.clone());
    let client = client.with_observer(move |notice| {
        let count = if matches!(notice, Notice::Resumed) { &counts.1 } else { &counts.0 };
        count.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(numbers(&client, ReadLinesRequest::default()).await.unwrap(), (0..40).collect::<Vec<_>>());
    assert_eq!(lost.load(Ordering::SeqCst) + 1, calls.load(Ordering::SeqCst));
    assert!(resumed.load(Ordering::SeqCst) > 2);
}

#[tokio::test]
async fn a_limit_counts_over_reconnects() {
    let (client, calls) = serve(40, Some(Code::Unavailable)).await;
    let request = ReadLinesRequest { limit: Some(17), ..ReadLinesRequest::default() };
    assert_eq!(numbers(&client, request).await.unwrap(), (0..17).collect::<Vec<_>>());
    assert!(calls.load(Ordering::SeqCst) > 2);
}

#[tokio::test]
async fn an_error_that_will_not_pass_is_not_retried() {
    for code in [Code::OutOfRange, Code::NotFound, Code::DataLoss, Code::ResourceExhausted] {
        let (client, calls) = serve(40, Some(code)).await;
        let error = numbers(&client, ReadLinesRequest::default()).await.unwrap_err();
        assert!(matches!(error, Error::Status { code: got, .. } if got == code), "{error:?}");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_first_call_without_a_server_fails_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = Client::new(&url).unwrap().with_connect_timeout(Duration::ZERO);
    let error = numbers(&client, ReadLinesRequest::default()).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_request_that_resumes_changes_only_its_cursor_and_its_limit() {
    let request = ReadLinesRequest {
        path: "a/b".into(),
        start: Some(Start::FromLine(3)),
        follow: true,
        on_gap: OnGap::Skip.into(),
        wait_for_create: true,
        until_line: Some(90),
        until_offset: Some(9_000),
        long_line: LongLine::Skip.into(),
        limit: Some(7),
        heartbeat: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        max_batch: Some(5),
        partial_flush: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        delimiter: Some("\0".into()),
        max_line_bytes: Some(64),
        ..ReadLinesRequest::default()
    };
    let mut call = Call::new(Client::new("127.0.0.1:1").unwrap(), request.clone(), FOR_EVER, false);
    let lines = vec![Line::default(); 5];
    call.on_response(&ReadLinesResponse { lines, cursor: "C1".into(), ..ReadLinesResponse::default() })
        .unwrap();
    call.on_response(&ReadLinesResponse { cursor: "C2".into(), ..ReadLinesResponse::default() }).unwrap();
    // The start stays in the request: the server ignores it beside a cursor.
    assert_eq!(call.request, ReadLinesRequest { cursor: Some("C2".into()), limit: Some(2), ..request });
}

#[tokio::test]
async fn a_shared_countdown_is_resumed_under_its_name() {
    let target = Some(countdown_request::Target::Name("launch".into()));
    let request = CountdownRequest { target, ..CountdownRequest::default() };
    let mut call = Call::new(Client::new("127.0.0.1:1").unwrap(), request.clone(), FOR_EVER, false);
    call.on_response(&CountdownResponse { cursor: "C".into(), ..CountdownResponse::default() }).unwrap();
    assert_eq!(call.request, CountdownRequest { cursor: Some("C".into()), ..request });
}

#[tokio::test]
async fn a_message_above_the_clients_own_limit_ends_the_stream_and_is_not_requested_again() {
    for (bytes, is_refused) in [(MAX_RESPONSE_BYTES / 2, false), (MAX_RESPONSE_BYTES + 1, true)] {
        let (client, calls) = serve_large(bytes).await;
        let all = client.read_lines(ReadLinesRequest::default()).responses().try_collect::<Vec<_>>();
        let all = tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{bytes}");
        assert_eq!(all.is_err(), is_refused, "{bytes}");
        if let Err(error) = all {
            assert!(matches!(error, Error::Status { code: Code::OutOfRange, .. }), "{error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_back_is_tried_within_two_seconds_however_long_it_was_away() {
    let begun = tokio::time::Instant::now();
    let mut waits = Waits::new(Arc::new(|_| {}), FOR_EVER);
    waits.answered();
    let lost = || Error::Unreachable { url: String::new(), cause: String::new() };
    let (mut last, mut attempts) = (begun, 0);
    while begun.elapsed() < Duration::from_mins(10) {
        waits.wait_out(lost()).await.unwrap();
        assert!(last.elapsed() <= MAX_WAIT, "{:?}", last.elapsed());
        last = tokio::time::Instant::now();
        attempts += 1;
    }
    // A wait is a second on average.
    assert!(attempts < 2 * 600, "{attempts}");
    waits.delivered();
    let again = tokio::time::Instant::now();
    waits.wait_out(lost()).await.unwrap();
    assert!(again.elapsed() <= MIN_WAIT, "{:?}", again.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_first_answer_has_ten_seconds_and_an_outage_what_the_caller_allows() {
    let lost = || Error::Unreachable { url: String::new(), cause: String::new() };
    let limits = Limits { connect: Duration::from_secs(10), outage: Some(Duration::from_secs(3)) };
    let mut waits = Waits::new(Arc::new(|_| {}), limits);
    for limit in [limits.connect, Duration::from_secs(3)] {
        let begun = tokio::time::Instant::now();
        waits.begin();
        while waits.wait_out(lost()).await.is_ok() {}
        assert!(begun.elapsed() <= limit && begun.elapsed() + MAX_WAIT >= limit, "{:?}", begun.elapsed());
        waits.delivered();
        // The time that the caller takes for what it got is no outage.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(waits.rest(), Some(Duration::from_secs(3)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_delay_is_the_least_wait() {
    let mut waits = Waits::new(Arc::new(|_| {}), FOR_EVER);
    waits.answered();
    let delay = Duration::from_secs(7);
    let error = Error::Status {
        code: Code::Unavailable,
        reason: Some("DRAINING".into()),
        metadata: std::collections::BTreeMap::new(),
        violations: Vec::new(),
        message: String::new(),
        retry_after: Some(delay),
        transport: false,
    };
    let begun = tokio::time::Instant::now();
    waits.wait_out(error).await.unwrap();
    assert!(begun.elapsed() >= delay);
}
