//! Promise 3, from the first byte: what a client of bad will can make the server hold or do has a limit, whatever the
//! client leaves unsent or unread, and other clients are served meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod answers;
mod crowd;
mod fair;
mod floods;
mod forged;
mod frames;
mod http1;
mod listings;
mod quota;
mod raw;
mod requests;
mod wire;

/// A figure of `/proc/PID/status`, in KiB.
fn status_kib(process: u32, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// The metrics of a server.
async fn scrape(address: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    harness::soon("metrics", socket.read_to_string(&mut text)).await.unwrap();
    text
}
