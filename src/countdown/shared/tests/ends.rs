//! What is published at the end: once, with the ended state, however late.

use super::*;

fn lateness(headers: &BTreeMap<String, String>) -> f64 {
    headers["countdown-lateness"].strip_suffix('s').unwrap().parse().unwrap()
}

#[tokio::test]
async fn at_its_end_the_message_is_published_once_right_before_nothing_else_with_its_headers() {
    let house = House::new().await;
    let mut spec = ending(seconds(3), "lift-off");
    spec.on_end.as_mut().unwrap().headers = vec![("zone".into(), "eu".into())];
    let created = house.create("launch", spec).await;
    assert!(house.published("ends").await.is_empty());
    house.clock.step(3 * SECOND);
    let ended = house.has_ended("launch").await;
    let [(text, headers)] = &house.published("ends").await[..] else { panic!() };
    assert_eq!(
        (text.as_str(), headers["countdown"].as_str(), headers["zone"].as_str()),
        ("lift-off", "launch", "eu")
    );
    let Phase::Running { end_time, .. } = created.record.phase else { panic!() };
    assert_eq!(headers["countdown-due-time"], end_time.to_string());
    assert!((0.0..1.0).contains(&lateness(headers)), "{headers:?}");
    // One append: the message follows the state that it belongs to.
    let next = house.log.publish(NewMessage { topic: "next".into(), ..NewMessage::default() }).await.unwrap();
    assert_eq!(next.sequence.get(), ended.version + 2);
}

#[tokio::test]
async fn one_that_was_paused_cancelled_or_deleted_publishes_nothing() {
    let house = House::new().await;
    for name in ["paused", "cancelled", "deleted", "runs"] {
        house.create(name, ending(seconds(3), name)).await;
    }
    house.countdowns.pause("paused", None).await.unwrap();
    house.countdowns.cancel("cancelled", None).await.unwrap();
    house.countdowns.delete("deleted", None).await.unwrap();
    house.clock.step(60 * SECOND);
    house.has_ended("runs").await;
    let texts = house.published("ends").await.into_iter().map(|(text, _)| text).collect::<Vec<_>>();
    assert_eq!(texts, ["runs"]);
    house.countdowns.resume("paused", None).await.unwrap();
    house.clock.step(60 * SECOND);
    house.has_ended("paused").await;
    assert_eq!(house.published("ends").await.len(), 2);
}

#[tokio::test]
async fn an_end_that_came_while_no_server_ran_is_published_by_the_next_one_with_how_late_it_was() {
    let house = House::new().await;
    house.create("launch", ending(seconds(3), "lift-off")).await;
    let (directory, clock) = house.stop().await;
    clock.step(3603 * SECOND);
    let house = House::over(directory, messages::Config::default(), clock).await;
    house.has_ended("launch").await;
    let house = house.restart().await;
    let [(_, headers)] = &house.published("ends").await[..] else { panic!() };
    assert!((3600.0..3610.0).contains(&lateness(headers)), "{headers:?}");
}

#[tokio::test]
async fn of_two_servers_over_one_log_each_sees_what_the_other_does_and_one_publishes_the_end() {
    let house = House::new().await;
    let (other, _work) = open(&house.log, &house.clock, Config::default()).await;
    for n in 0..50 {
        house.create(&format!("n{n}"), ending(seconds(3), &n.to_string())).await;
    }
    let paused = other.pause("n7", None).await.unwrap();
    house.reaches("n7", |snapshot| snapshot.version == paused.version).await;
    let mut stream = house.watch("n8");
    stream.next().await.unwrap();
    other.extend("n8", None, SECOND).await.unwrap();
    assert_eq!(changes(&stream.tells().await), [Change::Extended]);
    house.clock.step(10 * SECOND);
    for n in (0..50).filter(|n| *n != 7) {
        house.has_ended(&format!("n{n}")).await;
    }
    let mut texts = house.published("ends").await.into_iter().map(|(text, _)| text).collect::<Vec<_>>();
    texts.sort();
    let mut expected = (0..50).filter(|n| *n != 7).map(|n| n.to_string()).collect::<Vec<_>>();
    expected.sort();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn many_that_end_at_one_moment_are_all_published_once() {
    let house = House::new().await;
    let until = schedule::nanos(house.clock.wall()) + 600 * SECOND;
    let until = Target::Until(std::time::UNIX_EPOCH + schedule::span(until));
    let create = |n: usize| {
        let countdowns = house.countdowns.clone();
        async move { countdowns.create(&format!("n{n}"), ending(spec(until), &n.to_string())).await.unwrap() }
    };
    limited(futures::future::join_all((0..3_000).map(create))).await;
    house.clock.step(601 * SECOND);
    for n in 0..3_000 {
        house.has_ended(&format!("n{n}")).await;
    }
    let published = house.published("ends").await;
    let texts = published.iter().map(|(text, _)| text).collect::<std::collections::HashSet<_>>();
    assert_eq!((published.len(), texts.len()), (3_000, 3_000));
}

#[tokio::test]
async fn a_message_whose_topic_is_one_more_than_there_may_be_is_published_as_it_was_promised() {
    let options = messages::Config { max_topics: 1, ..messages::Config::default() };
    let house = House::over(tempfile::tempdir().unwrap(), options, Clock::stopped()).await;
    house.create("launch", ending(seconds(3), "lift-off")).await;
    let refused = house.countdowns.create("other", seconds(3)).await;
    let is_topic = matches!(refused, Err(Error::Log(messages::Error::TooManyTopics { limit: 1 })));
    assert!(is_topic, "{refused:?}");
    house.clock.step(3 * SECOND);
    house.has_ended("launch").await;
    assert_eq!(house.published("ends").await.len(), 1);
}

#[tokio::test]
async fn a_clock_that_is_set_back_puts_the_end_off_and_one_set_forward_brings_it() {
    let house = House::new().await;
    house.create("launch", ending(seconds(60), "lift-off")).await;
    house.clock.step(-3600 * SECOND);
    house.create("other", ending(seconds(10), "other")).await;
    house.clock.step(10 * SECOND);
    house.has_ended("other").await;
    assert!(matches!(house.countdowns.get("launch").unwrap().record.phase, Phase::Running { .. }));
    house.clock.step(3650 * SECOND);
    house.has_ended("launch").await;
}
