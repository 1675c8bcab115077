//! `PublishStream`.

use futures::TryStreamExt;

use super::*;
use crate::{
    client::test_server,
    proto::{publish_request::Content, publish_result::Outcome as Answer},
};

pub(super) fn message(topic: &str, text: &str) -> proto::PublishRequest {
    let content = Some(Content::Text(text.into()));
    proto::PublishRequest { topic: topic.into(), content, ..Default::default() }
}

fn request(topics: &[&str]) -> proto::PublishStreamRequest {
    proto::PublishStreamRequest { messages: topics.iter().map(|topic| message(topic, "x")).collect() }
}

/// All answers, and the end of the stream.
async fn publish(
    house: &mut House,
    requests: impl futures::Stream<Item = proto::PublishStreamRequest> + Send + 'static,
) -> (Vec<Answer>, Result<(), Status>) {
    let mut client = MessageServiceClient::new(house.connect().await);
    let mut stream = limited(client.publish_stream(requests)).await.unwrap().into_inner();
    let mut answers = Vec::new();
    loop {
        match limited(stream.message()).await {
            Ok(Some(response)) => {
                assert!(!response.results.is_empty());
                answers.extend(response.results.into_iter().map(|result| result.outcome.unwrap()));
            }
            Ok(None) => return (answers, Ok(())),
            Err(status) => return (answers, Err(status)),
        }
    }
}

fn sequences(answers: &[Answer]) -> Vec<i64> {
    let published = |answer: &Answer| match answer {
        Answer::Published(published) => published.sequence,
        Answer::Error(_) => None,
    };
    answers.iter().filter_map(published).collect()
}

#[tokio::test]
async fn every_message_of_a_publish_stream_is_answered_in_order() {
    let mut house = House::new().await;
    // More messages than the window holds, in requests of many sizes.
    let requests = stream::iter(1..=200).map(|size| request(&vec!["a"; size]));
    let (answers, end) = publish(&mut house, requests).await;
    end.unwrap();
    let expected = (1..=20_100).collect::<Vec<_>>();
    assert!(expected.len() > PUBLISH_WINDOW);
    assert_eq!(sequences(&answers), expected);
    assert_eq!(house.metric("items_total{method=\"PublishStream\"}"), 20_100);
    assert_eq!(house.metric("streams_ended_total{method=\"PublishStream\",code=\"OK\"}"), 1);
}

#[tokio::test]
async fn a_publish_stream_that_the_client_finished_counts_as_ok() {
    let house = House::new().await;
    let client = test_server::serve(routes(house.app.clone())).await;
    let messages = stream::iter((0..3).map(|_| message("a", "x")));
    let results = limited(client.publish_all(messages).try_collect::<Vec<_>>()).await.unwrap();
    assert_eq!(results.len(), 3);
    assert_eq!(house.metric("streams_ended_total{method=\"PublishStream\",code=\"OK\"}"), 1);
}

