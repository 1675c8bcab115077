//! A start at a time passes over no damage that may be of that time, and damage that is found late is reported, too.

use super::*;
use crate::messages::clock::Clock;

/// A log of full segments with an index, whose messages of "a" are a second apart. Returns their times, too.
async fn with_times() -> (Arc<Simulation>, Clock, Vec<SystemTime>) {
    let (disk, clock) = (Simulation::new(), Clock::manual());
    let (log, _) = open_at(&disk, &clock);
    let mut times = Vec::new();
    for n in 1..=24 {
        clock.advance(Duration::from_secs(1));
        times.push(log.publish(super::text("a", &format!("{n} {}", "x".repeat(60)))).await.unwrap().time);
        embedded(&log).settle().await;
    }
    log.close().await;
    (disk, clock, times)
}

fn open_at(disk: &Arc<Simulation>, clock: &Clock) -> (Log, Opened) {
    let config = Config { clock: clock.clone(), ..small(disk, 1_000) };
    Log::open(Path::new(DIRECTORY), config).unwrap()
}

/// The segments of a log, in order.
fn segments_of(disk: &Arc<Simulation>) -> Vec<PathBuf> {
    let mut paths = disk.list(Path::new(DIRECTORY)).unwrap();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

/// Each of the sequences from the first to the last is read, or reported as damaged, and not both.
async fn check_from(log: &Log, start: Start, (first, last): (u64, u64), what: &str) -> Vec<Event> {
    let (messages, events) = read(log, query(&["a"], start.clone())).await;
    for n in first..=last {
        let is_read = messages.iter().any(|(sequence, _)| *sequence == n);
        let is_in = |event: &Event| matches!(event, Event::Damaged(range) if (range.first.get()..=range.last.get()).contains(&n));
        let is_reported = events.iter().any(is_in);
        assert!(is_read != is_reported, "{what}, {start:?}: {n} is {is_read} and {is_reported}, {events:?}");
    }
    events
}

#[tokio::test]
async fn a_start_at_a_time_passes_over_no_damage_that_may_be_of_that_time() {
    let (whole, clock, times) = with_times().await;
    let paths = segments_of(&whole);
    for path in &paths {
        let blocks = memchr::memmem::find_iter(&whole.read_file(path), b"PBLK").collect::<Vec<_>>();
        for (block, is_known_before) in blocks.into_iter().flat_map(|block| [(block, false), (block, true)]) {
            let disk = whole.kill();
            disk.flip(path, block as u64 + 30, 1);
            let (log, _) = open_at(&disk, &clock);
            let what = format!("byte {block} of {}, known: {is_known_before}", path.display());
            if is_known_before {
                check_from(&log, Start::Earliest, (1, 24), &what).await;
            }
            for (from, time) in (1..).zip(&times) {
                let events = check_from(&log, Start::Time(*time), (from, 24), &what).await;
                // The index of a full segment has the times of its messages.
                let is_old = |range: &SequenceRange| range.last.get() + 8 < from;
                let is_full = *path != paths[paths.len() - 1];
                let is_noise = |event: &Event| matches!(event, Event::Damaged(range) if is_old(range));
                assert!(!is_full || !events.iter().any(is_noise), "{what}, from {from}: {events:?}");
            }
            log.close().await;
        }
    }
}

#[tokio::test]
async fn damage_that_is_found_when_an_index_is_built_again_is_reported_to_the_reader_that_finds_it() {
    let (whole, clock, times) = with_times().await;
    let path = &segments_of(&whole)[1];
    let bytes = whole.read_file(path);
    let blocks = memchr::memmem::find_iter(&bytes, b"PBLK").collect::<Vec<_>>();
    assert!(blocks.len() >= 3, "{blocks:?}");
    let starts = [(1, Start::Earliest), (1, Start::Time(times[0])), (3, Start::Time(times[2]))];
    for (block, (from, start)) in
        blocks.iter().flat_map(|block| starts.iter().map(move |start| (*block, start)))
    {
        let disk = whole.kill();
        let (log, _) = open_at(&disk, &clock);
        disk.flip(path, block as u64 + 30, 1);
        let trailer = bytes.len() - embedded::format::footer::TRAILER_BYTES;
        let records = u64::from_le_bytes(bytes[trailer + 40..trailer + 48].try_into().unwrap());
        disk.flip(path, records, 1);
        let events = check_from(&log, start.clone(), (*from, 24), &format!("block at byte {block}")).await;
        assert_eq!(events.len(), 1);
        log.close().await;
    }
}
