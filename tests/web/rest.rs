//! Streams and publishes by plain HTTP, as curl and `EventSource` use them.

use serde_json::Value;

use crate::{
    harness::{Server, append},
    http1::{Head, Http1, ask, post, request},
};

/// An event as a browser reads it.
#[derive(Clone, Debug, Default)]
struct Event {
    kind: String,
    id: String,
    data: String,
    retry: String,
    is_comment: bool,
}

impl Event {
    fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

/// A stream of events.
struct Events {
    client: Http1,
    text: String,
}

impl Events {
    async fn open(server: &Server, path: &str, headers: &[(&str, &str)]) -> (Head, Self) {
        let mut client = Http1::connect(server.address()).await;
        assert!(client.send(request("GET", path, headers)).await);
        (client.head().await.unwrap(), Self { client, text: String::new() })
    }

    /// The next event or comment; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let mut read = Event::default();
                for line in event.lines() {
                    let (name, value) = line.split_once(": ").unwrap_or((line, ""));
                    match name {
                        "" => read.is_comment = true,
                        "event" => read.kind = value.into(),
                        "id" => read.id = value.into(),
                        "data" => read.data = value.into(),
                        "retry" => read.retry = value.into(),
                        _ => panic!("{event:?}"),
                    }
                }
                self.text = rest.into();
                return Some(read);
            }
            let chunk = self.client.chunk().await.filter(|chunk| !chunk.is_empty())?;
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    async fn all(mut self) -> Vec<Event> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }
}

const EVENTS: (&str, &str) = ("accept", "text/event-stream");
const LINES: (&str, &str) = ("accept", "application/x-ndjson");
const JSON: (&str, &str) = ("content-type", "application/json");

/// The numbers of the ticks of responses.
fn numbers(events: &[Event]) -> Vec<i64> {
    let ticks = events.iter().filter(|event| event.kind.is_empty() && !event.is_comment);
    let ticks = ticks.flat_map(|event| event.json()["ticks"].as_array().cloned().unwrap_or_default());
    ticks.map(|tick| tick["remaining"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn a_countdown_is_events_with_cursors_by_which_it_resumes() {
    let server = Server::start();
    let path = "/v1/countdown?start=5&interval=10ms&max_batch=1&on_lag=burst";
    let (head, events) = Events::open(&server, path, &[EVENTS]).await;
    assert_eq!((head.status, head.header("content-type")), (200, "text/event-stream"));
    assert_eq!((head.header("cache-control"), head.header("x-accel-buffering")), ("no-store", "no"));
    let all = events.all().await;
    assert_eq!(numbers(&all), [5, 4, 3, 2, 1, 0]);
    assert_eq!(all.last().unwrap().kind, "end");
    let third = all.iter().find(|event| numbers(std::slice::from_ref(*event)) == [3]).unwrap();
    let (head, resumed) = Events::open(&server, path, &[EVENTS, ("last-event-id", &third.id)]).await;
    assert_eq!(head.status, 200);
    assert_eq!(numbers(&resumed.all().await), [2, 1, 0]);
    // A browser whose countdown is over stops only at this status.
    let last = all.iter().rev().find(|event| !event.id.is_empty()).unwrap();
    let (head, _) = Events::open(&server, path, &[EVENTS, ("last-event-id", &last.id)]).await;
    assert_eq!(head.status, 204);
}

#[tokio::test]
async fn lines_of_json_are_for_pipes() {
    let server = Server::start();
    let path = "/v1/countdown?start=2&interval=1ms&on_lag=burst";
    let (head, body) = ask(&server, request("GET", path, &[LINES])).await;
    assert_eq!((head.status, head.header("content-type")), (200, "application/x-ndjson"));
    let responses = body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ticks = responses.flat_map(|response| response["ticks"].as_array().cloned().unwrap_or_default());
    assert_eq!(ticks.map(|tick| tick["remaining"].as_i64().unwrap()).collect::<Vec<_>>(), [2, 1, 0]);
    let (_, body) = ask(&server, request("GET", &format!("{path}&items"), &[LINES])).await;
    let items =
        body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["remaining"].as_i64().unwrap());
    assert_eq!(items.collect::<Vec<_>>(), [2, 1, 0]);
    let (head, _) = ask(&server, request("GET", path, &[("accept", "text/html")])).await;
    assert_eq!(head.status, 406);
}

#[tokio::test]
async fn only_lines_that_match_the_patterns_of_a_url_are_sent() {
    let server = Server::start();
    append(&server.log_file("app.log"), "GET /a 200\nGET /b 500\nPOST /a 502\nget /a+b 503\n");
    for (query, expected) in [
        ("include=%205..%24&exclude=%5EPOST", &["GET /b 500", "get /a+b 503"][..]),
        ("include=%5Eget&include=POST&ignore_case&last=2", &["POST /a 502", "get /a+b 503"]),
        ("include=a%2Bb&literal_patterns", &["get /a+b 503"]),
        ("exclude=%5E", &[]),
    ] {
        let path = format!("/v1/lines/logs/app.log?{query}&items");
        let (head, body) = ask(&server, request("GET", &path, &[LINES])).await;
        assert_eq!(head.status, 200, "{body}");
        let texts = body.lines().filter_map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["text"].as_str().map(str::to_owned)
        });
        assert_eq!(texts.collect::<Vec<_>>(), expected, "{query}");
    }
}

