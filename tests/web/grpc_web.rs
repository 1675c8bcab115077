//! gRPC-Web: what a browser's client of gRPC sends and reads, over HTTP/1.1 and HTTP/2.

use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use perennial::proto::{
    CountdownRequest, CountdownResponse, MessagesRequest, MessagesResponse, PublishRequest,
    countdown_request::Target, publish_request::Content,
};
use prost::Message;

use crate::{
    harness::{Server, until},
    http1::{Head, Http1, post},
};

const COUNTDOWN: &str = "/perennial.v1.CountdownService/Countdown";
const MESSAGES: &str = "/perennial.v1.MessageService/Messages";
const WEB: (&str, &str) = ("content-type", "application/grpc-web+proto");

/// A message with its prefix.
fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), &bytes].concat()
}

/// The messages of a body, and then its trailers.
fn parts(mut body: &[u8]) -> (Vec<&[u8]>, String) {
    let (mut messages, mut trailers) = (Vec::new(), String::new());
    while let Some((prefix, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
        let (message, rest) = rest.split_at(length);
        if prefix[0] == 0x80 {
            trailers = String::from_utf8(message.to_vec()).unwrap();
        } else {
            messages.push(message);
        }
        body = rest;
    }
    (messages, trailers)
}

fn countdown(start: i32, interval: Duration) -> CountdownRequest {
    let interval = Some(prost_types::Duration::try_from(interval).unwrap());
    // On a busy machine no tick is skipped.
    let on_lag = perennial::proto::OnLag::Burst.into();
    CountdownRequest { target: Some(Target::Start(start)), interval, on_lag, ..CountdownRequest::default() }
}

async fn open(server: &Server, path: &str, message: &impl Message) -> (Http1, Head) {
    let mut client = Http1::connect(server.address()).await;
    assert!(client.send(post(path, &[WEB, ("x-grpc-web", "1")], &framed(message))).await);
    let head = client.head().await.unwrap();
    (client, head)
}

#[tokio::test]
async fn a_stream_leaves_response_by_response_and_ends_with_its_trailers() {
    let server = Server::start();
    let (mut client, head) = open(&server, COUNTDOWN, &countdown(3, Duration::from_secs(1))).await;
    assert_eq!((head.status, head.header("content-type")), (200, "application/grpc-web+proto"));
    let (mut body, mut arrived) = (Vec::new(), Vec::new());
    while let Some(chunk) = client.chunk().await.filter(|chunk| !chunk.is_empty()) {
        body.extend(chunk);
        arrived.push(Instant::now());
    }
    let (messages, trailers) = parts(&body);
    let numbers = messages
        .iter()
        .flat_map(|message| CountdownResponse::decode(*message).unwrap().ticks)
        .filter_map(|tick| tick.remaining);
    assert_eq!(numbers.collect::<Vec<_>>(), [3, 2, 1, 0]);
    assert!(trailers.contains("grpc-status:0") || trailers.contains("grpc-status: 0"), "{trailers}");
    // The first tick did not wait for the last one, which is due after 3 s.
    assert!(*arrived.last().unwrap() - arrived[0] >= Duration::from_secs(1), "{arrived:?}");
}

#[tokio::test]
async fn the_text_form_is_answered_in_base64() {
    let server = Server::start();
    let request = BASE64_STANDARD.encode(framed(&countdown(0, Duration::from_millis(1))));
    let kind = "application/grpc-web-text";
    let mut client = Http1::connect(server.address()).await;
    assert!(
        client.send(post(COUNTDOWN, &[("content-type", kind), ("accept", kind)], request.as_bytes())).await
    );
    let head = client.head().await.unwrap();
    assert!(head.header("content-type").starts_with(kind), "{head:?}");
    let mut body = Vec::new();
    while let Some(chunk) = client.chunk().await.filter(|chunk| !chunk.is_empty()) {
        body.extend(BASE64_STANDARD.decode(chunk).unwrap());
    }
    let (messages, trailers) = parts(&body);
    assert!(!messages.is_empty() && trailers.contains("grpc-status"), "{trailers}");
}

#[tokio::test]
async fn an_error_has_its_details() {
    let server = Server::start();
    let (mut client, head) = open(&server, COUNTDOWN, &countdown(-5, Duration::from_millis(1))).await;
    let body = client.body(&head).await;
    let (_, trailers) = parts(&body);
    let details = if head.header("grpc-status-details-bin").is_empty() {
        trailers
            .lines()
            .find_map(|line| line.strip_prefix("grpc-status-details-bin:"))
            .unwrap_or_else(|| panic!("{head:?} {trailers:?}"))
            .trim()
            .to_owned()
    } else {
        head.header("grpc-status-details-bin").to_owned()
    };
    let details = base64::prelude::BASE64_STANDARD_NO_PAD.decode(details.trim_end_matches('=')).unwrap();
    assert!(String::from_utf8_lossy(&details).contains("INVALID_FIELD"));
}

#[tokio::test]
async fn an_aborted_stream_ends_its_generator_at_once() {
    let server = Server::start();
    let (client, head) =
        open(&server, MESSAGES, &MessagesRequest { topics: vec!["a".into()], ..MessagesRequest::default() })
            .await;
    assert_eq!(head.status, 200);
    drop(client);
    let line = server.wait_for_log("stream ended");
    assert!(line.contains("CLIENT_GONE") && line.contains("Messages"), "{line}");
    let seconds = line.split("seconds=").nth(1).unwrap().split(' ').next().unwrap();
    // The next heartbeat would be after 15 s.
    assert!(seconds.parse::<f64>().unwrap() < 10.0, "{line}");
}

#[tokio::test]
async fn what_is_published_arrives_at_readers_over_both_protocols() {
    let server = Server::start();
    let request = MessagesRequest { topics: vec!["a".into()], ..MessagesRequest::default() };
    let (mut old, head) = open(&server, MESSAGES, &request).await;
    assert_eq!(head.status, 200);
    assert!(!old.chunk().await.unwrap().is_empty(), "the first response confirms the subscription");
    let socket = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let call = |path: &str, message: &[u8]| {
        let request = http::Request::post(format!("http://localhost{path}")).header(WEB.0, WEB.1);
        request.body(Full::new(Bytes::copy_from_slice(message))).unwrap()
    };
    let mut new = sender.send_request(call(MESSAGES, &framed(&request))).await.unwrap();
    assert!(new.body_mut().frame().await.unwrap().unwrap().is_data());
    let message = PublishRequest {
        topic: "a".into(),
        content: Some(Content::Text("hello".into())),
        ..PublishRequest::default()
    };
    let path = "/perennial.v1.MessageService/Publish";
    let published = sender.send_request(call(path, &framed(&message))).await.unwrap();
    let published = published.into_body().collect().await.unwrap().to_bytes();
    assert!(parts(&published).1.contains("grpc-status"));
    let of_old = old.chunk().await.unwrap();
    let of_new = new.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    for body in [&of_old[..], &of_new] {
        let response = MessagesResponse::decode(parts(body).0[0]).unwrap();
        assert_eq!(response.messages[0].topic, "a");
    }
}

#[tokio::test]
async fn a_drain_ends_streams_with_their_reason_and_the_server_stops() {
    let mut server = Server::start();
    let request = MessagesRequest { topics: vec!["a".into()], ..MessagesRequest::default() };
    let (mut client, _) = open(&server, MESSAGES, &request).await;
    let watch = "/grpc.health.v1.Health/Watch";
    let (mut watcher, _) = open(&server, watch, &tonic_health::pb::HealthCheckRequest::default()).await;
    assert!(!client.chunk().await.unwrap().is_empty() && !watcher.chunk().await.unwrap().is_empty());
    server.terminate();
    for client in [&mut client, &mut watcher] {
        let mut body = Vec::new();
        while let Some(chunk) = client.chunk().await.filter(|chunk| !chunk.is_empty()) {
            body.extend(chunk);
        }
        let trailers = parts(&body).1;
        assert!(trailers.contains("grpc-status:14") || trailers.contains("grpc-status: 14"), "{trailers}");
        client.closed().await;
    }
    assert!(server.wait().success());
    until("the end", async || !server.is_running()).await;
}
