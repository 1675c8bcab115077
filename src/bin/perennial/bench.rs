//! `perennial bench`: measures publishing and delivery against a running server.
//!
//! Both ends are this process, so that an age has one clock, and what a server can do alone is more than what is told
//! here when they share their cores. Every message carries whose it is, its number and when it was made.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use perennial::client::{Client, Error};

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
mod histogram;
mod message;
mod publish;
mod replay;
mod report;

const TEMPLATE: &str = "{human_pos} messages  {rate}  {elapsed}";
/// Often enough for the eye.
const TICK: Duration = Duration::from_millis(100);

/// Runs a benchmark, and prints what it found.
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
    let is_nobody_there = matches!(rows, Err(Failure::Call(Error::Unreachable { .. })));
    let printed = rows.and_then(|rows| report::print(&rows, format));
    if let Bench::Pub(load) | Bench::Pubsub(Fanout { load, .. }) = &it
        && !is_nobody_there
    {
        clear_up(client, load).await?;
    }
    printed
}

/// Removes what was published, if that is asked for, and says what is left.
async fn clear_up(client: &Client, load: &Load) -> Result<(), Failure> {
    if !load.purge {
        output::note("the messages stay in the topics bench.*; --purge removes them");
        return Ok(());
    }
    for topic in message::topics(load) {
        match client.purge_topic(&topic, None).await {
            // Not every topic got a message.
            Err(error) if error.reason() == Some("TOPIC_NOT_FOUND") => {}
            outcome => drop(outcome?),
        }
    }
    output::note("the messages were purged");
    Ok(())
}

/// Waits for some work, and shows a person how fast `count` grows.
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

/// The first failure of several tasks, or what they gave.
async fn all<T: 'static>(mut tasks: tokio::task::JoinSet<Result<T, Error>>) -> Result<Vec<T>, Failure> {
    let mut given = Vec::new();
    while let Some(task) = tasks.join_next().await {
        given.push(task.map_err(io::Error::other)??);
    }
    Ok(given)
}
