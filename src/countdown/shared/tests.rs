//! Shared countdowns over a real log. Their time is the wall clock's, which stands still but where these tests set it:
//! nothing here waits for time to pass.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;

use futures::StreamExt;
use tokio::task::JoinHandle;

use super::*;
use crate::{
    countdown::{Event, OnLag},
    messages::Start,
    stream::Batching,
    wire::{message, tick},
};

mod ends;
mod races;
mod watching;

const SECOND: i128 = 1_000_000_000;

/// More than anything here takes.
const LONG: Duration = Duration::from_secs(30);

async fn limited<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap()
}

/// The countdowns of a log in a directory, until they are stopped.
struct House {
    directory: tempfile::TempDir,
    log: Log,
    clock: Clock,
    countdowns: Countdowns,
    work: JoinHandle<()>,
}

impl House {
    async fn new() -> Self {
        Self::over(tempfile::tempdir().unwrap(), messages::Config::default(), Clock::stopped()).await
    }

    async fn over(directory: tempfile::TempDir, options: messages::Config, clock: Clock) -> Self {
        let (log, _) = Log::open(directory.path(), options).unwrap();
        let (countdowns, work) = open(&log, &clock, Config::default()).await;
        Self { directory, log, clock, countdowns, work }
    }

    /// Ends all, as a server does, or as one that is killed does where nothing is under way.
    async fn stop(self) -> (tempfile::TempDir, Clock) {
        self.work.abort();
        self.log.close().await;
        (self.directory, self.clock)
    }

    async fn restart(self) -> Self {
        let (directory, clock) = self.stop().await;
        Self::over(directory, messages::Config::default(), clock).await
    }

    async fn create(&self, name: &str, spec: Spec) -> Arc<Snapshot> {
        limited(self.countdowns.create(name, spec)).await.unwrap().0
    }

    fn watch(&self, name: &str) -> Watching {
        self.watch_with(query(name))
    }

    fn watch_with(&self, query: Query) -> Watching {
        Watching(Box::pin(self.countdowns.watch(query).unwrap()))
    }

    /// Waits until a countdown is in some state.
    async fn reaches(&self, name: &str, is_it: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut changes = self.countdowns.0.changes(name).unwrap();
        limited(changes.wait_for(|snapshot| is_it(snapshot))).await.unwrap().clone()
    }

    async fn has_ended(&self, name: &str) -> Arc<Snapshot> {
        self.reaches(name, |snapshot| matches!(snapshot.record.phase, Phase::Ended { .. })).await
    }

    /// What was published to a topic: the text and the headers of each.
    async fn published(&self, topic: &str) -> Vec<(String, BTreeMap<String, String>)> {
        let query = messages::Query {
            topics: vec![topic.into()],
            start: Start::Earliest,
            stop: messages::Stop { caught_up: true, ..messages::Stop::default() },
            on_gap: messages::OnGap::Fail,
            consumer: None,
            batching: Batching::default(),
        };
        let batches =
            limited(async { self.log.subscribe(query).await.unwrap().collect::<Vec<_>>().await }).await;
        let mut found = Vec::new();
        for item in batches.into_iter().flat_map(|batch| batch.unwrap().items) {
            let mut rest = &item[..];
            while let Some(message) = message::read_next(&mut rest) {
                let headers =
                    message.headers.iter().map(|(name, value)| (name.to_string(), value.to_string()));
                found.push((String::from_utf8(message.content.to_vec()).unwrap(), headers.collect()));
            }
        }
        found
    }
}

async fn open(log: &Log, clock: &Clock, config: Config) -> (Countdowns, JoinHandle<()>) {
    let (countdowns, work) = limited(Countdowns::open(log.clone(), clock.clone(), config)).await.unwrap();
    (countdowns, tokio::spawn(work))
}

fn spec(target: Target) -> Spec {
    let interval = Duration::from_secs(1);
    Spec { target, to: 0, step: 1, interval, on_end: None, request_id: None }
}

/// One of so many seconds.
fn seconds(seconds: u64) -> Spec {
    spec(Target::For(Duration::from_secs(seconds)))
}

/// With a message of a text to the topic `ends`.
fn ending(spec: Spec, text: &str) -> Spec {
    let content = Content::Text(text.into());
    Spec { on_end: Some(OnEnd { topic: "ends".into(), content, ..OnEnd::default() }), ..spec }
}

fn query(name: &str) -> Query {
    // No heartbeat: each batch has something to tell.
    let batching = Batching { heartbeat: Duration::MAX, ..Batching::default() };
    Query { name: name.into(), resume: None, on_lag: OnLag::Skip, batching }
}

/// A stream, of which only what is asked for is waited for.
struct Watching(std::pin::Pin<Box<dyn Stream<Item = Result<Batch<Position>, Error>> + Send>>);

