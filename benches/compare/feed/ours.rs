//! Our side of the feed, over tonic. Of a message it decodes what counting and checking need; the rest is skipped.

use std::time::Instant;

use bytes::Bytes;
use perennial::proto::{Durability, MessagesRequest, messages_request::Start};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use super::load::{ALL, Flow, Load, Messages};
use crate::{
    Result,
    process::{Server, WIDE},
};

const MESSAGES: &str = "/perennial.v1.MessageService/Messages";
const PUBLISH: &str = "/perennial.v1.MessageService/Publish";
const PUBLISH_STREAM: &str = "/perennial.v1.MessageService/PublishStream";

/// `PublishRequest`.
#[derive(Clone, PartialEq, Message)]
struct Send {
    #[prost(bytes = "bytes", tag = "1")]
    topic: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

/// `PublishStreamRequest`.
#[derive(Clone, PartialEq, Message)]
struct Frame {
    #[prost(message, repeated, tag = "1")]
    messages: Vec<Send>,
}

/// `PublishResponse`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Published {
    #[prost(int64, tag = "1")]
    sequence: i64,
    #[prost(enumeration = "Durability", tag = "4")]
    durability: i32,
}

impl Published {
    /// The sequence of a message that is on disk.
    fn on_disk(self) -> Result<u64> {
        if self.durability() == Durability::Fsynced {
            Ok(self.sequence.try_into()?)
        } else {
            Err(format!("{} is not on disk", self.sequence).into())
        }
    }
}

/// `PublishStreamResponse`.
#[derive(Clone, PartialEq, Message)]
struct Answers {
    #[prost(message, repeated, tag = "1")]
    results: Vec<Answer>,
}

/// `PublishResult`.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, tag = "1")]
    published: Option<Published>,
    #[prost(message, tag = "2")]
    error: Option<Refusal>,
}

/// `PublishError`.
#[derive(Clone, PartialEq, Message)]
struct Refusal {
    #[prost(string, tag = "3")]
    message: String,
}

/// `MessagesResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Batch {
    #[prost(message, repeated, tag = "1")]
    messages: Vec<Place>,
    #[prost(int64, tag = "5")]
    head: i64,
}

impl Batch {
    /// The number of messages.
    pub fn count(&self) -> usize {
        self.messages.len()
    }
}

/// `Message`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Place {
    #[prost(int64, tag = "1")]
    sequence: i64,
}

/// The message of a number.
fn nth(messages: &Messages, number: u64) -> Send {
    let (topic, data) = messages.nth(number);
    Send { topic, data }
}

/// Publishes a load over one `PublishStream`, and returns how many were acknowledged, each after the one before.
pub async fn publish(grpc: &mut Grpc<Channel>, messages: &Messages, load: &Load) -> Result<u64> {
    // Never full: no more frames than messages wait.
    let (frames, requests) = mpsc::channel(load.window);
    let mut frames = Some(frames);
    grpc.ready().await?;
    let method = PathAndQuery::from_static(PUBLISH_STREAM);
    let codec = ProstCodec::<Frame, Answers>::default();
    let mut opening = Box::pin(grpc.streaming(Request::new(ReceiverStream::new(requests)), method, codec));
    let mut flow = Flow::new(load);
    let mut answers: Option<Streaming<Answers>> = None;
    loop {
        let numbers = flow.take();
        if !numbers.is_empty() {
            let frame = Frame { messages: numbers.map(|number| nth(messages, number)).collect() };
            if let Some(frames) = &frames {
                frames.try_send(frame).map_err(|_| "the stream ended")?;
            }
            continue;
        }
        if flow.is_all_sent() {
            frames = None;
        }
        let Some(stream) = &mut answers else {
            answers = Some((&mut opening).await?.into_inner());
            continue;
        };
        tokio::select! {
            answer = stream.message() => match answer? {
                Some(answer) => flow.answer(acknowledge(load, answer)?),
                None => break,
            },
            () = flow.next_due() => {}
        }
    }
    if flow.is_all_answered() { Ok(flow.answered()) } else { Err("it ended without all answers".into()) }
}

