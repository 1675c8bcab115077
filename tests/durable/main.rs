//! Promise 4: a published message is acknowledged after it is on disk, and is visible to readers only then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod backup;
mod clients;
mod full;
mod history;
mod kill;
mod room;
mod synced;

use std::{collections::BTreeMap, process::Stdio};

use harness::{Server, server_command, soon};
use perennial::proto::{
    ErrorReason, MessagesRequest, PublishRequest, PublishStreamRequest, messages_request, publish_request,
    publish_result, stored_message::Content,
};

fn text(topic: &str, text: &str) -> PublishRequest {
    PublishRequest {
        topic: topic.into(),
        content: Some(publish_request::Content::Text(text.into())),
        ..Default::default()
    }
}

/// All there is, by sequence.
async fn everything(server: &Server) -> BTreeMap<i64, String> {
    let request = MessagesRequest {
        topics: vec![">".into()],
        start: Some(messages_request::Start::Earliest(true)),
        until_caught_up: true,
        ..Default::default()
    };
    let mut stream = server.messages().await.messages(request).await.unwrap().into_inner();
    let (mut all, mut newest) = (BTreeMap::new(), 0);
    while let Some(response) = soon("messages", stream.message()).await.unwrap() {
        assert!(response.events.is_empty(), "{:?}", response.events);
        for message in response.messages {
            let sequence = message.sequence.unwrap();
            assert!(sequence > newest, "{sequence} after {newest}");
            newest = sequence;
            let Some(Content::Text(text)) = message.content else { panic!("{:?}", message.content) };
            all.insert(sequence, text);
        }
    }
    all
}

#[tokio::test]
async fn every_acknowledged_message_outlives_kill_9() {
    const ROUNDS: usize = 8;
    let mut server = Server::start_apart();
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut client = server.messages().await;
        let (sender, receiver) = tokio::sync::mpsc::channel::<PublishStreamRequest>(4);
        let feeder = tokio::spawn(async move {
            for n in 0.. {
                let messages =
                    (0..50).map(|m| text(&format!("t.{}", m % 7), &format!("{round}/{n}/{m}"))).collect();
                if sender.send(PublishStreamRequest { messages }).await.is_err() {
                    return;
                }
            }
        });
        let flow = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut answers = client.publish_stream(flow).await.unwrap().into_inner();
        let (mut answered, enough) = (0_usize, 300 + 100 * round);
        let mut killed = false;
        // The server is killed with messages in flight; answers that were on their way still arrive.
        while let Ok(Some(response)) = soon("answers", answers.message()).await {
            for result in response.results {
                let Some(publish_result::Outcome::Published(published)) = result.outcome else {
                    panic!("{result:?}")
                };
                let text = format!("{round}/{}/{}", answered / 50, answered % 50);
                assert_eq!(acknowledged.insert(published.sequence.unwrap(), text), None);
                answered += 1;
            }
            if answered >= enough && !killed {
                server.kill();
                killed = true;
            }
        }
        assert!(killed, "the flow ended by itself after {answered} answers");
        feeder.abort();
        server.restart();
        let stored = everything(&server).await;
        for (sequence, text) in &acknowledged {
            assert_eq!(stored.get(sequence), Some(text), "round {round}: acknowledged, then lost or changed");
        }
    }
}

#[tokio::test]
async fn a_message_published_again_under_its_id_is_stored_once_also_after_a_restart() {
    let mut server = Server::start();
    let request = PublishRequest { message_id: Some("order-1".into()), ..text("a", "hello") };
    let first = server.messages().await.publish(request.clone()).await.unwrap().into_inner();
    assert!(!first.duplicate);
    server.kill();
    server.restart();
    let second = server.messages().await.publish(request).await.unwrap().into_inner();
    assert!(second.duplicate);
    assert_eq!(second.sequence, first.sequence);
    assert_eq!(second.publish_time, first.publish_time);
    assert_eq!(everything(&server).await.len(), 1);
}

#[tokio::test]
async fn a_bad_message_of_a_flow_gets_its_own_error_in_its_place() {
    let server = Server::start();
    let flow = [
        PublishStreamRequest { messages: vec![text("a", "1"), text("a b", "2"), text("a", "3")] },
        PublishStreamRequest { messages: vec![text("a", "4")] },
    ];
    let mut client = server.messages().await;
    let mut answers = client.publish_stream(tokio_stream::iter(flow)).await.unwrap().into_inner();
    let mut results = Vec::new();
    while let Some(response) = soon("answers", answers.message()).await.unwrap() {
        results.extend(response.results.into_iter().map(|result| result.outcome.unwrap()));
    }
    let published =
        results.iter().map(|r| matches!(r, publish_result::Outcome::Published(_))).collect::<Vec<_>>();
    assert_eq!(published, [true, false, true, true]);
    let publish_result::Outcome::Error(error) = &results[1] else { panic!() };
    assert_eq!((error.reason(), error.field.as_str()), (ErrorReason::InvalidField, "topic"));
    let stored = everything(&server).await;
    assert_eq!(stored.into_values().collect::<Vec<_>>(), ["1", "3", "4"]);
}

#[test]
fn a_second_server_over_the_same_data_is_refused_with_the_process_that_holds_it() {
    let server = Server::start();
    let output = server_command(server.directory(), "127.0.0.1:0").stderr(Stdio::piped()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&server.id().to_string()), "{stderr}");
}
