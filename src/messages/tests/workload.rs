//! A random workload on a simulated disk, and the history that it makes.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    history::{self, Fact, Keeps, Outcome, Seen, Sent},
    *,
};
use crate::messages::clock::Clock;
use embedded::simulated::Random;

/// `last` is kept by its last message, `few` by a few, and `old` by age where retention says so; of the others all is kept.
pub const TOPICS: [&str; 7] = ["a", "b.x", "b.y", "c", "few", "last", "old"];

/// Of `few`.
const FEW: usize = 5;

pub const KEEPS: Keeps = |topic| match topic {
    "few" => Some(FEW),
    "last" => Some(1),
    _ => None,
};

/// In the text of a message that expires.
pub const EXPIRES: char = 'e';

pub const DIRECTORY: &str = "/log";

/// Of the places that a test could change, an ordinary run changes one in this many.
const SHARE: usize = 8;

/// Whether a test takes all its cases, which needs minutes, and not a share of them.
fn is_thorough() -> bool {
    std::env::var_os("PERENNIAL_THOROUGH").is_some()
}

/// How many seeds a test takes: as many as `PERENNIAL_SEEDS` says, or the second number if `PERENNIAL_THOROUGH` is set.
pub fn seeds(ordinary: u64, thorough: u64) -> u64 {
    let said = std::env::var("PERENNIAL_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    said.unwrap_or(if is_thorough() { thorough } else { ordinary })
}

/// A share of these places, another one in each run; all of them if `PERENNIAL_THOROUGH` is set.
pub fn share<T>(places: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_micros() as usize;
    let (first, step) = if is_thorough() { (0, 1) } else { (now % SHARE, SHARE) };
    places.skip(first).step_by(step)
}

/// Does something for each seed, on as many threads as there are processors.
pub fn for_each_seed<F: Future<Output = ()>>(count: u64, run: impl Fn(u64) -> F + Sync) {
    let one = std::env::var("PERENNIAL_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let (next, seeds) = one.map_or((0, count), |seed| (seed, seed + 1));
    let next = AtomicU64::new(next);
    let threads = std::thread::available_parallelism().map_or(2, Into::into);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let named = Named(seed);
                    runtime.block_on(run(seed));
                    drop(named);
                }
            });
        }
    });
}

/// Prints the seed if its run panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

/// Segments so small that a workload fills several; retention only when it is asked for.
pub fn small(disk: &Arc<Simulation>, segment_bytes: usize) -> Config {
    Config {
        segment_bytes,
        retention: vec!["few=count:5".parse().unwrap(), "last=last".parse().unwrap()],
        retention_interval: Duration::from_secs(3600),
        removal_delay: Duration::ZERO,
        disk: Storage::Simulated(disk.clone()),
        ..Config::default()
    }
}

/// What becomes of messages.
type Results = Pin<Box<dyn Future<Output = Vec<Result<Published, Error>>>>>;

/// A request without an answer yet.
struct Waiting {
    messages: Vec<NewMessage>,
    is_atomic: bool,
    results: Results,
}

/// Does things to a log, and writes them down.
pub struct Client {
    pub random: Random,
    pub facts: Vec<Fact>,
    pub count: u64,
    /// Ids that were sent, with their topics.
    ids: Vec<(String, String)>,
    /// Set forward and back meanwhile, if there is one.
    pub clock: Option<Clock>,
    /// A position after messages of all topics that were read once.
    pub position: Option<Position>,
    /// No message has a longer ttl.
    pub max_ttl: Duration,
    /// The threads of the log take turns, so the client decides which requests become one commit.
    pub decides_commits: bool,
}

