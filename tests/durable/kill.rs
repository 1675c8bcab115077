//! `kill -9` of a server over and over, while clients publish and read.
//!
//! Two publishers keep a flow open over all crashes, and a third publishes one message after the other and repeats it
//! until it is answered. Readers keep a stream open over all crashes, or are cut at random and go on from their cursor.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use perennial::{
    client::Client,
    proto::{
        Message, MessagesRequest, MessagesResponse, PublishRequest, message, messages_request::Start,
        publish_request, publish_result,
    },
};
use tokio::{sync::Semaphore, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{Server, server_command, soon},
    history::{History, Id, Read, Reading},
};

#[path = "../../src/messages/embedded/disk/simulated/random.rs"]
mod random;

use random::Random;

const PUBLISHERS: usize = 3;

/// Of a flow: what may be lost on the way at a crash.
const UNANSWERED: usize = 300;

const TOPICS: u64 = 5;

/// Between attempts to reach a server that may not be there.
const A_MOMENT: Duration = Duration::from_millis(20);

type Acknowledged = (Id, String, i64);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_message_is_read_once_and_in_order_over_8_crashes() {
    crash(8).await;
}

/// As many as `PERENNIAL_ROUNDS` says, or 200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "200 rounds: some minutes"]
async fn every_acknowledged_message_is_read_once_and_in_order_over_200_crashes() {
    let rounds = std::env::var("PERENNIAL_ROUNDS");
    crash(rounds.map_or(200, |rounds| rounds.parse().expect("PERENNIAL_ROUNDS is a number"))).await;
}

async fn crash(rounds: usize) {
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut server = Server::start();
    let (last, _) = watch::channel(None);
    let readers = read_by_all(&server, &last, &mut random).await;
    let (answers, stop) = (watch::Sender::new([0; PUBLISHERS]), CancellationToken::new());
    let publishers = publish_by_all(&server, &answers, &stop);
    // A client whose first call finds no server gives up.
    let mut answers = answers.subscribe();
    soon("answers", answers.wait_for(|answers| !answers.contains(&0))).await.unwrap();
    for round in 0..rounds {
        let enough = total(&answers.borrow()) + random.below(4).min(1) * random.below(600);
        soon(&format!("round {round}"), answers.wait_for(|answers| total(answers) >= enough)).await.unwrap();
        assert!(!publishers.iter().any(JoinHandle::is_finished), "a publisher failed");
        assert!(!readers.iter().any(JoinHandle::is_finished), "a reader failed");
        server.kill();
        if random.one_in(4) {
            kill_while_it_starts(&server, &mut random).await;
        }
        server.restart();
    }
    stop.cancel();
    let mut history = History::default();
    for publisher in publishers {
        history.acknowledged.extend(soon("the last answers", publisher).await.unwrap());
    }
    last.send_replace(history.acknowledged.iter().map(|(_, _, sequence)| *sequence).max());
    for reader in readers {
        history.readings.push(soon("the last messages", reader).await.unwrap());
    }
    let all = MessagesRequest { until_caught_up: true, ..request() };
    history.readings.push(read(&server, "afterwards", all, None, &last, 0).await);
    println!("{history}");
    history.check();
}

fn total(answers: &[u64; PUBLISHERS]) -> u64 {
    answers.iter().sum()
}

/// Ends a start in its middle: what it does to the data has to be as safe as what it found.
async fn kill_while_it_starts(server: &Server, random: &mut Random) {
    let mut command = server_command(server.directory(), "127.0.0.1:0");
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    tokio::time::sleep(Duration::from_micros(random.below(100_000))).await;
    child.kill().unwrap();
    child.wait().unwrap();
}

fn publish_by_all(
    server: &Server,
    answers: &watch::Sender<[u64; PUBLISHERS]>,
    stop: &CancellationToken,
) -> [JoinHandle<Vec<Acknowledged>>; PUBLISHERS] {
    let client = || Client::connect(&server.url()).unwrap();
    [
        tokio::spawn(publish_flow(client(), 0, answers.clone(), stop.clone())),
        tokio::spawn(publish_flow(client(), 1, answers.clone(), stop.clone())),
        tokio::spawn(publish_each(client(), 2, answers.clone(), stop.clone())),
    ]
}

/// Publishes by one flow, until told to stop, and waits for the last answer.
async fn publish_flow(
    client: Client,
    publisher: usize,
    answers: watch::Sender<[u64; PUBLISHERS]>,
    stop: CancellationToken,
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
    while let Some(result) = soon("an answer", results.next()).await {
        let result = result.unwrap().result.unwrap();
        let publish_result::Result::Published(published) = result else { panic!("{result:?}") };
        let id = Id { publisher, number: acknowledged.len() as u64 };
        acknowledged.push((id, topic(id), published.sequence.unwrap()));
        room.add_permits(1);
        answers.send_modify(|answers| answers[publisher] += 1);
    }
    acknowledged
}

