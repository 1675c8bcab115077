//! Watchers get every number and every change, in order, also when they were away.

use perennial::proto::{CountdownChange as Done, CountdownState, CreateCountdownRequest, OnLag};
use tonic::{Code, transport::Endpoint};

use crate::{
    account::History,
    calls::{
        Client, Verb, assert_refused, change, create, delete, get, is, is_lost, moment, now, running_for,
        span,
    },
    harness::{Server, until},
    watcher::{Seen, Watcher},
};

const NAME: &str = "show";

/// Ticks every 20 ms, for longer than any test takes before it brings the end near.
fn show() -> CreateCountdownRequest {
    CreateCountdownRequest { interval: Some(span(20)), ..running_for(NAME, 600_000) }
}

/// Makes a change, and waits until a watcher has received it.
async fn act(client: &Client, history: &mut History, verb: Verb, watcher: &mut Watcher) {
    history.push(change(client, NAME, verb).await.unwrap());
    watcher.change(history.last()).await;
}

/// Brings the end near, but not so near that it comes before a watcher has read of it on a busy machine.
async fn shorten(client: &Client, history: &mut History, watcher: &mut Watcher) {
    const LEFT: i128 = 4_000;
    let left = (moment(history.last().end_time) - now()) / 1_000_000;
    act(client, history, Verb::Extend(i64::try_from(LEFT - left).unwrap()), watcher).await;
}

/// Waits until it has ended.
async fn ended(client: &Client, history: &mut History) {
    until("the end", async || is(&get(client, NAME).await.unwrap(), CountdownState::Ended)).await;
    history.push(get(client, NAME).await.unwrap());
}

#[tokio::test]
async fn every_number_is_delivered_or_counted_across_changes_and_kill_9() {
    story(OnLag::Skip).await;
}

#[tokio::test]
async fn with_on_lag_burst_every_number_is_delivered_however_late() {
    story(OnLag::Burst).await;
}

async fn story(on_lag: OnLag) {
    let mut server = Server::start_apart();
    let (mut client, mut history) = (server.countdown().await, History::default());
    let request = Watcher::request(NAME, on_lag);
    history.push(create(&client, show()).await.unwrap());
    history.push(change(&client, NAME, Verb::Pause).await.unwrap());
    let mut stays = Watcher::start(&client, request.clone()).await;
    let mut leaves = Watcher::start(&server.countdown().await, request.clone()).await;
    act(&client, &mut history, Verb::Resume, &mut stays).await;
    stays.ticks(5).await;
    leaves.ticks(3).await;
    leaves.leave();
    act(&client, &mut history, Verb::Extend(5_000), &mut stays).await;
    act(&client, &mut history, Verb::Pause, &mut stays).await;
    let mut late = Watcher::start(&client, request).await;
    act(&client, &mut history, Verb::Resume, &mut stays).await;
    late.ticks(3).await;
    // Over another connection, after three changes.
    leaves.go_on(&server.countdown().await).await;
    leaves.ticks(2).await;
    leaves.leave();

    server.kill();
    assert!(is_lost(&stays.end().await.unwrap_err()));
    assert!(is_lost(&late.end().await.unwrap_err()));
    server.restart();
    client = server.countdown().await;
    stays.go_on(&client).await;
    stays.ticks(2).await;
    act(&client, &mut history, Verb::Extend(1_000), &mut stays).await;
    late.go_on(&client).await;
    late.change(history.last()).await;
    shorten(&client, &mut history, &mut stays).await;
    late.change(history.last()).await;
    stays.end().await.unwrap();
    late.end().await.unwrap();
    ended(&client, &mut history).await;
    leaves.go_on(&client).await;
    leaves.end().await.unwrap();

    compare(&history, on_lag, [&stays, &late, &leaves].map(|watcher| &watcher.seen));
    comes_again(&client, &mut stays).await;
}

