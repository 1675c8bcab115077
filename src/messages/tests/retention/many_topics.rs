//! Reads of the disk when a segment has many topics: as many as the call needs, however many topics there are.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use embedded::format::{footer::Footer, scan::Scan};

const DIRECTORY: &str = "/log";

/// More than are found before the first batch leaves, and more than a slow index could hide.
const TOPICS: usize = 20_000;

const RULE: &str = "old.>=age:10s";

fn name(prefix: &str, number: usize) -> String {
    format!("{prefix}.{number:06}")
}

/// Publishes a message to each topic.
async fn publish_all(log: &Log, prefix: &str) {
    for start in (0..TOPICS).step_by(500) {
        let messages =
            (start..start + 500).map(|number| text(&name(prefix, number), &format!("text {number}")));
        log.publish_batch(messages.collect()).await.unwrap();
    }
}

/// A log with full segments, each of which has all topics with two messages, and nothing of it in memory.
async fn bed() -> Bed {
    let mut bed = Bed::with(&[RULE], |config| config.segment_bytes = 3 * 512 * 1024).await;
    for _ in 0..2 {
        publish_all(&bed.log, "old").await;
        bed.config.clock.advance(Duration::from_secs(1));
    }
    // The next segment begins.
    publish_all(&bed.log, "new").await;
    publish_all(&bed.log, "new").await;
    bed.reopen().await;
    bed
}

/// Replaces the indexes of a closed log by those that a server of version 2 wrote.
fn to_version_2(disk: &Simulation) -> usize {
    let mut count = 0;
    for path in disk.list(Path::new(DIRECTORY)).unwrap() {
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let bytes = Bytes::from(disk.read_file(&path));
        let salt = u32::from_le_bytes(bytes[28..32].try_into().unwrap());
        let file = Storage::Simulated(disk.kill()).open(&path, false).unwrap();
        let Some(footer) = Footer::read(&file, salt).unwrap() else { continue };
        let end = usize::try_from(footer.blocks_end()).unwrap();
        let blocks = bytes.slice(..end);
        let scan = Scan::new(&blocks, footer.summary.first_sequence, salt);
        let mut index = embedded::index::builder::IndexBuilder::new(salt, 0);
        for found in &scan.blocks {
            index.add(&found.block, found.start, found.body, found.end);
        }
        index.extend(end as u64);
        disk.write_file(&path, &[blocks.to_vec(), index.to_footer_of_version_2()].concat());
        count += 1;
    }
    count
}

/// How many times, and how many bytes, something reads of the disk.
async fn reads<T>(disk: &Simulation, work: impl Future<Output = T>) -> (T, u64, u64) {
    let (count, bytes) = disk.reads();
    let done = work.await;
    let (count_after, bytes_after) = disk.reads();
    (done, count_after - count, bytes_after - bytes)
}

#[tokio::test]
async fn a_topic_is_read_without_the_other_topics_of_its_segment() {
    let mut bed = bed().await;
    for _ in 0..2 {
        for number in [0, 7, TOPICS / 2, TOPICS - 1] {
            let topic = name("new", number);
            let read = texts(&bed.log, query(&[&topic], Start::Earliest));
            let (texts, count, bytes) = reads(&bed.disk, read).await;
            assert_eq!(texts, [format!("text {number}"), format!("text {number}")]);
            assert!(count < 40 && bytes < 500_000, "{topic}: {count} reads of {bytes} bytes");
        }
        // Indexes of version 2 are read where they are.
        bed.log.close().await;
        assert!(to_version_2(&bed.disk) >= 2);
        bed.log = Log::open(Path::new(DIRECTORY), bed.config.clone()).unwrap().0;
        enforce(&bed.log).await;
    }
}

#[tokio::test]
async fn the_last_messages_of_topics_are_found_once_and_read_as_the_log_is() {
    let bed = bed().await;
    for topics in [&[">"][..], &["new.*"], &["new.*", "old.*"]] {
        let read = read(&bed.log, query(topics, Start::LastPerTopic));
        let ((messages, events), count, bytes) = reads(&bed.disk, read).await;
        let expected = if topics == ["new.*"] { TOPICS } else { 2 * TOPICS };
        assert_eq!((messages.len(), events), (expected, vec![]));
        assert!(messages.is_sorted_by(|one, other| one.0 < other.0));
        // Each run once, apart from those that end a batch.
        assert!(count < 1_000 && bytes < 40_000_000, "{topics:?}: {count} reads of {bytes} bytes");
    }
}

#[tokio::test]
async fn a_snapshot_of_many_topics_is_resumed_while_they_change() {
    let bed = bed().await;
    let (mut texts, mut sequences) = (BTreeMap::new(), BTreeSet::new());
    let mut start = Start::LastPerTopic;
    let changes = [7, TOPICS / 3, TOPICS - 1, TOPICS - 2];
    for change in changes {
        let batching = Batching { limit: Some(9_000), ..Batching::default() };
        let mut stream = subscribe(&bed.log, Query { batching, ..query(&[">"], start) }).await.unwrap();
        let mut position = None;
        while let Some(batch) = next(&mut stream).await {
            for message in decode(&batch) {
                assert!(sequences.insert(message.sequence), "{message:?} comes twice");
                texts.insert(message.topic.clone(), text_of(&message));
            }
            position = Some(batch.position);
        }
        bed.log.publish(text(&name("new", change), "changed")).await.unwrap();
        start = Start::Resume(position.unwrap());
    }
    let mut stream = subscribe(&bed.log, query(&[">"], start)).await.unwrap();
    while let Some(batch) = next(&mut stream).await {
        for message in decode(&batch) {
            assert!(sequences.insert(message.sequence), "{message:?} comes twice");
            texts.insert(message.topic.clone(), text_of(&message));
        }
    }
    assert_eq!(texts.len(), 2 * TOPICS);
    for number in 0..TOPICS {
        let expected = if changes.contains(&number) { "changed".into() } else { format!("text {number}") };
        assert_eq!(texts[&name("new", number)], expected);
    }
}

