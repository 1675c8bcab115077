//! Live messages to many subscribers: at full speed, and at a pace that all can keep; with a connection a subscriber, and
//! with several subscribers on each connection.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use async_stream::stream;
use futures::Stream;
use perennial::proto::{
    MessagesRequest, MessagesResponse, PublishRequest, PublishStreamRequest, PublishStreamResponse,
    publish_request, stored_message,
};
use tokio::task::JoinSet;
use tonic::{Request, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use crate::{
    Plan, Result,
    control::{self, Control},
    countdown::APART,
    measure::{each, head, median, milliseconds, now, percentile, row, to_f64},
    peer::{MESSAGES, PUBLISH, Text},
    process::{Kind, Server, call},
};

/// The parts that `--part` can name.
pub const PARTS: [&str; 4] = ["full", "paced", "shared", "apart"];

const OURS: &str = "/perennial.v1.MessageService/Messages";
const OUR_PUBLISH: &str = "/perennial.v1.MessageService/PublishStream";
const TOPIC: &str = "bench.feed";

/// The connections, and how many subscribers each has where they are shared.
const CONNECTIONS: usize = 100;
const SHARING: usize = 10;

/// How often a pair of runs alternates; odd, so that the median is a run.
const RUNS: usize = 3;
const QUICK_RUNS: usize = 1;

/// The size of a message's text, in bytes.
const SIZE: usize = 256;

/// How many messages a request of ours holds in a row of its own: the peers' contract has no such thing.
const BATCH: usize = 100;

/// How many messages at full speed.
const MESSAGES_FULL: u64 = 100_000;
const QUICK_MESSAGES_FULL: u64 = 10_000;

/// How many at a pace of one a millisecond; grpc.aio can't keep it and gets one in ten.
const PACE: Duration = Duration::from_millis(1);
const MESSAGES_PACED: u64 = 10_000;
const QUICK_MESSAGES_PACED: u64 = 3_000;
const SLOW_DOWN: u32 = 10;

/// How many messages with shared connections, at a pace of a hundred a second.
const MESSAGES_SHARED: u64 = 1_000;
const QUICK_MESSAGES_SHARED: u64 = 400;

/// How many messages, a second apart, to many connections of one subscriber.
const MESSAGES_APART: u64 = 20;
const QUICK_MESSAGES_APART: u64 = 6;

/// A subscriber that received nothing for this time receives no more: the last message is lost for it, too.
const SILENCE: Duration = Duration::from_secs(10);

/// What one run publishes: `pace` is the time from one message to the next, if not full speed.
#[derive(Clone, Copy)]
struct Load {
    messages: u64,
    pace: Option<Duration>,
    /// How many messages a request of ours holds; the peers' hold one.
    batch: usize,
    connections: usize,
    /// How many subscribers each connection has.
    sharing: usize,
}

impl Load {
    fn subscribers(&self) -> usize {
        self.connections * self.sharing
    }
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
    /// When the last one came.
    end: Option<Instant>,
}

impl Got {
    /// Counts a message, and returns whether it was the last.
    fn take(&mut self, text: &str, last: u64) -> Result<bool> {
        let (number, age) = read(text).ok_or("not a message of ours")?;
        self.count += 1;
        self.ages.push(age);
        self.end = Some(Instant::now());
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

    /// Takes messages until the last, or until there is silence.
    async fn read(mut self, got: &mut Got, last: u64) -> Result<()> {
        let mut done = false;
        while !done {
            let Ok(texts) = tokio::time::timeout(SILENCE, self.next()).await else { break };
            for text in texts? {
                done = got.take(&text, last)?;
            }
        }
        Ok(())
    }

    /// What comes in one response.
    async fn next(&mut self) -> Result<Vec<String>> {
        Ok(match self {
            Self::Ours(stream) => {
                let messages = stream.message().await?.ok_or("it ended")?.messages;
                messages.into_iter().filter_map(|message| text_of(message.content)).collect()
            }
            Self::Peer(stream) => vec![stream.message().await?.ok_or("it ended")?.text],
        })
    }
}

fn text_of(content: Option<stored_message::Content>) -> Option<String> {
    match content? {
        stored_message::Content::Text(text) => Some(text),
        stored_message::Content::Data(_) => None,
    }
}

/// The texts, at the pace of the load.
fn texts(load: Load) -> impl Stream<Item = String> {
    stream!({
        let mut timer = load.pace.map(tokio::time::interval);
        for number in 0..load.messages {
            if let Some(timer) = &mut timer {
                timer.tick().await;
            }
            yield text(number);
        }
    })
}

/// Publishes all of a load, and returns when the server has answered for the last.
async fn publish(kind: Kind, channel: &Channel, load: Load) -> Result<()> {
    use futures::StreamExt;
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    if kind == Kind::Perennial {
        let requests = texts(load).map(request).ready_chunks(load.batch);
        let requests = requests.map(|messages| PublishStreamRequest { messages });
        let codec = ProstCodec::<PublishStreamRequest, PublishStreamResponse>::default();
        let method = PathAndQuery::from_static(OUR_PUBLISH);
        let mut answers = grpc.streaming(Request::new(requests), method, codec).await?.into_inner();
        while answers.message().await?.is_some() {}
    } else {
        let requests = texts(load).map(|text| Text { text });
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
    /// The ages of the control.
    control: Vec<i64>,
}

async fn measure(kind: Kind, load: Load) -> Result<Run> {
    let server = Server::start(kind, Path::new("."))?;
    let last = load.messages - 1;
    let mut tasks: JoinSet<Result<Got>> = JoinSet::new();
    for channel in server.connections(load.connections).await? {
        for _ in 0..load.sharing {
            let feed = Feed::open(kind, &channel).await?;
            tasks.spawn(async move {
                let mut got = Got::default();
                feed.read(&mut got, last).await?;
                Ok(got)
            });
        }
    }
    let publisher = server.connections(1).await?;
    let control = Control::start().await?;
    let (cpu, start) = (server.cpu()?, Instant::now());
    publish(kind, publisher.first().ok_or("no connection")?, load).await?;
    let (mut delivered, mut ages, mut end) = (0, Vec::new(), None);
    while let Some(got) = tasks.join_next().await {
        let got = got??;
        delivered += got.count;
        ages.extend(got.ages);
        end = end.max(got.end);
    }
    let cpu = server.cpu()?.saturating_sub(cpu);
    let control = control.stop().await?;
    // The silence in which nothing came is no part of it.
    let wall = end.map_or(Duration::ZERO, |end| end - start);
    ages.sort_unstable();
    let lost = load.messages * u64::try_from(load.subscribers())? - delivered;
    Ok(Run { cpu, wall, delivered, lost, ages, control })
}

const COLUMNS: [&str; 7] =
    ["server", "delivered", "lost", "CPU a delivery", "deliveries a second", "age p50", "p99"];

/// `python`: a load that grpc.aio can keep, if there is one.
async fn compare(plan: Plan, load: Load, python: Option<Load>) -> Result<()> {
    let (mut ours, mut peers, mut batched) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.runs(RUNS, QUICK_RUNS) {
        ours.push(measure(Kind::Perennial, load).await?);
        peers.push(measure(Kind::Tonic, load).await?);
        if load.pace.is_none() {
            batched.push(measure(Kind::Perennial, Load { batch: BATCH, ..load }).await?);
        }
    }
    let ratio = median(ours.iter().zip(&peers).map(|(a, b)| cpu(a) / cpu(b)));
    show(Kind::Perennial.name(), &ours);
    show(Kind::Tonic.name(), &peers);
    if !batched.is_empty() {
        show(&format!("perennial, {BATCH} messages a request"), &batched);
    }
    match (python, Kind::Aio.missing()) {
        (None, _) => {}
        (Some(_), Some(why)) => row(&[Kind::Aio.name().into(), format!("not run: {why}")]),
        (Some(load), None) => show(Kind::Aio.name(), &[measure(Kind::Aio, load).await?]),
    }
    let ages = ours.first().map_or(&[][..], |run| &run.control);
    let mut cells = vec![String::new(); COLUMNS.len() - 2];
    cells.splice(..1, [control::NAME.to_owned()]);
    cells.extend([50, 99].map(|per_cent| milliseconds(percentile(ages, per_cent))));
    row(&cells);
    println!("\nCPU a delivery, perennial / tonic: {ratio:.2}");
    Ok(())
}

fn cpu(run: &Run) -> f64 {
    each(run.cpu, run.delivered)
}

/// Medians, and the ages of the first run.
fn show(name: &str, runs: &[Run]) {
    let value = |value: fn(&Run) -> f64| format!("{:.0}", median(runs.iter().map(value)));
    let ages = runs.first().map_or(&[][..], |run| &run.ages);
    row(&[
        name.into(),
        value(|run| to_f64(run.delivered)),
        value(|run| to_f64(run.lost)),
        format!("{} ns", value(cpu)),
        value(|run| to_f64(run.delivered) / run.wall.as_secs_f64()),
        milliseconds(percentile(ages, 50)),
        milliseconds(percentile(ages, 99)),
    ]);
}

/// Prints what a delivery costs, and what is lost.
pub async fn run(plan: Plan) -> Result<()> {
    let (full, paced, shared) = if plan.quick {
        (QUICK_MESSAGES_FULL, QUICK_MESSAGES_PACED, QUICK_MESSAGES_SHARED)
    } else {
        (MESSAGES_FULL, MESSAGES_PACED, MESSAGES_SHARED)
    };
    let is_asked = |part| plan.part.is_none_or(|asked| asked == part);
    let load = Load { messages: full, pace: None, batch: 1, connections: CONNECTIONS, sharing: 1 };
    let count = load.subscribers();
    if is_asked("full") {
        head(&format!("Messages: {full} of {SIZE} B at full speed, {count} subscribers"), &COLUMNS);
        compare(plan, load, Some(Load { messages: full / 100, ..load })).await?;
    }
    let slow = Some(PACE * SLOW_DOWN);
    if is_asked("paced") {
        head(&format!("Messages: {paced} of {SIZE} B, 1,000 a second, {count} subscribers"), &COLUMNS);
        let load = Load { messages: paced, pace: Some(PACE), ..load };
        let python = Load { messages: paced / u64::from(SLOW_DOWN), pace: slow, ..load };
        compare(plan, load, Some(python)).await?;
    }
    if is_asked("shared") {
        let load = Load { messages: shared, pace: slow, sharing: SHARING, ..load };
        let count = load.subscribers();
        let title =
            format!("{shared} of {SIZE} B, 100 a second, {count} subscribers on {CONNECTIONS} connections");
        head(&format!("Messages: {title}"), &COLUMNS);
        compare(plan, load, Some(Load { messages: shared / u64::from(SLOW_DOWN), ..load })).await?;
    }
    if is_asked("apart") {
        let messages = if plan.quick { QUICK_MESSAGES_APART } else { MESSAGES_APART };
        head(&format!("Messages: {messages} of {SIZE} B, one a second, {APART} connections"), &COLUMNS);
        let pace = Some(Duration::from_secs(1));
        let load = Load { messages, pace, connections: APART, sharing: 1, ..load };
        compare(plan, load, None).await?;
    }
    Ok(())
}