/// Publishes one message at a time, until told to stop; what is not answered is repeated under its id.
async fn publish_each(
    client: Client,
    publisher: usize,
    answers: watch::Sender<[u64; PUBLISHERS]>,
    stop: CancellationToken,
) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    while !stop.is_cancelled() {
        let id = Id { publisher, number: acknowledged.len() as u64 };
        let message = PublishRequest { message_id: Some(key(id)), ..message(id) };
        let sequence = soon("an answer", publish_until_answered(&client, message)).await;
        acknowledged.push((id, topic(id), sequence));
        answers.send_modify(|answers| answers[publisher] += 1);
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

/// Starts the readers; each reads on until it comes to the sequence that is told last.
async fn read_by_all(
    server: &Server,
    last: &watch::Sender<Option<i64>>,
    random: &mut Random,
) -> Vec<JoinHandle<Reading>> {
    let subscribe = MessagesRequest { start: None, ..request() };
    let mut subscribed = server.messages().await.messages(subscribe.clone()).await.unwrap().into_inner();
    let first = soon("the first response", subscribed.message()).await.unwrap().unwrap();
    let only = "kill.3".to_owned();
    [
        ("that stays", request(), None),
        ("that is cut", request(), Some(30)),
        ("that takes little", MessagesRequest { max_batch: Some(3), ..request() }, Some(300)),
        ("that is new", MessagesRequest { cursor: Some(first.cursor), ..subscribe }, Some(30)),
        ("of a topic", MessagesRequest { topics: vec![only], ..request() }, Some(30)),
    ]
    .into_iter()
    .map(|(name, request, cut)| {
        let reading = read(server, name, request, cut, last, random.number());
        tokio::spawn(reading)
    })
    .collect()
}

fn request() -> MessagesRequest {
    MessagesRequest {
        topics: vec![">".into()],
        start: Some(Start::Earliest(true)),
        heartbeat: Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 }),
        ..MessagesRequest::default()
    }
}

/// Reads until the stream ends or the last sequence was passed. After at most so many responses the stream is dropped,
/// and another one goes on.
fn read(
    server: &Server,
    name: &str,
    mut request: MessagesRequest,
    cut: Option<u64>,
    last: &watch::Sender<Option<i64>>,
    seed: u64,
) -> impl Future<Output = Reading> + Send + use<> {
    let (client, last) = (Client::connect(&server.url()).unwrap(), last.subscribe());
    let topic = request.topics.first().filter(|topic| *topic != ">").cloned();
    let mut reading = Reading { reader: name.into(), topic, messages: Vec::new() };
    let mut random = Random::new(seed);
    async move {
        loop {
            let mut responses = pin!(client.messages(request.clone()));
            let mut left = cut.map_or(u64::MAX, |most| random.below(most));
            while left > 0 {
                left -= 1;
                match soon("a response", responses.next()).await {
                    Some(Ok(response)) => {
                        assert!(response.events.is_empty(), "{:?}", response.events);
                        let is_last = is_last(&response, *last.borrow());
                        request.cursor = Some(response.cursor);
                        reading.messages.extend(response.messages.iter().map(read_message));
                        if is_last {
                            return reading;
                        }
                    }
                    Some(Err(error)) if error.is_retryable() => {
                        // No server is there at the moment: a new stream does not wait for one.
                        tokio::time::sleep(A_MOMENT).await;
                        break;
                    }
                    Some(Err(error)) => panic!("{error:?}"),
                    None => return reading,
                }
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
    let mut random = Random::new((id.publisher as u64) << 32 | id.number);
    let most = [64, 300, 300, 1_500].get(random.index(4)).copied().unwrap_or(0);
    let most = if random.one_in(1_000) { 200_000 } else { most };
    let numbers = (0..random.below(most) / 8).map(|_| random.number());
    numbers.flat_map(u64::to_le_bytes).collect()
}

fn read_message(message: &Message) -> Read {
    let key = message.key.as_deref().unwrap_or_default();
    let (publisher, number) = key.split_once('/').unwrap_or_else(|| panic!("not of this test: {message:?}"));
    let id = Id { publisher: publisher.parse().unwrap(), number: number.parse().unwrap() };
    let is_intact = message.topic == topic(id)
        && message.headers == headers(id)
        && message.content == Some(message::Content::Data(payload(id)));
    Read { sequence: message.sequence.unwrap(), topic: message.topic.clone(), id, is_intact }
}
