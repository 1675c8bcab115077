//! Shared countdowns on a real log. The wall clock moves only when a test sets it, so no test waits for time to pass.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;

use futures::{FutureExt, StreamExt};
use tokio::task::JoinHandle;

use super::*;
use crate::{
    countdown::{Event, OnLag},
    messages::Start,
    stream::Batching,
    wire::{message, tick},
};

#[cfg(feature = "jetstream")]
mod cluster;
mod ends;
mod large_ends;
mod races;
mod watching;

const SECOND: Nanos = Nanos::from_secs(1);

/// Longer than any step of a test takes.
const LONG: Duration = Duration::from_secs(30);

async fn limited<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap()
}

/// The countdowns of a log in a directory, as a server has them.
struct Server {
    directory: tempfile::TempDir,
    log: Log,
    clock: Clock,
    countdowns: Countdowns,
    work: JoinHandle<()>,
}

impl Server {
    async fn new() -> Self {
        Self::over(tempfile::tempdir().unwrap(), messages::Config::default(), Clock::stopped()).await
    }

    async fn over(directory: tempfile::TempDir, options: messages::Config, clock: Clock) -> Self {
        let (log, _) = Log::open(directory.path(), options).unwrap();
        let (countdowns, work) = open(&log, &clock, Config::default()).await;
        Self { directory, log, clock, countdowns, work }
    }

