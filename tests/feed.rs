//! Messages as a feed: state and its changes, consumers, gaps, expiry and retention, over the real server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use std::{pin::pin, time::Duration};

use futures::StreamExt;
use harness::{Server, soon, until};
use perennial::{
    client::{Client, Error},
    proto::{
        CommitCursorRequest, DeleteConsumerRequest, ListConsumersRequest, MessageGap, MessageGapReason,
        MessagesRequest, MessagesResponse, OnGap, PublishRequest, PurgeTopicRequest,
        message_stream_event::Event, messages_request::Start, publish_request, stored_message::Content,
    },
};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

async fn publish(server: &Server, topic: &str, text: &str) -> i64 {
    publish_for(server, topic, text, None).await
}

async fn publish_for(server: &Server, topic: &str, text: &str, ttl: Option<Duration>) -> i64 {
    let request = PublishRequest {
        topic: topic.into(),
        content: Some(publish_request::Content::Text(text.into())),
        ttl: ttl.map(|ttl| ttl.try_into().unwrap()),
        ..Default::default()
    };
    server.messages().await.publish(request).await.unwrap().into_inner().sequence.unwrap()
}

fn texts(response: &MessagesResponse) -> Vec<String> {
    let text = |content: &Content| match content {
        Content::Text(text) => text.clone(),
        Content::Data(data) => panic!("not text: {data:?}"),
    };
    response.messages.iter().map(|message| text(message.content.as_ref().unwrap())).collect()
}

fn request(topics: &[&str], start: Option<Start>) -> MessagesRequest {
    let topics = topics.iter().map(ToString::to_string).collect();
    MessagesRequest { topics, start, ..Default::default() }
}

async fn open(server: &Server, request: MessagesRequest) -> Streaming<MessagesResponse> {
    server.messages().await.messages(request).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<MessagesResponse>) -> MessagesResponse {
    soon("a response", stream.message()).await.unwrap().expect("the stream goes on")
}

