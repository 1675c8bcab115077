//! Floods of frames, and connections that are silent or slow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    floods::{self, Flood, Held},
    harness::{Server, soon, until},
    status_kib,
    wire::{
        self, CHECK, DATA, FRAME_BYTES, HEADERS, PING, PREFACE, SETTINGS, Wire, call, frame, open, whole,
    },
};

/// The rounds of a flood: `benches/attacks` has more of them, on more connections.
const ROUNDS: u32 = 20;

/// What a server may keep of all floods.
const KEPT_KIB: usize = 48 * 1024;

/// A client that asks for one answer after the other.
struct Neighbour {
    asks: JoinHandle<()>,
    answers: Arc<AtomicUsize>,
}

impl Neighbour {
    async fn of(server: &Server) -> Self {
        let mut client = HealthClient::new(server.connect().await);
        let answers = Arc::new(AtomicUsize::new(0));
        let count = answers.clone();
        let asks = tokio::spawn(async move {
            loop {
                soon("a check", client.check(HealthCheckRequest::default())).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { asks, answers }
    }

    /// Waits until it has one more answer on its connection. No call before may have failed.
    async fn is_served(&self) {
        let before = self.answers.load(Ordering::Relaxed);
        until("an answer to the neighbour", async || {
            assert!(!self.asks.is_finished(), "a call of the neighbour failed");
            self.answers.load(Ordering::Relaxed) > before
        })
        .await;
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.asks.abort();
    }
}

/// Floods a server by one connection.
async fn hold(server: &Server, flood: &Flood) {
    let mut wire = Wire::silent(server.address()).await;
    let mut is_open = wire.send(&flood.first).await;
    for round in 0..ROUNDS {
        if !is_open {
            break;
        }
        is_open = wire.send(&(flood.round)(round)).await;
        let answered = flood.answered * (round as usize + 1);
        wire.saw(flood.name, |seen| seen.is_closed || seen.ended.len() >= answered).await;
    }
    match flood.held {
        Held::Cut => drop(wire.saw(flood.name, |seen| seen.is_closed || seen.goaway.is_some()).await),
        Held::Served => {
            let stream = floods::unused_stream(ROUNDS);
            assert!(wire.send(&whole(stream, CHECK)).await, "{}: {:?}", flood.name, wire.seen());
            let seen = wire.saw(flood.name, |seen| seen.is_closed || seen.ended.contains(&stream)).await;
            assert!(!seen.is_closed, "{}: {:?}", flood.name, seen.goaway);
        }
    }
}

/// User and system time of a process, in steps of 10 ms.
fn cpu_steps(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields = stat.rsplit(") ").next().unwrap().split(' ').collect::<Vec<_>>();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Waits until a server does next to nothing.
async fn quiet(server: &Server) {
    until("a quiet server", async || {
        let before = cpu_steps(server.id());
        tokio::time::sleep(Duration::from_millis(200)).await;
        cpu_steps(server.id()) - before <= 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_are_cut_or_served_and_leave_nothing_behind() {
    let mut server = Server::start();
    let neighbour = Neighbour::of(&server).await;
    let before = status_kib(server.id(), "VmRSS");
    for flood in floods::all() {
        hold(&server, &flood).await;
        let kept = status_kib(server.id(), "VmRSS").saturating_sub(before);
        assert!(kept < KEPT_KIB, "{kept} KiB after {}", flood.name);
    }
    neighbour.is_served().await;
    quiet(&server).await;
    server.terminate();
    assert!(server.wait().success());
    let log = server.rest_of_log();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:?}");
    assert!(log.len() < 2_000, "{} lines of the log", log.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_pings_and_settings_that_are_not_read_do_not_pile_up() {
    let server = Server::start_with(&["--ping-interval", "300ms", "--ping-timeout", "300ms"]);
    let before = status_kib(server.id(), "VmRSS");
    for kind in [PING, SETTINGS] {
        let payload: &[u8] = if kind == PING { &[7; 8] } else { &[] };
        let flood = frame(kind, 0, 0, payload).repeat(10_000);
        // Its answers are never read, so that they fill the socket.
        let mut socket = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let sent = async {
            use tokio::io::AsyncWriteExt;
            socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await?;
            loop {
                socket.write_all(&flood).await?;
            }
        };
        let _: std::io::Error = soon::<Result<(), _>>("the end of the connection", sent).await.unwrap_err();
        let grown = status_kib(server.id(), "VmRSS").saturating_sub(before);
        assert!(grown < KEPT_KIB, "{grown} KiB");
    }
    quiet(&server).await;
}

#[tokio::test]
async fn a_connection_without_a_call_is_closed_whatever_it_sends_slowly() {
    let server = Server::start_with(&["--first-request", "300ms"]);
    let neighbour = Neighbour::of(&server).await;
    Wire::silent(server.address()).await.closed().await;
    // A byte now and then is no request.
    let settings = frame(SETTINGS, 0, 0, &[]);
    let headers = [PREFACE, &settings, &frame(HEADERS, 0, 1, &call(CHECK))].concat();
    for slow in [[PREFACE, &settings].concat(), headers] {
        let mut wire = Wire::silent(server.address()).await;
        for byte in slow.iter().cycle() {
            if !wire.send(&[*byte]).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        wire.closed().await;
    }
    neighbour.is_served().await;
}

#[tokio::test]
async fn headers_that_never_end_do_not_keep_a_connection_that_has_a_stream() {
    let server = Server::start_with(&["--ping-interval", "300ms", "--ping-timeout", "300ms"]);
    let mut wire = Wire::connect(server.address()).await;
    assert!(wire.send(&open(1, CHECK)).await);
    assert!(wire.send(&frame(HEADERS, 0, 3, &call(CHECK))).await);
    // The server's pings are not answered, because nothing may come before the end of the headers.
    wire.closed().await;
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_ends_without_a_deadline() {
    let server = Server::start_with(&["--stall", "500ms"]);
    let neighbour = Neighbour::of(&server).await;
    let mut wire = Wire::connect(server.address()).await;
    assert!(wire.send(&[open(1, CHECK), frame(DATA, 0, 1, &[0, 0, 0, 0x99, 0x99])].concat()).await);
    while !wire.seen().ended.contains(&1) {
        assert!(wire.send(&frame(DATA, 0, 1, &[1])).await, "{:?}", wire.seen());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Only the call ends.
    assert!(wire.send(&whole(3, CHECK)).await);
    let seen = wire.saw("an answer", |seen| seen.is_closed || seen.ended.contains(&3)).await;
    assert!(!seen.is_closed, "{seen:?}");
    neighbour.is_served().await;
}

#[tokio::test]
async fn what_is_neither_http_2_nor_http_1_is_closed() {
    let server = Server::start();
    let long = "x".repeat(2 * FRAME_BYTES);
    for first in ["PRI * HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01", long.as_str()] {
        let mut wire = Wire::silent(server.address()).await;
        let _ = wire.send(first.as_bytes()).await;
        wire.closed().await;
    }
    let mut wire = Wire::connect(server.address()).await;
    assert!(wire.send(&wire::whole(1, CHECK)).await);
    wire.saw("an answer", |seen| seen.ended.contains(&1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_descriptors_serves_the_connections_that_it_has() {
    let server = Server::start_by(&["prlimit", "--nofile=64:64"]);
    let mut health = HealthClient::new(server.connect().await);
    let mut held = Vec::new();
    // Sockets that wait in the queue of the listener count for this process only.
    for _ in 0..100 {
        held.push(tokio::net::TcpStream::connect(server.address()).await.unwrap());
    }
    for _ in 0..10 {
        soon("a check", health.check(HealthCheckRequest::default())).await.unwrap();
    }
    quiet(&server).await;
    drop(held);
    until("a new connection", async || {
        let Ok(endpoint) = tonic::transport::Endpoint::from_shared(server.url()) else { return false };
        let Ok(channel) = endpoint.connect().await else { return false };
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.is_ok()
    })
    .await;
}