#[tokio::test]
async fn retention_goes_through_the_topics_of_a_segment_once() {
    let mut bed = bed().await;
    for kept in [2, 1, 0] {
        bed.log.close().await;
        if kept == 1 {
            assert!(to_version_2(&bed.disk) >= 2);
        }
        bed.log = Log::open(Path::new(DIRECTORY), bed.config.clone()).unwrap().0;
        let ((), count, bytes) = reads(&bed.disk, enforce(&bed.log)).await;
        let listed = bed.log.list_topics(Some("old.>"), TOPICS, None).await.unwrap().topics;
        assert_eq!(listed.len(), if kept == 0 { 0 } else { TOPICS });
        assert!(listed.iter().all(|topic| topic.messages == kept), "{kept}");
        assert!(listed.iter().all(|topic| topic.first.sequence == topic.last.sequence || kept == 2));
        assert!(listed.iter().all(|topic| topic.first.time == topic.last.time || kept == 2));
        // A few small parts for each topic, and not a whole index.
        assert!(count < 150_000 && bytes < 150_000_000, "{kept}: {count} reads of {bytes} bytes");
        let ahead = if kept == 2 { 8_500 } else { 1_000 };
        bed.config.clock.advance(Duration::from_millis(ahead));
    }
}

#[tokio::test]
async fn a_sweep_holds_up_no_commit_while_it_reads_the_topics_of_a_segment() {
    let bed = bed().await;
    let gate = bed.disk.hold_reads();
    let log = bed.log.clone();
    let sweep = tokio::spawn(async move { workload::embedded(&log).sweep().await });
    // Those of the indexes, and of their parts.
    for _ in 0..20 {
        let (count, _) = bed.disk.reads();
        gate.send(()).unwrap();
        let waits_for_the_next = async {
            while bed.disk.reads().0 == count || workload::embedded(&bed.log).is_busy() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waits_for_the_next)
            .await
            .expect("no commit has its turn");
    }
    drop(gate);
    sweep.await.unwrap();
}

#[tokio::test]
async fn a_purge_reads_the_index_of_its_topic() {
    let bed = bed().await;
    let topic = name("new", 11);
    let (purged, _, bytes) = reads(&bed.disk, bed.log.purge_topic(&topic, None)).await;
    assert_eq!(purged.unwrap(), 2);
    assert!(bytes < 500_000, "{bytes} bytes");
}

#[tokio::test]
async fn the_first_response_and_heartbeats_leave_while_last_messages_are_looked_for() {
    let bed = bed().await;
    // The last message of a topic that has expired: the one before is looked for on the disk.
    let topic = name("new", 3);
    let ttl = Some(Duration::from_secs(1));
    bed.log.publish(NewMessage { ttl, ..text(&topic, "expires") }).await.unwrap();
    bed.config.clock.advance(Duration::from_secs(2));
    let gate = bed.disk.hold_reads();
    let heartbeat = Duration::from_millis(100);
    let batching = Batching { heartbeat, ..Batching::default() };
    let mut stream =
        subscribe(&bed.log, Query { batching, ..query(&["new.*"], Start::LastPerTopic) }).await.unwrap();
    for _ in 0..5 {
        let batch = next(&mut stream).await.unwrap();
        assert_eq!((batch.count, batch.progress.caught_up), (0, false));
        assert!(batch.position.snapshot > 0, "it can be resumed");
    }
    drop(gate);
    let mut seen = 0;
    while let Some(batch) = next(&mut stream).await {
        seen += batch.count;
    }
    assert_eq!(seen, TOPICS);
}

#[tokio::test]
async fn damage_among_the_last_messages_of_topics_is_reported() {
    let disk = Simulation::new();
    let config = Config { disk: Storage::Simulated(disk.clone()), ..Config::default() };
    let (log, _) = Log::open(Path::new(DIRECTORY), config.clone()).unwrap();
    for number in 0..6 {
        log.publish(text(&name("a", number), &format!("text {number}"))).await.unwrap();
    }
    // Not in memory any more.
    let path = Path::new(DIRECTORY).join("00000000000000000001.log");
    log.close().await;
    for (needle, lost) in [(&b"text 2"[..], 3), (b"a.000004", 5)] {
        let disk = disk.kill();
        let bytes = disk.read_file(&path);
        let (log, _) = Log::open(
            Path::new(DIRECTORY),
            Config { disk: Storage::Simulated(disk.clone()), ..config.clone() },
        )
        .unwrap();
        // The name in the table comes before the one in the message.
        disk.flip(&path, memchr::memmem::find(&bytes, needle).unwrap() as u64 + 5, 1);
        for topics in [&[">"][..], &["a.*"]] {
            let (messages, events) = read(&log, query(topics, Start::LastPerTopic)).await;
            let sequences = messages.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>();
            let expected = (1..=6).filter(|sequence| *sequence != lost).collect::<Vec<_>>();
            assert_eq!((sequences, events), (expected, vec![damaged(lost, lost)]));
        }
    }
}