impl Client {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            facts: Vec::new(),
            count: 0,
            ids: Vec::new(),
            clock: None,
            position: None,
            max_ttl: Duration::from_millis(20),
            decides_commits: false,
        }
    }

    /// Does one thing after another. False if the log gave up.
    pub async fn work(&mut self, log: &Log, steps: u64) -> bool {
        for _ in 0..steps {
            self.pass_time();
            match self.random.below(20) {
                0 => self.purge(log).await,
                1 | 2 => enforce(log).await,
                3 => self.commit(log).await,
                4 => self.delete(log).await,
                5 => self.read(log).await,
                _ => self.publish(log).await,
            }
            if *log.failed().borrow() {
                return false;
            }
        }
        true
    }

    /// Lets a moment pass, and sometimes sets the wall clock, by up to a year.
    fn pass_time(&mut self) {
        let Some(clock) = &self.clock else { return };
        clock.advance(Duration::from_millis(self.random.below(10)));
        if self.random.one_in(5) {
            let most = 1 << self.random.below(25);
            let by = Duration::from_secs(self.random.below(most));
            if self.random.one_in(2) { clock.forward(by) } else { clock.back(by) }
        }
    }

    pub fn check(&self) -> Result<(), String> {
        history::check(&self.facts, KEEPS).inspect_err(|_| {
            self.facts.iter().enumerate().for_each(|(at, fact)| eprintln!("{at}: {fact:.20?}"));
        })
    }

    /// Some requests at once, or one after another.
    pub async fn publish(&mut self, log: &Log) {
        let is_one_by_one = self.decides_commits && self.random.one_in(2);
        let is_held = self.decides_commits && !is_one_by_one;
        let hold = if is_held { Some(embedded(log).hold().await) } else { None };
        let mut waiting = Vec::new();
        for _ in 0..=self.random.below(3) {
            let request = self.request(log).await;
            if is_one_by_one {
                self.answered(request).await;
                embedded(log).settle().await;
            } else {
                waiting.push(request);
            }
        }
        drop(hold);
        for request in waiting {
            self.answered(request).await;
        }
    }

    /// Sends a request, which is queued when this returns.
    async fn request(&mut self, log: &Log) -> Waiting {
        let messages = (0..=self.random.below(5)).map(|_| self.message()).collect::<Vec<_>>();
        let (log, sent) = (log.clone(), messages.clone());
        if !self.random.one_in(3) {
            return Waiting { messages, is_atomic: false, results: Box::pin(log.publish_each(sent).await) };
        }
        // It is queued by its first poll.
        let mut published = Box::pin(async move { log.publish_batch(sent).await });
        let ready = futures::poll!(&mut published);
        let count = messages.len();
        let results = Box::pin(async move {
            let result = match ready {
                std::task::Poll::Ready(result) => result,
                std::task::Poll::Pending => published.await,
            };
            match result {
                Ok(all) => all.into_iter().map(Ok).collect(),
                Err(BatchError { error, .. }) => (0..count).map(|_| Err(error.repeat())).collect(),
            }
        });
        Waiting { messages, is_atomic: true, results }
    }

    /// Waits for the answer to a request, and writes it down.
    async fn answered(&mut self, Waiting { messages, is_atomic, results }: Waiting) {
        let outcomes = results.await.into_iter().map(|result| match result {
            Ok(Published { sequence, duplicate: true, .. }) => Outcome::Duplicate(sequence.get()),
            Ok(Published { sequence, .. }) => Outcome::Done(sequence.get()),
            Err(Error::Full(_)) => Outcome::Refused,
            Err(Error::Failed) => Outcome::Unknown,
            Err(error) => panic!("{error}"),
        });
        let sent = messages.iter().zip(outcomes).map(|(message, outcome)| {
            let Content::Text(text) = message.content.clone() else { panic!() };
            let (topic, id, ttl) = (message.topic.clone(), message.message_id.clone(), message.ttl);
            Sent { topic, text, id, ttl, outcome }
        });
        self.facts.push(Fact::Published { messages: sent.collect(), is_atomic });
    }

    /// A message unlike any other, or an id again.
    fn message(&mut self) -> NewMessage {
        self.count += 1;
        let length = match self.random.below(20) {
            0 => 3000,
            1..5 => self.random.index(600),
            _ => self.random.index(60),
        };
        let mut new = text(
            TOPICS[self.random.index(TOPICS.len())],
            &format!("#{:06}-{}", self.count, "x".repeat(length)),
        );
        if self.random.one_in(10) {
            let max_ttl = self.max_ttl.as_millis().try_into().unwrap();
            new.ttl = Some(Duration::from_millis(1 + self.random.below(max_ttl)));
            new.content = Content::Text(format!("#{:06}-{EXPIRES}", self.count));
        }
        if self.random.one_in(8) && !self.ids.is_empty() {
            let (topic, id) = self.ids[self.random.index(self.ids.len())].clone();
            (new.topic, new.message_id) = (topic, Some(id));
        } else if self.random.one_in(4) {
            let id = self.count.to_string();
            self.ids.push((new.topic.clone(), id.clone()));
            new.message_id = Some(id);
        }
        new
    }

    pub async fn purge(&mut self, log: &Log) {
        let topic = TOPICS[self.random.index(TOPICS.len())];
        let through = embedded(log).head().saturating_sub(self.random.below(40)).max(1);
        self.purge_up_to(log, topic, through).await;
    }

    /// Purges a topic up to a sequence.
    pub async fn purge_up_to(&mut self, log: &Log, topic: &str, through: u64) {
        let result = log.purge_topic(topic, Some(sequence(through))).await;
        let outcome = match result {
            // It is done, and a restart may undo it.
            Err(Error::Full(_)) => Outcome::Unknown,
            result => outcome(&result.map(|_| 0)),
        };
        self.facts.push(Fact::Purged { topic: topic.into(), through, outcome });
        if self.decides_commits {
            // The purge may have asked for another segment.
            embedded(log).settle().await;
        }
    }

    pub async fn commit(&mut self, log: &Log) {
        let (consumer, at) = (["one", "two"][self.random.index(2)], embedded(log).head());
        let lineage = embedded(log).incarnations().lineage(at);
        let position = Position { delivered_up_to: at, lineage, ..Position::start(embedded(log).id()) };
        let outcome = outcome(&log.commit_cursor(consumer, position, true).await.map(|_| 0));
        self.facts.push(Fact::Committed { consumer: consumer.into(), at: Some(at), outcome });
    }

    pub async fn delete(&mut self, log: &Log) {
        let consumer = ["one", "two"][self.random.index(2)];
        let outcome = match log.delete_consumer(consumer).await {
            // As with a purge.
            Err(Error::Full(_)) => Outcome::Unknown,
            result => outcome(&result.map(|()| 0)),
        };
        self.facts.push(Fact::Committed { consumer: consumer.into(), at: None, outcome });
    }

    /// Reads everything, by one way or another.
    pub async fn read(&mut self, log: &Log) {
        let topics: &[&str] =
            if self.random.one_in(2) { &[">"] } else { &["a", "b.*", "c", "few", "last", "old"] };
        let batching = Batching { max_items: 1 + self.random.index(200), ..Batching::default() };
        let (seen, events) = self::seen(log, Query { batching, ..query(topics, Start::Earliest) }).await;
        let is_damage = |event: &&Event| matches!(event, Event::Damaged(_));
        assert_eq!(events.iter().find(is_damage), None);
        self.resume(log, &seen).await;
        self.facts.push(Fact::Read(seen));
        let consumers = log.list_consumers(10, None).await.unwrap().consumers;
        let consumers = consumers
            .into_iter()
            .map(|consumer| (consumer.name, number(consumer.position.unwrap().sequence())));
        self.facts.push(Fact::Consumers(consumers.collect::<BTreeMap<_, _>>()));
    }

    /// A position that was handed out, perhaps before a power cut, is still followed by every later message.
    async fn resume(&mut self, log: &Log, all: &[Seen]) {
        if let Some(position) = self.position.take() {
            let after = number(position.sequence());
            let (resumed, _) = seen(log, query(&[">"], Start::Resume(position))).await;
            let resumed = resumed.into_iter().filter(is_kept).collect::<Vec<_>>();
            let expected = all.iter().filter(|seen| seen.sequence > after && is_kept(seen));
            assert_eq!(resumed, expected.cloned().collect::<Vec<_>>(), "after {after}");
        }
        let limit = Some(1 + self.random.below(50));
        let batching = Batching { limit, ..Batching::default() };
        let mut batches = subscribe(log, Query { batching, ..query(&[">"], Start::Earliest) }).await.unwrap();
        while let Some(batch) = next(&mut batches).await {
            self.position = Some(batch.position);
        }
    }
}