/// Compares what the watchers of the story received.
fn compare(history: &History, on_lag: OnLag, [stays, late, leaves]: [&Seen; 3]) {
    for seen in [stays, late, leaves] {
        history.check(seen);
        assert_eq!(seen.ticks.last().unwrap().remaining, Some(0));
        assert_eq!(seen.done().last(), Some(&Done::Ended));
        assert_eq!(seen.countdowns.last(), Some(history.last()));
    }
    if on_lag == OnLag::Burst {
        assert_eq!(stays.skipped, 0, "it never missed a change");
    }
    let all = [
        Done::Resumed,
        Done::Extended,
        Done::Paused,
        Done::Resumed,
        Done::Extended,
        Done::Extended,
        Done::Ended,
    ];
    assert_eq!(stays.done(), all);
    assert!(stays.changes.is_sorted_by(|before, after| before.2 == after.1), "{:?}", stays.changes);
    assert_eq!(late.done(), [Done::Resumed, Done::Extended, Done::Extended, Done::Ended]);
    assert_eq!(
        leaves.done(),
        [Done::Resumed, Done::Resumed, Done::Ended],
        "of several changes, the last one"
    );
}

/// A watcher that resumes at the end gets the end.
async fn comes_again(client: &Client, watcher: &mut Watcher) {
    let before = watcher.seen.clone();
    watcher.go_on(client).await;
    watcher.end().await.unwrap();
    assert_eq!((&watcher.seen.ticks, &watcher.seen.changes), (&before.ticks, &before.changes));
    assert_eq!(
        (watcher.seen.skipped, watcher.seen.countdowns.last()),
        (before.skipped, before.countdowns.last())
    );
}

#[tokio::test]
async fn a_cancelled_countdown_ends_open_and_resumed_streams_with_ok() {
    let server = Server::start();
    let (client, mut history) = (server.countdown().await, History::default());
    history.push(create(&client, show()).await.unwrap());
    history.push(change(&client, NAME, Verb::Pause).await.unwrap());
    let mut watchers = Vec::new();
    for on_lag in [OnLag::Skip, OnLag::Burst] {
        watchers.push(Watcher::start(&client, Watcher::request(NAME, on_lag)).await);
    }
    history.push(change(&client, NAME, Verb::Resume).await.unwrap());
    for watcher in &mut watchers {
        watcher.ticks(3).await;
    }
    history.push(change(&client, NAME, Verb::Cancel).await.unwrap());
    for watcher in &mut watchers {
        watcher.end().await.unwrap();
        assert_eq!(watcher.seen.done(), [Done::Resumed, Done::Cancelled]);
        history.check(&watcher.seen);
        comes_again(&client, watcher).await;
    }
    let mut late = Watcher::start(&client, Watcher::request(NAME, OnLag::Burst)).await;
    late.end().await.unwrap();
    assert_eq!((late.seen.ticks.len(), late.seen.skipped, late.seen.done().len()), (0, 0, 0));
    assert!(is(&late.seen.countdowns[0], CountdownState::Cancelled));
}

#[tokio::test]
async fn a_watcher_that_starts_after_the_end_gets_the_last_number() {
    let server = Server::start();
    let client = server.countdown().await;
    create(&client, CreateCountdownRequest { to: Some(7), ..running_for(NAME, 1) }).await.unwrap();
    ended(&client, &mut History::default()).await;
    let mut late = Watcher::start(&client, Watcher::request(NAME, OnLag::Skip)).await;
    late.end().await.unwrap();
    assert_eq!((late.seen.ticks.len(), late.seen.ticks[0].remaining), (1, Some(7)));
    assert_eq!(late.seen.skipped, 0);
}

#[tokio::test]
async fn a_limit_ends_a_call_and_the_next_calls_deliver_the_rest() {
    let server = Server::start();
    let (client, mut history) = (server.countdown().await, History::default());
    history.push(create(&client, show()).await.unwrap());
    history.push(change(&client, NAME, Verb::Pause).await.unwrap());
    let mut watchers = Vec::new();
    for _ in 0..2 {
        let mut watcher = Watcher::start(&client, Watcher::request(NAME, OnLag::Burst)).await;
        watcher.leave();
        (watcher.request.limit, watcher.request.max_batch) = (Some(7), Some(2));
        watchers.push(watcher);
    }
    let mut other = Watcher::start(&client, Watcher::request(NAME, OnLag::Skip)).await;
    act(&client, &mut history, Verb::Resume, &mut other).await;
    shorten(&client, &mut history, &mut other).await;
    for (n, watcher) in watchers.iter_mut().enumerate() {
        // The second one was away until it had ended.
        if n == 1 {
            ended(&client, &mut history).await;
        }
        let mut calls = 0;
        while watcher.seen.done().last() != Some(&Done::Ended) {
            let before = watcher.seen.ticks.len();
            watcher.go_on(&client).await;
            watcher.end().await.unwrap();
            assert!(watcher.seen.ticks.len() - before <= 7);
            calls += 1;
            assert!(calls < 100, "it does not come to the end");
        }
        assert!(calls > 4, "{calls} calls");
    }
    for watcher in &watchers {
        history.check(&watcher.seen);
    }
}

