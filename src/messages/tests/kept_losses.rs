//! A lost or damaged range stays reported when the segments around it are deleted, until a limit would have removed it.

use super::{incarnations::copy_of, workload::enforce, *};
use crate::messages::clock::Clock;

const SEGMENT_BYTES: usize = 4_000;

/// The age after which the rules of these tests remove messages.
const AGE: Duration = Duration::from_secs(60);

/// A log whose messages have their sequence as the beginning of their text: some of `a`, and then those of `b`.
struct Bed {
    directory: tempfile::TempDir,
    clock: Clock,
    /// The paths of the segments, and their first sequences.
    segments: Vec<(PathBuf, u64)>,
}

impl Bed {
    async fn new() -> Self {
        let bed =
            Self { directory: tempfile::tempdir().unwrap(), clock: Clock::manual(), segments: Vec::new() };
        let log = bed.open(&[]).0;
        for n in 1..=60 {
            let topic = if n <= 20 { "a" } else { "b" };
            log.publish(text(topic, &format!("{n} {}", "x".repeat(500)))).await.unwrap();
        }
        log.close().await;
        let bed = Self { segments: segments(&bed.directory), ..bed };
        assert!(bed.segments[2].1 <= 20, "two segments have only messages of a");
        bed
    }

    fn copy(&self) -> Self {
        let directory = copy_of(&self.directory);
        Self { segments: segments(&directory), directory, clock: self.clock.clone() }
    }

    fn open(&self, rules: &[&str]) -> (Log, Opened) {
        let config = Config {
            segment_bytes: SEGMENT_BYTES,
            removal_delay: Duration::ZERO,
            dedupe_window: Duration::ZERO,
            retention: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
            clock: self.clock.clone(),
            ..config()
        };
        open_with(&self.directory, config)
    }

    /// The sequences that the oldest segment has, first and last.
    fn oldest(&self) -> (u64, u64) {
        (1, self.segments[1].1 - 1)
    }
}

fn segments(directory: &tempfile::TempDir) -> Vec<(PathBuf, u64)> {
    let paths = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let first = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let mut segments = paths.map(|path| (path.clone(), first(&path))).collect::<Vec<_>>();
    segments.sort();
    segments
}

/// The gaps that a reader from the start gets, whatever its topics.
async fn gaps(log: &Log) -> Vec<Event> {
    let (_, events) = read(log, query(&[">"], Start::Earliest)).await;
    for topics in [["a"], ["another"]] {
        assert_eq!(read(log, query(&topics, Start::Earliest)).await.1, events, "{topics:?}");
    }
    events
}

#[tokio::test]
async fn a_lost_segment_stays_a_gap_when_the_oldest_one_that_is_left_is_deleted() {
    let source = Bed::new().await;
    for count in [1, 2] {
        let bed = source.copy();
        let last = bed.segments[count].1 - 1;
        for (path, _) in &bed.segments[..count] {
            std::fs::remove_file(path).unwrap();
        }
        let expected = bed.segments[..=count].windows(2).map(|pair| damaged(pair[0].1, pair[1].1 - 1));
        let expected = expected.collect::<Vec<_>>();
        for start in 0..3 {
            let (log, opened) = bed.open(&["a=age:60s"]);
            assert_eq!(opened.damaged.len(), count, "start {start}: {:?}", opened.damaged);
            if start == 0 {
                // Everything that is left in the next segment goes in the run that finds the loss.
                log.purge_topic("a", None).await.unwrap();
                log.purge_topic("b", Some(sequence(bed.segments[count + 1].1 - 1))).await.unwrap();
            }
            enforce(&log).await;
            assert!(!bed.segments[count].0.exists(), "the next segment is deleted");
            assert_eq!(gaps(&log).await, expected, "start {start}");
            // A reader within the loss, and one that comes back later.
            let (_, events) = read(&log, query(&["a"], from_sequence(last))).await;
            assert!(events.contains(expected.last().unwrap()), "start {start}: {events:?}");
            log.close().await;
        }
    }
}

#[tokio::test]
async fn lost_segments_with_deleted_ones_between_them_are_all_reported() {
    let bed = Bed::new().await;
    let all = &bed.segments;
    for lost in [0, 2] {
        std::fs::remove_file(&all[lost].0).unwrap();
    }
    let expected = [0, 2].map(|lost| damaged(all[lost].1, all[lost + 1].1 - 1));
    for start in 0..2 {
        let (log, _) = bed.open(&[]);
        if start == 0 {
            log.purge_topic("a", None).await.unwrap();
            log.purge_topic("b", Some(sequence(all[4].1 - 1))).await.unwrap();
        }
        enforce(&log).await;
        assert!(!all[1].0.exists() && !all[3].0.exists(), "those beside them are deleted");
        assert_eq!(gaps(&log).await, expected, "start {start}");
        log.close().await;
    }
}

