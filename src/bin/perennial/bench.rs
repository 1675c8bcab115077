//! `perennial bench`: measures publishing and delivery against a running server.
//!
//! This process is both publisher and subscriber, so that the age of a message is measured by one clock. If it shares
//! its cores with the server, the server alone could do more. Every message carries its run, its publisher, its number
//! and the time at which it was made.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use perennial::{
    client::{Client, Error},
    proto::ErrorReason,
};

use tokio_util::sync::CancellationToken;

use crate::{
    Failure, INTERRUPTED,
    arguments::{
        Bench, Format,
        bench::{Fanout, Load},
    },
    output,
    rate::Rate,
};

mod fanout;
mod latency;
mod message;
mod publish;
mod replay;
mod report;

const TEMPLATE: &str = "{human_pos} messages  {rate}  {elapsed}";
/// The time between updates of the displayed rate.
const TICK: Duration = Duration::from_millis(100);

/// Runs a benchmark, and prints its results.
pub async fn run(client: &Client, it: Bench, format: Format, stop: CancellationToken) -> Result<u8, Failure> {
    let work = async {
        match &it {
            Bench::Pub(load) => publish::run(client, load).await,
            Bench::Sub(replay) => Ok(vec![replay::run(client, replay).await?]),
            Bench::Pubsub(fanout) => fanout::run(client, fanout).await,
        }
    };
    let rows = tokio::select! {
        biased;
        () = stop.cancelled() => Err(Failure::Reported(INTERRUPTED)),
        rows = work => rows,
    };
    let is_unreachable = matches!(rows, Err(Failure::Call(Error::Unreachable { .. })));
    let printed = rows.and_then(|rows| report::print(&rows, format));
    if let Bench::Pub(load) | Bench::Pubsub(Fanout { load, .. }) = &it
        && !is_unreachable
    {
        clear_up(client, load).await?;
    }
    printed
}

/// Removes the messages if the user asked for it, and otherwise reports that they stay.
async fn clear_up(client: &Client, load: &Load) -> Result<(), Failure> {
    if !load.purge {
        output::note("the messages stay in the topics bench.*; --purge removes them");
        return Ok(());
    }
    for topic in message::topics(load) {
        match client.purge_topic(&topic, None).await {
            // A topic without a message does not exist.
            Err(error) if error.has_reason(ErrorReason::TopicNotFound) => {}
            outcome => drop(outcome?),
        }
    }
    output::note("the messages were purged");
    Ok(())
}

/// Waits for some work, and shows the rate at which `count` grows.
async fn watched<T>(count: &AtomicU64, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut rate = Rate::new(TEMPLATE, io::stderr().is_terminal());
    let mut ticks = tokio::time::interval(TICK);
    let mut seen = 0;
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => {
                let now = count.load(Ordering::Relaxed);
                rate.add(now - seen);
                seen = now;
            }
        }
    }
}

/// The results of several tasks, or the first failure.
async fn all<T: 'static>(mut tasks: tokio::task::JoinSet<Result<T, Error>>) -> Result<Vec<T>, Failure> {
    let mut results = Vec::new();
    while let Some(task) = tasks.join_next().await {
        results.push(task.map_err(io::Error::other)??);
    }
    Ok(results)
}
