//! Answers and streams that their client does not read.

use http_body_util::BodyExt;
use perennial::proto::{
    ListTopicsRequest, MessagesRequest, PublishBatchRequest, PublishRequest, messages_request::Start,
    publish_request::Content,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tonic::{Code, Status};

use crate::{
    harness::{Server, free_port, soon, until},
    raw::{Raw, Sent, framed, reason},
    scrape,
    wire::{DATA, END_STREAM, PREFACE, SETTINGS, WINDOW, frame, open},
};

const LIST_TOPICS: &str = "/perennial.v1.MessageService/ListTopics";

/// Publishes to this many topics with long names.
async fn fill(server: &Server, topics: usize) {
    let message = |n| PublishRequest { topic: format!("{}.{n}", "t".repeat(200)), ..Default::default() };
    let messages = (0..topics).map(message).collect();
    server.messages().await.publish_batch(PublishBatchRequest { messages }).await.unwrap();
}

fn list() -> Sent {
    Sent::whole(framed(&ListTopicsRequest { page_size: Some(10_000), ..Default::default() }))
}

#[tokio::test]
async fn answers_that_are_not_read_are_bounded_and_dropped_after_the_stall() {
    let server = Server::start_with(&["--max-buffered-per-connection", "1MiB", "--stall", "300ms"]);
    fill(&server, 2_000).await;
    // Nothing of a body can be sent.
    let mut client = Raw::connect(&server, 0).await;
    let mut waiting = Vec::new();
    let refused = loop {
        let response = soon("the head of an answer", client.call(LIST_TOPICS, list())).await;
        match Status::from_header_map(response.headers()) {
            Some(status) => break status,
            None => waiting.push(response),
        }
        assert!(waiting.len() < 100, "answers of about 500 KB");
    };
    assert_eq!(reason(&refused), (Code::ResourceExhausted, "BUFFERS_FULL".into()));
    assert!(refused.message().contains("--max-buffered-per-connection"), "{refused:?}");
    assert!(!waiting.is_empty());
    // The answers are dropped, although their client still waits for them.
    until("room for an answer", async || {
        let response = soon("the head of an answer", client.call(LIST_TOPICS, list())).await;
        Status::from_header_map(response.headers()).is_none()
    })
    .await;
    drop(waiting);
}

#[tokio::test]
async fn a_client_that_reads_its_answer_too_late_gets_the_reason() {
    let server = Server::start_with(&["--max-buffered-per-connection", "600KiB", "--stall", "100ms"]);
    fill(&server, 2_000).await;
    // Less than the answer.
    let mut client = Raw::connect(&server, 100).await;
    let mut response = soon("the head of an answer", client.call(LIST_TOPICS, list())).await;
    // There is no room for another one before it is dropped.
    until("the end of the stalled answer", async || {
        let other = soon("the head of an answer", client.call(LIST_TOPICS, list())).await;
        Status::from_header_map(other.headers()).is_none()
    })
    .await;
    let mut trailers = None;
    while let Some(frame) = soon("the rest", response.body_mut().frame()).await {
        trailers = frame.unwrap().into_trailers().ok();
    }
    let status = Status::from_header_map(&trailers.unwrap()).unwrap();
    assert_eq!(reason(&status), (Code::Unavailable, "STALLED".into()));
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_dropped_at_the_callers_deadline() {
    let server = Server::start_with(&["--max-buffered-per-connection", "600KiB", "--stall", "30s"]);
    fill(&server, 2_000).await;
    let mut client = Raw::connect(&server, 0).await;
    let first = soon("an answer", client.call(LIST_TOPICS, list().with("grpc-timeout", "200m"))).await;
    assert!(Status::from_header_map(first.headers()).is_none());
    until("room for an answer", async || {
        let response = soon("the head of an answer", client.call(LIST_TOPICS, list())).await;
        Status::from_header_map(response.headers()).is_none()
    })
    .await;
}

/// Of many readers that take nothing, those end that began first, long before the stall limit; the others get everything.
#[tokio::test]
async fn the_streams_that_are_stalled_for_longest_end_when_all_hold_too_much() {
    let server = Server::start_with(&["--max-unsent", "800KiB", "--stall", "1h"]);
    let message = || PublishRequest {
        topic: "t".into(),
        content: Some(Content::Data(vec![7; 1_000])),
        ..Default::default()
    };
    let messages = (0..200).map(|_| message()).collect();
    server.messages().await.publish_batch(PublishBatchRequest { messages }).await.unwrap();
    let request = MessagesRequest {
        topics: vec!["t".into()],
        start: Some(Start::Earliest(true)),
        until_caught_up: true,
        ..Default::default()
    };
    // A stream sends 20,000 bytes of its first batch. HTTP/2 holds up to 32 KiB, and the stream the rest of it.
    let mut client = Raw::connect(&server, 20_000).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let sent = Sent::whole(framed(&request));
        streams.push(soon("a stream", client.call("/perennial.v1.MessageService/Messages", sent)).await);
    }
    for _ in 0..5 {
        server.wait_for_log("reason=\"STALLED\"");
    }
    let mut ends = Vec::new();
    for stream in streams {
        ends.push(soon("the rest of a stream", stream.into_body().collect()).await.is_ok());
    }
    let whole = ends.iter().filter(|is_whole| **is_whole).count();
    assert!((1..=15).contains(&whole) && ends.is_sorted(), "those that were stalled for longest: {ends:?}");
}

/// A client whose system takes nothing more, as when it is stopped. Only the end of its connection frees what is held.
#[tokio::test]
async fn connections_that_take_nothing_are_closed_when_the_server_holds_too_much_for_them() {
    const STREAMS: u32 = 200;
    let metrics = format!("127.0.0.1:{}", free_port());
    let server = Server::start_with(&["--max-unsent", "2MiB", "--stall", "1h", "--metrics", &metrics]);
    let message = || PublishRequest {
        topic: "t".into(),
        content: Some(Content::Data(vec![7; 10_000])),
        ..Default::default()
    };
    let messages = (0..100).map(|_| message()).collect();
    server.messages().await.publish_batch(PublishBatchRequest { messages }).await.unwrap();
    let request = MessagesRequest {
        topics: vec!["t".into()],
        start: Some(Start::Earliest(true)),
        ..Default::default()
    };
    // It has got everything, and waits.
    let mut live = server.messages().await.messages(request.clone()).await.unwrap().into_inner();
    while !soon("a response", live.message()).await.unwrap().unwrap().caught_up {}
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    // The largest window for each stream and for the connection.
    let windows = [&[0, 4][..], &i32::MAX.to_be_bytes()].concat();
    let wide = frame(WINDOW, 0, 0, &(i32::MAX - 65_535).to_be_bytes());
    socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &windows), &wide].concat()).await.unwrap();
    let request = framed(&request);
    for n in 0..STREAMS {
        let stream = 2 * n + 1;
        let call = open(stream, "/perennial.v1.MessageService/Messages");
        socket.write_all(&[call, frame(DATA, END_STREAM, stream, &request)].concat()).await.unwrap();
    }
    let line = server.wait_for_log("connection closed: its client reads too little");
    let bytes = line.split_once("bytes=").unwrap().1.parse::<usize>().unwrap();
    assert!(bytes > 2 << 20, "{line}");
    until("the memory of the connection", async || {
        let text = scrape(&metrics).await;
        let held = |name: &str| text.lines().any(|line| line == format!("perennial_{name}_unsent_bytes 0"));
        held("connections") && held("responses")
    })
    .await;
    server.messages().await.publish(message()).await.unwrap();
    assert_eq!(soon("a message", live.message()).await.unwrap().unwrap().messages.len(), 1);
}
