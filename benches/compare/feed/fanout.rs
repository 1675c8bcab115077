//! Live delivery to a thousand subscribers on a hundred connections: as fast as it goes, and at a pace.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;
use tokio::{task::JoinSet, time::timeout};
use tonic::{Request, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use super::{
    load::{ALL, Load, Messages, SIZE, TOPICS},
    nats::Consumers,
    ours::Subscription,
    report::{Aim, Cost, Line, Meter, Runs, Unit},
    system::{Client, Server, System},
};
use crate::{
    Plan, Result,
    measure::to_f64,
    peer::{MESSAGES, PUBLISH, Text},
    process::{self, Kind, call},
};

const SYSTEMS: [System; 4] = [System::Perennial, System::Tonic, System::Default, System::Always];

/// Syncing hardly matters to delivery: a quick run does without the last.
const QUICK_SYSTEMS: usize = 3;

const RUNS: usize = 3;
const QUICK_RUNS: usize = 1;

const SUBSCRIBERS: u64 = 1_000;
const CONNECTIONS: u64 = 100;

/// How many messages are published, each to all subscribers.
const COUNT: u64 = 5_000;
const QUICK_COUNT: u64 = 2_000;

/// How many wait for their answer, and how many leave together at most.
const WINDOW: usize = 1_000;
const FRAME: usize = 100;

/// The pace that all should keep up with: 250,000 deliveries a second.
const PACE: Duration = Duration::from_millis(4);
const PACED_COUNT: u64 = 2_500;
const QUICK_PACED_COUNT: u64 = 500;

/// A subscriber that receives nothing for this time receives nothing more.
const SILENCE: Duration = Duration::from_secs(5);
/// What takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// The number that a text of the peer's begins with: its length in digits.
const DIGITS: usize = 10;

/// `Text` of the peer's, as bytes: nothing is copied or checked.
#[derive(Clone, PartialEq, Message)]
struct Raw {
    #[prost(bytes = "bytes", tag = "1")]
    text: Bytes,
}

/// All deliver at full speed, and then at a pace.
pub async fn run(plan: Plan) -> Result<Vec<Line>> {
    let (count, paced) = if plan.quick { (QUICK_COUNT, QUICK_PACED_COUNT) } else { (COUNT, PACED_COUNT) };
    let times = plan.runs(RUNS, QUICK_RUNS);
    let systems = if plan.quick { &SYSTEMS[..QUICK_SYSTEMS] } else { &SYSTEMS };
    let title = format!("{SUBSCRIBERS} subscribers on {CONNECTIONS} connections");

    let load = Load { window: WINDOW, frame: FRAME, ..Load::counted(count) };
    let full = Runs::take(systems, times, async |system| measure(system, &load).await).await;
    full.print(&format!("Live: {count} messages at full speed, {title}"));

    let load = Load { pace: Some(PACE), messages: paced, ..load };
    let slow = Runs::take(systems, times, async |system| measure(system, &load).await).await;
    let each = 1.0 / PACE.as_secs_f64();
    slow.print(&format!("Live: {paced} messages, {each:.0} a second, {title}"));
    let what = format!("live, {SUBSCRIBERS} subscribers");
    Ok(vec![
        full.line(&format!("{what}, deliveries"), Unit::PerSecond, Aim::AtLeast(600_000.0), Cost::rate),
        full.line(
            &format!("{what}, server CPU a delivery"),
            Unit::Nanoseconds,
            Aim::OfTonic(0.5),
            Cost::server_each,
        ),
        slow.line(
            &format!("{what}, {each:.0} messages a second, server CPU a delivery"),
            Unit::Nanoseconds,
            Aim::None,
            Cost::server_each,
        ),
    ])
}

async fn measure(system: System, load: &Load) -> Result<Cost> {
    let load = &load.again();
    match system {
        System::Tonic => tonic_peer(load).await,
        _ => kept(system, load).await,
    }
}

/// A server that keeps its messages has to deliver each.
async fn kept(system: System, load: &Load) -> Result<Cost> {
    let server = Server::start(system).await?;
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..CONNECTIONS {
        subscribe(&server, load.messages, &mut tasks).await?;
    }
    let (mut publisher, messages) = (server.connect().await?, Messages::new(TOPICS, SIZE));
    let meter = Meter::start(server.process())?;
    let (sent, read) = tokio::join!(
        publisher.publish(&messages, load),
        timeout(PATIENCE, async {
            while let Some(task) = tasks.join_next().await {
                task??;
            }
            Ok::<(), crate::Error>(())
        })
    );
    sent?;
    read.unwrap_or_else(|_| Err(format!("not all was delivered within {PATIENCE:?}").into()))?;
    meter.stop(server.process(), load.messages * SUBSCRIBERS)
}

/// Opens many subscriptions over one connection, each with a task that reads this number of messages.
async fn subscribe(server: &Server, messages: u64, tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    let count = SUBSCRIBERS / CONNECTIONS;
    match server.connect().await? {
        Client::Perennial(mut grpc) => {
            for _ in 0..count {
                let mut subscription = Subscription::live(&mut grpc, ALL).await?;
                tasks.spawn(async move { subscription.read(messages).await });
            }
        }
        Client::Nats(connection) => {
            let mut consumers = Consumers::new(connection);
            for _ in 0..count {
                consumers.add(ALL, true).await?;
            }
            tasks.spawn(async move { consumers.read(messages * count).await });
        }
        Client::DurableStreams(_) => return Err("a live read of it has one stream".into()),
    }
    Ok(())
}

/// The peer's channel drops what a subscriber is too slow for; the last message ends each.
async fn tonic_peer(load: &Load) -> Result<Cost> {
    let server = process::Server::start(Kind::Tonic, Path::new("."))?;
    let last = load.messages - 1;
    let mut tasks: JoinSet<Result<(u64, Instant)>> = JoinSet::new();
    for channel in server.connections(usize::try_from(CONNECTIONS)?).await? {
        for _ in 0..SUBSCRIBERS / CONNECTIONS {
            let stream: Streaming<Raw> = call(&channel, MESSAGES, Text::default()).await?;
            tasks.spawn(read(stream, last));
        }
    }
    let publisher = server.connections(1).await?;
    let publisher = publisher.first().ok_or("no connection")?;
    let (meter, start) = (Meter::start(server.process())?, Instant::now());
    publish(publisher, load).await?;
    let (mut delivered, mut end) = (0, start);
    while let Some(task) = tasks.join_next().await {
        let (count, last) = task??;
        delivered += count;
        end = end.max(last);
    }
    let cost = meter.stop(server.process(), delivered)?;
    let all = load.messages * SUBSCRIBERS;
    let lost = 100.0 * to_f64(all - delivered) / to_f64(all);
    // The silence in which nothing came is no part of it.
    Ok(Cost { note: format!("{lost:.1} % lost"), wall: end - start, ..cost })
}

/// Takes texts until the last one, or until there is silence.
async fn read(mut stream: Streaming<Raw>, last: u64) -> Result<(u64, Instant)> {
    let (mut count, mut end) = (0, Instant::now());
    loop {
        let Ok(text) = timeout(SILENCE, stream.message()).await else { break };
        let Raw { text } = text?.ok_or("it ended")?;
        (count, end) = (count + 1, Instant::now());
        let number: u64 = str::from_utf8(text.get(..DIGITS).ok_or("a short text")?)?.parse()?;
        if number == last {
            break;
        }
    }
    Ok((count, end))
}

/// The peer's texts begin with their number.
fn texts(load: &Load) -> impl Stream<Item = Text> + Send + use<> {
    let (pace, messages) = (load.pace, load.messages);
    async_stream::stream!({
        let mut timer = pace.map(tokio::time::interval);
        for number in 0..messages {
            if let Some(timer) = &mut timer {
                timer.tick().await;
            }
            yield Text { text: format!("{number:0DIGITS$} {:.<fill$}", "", fill = SIZE - DIGITS - 1) };
        }
    })
}

async fn publish(channel: &Channel, load: &Load) -> Result<()> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let codec = ProstCodec::<Text, Text>::default();
    let texts = texts(load).boxed();
    grpc.client_streaming(Request::new(texts), PathAndQuery::from_static(PUBLISH), codec).await?;
    Ok(())
}