#[tokio::test]
async fn deleting_a_countdown_ends_its_streams_and_a_new_one_refuses_its_cursors() {
    let server = Server::start();
    let client = server.countdown().await;
    create(&client, show()).await.unwrap();
    let mut watcher = Watcher::start(&client, Watcher::request(NAME, OnLag::Skip)).await;
    watcher.ticks(1).await;
    delete(&client, NAME).await.unwrap();
    let gone = |status| assert_refused(&status, Code::NotFound, "COUNTDOWN_NOT_FOUND");
    gone(watcher.end().await.unwrap_err());
    let call = async || client.clone().countdown(watcher.request.clone()).await;
    gone(call().await.unwrap_err());
    create(&client, show()).await.unwrap();
    assert_refused(&call().await.unwrap_err(), Code::FailedPrecondition, "CURSOR_MISMATCH");
    let mut new = Watcher::start(&client, Watcher::request(NAME, OnLag::Skip)).await;
    new.ticks(1).await;
}

#[tokio::test]
async fn watchers_of_a_draining_server_continue_on_the_next_one() {
    let mut server = Server::start_apart();
    let (mut client, mut history) = (server.countdown().await, History::default());
    history.push(create(&client, show()).await.unwrap());
    history.push(change(&client, NAME, Verb::Pause).await.unwrap());
    let mut watcher = Watcher::start(&client, Watcher::request(NAME, OnLag::Burst)).await;
    act(&client, &mut history, Verb::Resume, &mut watcher).await;
    watcher.ticks(3).await;
    server.terminate();
    assert_refused(&watcher.end().await.unwrap_err(), Code::Unavailable, "DRAINING");
    assert!(server.wait().success());
    server.restart();
    client = server.countdown().await;
    watcher.go_on(&client).await;
    watcher.ticks(3).await;
    shorten(&client, &mut history, &mut watcher).await;
    watcher.end().await.unwrap();
    ended(&client, &mut history).await;
    history.check(&watcher.seen);
    assert_eq!(watcher.seen.skipped, 0);
}

/// A connection with a small window, so that little is in flight to a reader that takes nothing.
async fn narrow(server: &Server) -> Client {
    const WINDOW: u32 = 16 * 1024;
    let endpoint = Endpoint::from_shared(server.url()).unwrap();
    Client::new(endpoint.initial_stream_window_size(WINDOW).connect().await.unwrap())
}

#[tokio::test]
async fn a_reader_that_took_nothing_until_the_end_gets_or_counts_every_number() {
    for on_lag in [OnLag::Skip, OnLag::Burst] {
        let server = Server::start();
        let (client, mut history) = (server.countdown().await, History::default());
        let fast = CreateCountdownRequest { interval: Some(span(1)), ..show() };
        history.push(create(&client, fast).await.unwrap());
        history.push(change(&client, NAME, Verb::Pause).await.unwrap());
        let mut slow = Watcher::start(&server.countdown().await, Watcher::request(NAME, on_lag)).await;
        slow.request.max_batch = Some(1);
        slow.leave();
        slow.go_on(&narrow(&server).await).await;
        let mut other = Watcher::start(&client, Watcher::request(NAME, OnLag::Burst)).await;
        act(&client, &mut history, Verb::Resume, &mut other).await;
        // More than is on the way.
        other.ticks(3_000).await;
        for verb in [Verb::Pause, Verb::Resume, Verb::Extend(10)] {
            act(&client, &mut history, verb, &mut other).await;
            other.ticks(usize::from(!matches!(verb, Verb::Pause))).await;
        }
        shorten(&client, &mut history, &mut other).await;
        other.end().await.unwrap();
        ended(&client, &mut history).await;
        slow.end().await.unwrap();
        for watcher in [&slow, &other] {
            history.check(&watcher.seen);
            assert_eq!(watcher.seen.done().last(), Some(&Done::Ended));
        }
        assert!(slow.seen.skipped > 0 && slow.seen.done().len() < 5, "{:?}", slow.seen.done());
    }
}
