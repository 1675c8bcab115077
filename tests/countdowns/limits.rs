//! The operator's limits: a request above one is refused with the limit, and one below it is served.

use futures::future::join_all;
use perennial::proto::{CountdownState, CreateCountdownRequest, OnLag};
use tonic::{Code, Status};

use crate::{
    calls::{
        Verb, announced, assert_refused, change, create, delete, fact, get, is, list, messages, refusal,
        running_for, span, words,
    },
    harness::{Server, soon, until},
    watcher::Watcher,
};

fn over(status: &Status, reason: &str, limit: &str) {
    assert_refused(status, Code::ResourceExhausted, reason);
    assert_eq!(fact(status, "limit").as_deref(), Some(limit), "{status:?}");
}

fn invalid(status: &Status, field: &str) {
    let expected = (Code::InvalidArgument, "INVALID_FIELD".to_owned(), Some(field.to_owned()));
    assert_eq!(refusal(status), expected, "{status:?}");
}

#[tokio::test]
async fn the_operator_limits_the_number_of_countdowns() {
    let server = Server::start_with(&["--max-countdowns", "3"]);
    let client = server.countdown().await;
    for n in 0..3 {
        let request = running_for(&format!("n{n}"), 60_000);
        let request = CreateCountdownRequest { request_id: Some(format!("n{n}")), ..request };
        create(&client, request.clone()).await.unwrap();
        create(&client, request).await.expect("repeated");
    }
    let full = async || create(&client, running_for("more", 60_000)).await;
    over(&full().await.unwrap_err(), "TOO_MANY_COUNTDOWNS", "3");
    // One that is over counts until it is gone.
    change(&client, "n1", Verb::Cancel).await.unwrap();
    over(&full().await.unwrap_err(), "TOO_MANY_COUNTDOWNS", "3");
    delete(&client, "n1").await.unwrap();
    full().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_creations_that_race_for_the_last_places_exactly_the_limit_is_made() {
    for round in 0..5 {
        let server = Server::start_with(&["--max-countdowns", "10"]);
        let clients = join_all((0..4).map(|_| server.countdown())).await;
        let create = |n: usize| {
            let client = clients[n % 4].clone();
            tokio::spawn(async move { create(&client, running_for(&format!("n{n}"), 60_000)).await })
        };
        let all = soon("the answers", join_all((0..30).map(create))).await;
        let (made, refused): (Vec<_>, Vec<_>) = all.into_iter().map(Result::unwrap).partition(Result::is_ok);
        for status in refused {
            over(&status.unwrap_err(), "TOO_MANY_COUNTDOWNS", "10");
        }
        assert_eq!((made.len(), list(&clients[0]).await.len()), (10, 10), "round {round}");
    }
}

#[tokio::test]
async fn the_operator_limits_the_length_and_the_rate_of_a_countdown() {
    const HOUR: i64 = 3_600_000;
    let server = Server::start_with(&["--max-length", "1h", "--min-interval", "100ms"]);
    let client = server.countdown().await;
    let long = create(&client, running_for("a", HOUR + 1)).await.unwrap_err();
    invalid(&long, "duration");
    assert!(!long.message().contains(" 0 "), "{long:?}");
    let fast = CreateCountdownRequest { interval: Some(span(99)), ..running_for("a", HOUR) };
    let fast = create(&client, fast).await.unwrap_err();
    invalid(&fast, "interval");
    assert!(fast.message().contains("100 ms"), "{fast:?}");
    let good = CreateCountdownRequest { interval: Some(span(100)), ..running_for("a", HOUR) };
    create(&client, good).await.unwrap();
    let longer = change(&client, "a", Verb::Extend(HOUR)).await.unwrap_err();
    invalid(&longer, "by");
    assert!(!longer.message().contains(" 0 "), "{longer:?}");
}

#[tokio::test]
async fn the_operator_limits_the_ticks_a_second_of_all_watchers_together() {
    let server = Server::start_with(&["--max-tick-rate", "100"]);
    let client = server.countdown().await;
    let request = CreateCountdownRequest { interval: Some(span(20)), ..running_for("fast", 60_000) };
    create(&client, request).await.unwrap();
    let request = Watcher::request("fast", OnLag::Skip);
    let mut watchers = [
        Watcher::start(&client, request.clone()).await,
        Watcher::start(&server.countdown().await, request.clone()).await,
    ];
    let third = async || client.clone().countdown(request.clone()).await;
    over(&third().await.unwrap_err(), "TOO_MANY_TICKS", "100");
    watchers[1].leave();
    until("room", async || third().await.is_ok()).await;
    watchers[0].ticks(3).await;
}

#[tokio::test]
async fn countdowns_that_are_over_are_forgotten_after_a_while_and_their_names_are_free() {
    let mut server = Server::start_with(&["--keep-ended", "1s"]);
    let client = server.countdown().await;
    create(&client, announced("ends", 50, "over")).await.unwrap();
    create(&client, running_for("cancelled", 60_000)).await.unwrap();
    create(&client, running_for("paused", 60_000)).await.unwrap();
    change(&client, "cancelled", Verb::Cancel).await.unwrap();
    change(&client, "paused", Verb::Pause).await.unwrap();
    let is_gone = async |name: &str| match get(&client, name).await {
        Ok(countdown) => {
            assert!(!is(&countdown, CountdownState::Paused));
            false
        }
        Err(status) => {
            assert_refused(&status, Code::NotFound, "COUNTDOWN_NOT_FOUND");
            true
        }
    };
    until("both gone", async || is_gone("ends").await && is_gone("cancelled").await).await;
    assert_eq!(list(&client).await.into_keys().collect::<Vec<_>>(), ["paused"]);

    // What it was before does not come back, nor end again.
    server.kill();
    server.restart();
    let client = server.countdown().await;
    assert_eq!(list(&client).await.into_keys().collect::<Vec<_>>(), ["paused"]);
    assert_eq!(messages(&server, "over").await.len(), 1);
    create(&client, announced("ends", 50, "over")).await.unwrap();
    until("the second end", async || messages(&server, "over").await.len() == 2).await;
}

#[tokio::test]
async fn a_list_of_countdowns_with_large_messages_stays_below_the_limit_of_a_client() {
    const COUNT: usize = 100;
    let server = Server::start();
    let mut client = server.countdown().await;
    let large = "x".repeat(60 * 1024);
    for n in 0..COUNT {
        let on_end = Some(words("over", &large));
        let request = CreateCountdownRequest { on_end, ..running_for(&format!("n{n:03}"), 3_600_000) };
        create(&client, request).await.unwrap();
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = perennial::proto::ListCountdownsRequest { page_size: None, page_token };
        let page = client.list_countdowns(request).await.unwrap().into_inner();
        names.extend(page.countdowns.into_iter().map(|it| it.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(names.len() == COUNT && names.is_sorted_by(|a, b| a < b), "{names:?}");
}
