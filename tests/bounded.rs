//! Promise 3: a slow reader costs a cursor, not a queue; the error of every limit names it; a client that disconnects
//! leaves nothing behind on the server, and a server that is asked to stop stops.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use std::net::TcpStream;

use harness::{Server, append, soon, until};
use perennial::proto::{
    CountdownRequest, MessagesRequest, PublishStreamRequest, ReadLinesRequest, countdown_request::Target,
};
use tonic::Code;
use tonic_types::StatusExt;

fn follow(path: &str) -> ReadLinesRequest {
    ReadLinesRequest { path: path.into(), follow: true, ..Default::default() }
}

fn resident_kib(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn readers_that_take_nothing_cost_little_and_lose_nothing() {
    const LINES: usize = 400_000;
    const READERS: usize = 50;
    let server = Server::start();
    let text = (0..LINES).map(|n| format!("line {n} {}\n", "x".repeat(60))).collect::<String>();
    append(&server.log_file("big.log"), &text);
    let request = ReadLinesRequest { path: "logs/big.log".into(), ..Default::default() };
    let mut streams = Vec::new();
    let before = resident_kib(server.id());
    for _ in 0..READERS {
        // A connection each: the worst case, each has its own window and send buffer.
        let mut stream = server.lines().await.read_lines(request.clone()).await.unwrap().into_inner();
        let first = soon("the first response", stream.message()).await.unwrap().unwrap();
        streams.push((stream, first.lines.len()));
    }
    // Each reader costs a window, a send buffer and a batch or two, not 27 MB. `cargo bench -- stalled` measures it
    // exactly, on an optimised build.
    let grown = resident_kib(server.id()).saturating_sub(before) / READERS;
    assert!(grown < 2_048, "{grown} KiB a reader that takes nothing");
    let (mut stream, mut count) = streams.pop().unwrap();
    while let Some(response) = soon("lines", stream.message()).await.unwrap() {
        count += response.lines.len();
    }
    assert_eq!(count, LINES, "the slow reader got every line in the end");
}

#[tokio::test]
async fn a_reader_that_vanishes_is_forgotten() {
    let port = harness::free_port();
    let metrics = format!("127.0.0.1:{port}");
    let server = Server::start_with(&["--metrics", &metrics]);
    append(&server.log_file("app.log"), "1\n");
    let open = async || {
        let text = scrape(&metrics).await;
        let open = text.lines().filter(|line| line.starts_with("perennial_streams_open{"));
        open.map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum::<i64>()
    };
    let mut lines = server.lines().await.read_lines(follow("logs/app.log")).await.unwrap().into_inner();
    let request = CountdownRequest { target: Some(Target::Start(1_000)), ..Default::default() };
    let mut countdown = server.countdown().await.countdown(request).await.unwrap().into_inner();
    let request = MessagesRequest { topics: vec!["a".into()], ..Default::default() };
    let mut messages = server.messages().await.messages(request).await.unwrap().into_inner();
    soon("a line", lines.message()).await.unwrap();
    soon("a tick", countdown.message()).await.unwrap();
    soon("a batch", messages.message()).await.unwrap();
    assert_eq!(open().await, 3);
    drop((lines, countdown, messages));
    until("no stream open", async || open().await == 0).await;
    let text = scrape(&metrics).await;
    let cancelled = text
        .lines()
        .filter(|line| line.starts_with("perennial_streams_ended_total{") && line.contains("CANCELLED"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap())
        .sum::<i64>();
    assert_eq!(cancelled, 3, "each counted as cancelled, once:\n{text}");
}

async fn scrape(address: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    soon("metrics", socket.read_to_string(&mut text)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    text
}

#[tokio::test]
async fn a_stream_over_the_limit_is_refused_with_the_limit_and_can_be_opened_later() {
    let server = Server::start_with(&["--max-streams", "2"]);
    append(&server.log_file("app.log"), "1\n");
    let mut client = server.lines().await;
    let first = client.read_lines(follow("logs/app.log")).await.unwrap();
    let second = client.read_lines(follow("logs/app.log")).await.unwrap();
    let status = client.read_lines(follow("logs/app.log")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "TOO_MANY_STREAMS");
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    assert!(status.message().contains('2'), "{status:?}");
    drop(first);
    until("a free place", async || client.read_lines(follow("logs/app.log")).await.is_ok()).await;
    drop(second);
}

#[tokio::test]
async fn a_countdown_over_the_tick_rate_is_refused_with_the_limit_and_a_slower_one_is_served() {
    let server = Server::start_with(&["--max-tick-rate", "1100"]);
    let client = server.countdown().await;
    let ticking = |milliseconds: i64| {
        let interval = prost_types::Duration {
            seconds: milliseconds / 1000,
            nanos: i32::try_from(milliseconds % 1000).unwrap() * 1_000_000,
        };
        let target = Some(Target::Start(1_000_000));
        let mut client = client.clone();
        async move {
            client
                .countdown(CountdownRequest { target, interval: Some(interval), ..Default::default() })
                .await
        }
    };
    let first = ticking(1).await.unwrap();
    let status = ticking(1).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "TOO_MANY_TICKS");
    assert_eq!(details.error_info().unwrap().metadata["limit"], "1100");
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    let _slow = ticking(1_000).await.unwrap();
    drop(first);
    until("room for ticks", async || ticking(1).await.is_ok()).await;
}

#[tokio::test]
async fn a_server_that_is_stopped_ends_open_streams_with_retry_info_and_ignores_silent_sockets() {
    // Much longer than the test waits for the end: a silent socket must not hold up the drain.
    let mut server = Server::start_with(&["--drain", "10m"]);
    append(&server.log_file("app.log"), "1\n");
    let silent = TcpStream::connect(server.address()).unwrap();
    let mut lines = server.lines().await.read_lines(follow("logs/app.log")).await.unwrap().into_inner();
    let first = soon("a line", lines.message()).await.unwrap().unwrap();
    assert!(!first.cursor.is_empty());
    let mut client = server.messages().await;
    let (requests, receiver) = tokio::sync::mpsc::channel::<PublishStreamRequest>(1);
    let flow = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = client.publish_stream(flow).await.unwrap().into_inner();

    server.terminate();
    for status in [
        async {
            loop {
                match lines.message().await {
                    Ok(response) => assert!(response.is_some(), "a draining server ended a stream with OK"),
                    Err(status) => break status,
                }
            }
        }
        .await,
        soon("the end", answers.message()).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "DRAINING");
        assert!(details.retry_info().is_some());
    }
    assert!(server.wait().success());
    drop((silent, requests));
}

#[tokio::test]
async fn a_stalled_reader_is_ended_and_can_resume() {
    let port = harness::free_port();
    let metrics = format!("127.0.0.1:{port}");
    let server = Server::start_with(&["--stall", "1s", "--metrics", &metrics]);
    let text = (0..400_000).map(|n| format!("line {n} {}\n", "x".repeat(60))).collect::<String>();
    append(&server.log_file("big.log"), &text);
    let mut request = ReadLinesRequest { path: "logs/big.log".into(), ..Default::default() };
    let mut stream = server.lines().await.read_lines(request.clone()).await.unwrap().into_inner();
    until("the end of the stalled stream", async || {
        let text = scrape(&metrics).await;
        let open = |line: &&str| line.starts_with("perennial_streams_open{") && line.contains("ReadLines");
        text.lines().find(open).is_some_and(|line| line.ends_with(" 0"))
    })
    .await;
    let (mut count, mut stalls) = (0, 0);
    // A busy machine can keep this test, too, from reading for a second: then the server ends the stream again.
    loop {
        match soon("lines", stream.message()).await {
            Ok(Some(response)) => {
                count += response.lines.len();
                request.cursor = Some(response.cursor);
            }
            Ok(None) => break,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                assert_eq!(status.get_error_details().error_info().unwrap().reason, "STALLED");
                stalls += 1;
                stream = server.lines().await.read_lines(request.clone()).await.unwrap().into_inner();
            }
        }
    }
    assert!(stalls > 0, "the stalled stream ended with OK");
    assert_eq!(count, 400_000);
}
