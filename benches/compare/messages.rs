//! Live messages to a hundred subscribers: at full speed, and at a pace that all can keep.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use async_stream::stream;
use futures::Stream;
use perennial::proto::{
    MessagesRequest, MessagesResponse, PublishRequest, PublishStreamRequest, PublishStreamResponse, message,
    publish_request,
};
use tokio::task::JoinSet;
use tonic::{Request, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use crate::{
    Plan, Result,
    measure::{each, head, median, now, percentile, row, to_f64},
    peer::{MESSAGES, PUBLISH, Text},
    process::{Kind, Server, call},
};

const OURS: &str = "/perennial.v1.MessageService/Messages";
const OUR_PUBLISH: &str = "/perennial.v1.MessageService/PublishStream";
const TOPIC: &str = "bench.feed";

const SUBSCRIBERS: usize = 100;

/// The size of a message's text, in bytes.
const SIZE: usize = 256;

/// How many messages a request of ours holds when they are published at full speed.
const BATCH: u64 = 100;

/// How many messages at full speed.
const MESSAGES_FULL: u64 = 100_000;
const QUICK_MESSAGES_FULL: u64 = 10_000;

/// How many at a pace of one a millisecond; grpc.aio can't keep it and gets one in ten.
const PACE: Duration = Duration::from_millis(1);
const MESSAGES_PACED: u64 = 10_000;
const QUICK_MESSAGES_PACED: u64 = 3_000;
const SLOW_DOWN: u32 = 10;

/// A subscriber that gets nothing for so long has lost the last message too.
const SILENCE: Duration = Duration::from_secs(10);

/// What one run publishes: `pace` is the time from one message to the next, if not full speed.
#[derive(Clone, Copy)]
struct Load {
    messages: u64,
    pace: Option<Duration>,
}

/// Its number, when it was made, and what fills it up.
fn text(n: u64) -> String {
    format!("{n:010} {:020} {:.<fill$}", now(), "", fill = SIZE - 32)
}

/// The number of a message and how old it is, in nanoseconds.
fn read(text: &str) -> Option<(u64, i64)> {
    let mut words = text.splitn(3, ' ');
    let number = words.next()?.parse().ok()?;
    let made: i64 = words.next()?.parse().ok()?;
    Some((number, now() - made))
}

#[derive(Default)]
struct Got {
    count: u64,
    ages: Vec<i64>,
}

impl Got {
    /// Counts a message, and tells whether it was the last.
    fn take(&mut self, text: &str, last: u64) -> Result<bool> {
        let (number, age) = read(text).ok_or("not a message of ours")?;
        self.count += 1;
        self.ages.push(age);
        Ok(number == last)
    }
}

enum Feed {
    Ours(Streaming<MessagesResponse>),
    Peer(Streaming<Text>),
}

impl Feed {
    async fn open(kind: Kind, channel: &Channel) -> Result<Self> {
        if kind != Kind::Perennial {
            return Ok(Self::Peer(call(channel, MESSAGES, Text::default()).await?));
        }
        let request = MessagesRequest { topics: vec![TOPIC.into()], ..MessagesRequest::default() };
        let mut stream = call(channel, OURS, request).await?;
        // The first response says: subscribed.
        stream.message().await?.ok_or("it ended")?;
        Ok(Self::Ours(stream))
    }

    async fn read(mut self, got: &mut Got, last: u64) -> Result<()> {
        let mut done = false;
        while !done {
            match &mut self {
                Self::Ours(stream) => {
                    for message in stream.message().await?.ok_or("it ended")?.messages {
                        if let Some(message::Content::Text(text)) = message.content {
                            done = got.take(&text, last)?;
                        }
                    }
                }
                Self::Peer(stream) => {
                    let Text { text } = stream.message().await?.ok_or("it ended")?;
                    done = got.take(&text, last)?;
                }
            }
        }
        Ok(())
    }
}

/// Requests of so many messages each, at the pace of the load.
fn requests(load: Load, batch: u64) -> impl Stream<Item = Vec<String>> {
    stream!({
        let mut timer = load.pace.map(tokio::time::interval);
        for first in (0..load.messages).step_by(usize::try_from(batch).unwrap_or(1)) {
            if let Some(timer) = &mut timer {
                timer.tick().await;
            }
            yield (first..load.messages.min(first + batch)).map(text).collect();
        }
    })
}

/// Publishes all of a load, and returns when the server has answered for the last.
async fn publish(kind: Kind, channel: &Channel, load: Load) -> Result<()> {
    use futures::StreamExt;
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    if kind == Kind::Perennial {
        let batch = if load.pace.is_some() { 1 } else { BATCH };
        let requests = requests(load, batch)
            .map(|texts| PublishStreamRequest { messages: texts.into_iter().map(request).collect() });
        let codec = ProstCodec::<PublishStreamRequest, PublishStreamResponse>::default();
        let method = PathAndQuery::from_static(OUR_PUBLISH);
        let mut answers = grpc.streaming(Request::new(requests), method, codec).await?.into_inner();
        while answers.message().await?.is_some() {}
    } else {
        let requests = requests(load, 1).map(|mut texts| Text { text: texts.pop().unwrap_or_default() });
        let codec = ProstCodec::<Text, Text>::default();
        grpc.client_streaming(Request::new(requests), PathAndQuery::from_static(PUBLISH), codec).await?;
    }
    Ok(())
}

fn request(text: String) -> PublishRequest {
    PublishRequest {
        topic: TOPIC.into(),
        content: Some(publish_request::Content::Text(text)),
        ..PublishRequest::default()
    }
}

struct Run {
    cpu: Duration,
    wall: Duration,
    delivered: u64,
    lost: u64,
    ages: Vec<i64>,
}

async fn measure(kind: Kind, load: Load) -> Result<Run> {
    let server = Server::start(kind, Path::new("."))?;
    let last = load.messages - 1;
    let mut tasks: JoinSet<Result<Got>> = JoinSet::new();
    for channel in server.connections(SUBSCRIBERS).await? {
        let feed = Feed::open(kind, &channel).await?;
        tasks.spawn(async move {
            let mut got = Got::default();
            feed.read(&mut got, last).await?;
            Ok(got)
        });
    }
    let publisher = server.connections(1).await?;
    let (cpu, start) = (server.cpu()?, Instant::now());
    publish(kind, publisher.first().ok_or("no connection")?, load).await?;
    let (mut delivered, mut ages) = (0, Vec::new());
    while let Ok(Some(got)) = tokio::time::timeout(SILENCE, tasks.join_next()).await {
        let got = got??;
        delivered += got.count;
        ages.extend(got.ages);
    }
    if !tasks.is_empty() {
        return Err(format!("{} subscribers of {} never got the last", tasks.len(), kind.name()).into());
    }
    let wall = start.elapsed();
    ages.sort_unstable();
    let lost = load.messages * u64::try_from(SUBSCRIBERS)? - delivered;
    Ok(Run { cpu: server.cpu()?.saturating_sub(cpu), wall, delivered, lost, ages })
}

const COLUMNS: [&str; 7] =
    ["server", "delivered", "lost", "CPU a delivery", "deliveries a second", "age p50", "p99"];

async fn compare(plan: Plan, load: Load, python: Load) -> Result<()> {
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..plan.runs.min(3) {
        ours.push(measure(Kind::Perennial, load).await?);
        peers.push(measure(Kind::Tonic, load).await?);
    }
    let ratio = median(ours.iter().zip(&peers).map(|(a, b)| cpu(a) / cpu(b)));
    show(Kind::Perennial, &ours);
    show(Kind::Tonic, &peers);
    match Kind::Aio.missing() {
        Some(why) => row(&[Kind::Aio.name().into(), format!("not run: {why}")]),
        None => show(Kind::Aio, &[measure(Kind::Aio, python).await?]),
    }
    println!("\nCPU a delivery, perennial / tonic: {ratio:.2}");
    Ok(())
}

fn cpu(run: &Run) -> f64 {
    each(run.cpu, run.delivered)
}

/// Medians, and the ages of the first run.
fn show(kind: Kind, runs: &[Run]) {
    let value = |value: fn(&Run) -> f64| format!("{:.0}", median(runs.iter().map(value)));
    let ages = runs.first().map_or(&[][..], |run| &run.ages);
    row(&[
        kind.name().into(),
        value(|run| to_f64(run.delivered)),
        value(|run| to_f64(run.lost)),
        format!("{} ns", value(cpu)),
        value(|run| to_f64(run.delivered) / run.wall.as_secs_f64()),
        percentile(ages, 50),
        percentile(ages, 99),
    ]);
}

/// Prints what a delivery costs, and what is lost.
pub async fn run(plan: Plan) -> Result<()> {
    let (full, paced) = if plan.quick {
        (QUICK_MESSAGES_FULL, QUICK_MESSAGES_PACED)
    } else {
        (MESSAGES_FULL, MESSAGES_PACED)
    };
    head(&format!("Messages: {full} of {SIZE} B at full speed, {SUBSCRIBERS} subscribers"), &COLUMNS);
    let python = Load { messages: full / 100, pace: None };
    compare(plan, Load { messages: full, pace: None }, python).await?;

    head(&format!("Messages: {paced} of {SIZE} B, 1,000 a second, {SUBSCRIBERS} subscribers"), &COLUMNS);
    let python = Load { messages: paced / u64::from(SLOW_DOWN), pace: Some(PACE * SLOW_DOWN) };
    compare(plan, Load { messages: paced, pace: Some(PACE) }, python).await
}