impl Watching {
    /// The next batch; none at the end.
    async fn next(&mut self) -> Option<Batch<Position>> {
        limited(self.0.next()).await.map(Result::unwrap)
    }

    /// The next batch that has more than a step of the clock.
    async fn tells(&mut self) -> Batch<Position> {
        loop {
            let batch = self.next().await.unwrap();
            if batch.count > 0 || !changes(&batch).is_empty() {
                return batch;
            }
        }
    }

    /// How it ends, when nothing but steps of the clock is left.
    async fn end(&mut self) -> Option<Error> {
        loop {
            match limited(self.0.next()).await {
                None => return None,
                Some(Err(error)) => return Some(error),
                Some(Ok(batch)) => assert!(batch.count == 0 && changes(&batch).is_empty(), "{batch:?}"),
            }
        }
    }
}

fn changes(batch: &Batch<Position>) -> Vec<Change> {
    let change = |event: &Event| match event {
        Event::Changed { change, .. } => Some(*change),
        Event::ClockStepped { .. } => None,
    };
    batch.events.iter().filter_map(change).collect()
}

/// The numbers of a batch.
fn numbers(batch: &Batch<Position>) -> Vec<i32> {
    let ticks = tick::tests::read(&batch.items.concat());
    assert_eq!(ticks.len(), batch.count);
    ticks.iter().map(|tick| tick.remaining).collect()
}

#[tokio::test]
async fn one_that_was_created_by_the_same_request_is_there_already_and_any_other_name_twice_is_refused() {
    let house = House::new().await;
    let with_id = |id: &str| Spec { request_id: Some(id.into()), ..seconds(60) };
    let first = house.create("launch", with_id("a")).await;
    house.countdowns.pause("launch", None).await.unwrap();
    let (again, existed) = house.countdowns.create("launch", with_id("a")).await.unwrap();
    assert!(existed && again.record.id == first.record.id);
    assert!(matches!(again.record.phase, Phase::Paused { .. }), "{again:?}");
    for other in [with_id("b"), seconds(60)] {
        let refused = house.countdowns.create("launch", other).await;
        assert!(matches!(refused, Err(Error::Exists)), "{refused:?}");
    }
    house.countdowns.delete("launch", None).await.unwrap();
    let (anew, existed) = house.countdowns.create("launch", with_id("a")).await.unwrap();
    assert!(!existed && anew.record.id != first.record.id && anew.version > first.version);
}

#[tokio::test]
async fn each_change_is_there_after_a_restart_with_its_version() {
    let house = House::new().await;
    house.create("a", ending(seconds(60), "over")).await;
    house.create("b.c", seconds(60)).await;
    house.create("gone", seconds(60)).await;
    let paused = house.countdowns.pause("a", None).await.unwrap();
    let extended = house.countdowns.extend("b.c", None, 5 * SECOND).await.unwrap();
    house.countdowns.delete("gone", None).await.unwrap();
    let house = house.restart().await;
    let page = house.countdowns.list(10, None);
    let found = page.countdowns.iter().map(|one| (&*one.name, one.version, &one.record)).collect::<Vec<_>>();
    let expected = [("a", paused.version, &paused.record), ("b.c", extended.version, &extended.record)];
    assert_eq!(found, expected);
    assert!(matches!(house.countdowns.get("gone"), Err(Error::NotFound)));
    house.create("gone", seconds(1)).await;
}

#[tokio::test]
async fn they_are_listed_by_name_page_by_page() {
    let house = House::new().await;
    for name in ["c", "a", "b.b", "b"] {
        house.create(name, seconds(60)).await;
    }
    let names = |page: &Page| page.countdowns.iter().map(|one| one.name.to_string()).collect::<Vec<_>>();
    let page = house.countdowns.list(3, None);
    assert_eq!(
        (names(&page), page.next.as_deref()),
        (vec!["a".into(), "b".into(), "b.b".into()], Some("b.b"))
    );
    let page = house.countdowns.list(3, page.next.as_deref());
    assert_eq!((names(&page), page.next), (vec!["c".to_owned()], None));
}

#[tokio::test]
async fn what_is_over_is_forgotten_when_the_log_forgets_it_and_its_name_is_free() {
    let log_clock = messages::clock::Clock::manual();
    let options = messages::Config { clock: log_clock.clone(), ..messages::Config::default() };
    let house = House::over(tempfile::tempdir().unwrap(), options, Clock::stopped()).await;
    house.create("ended", seconds(1)).await;
    house.create("cancelled", seconds(1)).await;
    house.countdowns.cancel("cancelled", None).await.unwrap();
    house.clock.step(SECOND);
    house.has_ended("ended").await;
    let keep = Config::default().keep_ended;
    house.clock.step(schedule::nanos_of(keep) - 10 * SECOND);
    log_clock.advance(keep + Duration::from_secs(1));
    // The log has forgotten them already, and nobody is told otherwise when asking for a change.
    assert_eq!(house.countdowns.list(10, None).countdowns.len(), 2);
    assert!(matches!(house.countdowns.delete("ended", None).await, Err(Error::NotFound)));
    house.clock.step(20 * SECOND);
    let mut names = house.countdowns.0.changes("cancelled").unwrap();
    // Nothing tells of it any more.
    assert!(limited(names.changed()).await.is_err());
    for name in ["ended", "cancelled"] {
        house.create(name, seconds(1)).await;
    }
}

