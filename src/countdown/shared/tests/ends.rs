//! The end message is published exactly once, together with the ended state, also if that is late.

use super::*;

fn lateness(headers: &BTreeMap<String, String>) -> f64 {
    headers["countdown-lateness"].strip_suffix('s').unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_end_message_is_published_once_with_its_headers_right_after_the_ended_state() {
    let server = Server::new().await;
    let mut spec = ending(seconds(3), "lift-off");
    spec.on_end.as_mut().unwrap().headers = vec![("zone".into(), "eu".into())];
    let created = server.create("launch", spec).await;
    assert!(server.published("ends").await.is_empty());
    server.clock.step(3 * SECOND);
    let ended = server.has_ended("launch").await;
    let [(text, headers)] = &server.published("ends").await[..] else { panic!() };
    assert_eq!(
        (text.as_str(), headers["countdown"].as_str(), headers["zone"].as_str()),
        ("lift-off", "launch", "eu")
    );
    let Phase::Running { end_time, .. } = created.record.phase else { panic!() };
    assert_eq!(headers["countdown-due-time"], end_time.to_string());
    assert!((0.0..1.0).contains(&lateness(headers)), "{headers:?}");
    // One append: the message follows the state that it belongs to.
    let next =
        server.log.publish(NewMessage { topic: "next".into(), ..NewMessage::default() }).await.unwrap();
    assert_eq!(next.sequence.get(), ended.version + 2);
}

#[tokio::test]
async fn a_countdown_that_was_paused_cancelled_or_deleted_publishes_no_message() {
    let server = Server::new().await;
    for name in ["paused", "cancelled", "deleted", "runs"] {
        server.create(name, ending(seconds(3), name)).await;
    }
    server.countdowns.pause("paused", None).await.unwrap();
    server.countdowns.cancel("cancelled", None).await.unwrap();
    server.countdowns.delete("deleted", None).await.unwrap();
    server.clock.step(60 * SECOND);
    server.has_ended("runs").await;
    let texts = server.published("ends").await.into_iter().map(|(text, _)| text).collect::<Vec<_>>();
    assert_eq!(texts, ["runs"]);
    server.countdowns.resume("paused", None).await.unwrap();
    server.clock.step(60 * SECOND);
    server.has_ended("paused").await;
    assert_eq!(server.published("ends").await.len(), 2);
}

#[tokio::test]
async fn an_end_while_no_server_ran_is_published_by_the_next_server_with_its_lateness() {
    let server = Server::new().await;
    server.create("launch", ending(seconds(3), "lift-off")).await;
    let (directory, clock) = server.stop().await;
    clock.step(3603 * SECOND);
    let server = Server::over(directory, messages::Config::default(), clock).await;
    server.has_ended("launch").await;
    let server = server.restart().await;
    let [(_, headers)] = &server.published("ends").await[..] else { panic!() };
    assert!((3600.0..3610.0).contains(&lateness(headers)), "{headers:?}");
}

#[tokio::test]
async fn two_servers_on_one_log_see_each_others_changes_and_publish_the_end_once() {
    let server = Server::new().await;
    let (other, _work) = open(&server.log, &server.clock, Config::default()).await;
    for n in 0..50 {
        server.create(&format!("n{n}"), ending(seconds(3), &n.to_string())).await;
    }
    let paused = other.pause("n7", None).await.unwrap();
    server.reaches("n7", |snapshot| snapshot.version == paused.version).await;
    let mut stream = server.watch("n8");
    stream.next().await.unwrap();
    other.extend("n8", None, SECOND).await.unwrap();
    assert_eq!(changes(&stream.next_report().await), [Change::Extended]);
    server.clock.step(10 * SECOND);
    for n in (0..50).filter(|n| *n != 7) {
        server.has_ended(&format!("n{n}")).await;
    }
    let mut texts = server.published("ends").await.into_iter().map(|(text, _)| text).collect::<Vec<_>>();
    texts.sort();
    let mut expected = (0..50).filter(|n| *n != 7).map(|n| n.to_string()).collect::<Vec<_>>();
    expected.sort();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn the_ends_of_many_countdowns_at_one_moment_are_each_published_once() {
    let server = Server::new().await;
    let until = Target::Until(server.clock.wall() + Duration::from_secs(600));
    let create = |n: usize| {
        let countdowns = server.countdowns.clone();
        async move { countdowns.create(&format!("n{n}"), ending(spec(until), &n.to_string())).await.unwrap() }
    };
    limited(futures::future::join_all((0..1_000).map(create))).await;
    server.clock.step(601 * SECOND);
    for n in 0..1_000 {
        server.has_ended(&format!("n{n}")).await;
    }
    let published = server.published("ends").await;
    let texts = published.iter().map(|(text, _)| text).collect::<std::collections::HashSet<_>>();
    assert_eq!((published.len(), texts.len()), (1_000, 1_000));
}

#[tokio::test]
async fn an_end_message_is_published_although_the_limit_of_topics_is_reached() {
    let options = messages::Config { max_topics: 1, ..messages::Config::default() };
    let server = Server::over(tempfile::tempdir().unwrap(), options, Clock::stopped()).await;
    server.create("launch", ending(seconds(3), "lift-off")).await;
    let refused = server.countdowns.create("other", seconds(3)).await;
    let is_topic = matches!(refused, Err(Error::Log(messages::Error::TooManyTopics { limit: 1 })));
    assert!(is_topic, "{refused:?}");
    server.clock.step(3 * SECOND);
    server.has_ended("launch").await;
    assert_eq!(server.published("ends").await.len(), 1);
}

#[tokio::test]
async fn setting_the_clock_back_delays_the_end_and_setting_it_forward_brings_the_end_forward() {
    let server = Server::new().await;
    server.create("launch", ending(seconds(60), "lift-off")).await;
    server.clock.step(-3600 * SECOND);
    server.create("other", ending(seconds(10), "other")).await;
    server.clock.step(10 * SECOND);
    server.has_ended("other").await;
    assert!(matches!(server.countdowns.get("launch").await.unwrap().record.phase, Phase::Running { .. }));
    server.clock.step(3650 * SECOND);
    server.has_ended("launch").await;
}

#[tokio::test]
async fn countdowns_that_were_due_when_the_task_panicked_end_after_it_is_started_again() {
    let server = Server::new().await;
    for name in ["first", "second"] {
        server.create(name, ending(seconds(3), name)).await;
    }
    server.work.abort();
    let opened = Countdowns::open(server.log.clone(), server.clock.clone(), Config::default());
    let (countdowns, mut work) = limited(opened).await.unwrap();
    // The stream of changes is gone with the task, and so is what it has taken.
    drop(work(false));
    server.clock.step(3 * SECOND);
    assert_eq!(countdowns.0.take_due(1).len(), 1);
    let again = tokio::spawn(work(true));
    for name in ["first", "second"] {
        let mut changes = countdowns.0.changes(name).unwrap();
        let is_over = |snapshot: &Arc<Snapshot>| matches!(snapshot.record.phase, Phase::Ended { .. });
        limited(changes.wait_for(is_over)).await.unwrap();
    }
    // It follows the log again, too.
    limited(countdowns.create("third", seconds(1))).await.unwrap();
    assert_eq!(server.published("ends").await.len(), 2);
    again.abort();
}