#[tokio::test]
async fn a_log_is_followed_and_continues_over_a_killed_server() {
    let mut server = Server::start();
    let log = server.log_file("app.log");
    append(&log, "one\ntwo\nthree\n");
    let path = "/v1/lines/logs/app.log?follow&last=2&items&heartbeat=100ms";
    let (head, mut events) = Events::open(&server, path, &[EVENTS]).await;
    assert_eq!(head.status, 200);
    let mut seen = Vec::new();
    let mut last = String::new();
    while seen.len() < 2 {
        let event = events.next().await.unwrap();
        if event.kind.is_empty() && !event.is_comment {
            seen.push(event.json()["text"].as_str().unwrap().to_owned());
        }
        if !event.id.is_empty() {
            last = event.id;
        }
    }
    assert_eq!(seen, ["two", "three"]);
    server.kill();
    append(&log, "four\n<b>five</b>\n");
    server.restart();
    let (head, mut events) = Events::open(&server, path, &[EVENTS, ("last-event-id", &last)]).await;
    assert_eq!(head.status, 200);
    while seen.len() < 4 {
        let event = events.next().await.unwrap();
        if event.kind.is_empty() && !event.is_comment {
            seen.push(event.json()["text"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(seen, ["two", "three", "four", "<b>five</b>"]);
    // A heartbeat is a comment, and moves the cursor.
    let heartbeat = loop {
        let event = events.next().await.unwrap();
        if event.is_comment {
            break event;
        }
    };
    assert!(!heartbeat.id.is_empty() && heartbeat.data.is_empty(), "{heartbeat:?}");
}

#[tokio::test]
async fn the_whole_history_of_a_log_is_read_and_a_file_that_cannot_be_read_is_named() {
    let server = Server::start();
    std::fs::write(server.log_file("app.log.3"), b"\xfd7zXZ\0").unwrap();
    append(&server.log_file("app.log.2"), "one\n");
    let gzip = std::process::Command::new("gzip").arg(server.log_file("app.log.2")).status().unwrap();
    assert!(gzip.success());
    append(&server.log_file("app.log.1"), "two\n");
    append(&server.log_file("app.log"), "three\n");
    let (head, body) = ask(&server, request("GET", "/v1/lines/logs/app.log?history", &[LINES])).await;
    assert_eq!(head.status, 200);
    let responses = body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
    let all = |field: &str| {
        let lists = responses.iter().filter_map(|response| response[field].as_array().cloned());
        lists.flatten().collect::<Vec<_>>()
    };
    let texts = all("lines").iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(texts, ["one", "two", "three"]);
    let gap = all("events").iter().find_map(|event| event.get("gap").cloned()).unwrap();
    assert_eq!((&gap["file"], &gap["reason"]), (&"app.log.3".into(), &"LINE_GAP_REASON_UNREADABLE".into()));
    let (head, body) = ask(&server, request("GET", "/v1/lines/logs/app.log?history&last=3", &[LINES])).await;
    assert_eq!(head.status, 400);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["field"], "last", "{body}");
}

#[tokio::test]
async fn files_that_match_globs_are_events_by_which_the_stream_resumes() {
    let server = Server::start();
    for name in ["a.log", "a.log.1", "b.log", "c.txt"] {
        append(&server.log_file(name), "1\n");
    }
    let path = "/v1/files?glob=logs/*.log&glob=logs/none&until_caught_up&items";
    let (head, body) = ask(&server, request("GET", path, &[LINES])).await;
    assert_eq!(head.status, 200, "{body}");
    let items = body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let paths = items.filter_map(|item| item["added"]["path"].as_str().map(str::to_owned));
    assert_eq!(paths.collect::<Vec<_>>(), ["logs/a.log", "logs/b.log"]);
    let path = "/v1/files?glob=logs/*&items";
    let (_, mut events) = Events::open(&server, path, &[EVENTS]).await;
    let first = loop {
        let event = events.next().await.unwrap();
        if event.kind.is_empty() && !event.is_comment {
            break event;
        }
    };
    assert_eq!(first.json()["added"]["path"], "logs/a.log");
    append(&server.log_file("d.log"), "1\n");
    let (head, mut events) = Events::open(&server, path, &[EVENTS, ("last-event-id", &first.id)]).await;
    assert_eq!(head.status, 200);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = events.next().await.unwrap();
        assert_ne!(event.kind, "relisted", "it has the files that the cursor names");
        if event.kind.is_empty() && !event.is_comment {
            seen.push(event.json()["added"]["path"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(seen, ["logs/b.log", "logs/c.txt", "logs/d.log"]);
}

#[tokio::test]
async fn what_is_posted_is_read() {
    let server = Server::start();
    let (head, mut events) = Events::open(&server, "/v1/messages?topic=demo.>", &[EVENTS]).await;
    assert_eq!(head.status, 200);
    assert!(!events.next().await.unwrap().id.is_empty(), "the first event confirms the subscription");
    let (head, body) = ask(&server, post("/v1/messages/demo.a", &[JSON], br#"{"text": "hello"}"#)).await;
    assert_eq!((head.status, head.header("content-type")), (200, "application/json"));
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["sequence"], "1", "{body}");
    let message = loop {
        let event = events.next().await.unwrap();
        if event.data.contains("messages") {
            break event.json()["messages"][0].clone();
        }
    };
    assert_eq!((message["topic"].as_str(), message["text"].as_str()), (Some("demo.a"), Some("hello")));
    let all = "/v1/messages?topic=demo.%3E&earliest&until_caught_up&items";
    let (_, events) = Events::open(&server, all, &[EVENTS]).await;
    let all = events.all().await;
    let items = all.iter().filter(|event| event.kind.is_empty() && !event.is_comment).collect::<Vec<_>>();
    assert_eq!(items.len(), 1, "{all:?}");
    assert_eq!(items[0].json()["text"], "hello");
    assert!(!items[0].id.is_empty());
}

#[tokio::test]
async fn an_error_is_a_problem_with_the_reason_of_grpc() {
    let server = Server::start();
    for (path, status, reason, field) in [
        ("/v1/countdown?start=x", 400, "INVALID_FIELD", "start"),
        ("/v1/countdown?start=5&interval=1us", 400, "INVALID_FIELD", "interval"),
        ("/v1/countdown?strat=5", 400, "INVALID_FIELD", "strat"),
        ("/v1/countdowns/nope", 404, "COUNTDOWN_NOT_FOUND", ""),
        ("/v1/lines/logs/nope", 404, "FILE_NOT_FOUND", ""),
        ("/v1/lines/logs/..%2f..%2fetc/passwd", 400, "INVALID_FIELD", "path"),
        ("/v1/lines/logs/app.log?include=a%28b", 400, "INVALID_FIELD", "include"),
        ("/v1/lines/logs/app.log?exclude=", 400, "INVALID_FIELD", "exclude"),
        ("/v1/messages", 400, "INVALID_FIELD", "topics"),
        ("/v1/messages?topic=a&cursor=x", 400, "CURSOR_MALFORMED", "cursor"),
        ("/v1/messages?topic=a&token=secret", 400, "INVALID_FIELD", "token"),
        ("/v1/messages?topic=a&items&max_batch=2", 400, "INVALID_FIELD", "max_batch"),
    ] {
        let (head, body) = ask(&server, request("GET", path, &[EVENTS])).await;
        assert_eq!(
            (head.status, head.header("content-type")),
            (status, "application/problem+json"),
            "{path}: {body}"
        );
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["reason"], reason, "{path}: {body}");
        if !field.is_empty() {
            assert_eq!(problem["field"], field, "{path}: {body}");
        }
        assert!(!body.contains("secret"), "{body}");
    }
    for (headers, body, status, part) in [
        (&[JSON][..], &b"{}x"[..], 400, "JSON"),
        (&[JSON], b"{\"texxt\": 1}", 400, "texxt"),
        (&[JSON], b"{\"topic\": \"other\", \"text\": \"\"}", 400, "topic"),
        (&[JSON], b"", 400, "JSON"),
        (&[("content-type", "text/plain")], b"{}", 415, "application/json"),
        (&[], b"{}", 415, "application/json"),
    ] {
        let (head, answer) = ask(&server, post("/v1/messages/a", headers, body)).await;
        assert_eq!(head.status, status, "{answer}");
        assert!(answer.contains(part), "{part}: {answer}");
    }
    let (head, body) = ask(&server, request("DELETE", "/v1/countdown", &[])).await;
    assert_eq!(head.status, 405);
    assert!(body.contains("GET"), "{body}");
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_an_event() {
    let mut server = Server::start();
    let (_, mut events) = Events::open(&server, "/v1/messages?topic=a", &[EVENTS]).await;
    assert!(events.next().await.is_some());
    server.terminate();
    let all = events.all().await;
    let error = all.last().unwrap();
    assert_eq!((error.kind.as_str(), error.retry.as_str()), ("error", "500"), "{all:?}");
    assert_eq!(error.json()["reason"], "DRAINING");
    assert!(server.wait().success());
}

#[tokio::test]
async fn a_deadline_and_an_abort_end_a_stream_at_once() {
    let server = Server::start();
    let (_, events) =
        Events::open(&server, "/v1/messages?topic=a", &[EVENTS, ("grpc-timeout", "300m")]).await;
    assert_eq!(events.all().await.last().unwrap().json()["reason"], "DEADLINE_EXCEEDED");
    let (_, mut events) = Events::open(&server, "/v1/messages?topic=gone", &[EVENTS]).await;
    assert!(events.next().await.is_some());
    drop(events);
    loop {
        let line = server.wait_for_log("stream ended");
        if line.contains("gone") {
            assert!(line.contains("CLIENT_GONE"), "{line}");
            break;
        }
    }
}
