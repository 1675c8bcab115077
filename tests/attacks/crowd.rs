//! Many connections of one address, and many lines of the log because of one connection.

use perennial::proto::ReadLinesRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    harness::{Server, free_port, soon, until},
    scrape,
    wire::PREFACE,
};

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let metrics = format!("127.0.0.1:{}", free_port());
    let server = Server::start_with(&["--max-connections", "8", "--metrics", &metrics]);
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..100 {
        let mut socket = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        // The server greets a client of HTTP/2 whose connection it accepts. It has ended the others.
        socket.write_all(PREFACE).await.ok();
        let mut byte = [0];
        match soon("a greeting or the end", socket.read(&mut byte)).await {
            Ok(1) => held.push(socket),
            _ => refused += 1,
        }
    }
    assert_eq!((held.len(), refused), (6, 94), "three quarters of 8 connections");
    // Another address, which still has room.
    let endpoint = tonic::transport::Endpoint::from_shared(server.url()).unwrap();
    let endpoint = endpoint.local_address(Some("127.0.0.2".parse().unwrap()));
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    health.check(HealthCheckRequest::default()).await.unwrap();
    let text = scrape(&metrics).await;
    let counter = "perennial_connections_refused_total{limit=\"--max-connections-per-address\"} 94";
    assert!(text.contains(counter), "{text}");
    drop(held);
    until("room for the first address", async || {
        let Ok(channel) = tonic::transport::Endpoint::from_shared(server.url()).unwrap().connect().await
        else {
            return false;
        };
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_connection_cannot_fill_the_log_and_what_is_left_out_is_counted() {
    const STREAMS: usize = 3_000;
    let mut server = Server::start();
    let mut client = server.lines().await;
    for _ in 0..STREAMS {
        let request = ReadLinesRequest { path: "logs/none".into(), ..Default::default() };
        client.read_lines(request).await.unwrap_err();
    }
    drop(client);
    server.terminate();
    assert!(server.wait().success());
    let log = server.rest_of_log();
    let (mut ended, mut left_out) = (0, 0);
    for line in &log {
        ended += usize::from(line.contains("stream ended"));
        let count = line.split_once("left_out=").map(|(_, rest)| rest.split(' ').next().unwrap());
        left_out += count.map_or(0, |count| count.parse::<usize>().unwrap());
    }
    assert_eq!(ended + left_out, STREAMS, "each stream is logged or counted");
    assert!(ended < STREAMS / 2, "{ended} lines");
}