#[tokio::test]
async fn a_name_that_is_forgotten_is_free_at_once_though_the_log_forgets_later() {
    let house = House::new().await;
    let first = house.create("cancelled", seconds(60)).await;
    house.countdowns.cancel("cancelled", None).await.unwrap();
    let mut changes = house.countdowns.0.changes("cancelled").unwrap();
    changes.mark_unchanged();
    // The log has a clock of its own.
    house.clock.step(2 * schedule::nanos_of(Config::default().keep_ended));
    assert!(limited(changes.changed()).await.is_err());
    let second = house.create("cancelled", seconds(60)).await;
    assert!(second.version > first.version);
    assert!(!house.countdowns.get("cancelled").unwrap().record.is_over());
}

#[tokio::test]
async fn one_more_than_the_limit_is_refused_however_many_come_at_once() {
    let house = House::new().await;
    let config = Config { max_countdowns: 5, ..Config::default() };
    let (countdowns, _work) = open(&house.log, &house.clock, config).await;
    let create = |n: usize| {
        let countdowns = countdowns.clone();
        async move { countdowns.create(&format!("n{n}"), seconds(60)).await }
    };
    let results = limited(futures::future::join_all((0..20).map(create))).await;
    let refused = results.iter().filter(|result| matches!(result, Err(Error::TooMany { limit: 5 }))).count();
    assert_eq!(countdowns.list(100, None).countdowns.len(), 20 - refused);
    assert!(countdowns.list(100, None).countdowns.len() <= 5, "{refused} refused");
    while let Some(one) = countdowns.list(1, None).countdowns.pop() {
        countdowns.delete(&one.name, None).await.unwrap();
    }
    countdowns.create("more", seconds(60)).await.unwrap();
}

#[tokio::test]
async fn what_is_no_name_is_refused_wherever_it_is_given() {
    let house = House::new().await;
    for name in ["", "a b", "a..b", ".a", "*", "a.>", "$a", &"x".repeat(MAX_NAME_BYTES + 1)] {
        let results = [
            house.countdowns.create(name, seconds(1)).await.map(drop),
            house.countdowns.get(name).map(drop),
            house.countdowns.pause(name, None).await.map(drop),
            house.countdowns.delete(name, None).await,
            house.countdowns.watch(query(name)).map(drop),
        ];
        for result in results {
            assert!(matches!(result, Err(Error::Name(_))), "{name}: {result:?}");
        }
    }
    house.create(&"x".repeat(MAX_NAME_BYTES), seconds(1)).await;
}

#[tokio::test]
async fn a_message_for_the_end_that_could_not_be_published_is_refused_at_once() {
    let house = House::new().await;
    let good = OnEnd { topic: "ends".into(), ..OnEnd::default() };
    let named = |name: &str| vec![(name.to_owned(), String::new())];
    let many = (0..=MAX_HEADERS).map(|n| (n.to_string(), String::new())).collect();
    for wrong in [
        OnEnd { topic: String::new(), ..good.clone() },
        OnEnd { topic: "$countdown.launch".into(), ..good.clone() },
        OnEnd { topic: "a.*".into(), ..good.clone() },
        OnEnd { content: Content::Text("x".repeat(1024 * 1024 + 1)), ..good.clone() },
        OnEnd { headers: many, ..good.clone() },
    ] {
        let refused = house.countdowns.create("launch", Spec { on_end: Some(wrong), ..seconds(1) }).await;
        assert!(matches!(refused, Err(Error::OnEnd(_))), "{refused:?}");
    }
    let reserved = OnEnd { headers: named("countdown-lateness"), ..good };
    let refused = house.countdowns.create("launch", Spec { on_end: Some(reserved), ..seconds(1) }).await;
    assert!(
        matches!(&refused, Err(Error::HeaderReserved { name }) if name == "countdown-lateness"),
        "{refused:?}"
    );
    for id in [String::new(), "x".repeat(MAX_REQUEST_ID_BYTES + 1)] {
        let refused = house.countdowns.create("launch", Spec { request_id: Some(id), ..seconds(1) }).await;
        assert!(matches!(refused, Err(Error::RequestIdLength { .. })), "{refused:?}");
    }
    assert!(house.countdowns.list(1, None).countdowns.is_empty());
}
