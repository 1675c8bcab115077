//! Promise 1: a stream continues after exactly the response whose cursor it is given: after a lost connection, a
//! restarted server, a rotated file. Nothing is missed and nothing comes twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use harness::{Server, append, soon};
use perennial::proto::{
    CountdownRequest, MessagesRequest, MessagesResponse, PublishBatchRequest, PublishRequest,
    ReadLinesRequest, ReadLinesResponse, countdown_request, line::Content, line_stream_event,
    messages_request, read_lines_request,
};
use prost_types::Duration;
use tonic::{Code, Streaming};

const MILLISECOND: i32 = 1_000_000;

fn texts(response: &ReadLinesResponse) -> Vec<String> {
    let text = |content: &Content| match content {
        Content::Text(text) => text.clone(),
        Content::Data(bytes) => panic!("not text: {bytes:?}"),
    };
    response.lines.iter().map(|line| text(line.content.as_ref().unwrap())).collect()
}

fn sequences(response: &MessagesResponse) -> Vec<i64> {
    response.messages.iter().map(|message| message.sequence.unwrap()).collect()
}

fn follow(path: &str) -> ReadLinesRequest {
    ReadLinesRequest { path: path.into(), follow: true, ..Default::default() }
}

fn from_earliest(topic: &str) -> MessagesRequest {
    MessagesRequest {
        topics: vec![topic.into()],
        start: Some(messages_request::Start::Earliest(true)),
        ..Default::default()
    }
}

async fn publish(server: &Server, topic: &str, count: usize) {
    let message = |n| PublishRequest {
        topic: topic.into(),
        content: Some(perennial::proto::publish_request::Content::Text(format!("message {n}"))),
        ..Default::default()
    };
    let request = PublishBatchRequest { messages: (0..count).map(message).collect() };
    server.messages().await.publish_batch(request).await.unwrap();
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    soon("a response", stream.message()).await.unwrap().expect("the stream goes on")
}

#[tokio::test]
async fn a_countdown_goes_on_after_kill_9_where_time_has_brought_it() {
    let mut server = Server::start();
    let request = CountdownRequest {
        target: Some(countdown_request::Target::Start(40)),
        interval: Some(Duration { seconds: 0, nanos: 100 * MILLISECOND }),
        ..Default::default()
    };
    let mut seen = 0;
    let mut stream = server.countdown().await.countdown(request.clone()).await.unwrap().into_inner();
    let mut last = next(&mut stream).await;
    while seen < 3 {
        seen += last.ticks.len();
        if seen < 3 {
            last = next(&mut stream).await;
        }
    }
    server.kill();
    server.restart();
    let request = CountdownRequest { cursor: Some(last.cursor), ..request };
    let mut stream = server.countdown().await.countdown(request).await.unwrap().into_inner();
    let (mut skipped, mut last_number) = (0, None);
    while let Some(response) = soon("a tick", stream.message()).await.unwrap() {
        skipped += response.skipped_ticks;
        seen += response.ticks.len();
        last_number = response.ticks.last().and_then(|tick| tick.remaining).or(last_number);
    }
    assert_eq!(last_number, Some(0));
    assert_eq!(i64::try_from(seen).unwrap() + skipped, 41, "every number was delivered or counted, once");
}

#[tokio::test]
async fn a_countdown_cut_before_its_first_tick_still_ends_on_the_same_moment() {
    let mut server = Server::start();
    let request = CountdownRequest {
        target: Some(countdown_request::Target::Start(2)),
        interval: Some(Duration { seconds: 1, nanos: 0 }),
        wait_first: true,
        ..Default::default()
    };
    let started = std::time::SystemTime::now();
    let mut stream = server.countdown().await.countdown(request.clone()).await.unwrap().into_inner();
    let first = next(&mut stream).await;
    assert!(first.ticks.is_empty());
    server.kill();
    server.restart();
    let request = CountdownRequest { cursor: Some(first.cursor), ..request };
    let mut stream = server.countdown().await.countdown(request).await.unwrap().into_inner();
    let mut due = None;
    while let Some(response) = soon("a tick", stream.message()).await.unwrap() {
        due = response.ticks.last().and_then(|tick| tick.due_time).or(due);
    }
    let due = std::time::SystemTime::try_from(due.unwrap()).unwrap();
    let after = due.duration_since(started).unwrap();
    assert!((2_900..4_000).contains(&after.as_millis()), "0 is due 3 s after the start, not {after:?}");
}

