//! Countdowns, one's own and shared ones.

use perennial::proto::{
    Countdown, CountdownChange, CountdownRequest, CountdownResponse, CountdownState, ListCountdownsRequest,
    OnLag, ResumeCountdownRequest, countdown_request::Target, countdown_stream_event::Event,
};
use tonic::Streaming;

use super::{Facts, Server, all, next, upgraded};

async fn resume(
    server: &Server,
    facts: &Facts,
    name: Option<&str>,
    cursor: &str,
) -> Streaming<CountdownResponse> {
    let request = CountdownRequest {
        target: name.map(|name| Target::Name(name.into())),
        cursor: facts.cursor(cursor),
        on_lag: OnLag::Burst.into(),
        ..Default::default()
    };
    server.countdown().await.countdown(request).await.unwrap().into_inner()
}

fn numbers<'a>(responses: impl IntoIterator<Item = &'a CountdownResponse>) -> Vec<i32> {
    let ticks = responses.into_iter().flat_map(|response| &response.ticks);
    ticks.map(|tick| tick.remaining.unwrap()).collect()
}

/// The changes that responses report.
fn changes(responses: &[CountdownResponse]) -> Vec<CountdownChange> {
    let events = responses.iter().flat_map(|response| &response.events);
    events
        .filter_map(|event| match &event.event {
            Some(Event::Changed(changed)) => Some(changed.change()),
            _ => None,
        })
        .collect()
}

fn down(from: i32, to: i32) -> Vec<i32> {
    (to..=from).rev().collect()
}

#[tokio::test]
async fn every_cursor_of_a_countdown_resumes_exactly() {
    let (server, facts) = upgraded();
    let rest = async |cursor| numbers(&all(resume(&server, &facts, None, cursor).await).await);
    assert_eq!(rest("countdown.after-4").await, [3, 2, 1, 0]);
    assert_eq!(rest("countdown.before-2").await, [2, 0, -2]);
    let until = facts.number::<i32>("countdown.until.number");
    assert_eq!(rest("countdown.until").await, down(until - 1, 0));
    assert_eq!(all(resume(&server, &facts, None, "countdown.over").await).await.len(), 1);
}

#[tokio::test]
async fn every_shared_countdown_is_there_in_its_state() {
    let (server, facts) = upgraded();
    let list = server.countdown().await.list_countdowns(ListCountdownsRequest::default()).await.unwrap();
    let list = list.into_inner().countdowns;
    let states = list.iter().map(|countdown| (countdown.name.as_str(), countdown.state()));
    let expected = [
        ("cancelled", CountdownState::Cancelled),
        ("ended", CountdownState::Ended),
        ("paused", CountdownState::Paused),
        ("running", CountdownState::Running),
    ];
    assert_eq!(states.collect::<Vec<_>>(), expected);
    let Countdown { on_end, step, to, .. } = &list[1];
    assert_eq!((on_end.as_ref().unwrap().topic.as_str(), *step, *to), ("ends.ended", Some(1), Some(0)));
    let left = list[2].remaining_duration.unwrap();
    let numbers_left = (left.seconds * 10) + i64::from(left.nanos / 100_000_000);
    assert_eq!(numbers_left, i64::from(facts.number::<i32>("shared.paused.last-number")) - 1);
}

#[tokio::test]
async fn every_cursor_of_a_shared_countdown_resumes_exactly() {
    let (server, facts) = upgraded();
    let number = |name| facts.number::<i32>(name);
    let running = next(&mut resume(&server, &facts, Some("running"), "shared.running").await).await;
    assert_eq!(running.ticks[0].remaining, Some(number("shared.running.number") - 1));

    let ended = all(resume(&server, &facts, Some("ended"), "shared.ended").await).await;
    assert_eq!(numbers(&ended), down(number("shared.ended.number") - 1, 0));
    assert_eq!(changes(&ended), [CountdownChange::Ended]);
    let over = all(resume(&server, &facts, Some("ended"), "shared.over").await).await;
    assert_eq!((over.len(), numbers(&over)), (1, vec![]));

    let last = number("shared.paused.last-number");
    let mut before = resume(&server, &facts, Some("paused"), "shared.before-pause").await;
    let mut responses = vec![next(&mut before).await];
    while changes(&responses).is_empty() {
        responses.push(next(&mut before).await);
    }
    // The ticks of a version that is past are not sent any more: they are counted.
    let skipped = responses.iter().map(|response| response.skipped_ticks).sum::<i64>();
    assert_eq!(skipped, i64::from(number("shared.before-pause.number") - last));
    assert_eq!((numbers(&responses), changes(&responses)), (vec![], vec![CountdownChange::Paused]));

    let mut at_pause = resume(&server, &facts, Some("paused"), "shared.paused").await;
    let first = next(&mut at_pause).await;
    assert_eq!((first.countdown.unwrap().state(), first.ticks.len()), (CountdownState::Paused, 0));
    let resume = ResumeCountdownRequest { name: "paused".into(), ..Default::default() };
    server.countdown().await.resume_countdown(resume).await.unwrap();
    let mut responses = Vec::new();
    while numbers(&responses).len() < 3 {
        responses.push(next(&mut at_pause).await);
    }
    assert_eq!(numbers(&responses)[..3], down(last - 1, last - 3));
    assert_eq!(changes(&responses), [CountdownChange::Resumed]);
}
