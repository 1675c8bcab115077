//! Shared countdowns in a stream of NATS JetStream, at several servers, on the real clock: the cluster has no other.

use super::*;
use crate::messages::tests::cluster::Nats;

/// The countdowns of one server of several.
struct Member {
    log: Log,
    countdowns: Countdowns,
    work: JoinHandle<()>,
}

impl Member {
    async fn of(nats: &Nats) -> Self {
        let log = nats.log(messages::Config::default()).await;
        let (countdowns, work) = open(&log, &Clock::precise().unwrap(), Config::default()).await;
        Self { log, countdowns, work }
    }

    /// The texts of the topic `ends`.
    async fn ends(&self) -> Vec<String> {
        let query = messages::Query {
            within: None,
            topics: vec!["ends".into()],
            start: Start::Earliest,
            stop: messages::Stop { caught_up: true, ..messages::Stop::default() },
            on_gap: messages::OnGap::Fail,
            consumer: None,
            batching: Batching::default(),
        };
        let batches = self.log.subscribe(query).await.unwrap().collect::<Vec<_>>().await;
        let mut found = Vec::new();
        for item in batches.into_iter().flat_map(|batch| batch.unwrap().items) {
            let mut rest = &item[..];
            while let Some(message) = message::read_next(&mut rest) {
                found.push(String::from_utf8(message.content.to_vec()).unwrap());
            }
        }
        found
    }

    async fn has_ended(&self, name: &str) {
        let mut changes = self.countdowns.0.changes(name).unwrap();
        let ended = changes.wait_for(|snapshot| matches!(snapshot.record.phase, Phase::Ended { .. }));
        limited(ended).await.unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.work.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server"]
async fn every_server_shows_and_changes_the_same_countdown_and_a_cursor_resumes_at_another_one() {
    let nats = Nats::start().await;
    let (first, second) = (Member::of(&nats).await, Member::of(&nats).await);
    let (created, _) = first.countdowns.create("launch", seconds(600)).await.unwrap();
    let shown = second.countdowns.get("launch").await.unwrap();
    assert_eq!((shown.version, shown.record.id), (created.version, created.record.id));
    let refused = second.countdowns.create("launch", seconds(1)).await;
    assert!(matches!(refused, Err(Error::Exists)), "{refused:?}");
    let mut watching = Watching(Box::pin(first.countdowns.watch(query("launch")).await.unwrap()));
    let before = watching.next().await.unwrap().position;
    let paused = second.countdowns.pause("launch", Some(created.version)).await.unwrap();
    let change = loop {
        let batch = watching.next_report().await;
        if !changes(&batch).is_empty() {
            break batch;
        }
    };
    assert_eq!(changes(&change), [Change::Paused]);
    let resumed = Query { resume: Some(before), ..query("launch") };
    let mut elsewhere = Watching(Box::pin(second.countdowns.watch(resumed).await.unwrap()));
    assert_eq!(changes(&elsewhere.next_report().await), [Change::Paused]);
    let resumed = first.countdowns.resume("launch", Some(paused.version)).await.unwrap();
    second.countdowns.cancel("launch", Some(resumed.version)).await.unwrap();
    first.countdowns.delete("launch", None).await.unwrap();
    let third = Member::of(&nats).await;
    assert!(matches!(third.countdowns.get("launch").await, Err(Error::NotFound)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server"]
async fn each_end_is_published_once_by_several_servers_also_when_the_leader_is_killed() {
    const COUNT: usize = 20;
    let mut nats = Nats::start().await;
    let (first, second) = (Member::of(&nats).await, Member::of(&nats).await);
    let names = (0..COUNT).map(|n| format!("c{n:02}")).collect::<Vec<_>>();
    for name in &names {
        first.countdowns.create(name, ending(seconds(2), name)).await.unwrap();
    }
    let leader = nats.leader("test").await;
    nats.kill(leader);
    for name in &names {
        second.has_ended(name).await;
        first.has_ended(name).await;
    }
    let third = Member::of(&nats).await;
    let mut ends = third.ends().await;
    ends.sort();
    assert_eq!(ends, names);
}
