//! Servers that all run: live delivery, catching up, cursors, consumers and shared countdowns across them.

use perennial::proto::{
    CommitCursorRequest, CountdownRequest, CountdownState, CreateCountdownRequest, Durability, EndMessage,
    ListConsumersRequest, countdown_request, create_countdown_request, end_message,
};

use super::*;
use crate::harness::soon;

/// The texts of a stream up to this many, and the cursor after them.
async fn read(stream: &mut tonic::Streaming<MessagesResponse>, count: usize) -> (Vec<String>, String) {
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    while seen.len() < count {
        let response = soon("messages", stream.message()).await.unwrap().unwrap();
        seen.extend(texts(&response).into_iter().map(|(_, text)| text));
        cursor = response.cursor;
    }
    (seen, cursor)
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_message_of_one_server_is_delivered_at_all_and_a_cursor_of_one_resumes_at_another() {
    let nats = Nats::start().await;
    let servers = servers(&nats);
    let mut live = Vec::new();
    for server in &servers {
        let request = MessagesRequest { topics: vec!["orders.>".into()], ..Default::default() };
        let mut stream = server.messages().await.messages(request).await.unwrap().into_inner();
        soon("the first response", stream.message()).await.unwrap();
        live.push(stream);
    }
    let expected = (0..30).map(|n| n.to_string()).collect::<Vec<_>>();
    for (n, content) in expected.iter().enumerate() {
        let mut client = servers[n % SERVERS].messages().await;
        let published = client.publish(text("orders.eu", content)).await.unwrap().into_inner();
        assert_eq!(published.durability(), Durability::Replicated);
    }
    for stream in &mut live {
        assert_eq!(read(stream, expected.len()).await.0, expected);
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    for n in 0..expected.len() {
        let mut request = from_the_start("orders.>");
        (request.max_batch, request.cursor) = (Some(1), cursor);
        let mut client = servers[(n + 1) % SERVERS].messages().await;
        let mut stream = client.messages(request).await.unwrap().into_inner();
        let (texts, next) = read(&mut stream, 1).await;
        seen.extend(texts);
        cursor = Some(next);
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_consumer_that_commits_at_one_server_goes_on_at_another() {
    let nats = Nats::start().await;
    let servers = servers(&nats);
    for n in 0..4 {
        servers[0].messages().await.publish(text("a", &n.to_string())).await.unwrap();
    }
    let reading =
        || MessagesRequest { consumer: Some("billing".into()), max_batch: Some(1), ..from_the_start("a") };
    let mut first = servers[1].messages().await.messages(reading()).await.unwrap().into_inner();
    let (seen, cursor) = read(&mut first, 2).await;
    assert_eq!(seen, ["0", "1"]);
    let commit = CommitCursorRequest { consumer: "billing".into(), cursor, ..Default::default() };
    servers[1].messages().await.commit_cursor(commit).await.unwrap();
    let mut second = servers[2].messages().await.messages(reading()).await.unwrap().into_inner();
    assert_eq!(read(&mut second, 2).await.0, ["2", "3"]);
    let ended = soon("the takeover", async {
        loop {
            if let Err(status) = first.message().await {
                return status;
            }
        }
    });
    assert_eq!(ended.await.code(), tonic::Code::Aborted);
    let listed = servers[0].messages().await.list_consumers(ListConsumersRequest::default()).await.unwrap();
    let consumers = listed.into_inner().consumers;
    assert_eq!((consumers.len(), consumers[0].name.as_str()), (1, "billing"));
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_shared_countdown_is_the_same_at_every_server_and_ends_once() {
    let nats = Nats::start().await;
    let servers = servers(&nats);
    let request = CreateCountdownRequest {
        name: "launch".into(),
        target: Some(create_countdown_request::Target::Duration(prost_types::Duration {
            seconds: 2,
            nanos: 0,
        })),
        on_end: Some(EndMessage {
            topic: "ends".into(),
            content: Some(end_message::Content::Text("lift-off".into())),
            ..Default::default()
        }),
        ..Default::default()
    };
    servers[0].countdown().await.create_countdown(request).await.unwrap();
    let mut watching = Vec::new();
    for server in &servers {
        let target = Some(countdown_request::Target::Name("launch".into()));
        let request = CountdownRequest { target, ..Default::default() };
        watching.push(server.countdown().await.countdown(request).await.unwrap().into_inner());
    }
    for stream in &mut watching {
        let mut last = None;
        while let Some(response) = soon("the countdown", stream.message()).await.unwrap() {
            last = response.countdown.or(last);
        }
        assert_eq!(last.expect("its state").state(), CountdownState::Ended);
    }
    let mut request = from_the_start("ends");
    request.until_caught_up = true;
    let mut stream = servers[1].messages().await.messages(request).await.unwrap().into_inner();
    let mut ends = Vec::new();
    while let Some(response) = soon("the ends", stream.message()).await.unwrap() {
        ends.extend(texts(&response).into_iter().map(|(_, text)| text));
    }
    assert_eq!(ends, ["lift-off"]);
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_server_prints_what_differs_when_it_starts() {
    let nats = Nats::start().await;
    let server = Server::start_with(&["--messages", &messages(&nats)]);
    let startup = server.startup().join("\n");
    let document = include_str!("../../docs/cluster.md");
    let rows = document.lines().filter(|line| line.contains("| refused |") || line.contains("| weaker |"));
    for row in rows {
        let what = row.split('|').nth(1).unwrap().trim();
        assert!(startup.contains(what), "{what} is not in {startup}");
    }
}
