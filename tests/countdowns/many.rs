//! A thousand watchers, and a thousand countdowns.

use std::time::{Duration, SystemTime};

use futures::{StreamExt, future::join_all, stream};
use perennial::proto::create_countdown_request::Target;
use perennial::proto::{CountdownChange as Done, CountdownState, CreateCountdownRequest, OnLag};

use crate::{
    calls::{Verb, announced, change, create, is, length, list, messages, moment, running_for, span, text},
    harness::{Server, soon, until},
    watcher::Watcher,
};

const THOUSAND: usize = 1_000;

const CONNECTIONS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_of_one_countdown_see_the_same() {
    let server = Server::start();
    let clients = join_all((0..CONNECTIONS).map(|_| server.countdown())).await;
    let request = CreateCountdownRequest { interval: Some(span(200)), ..running_for("show", 2_000) };
    create(&clients[0], request).await.unwrap();
    let paused = change(&clients[0], "show", Verb::Pause).await.unwrap();
    let watch = |n: usize| Watcher::start(&clients[n % CONNECTIONS], Watcher::request("show", OnLag::Burst));
    let watchers = stream::iter(0..THOUSAND).map(watch).buffer_unordered(64).collect::<Vec<_>>().await;
    let end = |mut watcher: Watcher| async move {
        watcher.end().await.unwrap();
        watcher.seen
    };
    let watching = tokio::spawn(join_all(watchers.into_iter().map(end)));
    change(&clients[1], "show", Verb::Resume).await.unwrap();
    let all = soon("the end", watching).await.unwrap();
    let first = &all[0];
    first.check();
    assert_eq!(first.done(), [Done::Resumed, Done::Ended]);
    let left = length(paused.remaining_duration).unsigned_abs().div_ceil(200_000_000);
    assert_eq!(first.ticks.len() as u128, left, "{:?}", first.ticks);
    for seen in &all {
        assert_eq!((&seen.ticks, &seen.changes, seen.skipped), (&first.ticks, &first.changes, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_countdowns_that_end_at_one_moment_are_published_once_each() {
    // On a busy machine it takes longer to make them all before the moment comes.
    let mut made = None;
    for seconds in [8, 40, 200] {
        made = make_a_thousand(SystemTime::now() + Duration::from_secs(seconds)).await;
        if made.is_some() {
            break;
        }
    }
    let (server, until_then) = made.expect("all are made before they end");
    let client = server.countdown().await;
    let left = until_then.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left).await;
    until("all ends", async || list(&client).await.values().all(|it| is(it, CountdownState::Ended))).await;
    let ended = list(&client).await;
    let published = messages(&server, "over").await;
    let mut names = published.iter().map(text).collect::<Vec<_>>();
    names.sort_unstable();
    names.dedup();
    assert_eq!((published.len(), names.len(), ended.len()), (THOUSAND, THOUSAND, THOUSAND));
    for message in &published {
        let countdown = &ended[text(message)];
        assert_eq!(message.sequence.unwrap(), countdown.version.unwrap() + 1);
        assert_eq!(moment(countdown.end_time), moment(Some(until_then.into())));
    }
}

/// Makes countdowns that end at one moment, on a server of their own. `None` if it came before all were made.
async fn make_a_thousand(until_then: SystemTime) -> Option<(Server, SystemTime)> {
    let server = Server::start();
    let client = server.countdown().await;
    let make = |n: usize| {
        let name = format!("at-once.{n}");
        let target = Some(Target::UntilTime(until_then.into()));
        create(&client, CreateCountdownRequest { target, ..announced(&name, 1, "over") })
    };
    let made = stream::iter(0..THOUSAND).map(make).buffer_unordered(64).collect::<Vec<_>>().await;
    let are_made = made.iter().all(Result::is_ok) && messages(&server, "over").await.is_empty();
    (are_made && SystemTime::now() < until_then).then_some((server, until_then))
}