/// Notes the sequences of an answer, and returns how many there are.
fn acknowledge(load: &Load, answer: Answers) -> Result<u64> {
    let count = answer.results.len() as u64;
    for result in answer.results {
        match result {
            Answer { published: Some(published), .. } => load.acknowledge(published.on_disk()?)?,
            Answer { error, .. } => return Err(error.unwrap_or_default().message.into()),
        }
    }
    Ok(count)
}

/// Publishes one after the other until a moment, and returns how long each took, in nanoseconds.
pub async fn publish_singly(
    grpc: &mut Grpc<Channel>,
    messages: &Messages,
    first: u64,
    end: Instant,
) -> Result<Vec<i64>> {
    let (mut took, mut number, mut last) = (Vec::new(), first, 0);
    while Instant::now() < end {
        let request = Request::new(nth(messages, number));
        let start = Instant::now();
        grpc.ready().await?;
        let codec = ProstCodec::<Send, Published>::default();
        let published = grpc.unary(request, PathAndQuery::from_static(PUBLISH), codec).await?;
        let sequence = published.into_inner().on_disk()?;
        took.push(i64::try_from(start.elapsed().as_nanos())?);
        if sequence <= last {
            return Err(format!("sequence {sequence} after {last}").into());
        }
        (last, number) = (sequence, number + 1);
    }
    Ok(took)
}

/// A subscription, and what came of it.
pub struct Subscription {
    stream: Streaming<Batch>,
    last: i64,
    received: u64,
}

impl Subscription {
    /// Subscribes to the messages that follow; the subscription has begun when this returns.
    pub async fn live(grpc: &mut Grpc<Channel>, pattern: &str) -> Result<Self> {
        let request = MessagesRequest { topics: vec![pattern.into()], ..MessagesRequest::default() };
        let mut stream = read::<Batch>(grpc, request).await?;
        // The first response says: subscribed.
        stream.message().await?.ok_or("it ended")?;
        Ok(Self { stream, last: 0, received: 0 })
    }

    /// Reads until it has this number.
    pub async fn read(&mut self, messages: u64) -> Result<()> {
        while self.received < messages {
            let batch = self.stream.message().await?.ok_or("it ended")?;
            self.take(&batch)?;
        }
        Ok(())
    }

    fn take(&mut self, batch: &Batch) -> Result<()> {
        for place in &batch.messages {
            if place.sequence <= self.last {
                return Err(format!("sequence {} after {}", place.sequence, self.last).into());
            }
            self.last = place.sequence;
        }
        self.received += batch.messages.len() as u64;
        Ok(())
    }
}

/// Reads the whole log in order, and returns the number of messages.
pub async fn replay(grpc: &mut Grpc<Channel>, pattern: &str) -> Result<u64> {
    let request = MessagesRequest {
        topics: vec![pattern.into()],
        until_caught_up: true,
        start: Some(Start::Earliest(true)),
        ..MessagesRequest::default()
    };
    let stream = read(grpc, request).await?;
    let mut subscription = Subscription { stream, last: 0, received: 0 };
    while let Some(batch) = subscription.stream.message().await? {
        subscription.take(&batch)?;
    }
    Ok(subscription.received)
}

/// The last sequence of the log, which comes with the last message.
pub async fn head(server: &Server) -> Result<u64> {
    let request = MessagesRequest {
        topics: vec![ALL.into()],
        start: Some(Start::Last(1)),
        limit: Some(1),
        ..MessagesRequest::default()
    };
    let mut grpc = Grpc::new(server.connect(WIDE).await?);
    let mut stream = read::<Batch>(&mut grpc, request).await?;
    while let Some(batch) = stream.message().await? {
        if let Some(place) = batch.messages.first() {
            return Ok(place.sequence.max(batch.head).try_into()?);
        }
    }
    Err("there is no message".into())
}

/// Calls `Messages`.
pub async fn read<R>(grpc: &mut Grpc<Channel>, request: MessagesRequest) -> Result<Streaming<R>>
where
    R: Message + Default + std::marker::Send + Sync + 'static,
{
    grpc.ready().await?;
    let codec = ProstCodec::<MessagesRequest, R>::default();
    Ok(grpc
        .server_streaming(Request::new(request), PathAndQuery::from_static(MESSAGES), codec)
        .await?
        .into_inner())
}
