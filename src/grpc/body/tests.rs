//! Bodies over responses that the tests make.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::Waker,
    time::Duration,
};

use futures::{StreamExt, stream, task::AtomicWaker};
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::*;
use crate::{
    grpc::{
        call::{Calls, Config, Outgoing},
        status::{self, Failure},
    },
    proto::{MessagesResponse, StoredMessage},
};

const STALL: Duration = Duration::from_secs(60);

type Item = Result<Outgoing<Encoded>, Failure>;

fn body(items: impl Stream<Item = Item> + Send + 'static) -> ResponseBody {
    let config = Config { stall: STALL, ..Config::default() };
    let calls = Calls::new(config, CancellationToken::new(), &mut Registry::default());
    ResponseBody::new(calls.begin("Test", &Request::new(()), "").unwrap().serve(items))
}

/// A response of messages with these lengths, in one slice or in a slice each.
fn response(lengths: &[usize], slices: bool, cursor: &str) -> (MessagesResponse, Item) {
    let message = |length| StoredMessage { topic: "t".repeat(length), ..StoredMessage::default() };
    let rest = MessagesResponse { cursor: cursor.into(), ..MessagesResponse::default() };
    let messages = lengths.iter().map(|length| message(*length)).collect::<Vec<_>>();
    let encoded = messages.iter().map(|message| {
        let one = MessagesResponse { messages: vec![message.clone()], ..MessagesResponse::default() };
        Bytes::from(one.encode_to_vec())
    });
    let encoded = encoded.collect::<Vec<_>>();
    let items = if slices { encoded } else { vec![encoded.concat().into()] };
    (
        MessagesResponse { messages, ..rest.clone() },
        Ok(Outgoing::batch(items, lengths.len(), rest.encode_to_vec().into())),
    )
}

/// The pieces of a body, and its trailers.
async fn read(mut body: ResponseBody) -> (Vec<Bytes>, HeaderMap) {
    let mut pieces = Vec::new();
    loop {
        match body.frame().await.unwrap().unwrap().into_data() {
            Ok(piece) => pieces.push(piece),
            Err(trailers) => {
                assert!(body.is_end_stream() && body.frame().await.is_none());
                return (pieces, trailers.into_trailers().unwrap());
            }
        }
    }
}

/// The responses in the bytes of a body.
fn decode(pieces: &[Bytes]) -> Vec<MessagesResponse> {
    let mut bytes = Bytes::from(pieces.concat());
    let mut responses = Vec::new();
    while !bytes.is_empty() {
        let prefix = bytes.split_to(PREFIX_BYTES);
        let (compressed, length) = prefix.split_first().unwrap();
        assert_eq!(*compressed, 0);
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        responses.push(MessagesResponse::decode(bytes.split_to(length)).unwrap());
    }
    responses
}

#[tokio::test(start_paused = true)]
async fn responses_of_all_sizes_arrive_whole_in_pieces_that_fit_a_frame() {
    let sizes: [&[usize]; 7] = [
        &[],
        &[10],
        &[10, 5_000, 20, 30],
        &[100_000],
        &[2_000; 100],
        &[SLICE, SMALL, 1, SLICE - 1, SMALL + 1, 0],
        &[3],
    ];
    for slices in [false, true] {
        let all = sizes.iter().enumerate().map(|(n, lengths)| response(lengths, slices, &n.to_string()));
        let (expected, items): (Vec<_>, Vec<_>) = all.unzip();
        let (pieces, trailers) = read(body(stream::iter(items))).await;
        assert_eq!(decode(&pieces), expected);
        assert!(pieces.iter().all(|piece| (1..=SLICE).contains(&piece.len())));
        assert_eq!(trailers.get("grpc-status").unwrap(), "0");
    }
}

