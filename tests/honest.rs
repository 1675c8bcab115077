//! Promise 2: what cannot be delivered is reported in the stream; a stream ends with OK only where the caller asked for
//! an end; an error names the field, what is wrong, and what would work.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use harness::{Server, append, soon};
use perennial::proto::{
    CountdownRequest, ListFilesRequest, ListTopicsRequest, MessagesRequest, PublishBatchRequest,
    PublishRequest, ReadLinesRequest, ReadLinesResponse, countdown_request::Target, line::Content,
    line_stream_event::Event, messages_request, read_lines_request,
};
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt;

/// One wrong request: its code, its reason, the field it names, and a word of the remedy.
fn assert_refused(status: &Status, code: Code, reason: &str, field: Option<&str>, remedy: &str) {
    let details = status.get_error_details();
    assert_eq!(status.code(), code, "{status:?}");
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("perennial", reason), "{status:?}");
    if let Some(field) = field {
        let named = details.bad_request().unwrap_or_else(|| panic!("no BadRequest: {status:?}"));
        assert_eq!(named.field_violations[0].field, field, "{status:?}");
    }
    let text = status.message().to_lowercase();
    assert!(text.contains(&remedy.to_lowercase()), "{text:?} does not say {remedy:?}");
}

fn invalid(status: &Status, field: &str, remedy: &str) {
    assert_refused(status, Code::InvalidArgument, "INVALID_FIELD", Some(field), remedy);
}

#[expect(clippy::unnecessary_wraps, reason = "as the field is")]
fn duration(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

#[tokio::test]
async fn each_wrong_field_of_a_countdown_is_named_with_what_would_work() {
    let server = Server::start();
    let mut client = server.countdown().await;
    let good = CountdownRequest { target: Some(Target::Start(3)), ..Default::default() };
    let far = prost_types::Timestamp { seconds: 99_999_999_999, nanos: 0 };
    let cases = [
        (CountdownRequest::default(), "target", "start"),
        (CountdownRequest { to: Some(4), ..good.clone() }, "start", "4"),
        (CountdownRequest { step: Some(0), ..good.clone() }, "step", "1"),
        (CountdownRequest { interval: duration(0, 999), ..good.clone() }, "interval", "1 ms"),
        (CountdownRequest { interval: duration(-1, 0), ..good.clone() }, "interval", "1 ms"),
        (CountdownRequest { interval: duration(400_000_000, 0), ..good.clone() }, "interval", "10 years"),
        (CountdownRequest { target: Some(Target::UntilTime(far)), ..good.clone() }, "until_time", "10 years"),
        (CountdownRequest { limit: Some(0), ..good.clone() }, "limit", "1"),
        (CountdownRequest { heartbeat: duration(0, 1), ..good.clone() }, "heartbeat", "100 ms"),
        (CountdownRequest { max_batch: Some(0), ..good.clone() }, "max_batch", "100,000"),
        (CountdownRequest { on_lag: 7, ..good.clone() }, "on_lag", "ON_LAG_SKIP"),
    ];
    for (request, field, remedy) in cases {
        let status = client.countdown(request).await.unwrap_err();
        invalid(&status, field, remedy);
    }
    let status =
        client.countdown(CountdownRequest { cursor: Some("?".into()), ..good.clone() }).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, "CURSOR_MALFORMED", Some("cursor"), "cursor");
    client.countdown(good).await.expect("the server goes on");
}