/// The texts of all that is there, by the responses of a bounded read.
async fn all(server: &Server, request: MessagesRequest) -> Vec<String> {
    let mut stream = open(server, MessagesRequest { until_caught_up: true, ..request }).await;
    let mut seen = Vec::new();
    while let Some(response) = soon("a response", stream.message()).await.unwrap() {
        seen.extend(texts(&response));
    }
    seen
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

fn detail(status: &Status, name: &str) -> Option<String> {
    status.get_error_details().error_info()?.metadata.get(name).cloned()
}

#[tokio::test]
async fn a_feed_begins_with_the_state_and_goes_on_with_its_changes_across_kill_9() {
    let mut server = Server::start();
    for n in 0..3 {
        for topic in ["state.a", "state.b", "state.c", "other"] {
            publish(&server, topic, &format!("{topic} {n}")).await;
        }
    }
    let asked =
        MessagesRequest { max_batch: Some(1), ..request(&["state.*"], Some(Start::LastPerTopic(true))) };
    let (mut seen, mut cursor) = (Vec::new(), None);
    for n in 0..4 {
        let mut stream = open(&server, MessagesRequest { cursor, ..asked.clone() }).await;
        let response = next(&mut stream).await;
        seen.extend(texts(&response));
        cursor = Some(response.cursor);
        if n == 1 {
            server.kill();
            server.restart();
            publish(&server, "state.a", "state.a changed").await;
        }
    }
    assert_eq!(seen, ["state.a 2", "state.b 2", "state.c 2", "state.a changed"]);
}

#[tokio::test]
async fn a_consumer_goes_on_where_it_committed_also_after_kill_9() {
    let mut server = Server::start();
    for n in 0..6 {
        publish(&server, "jobs", &n.to_string()).await;
    }
    let asked = MessagesRequest {
        consumer: Some("worker".into()),
        max_batch: Some(2),
        ..request(&["jobs"], Some(Start::Earliest(true)))
    };
    let mut stream = open(&server, asked.clone()).await;
    let (first, second) = (next(&mut stream).await, next(&mut stream).await);
    drop(stream);
    let commit = |cursor: &str, rewind| CommitCursorRequest {
        consumer: "worker".into(),
        cursor: cursor.into(),
        rewind,
    };
    server.messages().await.commit_cursor(commit(&second.cursor, false)).await.unwrap();
    server.kill();
    server.restart();
    assert_eq!(texts(&next(&mut open(&server, asked.clone()).await).await), ["4", "5"]);
    let moved_back = server.messages().await.commit_cursor(commit(&first.cursor, false)).await.unwrap_err();
    assert_eq!((moved_back.code(), reason(&moved_back)), (Code::FailedPrecondition, "COMMIT_BEHIND".into()));
    server.messages().await.commit_cursor(commit(&first.cursor, true)).await.unwrap();
    assert_eq!(texts(&next(&mut open(&server, asked.clone()).await).await), ["2", "3"]);
    let listed = server.messages().await.list_consumers(ListConsumersRequest::default()).await.unwrap();
    let consumers = listed.into_inner().consumers;
    assert_eq!((consumers.len(), consumers[0].sequence), (1, Some(2)));
    assert_eq!((&consumers[0].name, &consumers[0].cursor), (&"worker".into(), &first.cursor));
    let delete = DeleteConsumerRequest { consumer: "worker".into() };
    server.messages().await.delete_consumer(delete.clone()).await.unwrap();
    let gone = server.messages().await.delete_consumer(delete).await.unwrap_err();
    assert_eq!((gone.code(), reason(&gone)), (Code::NotFound, "CONSUMER_NOT_FOUND".into()));
    assert_eq!(texts(&next(&mut open(&server, asked).await).await), ["0", "1"]);
}

#[tokio::test]
async fn a_reader_that_is_taken_over_is_told_and_our_client_does_not_come_back() {
    let server = Server::start();
    publish(&server, "jobs", "1").await;
    let asked = MessagesRequest {
        consumer: Some("worker".into()),
        ..request(&["jobs"], Some(Start::Earliest(true)))
    };
    let client = Client::new(&server.url()).unwrap();
    let mut first = pin!(client.messages(asked.clone()).responses());
    assert_eq!(texts(&soon("a response", first.next()).await.unwrap().unwrap()), ["1"]);
    let mut second = open(&server, asked.clone()).await;
    assert_eq!(texts(&next(&mut second).await), ["1"]);
    let ended = soon("the end", first.next()).await.unwrap().unwrap_err();
    let Error::Status { code, reason, .. } = &ended else { panic!("{ended}") };
    assert_eq!((*code, reason.as_deref()), (Code::Aborted, Some("CONSUMER_TAKEN_OVER")));
    assert!(!ended.is_retryable());
    assert!(soon("the end", first.next()).await.is_none());
    publish(&server, "jobs", "2").await;
    assert_eq!(texts(&next(&mut second).await), ["2"], "the second one was not replaced");
    let third = open(&server, asked).await;
    let ended = soon("the end", second.message()).await.unwrap_err();
    assert_eq!((ended.code(), self::reason(&ended)), (Code::Aborted, "CONSUMER_TAKEN_OVER".into()));
    drop(third);
}

#[tokio::test]
async fn what_was_purged_is_an_error_with_both_ends_of_the_log_or_told_in_an_event() {
    let mut server = Server::start();
    for n in 1..=6 {
        publish(&server, if n % 2 == 1 { "a" } else { "b" }, &n.to_string()).await;
    }
    let first = MessagesRequest { limit: Some(1), ..request(&[">"], Some(Start::Earliest(true))) };
    let cursor = next(&mut open(&server, first).await).await.cursor;
    let purge = PurgeTopicRequest { topic: "a".into(), until_sequence: Some(3) };
    let purged = server.messages().await.purge_topic(purge).await.unwrap().into_inner();
    assert_eq!(purged.message_count, Some(2));
    server.kill();
    server.restart();
    let resumed = MessagesRequest { cursor: Some(cursor), ..request(&[">"], None) };
    let refused = server.messages().await.messages(resumed.clone()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::OutOfRange, "CURSOR_EXPIRED".into()));
    assert_eq!(detail(&refused, "oldest").as_deref(), Some("2"));
    assert_eq!(detail(&refused, "newest").as_deref(), Some("6"));
    let skipping = MessagesRequest { on_gap: OnGap::Skip.into(), ..resumed.clone() };
    let mut stream = open(&server, skipping).await;
    let response = next(&mut stream).await;
    let gap = MessageGap {
        first_sequence: Some(2),
        last_sequence: Some(3),
        reason: MessageGapReason::Removed.into(),
    };
    assert_eq!(
        response.events.iter().map(|event| event.event.clone()).collect::<Vec<_>>(),
        [Some(Event::Gap(gap))]
    );
    assert_eq!(texts(&next(&mut stream).await), ["2", "4", "5", "6"]);
    let of_b = MessagesRequest { topics: vec!["b".into()], ..resumed };
    assert_eq!(all(&server, of_b).await, ["2", "4", "6"], "no message of b is gone");
    let nothing = PurgeTopicRequest { topic: "none".into(), until_sequence: None };
    let refused = server.messages().await.purge_topic(nothing).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::NotFound, "TOPIC_NOT_FOUND".into()));
}