#[tokio::test(start_paused = true)]
async fn small_responses_that_are_ready_together_leave_in_one_frame_and_a_large_one_is_not_copied() {
    let (small, items): (Vec<_>, Vec<_>) = (0..100).map(|n| response(&[10], false, &n.to_string())).unzip();
    let (pieces, _) = read(body(stream::iter(items))).await;
    assert_eq!((pieces.len(), decode(&pieces)), (1, small));
    let item = Bytes::from(vec![7; 50_000]);
    let batch = Outgoing::batch(vec![item.clone()], 1, Bytes::new());
    let (pieces, _) = read(body(stream::iter([Ok(batch)]))).await;
    let of_item = item.as_ptr_range();
    let shared = pieces.iter().filter(|piece| of_item.contains(&piece.as_ptr()));
    assert_eq!(shared.map(Bytes::len).collect::<Vec<_>>(), [SLICE, SLICE, SLICE, 50_000 - 3 * SLICE]);
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_is_late_takes_no_later_one_with_it() {
    let (ready, waits) = futures::channel::oneshot::channel::<()>();
    let (first, second) = (response(&[10], false, "1").1, response(&[10], false, "2").1);
    let items = stream::iter([first]).chain(stream::once(async move {
        waits.await.unwrap();
        second
    }));
    let mut body = body(items);
    let wakes = Arc::new(Wakes::default());
    let waker = wakes.clone().into();
    let context = &mut Context::from_waker(&waker);
    assert!(Pin::new(&mut body).poll_frame(context).is_ready());
    body.responses.wake_late();
    assert!(Pin::new(&mut body).poll_frame(context).is_pending());
    let before = wakes.0.load(Ordering::Relaxed);
    ready.send(()).unwrap();
    assert_eq!(wakes.0.load(Ordering::Relaxed), before + 1);
    assert!(Pin::new(&mut body).poll_frame(context).is_ready());
}

#[tokio::test(start_paused = true)]
async fn what_was_ready_before_a_failure_leaves_before_its_status() {
    let (expected, item) = response(&[10], false, "c");
    let (pieces, trailers) = read(body(stream::iter([item, Err(status::draining())]))).await;
    assert_eq!(decode(&pieces), [expected]);
    let status = Status::from_header_map(&trailers).unwrap();
    assert_eq!((status.code(), status.details().is_empty()), (Code::Unavailable, false));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_a_piece_now_and_then_is_not_stalled_and_one_that_stops_gets_the_rest_and_the_reason()
 {
    let (expected, item) = response(&[100_000], false, "c");
    let mut body = body(stream::iter([item]).chain(stream::pending()));
    let mut pieces = Vec::new();
    for _ in 0..4 {
        pieces.push(body.frame().await.unwrap().unwrap().into_data().unwrap());
        tokio::time::sleep(STALL * 3 / 4).await;
    }
    tokio::time::sleep(STALL * 2).await;
    let (rest, trailers) = read(body).await;
    assert_eq!(decode(&[pieces, rest].concat()), [expected]);
    let status = Status::from_header_map(&trailers).unwrap();
    assert_eq!(status.get_details_error_info().unwrap().reason, "STALLED");
}

/// Bodies of one server that may hold this many bytes for their readers.
fn bodies(max_unsent: usize) -> impl Fn() -> ResponseBody {
    let config = Config { stall: STALL, max_unsent, ..Config::default() };
    let calls = Calls::new(config, CancellationToken::new(), &mut Registry::default());
    move || {
        let (_, item) = response(&[100_000], false, "c");
        let items = stream::iter([item]).chain(stream::pending());
        ResponseBody::new(calls.begin("Test", &Request::new(()), "").unwrap().serve(items))
    }
}

/// The pieces that are left of a body until it ends, and how it does.
async fn end(mut body: ResponseBody) -> (usize, Option<Status>) {
    let mut pieces = 0;
    loop {
        match tokio::time::timeout(STALL / 10, body.frame()).await {
            Ok(Some(Ok(frame))) if frame.is_data() => pieces += 1,
            Ok(Some(Err(status))) => return (pieces, Some(status)),
            Err(_) => return (pieces, None),
            Ok(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn above_the_limit_of_all_streams_the_longest_stalled_end_and_the_transport_resets_them() {
    let begin = bodies(350_000);
    let mut all = Vec::new();
    // One after the other, and the fourth exceeds the limit.
    for _ in 0..2 {
        all.push(begin());
        all.last_mut().unwrap().frame().await.unwrap().unwrap();
        tokio::time::sleep(STALL / 3).await;
    }
    let mut reading = begin();
    reading.frame().await.unwrap().unwrap();
    all.push(begin());
    all.last_mut().unwrap().frame().await.unwrap().unwrap();
    // It takes a piece now and then, and stays.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        reading.frame().await.unwrap().unwrap();
    }
    let mut ends = Vec::new();
    for body in all {
        ends.push(end(body).await);
    }
    let (first, others) = ends.split_first().unwrap();
    let (pieces, status) = (first.0, first.1.as_ref().unwrap());
    assert_eq!((pieces, status.code()), (0, Code::Unavailable));
    assert!(status.message().contains("--max-unsent"), "{status:?}");
    let reset = std::error::Error::source(status).unwrap().downcast_ref::<h2::Error>().unwrap();
    assert_eq!(reset.reason(), Some(h2::Reason::REFUSED_STREAM));
    assert!(others.iter().all(|(pieces, status)| *pieces > 0 && status.is_none()), "{others:?}");
    let (pieces, status) = end(reading).await;
    assert!(pieces > 0 && status.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_stalled_response_is_dropped_when_there_is_no_room_for_it() {
    let begin = bodies(150_000);
    let mut stalled = begin();
    stalled.frame().await.unwrap().unwrap();
    tokio::time::sleep(STALL * 2).await;
    let mut other = begin();
    other.frame().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (pieces, status) = end(stalled).await;
    assert_eq!((pieces, status.unwrap().code()), (0, Code::Unavailable));
    assert!(end(other).await.1.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_counted_until_it_has_left_or_is_dropped() {
    let (mut registry, config) = (Registry::default(), Config::default());
    let calls = Calls::new(config, CancellationToken::new(), &mut registry);
    let unsent = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("responses_unsent_bytes "));
        line.unwrap().parse::<usize>().unwrap()
    };
    let begin = || {
        let (_, item) = response(&[100_000], false, "c");
        ResponseBody::new(calls.begin("Test", &Request::new(()), "").unwrap().serve(stream::iter([item])))
    };
    let mut body = begin();
    assert_eq!(unsent(), 0);
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let waits = unsent();
    assert!(waits >= 100_000 - first.len(), "{waits}");
    body.frame().await.unwrap().unwrap();
    assert_eq!(unsent(), waits - SLICE);
    drop(body);
    assert_eq!(unsent(), 0);
    let _all = read(begin()).await;
    assert_eq!(unsent(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_streaming_method_is_replaced_and_others_are_not() {
    let config = Config::default();
    let calls = Calls::new(config, CancellationToken::new(), &mut Registry::default());
    let (expected, item) = response(&[10], false, "c");
    let responses = calls.begin("Test", &Request::new(()), "").unwrap().serve(stream::iter([item]));
    let served = Served::response(responses).into_inner();
    let response = http::Response::builder().header("x", "kept").extension(served.clone());
    let response = own_body(response.body(Body::empty()).unwrap());
    assert_eq!(response.headers().get("x").unwrap(), "kept");
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap().get("grpc-status").unwrap(), "0");
    assert_eq!(decode(&[collected.to_bytes()]), [expected]);
    assert!(served.collect::<Vec<_>>().await.is_empty(), "the stream was taken");
    let other = own_body(http::Response::new(Body::new(
        http_body_util::Full::new(Bytes::from_static(b"x")).map_err(|never| match never {}),
    )));
    assert_eq!(other.into_body().collect().await.unwrap().to_bytes(), "x");
}

#[tokio::test(start_paused = true)]
async fn a_generator_that_waits_is_polled_again_after_a_wake_or_for_another_task() {
    let (polls, waker) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicWaker::new()));
    let (counter, registered) = (polls.clone(), waker.clone());
    let mut body = body(stream::poll_fn(move |context| {
        registered.register(context.waker());
        match counter.fetch_add(1, Ordering::Relaxed) {
            0 | 3 => Poll::Ready(Some(response(&[10], false, "c").1)),
            _ => Poll::Pending,
        }
    }));
    let count = || polls.load(Ordering::Relaxed);
    let tasks = [Arc::<Wakes>::default(), Arc::default()];
    let mut poll = |task: usize| {
        let waker = Waker::from(tasks.get(task).unwrap().clone());
        Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker)).is_ready()
    };
    assert!(poll(0));
    assert_eq!(count(), 2, "more may be ready, and would leave in the same frame");
    assert_eq!((poll(0), poll(0), count()), (false, false, 2));
    waker.wake();
    assert_eq!(
        (tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed)), poll(0), count()),
        ([1, 0], false, 3)
    );
    waker.wake();
    assert!(poll(0));
    assert_eq!(count(), 5);
    assert_eq!((poll(1), count()), (false, 5));
    waker.wake();
    assert_eq!(tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed)), [2, 1]);
}

#[derive(Debug, Default)]
struct Wakes(AtomicUsize);

impl std::task::Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
