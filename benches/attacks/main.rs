//! The latency of a healthy client, by itself and beside a connection that asks for much: `cargo bench --bench attacks`.
//!
//! A row is one kind of work, as calls at once of one connection. The healthy client sends a health check every 2 ms on a
//! connection of its own, for 2 s alone and then beside the work, for up to 15 s. The control is in the same run, because
//! the load of the machine changes all figures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a measurement stops at its first surprise"
)]

#[path = "../../tests/harness/mod.rs"]
mod harness;

mod work;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use harness::Server;
use tokio::task::JoinSet;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// How long the control takes.
const ALONE: Duration = Duration::from_secs(2);

/// How long a row takes at most.
const BESIDE: Duration = Duration::from_secs(15);

/// The pause between two checks.
const PAUSE: Duration = Duration::from_millis(2);

/// One call of the work.
type Call = BoxFuture<'static, ()>;

#[tokio::main]
async fn main() {
    let server = Server::start();
    work::prepare(&server).await;
    println!("| work | calls | done | alone p50, p99 | beside p50, p99, max | CPU s | threads | RSS MiB |");
    println!("|---|---|---|---|---|---|---|---|");
    for (name, calls) in work::all(&server).await {
        row(&server, name, calls).await;
    }
}

/// Measures one kind of work and prints its row.
async fn row(server: &Server, name: &str, calls: Vec<Call>) {
    let alone = latencies(server, ALONE, || false).await;
    let (count, done) = (calls.len(), Arc::new(AtomicUsize::new(0)));
    let before = cpu_seconds(server.id());
    let mut running = JoinSet::new();
    for call in calls {
        let done = done.clone();
        running.spawn(async move {
            call.await;
            done.fetch_add(1, Ordering::Relaxed);
        });
    }
    let beside = latencies(server, BESIDE, || done.load(Ordering::Relaxed) == count).await;
    let cpu = cpu_seconds(server.id()) - before;
    let ms = |part: usize, all: &[Duration]| {
        all.get((all.len() * part / 100).min(all.len() - 1)).unwrap().as_secs_f64() * 1e3
    };
    println!(
        "| {name} | {count} | {} | {:.2}, {:.2} ms | {:.2}, {:.2}, {:.2} ms | {cpu:.1} | {} | {} |",
        done.load(Ordering::Relaxed),
        ms(50, &alone),
        ms(99, &alone),
        ms(50, &beside),
        ms(99, &beside),
        ms(100, &beside),
        status(server.id(), "Threads"),
        status(server.id(), "VmRSS") / 1024,
    );
    running.shutdown().await;
}

/// The latencies of health checks, in order of length: at least one.
async fn latencies(server: &Server, time: Duration, is_over: impl Fn() -> bool) -> Vec<Duration> {
    let mut client = HealthClient::new(server.connect().await);
    let (mut all, began) = (Vec::new(), Instant::now());
    while all.is_empty() || began.elapsed() < time && !is_over() {
        let since = Instant::now();
        client.check(HealthCheckRequest::default()).await.unwrap();
        all.push(since.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    all.sort();
    all
}

/// User and system time of a process.
fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields = stat.rsplit(") ").next().unwrap().split(' ').collect::<Vec<_>>();
    // In steps of 10 ms.
    [11, 12].map(|field| fields[field].parse::<f64>().unwrap() / 100.0).iter().sum()
}

/// A figure of `/proc/PID/status`.
fn status(process: u32, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