#[tokio::test]
async fn a_message_is_there_until_its_ttl_is_over_and_is_no_gap_then() {
    let mut server = Server::start();
    publish_for(&server, "a", "short", Some(Duration::from_secs(2))).await;
    publish_for(&server, "a", "long", Some(Duration::from_secs(3600))).await;
    let from_first = || request(&["a"], Some(Start::FromSequence(1)));
    let mut stream = open(&server, from_first()).await;
    assert_eq!(texts(&next(&mut stream).await), ["short", "long"]);
    until("the message expires", async || all(&server, from_first()).await == ["long"]).await;
    server.kill();
    server.restart();
    assert_eq!(all(&server, from_first()).await, ["long"]);
}

#[tokio::test]
async fn retention_is_enforced_within_its_interval_while_messages_come() {
    let rules = ["--retain", "events.>=count:5", "--retain", "state.>=last", "--retain", "old=age:1s"];
    let server = Server::start_with(&[&rules[..], &["--retention-interval", "200ms"]].concat());
    let client = Client::new(&server.url()).unwrap();
    publish(&server, "old", "old").await;
    for n in 0..30 {
        publish(&server, "events.x", &n.to_string()).await;
        publish(&server, "state.x", &n.to_string()).await;
        publish(&server, "kept", &n.to_string()).await;
    }
    until("retention", async || {
        let topics = client.list_topics("").await.unwrap();
        let counts = topics.iter().map(|topic| (topic.name.as_str(), topic.message_count.unwrap()));
        counts.collect::<Vec<_>>() == [("events.x", 5), ("kept", 30), ("state.x", 1)]
    })
    .await;
    let earliest = |topics: &[&str]| request(topics, Some(Start::Earliest(true)));
    assert_eq!(all(&server, earliest(&["events.*"])).await, ["25", "26", "27", "28", "29"]);
    assert_eq!(all(&server, earliest(&["state.*"])).await, ["29"]);
    let from_first = request(&["events.x"], Some(Start::FromSequence(1)));
    let gone = server.messages().await.messages(from_first).await.unwrap_err();
    assert_eq!((gone.code(), reason(&gone)), (Code::OutOfRange, "CURSOR_EXPIRED".into()));
    let state = request(&["state.x", "kept"], Some(Start::FromSequence(1)));
    assert_eq!(all(&server, state).await.len(), 31, "what was superseded is no gap");
}

#[tokio::test]
async fn a_stream_that_stops_at_a_sequence_ends_when_others_reach_it() {
    let server = Server::start();
    // Without a heartbeat, which would end it too.
    let heartbeat = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let asked = MessagesRequest { until_sequence: Some(2), heartbeat, ..request(&["a"], None) };
    let mut stream = open(&server, asked).await;
    next(&mut stream).await;
    for _ in 0..2 {
        publish(&server, "b", "x").await;
    }
    soon("the end", async {
        while let Some(response) = stream.message().await.unwrap() {
            assert!(response.messages.is_empty());
        }
    })
    .await;
}
