//! Restored copies and forks: a cursor of another history is noticed, whatever the log has published since.

use serde::Serialize;

use super::*;
use crate::{cursor, messages::query::Position};

/// A copy of a log's directory, as `cp -r` makes one, also while the log is open.
pub fn copy_of(directory: &tempfile::TempDir) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
        match std::fs::copy(entry.path(), copy.path().join(entry.file_name())) {
            // The server has renamed it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => _ = copied.unwrap(),
        }
    }
    copy
}

async fn publish(log: &Log, name: &str, count: u64) {
    for n in 1..=count {
        log.publish(text("a", &format!("{name}{n}"))).await.unwrap();
    }
}

/// The position after all messages of a log.
async fn at_the_end(log: &Log) -> Position {
    let mut batches = subscribe(log, query(&["a"], Start::Earliest)).await.unwrap();
    let mut position = None;
    while let Some(batch) = next(&mut batches).await {
        position = Some(batch.position);
    }
    position.unwrap()
}

fn resume(position: &Position, on_gap: OnGap) -> Query {
    // As a client sends it.
    let position = cursor::decode(&cursor::encode(position)).unwrap();
    Query { on_gap, ..query(&["a"], Start::Resume(position)) }
}

/// The last common sequence of a position that is refused because it is of another history.
async fn diverged(log: &Log, position: &Position, on_gap: OnGap) -> Option<u64> {
    match subscribe(log, resume(position, on_gap)).await.err() {
        Some(Error::Diverged(diverged)) => diverged.last_common,
        other => panic!("{other:?}"),
    }
}

fn incarnations(log: &Log) -> usize {
    let log = log.embedded();
    log.incarnations().as_slice().len()
}

#[tokio::test]
async fn a_cursor_of_the_lost_part_is_refused_by_a_restored_backup_also_when_that_has_grown_past_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    publish(&log, "common-", 50).await;
    let common = at_the_end(&log).await;
    let backup = copy_of(&directory);
    publish(&log, "lost-", 50).await;
    let lost = at_the_end(&log).await;

    let restored = open(&backup);
    let ahead = subscribe(&restored, resume(&lost, OnGap::Skip)).await.err();
    assert!(matches!(ahead, Some(Error::Ahead { .. })), "{ahead:?}");
    for published in [1, 10, 100] {
        publish(&restored, &format!("new-{published}-"), published).await;
        assert_eq!(diverged(&restored, &lost, OnGap::Fail).await, Some(50));
        let (messages, events) = read(&restored, resume(&lost, OnGap::Skip)).await;
        let range = SequenceRange::of_messages(51, 100);
        assert_eq!((messages[0].0, messages[0].1.as_str()), (51, "new-1-1"));
        assert_eq!(events, [Event::Diverged(range)]);
        assert_eq!(
            read(&restored, resume(&common, OnGap::Fail)).await.0,
            messages,
            "the common part is valid"
        );
    }
    assert_eq!(texts(&restored, resume(&at_the_end(&restored).await, OnGap::Fail)).await, [""; 0]);
    // The original has gone on, too, in the run that the copy was made in and in a later one.
    let new = at_the_end(&restored).await;
    assert_eq!(diverged(&log, &new, OnGap::Fail).await, Some(50));
    log.close().await;
    let log = open(&directory);
    publish(&log, "later-", 200).await;
    assert_eq!(diverged(&log, &new, OnGap::Fail).await, Some(50));
    assert_eq!(texts(&log, resume(&lost, OnGap::Fail)).await.len(), 200);
}

#[tokio::test]
async fn two_forks_refuse_the_cursors_of_each_other_and_a_skip_continues_after_the_last_common_message() {
    let source = tempfile::tempdir().unwrap();
    let log = open(&source);
    publish(&log, "common-", 3).await;
    log.close().await;
    let forks = [copy_of(&source), copy_of(&source)];
    let [one, two] = forks.each_ref().map(open);
    publish(&one, "one-", 9).await;
    publish(&two, "two-", 5).await;
    let [of_one, of_two] = [at_the_end(&one).await, at_the_end(&two).await];
    assert_eq!(diverged(&one, &of_two, OnGap::Fail).await, Some(3));
    assert_eq!(diverged(&two, &of_one, OnGap::Fail).await, Some(3), "before it is called ahead");
    // One event, and then the messages from the last common one on; and its cursors continue.
    let one_by_one = Batching { max_items: 1, ..Batching::default() };
    let mut batches =
        subscribe(&two, Query { batching: one_by_one, ..resume(&of_one, OnGap::Skip) }).await.unwrap();
    let first = next(&mut batches).await.unwrap();
    assert_eq!((first.count, first.events), (0, vec![Event::Diverged(SequenceRange::of_messages(4, 12))]));
    let second = next(&mut batches).await.unwrap();
    assert_eq!(text_of(&decode(&second)[0]), "two-1");
    let expected = ["two-2", "two-3", "two-4", "two-5"];
    assert_eq!(texts(&two, resume(&second.position, OnGap::Fail)).await, expected);
    let from_start = texts(&two, resume(&first.position, OnGap::Fail)).await;
    assert_eq!(from_start[0], "two-1");
}

