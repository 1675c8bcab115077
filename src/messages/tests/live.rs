//! Readers that follow, from memory and from disk, while messages are published, purged and removed by retention.

use std::collections::BTreeMap;

use super::{
    history::Seen,
    workload::{DIRECTORY, enforce, seen, small},
    *,
};

/// How many messages are published a round.
const COUNT: u64 = 1500;

/// `purged` is purged now and then.
const TOPICS: [&str; 7] = ["a", "b.x", "b.y", "c.d.e", "few", "last", "purged"];

/// Messages in reported gaps may be missing; all others are there, once, in order.
fn check(name: &str, published: &[Seen], seen: &[Seen], gaps: &[(u64, u64)], patterns: &[&str]) {
    assert!(seen.is_sorted_by(|a, b| a.sequence < b.sequence), "{name}: not in order, or twice");
    let patterns = patterns.iter().map(|text| topic::Pattern::parse(text).unwrap()).collect::<Vec<_>>();
    let got = seen.iter().map(|seen| (seen.sequence, seen)).collect::<BTreeMap<_, _>>();
    for sent in published.iter().filter(|sent| patterns.iter().any(|pattern| pattern.matches(&sent.topic))) {
        match got.get(&sent.sequence) {
            Some(seen) => assert_eq!(*seen, sent, "{name}"),
            // Being superseded is no gap.
            None if sent.topic == "last" => {}
            None => assert!(
                ["few", "purged"].contains(&sent.topic.as_str())
                    && gaps.iter().any(|(from, to)| (*from..=*to).contains(&sent.sequence)),
                "{name}: {} of {} is missing, and only {gaps:?} were reported",
                sent.sequence,
                sent.topic
            ),
        }
    }
    assert!(seen.iter().all(|seen| patterns.iter().any(|pattern| pattern.matches(&seen.topic))));
}

/// Reads until a message that says so, and resumes now and then.
async fn follow(log: Log, patterns: &'static [&'static str], reader: usize) -> (Vec<Seen>, Vec<(u64, u64)>) {
    let batching = Batching { max_items: 1 + reader * 37, ..Batching::default() };
    let mut query = Query { stop: Stop::default(), batching, ..query(patterns, Start::Earliest) };
    let (mut messages, mut gaps) = (Vec::new(), Vec::new());
    loop {
        let mut batches = subscribe(&log, query.clone()).await.unwrap();
        for _ in 0..=reader * 5 {
            let batch = next(&mut batches).await.unwrap();
            for event in &batch.events {
                match *event {
                    Event::Removed(SequenceRange { first, last }) => gaps.push((first.get(), last.get())),
                    event @ (Event::Damaged(_) | Event::Diverged(_)) => panic!("{event:?}"),
                }
            }
            let is_end = |message: &proto::StoredMessage| text_of(message) == "end";
            for message in decode(&batch) {
                if is_end(&message) {
                    return (messages, gaps);
                }
                messages.push(Seen {
                    sequence: message.sequence.unwrap().cast_unsigned(),
                    text: text_of(&message),
                    topic: message.topic,
                });
            }
            if reader.is_multiple_of(3) {
                // So slow that it reads from disk.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            query.start = Start::Resume(batch.position);
        }
    }
}

async fn publish(log: &Log) -> Vec<Seen> {
    let mut published = Vec::new();
    for n in 0..COUNT / 5 {
        let messages = (0..5).map(|m| {
            let count = n * 5 + m;
            let topic = TOPICS[usize::try_from(count * 5 + count / 11).unwrap() % TOPICS.len()];
            text(topic, &format!("{count}-{}", "x".repeat(usize::try_from(count % 97).unwrap())))
        });
        let messages = messages.collect::<Vec<_>>();
        let results = log.publish_each(messages.clone()).await.await;
        for (message, result) in messages.into_iter().zip(results) {
            let Content::Text(text) = message.content else { panic!() };
            published.push(Seen { sequence: result.unwrap().sequence.get(), topic: message.topic, text });
        }
        if n % 20 == 7 {
            log.purge_topic("purged", None).await.unwrap();
        }
        if n % 25 == 9 {
            enforce(log).await;
        }
    }
    for topic in ["a", "b.x", "few", "purged"] {
        log.publish(text(topic, "end")).await.unwrap();
    }
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_miss_nothing_unreported_under_publishing_purging_retention_and_compaction() {
    const READERS: [&[&str]; 7] =
        [&[">"], &["a"], &["b.*"], &["few", "a"], &["purged"], &["*", "c.>"], &["few", "last"]];
    let disk = Simulation::new();
    let log = Log::open(Path::new(DIRECTORY), small(&disk, 8 * 1024)).unwrap().0;
    let readers = READERS.iter().enumerate();
    let readers = readers.map(|(reader, patterns)| tokio::spawn(follow(log.clone(), patterns, reader)));
    let readers = readers.collect::<Vec<_>>();
    let publisher = tokio::spawn({
        let log = log.clone();
        async move { publish(&log).await }
    });
    let published = publisher.await.unwrap();
    for (reader, patterns) in readers.into_iter().zip(READERS) {
        let (seen, gaps) = reader.await.unwrap();
        check(&format!("{patterns:?}"), &published, &seen, &gaps, patterns);
    }
    // A later reader gets everything that is left, with any patterns.
    let kept = |topic: &str| match topic {
        "few" => 5,
        "last" => 1,
        _ => usize::MAX,
    };
    enforce(&log).await;
    for patterns in READERS {
        let (messages, _) = seen(&log, query(patterns, Start::Earliest)).await;
        for topic in TOPICS.iter().filter(|topic| **topic != "purged") {
            let of = |seen: &&Seen| seen.topic == *topic && seen.text != "end";
            let got = messages.iter().filter(of).collect::<Vec<_>>();
            let sent = published.iter().filter(of).collect::<Vec<_>>();
            let expected = &sent[sent.len().saturating_sub(kept(topic))..];
            let is_asked = patterns.iter().any(|text| topic::Pattern::parse(text).unwrap().matches(topic));
            let expected = if is_asked { expected } else { &[] };
            // The end takes the place of one of the few.
            assert!(
                got == expected || *topic == "few" && got == expected[1.min(expected.len())..],
                "{topic}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_has_caught_up_only_if_it_was_given_all_up_to_the_head_that_it_is_told() {
    const COUNT: u64 = 3_000;
    let log = on(&Arc::default());
    let stop = Stop { sequence: Some(sequence(COUNT)), ..Stop::default() };
    let mut batches = subscribe(&log, Query { stop, ..query(&["a"], Start::New) }).await.unwrap();
    let publisher = tokio::spawn(async move {
        for _ in 0..COUNT {
            log.publish(text("a", "")).await.unwrap();
        }
    });
    let (mut count, mut caught_up) = (0, 0);
    while let Some(batch) = next(&mut batches).await {
        let Progress { caught_up: has_caught_up, head } = batch.progress;
        count += batch.count as u64;
        caught_up += usize::from(has_caught_up);
        assert!(!has_caught_up || number(head) <= count, "{head:?} is the head after {count} messages");
    }
    publisher.await.unwrap();
    assert!(count == COUNT && caught_up > 0);
}
