//! The kinds of work.

use std::{fs::File, io::Write, sync::Arc};

use futures::{FutureExt, Stream, StreamExt, stream};
use perennial::proto::{
    CreateCountdownRequest, ListConsumersRequest, ListCountdownsRequest, ListFilesRequest, ListTopicsRequest,
    MessagesRequest, PublishBatchRequest, PublishRequest, ReadLinesRequest, SetConsumerRequest,
    create_countdown_request, messages_request, read_lines_request, set_consumer_request,
};

use crate::{Call, floods, harness::Server, wire::Wire};

/// The most streams of a connection.
const CALLS: usize = 256;

/// The streams that are opened at once, and the connections that they are on.
const OPENED: (usize, usize) = (10_000, 40);

/// A flood comes on this many connections at once, each this many times, and has up to this many rounds.
const FLOOD: (usize, u32, u32) = (20, 10, 200);

/// The consumers, and the shared countdowns.
const NAMED: usize = 10_000;

/// How many of them are made at once.
const MADE_AT_ONCE: usize = 250;

/// The rule of retention under which `gone.a` loses messages, so that each subscription looks for losses of its own.
pub const ARGUMENTS: [&str; 4] = ["--retain", "gone.>=count:1", "--retention-interval", "1s"];

/// 50,000 files, a file of 270 MB, 200,000 topics, consumers and countdowns.
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
    let gone = vec![PublishRequest { topic: "gone.a".into(), ..Default::default() }; 1_000];
    client.publish_batch(PublishBatchRequest { messages: gone }).await.unwrap();
    name(server).await;
    for part in 0..20 {
        let message = |n: i32| PublishRequest { topic: format!("t.{part}.{n}"), ..Default::default() };
        let messages = (0..10_000).map(message).collect();
        client.publish_batch(PublishBatchRequest { messages }).await.unwrap();
    }
}

/// Each has a pattern of its own, which matches nothing.
async fn losses(server: &Server) -> Vec<Call> {
    let client = server.messages().await;
    let call = |n| {
        let topics = vec![format!("t.*.none{n}")];
        let request = MessagesRequest { topics, ..from(messages_request::Start::Earliest(true)) };
        let mut client = client.clone();
        async move { to_the_end(client.messages(request).await.unwrap().into_inner()).await }.boxed()
    };
    (0..CALLS).map(call).collect()
}

/// Makes consumers and shared countdowns.
async fn name(server: &Server) {
    let messages = server.messages().await;
    let consumer = |n| {
        let mut client = messages.clone();
        let start = Some(set_consumer_request::Start::FromNow(true));
        async move { client.set_consumer(SetConsumerRequest { consumer: format!("c{n}"), start }).await.unwrap() }
    };
    let countdowns = server.countdown().await;
    let countdown = |n| {
        let mut client = countdowns.clone();
        let target = Some(create_countdown_request::Target::Start(1_000_000));
        let request = CreateCountdownRequest { name: format!("c{n}"), target, ..Default::default() };
        async move { client.create_countdown(request).await.unwrap() }
    };
    stream::iter(0..NAMED).map(consumer).buffer_unordered(MADE_AT_ONCE).for_each(async |_| ()).await;
    stream::iter(0..NAMED).map(countdown).buffer_unordered(MADE_AT_ONCE).for_each(async |_| ()).await;
}

/// All kinds, with their calls.
pub async fn all(server: &Server) -> Vec<(String, Vec<Call>)> {
    let mut opened = Vec::new();
    for _ in 0..OPENED.1 {
        opened.extend(of_messages(server, OPENED.0 / OPENED.1, &live()).await);
    }
    let snapshot = from(messages_request::Start::LastPerTopic(true));
    let earliest = from(messages_request::Start::Earliest(true));
    let all = vec![
        ("ListFiles of 50,000 files", list_files(server).await),
        ("`last: 10^9` of 270 MB", search(server).await),
        ("ListTopics without a match in 200,000", list_topics(server).await),
        ("`last_per_topic` of 200,000", of_messages(server, CALLS, &snapshot).await),
        ("`earliest` of 200,000", of_messages(server, CALLS, &earliest).await),
        ("Messages opened at once", opened),
        ("losses of 200,000 topics", losses(server).await),
        ("ListConsumers of 10,000", list_consumers(server).await),
        ("ListCountdowns of 10,000", list_countdowns(server).await),
    ];
    all.into_iter().map(|(name, calls)| (name.into(), calls)).collect()
}

/// All floods of frames: a call is a connection, which comes again when it was cut.
pub fn floods(server: &Server) -> Vec<(String, Vec<Call>)> {
    let address = server.address();
    let of = |flood: floods::Flood| {
        let flood = Arc::new(flood);
        let name = format!("flood: {}", flood.name);
        let call = |_| {
            let flood = flood.clone();
            async move {
                for _ in 0..FLOOD.1 {
                    let mut wire = Wire::silent(address).await;
                    let mut is_open = wire.send(&flood.first).await;
                    for round in 0..FLOOD.2 {
                        is_open = is_open && wire.send(&(flood.round)(round)).await;
                    }
                }
            }
            .boxed()
        };
        (name, (0..FLOOD.0).map(call).collect())
    };
    floods::all().into_iter().map(of).collect()
}

async fn list_files(server: &Server) -> Vec<Call> {
    let client = server.lines().await;
    let call = |_| {
        let mut client = client.clone();
        let request = ListFilesRequest { path: "logs/many".into(), page_size: Some(1), ..Default::default() };
        async move { drop(client.list_files(request).await) }.boxed()
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
        async move { drop(client.list_topics(request).await) }.boxed()
    };
    (0..CALLS).map(call).collect()
}

async fn list_consumers(server: &Server) -> Vec<Call> {
    let client = server.messages().await;
    let call = |_| {
        let mut client = client.clone();
        let request = ListConsumersRequest { page_size: Some(10_000), ..Default::default() };
        async move { drop(client.list_consumers(request).await) }.boxed()
    };
    (0..CALLS).map(call).collect()
}

async fn list_countdowns(server: &Server) -> Vec<Call> {
    let client = server.countdown().await;
    let call = |_| {
        let mut client = client.clone();
        let request = ListCountdownsRequest { page_size: Some(10_000), ..Default::default() };
        async move { drop(client.list_countdowns(request).await) }.boxed()
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