#[tokio::test]
async fn lines_go_on_after_kill_9_in_a_file_that_was_rotated_meanwhile() {
    let mut server = Server::start();
    let path = server.log_file("app.log");
    append(&path, "1\n2\n3\n");
    let request = ReadLinesRequest { max_batch: Some(1), ..follow("logs/app.log") };
    let mut stream = server.lines().await.read_lines(request.clone()).await.unwrap().into_inner();
    let mut last = next(&mut stream).await;
    while texts(&last) != ["2"] {
        last = next(&mut stream).await;
    }
    server.kill();
    append(&path, "4\n");
    std::fs::rename(&path, server.log_file("app.log.2")).unwrap();
    append(&path, "5\n");
    std::fs::rename(&path, server.log_file("app.log.1")).unwrap();
    append(&path, "6\n");
    server.restart();

    let request = ReadLinesRequest { cursor: Some(last.cursor), ..request };
    let mut stream = server.lines().await.read_lines(request).await.unwrap().into_inner();
    let (mut seen, mut rotations) = (Vec::new(), 0);
    while seen.len() < 4 {
        let response = next(&mut stream).await;
        rotations += response
            .events
            .iter()
            .filter(|e| matches!(e.event, Some(line_stream_event::Event::Rotated(_))))
            .count();
        seen.extend(texts(&response));
    }
    assert_eq!(seen, ["3", "4", "5", "6"]);
    assert_eq!(rotations, 2);
    append(&path, "7\n");
    let mut response = next(&mut stream).await;
    while texts(&response).is_empty() {
        response = next(&mut stream).await;
    }
    assert_eq!(texts(&response), ["7"]);
}

#[tokio::test]
async fn lines_cut_before_the_first_one_start_where_the_stream_stood() {
    let mut server = Server::start();
    let path = server.log_file("app.log");
    append(&path, "old\n");
    let request =
        ReadLinesRequest { start: Some(read_lines_request::Start::Last(0)), ..follow("logs/app.log") };
    let mut stream = server.lines().await.read_lines(request.clone()).await.unwrap().into_inner();
    let first = next(&mut stream).await;
    assert!(first.lines.is_empty() && first.caught_up);
    server.kill();
    append(&path, "written while the server was down\n");
    server.restart();
    let request = ReadLinesRequest { cursor: Some(first.cursor), ..request };
    let mut stream = server.lines().await.read_lines(request).await.unwrap().into_inner();
    let mut response = next(&mut stream).await;
    while response.lines.is_empty() {
        response = next(&mut stream).await;
    }
    assert_eq!(texts(&response), ["written while the server was down"]);
}

#[tokio::test]
async fn messages_go_on_after_kill_9_from_every_batch() {
    let mut server = Server::start();
    publish(&server, "a", 5).await;
    publish(&server, "b", 5).await;
    publish(&server, "a", 5).await;
    let request = MessagesRequest { max_batch: Some(2), until_caught_up: true, ..from_earliest("a") };
    let mut stream = server.messages().await.messages(request.clone()).await.unwrap().into_inner();
    let (mut all, mut cuts) = (Vec::new(), Vec::new());
    while let Some(response) = soon("a batch", stream.message()).await.unwrap() {
        all.extend(sequences(&response));
        cuts.push((all.len(), response.cursor));
    }
    assert_eq!(all.len(), 10);
    server.kill();
    server.restart();
    for (delivered, cursor) in cuts {
        let request = MessagesRequest { cursor: Some(cursor), ..request.clone() };
        let mut stream = server.messages().await.messages(request).await.unwrap().into_inner();
        let mut rest = Vec::new();
        while let Some(response) = soon("a batch", stream.message()).await.unwrap() {
            rest.extend(sequences(&response));
        }
        assert_eq!(rest, all[delivered..]);
    }
}

