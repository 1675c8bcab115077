//! What happens to segments, and to the messages in them.

use super::*;

fn with_ttl(topic: &str, content: &str, milliseconds: u64) -> NewMessage {
    NewMessage { ttl: Some(Duration::from_millis(milliseconds)), ..text(topic, content) }
}

#[tokio::test]
async fn a_segment_that_holds_nothing_is_deleted() {
    let mut bed = Bed::new(&["a=age:1s"]).await;
    bed.fill("a", 40).await;
    bed.advance(2000);
    bed.fill("b", 1).await;
    let before = bed.segments();
    assert!(before.len() > 4, "{before:?}");
    bed.enforce().await;
    bed.enforce().await;
    let after = bed.segments();
    assert!(after.len() <= 2 && after.iter().all(|(sequence, _)| *sequence > 30), "{after:?}");
    assert_eq!(bed.topic("a").await, None);
    bed.reopen().await;
    assert_eq!((bed.topic("a").await, bed.topic("b").await.unwrap().messages), (None, 1));
    assert_eq!(bed.publish("a", "again").await, 42);
}

#[tokio::test]
async fn a_mostly_dead_segment_is_compacted_with_its_sequences_kept() {
    let mut bed = Bed::new(&["a=count:1"]).await;
    let mut kept = Vec::new();
    for n in 0..40 {
        bed.fill("a", 1).await;
        if n % 5 == 0 {
            kept.push((bed.publish("b", &n.to_string()).await, n.to_string()));
        }
    }
    let bytes = |segments: Vec<(u64, u64)>| segments.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let before = bytes(bed.segments());
    bed.enforce().await;
    let after = bytes(bed.segments());
    assert!(after < before / 2, "{before} and then {after} bytes");
    for _ in 0..2 {
        assert_eq!(read(&bed.log, query(&["b"], Start::Earliest)).await, (kept.clone(), vec![]));
        assert_eq!(bed.topic("a").await.unwrap().messages, 1);
        bed.reopen().await;
    }
}

#[tokio::test]
async fn many_small_segments_become_one() {
    let mut bed = Bed::new(&["a=last"]).await;
    let mut expected = Vec::new();
    for n in 0..40 {
        expected.push((bed.publish("b", &n.to_string()).await, n.to_string()));
        bed.fill("a", 10).await;
        bed.enforce().await;
    }
    bed.enforce().await;
    let segments = bed.segments();
    assert!(segments.len() <= 10, "{segments:?}");
    for _ in 0..2 {
        assert_eq!(read(&bed.log, query(&["b"], Start::Earliest)).await, (expected.clone(), vec![]));
        bed.reopen().await;
    }
}

#[tokio::test]
async fn a_compacted_segment_is_left_alone_while_nothing_more_is_removed() {
    let bed = Bed::new(&["a.>=last"]).await;
    for n in 0..2000 {
        bed.publish(&format!("a.a-topic-with-a-name-much-longer-than-its-message.{}", n % 50), "").await;
    }
    bed.fill("b", 10).await;
    for _ in 0..4 {
        bed.enforce().await;
    }
    let (calls, segments) = (bed.disk.calls(), bed.segments());
    for _ in 0..4 {
        bed.enforce().await;
    }
    assert_eq!((bed.disk.calls(), bed.segments()), (calls, segments), "the disk is written for nothing");
}

#[tokio::test]
async fn topics_of_the_server_survive_every_rule() {
    let mut bed = Bed::new(&[">=age:1ms count:1 bytes:1 total:1"]).await;
    let head = read_to_the_end(&bed.log, &[">"]).await;
    bed.log.commit_cursor("reader", head.clone(), false).await.unwrap();
    for _ in 0..5 {
        bed.fill("a", 20).await;
        bed.advance(1000);
        bed.enforce().await;
    }
    assert_eq!(bed.topic("a").await, None);
    for _ in 0..2 {
        let consumers = bed.log.list_consumers(10, None).await.unwrap().consumers;
        assert_eq!((consumers.len(), consumers[0].position.as_ref().unwrap()), (1, &head));
        bed.reopen().await;
    }
}

