//! An acknowledged change outlives `kill -9`; one without an answer is made as a whole, or not at all.

use std::time::Duration;

use perennial::proto::{Countdown, CountdownState, ListTopicsRequest, PublishRequest, publish_request};
use tokio::{sync::watch, task::JoinHandle};
use tonic::{Code, Status};

use crate::{
    calls::{
        Client, Verb, change, create, delete, get, is, is_lost, length, list, moment, refusal, running_for,
    },
    harness::{Server, until, within},
};

/// The number of countdowns, each with a task that changes it.
const COUNT: u64 = 8;

/// In milliseconds: longer than the test.
const HOUR: i64 = 3_600_000;

const LIMIT: Duration = Duration::from_secs(120);

/// What a task does.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Create,
    Change(Verb),
    Delete,
}

/// What is known of a countdown: its state in the last answer, and the call without an answer.
#[derive(Debug)]
struct Known {
    name: String,
    countdown: Option<Countdown>,
    open: Option<Deed>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_change_outlives_kill_9_and_no_change_is_made_by_half() {
    const ROUNDS: u64 = 6;
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = Server::start_apart();
    let new = |n| Known { name: format!("kept.{n}"), countdown: None, open: None };
    let mut all = (0..COUNT).map(new).collect::<Vec<_>>();
    for round in 0..ROUNDS {
        let client = server.countdown().await;
        let answers = watch::Sender::new(0);
        let work = |known: Known| {
            let random = fastrand::Rng::with_seed(random.u64(..));
            tokio::spawn(change_on(client.clone(), known, random, answers.clone()))
        };
        let workers: Vec<JoinHandle<Known>> = all.drain(..).map(work).collect();
        let enough = 20 + random.u64(..200);
        let mut progress = answers.subscribe();
        within(LIMIT, "answers", progress.wait_for(|now| *now >= enough)).await.unwrap();
        server.kill();
        for worker in workers {
            all.push(within(LIMIT, "a worker", worker).await.unwrap());
        }
        server.restart();
        let client = server.countdown().await;
        for known in &mut all {
            known.compare(get(&client, &known.name).await, round);
        }
    }
}

#[tokio::test]
async fn retention_does_not_remove_the_state_of_a_countdown() {
    let settings =
        ["--segment", "1MiB", "--retain", ">=count:1", "--retention-interval", "100ms", "--keep-ended", "1h"];
    let mut server = Server::start_with(&settings);
    let client = server.countdown().await;
    for name in ["runs", "is-paused", "is-over"] {
        create(&client, running_for(name, HOUR)).await.unwrap();
    }
    change(&client, "is-paused", Verb::Pause).await.unwrap();
    change(&client, "is-over", Verb::Cancel).await.unwrap();
    let before = list(&client).await;
    let mut publisher = server.messages().await;
    let content = Some(publish_request::Content::Text("x".repeat(512 * 1024)));
    for _ in 0..20 {
        let request =
            PublishRequest { topic: "fills".into(), content: content.clone(), ..Default::default() };
        publisher.publish(request).await.unwrap();
    }
    until("retention", async || {
        let topics = publisher.clone().list_topics(ListTopicsRequest::default()).await.unwrap().into_inner();
        topics.topics.iter().all(|topic| topic.message_count == Some(1))
    })
    .await;
    let segments = async || {
        let files = std::fs::read_dir(server.directory().join("data/messages")).unwrap();
        files.filter(|file| file.as_ref().unwrap().metadata().unwrap().len() > 256 * 1024).count()
    };
    until("segments are removed", async || segments().await < 6).await;
    server.kill();
    server.restart();
    let after = list(&server.countdown().await).await;
    assert_eq!(before.len(), after.len());
    for (name, countdown) in before {
        assert_eq!(still(countdown), still(after[&name].clone()));
    }
}

/// Does one thing after the other, until an answer is lost.
async fn change_on(
    client: Client,
    mut known: Known,
    mut random: fastrand::Rng,
    answers: watch::Sender<u64>,
) -> Known {
    loop {
        let deed = known.next(&mut random);
        let answer = match deed {
            Deed::Create => create(&client, running_for(&known.name, HOUR)).await.map(Some),
            Deed::Change(verb) => change(&client, &known.name, verb).await.map(Some),
            Deed::Delete => delete(&client, &known.name).await.map(|()| None),
        };
        match answer {
            Ok(countdown) => known.countdown = countdown,
            Err(status) => {
                assert!(is_lost(&status), "{deed:?} {known:?}: {status:?}");
                known.open = Some(deed);
                return known;
            }
        }
        answers.send_modify(|answers| *answers += 1);
    }
}

impl Known {
    /// A deed that changes the countdown in its present state.
    fn next(&self, random: &mut fastrand::Rng) -> Deed {
        let Some(countdown) = &self.countdown else { return Deed::Create };
        match countdown.state() {
            CountdownState::Running | CountdownState::Paused if random.u64(..4) != 0 => {
                let by = 1 + i64::try_from(random.u64(..100)).unwrap();
                let turn = if is(countdown, CountdownState::Running) { Verb::Pause } else { Verb::Resume };
                Deed::Change(if random.u64(..2) == 0 { turn } else { Verb::Extend(by) })
            }
            CountdownState::Running | CountdownState::Paused if random.u64(..2) == 0 => {
                Deed::Change(Verb::Cancel)
            }
            _ => Deed::Delete,
        }
    }