#[tokio::test]
async fn a_gap_that_was_reported_in_the_lost_part_is_not_taken_for_one_of_the_restored_log() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    publish(&log, "common-", 10).await;
    let one_by_one = Batching { max_items: 1, ..Batching::default() };
    let mut batches =
        subscribe(&log, Query { batching: one_by_one, ..query(&["a"], from_sequence(1)) }).await.unwrap();
    let first = next(&mut batches).await.unwrap().position;
    drop(batches);
    let backup = copy_of(&directory);
    publish(&log, "lost-", 90).await;
    log.purge_topic("a", Some(sequence(90))).await.unwrap();
    let mut batches = subscribe(&log, resume(&first, OnGap::Skip)).await.unwrap();
    let batch = next(&mut batches).await.unwrap();
    assert_eq!((batch.count, batch.events), (0, vec![removed(2, 90)]));
    let restored = open(&backup);
    publish(&restored, "new-", 190).await;
    restored.purge_topic("a", Some(sequence(60))).await.unwrap();
    assert_eq!(diverged(&restored, &batch.position, OnGap::Fail).await, Some(10));
    let (messages, events) = read(&restored, resume(&batch.position, OnGap::Skip)).await;
    assert_eq!((messages.len(), messages[0].0), (140, 61));
    let diverged = Event::Diverged(SequenceRange::of_messages(11, 90));
    assert_eq!(events, [diverged, removed(11, 60)]);
}

#[tokio::test]
async fn a_snapshot_of_another_history_begins_again() {
    let source = tempfile::tempdir().unwrap();
    let log = open(&source);
    log.publish_batch(vec![text("x", "x1"), text("y", "y1"), text("z", "z1")]).await.unwrap();
    log.close().await;
    let forks = [copy_of(&source), copy_of(&source)];
    let [one, two] = forks.each_ref().map(open);
    one.publish_batch(vec![text("x", "x-one"), text("y", "y-one")]).await.unwrap();
    two.publish_batch(vec![text("z", "z-two")]).await.unwrap();
    let batching = Batching { max_items: 1, ..Batching::default() };
    let last = |start| Query { batching: batching.clone(), ..query(&["x", "y", "z"], start) };
    let mut batches = subscribe(&one, last(Start::LastPerTopic)).await.unwrap();
    let position = next(&mut batches).await.unwrap().position;
    let (messages, events) = read(&two, last(Start::Resume(position))).await;
    assert_eq!(events, [Event::Diverged(SequenceRange::of_messages(4, 5))]);
    let texts = messages.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    assert_eq!(texts, ["x1", "y1", "z-two"]);
}

#[tokio::test]
async fn where_the_last_common_sequence_is_unknown_a_skip_fails_too() {
    let source = tempfile::tempdir().unwrap();
    let log = open(&source);
    publish(&log, "common-", 1).await;
    log.close().await;
    let fork = copy_of(&source);
    for run in 0..9 {
        let log = open(&source);
        publish(&log, &format!("{run}-"), 1).await;
        log.close().await;
    }
    let far = at_the_end(&open(&source)).await;
    let other = open(&fork);
    publish(&other, "other-", 20).await;
    for on_gap in [OnGap::Fail, OnGap::Skip] {
        assert_eq!(diverged(&other, &far, on_gap).await, None);
    }
}

#[tokio::test]
async fn a_run_that_publishes_nothing_records_nothing_and_one_that_does_records_one_incarnation() {
    let directory = tempfile::tempdir().unwrap();
    for run in 0..4 {
        for _ in 0..2 {
            let log = open(&directory);
            assert_eq!(incarnations(&log), run);
            log.close().await;
        }
        let log = open(&directory);
        publish(&log, "x", 3).await;
        assert_eq!(incarnations(&log), run + 1);
        log.close().await;
    }
}

#[tokio::test]
async fn incarnations_survive_purge_retention_compaction_and_a_lost_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let mut positions = Vec::new();
    for run in 0..6 {
        let (log, _) = open_with(&directory, Config { segment_bytes: 2_000, ..config() });
        for n in 0..20 {
            log.publish(text("a", &format!("{run}-{n}-{}", "x".repeat(300)))).await.unwrap();
        }
        positions.push(at_the_end(&log).await);
        log.close().await;
    }
    let (log, _) = open_with(&directory, Config { segment_bytes: 2_000, ..config() });
    log.purge_topic("a", Some(sequence(70))).await.unwrap();
    let embedded = log.embedded();
    embedded.enforce().await;
    assert_eq!(incarnations(&log), 6);
    log.close().await;
    for name in ["manifest.0", "manifest.1"] {
        std::fs::remove_file(directory.path().join(name)).unwrap();
    }
    let (log, opened) = open_with(&directory, config());
    assert!(opened.damaged[0].contains("the manifest"), "{opened:?}");
    assert_eq!(incarnations(&log), 6);
    for position in &positions[4..] {
        assert!(subscribe(&log, resume(position, OnGap::Fail)).await.is_ok());
    }
}