async fn read_to_the_end(log: &Log, topics: &[&str]) -> Position {
    let mut batches = subscribe(log, query(topics, Start::Earliest)).await.unwrap();
    let mut position = None;
    while let Some(batch) = next(&mut batches).await {
        position = Some(batch.position);
    }
    position.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_published_during_retention_are_not_removed_with_old_ones() {
    // The second rule gives the maintenance something to do between looking at the clock and at the topics.
    let bed = Bed::new(&["a=age:500ms", "b.*=total:200000"]).await;
    for part in 0..20 {
        let many = (0..100).map(|n| text(&format!("b.{}", part * 100 + n), &"x".repeat(100)));
        bed.log.publish_batch(many.collect()).await.unwrap();
    }
    for _ in 0..100 {
        bed.fill("b.1999", 1).await;
        bed.publish("a", "old").await;
        bed.advance(1000);
        let publisher = tokio::spawn({
            let log = bed.log.clone();
            async move {
                for n in 0..3 {
                    log.publish(text("a", &n.to_string())).await.unwrap();
                }
            }
        });
        bed.enforce().await;
        publisher.await.unwrap();
        let seen = bed.texts(&["a"]).await;
        assert!(seen.ends_with(&["0".into(), "1".into(), "2".into()]), "{seen:?}");
        bed.advance(1000);
        bed.enforce().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_topic_is_kept_within_its_limits() {
    let mut bed = Bed::new(&["a=count:10", "b=last", "c=bytes:2KiB"]).await;
    let publishers = ["a", "b", "c"].map(|topic| {
        let log = bed.log.clone();
        tokio::spawn(async move {
            for n in 0..1000 {
                log.publish(text(topic, &format!("{n:0100}"))).await.unwrap();
            }
        })
    });
    while !publishers.iter().all(tokio::task::JoinHandle::is_finished) {
        bed.enforce().await;
        for topic in ["a", "b", "c"] {
            assert!(
                bed.topic(topic).await.is_none_or(|topic| topic.messages > 0 && topic.bytes.unwrap() > 0)
            );
            // What it holds may all be new when it is read.
            read(&bed.log, query(&[topic], Start::Earliest)).await;
        }
    }
    for _ in 0..2 {
        bed.enforce().await;
        let numbers = |from: u32| (from..1000).map(|n| format!("{n:0100}")).collect::<Vec<_>>();
        assert_eq!((bed.texts(&["a"]).await, bed.texts(&["b"]).await), (numbers(990), numbers(999)));
        let (seen, info) = (bed.texts(&["c"]).await, bed.topic("c").await.unwrap());
        assert!((1801..=2048).contains(&info.bytes.unwrap()), "{info:?}");
        assert!(numbers(900).ends_with(&seen) && info.messages == seen.len() as u64);
        bed.reopen().await;
    }
}

#[tokio::test]
async fn a_message_lives_for_exactly_its_ttl() {
    let mut bed = Bed::new(&[]).await;
    for _ in 0..20 {
        bed.config.clock.advance(Duration::from_micros(137));
        let published = bed.log.publish(with_ttl("a", "1", 5)).await.unwrap();
        bed.config.clock.advance(Duration::from_micros(4999));
        assert_eq!(bed.texts(&["a"]).await, ["1"], "{published:?}");
        bed.config.clock.advance(Duration::from_micros(1001));
        assert!(bed.texts(&["a"]).await.is_empty());
    }
    bed.reopen().await;
    assert_eq!((bed.texts(&["a"]).await.len(), bed.topic("a").await), (0, None));
}

#[tokio::test]
async fn an_expired_message_that_left_the_disk_is_not_counted() {
    let mut bed = Bed::new(&["a=count:10"]).await;
    bed.publish("a", "first").await;
    for _ in 0..9 {
        bed.log.publish(with_ttl("a", &"x".repeat(10_000), 100)).await.unwrap();
    }
    bed.fill("b", 20).await;
    bed.advance(200);
    bed.enforce().await;
    assert_eq!(bed.topic("a").await.unwrap().messages, 1);
    for n in 0..9 {
        bed.publish("a", &n.to_string()).await;
        bed.enforce().await;
    }
    for _ in 0..2 {
        assert_eq!(bed.texts(&["a"]).await.len(), 10, "the limit took what was within it");
        assert_eq!(bed.topic("a").await.unwrap().messages, 10);
        bed.reopen().await;
    }
}

#[tokio::test]
async fn removals_on_a_full_disk_are_reported_after_a_restart() {
    let mut bed = Bed::new(&["a=age:1s"]).await;
    bed.fill("a", 29).await;
    bed.publish("a", &"x".repeat(10_000)).await;
    bed.fill("b", 1).await;
    bed.enforce().await;
    bed.advance(2000);
    // The first call writes the trim points.
    bed.disk.fail_at(bed.disk.calls(), Fault::Full);
    bed.enforce().await;
    bed.enforce().await;
    assert!(bed.segments().len() <= 2, "{:?}", bed.segments());
    let disk = bed.disk.kill();
    bed.config.disk = Storage::Simulated(disk);
    bed.log = Bed::open(&bed.config).await;
    let (messages, events) = read(&bed.log, query(&["a"], from_sequence(1))).await;
    assert_eq!((messages, events), (vec![], vec![removed(1, 30)]));
}

#[tokio::test]
async fn a_purge_that_the_disk_refused_holds_when_it_is_repeated() {
    let mut bed = Bed::new(&[]).await;
    bed.fill("a", 3).await;
    // Otherwise the room of a spare file is used.
    for name in ["reserve-1", "reserve-2"] {
        bed.disk.remove(&Path::new("/log").join(name)).unwrap();
    }
    for call in 0..2 {
        bed.disk.fail_at(bed.disk.calls() + call, Fault::Full);
    }
    assert!(matches!(bed.log.purge_topic("a", None).await, Err(Error::Full(_))));
    assert_eq!(
        bed.log.purge_topic("a", None).await.unwrap(),
        0,
        "its messages are removed before this is recorded"
    );
    bed.config.disk = Storage::Simulated(bed.disk.kill());
    bed.log = Bed::open(&bed.config).await;
    assert!(bed.texts(&["a"]).await.is_empty() && bed.topic("a").await.is_none());
}

#[tokio::test]
async fn a_purge_holds_for_a_reader_of_a_snapshot_that_is_under_way() {
    let bed = Bed::new(&[]).await;
    for topic in ["a", "b", "c"] {
        bed.publish(topic, topic).await;
    }
    bed.log.publish(with_ttl("d", "d", 100)).await.unwrap();
    let batching = Batching { max_items: 1, ..Batching::default() };
    let mut batches =
        subscribe(&bed.log, Query { batching, ..query(&[">"], Start::LastPerTopic) }).await.unwrap();
    assert_eq!(text_of(&decode(&next(&mut batches).await.unwrap())[0]), "a");
    bed.log.purge_topic("b", None).await.unwrap();
    bed.advance(200);
    let mut seen = Vec::new();
    while let Some(batch) = next(&mut batches).await {
        seen.extend(decode(&batch).iter().map(text_of));
    }
    assert_eq!(seen, ["c"]);
}

#[tokio::test]
async fn an_id_is_known_for_its_window_also_when_its_message_is_removed() {
    let mut bed = Bed::with(&["a=count:1"], |config| config.dedupe_window = Duration::from_secs(60)).await;
    let with_id = |n: usize| NewMessage { message_id: Some(n.to_string()), ..text("a", &"x".repeat(1000)) };
    let mut first = Vec::new();
    for n in 0..50 {
        first.push(bed.log.publish(with_id(n)).await.unwrap());
    }
    for _ in 0..3 {
        bed.enforce().await;
        for (n, first) in first.iter().enumerate() {
            let again = bed.log.publish(with_id(n)).await.unwrap();
            assert_eq!(again, Published { duplicate: true, ..*first }, "{n}");
        }
        bed.reopen().await;
    }
    let before = bed.segments().len();
    bed.advance(61_000);
    bed.enforce().await;
    assert!(bed.segments().len() < before / 2, "then its room is freed");
    assert!(!bed.log.publish(with_id(3)).await.unwrap().duplicate);
}

#[tokio::test]
async fn the_ids_of_all_topics_are_limited() {
    let mut bed = Bed::with(&[], |config| config.max_all_dedupe_ids = 20).await;
    let with_id =
        |n: usize| NewMessage { message_id: Some(n.to_string()), ..text(&format!("t.{}", n % 3), "x") };
    for n in 0..100 {
        bed.log.publish(with_id(n)).await.unwrap();
        bed.config.clock.advance(Duration::from_millis(50));
        assert!(bed.log.publish(with_id(n)).await.unwrap().duplicate, "{n}");
    }
    bed.reopen().await;
    assert!(bed.log.publish(with_id(99)).await.unwrap().duplicate);
    assert!(!bed.log.publish(with_id(50)).await.unwrap().duplicate);
}

#[tokio::test]
async fn the_last_message_that_lives_is_found_when_those_after_it_have_expired_and_left_the_disk() {
    let mut bed = Bed::new(&[]).await;
    bed.publish("a", "lives").await;
    let expiring = NewMessage { ttl: Some(Duration::from_secs(1)), ..text("a", &"x".repeat(2000)) };
    bed.log.publish(expiring).await.unwrap();
    bed.publish("b", "lives, too").await;
    bed.config.clock.advance(Duration::from_secs(2));
    for _ in 0..3 {
        bed.enforce().await;
    }
    assert_eq!(bed.topic("a").await.unwrap().messages, 1, "the expired one has left the disk");
    for _ in 0..2 {
        for topics in [&["a", "b"][..], &[">"], &["*"]] {
            assert_eq!(texts(&bed.log, query(topics, Start::LastPerTopic)).await, ["lives", "lives, too"]);
        }
        bed.reopen().await;
    }
}
