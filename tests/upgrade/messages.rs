//! Messages and consumers.

use perennial::proto::{
    ConsumerInfo, ListConsumersRequest, ListTopicsRequest, MessagesRequest, MessagesResponse,
    PublishBatchRequest, PublishRequest, StoredMessage, messages_request::Start, publish_request,
    stored_message::Content,
};
use tonic::Streaming;

use super::{Facts, Server, all, next, upgraded};

/// A request of topics that ends where the log does.
fn request(topics: &str) -> MessagesRequest {
    MessagesRequest { topics: vec![topics.into()], until_caught_up: true, ..Default::default() }
}

async fn open(server: &Server, request: MessagesRequest) -> Streaming<MessagesResponse> {
    server.messages().await.messages(request).await.unwrap().into_inner()
}

async fn sequences(server: &Server, request: MessagesRequest) -> Vec<i64> {
    let responses = all(open(server, request).await).await;
    responses.iter().flat_map(|response| &response.messages).map(|m| m.sequence.unwrap()).collect()
}

async fn resumed(server: &Server, facts: &Facts, topics: &str, cursor: &str) -> Vec<i64> {
    sequences(server, MessagesRequest { cursor: facts.cursor(cursor), ..request(topics) }).await
}

#[tokio::test]
async fn every_message_is_there_as_it_was_published() {
    let (server, _) = upgraded();
    let start = Some(Start::Earliest(true));
    let responses = all(open(&server, MessagesRequest { start, ..request("orders.>") }).await).await;
    let messages = responses.into_iter().flat_map(|response| response.messages).collect::<Vec<_>>();
    let text = |n: i64| Content::Text(format!("order {n}"));
    for (message, n) in messages.iter().zip(1..9) {
        let topic = if n % 2 == 1 { "orders.eu" } else { "orders.us" };
        assert_eq!((message.sequence, message.topic.as_str()), (Some(n), topic));
        assert_eq!(message.content, Some(text(n)));
    }
    let StoredMessage { sequence, key, headers, content, message_id, publish_time, .. } = &messages[8];
    assert_eq!((*sequence, key.as_deref(), message_id.as_deref()), (Some(9), Some("k"), Some("id-9")));
    assert_eq!((headers.len(), headers["a"].as_str()), (1, "b"));
    assert_eq!(*content, Some(Content::Data(vec![0, 159, 146, 150])));
    assert!(publish_time.unwrap().seconds > 1_700_000_000);
    assert_eq!(messages.len(), 9);

    let topics = server.messages().await.list_topics(ListTopicsRequest::default()).await.unwrap();
    let topics = topics.into_inner().topics.into_iter().map(|topic| (topic.name, topic.message_count));
    let expected =
        [("ends.ended", 1), ("gaps", 1), ("orders.eu", 4), ("orders.us", 5), ("state.a", 2), ("state.b", 1)];
    let expected = expected.map(|(topic, count)| (topic.to_owned(), Some(count)));
    assert_eq!(topics.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_time_selects_from_what_the_earlier_build_published() {
    let (server, _) = upgraded();
    let start = Some(Start::Earliest(true));
    let responses = all(open(&server, MessagesRequest { start, ..request("orders.>") }).await).await;
    let messages = responses.into_iter().flat_map(|response| response.messages).collect::<Vec<_>>();
    let times = messages.iter().map(|message| message.publish_time.unwrap()).collect::<Vec<_>>();
    let key = |time: prost_types::Timestamp| (time.seconds, time.nanos);
    for from in &times {
        for until in &times {
            let start = Some(Start::FromTime(*from));
            let request = MessagesRequest { start, until_time: Some(*until), ..request("orders.>") };
            let is_wanted = |time: &prost_types::Timestamp| (key(*from)..=key(*until)).contains(&key(*time));
            let expected = messages.iter().zip(&times).filter(|(_, time)| is_wanted(time));
            let expected = expected.map(|(message, _)| message.sequence.unwrap()).collect::<Vec<_>>();
            assert_eq!(sequences(&server, request).await, expected);
        }
    }
}

#[tokio::test]
async fn every_cursor_of_messages_resumes_exactly() {
    let (server, facts) = upgraded();
    assert_eq!(resumed(&server, &facts, "orders.>", "messages.after-3").await, [4, 5, 6, 7, 8, 9]);
    // Between the last messages of two topics.
    assert_eq!(resumed(&server, &facts, "state.>", "messages.snapshot").await, [12]);
    // The gap before it was reported before the cursor, and is not reported again.
    let last = facts.number::<i64>("messages.last-gap");
    assert_eq!(resumed(&server, &facts, "gaps", "messages.gap").await, [last]);

    let cursor = facts.cursor("messages.awaited");
    let mut awaiting =
        open(&server, MessagesRequest { cursor, until_caught_up: false, ..request("orders.>") }).await;
    assert_eq!(next(&mut awaiting).await.messages.len(), 0);
    let message = PublishRequest {
        topic: "orders.eu".into(),
        content: Some(publish_request::Content::Text("later".into())),
        ..Default::default()
    };
    let batch = PublishBatchRequest { messages: vec![message; 1_000] };
    let published = server.messages().await.publish_batch(batch).await.unwrap().into_inner();
    assert!(published.results[0].sequence < Some(1_000));
    let first = loop {
        let response = next(&mut awaiting).await;
        if let Some(first) = response.messages.first() {
            break first.sequence;
        }
    };
    assert_eq!(first, Some(1_000));
}

#[tokio::test]
async fn every_consumer_goes_on_after_what_it_committed() {
    let (server, _) = upgraded();
    let consumers = server.messages().await.list_consumers(ListConsumersRequest::default()).await.unwrap();
    // What it committed is a position in the log, after three messages that it did not ask for.
    let at = |consumer: &ConsumerInfo| (consumer.name.clone(), consumer.sequence);
    let consumers = consumers.into_inner().consumers;
    assert_eq!(
        consumers.iter().map(at).collect::<Vec<_>>(),
        [("audit".into(), Some(12)), ("billing".into(), Some(3))]
    );
    let as_consumer =
        |consumer: &str| MessagesRequest { consumer: Some(consumer.into()), ..request("orders.>") };
    assert_eq!(sequences(&server, as_consumer("billing")).await, [4, 5, 6, 7, 8, 9]);
    assert_eq!(sequences(&server, as_consumer("audit")).await, [0; 0]);
}
