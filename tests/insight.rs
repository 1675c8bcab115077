//! What an operator sees from outside: probes, metrics of calls and consumers, and the log as JSON.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]
#![expect(clippy::float_cmp, reason = "the metrics that are compared are whole numbers")]

mod harness;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Stdio,
};

use harness::{Server, server_command, signal, soon, until, wait};
use perennial::{
    client::Client,
    proto::{
        CommitCursorRequest, MessagesRequest, PublishRequest, messages_request::Start,
        publish_request::Content,
    },
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tonic::Code;

/// The status and the body of an answer.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.into())
}

#[tokio::test]
async fn while_the_disk_is_full_the_server_is_ready_to_read_and_not_to_publish() {
    let (server, address) = start();
    // Like a disk with little room.
    let process = Pid::from_raw(server.id().cast_signed());
    let limit = |bytes| prlimit(process, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    limit(Some(4 * 1024 * 1024));
    let client = Client::new(&server.url()).unwrap();
    let message = || PublishRequest {
        topic: "a".into(),
        content: Some(Content::Data(vec![0; 500_000])),
        ..Default::default()
    };
    let refused = loop {
        if let Err(refused) = client.publish(message()).await {
            break refused;
        }
    };
    assert_eq!(refused.reason(), Some("LOG_FULL"), "{refused}");
    let (status, text) = get(&address, "/readyz");
    assert!(status == 200 && text.starts_with("ready to read") && text.contains("LOG_FULL"), "{text}");
    let needed = text.split("which needs ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert_eq!(needed.parse(), Ok(series(&address)["perennial_log_needed_bytes"]), "{text}");
    let (status, text) = get(&address, "/readyz/publish");
    assert!(status == 503 && text.contains("LOG_FULL"), "{text}");
    assert_eq!(series(&address)["perennial_log_full"], 1.0);
    limit(None);
    until("room", async || get(&address, "/readyz/publish").0 == 200).await;
    client.publish(message()).await.unwrap();
    let series = series(&address);
    assert!(series["perennial_memory_bytes{holder=\"recent_messages\"}"] > 1_000_000.0, "{series:?}");
    assert!(series["perennial_connections_open"] >= 1.0 && series["perennial_panics_total"] == 0.0);
}

/// All series, without the time of histograms.
fn series(address: &str) -> BTreeMap<String, f64> {
    let (status, text) = get(address, "/metrics");
    assert_eq!(status, 200, "{text}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.into(), value.parse().unwrap()))
        .collect()
}

fn start() -> (Server, String) {
    let metrics = format!("127.0.0.1:{}", harness::free_port());
    (Server::start_with(&["--metrics", &metrics, "--drain", "8s"]), metrics)
}

fn hello(topic: &str) -> PublishRequest {
    PublishRequest { topic: topic.into(), content: Some(Content::Text("hello".into())), ..Default::default() }
}

fn all(topic: &str) -> MessagesRequest {
    MessagesRequest { topics: vec![topic.into()], start: Some(Start::Earliest(true)), ..Default::default() }
}

// The wait for the end of the server blocks its thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_say_that_the_server_is_ready_and_that_it_stops() {
    let (mut server, metrics) = start();
    assert_eq!(get(&metrics, "/healthz"), (200, "ok\n".into()));
    assert_eq!(get(&metrics, "/readyz"), (200, "ready\n".into()));
    assert_eq!(get(&metrics, "/readyz/publish"), (200, "ready\n".into()));
    assert_eq!(get(&metrics, "/nothing").0, 404);
    // A client that rests while it has a message to read keeps its connection, and with it the drain.
    let large = PublishRequest { content: Some(Content::Data(vec![0; 1_000_000])), ..hello("a") };
    server.messages().await.publish(large).await.unwrap();
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = tokio::task::block_in_place(|| {
        client.block_on(async { server.messages().await.messages(all("a")).await.unwrap() })
    });
    server.terminate();
    until("503", async || get(&metrics, "/readyz").0 == 503).await;
    client.shutdown_background();
    drop(stream);
    assert!(server.wait().success());
}

#[tokio::test]
async fn the_metrics_of_grpc_dashboards_count_every_call_once_and_unknown_methods_share_a_series() {
    let (server, metrics) = start();
    let mut client = server.messages().await;
    for _ in 0..3 {
        client.publish(hello("a")).await.unwrap();
    }
    let refused = client.publish(hello("a b")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let bounded = MessagesRequest { until_caught_up: true, ..all("a") };
    let mut stream = client.messages(bounded).await.unwrap().into_inner();
    let mut responses = 0.0;
    while soon("a response", stream.message()).await.unwrap().is_some() {
        responses += 1.0;
    }
    let mut cut = client.messages(all("a")).await.unwrap().into_inner();
    soon("a response", cut.message()).await.unwrap();
    drop(cut);
    for name in ["/a.B/C", "/a.B/D", "/x", "/perennial.v1.MessageService/Nothing"] {
        let mut client = tonic::client::Grpc::new(server.connect().await);
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<PublishRequest, PublishRequest>::default();
        let path = http::uri::PathAndQuery::from_static(name);
        let error = client.unary(tonic::Request::new(hello("a")), path, codec).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented, "{name}");
    }
    let of = |kind: &str, service: &str, method: &str| {
        format!("grpc_type=\"{kind}\",grpc_service=\"{service}\",grpc_method=\"{method}\"")
    };
    let service = "perennial.v1.MessageService";
    let (publish, messages) = (of("unary", service, "Publish"), of("server_stream", service, "Messages"));
    let unknown = of("unknown", "unknown", "unknown");
    let expected = [
        (format!("grpc_server_started_total{{{publish}}}"), 4.0),
        (format!("grpc_server_handled_total{{{publish},grpc_code=\"OK\"}}"), 3.0),
        (format!("grpc_server_handled_total{{{publish},grpc_code=\"InvalidArgument\"}}"), 1.0),
        (format!("grpc_server_msg_sent_total{{{publish}}}"), 3.0),
        (format!("grpc_server_handling_seconds_count{{{publish}}}"), 4.0),
        (format!("grpc_server_started_total{{{messages}}}"), 2.0),
        (format!("grpc_server_handled_total{{{messages},grpc_code=\"OK\"}}"), 1.0),
        (format!("grpc_server_handled_total{{{messages},grpc_code=\"Canceled\"}}"), 1.0),
        (format!("grpc_server_started_total{{{unknown}}}"), 4.0),
        (format!("grpc_server_handled_total{{{unknown},grpc_code=\"Unimplemented\"}}"), 4.0),
    ];
    until("every call counted", async || {
        let series = series(&metrics);
        expected.iter().all(|(name, value)| series.get(name) == Some(value))
    })
    .await;
    let series = series(&metrics);
    let sent = series[&format!("grpc_server_msg_sent_total{{{messages}}}")];
    assert!(sent > responses, "{sent}");
    assert!(!series.keys().any(|name| name.contains("a.B") || name.contains("Nothing")));
    assert_eq!(series["perennial_log_head_sequence"], 3.0);
    assert_eq!(series["perennial_log_sync_seconds_count"], 3.0);
    assert!(series["process_resident_memory_bytes"] > 1e6 && series["process_open_fds"] > 5.0);
}

#[tokio::test]
async fn the_lag_of_consumers_has_a_bounded_number_of_series_and_shows_the_largest() {
    let (server, metrics) = start();
    let mut client = server.messages().await;
    client.publish(hello("a")).await.unwrap();
    let mut stream = client.messages(all("a")).await.unwrap().into_inner();
    let mut cursor = String::new();
    while let Some(response) = soon("a response", stream.message()).await.unwrap() {
        cursor = response.cursor;
        if response.caught_up {
            break;
        }
    }
    for n in 0..120 {
        let consumer = format!("c.{n}");
        client
            .commit_cursor(CommitCursorRequest { consumer, cursor: cursor.clone(), rewind: false })
            .await
            .unwrap();
    }
    for _ in 0..7 {
        client.publish(hello("a")).await.unwrap();
    }
    let series = series(&metrics);
    let lags = series.iter().filter(|(name, _)| name.starts_with("perennial_consumer_lag_sequences{"));
    let lags = lags.map(|(_, lag)| *lag).collect::<Vec<_>>();
    assert_eq!(lags.len(), 100);
    assert!(lags.iter().all(|lag| *lag >= 7.0), "{lags:?}");
    assert_eq!(series["perennial_log_consumers"], 120.0);
    assert!(series["perennial_consumer_lag_max_sequences"] >= 7.0);
}

#[test]
fn the_log_is_json_where_it_is_no_terminal() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("logs")).unwrap();
    let mut command = server_command(directory.path(), "127.0.0.1:0");
    let mut child = command.env_remove("PERENNIAL_LOG_FORMAT").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let is_open = |line: &String| line.starts_with('{') && line.contains("the log is open");
    let line = lines.find(is_open).expect("a line of JSON");
    let line = serde_json::from_str::<serde_json::Value>(&line).unwrap();
    assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"the log is open".into()));
    assert_eq!(line["segments"], 1);
    signal(&child, rustix::process::Signal::TERM);
    for line in lines.filter(|line| !line.starts_with("perenniald: ") && !line.starts_with(' ')) {
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
    }
    assert!(wait(&mut child).success());
}