#[tokio::test]
async fn a_publish_stream_continues_with_a_window_of_one_message() {
    let mut house = House::new().await;
    house.app.config.publish_window = 1;
    house.app.config.batch_bytes = 1;
    let (answers, end) = publish(&mut house, stream::iter(vec![request(&["a", "b", "c"]); 3])).await;
    end.unwrap();
    assert_eq!(sequences(&answers), (1..=9).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refused_message_gets_an_error_in_its_place_and_the_publish_stream_continues() {
    let mut house = House::new().await;
    let expectation =
        |sequence| proto::PublishRequest { expected_sequence: Some(sequence), ..message("a", "x") };
    let requests = vec![
        request(&["a", "no topic", "a"]),
        proto::PublishStreamRequest { messages: vec![expectation(-1), expectation(7), expectation(2)] },
        request(&["*"]),
        request(&["a"]),
    ];
    let (answers, end) = publish(&mut house, stream::iter(requests)).await;
    end.unwrap();
    let outcomes = answers.iter().map(|answer| match answer {
        Answer::Published(published) => published.sequence.unwrap().to_string(),
        Answer::Error(error) => format!("{} {}", error.reason().as_str_name(), error.field),
    });
    let expected = [
        "1",
        "INVALID_FIELD topic",
        "2",
        "INVALID_FIELD expected_sequence",
        "SEQUENCE_MISMATCH ",
        "3",
        "INVALID_FIELD topic",
        "4",
    ];
    assert_eq!(outcomes.collect::<Vec<_>>(), expected);
    assert_eq!(house.metric("items_total{method=\"PublishStream\"}"), 4);
    let refusals =
        |reason| house.metric(&format!("refusals_total{{method=\"PublishStream\",reason=\"{reason}\"}}"));
    assert_eq!((refusals("INVALID_FIELD"), refusals("SEQUENCE_MISMATCH")), (3, 1));
}

#[tokio::test]
async fn published_and_refused_messages_have_separate_counters() {
    let mut house = House::new().await;
    let mut client = MessageServiceClient::new(house.connect().await);
    limited(client.publish(message("a", "x"))).await.unwrap();
    limited(client.publish(message("no topic", "x"))).await.unwrap_err();
    let batch = |topics: &[&str]| proto::PublishBatchRequest { messages: request(topics).messages };
    limited(client.publish_batch(batch(&["a", "b", "c"]))).await.unwrap();
    limited(client.publish_batch(batch(&["a", "*"]))).await.unwrap_err();
    let counted = |method| {
        let refusals = format!("refusals_total{{method=\"{method}\",reason=\"INVALID_FIELD\"}}");
        (house.metric(&format!("items_total{{method=\"{method}\"}}")), house.metric(&refusals))
    };
    assert_eq!((counted("Publish"), counted("PublishBatch")), ((1, 1), (3, 2)));
}

#[tokio::test]
async fn a_request_without_messages_ends_the_publish_stream_after_the_earlier_answers() {
    let mut house = House::new().await;
    let requests = stream::iter([request(&["a", "a"]), request(&[]), request(&["a"])]);
    let (answers, end) = publish(&mut house, requests).await;
    assert_eq!(sequences(&answers), [1, 2]);
    let status = end.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "messages");
}

#[tokio::test]
async fn a_request_that_is_too_large_ends_the_publish_stream_with_an_error() {
    let mut house = House::new().await;
    let large = proto::PublishStreamRequest { messages: vec![message("a", &"x".repeat(PUBLISH_BYTES))] };
    let (answers, end) = publish(&mut house, stream::iter([request(&["a", "a"]), large])).await;
    assert_eq!(sequences(&answers), [1, 2]);
    let status = end.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "REQUEST_TOO_LARGE"));
}

#[tokio::test]
async fn a_draining_server_answers_the_messages_that_it_has_read_and_ends_the_publish_stream() {
    let mut house = House::new().await;
    let shutdown = house.shutdown.clone();
    // The client has not closed its side: without the shutdown, the stream would stay open.
    let requests = stream::iter([request(&["a", "a"])]).chain(stream::pending());
    let mut client = MessageServiceClient::new(house.connect().await);
    let mut answers = limited(client.publish_stream(requests)).await.unwrap().into_inner();
    let first = limited(answers.message()).await.unwrap().unwrap();
    assert_eq!(first.results.len(), 2);
    shutdown.cancel();
    let status = limited(answers.message()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DRAINING"));
    assert!(status.get_details_retry_info().is_some());
}

#[tokio::test]
async fn a_publish_stream_is_not_read_on_while_its_client_reads_no_answers() {
    let mut house = House::new().await;
    house.app.config.publish_window = 10;
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = sent.clone();
    let requests = stream::repeat_with(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        request(&["a"; 10])
    });
    let endpoint = Endpoint::from_static("http://in.process").initial_stream_window_size(1024);
    let mut client = MessageServiceClient::new(house.connect_with(&endpoint).await);
    let answers = limited(client.publish_stream(requests)).await.unwrap().into_inner();
    // The client stops sending when the server stops reading. A server that read on would never stop it.
    let mut before = usize::MAX;
    let stopped = async {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = sent.load(std::sync::atomic::Ordering::Relaxed);
            if now == before {
                break;
            }
            before = now;
        }
    };
    limited(stopped).await;
    drop(answers);
}
