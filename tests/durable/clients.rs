//! Clients that publish and read while the server crashes.
//!
//! Two publishers keep a flow open over all crashes, and a third publishes one message after the other and repeats it
//! until it is answered. Readers keep a stream open over all crashes, or are cut at random and go on from their cursor.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use perennial::{
    client::Client,
    proto::{
        MessagesRequest, MessagesResponse, PublishRequest, StoredMessage, messages_request::Start,
        publish_request, publish_result, stored_message,
    },
};
use tokio::{sync::Semaphore, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{Server, within},
    history::{Id, Read, Reading},
};

pub const PUBLISHERS: usize = 3;
const READERS: usize = 5;

/// Of a flow: what may be lost on the way at a crash.
const UNANSWERED: usize = 300;

const TOPICS: u64 = 5;

/// How long anything may take: a client that finds no server a few times waits for 10 s before it looks again.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Between attempts to reach a server that may be down.
const A_MOMENT: Duration = Duration::from_millis(20);

/// How many answers each publisher and how many responses each reader got.
pub type Progress = [u64; PUBLISHERS + READERS];

type Acknowledged = (Id, String, i64);

pub struct Clients {
    pub publishers: Vec<JoinHandle<Vec<Acknowledged>>>,
    pub readers: Vec<JoinHandle<Reading>>,
    pub progress: watch::Sender<Progress>,
    /// Publishers end.
    pub stop: CancellationToken,
    /// Readers end when they have passed this sequence.
    pub last: watch::Sender<Option<i64>>,
}

impl Clients {
    pub async fn start(server: &Server, random: &mut fastrand::Rng) -> Self {
        let (progress, stop, last) = (
            watch::Sender::new([0; PUBLISHERS + READERS]),
            CancellationToken::new(),
            watch::Sender::new(None),
        );
        let reader = |(place, (name, request, cut))| {
            let (progress, last) = (progress.clone(), last.subscribe());
            let responded = move || count(&progress, PUBLISHERS + place);
            let reader = Reader { name, client: client(server), request, cut, last };
            tokio::spawn(reader.read(fastrand::Rng::with_seed(random.u64(..)), responded))
        };
        let readers = requests(server).await.into_iter().enumerate().map(reader).collect();
        let publisher = |publisher| {
            let (client, stop, progress) = (client(server), stop.clone(), progress.clone());
            let answered = move || count(&progress, publisher);
            match publisher {
                2 => tokio::spawn(publish_each(client, publisher, stop, answered)),
                _ => tokio::spawn(publish_flow(client, publisher, stop, answered)),
            }
        };
        let publishers = (0..PUBLISHERS).map(publisher).collect();
        Self { publishers, readers, progress, stop, last }
    }

    /// How many messages were acknowledged.
    pub fn answers(progress: &Progress) -> u64 {
        progress[..PUBLISHERS].iter().sum()
    }
}

fn client(server: &Server) -> Client {
    Client::new(&server.url()).unwrap()
}

fn count(progress: &watch::Sender<Progress>, client: usize) {
    progress.send_modify(|progress| progress[client] += 1);
}

/// Publishes by one flow until `stop`, and waits for the last answer.
async fn publish_flow(
    client: Client,
    publisher: usize,
    stop: CancellationToken,
    answered: impl Fn(),
) -> Vec<Acknowledged> {
    let room = Arc::new(Semaphore::new(UNANSWERED));
    let messages = stream::unfold(0, |number| {
        let (room, stop) = (room.clone(), stop.clone());
        async move {
            let permit = stop.run_until_cancelled(room.acquire()).await?;
            permit.unwrap().forget();
            Some((message(Id { publisher, number }), number + 1))
        }
    });
    let mut acknowledged = Vec::new();
    let mut results = pin!(client.publish_all(messages));
    while let Some(result) = within(LIMIT, "an answer", results.next()).await {
        let result = result.unwrap().outcome.unwrap();
        let publish_result::Outcome::Published(published) = result else { panic!("{result:?}") };
        let id = Id { publisher, number: acknowledged.len() as u64 };
        acknowledged.push((id, topic(id), published.sequence.unwrap()));
        room.add_permits(1);
        answered();
    }
    acknowledged
}

/// Publishes one message at a time until `stop`. A message without an answer is repeated under its id.
async fn publish_each(
    client: Client,
    publisher: usize,
    stop: CancellationToken,
    answered: impl Fn(),
) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    while !stop.is_cancelled() {
        let id = Id { publisher, number: acknowledged.len() as u64 };
        let message = PublishRequest { message_id: Some(key(id)), ..message(id) };
        let sequence = within(LIMIT, "an answer", Box::pin(publish_until_answered(&client, message))).await;
        acknowledged.push((id, topic(id), sequence));
        answered();
    }
    acknowledged
}

