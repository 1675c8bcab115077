//! A flow of messages over PublishStream that survives the loss of its connection: what was not answered is sent
//! again, under the same ids, so that nothing is published twice and nothing is left out.

use std::{collections::VecDeque, pin::Pin};

use async_stream::try_stream;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};
use uuid::Uuid;

use super::{Client, Error, resume::Waits};
use crate::proto::{
    PublishRequest, PublishResult, PublishStreamRequest, PublishStreamResponse,
    message_service_client::MessageServiceClient,
};

/// How many messages may be unanswered: half of the server's own window, so that it always reads on.
const WINDOW: usize = 5_000;

/// How many messages one request holds at most.
const CHUNK: usize = 500;

/// How many bytes of payload one request holds, or one message more: well under the server's limit of a request.
const CHUNK_BYTES: usize = 512 * 1024;

/// How many requests may wait for the transport.
const QUEUE: usize = 4;

/// Publishes what `messages` gives; yields the results in the same order.
pub(super) fn publish<S>(
    client: Client,
    messages: S,
) -> impl Stream<Item = Result<PublishResult, Error>> + Send
where
    S: Stream<Item = PublishRequest> + Send + 'static,
{
    let mut flow = Flow::new(client, Box::pin(messages));
    try_stream!({
        while let Some(results) = flow.next().await? {
            for result in results {
                yield result;
            }
        }
    })
}

struct Flow {
    client: Client,
    messages: Pin<Box<dyn Stream<Item = PublishRequest> + Send>>,
    is_over: bool,
    unanswered: VecDeque<PublishRequest>,
    connection: Option<Connection>,
    waits: Waits,
    id: Uuid,
    count: u64,
}

struct Connection {
    /// None when all was sent: the server then answers the rest and ends.
    requests: Option<mpsc::Sender<PublishStreamRequest>>,
    answers: Streaming<PublishStreamResponse>,
}

enum Step {
    Answers(Result<Option<PublishStreamResponse>, Error>),
    Message(Option<PublishRequest>),
}

impl Flow {
    fn new(client: Client, messages: Pin<Box<dyn Stream<Item = PublishRequest> + Send>>) -> Self {
        Self {
            client,
            messages,
            is_over: false,
            unanswered: VecDeque::new(),
            connection: None,
            waits: Waits::default(),
            id: Uuid::now_v7(),
            count: 0,
        }
    }

    /// The next results; none when every message is answered.
    async fn next(&mut self) -> Result<Option<Vec<PublishResult>>, Error> {
        loop {
            if self.is_over && self.unanswered.is_empty() {
                return Ok(None);
            }
            match self.attempt().await {
                Ok(Some(results)) => return Ok(Some(results)),
                Ok(None) => {}
                Err(error) => {
                    self.connection = None;
                    self.waits.wait_out(&self.client, error).await?;
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Option<Vec<PublishResult>>, Error> {
        if self.connection.is_none() {
            self.connect().await?;
        }
        let Some(connection) = &mut self.connection else { return Ok(None) };
        let has_room = !self.is_over && self.unanswered.len() < WINDOW;
        let url = &self.client.url;
        let step = tokio::select! {
            biased;
            answer = connection.answers.message() => {
                Step::Answers(answer.map_err(|status| Error::from_status(&status, url)))
            }
            message = self.messages.next(), if has_room => Step::Message(message),
        };
        match step {
            Step::Answers(answer) => {
                let answer = answer?.ok_or(Error::EndedEarly)?;
                self.unanswered.drain(..answer.results.len().min(self.unanswered.len()));
                self.waits.succeeded(&self.client);
                Ok(Some(answer.results))
            }
            Step::Message(None) => {
                self.is_over = true;
                connection.requests = None;
                Ok(None)
            }
            Step::Message(Some(message)) => {
                self.send(message).await;
                Ok(None)
            }
        }
    }

    /// Opens a connection, and sends again what was not answered.
    async fn connect(&mut self) -> Result<(), Error> {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let mut client = MessageServiceClient::<Channel>::new(self.client.channel.clone());
        let open = client.publish_stream(ReceiverStream::new(receiver)).await;
        let answers = open.map_err(|status| Error::from_status(&status, &self.client.url))?.into_inner();
        let mut chunk = Chunk::default();
        for message in &self.unanswered {
            if chunk.is_full() {
                let _ = requests.send(std::mem::take(&mut chunk).into()).await;
            }
            chunk.push(message.clone());
        }
        if !chunk.messages.is_empty() {
            let _ = requests.send(chunk.into()).await;
        }
        let requests = Some(requests).filter(|_| !self.is_over);
        self.connection = Some(Connection { requests, answers });
        Ok(())
    }

    /// Sends a message, and those that are ready with it.
    async fn send(&mut self, first: PublishRequest) {
        let mut chunk = Chunk::default();
        let first = self.named(first);
        chunk.push(first);
        while !chunk.is_full() {
            match self.messages.next().now_or_never() {
                None => break,
                Some(None) => {
                    self.is_over = true;
                    break;
                }
                Some(Some(message)) => {
                    let message = self.named(message);
                    chunk.push(message);
                }
            }
        }
        self.unanswered.extend(chunk.messages.iter().cloned());
        let Some(connection) = &mut self.connection else { return };
        if let Some(requests) = &connection.requests {
            // Where it cannot be sent the connection is lost, and the answers tell.
            let _ = requests.send(chunk.into()).await;
        }
        if self.is_over {
            connection.requests = None;
        }
    }

    /// With an id of its own, unless it has one.
    fn named(&mut self, mut message: PublishRequest) -> PublishRequest {
        self.count += 1;
        message.message_id.get_or_insert_with(|| format!("{}-{}", self.id.simple(), self.count));
        message
    }
}

/// Messages of one request.
#[derive(Default)]
struct Chunk {
    messages: Vec<PublishRequest>,
    bytes: usize,
}

impl Chunk {
    fn push(&mut self, message: PublishRequest) {
        self.bytes += prost::Message::encoded_len(&message);
        self.messages.push(message);
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= CHUNK || self.bytes >= CHUNK_BYTES
    }
}

impl From<Chunk> for PublishStreamRequest {
    fn from(chunk: Chunk) -> Self {
        Self { messages: chunk.messages }
    }
}
