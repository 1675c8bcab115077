//! A thousand of each.

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
    let server = Server::start();
    let client = server.countdown().await;
    let until_then = std::time::SystemTime::now() + std::time::Duration::from_secs(8);
    let make = |n: usize| {
        let name = format!("at-once.{n}");
        let target = Some(Target::UntilTime(until_then.into()));
        create(&client, CreateCountdownRequest { target, ..announced(&name, 1, "over") })
    };
    let made = stream::iter(0..THOUSAND).map(make).buffer_unordered(64).collect::<Vec<_>>().await;
    assert!(made.iter().all(Result::is_ok), "they end before all are there");
    assert!(messages(&server, "over").await.is_empty());
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
