//! Concurrent changes: each is made as a whole or refused, and of those with one version only one is made.

use std::time::Duration;

use futures::future::join_all;
use perennial::proto::{Countdown, CountdownState};
use tonic::{Code, Status};

use crate::{
    calls::{
        Client, Verb, announced, assert_refused, change, change_if, create, fact, get, is, length, messages,
        moment, now, refusal, running_for, text,
    },
    harness::{Server, soon, until},
};

const HOUR: i64 = 3_600_000;

/// Several connections.
async fn clients(server: &Server) -> Vec<Client> {
    join_all((0..4).map(|_| server.countdown())).await
}

/// Makes changes at once, each in a task of its own.
async fn at_once(
    clients: &[Client],
    name: &str,
    verbs: impl Iterator<Item = Verb>,
    version: Option<i64>,
) -> Vec<(Verb, Result<Countdown, Status>)> {
    let call = |(n, verb): (usize, Verb)| {
        let (client, name) = (clients[n % clients.len()].clone(), name.to_owned());
        tokio::spawn(async move { (verb, change_if(&client, &name, verb, version).await) })
    };
    let calls = verbs.enumerate().map(call).collect::<Vec<_>>();
    let results = soon("the answers", join_all(calls)).await;
    results.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_changes_with_one_version_one_is_made_and_the_others_are_refused_with_the_current_version() {
    let server = Server::start();
    let clients = clients(&server).await;
    for round in 0..10_i64 {
        let name = format!("race.{round}");
        let mut now = create(&clients[0], running_for(&name, HOUR)).await.unwrap();
        let verbs = if round % 2 == 0 {
            [Verb::Pause, Verb::Extend(round + 1), Verb::Cancel]
        } else {
            now = change(&clients[1], &name, Verb::Pause).await.unwrap();
            [Verb::Resume, Verb::Extend(-round - 1), Verb::Cancel]
        };
        let results = at_once(&clients, &name, verbs.into_iter().cycle().take(24), now.version).await;
        let (made, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, result)| result.is_ok());
        assert_eq!(made.len(), 1, "{made:?}");
        let winner = made[0].1.as_ref().unwrap();
        let found = get(&clients[2], &name).await.unwrap();
        assert_eq!((found.version, found.state), (winner.version, winner.state));
        for (verb, result) in refused {
            let status = result.unwrap_err();
            assert_refused(&status, Code::Aborted, "VERSION_MISMATCH");
            let current = fact(&status, "current").map(|current| current.parse().unwrap());
            assert_eq!(current, winner.version, "{verb:?}: {status:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_changes_without_a_version_all_are_made() {
    const COUNT: i64 = 40;
    let server = Server::start();
    let clients = clients(&server).await;
    create(&clients[0], running_for("sum", HOUR)).await.unwrap();
    let verbs = (1..=COUNT).map(|n| match n % 4 {
        0 => Verb::Pause,
        1 => Verb::Resume,
        _ => Verb::Extend(n * 1_000),
    });
    let by = |verb: Verb| if let Verb::Extend(millis) = verb { millis } else { 0 };
    let sum = verbs.clone().map(by).sum::<i64>();
    let results = at_once(&clients, "sum", verbs, None).await;
    let mut versions = Vec::new();
    for (verb, result) in results {
        let countdown = result.unwrap_or_else(|status| panic!("{verb:?}: {status:?}"));
        if matches!(verb, Verb::Extend(_)) {
            versions.push(countdown.version.unwrap());
        }
    }
    versions.sort_unstable();
    assert!(versions.is_sorted_by(|a, b| a < b), "two changes with one version: {versions:?}");
    let found = change(&clients[0], "sum", Verb::Pause).await.unwrap();
    assert_eq!(length(found.total_duration), i128::from(HOUR + sum) * 1_000_000);
    let spent = length(found.total_duration) - length(found.remaining_duration);
    assert!((0..60_000_000_000).contains(&spent), "{spent} ns have passed while it ran");
}

/// Changes one about the moment of its end: whether one of them came in time.
async fn race_the_end(client: Client, countdown: Countdown, verbs: Vec<(Verb, u64)>) -> bool {
    let (name, end) = (countdown.name, moment(countdown.end_time));
    let calls = verbs.into_iter().map(|(verb, micros)| {
        let (client, name) = (client.clone(), name.clone());
        async move {
            // From 5 ms before it.
            let left = u64::try_from((end - now()) / 1_000).unwrap_or(0);
            tokio::time::sleep(Duration::from_micros((left + micros).saturating_sub(5_000))).await;
            match change(&client, &name, verb).await {
                Ok(countdown) => {
                    assert!(
                        countdown.end_time.is_none_or(|moved| moment(Some(moved)) > end),
                        "{countdown:?}"
                    );
                    true
                }
                Err(status) => {
                    assert_eq!(refusal(&status).1, "COUNTDOWN_OVER", "{status:?}");
                    assert_eq!(status.code(), Code::FailedPrecondition);
                    false
                }
            }
        }
    });
    join_all(calls).await.contains(&true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_races_the_end_is_made_or_refused_and_its_answer_holds() {
    const ROUNDS: usize = 5;
    const COUNT: usize = 30;
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = Server::start();
    let clients = clients(&server).await;
    let (mut raced, mut in_time) = (0, 0);
    for round in 0..ROUNDS {
        let mut races = Vec::new();
        for n in 0..COUNT {
            let (name, client) = (format!("end.{round}.{n}"), clients[n % clients.len()].clone());
            let countdown = create(&client, announced(&name, 200, "over")).await.unwrap();
            let verbs = [Verb::Extend(HOUR), Verb::Extend(2 * HOUR), Verb::Cancel];
            let verbs =
                (0..=random.usize(..2)).map(|_| (verbs[random.usize(..3)], random.u64(..10_000))).collect();
            races.push((name, tokio::spawn(race_the_end(client, countdown, verbs))));
        }
        for (name, race) in races {
            let is_in_time = soon("a race", race).await.unwrap();
            let state = || async { get(&clients[0], &name).await.unwrap() };
            if is_in_time {
                assert!(!is(&state().await, CountdownState::Ended), "{name} was changed, and ended");
            } else {
                until("the end", async || is(&state().await, CountdownState::Ended)).await;
            }
            let published = messages(&server, "over").await.iter().filter(|it| text(it) == name).count();
            assert_eq!(published, usize::from(!is_in_time), "{name}");
            raced += 1;
            in_time += usize::from(is_in_time);
        }
    }
    assert_eq!(raced, ROUNDS * COUNT);
    println!("{in_time} of {raced} came in time");
}