/// Whether the message neither expires nor is in a topic with retention.
pub fn is_kept(seen: &Seen) -> bool {
    KEEPS(&seen.topic).is_none() && !seen.text.contains(EXPIRES)
}

/// All that a query gives.
pub async fn seen(log: &Log, query: Query) -> (Vec<Seen>, Vec<Event>) {
    all_of(subscribe(log, query).await.unwrap()).await
}

/// All that a subscription gives.
pub async fn all_of(mut batches: Batches) -> (Vec<Seen>, Vec<Event>) {
    let (mut messages, mut events) = (Vec::new(), Vec::new());
    while let Some(batch) = next(&mut batches).await {
        events.extend(batch.events.clone());
        messages.extend(decode(&batch).iter().map(|message| Seen {
            sequence: message.sequence.unwrap().cast_unsigned(),
            topic: message.topic.clone(),
            text: text_of(message),
        }));
    }
    (messages, events)
}

pub fn embedded(log: &Log) -> &Embedded {
    log.embedded()
}

pub async fn enforce(log: &Log) {
    embedded(log).enforce().await;
}

fn outcome(result: &Result<u64, Error>) -> Outcome {
    match result {
        Ok(sequence) => Outcome::Done(*sequence),
        Err(Error::NoTopic | Error::NoConsumer | Error::Full(_)) => Outcome::Refused,
        Err(_) => Outcome::Unknown,
    }
}
