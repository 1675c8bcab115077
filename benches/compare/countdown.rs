//! How late ticks are: of one countdown, and of ten thousand; and what a waiting stream takes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use perennial::proto::{CountdownRequest, CountdownResponse};
use tokio::task::JoinSet;
use tonic::{Streaming, transport::Channel};

use crate::{
    Plan, Result,
    measure::{each, head, kib, now, percentile, row, to_f64},
    peer::{COUNTDOWN, Count, Tick},
    process::{Kind, Server, call},
};

const OURS: &str = "/perennial.v1.CountdownService/Countdown";

/// More numbers than any run counts.
const FROM: i32 = 1_000_000;

const CONNECTIONS: usize = 100;
const STREAMS: usize = 10_000;

/// How long to measure.
const TIME: Duration = Duration::from_secs(20);
const QUICK_TIME: Duration = Duration::from_secs(5);

/// How late the ticks were, in nanoseconds: when they left the server, and when they arrived.
#[derive(Debug, Default)]
struct Late {
    sent: Vec<i64>,
    arrived: Vec<i64>,
}

impl Late {
    fn add(&mut self, due: i64, sent: i64, after: i64) {
        if due >= after {
            self.sent.push(sent - due);
            self.arrived.push(now() - due);
        }
    }
}

enum Ticks {
    Ours(Streaming<CountdownResponse>),
    Peer(Streaming<Tick>),
}

impl Ticks {
    async fn open(kind: Kind, channel: &Channel, interval: Duration) -> Result<Self> {
        let interval_nanos = interval.as_nanos().try_into()?;
        Ok(if kind == Kind::Perennial {
            let mut request = CountdownRequest { interval: Some(interval.try_into()?), ..Default::default() };
            request.target = Some(perennial::proto::countdown_request::Target::From(FROM));
            Self::Ours(call(channel, OURS, request).await?)
        } else {
            Self::Peer(call(channel, COUNTDOWN, Count { from: FROM, interval_nanos }).await?)
        })
    }

    /// Takes the ticks that are due from `after` on.
    async fn take(mut self, late: &mut Late, after: i64) -> Result<()> {
        loop {
            match &mut self {
                Self::Ours(stream) => {
                    let batch = stream.message().await?.ok_or("it ended")?;
                    let sent = nanos(batch.sent_time);
                    batch.ticks.iter().for_each(|tick| late.add(nanos(tick.due_time), sent, after));
                }
                Self::Peer(stream) => {
                    let tick = stream.message().await?.ok_or("it ended")?;
                    late.add(tick.due, tick.sent, after);
                }
            }
        }
    }
}

fn nanos(time: Option<prost_types::Timestamp>) -> i64 {
    time.map_or(0, |time| time.seconds * 1_000_000_000 + i64::from(time.nanos))
}

struct Load {
    connections: usize,
    streams: usize,
    interval: Duration,
    time: Duration,
}

async fn measure(kind: Kind, load: &Load) -> Result<Vec<String>> {
    let server = Server::start(kind, Path::new("."))?;
    let before = server.memory()?;
    let channels = server.connections(load.connections).await?;
    let mut open = Vec::with_capacity(load.streams);
    for channel in channels.iter().cycle().take(load.streams) {
        open.push(Ticks::open(kind, channel, load.interval).await?);
    }
    // What the opening put off is not counted.
    let after = now() + i64::try_from(Duration::from_secs(2).as_nanos())?;
    let end = Instant::now() + Duration::from_secs(2) + load.time;
    let mut tasks: JoinSet<Result<Late>> = JoinSet::new();
    for ticks in open {
        tasks.spawn(async move {
            let mut late = Late::default();
            match tokio::time::timeout_at(end.into(), ticks.take(&mut late, after)).await {
                Ok(ended) => ended.map(|()| late),
                Err(_) => Ok(late),
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let cpu = server.cpu()?;
    tokio::time::sleep(load.time / 2).await;
    let memory = server.memory()?.saturating_sub(before);
    tokio::time::sleep_until(end.into()).await;
    let cpu = server.cpu()?.saturating_sub(cpu);

    let mut late = Late::default();
    while let Some(one) = tasks.join_next().await {
        let one = one??;
        late.sent.extend(one.sent);
        late.arrived.extend(one.arrived);
    }
    late.sent.sort_unstable();
    late.arrived.sort_unstable();
    let ticks = late.sent.len();
    Ok(vec![
        kind.name().into(),
        ticks.to_string(),
        percentile(&late.sent, 50),
        percentile(&late.sent, 99),
        percentile(&late.arrived, 50),
        percentile(&late.arrived, 99),
        format!("{:.1} µs", each(cpu, ticks.try_into()?) / 1e3),
        kib(to_f64(memory) / to_f64(load.streams.try_into()?)),
    ])
}

const COLUMNS: [&str; 8] = [
    "server",
    "ticks",
    "late when sent, p50",
    "p99",
    "late when it arrived, p50",
    "p99",
    "CPU a tick",
    "memory a stream",
];

/// Prints how late ticks are.
pub async fn run(plan: Plan) -> Result<()> {
    let time = if plan.quick { QUICK_TIME } else { TIME };
    let one = Load { connections: 1, streams: 1, interval: Duration::from_millis(10), time };
    head(&format!("Countdown: one stream, 10 ms, {} s", time.as_secs()), &COLUMNS);
    for kind in [Kind::Perennial, Kind::Tonic, Kind::Aio] {
        match kind.missing() {
            Some(why) => row(&[kind.name().into(), format!("not run: {why}")]),
            None => row(&measure(kind, &one).await?),
        }
    }
    let many = Load { connections: CONNECTIONS, streams: STREAMS, interval: Duration::from_secs(1), time };
    head(
        &format!("Countdown: {STREAMS} streams on {CONNECTIONS} connections, 1 s, {} s", time.as_secs()),
        &COLUMNS,
    );
    for kind in [Kind::Perennial, Kind::Tonic] {
        row(&measure(kind, &many).await?);
    }
    Ok(())
}
