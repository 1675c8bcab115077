//! What it takes to publish: one stream, many callers, and one caller by itself.

use std::{
    cell::RefCell,
    fs::File,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{
    load::{Load, Messages, SIZE, TOPICS},
    report::{Aim, Cost, Line, Meter, Runs, Unit},
    system::{Server, System},
};
use crate::{Plan, Result, directory};

const SYSTEMS: [System; 3] = [System::Perennial, System::Default, System::Always];
/// An append of durable-streams is one request, and a connection has one request at a time.
const WITH_UNARY: [System; 4] = [System::Perennial, System::Default, System::Always, System::DurableStreams];

const RUNS: usize = 3;
const QUICK_RUNS: usize = 1;

/// How long each run publishes.
const TIME: Duration = Duration::from_secs(10);
const QUICK_TIME: Duration = Duration::from_secs(2);

/// How many messages of the stream wait for their answer, and how many leave together at most.
const WINDOW: usize = 1_000;
const FRAME: usize = 100;

/// How many callers publish at once, each on its own connection, each one message after the other.
const CALLERS: usize = 64;

/// How often the speed of the disk is measured before and after each run, with blocks of 4 KiB.
const SYNCS: u64 = 100;
const BLOCK: [u8; 4096] = [7; 4096];

/// What a caller by itself may wait beyond the disk, in milliseconds: 1 ms where a sync takes 0.2 ms.
const BEYOND_DISK: f64 = 0.8;

fn time(plan: Plan) -> Duration {
    if plan.quick { QUICK_TIME } else { TIME }
}

/// One stream of messages, a window of them unanswered.
pub async fn stream(plan: Plan) -> Result<Vec<Line>> {
    let times = plan.runs(RUNS, QUICK_RUNS);
    let load = Load::timed(time(plan), WINDOW, FRAME);
    let runs = Runs::take(&SYSTEMS, times, async |system| flow(system, &load).await).await;
    runs.print(&format!("Durable publish: one stream, {WINDOW} in flight, up to {FRAME} leave together"));
    // A write of NATS has no such border.
    let load = Load { frame: 1, ..load };
    let single = Runs::take(&[System::Perennial], times, async |system| flow(system, &load).await).await;
    single.print(&format!("Durable publish: one stream, {WINDOW} in flight, one a request"));
    let what = format!("publish, one stream, {WINDOW} in flight");
    Ok(vec![
        runs.line(&what, Unit::PerSecond, Aim::AtLeast(100_000.0), Cost::rate),
        single.line(&format!("{what}, one a request"), Unit::PerSecond, Aim::None, Cost::rate),
    ])
}

async fn flow(system: System, load: &Load) -> Result<Cost> {
    let (messages, load) = (Messages::new(TOPICS, SIZE), load.again());
    let server = Server::start(system).await?;
    let mut client = server.connect().await?;
    let meter = Meter::start(server.process())?;
    let count = client.publish(&messages, &load).await?;
    meter.stop(server.process(), count)
}

/// Many callers, each one message after the other.
pub async fn unary(plan: Plan) -> Result<Vec<Line>> {
    let runs = Runs::take(&WITH_UNARY, plan.runs(RUNS, QUICK_RUNS), async |system| {
        callers(system, CALLERS, time(plan)).await
    })
    .await;
    runs.print(&format!(
        "Durable publish: {CALLERS} callers, each on a connection, one message after the other"
    ));
    let what = format!("publish, {CALLERS} unary callers");
    Ok(vec![
        runs.line(&what, Unit::PerSecond, Aim::AtLeast(15_000.0), Cost::rate),
        runs.line(&format!("{what}, p99"), Unit::Milliseconds, Aim::AtMost(10.0), |cost| cost.took(99)),
    ])
}

async fn callers(system: System, count: usize, time: Duration) -> Result<Cost> {
    let messages = Messages::new(TOPICS, SIZE);
    let server = Server::start(system).await?;
    server.connect().await?.prepare(&messages, TOPICS).await?;
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(server.connect().await?);
    }
    let meter = Meter::start(server.process())?;
    let mut tasks: JoinSet<Result<Vec<i64>>> = JoinSet::new();
    for (place, mut client) in clients.into_iter().enumerate() {
        let messages = messages.clone();
        let first = (place * TOPICS / count) as u64;
        tasks.spawn(async move { client.publish_singly(&messages, first, time).await });
    }
    let mut took = Vec::new();
    while let Some(task) = tasks.join_next().await {
        took.extend(task??);
    }
    let cost = meter.stop(server.process(), took.len() as u64)?;
    took.sort_unstable();
    Ok(Cost { took, ..cost })
}

/// One caller, and beside each run what the disk takes.
pub async fn single(plan: Plan) -> Result<Vec<Line>> {
    let disk = RefCell::new(Vec::new());
    let runs = Runs::take(&WITH_UNARY, plan.runs(RUNS, QUICK_RUNS), async |system| {
        disk.borrow_mut().extend(syncs()?);
        let cost = callers(system, 1, time(plan) / 2).await?;
        disk.borrow_mut().extend(syncs()?);
        Ok(cost)
    })
    .await;
    runs.print("Durable publish: one caller, one message after the other");
    let mut disk = Cost { took: disk.into_inner(), ..Cost::default() };
    disk.took.sort_unstable();
    let (p50, p99) = (disk.took(50), disk.took(99));
    println!("\nfdatasync of 4 KiB on the same disk, around each run: p50 {p50:.2} ms, p99 {p99:.2} ms.");
    let what = format!("publish, one unary caller, p50 (fdatasync: {p50:.2} ms)");
    Ok(vec![runs.line(&what, Unit::Milliseconds, Aim::AtMost(p50 + BEYOND_DISK), |cost| cost.took(50))])
}

/// How long it takes to write 4 KiB in a file that has them already, and to sync them, in nanoseconds.
fn syncs() -> Result<Vec<i64>> {
    let directory = directory()?;
    let file = File::create(directory.path().join("syncs"))?;
    for block in 0..SYNCS {
        file.write_all_at(&BLOCK, block * BLOCK.len() as u64)?;
    }
    file.sync_all()?;
    let mut took = Vec::new();
    for block in 0..SYNCS {
        let start = Instant::now();
        file.write_all_at(&BLOCK, block * BLOCK.len() as u64)?;
        file.sync_data()?;
        took.push(i64::try_from(start.elapsed().as_nanos())?);
    }
    Ok(took)
}