#[tokio::test]
async fn each_wrong_field_of_a_read_is_named_with_what_would_work() {
    let server = Server::start();
    append(&server.log_file("app.log"), "1\n");
    std::fs::create_dir(server.log_file("dir")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", server.log_file("link")).unwrap();
    std::os::unix::fs::symlink("../data/LOCK", server.log_file("up")).unwrap();
    let mut client = server.lines().await;
    let read = |path: &str| ReadLinesRequest { path: path.into(), ..Default::default() };
    let good = read("logs/app.log");
    let start = |start| ReadLinesRequest { start: Some(start), ..good.clone() };
    let cases = [
        (read(""), "path", "ROOT/"),
        (read("logs/../data/LOCK"), "path", ".."),
        (read("logs//app.log"), "path", "empty"),
        (read(&format!("logs/{}", "a".repeat(5_000))), "path", "4,096"),
        (start(read_lines_request::Start::FromLine(0)), "from_line", "1"),
        (start(read_lines_request::Start::FromOffset(-1)), "from_offset", "negative"),
        (start(read_lines_request::Start::Last(-1)), "last", "negative"),
        (ReadLinesRequest { until_line: Some(0), ..good.clone() }, "until_line", "1"),
        (ReadLinesRequest { max_line_bytes: Some(15), ..good.clone() }, "max_line_bytes", "from 16"),
        (ReadLinesRequest { limit: Some(-1), ..good.clone() }, "limit", "1"),
        (ReadLinesRequest { heartbeat: duration(7_200, 0), ..good.clone() }, "heartbeat", "1 h"),
        (ReadLinesRequest { max_batch: Some(100_001), ..good.clone() }, "max_batch", "100,000"),
        (ReadLinesRequest { on_gap: 7, ..good.clone() }, "on_gap", "ON_GAP_FAIL"),
    ];
    for (request, field, remedy) in cases {
        let status = client.read_lines(request).await.unwrap_err();
        invalid(&status, field, remedy);
    }
    for absent in ["logs/none.log", "nowhere/app.log", "logs/dir", "logs/link", "logs/up"] {
        let status = client.read_lines(read(absent)).await.unwrap_err();
        assert_refused(&status, Code::NotFound, "FILE_NOT_FOUND", None, absent);
        assert!(!status.message().contains("/etc/passwd"), "{status:?}");
    }
    let status = client.read_lines(start(read_lines_request::Start::FromOffset(3))).await.unwrap_err();
    assert_refused(&status, Code::OutOfRange, "OFFSET_BEYOND_END", None, "2");
    let status =
        client.list_files(ListFilesRequest { page_size: Some(0), ..Default::default() }).await.unwrap_err();
    invalid(&status, "page_size", "10,000");
    client.read_lines(good).await.expect("the server goes on");
}

#[tokio::test]
async fn each_wrong_field_of_a_subscription_is_named_with_what_would_work() {
    let server = Server::start();
    let mut client = server.messages().await;
    let topics = |topics: &[&str]| MessagesRequest {
        topics: topics.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let start = |start| MessagesRequest { start: Some(start), ..topics(&["a"]) };
    let cases = [
        (topics(&[]), "topics", "pattern"),
        (topics(&["a", "a..b"]), "topics[1]", "empty"),
        (topics(&["a.>.b"]), "topics[0]", ">"),
        (topics(&["a b"]), "topics[0]", "A-Z"),
        (topics(&["a"; 65]), "topics", "64"),
        (start(messages_request::Start::FromSequence(0)), "from_sequence", "1"),
        (start(messages_request::Start::Last(-1)), "last", "negative"),
        (start(messages_request::Start::Last(1_000_001)), "last", "1,000,000"),
        (MessagesRequest { until_sequence: Some(0), ..topics(&["a"]) }, "until_sequence", "1"),
        (MessagesRequest { limit: Some(0), ..topics(&["a"]) }, "limit", "1"),
        (MessagesRequest { max_batch: Some(-1), ..topics(&["a"]) }, "max_batch", "100,000"),
        (MessagesRequest { heartbeat: duration(0, 0), ..topics(&["a"]) }, "heartbeat", "100 ms"),
    ];
    for (request, field, remedy) in cases {
        let status = client.messages(request).await.unwrap_err();
        invalid(&status, field, remedy);
    }
    client.messages(topics(&["a"])).await.expect("the server goes on");
}

#[tokio::test]
async fn each_wrong_field_of_a_message_is_named_with_what_would_work() {
    let server = Server::start();
    let mut client = server.messages().await;
    let good = PublishRequest { topic: "a".into(), ..Default::default() };
    let large = perennial::proto::publish_request::Content::Text("x".repeat(1024 * 1024 + 1));
    let nameless = [(String::new(), "value".to_string())].into();
    let many = (0..65).map(|n| (n.to_string(), String::new())).collect();
    let cases = [
        (PublishRequest::default(), "topic", "topic"),
        (PublishRequest { topic: "a.*".into(), ..good.clone() }, "topic", "*"),
        (PublishRequest { topic: "$countdown.x".into(), ..good.clone() }, "topic", "$"),
        (PublishRequest { topic: "a".repeat(256), ..good.clone() }, "topic", "255"),
        (PublishRequest { key: Some("k".repeat(1025)), ..good.clone() }, "key", "1 KiB"),
        (PublishRequest { headers: nameless, ..good.clone() }, "headers", "empty"),
        (PublishRequest { headers: many, ..good.clone() }, "headers", "64"),
        (PublishRequest { message_id: Some(String::new()), ..good.clone() }, "message_id", "128"),
        (PublishRequest { expected_sequence: Some(-1), ..good.clone() }, "expected_sequence", "negative"),
        (PublishRequest { content: Some(large), ..good.clone() }, "content", "1 MiB"),
    ];
    for (request, field, remedy) in cases {
        let status = client.publish(request.clone()).await.unwrap_err();
        invalid(&status, field, remedy);
        let batch = PublishBatchRequest { messages: vec![good.clone(), request] };
        let status = client.publish_batch(batch).await.unwrap_err();
        invalid(&status, &format!("messages[1].{field}"), remedy);
    }
    let status = client.publish_batch(PublishBatchRequest::default()).await.unwrap_err();
    invalid(&status, "messages", "1");
    let listed = client.list_topics(ListTopicsRequest::default()).await.unwrap().into_inner();
    assert!(listed.topics.is_empty(), "a batch with one bad message publishes none: {listed:?}");

    let first = client.publish(good.clone()).await.unwrap().into_inner().sequence;
    let status =
        client.publish(PublishRequest { expected_sequence: Some(0), ..good.clone() }).await.unwrap_err();
    assert_refused(&status, Code::Aborted, "SEQUENCE_MISMATCH", None, &first.unwrap().to_string());
    client.publish(PublishRequest { expected_sequence: first, ..good }).await.expect("the server goes on");
}

#[tokio::test]
async fn a_deadline_ends_a_stream_that_has_begun() {
    let server = Server::start();
    let mut request =
        Request::new(CountdownRequest { target: Some(Target::Start(100)), ..Default::default() });
    // Only the header is set, so that the server ends the call, and not the client.
    request.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let mut stream = server.countdown().await.countdown(request).await.unwrap().into_inner();
    let status = loop {
        match soon("the deadline", stream.message()).await {
            Ok(response) => assert!(response.is_some(), "the stream ended with OK"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

async fn read_until(
    stream: &mut Streaming<ReadLinesResponse>,
    wanted: &str,
) -> (Vec<String>, Vec<Option<Event>>) {
    let (mut lines, mut events) = (Vec::new(), Vec::new());
    while lines.last().is_none_or(|line| line != wanted) {
        let response = soon(wanted, stream.message()).await.unwrap().unwrap();
        events.extend(response.events.into_iter().map(|event| event.event));
        for line in response.lines {
            match line.content.unwrap() {
                Content::Text(text) => lines.push(text),
                Content::Data(bytes) => lines.push(format!("{bytes:?}")),
            }
        }
    }
    (lines, events)
}

#[tokio::test]
async fn rotation_truncation_and_deletion_are_reported_where_they_happened() {
    let server = Server::start();
    let path = server.log_file("app.log");
    append(&path, "1\n2\n");
    let request = ReadLinesRequest { path: "logs/app.log".into(), follow: true, ..Default::default() };
    let mut stream = server.lines().await.read_lines(request).await.unwrap().into_inner();
    assert_eq!(read_until(&mut stream, "2").await, (vec!["1".into(), "2".into()], vec![]));

    std::fs::rename(&path, server.log_file("app.log.1")).unwrap();
    append(&server.log_file("app.log.1"), "3\n");
    append(&path, "4\n");
    let (lines, events) = read_until(&mut stream, "4").await;
    assert_eq!(lines, ["3", "4"]);
    assert!(matches!(
        events[..],
        [Some(Event::Rotated(_))] | [Some(Event::Deleted(_)), Some(Event::Rotated(_))]
    ));

    std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    append(&path, "5\n");
    let (lines, events) = read_until(&mut stream, "5").await;
    assert_eq!(lines, ["5"]);
    assert!(matches!(events[..], [Some(Event::Truncated(_))]), "{events:?}");

    std::fs::remove_file(&path).unwrap();
    let mut events = Vec::new();
    while events.is_empty() {
        let response = soon("the deletion", stream.message()).await.unwrap().unwrap();
        events.extend(response.events.into_iter().map(|event| event.event));
    }
    assert!(matches!(events[..], [Some(Event::Deleted(_))]), "{events:?}");
    append(&path, "6\n");
    assert_eq!(read_until(&mut stream, "6").await.0, ["6"]);
}

#[tokio::test]
async fn bytes_that_are_not_text_come_as_they_are() {
    let server = Server::start();
    std::fs::write(server.log_file("b.log"), b"caf\xc3\xa9\r\n\xff\xfe\n\nlast").unwrap();
    let request = ReadLinesRequest { path: "logs/b.log".into(), ..Default::default() };
    let mut stream = server.lines().await.read_lines(request).await.unwrap().into_inner();
    let mut lines = Vec::new();
    while let Some(response) = soon("lines", stream.message()).await.unwrap() {
        lines.extend(response.lines);
    }
    let contents = lines.iter().map(|line| line.content.clone().unwrap()).collect::<Vec<_>>();
    let text = |text: &str| Content::Text(text.into());
    assert_eq!(contents, [text("café"), Content::Data(b"\xff\xfe".to_vec()), text(""), text("last")]);
    assert_eq!(lines.iter().map(|line| line.offset.unwrap()).collect::<Vec<_>>(), [0, 7, 10, 11]);
    assert_eq!(lines.iter().map(|line| line.number.unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(lines[3].no_newline && !lines[2].no_newline);
}