    /// Stops it, as a shutdown does, or a kill while no write is under way.
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
        // What is in memory is not looked for in the log.
        Watching(Box::pin(self.countdowns.watch(query).now_or_never().unwrap().unwrap()))
    }

    /// Waits until a countdown is in a state.
    async fn reaches(&self, name: &str, is_it: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut changes = self.countdowns.0.changes(name).unwrap();
        limited(changes.wait_for(|snapshot| is_it(snapshot))).await.unwrap().clone()
    }

    async fn has_ended(&self, name: &str) -> Arc<Snapshot> {
        self.reaches(name, |snapshot| matches!(snapshot.record.phase, Phase::Ended { .. })).await
    }

    /// The text and the headers of each message that was published to a topic.
    async fn published(&self, topic: &str) -> Vec<(String, BTreeMap<String, String>)> {
        let query = messages::Query {
            within: None,
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
    let (countdowns, mut work) = limited(Countdowns::open(log.clone(), clock.clone(), config)).await.unwrap();
    (countdowns, tokio::spawn(work(false)))
}

fn spec(target: Target) -> Spec {
    let interval = Duration::from_secs(1);
    Spec { target, to: 0, step: 1, interval, on_end: None, request_id: None }
}

/// A countdown of this many seconds.
fn seconds(seconds: u64) -> Spec {
    spec(Target::For(Duration::from_secs(seconds)))
}

/// The same, with an end message for the topic `ends`.
fn ending(spec: Spec, text: &str) -> Spec {
    let content = Content::Text(text.into());
    Spec { on_end: Some(OnEnd { topic: "ends".into(), content, ..OnEnd::default() }), ..spec }
}

fn query(name: &str) -> Query {
    // No heartbeat: each batch has a tick or an event.
    let batching = Batching { heartbeat: Duration::MAX, ..Batching::default() };
    Query { name: name.into(), resume: None, on_lag: OnLag::Skip, batching }
}

/// The stream of a countdown.
struct Watching(std::pin::Pin<Box<dyn Stream<Item = Result<Batch<Position>, Error>> + Send>>);

impl Watching {
    /// The next batch; `None` at the end.
    async fn next(&mut self) -> Option<Batch<Position>> {
        limited(self.0.next()).await.map(Result::unwrap)
    }

    /// The next batch with ticks or a change; skips batches that report only steps of the clock.
    async fn next_report(&mut self) -> Batch<Position> {
        loop {
            let batch = self.next().await.unwrap();
            if batch.count > 0 || !changes(&batch).is_empty() {
                return batch;
            }
        }
    }

    /// The error that ends the stream, if any. No batch before the end has ticks or a change.
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
async fn creating_again_returns_the_countdown_for_the_same_request_id_and_is_refused_for_any_other() {
    let server = Server::new().await;
    let with_id = |id: &str| Spec { request_id: Some(id.into()), ..seconds(60) };
    let first = server.create("launch", with_id("a")).await;
    server.countdowns.pause("launch", None).await.unwrap();
    let (again, existed) = server.countdowns.create("launch", with_id("a")).await.unwrap();
    assert!(existed && again.record.id == first.record.id);
    assert!(matches!(again.record.phase, Phase::Paused { .. }), "{again:?}");
    for other in [with_id("b"), seconds(60)] {
        let refused = server.countdowns.create("launch", other).await;
        assert!(matches!(refused, Err(Error::Exists)), "{refused:?}");
    }
    server.countdowns.delete("launch", None).await.unwrap();
    let (second, existed) = server.countdowns.create("launch", with_id("a")).await.unwrap();
    assert!(!existed && second.record.id != first.record.id && second.version > first.version);
}

#[tokio::test]
async fn each_change_and_its_version_survive_a_restart() {
    let server = Server::new().await;
    server.create("a", ending(seconds(60), "over")).await;
    server.create("b.c", seconds(60)).await;
    server.create("gone", seconds(60)).await;
    let paused = server.countdowns.pause("a", None).await.unwrap();
    let extended = server.countdowns.extend("b.c", None, 5 * SECOND).await.unwrap();
    server.countdowns.delete("gone", None).await.unwrap();
    let server = server.restart().await;
    let page = server.countdowns.list(10, None).await.unwrap();
    let found = page.countdowns.iter().map(|one| (&*one.name, one.version, &one.record)).collect::<Vec<_>>();
    let expected = [("a", paused.version, &paused.record), ("b.c", extended.version, &extended.record)];
    assert_eq!(found, expected);
    assert!(matches!(server.countdowns.get("gone").await, Err(Error::NotFound)));
    server.create("gone", seconds(1)).await;
}

#[tokio::test]
async fn countdowns_are_listed_by_name_in_pages() {
    let server = Server::new().await;
    for name in ["c", "a", "b.b", "b"] {
        server.create(name, seconds(60)).await;
    }
    let names = |page: &Page| page.countdowns.iter().map(|one| one.name.to_string()).collect::<Vec<_>>();
    let page = server.countdowns.list(3, None).await.unwrap();
    assert_eq!(
        (names(&page), page.next.as_deref()),
        (vec!["a".into(), "b".into(), "b.b".into()], Some("b.b"))
    );
    let page = server.countdowns.list(3, page.next.as_deref()).await.unwrap();
    assert_eq!((names(&page), page.next), (vec!["c".to_owned()], None));
}

#[tokio::test]
async fn a_countdown_that_is_over_is_removed_when_its_message_expires_and_its_name_is_free() {
    let log_clock = messages::clock::Clock::manual();
    let options = messages::Config { clock: log_clock.clone(), ..messages::Config::default() };
    let server = Server::over(tempfile::tempdir().unwrap(), options, Clock::stopped()).await;
    server.create("ended", seconds(1)).await;
    server.create("cancelled", seconds(1)).await;
    server.countdowns.cancel("cancelled", None).await.unwrap();
    server.clock.step(SECOND);
    server.has_ended("ended").await;
    let keep = Config::default().keep_ended;
    server.clock.step(Nanos::from(keep) - 10 * SECOND);
    log_clock.advance(keep + Duration::from_secs(1));
    // The log has already removed their messages, so a change fails although they are still listed.
    assert_eq!(server.countdowns.list(10, None).await.unwrap().countdowns.len(), 2);
    assert!(matches!(server.countdowns.delete("ended", None).await, Err(Error::NotFound)));
    server.clock.step(20 * SECOND);
    let mut names = server.countdowns.0.changes("cancelled").unwrap();
    // The registry has removed it.
    assert!(limited(names.changed()).await.is_err());
    for name in ["ended", "cancelled"] {
        server.create(name, seconds(1)).await;
    }
}

#[tokio::test]
async fn the_name_of_a_removed_countdown_is_free_before_the_log_removes_its_message() {
    let server = Server::new().await;
    let first = server.create("cancelled", seconds(60)).await;
    server.countdowns.cancel("cancelled", None).await.unwrap();
    let mut changes = server.countdowns.0.changes("cancelled").unwrap();
    changes.mark_unchanged();
    // The log has its own clock, which does not move here.
    server.clock.step(2 * Nanos::from(Config::default().keep_ended));
    assert!(limited(changes.changed()).await.is_err());
    let second = server.create("cancelled", seconds(60)).await;
    assert!(second.version > first.version);
    assert!(!server.countdowns.get("cancelled").await.unwrap().record.is_over());
}

#[tokio::test]
async fn the_limit_of_countdowns_holds_for_concurrent_requests() {
    let server = Server::new().await;
    let config = Config { max_countdowns: 5, ..Config::default() };
    let (countdowns, _work) = open(&server.log, &server.clock, config).await;
    let create = |n: usize| {
        let countdowns = countdowns.clone();
        async move { countdowns.create(&format!("n{n}"), seconds(60)).await }
    };
    let results = limited(futures::future::join_all((0..20).map(create))).await;
    let refused = results.iter().filter(|result| matches!(result, Err(Error::TooMany { limit: 5 }))).count();
    assert_eq!(countdowns.list(100, None).await.unwrap().countdowns.len(), 20 - refused);
    assert!(countdowns.list(100, None).await.unwrap().countdowns.len() <= 5, "{refused} refused");
    while let Some(one) = countdowns.list(1, None).await.unwrap().countdowns.pop() {
        countdowns.delete(&one.name, None).await.unwrap();
    }
    countdowns.create("more", seconds(60)).await.unwrap();
}

#[tokio::test]
async fn an_invalid_name_is_refused_by_every_method() {
    let server = Server::new().await;
    for name in ["", "a b", "a..b", ".a", "*", "a.>", "$a", &"x".repeat(MAX_NAME_BYTES + 1)] {
        let results = [
            server.countdowns.create(name, seconds(1)).await.map(drop),
            server.countdowns.get(name).await.map(drop),
            server.countdowns.pause(name, None).await.map(drop),
            server.countdowns.delete(name, None).await,
            server.countdowns.watch(query(name)).await.map(drop),
        ];
        for result in results {
            assert!(matches!(result, Err(Error::Name(_))), "{name}: {result:?}");
        }
    }
    server.create(&"x".repeat(MAX_NAME_BYTES), seconds(1)).await;
}

#[tokio::test]
async fn an_end_message_that_cannot_be_published_is_refused_when_the_countdown_is_created() {
    let server = Server::new().await;
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
        let refused = server.countdowns.create("launch", Spec { on_end: Some(wrong), ..seconds(1) }).await;
        assert!(matches!(refused, Err(Error::OnEnd(_))), "{refused:?}");
    }
    let reserved = OnEnd { headers: named("countdown-lateness"), ..good };
    let refused = server.countdowns.create("launch", Spec { on_end: Some(reserved), ..seconds(1) }).await;
    assert!(
        matches!(&refused, Err(Error::HeaderReserved { name }) if name == "countdown-lateness"),
        "{refused:?}"
    );
    for id in [String::new(), "x".repeat(MAX_REQUEST_ID_BYTES + 1)] {
        let refused = server.countdowns.create("launch", Spec { request_id: Some(id), ..seconds(1) }).await;
        assert!(matches!(refused, Err(Error::RequestIdLength { .. })), "{refused:?}");
    }
    assert!(server.countdowns.list(1, None).await.unwrap().countdowns.is_empty());
}