async fn publish_until_answered(client: &Client, message: PublishRequest) -> i64 {
    loop {
        match client.publish(message.clone()).await {
            Ok(published) => return published.sequence.unwrap(),
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        tokio::time::sleep(A_MOMENT).await;
    }
}

/// What the readers read, and after how many responses at most each is cut.
async fn requests(server: &Server) -> [(&'static str, MessagesRequest, Option<u64>); READERS] {
    let subscribe = MessagesRequest { start: None, ..request() };
    let mut subscribed = server.messages().await.messages(subscribe.clone()).await.unwrap().into_inner();
    let first = within(LIMIT, "the first response", subscribed.message()).await.unwrap().unwrap();
    let only = topic(Id { publisher: 0, number: 3 });
    [
        ("that stays", request(), None),
        ("that is cut", request(), Some(30)),
        ("that takes little", MessagesRequest { max_batch: Some(3), ..request() }, Some(300)),
        ("that is new", MessagesRequest { cursor: Some(first.cursor), ..subscribe }, Some(30)),
        ("of a topic", MessagesRequest { topics: vec![only], ..request() }, Some(30)),
    ]
}

fn request() -> MessagesRequest {
    MessagesRequest {
        topics: vec![">".into()],
        start: Some(Start::Earliest(true)),
        heartbeat: Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 }),
        ..MessagesRequest::default()
    }
}

/// Reads the whole log after the other clients have ended.
pub async fn read_afterwards(server: &Server) -> Reading {
    let request = MessagesRequest { until_caught_up: true, ..request() };
    let last = watch::Sender::new(None).subscribe();
    let reader = Reader { name: "afterwards", client: client(server), request, cut: None, last };
    reader.read(fastrand::Rng::with_seed(0), || {}).await
}

struct Reader {
    name: &'static str,
    client: Client,
    request: MessagesRequest,
    /// The stream is dropped after up to this number of responses, and another one continues.
    cut: Option<u64>,
    last: watch::Receiver<Option<i64>>,
}

impl Reader {
    /// Reads until the stream ends or the last sequence was passed.
    async fn read(self, mut random: fastrand::Rng, responded: impl Fn()) -> Reading {
        let Self { name, client, mut request, cut, last } = self;
        let topic = request.topics.first().filter(|topic| *topic != ">").cloned();
        let mut reading = Reading { reader: name.into(), topic, messages: Vec::new() };
        loop {
            let mut responses =
                pin!(client.messages(request.clone()).connect_timeout(Duration::ZERO).responses());
            let left = cut.map_or(u64::MAX, |most| random.u64(..most));
            for _ in 0..left {
                let response = match within(LIMIT, "a response", responses.next()).await {
                    Some(Ok(response)) => response,
                    Some(Err(error)) => {
                        assert!(error.is_retryable(), "{error:?}");
                        // No server is there at the moment: a new stream does not wait for one.
                        tokio::time::sleep(A_MOMENT).await;
                        break;
                    }
                    None => return reading,
                };
                assert!(response.events.is_empty(), "{:?}", response.events);
                reading.messages.extend(response.messages.iter().map(read_message));
                responded();
                if is_last(&response, *last.borrow()) {
                    return reading;
                }
                request.cursor = Some(response.cursor);
            }
        }
    }
}

fn is_last(response: &MessagesResponse, last: Option<i64>) -> bool {
    response.caught_up && last.is_some_and(|last| response.head_sequence.unwrap() >= last)
}

fn topic(id: Id) -> String {
    format!("kill.{}", id.number % TOPICS)
}

fn key(id: Id) -> String {
    format!("{}/{}", id.publisher, id.number)
}

/// What a publisher publishes: mostly little, sometimes more than a block of the log holds.
fn message(id: Id) -> PublishRequest {
    PublishRequest {
        topic: topic(id),
        key: Some(key(id)),
        headers: headers(id),
        content: Some(publish_request::Content::Data(payload(id))),
        ..PublishRequest::default()
    }
}

fn headers(id: Id) -> HashMap<String, String> {
    HashMap::from([("number".into(), id.number.to_string())])
}

fn payload(id: Id) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed((id.publisher as u64) << 32 | id.number);
    let most = [64, 300, 300, 1_500].get(random.usize(..4)).copied().unwrap_or(0);
    let most = if random.u64(..1_000) == 0 { 200_000 } else { most };
    let numbers = (0..random.u64(..most) / 8).map(|_| random.u64(..));
    numbers.flat_map(u64::to_le_bytes).collect()
}

fn read_message(message: &StoredMessage) -> Read {
    let key = message.key.as_deref().unwrap_or_default();
    let (publisher, number) = key.split_once('/').unwrap_or_else(|| panic!("not of this test: {message:?}"));
    let id = Id { publisher: publisher.parse().unwrap(), number: number.parse().unwrap() };
    let is_intact = message.topic == topic(id)
        && message.headers == headers(id)
        && message.content == Some(stored_message::Content::Data(payload(id)));
    Read { sequence: message.sequence.unwrap(), topic: message.topic.clone(), id, is_intact }
}
