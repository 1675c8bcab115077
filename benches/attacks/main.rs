//! The latency of a healthy client, by itself and beside a connection that asks for much: `cargo bench --bench attacks`.
//!
//! A row is one kind of work, as calls at once of one connection. The healthy client is a process of its own that sends a
//! health check every 2 ms, for 2 s alone and then beside the work, for up to 15 s. The control is in the same run, because
//! the load of the machine changes all figures. An argument is a part of the name of the rows to run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a measurement stops at its first surprise"
)]

#[path = "../../tests/attacks/floods.rs"]
mod floods;
#[path = "../../tests/harness/mod.rs"]
mod harness;
#[path = "../../tests/attacks/wire.rs"]
mod wire;

mod neighbour;
mod work;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use harness::Server;
use neighbour::Neighbour;
use tokio::task::JoinSet;

/// How long the control takes.
const ALONE: Duration = Duration::from_secs(2);

/// How long a row takes at most.
const BESIDE: Duration = Duration::from_secs(15);

/// One call of the work.
type Call = BoxFuture<'static, ()>;

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(neighbour::ARGUMENT) {
        return neighbour::run(arguments.next().unwrap().parse().unwrap());
    }
    // The name of a row, or a part of it.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let server = Server::start_with(&work::ARGUMENTS);
    neighbour::yield_to_server();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        work::prepare(&server).await;
        println!(
            "| work | calls | done | alone p50, p99 | beside p50, p99, max | CPU s | threads | RSS MiB |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for (name, calls) in work::all(&server).await.into_iter().chain(work::floods(&server)) {
            if name.contains(&wanted) {
                row(&server, &name, calls).await;
            }
        }
    });
}

/// Measures one kind of work and prints its row.
async fn row(server: &Server, name: &str, calls: Vec<Call>) {
    let control = Neighbour::start(server);
    tokio::time::sleep(ALONE).await;
    let alone = control.end();
    let (count, done) = (calls.len(), Arc::new(AtomicUsize::new(0)));
    let before = cpu_seconds(server.id());
    let neighbour = Neighbour::start(server);
    let mut running = JoinSet::new();
    for call in calls {
        let done = done.clone();
        running.spawn(async move {
            call.await;
            done.fetch_add(1, Ordering::Relaxed);
        });
    }
    let all = async { while running.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(BESIDE, all).await;
    let (threads, resident) = (status(server.id(), "Threads"), status(server.id(), "VmRSS") / 1024);
    let beside = neighbour.end();
    let cpu = cpu_seconds(server.id()) - before;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "| {name} | {count} | {} | {:.2}, {:.2} ms | {:.2}, {:.2}, {:.2} ms | {cpu:.1} | {threads} | {resident} |",
        done.load(Ordering::Relaxed),
        ms(alone.p50),
        ms(alone.p99),
        ms(beside.p50),
        ms(beside.p99),
        ms(beside.max),
    );
    running.shutdown().await;
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
