//! Bodies in virtual time.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use prometheus_client::registry::Registry;
use tonic_types::StatusExt;

use super::*;
use crate::grpc::{
    call::{self, Calls},
    gate::method::Methods,
};

const STALL: Duration = Duration::from_secs(60);

const BATCH: &str = "/perennial.v1.MessageService/PublishBatch";

const STREAM: &str = "/perennial.v1.MessageService/PublishStream";

fn message(length: usize) -> Vec<u8> {
    let length_bytes = u32::try_from(length).unwrap().to_be_bytes();
    // A field of an unknown number.
    let content = [&[0x78][..], &vec![0x80; length.saturating_sub(2)], &[0]].concat();
    [&[0][..], &length_bytes, &content[..length]].concat()
}

/// What a body gave, and the reason and the time of its end if it failed.
type Given = (Vec<Vec<u8>>, Option<(String, Duration)>);

/// What a body gives for these chunks, with 1 ms between them, and then its end or nothing.
async fn given(path: &str, chunks: Vec<Vec<u8>>, ends: bool) -> Given {
    given_slowly(path, chunks, Duration::from_millis(1), ends).await
}

/// The same, with this pause before each chunk.
async fn given_slowly(path: &str, chunks: Vec<Vec<u8>>, pause: Duration, ends: bool) -> Given {
    let chunks = stream::iter(chunks).then(move |chunk| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, BoxError>(Frame::data(Bytes::from(chunk)))
    });
    let body = if ends { chunks.boxed() } else { chunks.chain(stream::pending()).boxed() };
    let config = call::Config { max_buffered_per_connection: 64 * 1024, ..call::Config::default() };
    let calls = Calls::new(config, CancellationToken::new(), &mut Registry::default());
    let connection = calls.connection(
        1,
        crate::grpc::call::Peer::Address("[::1]:1".parse().unwrap()),
        CancellationToken::new(),
    );
    let limits = Limits { deadline: None, stall: STALL, ends: CancellationToken::new() };
    let method = Methods::new(&crate::grpc::Config::default(), 1).find(path).unwrap().clone();
    let mut intake = Intake::new(StreamBody::new(body), method, connection.buffers.part(), limits);
    let (mut frames, began) = (Vec::new(), Instant::now());
    let failure = loop {
        match tokio::time::timeout(10 * STALL, intake.frame()).await {
            Ok(Some(Ok(frame))) => frames.push(frame.into_data().unwrap().to_vec()),
            Ok(Some(Err(error))) => {
                let status = error.downcast::<Status>().unwrap();
                break Some((status.get_details_error_info().unwrap().reason, began.elapsed()));
            }
            Ok(None) | Err(_) => break None,
        }
    };
    (frames, failure)
}

