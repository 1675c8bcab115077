//! Reading again what was published: everything, and one topic of a thousand.

use std::time::{Duration, Instant};

use super::{
    load::{ALL, Load, Messages, SIZE, TOPICS, topic},
    report::{Aim, Cost, Line, Meter, Runs, Unit},
    system::{Server, System},
};
use crate::{Plan, Result};

/// Reading syncs nothing: one way to set nats-server up is enough.
const SYSTEMS: [System; 2] = [System::Perennial, System::Default];
const WITH_EVERYTHING: [System; 3] = [System::Perennial, System::Default, System::DurableStreams];

const RUNS: usize = 5;
const QUICK_RUNS: usize = 1;

/// How many messages there are.
const MESSAGES: u64 = 4_000_000;
const QUICK_MESSAGES: u64 = 400_000;

/// How long topics are read, one after the other, each once.
const TIME: Duration = Duration::from_secs(5);
const QUICK_TIME: Duration = Duration::from_secs(1);

/// The servers, filled; they hold their data as long as there is something to measure.
struct Filled {
    perennial: Result<Server>,
    nats: Result<Server>,
    durable_streams: Result<Server>,
}

impl Filled {
    fn server(&self, system: System) -> Result<&Server> {
        let server = match system {
            System::Perennial => &self.perennial,
            System::DurableStreams => &self.durable_streams,
            System::Default | System::Always | System::Tonic => &self.nats,
        };
        server.as_ref().map_err(|error| error.to_string().into())
    }
}

async fn fill(system: System, messages: u64) -> Result<Server> {
    let server = Server::start(system).await?;
    server.publish(&Messages::new(TOPICS, SIZE), &Load::counted(messages)).await?;
    Ok(server)
}

/// Both kinds of reading, on the same log.
pub async fn run(plan: Plan) -> Result<Vec<Line>> {
    let (total, time) = if plan.quick { (QUICK_MESSAGES, QUICK_TIME) } else { (MESSAGES, TIME) };
    let filled = Filled {
        perennial: fill(System::Perennial, total).await,
        nats: fill(System::Default, total).await,
        durable_streams: fill(System::DurableStreams, total).await,
    };
    let times = plan.runs(RUNS, QUICK_RUNS);
    let all =
        Runs::take(&WITH_EVERYTHING, times, async |system| everything(filled.server(system)?, total).await)
            .await;
    all.print(&format!("Replay: all of {total} messages, {TOPICS} topics"));
    let one = Runs::take(&SYSTEMS, times, async |system| {
        topics(filled.server(system)?, total / TOPICS as u64, time).await
    })
    .await;
    one.print(&format!(
        "Replay: one topic of {TOPICS} after the other, {} messages each",
        total / TOPICS as u64
    ));
    Ok(vec![
        all.line("replay of everything", Unit::PerSecond, Aim::AtLeast(1_000_000.0), Cost::rate),
        one.line(
            &format!("replay of one topic of {TOPICS}"),
            Unit::PerSecond,
            Aim::AtLeast(200_000.0),
            Cost::rate,
        ),
    ])
}

async fn everything(server: &Server, expected: u64) -> Result<Cost> {
    let mut reader = server.connect().await?.into_reader();
    let meter = Meter::start(server.process())?;
    let count = complete(reader.replay(ALL).await?, expected)?;
    meter.stop(server.process(), count)
}

async fn topics(server: &Server, expected: u64, time: Duration) -> Result<Cost> {
    let mut reader = server.connect().await?.into_reader();
    let (mut count, mut read) = (0, 0);
    let (meter, start) = (Meter::start(server.process())?, Instant::now());
    for number in 0..TOPICS {
        count += complete(reader.replay(&topic(number)).await?, expected)?;
        read += 1;
        if start.elapsed() >= time {
            break;
        }
    }
    let note = format!("{read} topics read");
    Ok(Cost { note, ..meter.stop(server.process(), count)? })
}

fn complete(count: u64, expected: u64) -> Result<u64> {
    if count == expected { Ok(count) } else { Err(format!("{count} of {expected} messages came").into()) }
}
