//! Sectors that the disk cannot read: their messages are damaged, and all others are served.

use super::{
    workload::{DIRECTORY, embedded, enforce, share},
    *,
};
use crate::messages::clock::Clock;

const SEGMENT_BYTES: usize = 64 * 1024;

/// The size of a page, which is lost with a sector.
const PAGE: u64 = 4096;

fn open(disk: &Arc<Simulation>) -> Result<(Log, Opened), OpenError> {
    open_with_rules(disk, &[])
}

fn open_with_rules(disk: &Arc<Simulation>, rules: &[&str]) -> Result<(Log, Opened), OpenError> {
    let config = Config {
        retention: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        retention_interval: Duration::from_secs(3600),
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
    fill(open(disk).unwrap().0).await
}

async fn fill(log: Log) -> Log {
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
    let is_reported = |n: &u64| {
        let is_in = |event: &Event| matches!(event, Event::Damaged(range) if (number(range.first)..=number(range.last)).contains(n));
        events.iter().any(is_in)
    };
    let missing = (1..=400).filter(is_of).filter(|n| !messages.iter().any(|(sequence, _)| sequence == n));
    let missing = missing.collect::<Vec<_>>();
    assert_eq!(missing.iter().find(|n| !is_reported(n)), None, "{topics:?}: {events:?}");
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
        for page in share((0..length.div_ceil(PAGE)).rev().step_by(3)).chain([0]) {
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
    let source = Simulation::new();
    let log = log_of_segments(&source).await;
    enforce(&log).await;
    log.close().await;
    let path = segments(&source).remove(1);
    for page in 0..source.read_file(&path).len().div_ceil(4096) as u64 {
        let disk = source.kill();
        let (log, _) = open(&disk).unwrap();
        disk.make_bad(&path, page * PAGE..page * PAGE + 1);
        let before = on_disk(&disk);
        assert!(before.iter().filter(|n| *n % 2 == 0).count() > 100, "page {page}");
        // What was not purged stays in the page, because the disk may read it another time.
        embedded(&log).sweep().await;
        assert_eq!(on_disk(&disk), before, "page {page}");
        log.purge_topic("a", None).await.unwrap();
        for _ in 0..3 {
            enforce(&log).await;
        }
        assert_eq!(embedded(&log).owed_erasures(), 0, "page {page}");
        let left = on_disk(&disk).into_iter().filter(|n| *n % 2 == 0).collect::<Vec<_>>();
        assert_eq!(left, [0; 0], "page {page}");
        assert!(missing(&log, &["b"], usize::MAX).await.len() < 20, "page {page}");
        log.close().await;
    }
}

/// The messages whose text is in any file, whether the disk can read it or not.
fn on_disk(disk: &Arc<Simulation>) -> Vec<u64> {
    let mut found = Vec::new();
    for path in disk.list(Path::new(DIRECTORY)).unwrap() {
        let bytes = disk.read_file(&path);
        for at in memchr::memmem::find_iter(&bytes, " xxxx") {
            let digits = bytes[..at].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
            found.extend(std::str::from_utf8(&bytes[at - digits..at]).unwrap().parse::<u64>());
        }
    }
    found
}

#[tokio::test]
async fn retention_goes_on_beside_a_bad_sector() {
    let disk = Simulation::new();
    let log = fill(open_with_rules(&disk, &["a=count:150"]).unwrap().0).await;
    let path = segments(&disk).remove(0);
    disk.make_bad(&path, 2 * PAGE..2 * PAGE + 1);
    enforce(&log).await;
    embedded(&log).sweep().await;
    let left = on_disk(&disk);
    let in_page = disk.read_file(&path)[2 * 4096..3 * 4096].to_vec();
    let is_in_page = |n: &u64| memchr::memmem::find(&in_page, format!("{n} xxxx").as_bytes()).is_some();
    let dead = left.iter().filter(|n| *n % 2 == 0 && **n <= 100 && !is_in_page(n)).collect::<Vec<_>>();
    // Those at the ends of the page are partly in it.
    assert!(dead.len() <= 2, "{dead:?}");
    assert!(left.iter().filter(|n| *n % 2 == 1).count() >= 199);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_reader_finds_in_a_segment_while_it_is_deleted_is_no_gap() {
    for topics in [&[">"][..], &["a"], &["a", "b"]] {
        let (disk, clock) = (Simulation::new(), Clock::manual());
        let config = Config {
            disk: Storage::Simulated(disk.clone()),
            segment_bytes: SEGMENT_BYTES,
            removal_delay: Duration::ZERO,
            dedupe_window: Duration::ZERO,
            retention: vec![">=age:60s".parse().unwrap()],
            retention_interval: Duration::from_secs(3600),
            clock: clock.clone(),
            ..config()
        };
        fill(Log::open(Path::new(DIRECTORY), config.clone()).unwrap().0).await.close().await;
        // Nothing is in memory.
        let (log, _) = Log::open(Path::new(DIRECTORY), config).unwrap();
        enforce(&log).await;
        let path = segments(&disk).remove(0);
        disk.make_bad(&path, 2 * PAGE..2 * PAGE + 1);
        let (runtime, retained) = (tokio::runtime::Handle::current(), log.clone());
        disk.before_bad_read(move || {
            clock.advance(Duration::from_secs(61));
            runtime.block_on(enforce(&retained));
        });
        let (_, events) = read(&log, query(topics, Start::Earliest)).await;
        assert_ne!(segments(&disk).first(), Some(&path), "{topics:?}: it is deleted");
        let is_damage = |event: &&Event| matches!(event, Event::Damaged(_));
        assert_eq!(events.iter().find(is_damage), None, "{topics:?}");
        let (_, events) = read(&log, query(topics, Start::Earliest)).await;
        assert_eq!(events, [], "{topics:?}: the next reader");
    }
}

/// Closes a log, or kills its server. Returns its disk.
async fn ended(log: Log, disk: &Arc<Simulation>, is_killed: bool) -> Arc<Simulation> {
    let killed = disk.kill();
    log.close().await;
    if is_killed { killed } else { disk.kill() }
}

const COPIES: [&str; 4] = ["manifest.0", "manifest.1", "removed.0", "removed.1"];

fn read_copy(disk: &Arc<Simulation>, name: &str) -> std::io::Result<Vec<u8>> {
    let file = Storage::Simulated(disk.clone()).open(&Path::new(DIRECTORY).join(name), false)?;
    file.read(0, usize::try_from(file.len()?).unwrap())
}

#[tokio::test]
async fn a_copy_of_the_manifest_or_of_the_removals_that_cannot_be_read_is_written_again() {
    for (bad, name) in COPIES.iter().enumerate() {
        for is_killed in [true, false] {
            let disk = Simulation::new();
            let log = log_of_segments(&disk).await;
            log.purge_topic("a", None).await.unwrap();
            let mut disk = ended(log, &disk, is_killed).await;
            let path = Path::new(DIRECTORY).join(name);
            disk.make_bad(&path, 0..1);
            for start in 0..3 {
                let what = format!("{name}, killed {is_killed}, start {start}");
                let (log, opened) = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(opened.damaged, [""; 0], "{what}");
                let (messages, events) = read(&log, query(&[">"], Start::Earliest)).await;
                assert!(messages.len() >= 200 && events.is_empty(), "{what}: {events:?}");
                assert!(messages.iter().all(|(n, _)| *n > 400 || n % 2 == 1), "{what}");
                log.publish(text("c", "more")).await.unwrap();
                disk = ended(log, &disk, is_killed).await;
                for name in COPIES {
                    assert!(read_copy(&disk, name).is_ok(), "{what}: {name}");
                }
                // Now the other one.
                let other = COPIES[bad ^ 1];
                disk.make_bad(&Path::new(DIRECTORY).join(other), 0..1);
            }
        }
    }
}

#[tokio::test]
async fn a_log_of_which_both_copies_cannot_be_read_does_not_open() {
    for names in [[COPIES[0], COPIES[1]], [COPIES[2], COPIES[3]]] {
        let disk = Simulation::new();
        let log = log_of_segments(&disk).await;
        log.purge_topic("a", None).await.unwrap();
        log.close().await;
        for name in names {
            disk.make_bad(&Path::new(DIRECTORY).join(name), 0..1);
        }
        let error = open(&disk).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("os error 5"), "{error}");
    }
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