#[tokio::test]
async fn messages_cut_before_the_first_one_miss_nothing_published_meanwhile() {
    let mut server = Server::start();
    publish(&server, "a", 1).await;
    let request = MessagesRequest { topics: vec!["a".into()], ..Default::default() };
    let mut stream = server.messages().await.messages(request.clone()).await.unwrap().into_inner();
    let first = next(&mut stream).await;
    assert!(first.messages.is_empty() && first.caught_up);
    drop(stream);
    publish(&server, "a", 2).await;
    server.kill();
    server.restart();
    publish(&server, "a", 1).await;
    let request = MessagesRequest { cursor: Some(first.cursor), limit: Some(3), ..request };
    let mut stream = server.messages().await.messages(request).await.unwrap().into_inner();
    let mut count = 0;
    while let Some(response) = soon("a batch", stream.message()).await.unwrap() {
        count += response.messages.len();
    }
    assert_eq!(count, 3);
}

#[tokio::test]
async fn a_subscription_may_change_its_topics_when_it_resumes() {
    let server = Server::start();
    publish(&server, "a", 1).await;
    publish(&server, "b", 1).await;
    let request = MessagesRequest { until_caught_up: true, ..from_earliest("a") };
    let mut stream = server.messages().await.messages(request).await.unwrap().into_inner();
    let mut cursor = String::new();
    while let Some(response) = soon("a batch", stream.message()).await.unwrap() {
        cursor = response.cursor;
    }
    for topic in ["a", "b", "a", "b"] {
        publish(&server, topic, 1).await;
    }
    let request = MessagesRequest { cursor: Some(cursor), until_caught_up: true, ..from_earliest("b") };
    let mut stream = server.messages().await.messages(request).await.unwrap().into_inner();
    let mut topics = Vec::new();
    while let Some(response) = soon("a batch", stream.message()).await.unwrap() {
        topics.extend(response.messages.into_iter().map(|message| message.topic));
    }
    assert_eq!(topics, ["b", "b"]);
}

#[tokio::test]
async fn a_cursor_of_another_stream_is_told_apart() {
    let server = Server::start();
    append(&server.log_file("a.log"), "1\n");
    append(&server.log_file("b.log"), "1\n");
    let request = ReadLinesRequest { path: "logs/a.log".into(), ..Default::default() };
    let mut stream = server.lines().await.read_lines(request.clone()).await.unwrap().into_inner();
    let cursor = Some(next(&mut stream).await.cursor);

    let other = ReadLinesRequest { path: "logs/b.log".into(), cursor: cursor.clone(), ..Default::default() };
    let status = server.lines().await.read_lines(other).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");

    let messages = MessagesRequest { cursor, ..from_earliest("a") };
    let status = server.messages().await.messages(messages).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("cursor"), "{status}");

    let first = Server::start();
    publish(&first, "a", 1).await;
    let mut stream = first.messages().await.messages(from_earliest("a")).await.unwrap().into_inner();
    let cursor = Some(next(&mut stream).await.cursor);
    let status =
        server.messages().await.messages(MessagesRequest { cursor, ..from_earliest("a") }).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
}

#[tokio::test]
async fn a_line_whose_file_is_gone_is_out_of_range_or_told_as_a_gap() {
    let mut server = Server::start();
    let path = server.log_file("app.log");
    append(&path, "1\n2\n");
    let request = ReadLinesRequest { limit: Some(1), ..follow("logs/app.log") };
    let mut stream = server.lines().await.read_lines(request.clone()).await.unwrap().into_inner();
    let mut cursor = None;
    while let Some(response) = soon("a batch", stream.message()).await.unwrap() {
        cursor = Some(response.cursor);
    }
    server.kill();
    std::fs::rename(&path, server.log_file("elsewhere")).unwrap();
    append(&path, "3\n");
    std::fs::remove_file(server.log_file("elsewhere")).unwrap();
    server.restart();
    let request = ReadLinesRequest { cursor, ..request };
    let status = server.lines().await.read_lines(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");

    let request = ReadLinesRequest { on_gap: perennial::proto::OnGap::Skip.into(), ..request };
    let mut stream = server.lines().await.read_lines(request).await.unwrap().into_inner();
    let (mut seen, mut gaps) = (Vec::new(), 0);
    while let Some(response) = soon("a batch", stream.message()).await.unwrap() {
        gaps += response
            .events
            .iter()
            .filter(|e| matches!(e.event, Some(line_stream_event::Event::Gap(_))))
            .count();
        seen.extend(texts(&response));
    }
    assert_eq!((seen, gaps), (vec!["3".to_string()], 1));
}
