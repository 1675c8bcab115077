//! Sectors that the disk cannot read: their messages are damaged, and all others are served.

use super::{
    workload::{DIRECTORY, embedded, enforce},
    *,
};

const SEGMENT_BYTES: usize = 64 * 1024;

/// The size of a page, which is lost with a sector.
const PAGE: u64 = 4096;

fn open(disk: &Arc<Simulation>) -> Result<(Log, Opened), OpenError> {
    let config = Config {
        disk: Storage::Simulated(disk.clone()),
        segment_bytes: SEGMENT_BYTES,
        removal_delay: Duration::ZERO,
        dedupe_window: Duration::ZERO,
        ..config()
    };
    Log::open(Path::new(DIRECTORY), config)
}

/// A log of two topics and several segments. Each message has its sequence as the beginning of its text.
async fn log_of_segments(disk: &Arc<Simulation>) -> Log {
    let (log, _) = open(disk).unwrap();
    for n in 1..=400 {
        let topic = if n % 2 == 0 { "a" } else { "b" };
        log.publish(text(topic, &format!("{n} {}", "x".repeat(500)))).await.unwrap();
    }
    log
}

fn segments(disk: &Arc<Simulation>) -> Vec<PathBuf> {
    let mut paths = disk.list(Path::new(DIRECTORY)).unwrap();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

/// Reads a topic pattern from the start, with a limit of a message a batch or none: each of the messages from 1 to 400 of it
/// is there, or in a gap. Returns the sequences that are not there.
async fn missing(log: &Log, topics: &[&str], max_items: usize) -> Vec<u64> {
    let batching = Batching { max_items, ..Batching::default() };
    let (messages, events) = read(log, Query { batching, ..query(topics, Start::Earliest) }).await;
    let is_of = |n: &u64| topics == [">"] || (topics == ["a"]) == n.is_multiple_of(2);
    let is_told = |n: &u64| {
        let is_in = |event: &Event| matches!(event, Event::Damaged(range) if (number(range.first)..=number(range.last)).contains(n));
        events.iter().any(is_in)
    };
    let missing = (1..=400).filter(is_of).filter(|n| !messages.iter().any(|(sequence, _)| sequence == n));
    let missing = missing.collect::<Vec<_>>();
    assert_eq!(missing.iter().find(|n| !is_told(n)), None, "{topics:?}: {events:?}");
    let mut first = messages.iter().filter(|(sequence, _)| *sequence <= 400);
    assert!(first.all(|(sequence, text)| text.starts_with(&format!("{sequence} "))));
    missing
}

#[tokio::test]
async fn messages_in_a_bad_sector_are_a_gap_and_the_others_are_served_also_after_a_restart() {
    let source = Simulation::new();
    let log = log_of_segments(&source).await;
    enforce(&log).await;
    log.close().await;
    let paths = segments(&source);
    assert!(paths.len() > 3);
    for path in &paths[..paths.len() - 1] {
        let length = source.read_file(path).len() as u64;
        // The last one is that of the index.
        for page in (0..length.div_ceil(PAGE)).rev().step_by(3).chain([0]) {
            let disk = source.kill();
            for is_open in [true, false] {
                let opened = open(&disk);
                if is_open {
                    // It becomes bad while the server runs.
                    disk.make_bad(path, page * PAGE..page * PAGE + 512);
                }
                let (log, _) = opened.unwrap();
                let what = format!("{}, page {page}, {is_open}", path.display());
                let all = missing(&log, &[">"], usize::MAX).await;
                assert!(all.len() < 20, "{what}: {all:?}");
                let of_topics = [missing(&log, &["a"], 1).await, missing(&log, &["b"], 1).await].concat();
                assert!(of_topics.iter().all(|n| all.contains(n)), "{what}: {of_topics:?}");
                // Nothing else stops.
                enforce(&log).await;
                let last = log.publish(text("c", "new")).await.unwrap().sequence;
                let (messages, _) = read(&log, query(&["c"], from_sequence(number(last)))).await;
                assert_eq!(messages.len(), 1, "{what}");
                log.close().await;
            }
        }
    }
}

#[tokio::test]
async fn purged_messages_beside_a_bad_sector_leave_the_disk() {
    let disk = Simulation::new();
    let log = log_of_segments(&disk).await;
    let path = segments(&disk).remove(1);
    disk.make_bad(&path, 2 * PAGE..2 * PAGE + 1);
    log.purge_topic("a", None).await.unwrap();
    for _ in 0..3 {
        enforce(&log).await;
    }
    assert_eq!(embedded(&log).owed_erasures(), 0);
    assert!(missing(&log, &["b"], usize::MAX).await.len() < 20);
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_an_error_and_no_gap() {
    let disk = Simulation::new();
    log_of_segments(&disk).await.close().await;
    // Nothing is in memory.
    let (log, _) = open(&disk).unwrap();
    disk.set_unreadable(true);
    let mut batches = subscribe(&log, query(&[">"], Start::Earliest)).await.unwrap();
    let first = tokio::time::timeout(PATIENCE, batches.next()).await.unwrap().unwrap();
    assert!(matches!(first.map(|_| ()), Err(Error::Io(_))));
    disk.set_unreadable(false);
    assert_eq!(missing(&log, &[">"], usize::MAX).await, [0; 0]);
}

#[tokio::test]
async fn a_log_whose_newest_messages_cannot_be_read_does_not_open_and_one_with_a_bad_sector_before_does() {
    let source = Simulation::new();
    let log = log_of_segments(&source).await;
    let killed = source.kill();
    log.close().await;
    let path = segments(&killed).pop().unwrap();
    let bytes = killed.read_file(&path);
    let last = memchr::memmem::rfind(&bytes, b"PBLK").unwrap() as u64;
    for page in 0..=last / PAGE {
        let disk = killed.kill();
        disk.make_bad(&path, page * PAGE..(page + 1) * PAGE);
        match open(&disk) {
            Ok((log, opened)) => {
                assert!(!opened.damaged.is_empty() && page < last / PAGE, "page {page}");
                assert!(missing(&log, &[">"], usize::MAX).await.len() < 20, "page {page}");
                log.close().await;
            }
            Err(error) => assert!(page + 1 >= last / PAGE, "page {page}: {error}"),
        }
    }
}