#[tokio::test(start_paused = true)]
async fn a_message_is_given_when_its_last_byte_has_arrived() {
    let bytes = message(5_000);
    for cuts in [vec![], vec![1], vec![3, 5], vec![5], vec![7, 1_000, 4_999], vec![5_004]] {
        let mut chunks = Vec::new();
        let mut at = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            chunks.push(bytes[at..cut].to_vec());
            at = cut;
        }
        let (frames, failure) = given(BATCH, chunks, true).await;
        assert_eq!(frames, std::slice::from_ref(&bytes), "{cuts:?}");
        assert_eq!(failure, None);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_stream_are_given_as_they_are_complete() {
    let (one, two, three) = (message(10), message(0), message(3_000));
    let bytes = [&one[..], &two, &three, &one].concat();
    for cut in [1, 10, 15, 17, 20, 25, 1_000, bytes.len() - 1, bytes.len()] {
        let (frames, failure) = given(STREAM, vec![bytes[..cut].to_vec(), bytes[cut..].to_vec()], true).await;
        assert_eq!(frames.concat(), bytes, "{cut}");
        assert_eq!(failure, None);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_before_a_fault_are_given_first() {
    let (good, large) = (message(10), message(5 * 1024 * 1024));
    let chunk = [&good[..], &good, &large[..100]].concat();
    let (frames, failure) = given(STREAM, vec![chunk], true).await;
    assert_eq!(frames, [good.repeat(2)]);
    assert_eq!(failure.unwrap().0, "REQUEST_TOO_LARGE");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_ends_within_a_message_is_malformed() {
    for cut in [1, 5, 10] {
        let (frames, failure) = given(BATCH, vec![message(10)[..cut].to_vec()], true).await;
        assert!(frames.is_empty());
        assert_eq!(failure.unwrap().0, "REQUEST_MALFORMED");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_stops_arriving_is_stalled_and_a_slow_one_is_not() {
    let bytes = message(10);
    let (frames, failure) = given(BATCH, vec![bytes[..7].to_vec()], false).await;
    let (reason, after) = failure.unwrap();
    assert!(frames.is_empty() && reason == "STALLED");
    assert!(after >= STALL && after < STALL + Duration::from_secs(1), "{after:?}");
    // 100 chunks, more than `STALL` in all.
    let body = stream::iter(message(95)).then(|byte| async move {
        tokio::time::sleep(STALL / 50).await;
        Ok::<_, BoxError>(Frame::data(Bytes::from(vec![byte])))
    });
    let calls = Calls::new(call::Config::default(), CancellationToken::new(), &mut Registry::default());
    let connection = calls.connection(
        1,
        crate::grpc::call::Peer::Address("[::1]:1".parse().unwrap()),
        CancellationToken::new(),
    );
    let limits = Limits { deadline: None, stall: STALL, ends: CancellationToken::new() };
    let method = Methods::new(&crate::grpc::Config::default(), 1).find(BATCH).unwrap().clone();
    let intake = Intake::new(StreamBody::new(body.boxed()), method, connection.buffers.part(), limits);
    assert_eq!(intake.collect().await.unwrap().to_bytes(), message(95));
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_requests_may_be_quiet_between_messages_only() {
    let bytes = message(10);
    let (frames, failure) = given(STREAM, vec![bytes.clone()], false).await;
    assert_eq!((frames.len(), failure), (1, None));
    let (frames, failure) = given(STREAM, vec![bytes.clone(), bytes[..7].to_vec()], false).await;
    assert_eq!((frames.len(), failure.unwrap().0.as_str()), (1, "STALLED"));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_wait_are_bounded() {
    let bytes = message(100 * 1024);
    let chunks = bytes.chunks(10_000).map(<[u8]>::to_vec).collect();
    let (frames, failure) = given(BATCH, chunks, false).await;
    assert!(frames.is_empty());
    assert_eq!(failure.unwrap().0, "BUFFERS_FULL");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_byte_by_byte_must_be_complete_in_time() {
    let second = Duration::from_secs(1);
    let bytes = |message: &[u8]| message.iter().map(|byte| vec![*byte]).collect::<Vec<_>>();
    // The time of a message of a stream begins with its first byte, whenever that comes.
    for (path, begin) in [(BATCH, Duration::ZERO), (STREAM, second)] {
        let late = Some(("STALLED".into(), 4 * STALL + begin));
        let (frames, failure) = given_slowly(path, bytes(&message(1_000)), second, true).await;
        assert_eq!((frames, failure), (vec![], late), "{path}");
        // In time.
        let slow = message(200);
        assert_eq!(given_slowly(path, bytes(&slow), second, true).await, (vec![slow], None), "{path}");
    }
    // Each message of a stream has its own time, also if its beginning comes with the end of the one before.
    let (message, count) = (message(200), 6);
    let chunks = message.repeat(count).chunks(16).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (frames, failure) = given_slowly(STREAM, chunks, 10 * second, true).await;
    assert_eq!((frames.len(), failure), (count, None));
    let late =
        given_slowly(STREAM, vec![message[..100].to_vec(), message[100..].to_vec()], 9 * STALL, true).await;
    assert_eq!(late, (vec![], Some(("STALLED".into(), 10 * STALL))), "it began in time, and then stalled");
    let (frames, failure) = given_slowly(STREAM, vec![message.clone(); 3], 9 * STALL, true).await;
    assert_eq!((frames.len(), failure), (3, None));
    // After its message, the end of a request must come.
    let endless = given_slowly(BATCH, vec![message.clone()], second, false).await;
    assert_eq!(endless, (vec![message], Some(("STALLED".into(), STALL + second))));
}
