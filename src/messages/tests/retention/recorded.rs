//! What must be known of removed messages after a restart: what was erased, and what must be reported to readers that
//! come back.

use super::*;
use crate::messages::tests::workload::embedded;

/// The texts and the events of a topic after a restart with other rules.
async fn after_restart(bed: &Bed, rules: &[&str]) -> (Vec<String>, Vec<Event>) {
    let retention = rules.iter().map(|rule| rule.parse::<Rule>().unwrap()).collect();
    let config = Config { disk: Storage::Simulated(bed.disk.kill()), retention, ..bed.config.clone() };
    let (log, opened) = Log::open(Path::new("/log"), config).unwrap();
    assert_eq!(opened.damaged, [""; 0]);
    let (messages, events) = read(&log, query(&["state"], Start::Earliest)).await;
    (messages.into_iter().map(|(_, text)| text).collect(), events)
}

#[tokio::test]
async fn what_every_sweep_erases_is_recorded_also_for_another_rule() {
    let bed = Bed::with(&["state=last"], |_| ()).await;
    for n in 0..6 {
        bed.publish_text("state", &n.to_string()).await;
        bed.publish_text("b", "other").await;
        if n % 2 == 1 {
            embedded(&bed.log).sweep().await;
        }
    }
    assert_eq!(after_restart(&bed, &[]).await, (vec!["5".to_owned()], vec![]));
}

#[tokio::test]
async fn superseded_messages_beside_purged_ones_are_not_erased_before_that_is_recorded() {
    let bed = Bed::with(&["state=last"], |_| ()).await;
    let both = vec![text("state", "1"), text("secret", "secret")];
    bed.log.publish_batch(both).await.unwrap();
    bed.publish_text("state", "2").await;
    bed.log.purge_topic("secret", None).await.unwrap();
    bed.enforce().await;
    assert_eq!(after_restart(&bed, &["state=last"]).await, (vec!["2".to_owned()], vec![]));
    assert_eq!(after_restart(&bed, &[]).await, (vec!["1".to_owned(), "2".to_owned()], vec![]));
    // The sweep records it, and erases.
    embedded(&bed.log).sweep().await;
    assert_eq!(after_restart(&bed, &[]).await, (vec!["2".to_owned()], vec![]));
}

#[tokio::test]
async fn what_a_killed_server_had_recorded_in_the_page_cache_alone_is_recorded_before_it_is_erased() {
    for (call, seed) in (0..8).flat_map(|call| (0..6).map(move |seed| (call, seed))) {
        let bed = Bed::with(&[], |_| ()).await;
        for n in 0..6 {
            bed.publish_text("b", &n.to_string()).await;
            bed.publish_text("state", &format!("{n} {}", "x".repeat(500))).await;
        }
        embedded(&bed.log).settle().await;
        bed.disk.fail_at(bed.disk.calls() + call, Fault::Power);
        let _ = bed.log.purge_topic("state", None).await;
        let disk = bed.disk.kill();
        let open = |disk: &Arc<Simulation>| {
            let config = Config { disk: Storage::Simulated(disk.clone()), ..bed.config.clone() };
            Log::open(Path::new("/log"), config).unwrap().0
        };
        let log = open(&disk);
        enforce(&log).await;
        let seen = read(&log, query(&["state"], Start::Earliest)).await;
        assert!(seen.0.is_empty() || seen.0.len() == 6, "call {call}, seed {seed}: {seen:?}");
        let log = open(&disk.lose_power(seed));
        let after = read(&log, query(&["state"], Start::Earliest)).await;
        assert_eq!(after, seen, "call {call}, seed {seed}: what was removed came back");
    }
}

#[tokio::test]
async fn a_reader_of_one_topic_gets_a_gap_although_its_trim_point_was_dropped() {
    /// More than the trim points that are kept.
    const TOPICS: usize = 100_100;
    let bed = Bed::with(&["old.>=age:10s"], |config| config.segment_bytes = 4 * 1024 * 1024).await;
    let name = |number: usize| format!("old.{number:06}");
    let first = bed.publish(&name(0), "first").await;
    for start in (1..TOPICS).step_by(2_000) {
        let messages = (start..(start + 2_000).min(TOPICS)).map(|number| text(&name(number), ""));
        bed.log.publish_batch(messages.collect()).await.unwrap();
    }
    bed.publish("new", "last").await;
    bed.config.clock.advance(Duration::from_secs(20));
    bed.enforce().await;
    bed.enforce().await;
    for (number, topics) in [(0, [name(0)]), (0, ["old.>".to_owned()]), (TOPICS - 1, [name(TOPICS - 1)])] {
        let topics = topics.each_ref().map(String::as_str);
        let (messages, events) = read(&bed.log, query(&topics, from_sequence(first))).await;
        assert!(messages.is_empty(), "{number}");
        assert!(
            matches!(events[..], [Event::Removed(range)] if range.first == first),
            "{number}: {events:?}"
        );
    }
    assert_eq!(bed.texts(&[&name(0)]).await, [""; 0], "a reader that begins gets no gap");
}