#[tokio::test]
async fn a_consumer_of_another_history_says_so_and_never_keeps_a_commit_from_being_made() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    publish(&log, "common-", 5).await;
    let backup = copy_of(&directory);
    publish(&log, "lost-", 50).await;
    let lost = at_the_end(&log).await;
    let restored = open(&backup);
    publish(&restored, "new-", 60).await;
    let refused = restored.commit_cursor("c", lost.clone(), true).await;
    assert!(matches!(refused, Err(Error::Diverged(_))), "{refused:?}");
    // One that another version of the server let in.
    restored.publish_own(text("$consumer.c", &cursor::encode(&lost))).await.unwrap();
    let as_consumer = |on_gap| Query { consumer: Some("c".into()), on_gap, ..query(&["a"], Start::Earliest) };
    let refused = subscribe(&restored, as_consumer(OnGap::Fail)).await.err();
    assert!(matches!(refused, Some(Error::Diverged(Diverged { last_common: Some(5) }))), "{refused:?}");
    let (messages, events) = read(&restored, as_consumer(OnGap::Skip)).await;
    assert_eq!((messages.len(), events.len()), (60, 1));
    let mut batches = subscribe(&restored, query(&["a"], from_sequence(2))).await.unwrap();
    let behind = Position { delivered_up_to: 2, ..next(&mut batches).await.unwrap().position };
    restored.commit_cursor("c", behind, false).await.unwrap();
}

/// A cursor of messages as the version before incarnations wrote it.
#[derive(Serialize)]
struct Before {
    log: [u8; 16],
    delivered_up_to: u64,
    is_awaited: bool,
    reported_up_to: u64,
    snapshot: u64,
}

impl cursor::Position for Before {
    const KIND: cursor::Kind = cursor::Kind::Messages;
    const DECODERS: &'static [cursor::Decoder<Self>] = &[|_| None];
}

fn before(log: &Log, delivered_up_to: u64, is_awaited: bool) -> Position {
    let log = log.embedded();
    let before = Before { log: log.id(), delivered_up_to, is_awaited, reported_up_to: 0, snapshot: 0 };
    cursor::decode(&cursor::encode(&before)).unwrap()
}

#[tokio::test]
async fn cursors_from_before_conversion_are_valid_up_to_the_head_at_conversion_in_each_converted_copy() {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/9cbe249/data/messages");
    let copies = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for copy in &copies {
        for entry in std::fs::read_dir(&old).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let [one, two] = copies.each_ref().map(open);
    let embedded = one.embedded();
    let head = embedded.head();
    publish(&one, "one-", 30).await;
    publish(&two, "two-", 30).await;
    for log in [&one, &two] {
        assert_eq!(texts(log, resume(&before(log, head, false), OnGap::Fail)).await.len(), 30);
        assert_eq!(diverged(log, &before(log, head + 20, false), OnGap::Fail).await, Some(head));
        // A sequence that it awaited was in no history.
        assert!(subscribe(log, resume(&before(log, head + 25, true), OnGap::Fail)).await.is_ok());
    }
    assert_eq!(diverged(&one, &at_the_end(&two).await, OnGap::Fail).await, Some(head));
    // What was written before is read in place; what was purged before is erased there.
    let name = segment(&copies[0]);
    let bytes = std::fs::read(name).unwrap();
    let before = std::fs::read(old.join("00000000000000000001.log")).unwrap();
    assert_eq!(bytes[..52], before[..52], "the header of version 2");
}

#[tokio::test]
async fn the_record_of_an_incarnation_is_synced_with_its_first_message_and_torn_with_it() {
    for seed in 0..200 {
        let disk = Simulation::new();
        let log = on(&disk);
        log.publish(text("a", "1")).await.unwrap();
        assert_eq!(incarnations(&on(&disk.lose_power(seed))), 1, "seed {seed}");
        log.close().await;
        let disk = disk.kill();
        let log = on(&disk);
        let calls = disk.calls();
        log.publish(text("a", "2")).await.unwrap();
        assert_eq!(disk.calls() - calls, 2, "one write and one sync");
        let disk = disk.kill();
        let log = on(&disk);
        disk.fail_at(disk.calls(), Fault::Power);
        assert!(log.publish(text("a", &"3".repeat(3_000))).await.is_err());
        let disk = disk.lose_power(seed);
        let log = on(&disk);
        let known = incarnations(&log);
        let count = texts(&log, query(&["a"], Start::Earliest)).await.len();
        assert_eq!(known, count, "seed {seed}: an incarnation without a message");
    }
}
