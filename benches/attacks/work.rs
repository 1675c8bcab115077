//! The kinds of work.

use std::{fs::File, io::Write};

use futures::{FutureExt, Stream, StreamExt};
use perennial::proto::{
    ListFilesRequest, ListTopicsRequest, MessagesRequest, PublishBatchRequest, PublishRequest,
    ReadLinesRequest, messages_request, read_lines_request,
};

use crate::{Call, harness::Server};

/// The most streams of a connection.
const CALLS: usize = 256;

/// The streams that are opened at once, and the connections that they are on.
const OPENED: (usize, usize) = (10_000, 40);

/// 50,000 files, a file of 270 MB, and 200,000 topics.
pub async fn prepare(server: &Server) {
    std::fs::create_dir(server.log_file("many")).unwrap();
    for n in 0..50_000 {
        File::create(server.log_file(&format!("many/{n}.log"))).unwrap();
    }
    let mut long = File::create(server.log_file("long.log")).unwrap();
    let lines = format!("{}\n", "x".repeat(99)).repeat(1_000);
    for _ in 0..2_700 {
        long.write_all(lines.as_bytes()).unwrap();
    }
    let mut client = server.messages().await;
    for part in 0..20 {
        let message = |n: i32| PublishRequest { topic: format!("t.{part}.{n}"), ..Default::default() };
        let messages = (0..10_000).map(message).collect();
        client.publish_batch(PublishBatchRequest { messages }).await.unwrap();
    }
}

/// All kinds, with their calls.
pub async fn all(server: &Server) -> Vec<(&'static str, Vec<Call>)> {
    let mut opened = Vec::new();
    for _ in 0..OPENED.1 {
        opened.extend(of_messages(server, OPENED.0 / OPENED.1, &live()).await);
    }
    let snapshot = from(messages_request::Start::LastPerTopic(true));
    let earliest = from(messages_request::Start::Earliest(true));
    vec![
        ("ListFiles of 50,000 files", list_files(server).await),
        ("`last: 10^9` of 270 MB", search(server).await),
        ("ListTopics without a match in 200,000", list_topics(server).await),
        ("`last_per_topic` of 200,000", of_messages(server, CALLS, &snapshot).await),
        ("`earliest` of 200,000", of_messages(server, CALLS, &earliest).await),
        ("Messages opened at once", opened),
    ]
}

async fn list_files(server: &Server) -> Vec<Call> {
    let client = server.lines().await;
    let call = |_| {
        let mut client = client.clone();
        let request = ListFilesRequest { path: "logs/many".into(), page_size: Some(1), ..Default::default() };
        async move { drop(client.list_files(request).await.unwrap()) }.boxed()
    };
    (0..CALLS).map(call).collect()
}

async fn search(server: &Server) -> Vec<Call> {
    let client = server.lines().await;
    let call = |_| {
        let mut client = client.clone();
        let request = ReadLinesRequest {
            path: "logs/long.log".into(),
            start: Some(read_lines_request::Start::Last(1_000_000_000)),
            limit: Some(1),
            ..Default::default()
        };
        async move { to_the_end(client.read_lines(request).await.unwrap().into_inner()).await }.boxed()
    };
    (0..CALLS).map(call).collect()
}

async fn list_topics(server: &Server) -> Vec<Call> {
    let client = server.messages().await;
    let call = |_| {
        let mut client = client.clone();
        let request = ListTopicsRequest { pattern: "*.*.none".into(), ..Default::default() };
        async move { drop(client.list_topics(request).await.unwrap()) }.boxed()
    };
    (0..CALLS).map(call).collect()
}

/// A request for all messages from a start on.
fn from(start: messages_request::Start) -> MessagesRequest {
    let topics = vec![">".into()];
    MessagesRequest { topics, start: Some(start), until_caught_up: true, ..Default::default() }
}

/// Opens a stream, reads its first response, and ends it.
fn live() -> MessagesRequest {
    MessagesRequest { topics: vec!["t.1.*".into()], until_caught_up: true, ..Default::default() }
}

async fn of_messages(server: &Server, calls: usize, request: &MessagesRequest) -> Vec<Call> {
    let client = server.messages().await;
    let call = |_| {
        let (mut client, request) = (client.clone(), request.clone());
        async move { to_the_end(client.messages(request).await.unwrap().into_inner()).await }.boxed()
    };
    (0..calls).map(call).collect()
}

async fn to_the_end<T>(mut stream: impl Stream<Item = T> + Unpin) {
    while stream.next().await.is_some() {}
}