    /// Checks that the countdown is as the last answer said, or as the deed without an answer makes it.
    fn compare(&mut self, found: Result<Countdown, Status>, round: u64) {
        let found = match found {
            Ok(countdown) => Some(countdown),
            Err(status) => {
                assert_eq!(refusal(&status).1, "COUNTDOWN_NOT_FOUND", "{status:?}");
                assert_eq!(status.code(), Code::NotFound);
                None
            }
        };
        let is_as_answered = found.clone().map(still) == self.countdown.clone().map(still);
        let is_done = || self.open.is_some_and(|deed| is_done(deed, self.countdown.as_ref(), found.as_ref()));
        assert!(is_as_answered || is_done(), "round {round}: {self:#?} became {found:#?}");
        (self.countdown, self.open) = (found, None);
    }
}

/// A countdown without the fields that change as time passes.
fn still(countdown: Countdown) -> Countdown {
    let passes = is(&countdown, CountdownState::Running);
    Countdown { remaining_duration: countdown.remaining_duration.filter(|_| !passes), ..countdown }
}

/// Whether a deed makes the one of the other, as a whole.
fn is_done(deed: Deed, before: Option<&Countdown>, after: Option<&Countdown>) -> bool {
    let (before, after) = match (deed, before, after) {
        (Deed::Delete, Some(_), None) => return true,
        (Deed::Create, None, Some(after)) => {
            let whole = moment(after.end_time) - moment(after.create_time);
            return is(after, CountdownState::Running)
                && whole == length(after.total_duration)
                && whole == i128::from(HOUR) * 1_000_000;
        }
        (Deed::Change(_), Some(before), Some(after)) => (before, after),
        _ => return false,
    };
    let by = length(after.total_duration) - length(before.total_duration);
    let is_newer = after.version > before.version
        && moment(after.update_time) >= moment(before.update_time)
        && after.create_time == before.create_time;
    let left_when = |at: &Countdown| moment(before.end_time) - moment(at.update_time);
    is_newer
        && match deed {
            Deed::Change(Verb::Extend(millis)) => {
                let is_moved = match before.end_time {
                    Some(_) => moment(after.end_time) - moment(before.end_time) == by,
                    None => length(after.remaining_duration) - length(before.remaining_duration) == by,
                };
                by == i128::from(millis) * 1_000_000 && after.state == before.state && is_moved
            }
            Deed::Change(Verb::Pause) => {
                is(after, CountdownState::Paused)
                    && by == 0
                    && length(after.remaining_duration) == left_when(after)
            }
            Deed::Change(Verb::Resume) => {
                let left = moment(after.end_time) - moment(after.update_time);
                is(after, CountdownState::Running) && by == 0 && left == length(before.remaining_duration)
            }
            Deed::Change(Verb::Cancel) => {
                let left = if before.end_time.is_some() {
                    left_when(after)
                } else {
                    length(before.remaining_duration)
                };
                is(after, CountdownState::Cancelled) && by == 0 && length(after.remaining_duration) == left
            }
            Deed::Create | Deed::Delete => false,
        }
}