#[tokio::test]
async fn a_lost_segment_is_a_removed_one_once_a_limit_removes_everything_up_to_it() {
    let source = Bed::new().await;
    for (rules, ends) in [
        (&[">=age:60s"][..], true),
        (&["a=age:60s", ">=age:50s"], true),
        (&[">=total:3KB"], true),
        (&["b=total:1KB", ">=age:60s"], true),
        // Nothing says that its messages are over these limits.
        (&["a=age:60s", "b=age:60s"], false),
        (&[">=count:1"], false),
        (&[">=bytes:600"], false),
        (&["c=count:1", ">=age:60s"], false),
        (&[">=last"], false),
    ] {
        let bed = source.copy();
        let (first, last) = bed.oldest();
        // A reader that has read one message.
        let (log, _) = bed.open(&[]);
        let one = Batching { limit: Some(1), ..Batching::default() };
        let mut batches =
            subscribe(&log, Query { batching: one, ..query(&["a"], Start::Earliest) }).await.unwrap();
        let mut position = None;
        while let Some(batch) = next(&mut batches).await {
            position = Some(batch.position);
        }
        drop(batches);
        log.close().await;
        std::fs::remove_file(&bed.segments[0].0).unwrap();
        // A limit by size may end the gap as soon as the log is open.
        let (log, opened) = bed.open(rules);
        assert_eq!(opened.damaged.len(), 1, "{rules:?}: {:?}", opened.damaged);
        bed.clock.advance(AGE + AGE);
        log.publish(text("b", "young")).await.unwrap();
        for _ in 0..2 {
            enforce(&log).await;
        }
        assert!(!bed.segments[1].0.exists(), "{rules:?}: the next segment is deleted or compacted");
        log.close().await;
        for start in 0..2 {
            let (log, opened) = bed.open(rules);
            let expected = if ends { vec![] } else { vec![damaged(first, last)] };
            assert_eq!(opened.damaged.is_empty(), ends, "{rules:?}, start {start}: {:?}", opened.damaged);
            assert_eq!(gaps(&log).await, expected, "{rules:?}, start {start}");
            let (_, events) = read(&log, query(&["a"], Start::Resume(position.clone().unwrap()))).await;
            let is_reported = |event: &Event| matches!(event, Event::Removed(range) | Event::Damaged(range) if number(range.last) >= last);
            assert!(events.iter().any(is_reported), "{rules:?}, start {start}: {events:?}");
            log.close().await;
        }
    }
}

#[tokio::test]
async fn damage_of_unknown_messages_stays_a_gap_when_its_segment_is_deleted() {
    let source = Bed::new().await;
    let (path, first) = &source.segments[1];
    let end = source.segments[2].1;
    let bytes = std::fs::read(path).unwrap();
    let blocks = memchr::memmem::find_iter(&bytes, b"PBLK").collect::<Vec<_>>();
    assert_eq!(blocks.len() as u64, end - first, "one message each");
    for place in 0..blocks.len() {
        let bed = source.copy();
        let mut bytes = bytes.clone();
        // The header of a block, and the index, so that nothing says which message it was.
        bytes[blocks[place] + 20] ^= 1;
        let end = bytes.len();
        bytes[end - 10] ^= 1;
        std::fs::write(&bed.segments[1].0, bytes).unwrap();
        let lost = first + place as u64;
        for start in 0..3 {
            let (log, opened) = bed.open(&[]);
            assert!(!opened.damaged.is_empty(), "{place}, start {start}");
            if start == 0 {
                log.purge_topic("a", None).await.unwrap();
            }
            enforce(&log).await;
            assert!(!bed.segments[0].0.exists(), "{place}, start {start}");
            assert_eq!(gaps(&log).await, [damaged(lost, lost)], "{place}, start {start}");
            log.close().await;
        }
        assert!(!bed.segments[1].0.exists(), "its bytes leave the disk: {place}");
    }
}

#[tokio::test]
async fn damage_of_a_message_that_is_known_and_removed_is_no_gap_when_its_segment_is_deleted() {
    let source = Bed::new().await;
    let (path, first) = &source.segments[1];
    let bytes = std::fs::read(path).unwrap();
    for has_index in [true, false] {
        let bed = source.copy();
        let mut bytes = bytes.clone();
        // In the middle of the text of its first message.
        let at = memchr::memmem::find(&bytes, format!("{first} xxx").as_bytes()).unwrap();
        bytes[at + 100] = b'y';
        if !has_index {
            let end = bytes.len();
            bytes[end - 10] ^= 1;
        }
        std::fs::write(&bed.segments[1].0, bytes).unwrap();
        let (log, _) = bed.open(&[]);
        assert_eq!(gaps(&log).await, [damaged(*first, *first)], "index: {has_index}");
        log.purge_topic("a", None).await.unwrap();
        for _ in 0..2 {
            enforce(&log).await;
        }
        log.close().await;
        let (log, opened) = bed.open(&[]);
        assert!(!bed.segments[1].0.exists(), "index: {has_index}");
        assert_eq!(opened.damaged, [""; 0], "index: {has_index}");
        assert_eq!(gaps(&log).await, [], "index: {has_index}");
        log.close().await;
    }
}
