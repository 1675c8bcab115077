//! A million topics: what one of them, all of their last messages, their age and their memory cost. Messages are small, so
//! that a full segment has as many topics as it can have.

use std::time::{Duration, Instant};

use perennial::proto::{
    CommitCursorRequest, CommitCursorResponse, ListTopicsRequest, ListTopicsResponse, MessagesRequest,
    messages_request::Start,
};
use prost::Message;
use tokio::task::JoinSet;
use tonic::{Request, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use super::{
    load::{ALL, Load, Messages, topic},
    ours::{self, Batch},
    report::{Aim, Cost, Line, Meter, Runs, Unit},
    system::System,
};
use crate::{
    Plan, Result,
    measure::to_f64,
    process::{Kind, Server, WIDE},
};

const TOPICS: usize = 1_000_000;
const QUICK_TOPICS: usize = 200_000;

/// The size of a payload in bytes.
const SIZE: usize = 16;

/// The consumers that commit, and how many of them at a time.
const CONSUMERS: usize = 100_000;
const QUICK_CONSUMERS: usize = 10_000;
const CLIENTS: usize = 32;

/// The number of topics that are read one by one.
const SINGLE: usize = 500;

/// The ages whose enforcement is measured: where all messages end, and where a later one stays.
const AGE: u64 = 10;
const LONG_AGE: u64 = 40;

/// The later message is published this many seconds before the first one is over its age.
const LATER: u64 = 15;

/// The pause between two looks at the list of topics.
const LOOK: Duration = Duration::from_millis(500);

/// The time over which the CPU of retention is measured.
const MINUTE: Duration = Duration::from_secs(60);

/// The run fails if something is not done by then.
const PATIENCE: Duration = Duration::from_secs(600);

const MIB: f64 = 1_048_576.0;

const COMMIT: &str = "/perennial.v1.MessageService/CommitCursor";
const LIST: &str = "/perennial.v1.MessageService/ListTopics";

/// Everything that is measured on a server that keeps all messages, and then on one that enforces an age.
pub async fn run(plan: Plan) -> Result<Vec<Line>> {
    let topics = if plan.quick { QUICK_TOPICS } else { TOPICS };
    let consumers = if plan.quick { QUICK_CONSUMERS } else { CONSUMERS };
    let server = Server::start(Kind::Perennial, std::path::Path::new("."))?;
    let messages = Messages::new(topics, SIZE);
    let mut grpc = Grpc::new(server.connect(WIDE).await?);
    ours::publish(&mut grpc, &messages, &Load::counted(topics as u64)).await?;
    let memory = commit_all(&server, consumers).await?;
    // Restarted: nothing of what was published last is in memory.
    let server = Server::open(Kind::Perennial, std::path::Path::new("."), server.stop()?)?;
    let mut grpc = Grpc::new(server.connect(WIDE).await?);
    let after_start = server.memory()?;
    let single = one_by_one(&server, &mut grpc, topics).await?;
    let (first, last) = last_per_topic(&server, &mut grpc, topics).await?;
    drop(server);
    let aged = all_end(topics, &messages).await?;
    let partly = one_of_two_ends(topics, &messages).await?;

    let mut lines = Vec::new();
    let mut add = |what: &str, unit, aim, cost: Cost, figure: &dyn Fn(&Cost) -> f64| {
        let runs = Runs::of([(System::Perennial, Ok(vec![cost]))]);
        runs.print(what);
        lines.push(runs.line(what, unit, aim, figure));
    };
    let what = |what: &str| format!("{topics} topics: {what}");
    let mebibytes = |cost: &Cost| to_f64(cost.bytes) / MIB;
    let note = format!("{:.0} MiB after a restart", to_f64(after_start) / MIB);
    let memory = Cost { bytes: memory, note, ..Cost::default() };
    add(
        &what(&format!("memory, with {consumers} consumers")),
        Unit::Mebibytes,
        Aim::AtMost(450.0),
        memory,
        &mebibytes,
    );
    add(&what("reading one, p50"), Unit::Milliseconds, Aim::AtMost(1.0), single, &|cost| cost.took(50));
    let milliseconds = |cost: &Cost| cost.wall.as_secs_f64() * 1e3;
    add(&what("last_per_topic, first response"), Unit::Milliseconds, Aim::AtMost(50.0), first, &milliseconds);
    add(&what("last_per_topic"), Unit::PerSecond, Aim::AtLeast(500_000.0), last, &Cost::rate);
    for (which, cost) in [("all of them end", aged), ("each loses one of two messages", partly)] {
        let seconds = |cost: &Cost| cost.wall.as_secs_f64();
        let share = |cost: &Cost| 100.0 * cost.server.as_secs_f64() / cost.wall.max(MINUTE).as_secs_f64();
        add(&what(&format!("age, {which}")), Unit::Seconds, Aim::AtMost(60.0), cost.clone(), &seconds);
        add(&what(&format!("age, {which}, CPU")), Unit::PerCent, Aim::AtMost(20.0), cost, &share);
    }
    Ok(lines)
}

/// Commits a cursor for each consumer, and returns the memory of the server.
async fn commit_all(server: &Server, consumers: usize) -> Result<u64> {
    let mut grpc = Grpc::new(server.connect(WIDE).await?);
    let request = MessagesRequest {
        topics: vec![ALL.into()],
        start: Some(Start::Earliest(true)),
        limit: Some(1),
        ..MessagesRequest::default()
    };
    let mut stream = ours::read::<perennial::proto::MessagesResponse>(&mut grpc, request).await?;
    let cursor = loop {
        let batch = stream.message().await?.ok_or("it ended")?;
        if !batch.messages.is_empty() {
            break batch.cursor;
        }
    };
    let mut clients = JoinSet::<Result<()>>::new();
    for client in 0..CLIENTS {
        let channel = server.connect(WIDE).await?;
        let cursor = cursor.clone();
        clients.spawn(async move {
            let mut grpc = Grpc::new(channel);
            for consumer in (client..consumers).step_by(CLIENTS) {
                let consumer = format!("consumer-{consumer:06}");
                let request = CommitCursorRequest {
                    consumer,
                    cursor: cursor.clone(),
                    ..CommitCursorRequest::default()
                };
                unary::<_, CommitCursorResponse>(&mut grpc, COMMIT, request).await?;
            }
            Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    server.memory()
}

/// Reads topics at random, one after the other, each to its end.
async fn one_by_one(server: &Server, grpc: &mut Grpc<Channel>, topics: usize) -> Result<Cost> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut took = Vec::new();
    let meter = Meter::start(server.process())?;
    for _ in 0..SINGLE {
        let topic = topic(random.usize(..topics));
        let start = Instant::now();
        if ours::replay(grpc, &topic).await? != 1 {
            return Err(format!("{topic} has not one message").into());
        }
        took.push(i64::try_from(start.elapsed().as_nanos())?);
    }
    took.sort_unstable();
    Ok(Cost { took, ..meter.stop(server.process(), SINGLE as u64)? })
}

/// Reads the last message of each topic: when the first response came, and all of them.
async fn last_per_topic(server: &Server, grpc: &mut Grpc<Channel>, topics: usize) -> Result<(Cost, Cost)> {
    let request = MessagesRequest {
        topics: vec![ALL.into()],
        until_caught_up: true,
        start: Some(Start::LastPerTopic(true)),
        ..MessagesRequest::default()
    };
    let meter = Meter::start(server.process())?;
    let start = Instant::now();
    let mut stream = ours::read::<Batch>(grpc, request).await?;
    let mut first = None;
    let mut received = 0;
    while let Some(batch) = stream.message().await? {
        first.get_or_insert_with(|| start.elapsed());
        received += batch.count();
    }
    if received != topics {
        return Err(format!("{received} of {topics} topics came").into());
    }
    let first = Cost { items: 1, wall: first.unwrap_or_default(), ..Cost::default() };
    Ok((first, meter.stop(server.process(), topics as u64)?))
}

/// Publishes a message to each topic, and waits until retention has removed all of them. Measured from the time when it is
/// due.
async fn all_end(topics: usize, messages: &Messages) -> Result<Cost> {
    let (server, mut grpc) = with_age(AGE).await?;
    ours::publish(&mut grpc, messages, &Load::counted(topics as u64)).await?;
    let due = Instant::now() + Duration::from_secs(AGE);
    enforced(&server, &mut grpc, topics, due, None).await
}

/// Publishes two messages to each topic, and waits until retention has removed the first of each.
async fn one_of_two_ends(topics: usize, messages: &Messages) -> Result<Cost> {
    let (server, mut grpc) = with_age(LONG_AGE).await?;
    let load = Load::counted(topics as u64);
    ours::publish(&mut grpc, messages, &load).await?;
    let first = Instant::now();
    let due = first + Duration::from_secs(LONG_AGE);
    tokio::time::sleep_until((first + Duration::from_secs(LONG_AGE - LATER)).into()).await;
    ours::publish(&mut grpc, messages, &Load { first: topics as u64, ..load }).await?;
    enforced(&server, &mut grpc, topics, due, Some(1)).await
}

async fn with_age(seconds: u64) -> Result<(Server, Grpc<Channel>)> {
    let server = Server::start_with(Kind::Perennial, &["--retain", &format!("feed.>=age:{seconds}s")])?;
    let grpc = Grpc::new(server.connect(WIDE).await?);
    Ok((server, grpc))
}

/// Waits from a time on until the last topic by name, to which retention comes last, has this number of messages.
async fn enforced(
    server: &Server,
    grpc: &mut Grpc<Channel>,
    topics: usize,
    due: Instant,
    expected: Option<i64>,
) -> Result<Cost> {
    tokio::time::sleep_until(due.into()).await;
    let cpu = server.cpu()?;
    loop {
        let request = ListTopicsRequest { pattern: topic(topics - 1), ..ListTopicsRequest::default() };
        let page: ListTopicsResponse = unary(grpc, LIST, request).await?;
        if page.topics.first().and_then(|topic| topic.message_count) == expected {
            break;
        }
        if due.elapsed() > PATIENCE {
            return Err("it is not enforced".into());
        }
        tokio::time::sleep(LOOK).await;
    }
    let wall = due.elapsed();
    // What follows it, such as the freeing of room, counts too.
    tokio::time::sleep_until((due + MINUTE).into()).await;
    let server_cpu = server.cpu()?.saturating_sub(cpu);
    Ok(Cost { items: topics as u64, wall, server: server_cpu, ..Cost::default() })
}

async fn unary<Q, R>(grpc: &mut Grpc<Channel>, method: &'static str, request: Q) -> Result<R>
where
    Q: Message + Send + Sync + 'static,
    R: Message + Default + Send + Sync + 'static,
{
    grpc.ready().await?;
    let codec = ProstCodec::<Q, R>::default();
    Ok(grpc.unary(Request::new(request), PathAndQuery::from_static(method), codec).await?.into_inner())
}
