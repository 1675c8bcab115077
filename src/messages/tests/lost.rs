//! Files of a log that are missing or damaged as a whole: segments, and copies of the manifest.

use super::{incarnations::copy_of, *};
use crate::messages::clock::Clock;
use embedded::tools::{self, verify};

const SEGMENT_BYTES: usize = 4_000;

fn small() -> Config {
    Config { segment_bytes: SEGMENT_BYTES, ..config() }
}

fn open_small(directory: &tempfile::TempDir) -> (Log, Opened) {
    open_with(directory, small())
}

/// A log of several segments, which is closed. Each message has its sequence as the beginning of its text.
async fn log_of_segments(directory: &tempfile::TempDir) {
    let (log, _) = open_small(directory);
    for n in 1..=40 {
        log.publish(text("a", &format!("{n} {}", "x".repeat(500)))).await.unwrap();
    }
    log.close().await;
}

/// The segments of a directory, in order: their paths and their first sequences.
fn segments(directory: &tempfile::TempDir) -> Vec<(PathBuf, u64)> {
    let paths = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let first = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let mut paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let mut segments = paths.by_ref().map(|path| (path.clone(), first(&path))).collect::<Vec<_>>();
    segments.sort();
    segments
}

fn findings(directory: &tempfile::TempDir) -> Vec<tools::Fault> {
    let mut faults = Vec::new();
    let verified = verify(directory.path(), |finding| faults.push(finding.fault.clone()), |_, _| ()).unwrap();
    assert_eq!(verified.damage > 0, faults.iter().any(tools::Fault::is_damage));
    faults
}

fn is_sound(directory: &tempfile::TempDir) -> bool {
    !findings(directory).iter().any(tools::Fault::is_damage)
}

/// Reads everything: each message is the one of its sequence. Returns the sequences, and the gaps.
async fn sequences(log: &Log) -> (Vec<u64>, Vec<Event>) {
    let (messages, events) = read(log, query(&["a"], Start::Earliest)).await;
    assert!(messages.iter().all(|(sequence, text)| text.starts_with(&format!("{sequence} "))));
    (messages.into_iter().map(|(sequence, _)| sequence).collect(), events)
}

#[tokio::test]
async fn a_lost_segment_is_a_gap_at_each_start_verify_fails_and_no_sequence_is_given_twice() {
    let source = tempfile::tempdir().unwrap();
    log_of_segments(&source).await;
    let all = segments(&source);
    assert!(all.len() >= 5 && is_sound(&source));
    for lost in 0..all.len() {
        let directory = copy_of(&source);
        let (path, first) = &segments(&directory)[lost];
        let end = all.get(lost + 1).map(|(_, next)| *next);
        std::fs::rename(path, directory.path().join("elsewhere")).unwrap();
        // The log was closed, so that the end of the newest one is known.
        let expected = tools::Fault::Lost { first: *first, last: Some(end.map_or(40, |end| end - 1)) };
        assert_eq!(findings(&directory), [expected]);
        let mut newest = 0;
        for start in 0..3 {
            let (log, opened) = open_small(&directory);
            assert_eq!(opened.damaged.len(), 1, "start {start}: {:?}", opened.damaged);
            let (found, events) = sequences(&log).await;
            let [Event::Damaged(range)] = events[..] else { panic!("{lost}: {events:?}") };
            assert_eq!(number(range.first), *first);
            let last = end.map_or(newest, |end| end - 1);
            assert!(newest == 0 && end.is_none() || number(range.last) == last, "{lost}: {range:?}");
            newest = number(range.last);
            let expected = (1..=40).filter(|n| !(*first..=newest).contains(n));
            assert!(found.iter().copied().filter(|n| *n <= 40).eq(expected), "{lost}: {found:?}");
            let published = number(log.publish(text("b", "new")).await.unwrap().sequence);
            assert!(published > 40 && published > newest && !is_sound(&directory));
            log.close().await;
        }
        // Back in its place, nothing is missing.
        std::fs::rename(directory.path().join("elsewhere"), path).unwrap();
        let (log, opened) = open_small(&directory);
        assert_eq!(opened.damaged, [""; 0]);
        let (found, events) = sequences(&log).await;
        assert_eq!(found, (1..=40).collect::<Vec<_>>());
        assert!(events.is_empty() && is_sound(&directory), "{events:?}");
        log.close().await;
    }
}

#[tokio::test]
async fn a_lost_segment_is_a_gap_when_what_is_before_it_is_removed_and_nothing_after_it() {
    let directory = tempfile::tempdir().unwrap();
    log_of_segments(&directory).await;
    let all = segments(&directory);
    let (first, end) = (all[1].1, all[2].1);
    std::fs::remove_file(&all[1].0).unwrap();
    let (log, _) = open_small(&directory);
    log.purge_topic("a", Some(sequence(first - 1))).await.unwrap();
    for is_new in [false, true] {
        super::workload::enforce(&log).await;
        assert!(!all[0].0.exists(), "what is before it is deleted");
        let (found, events) = sequences(&log).await;
        assert_eq!(events, [damaged(first, end - 1)], "new: {is_new}");
        assert_eq!(found, (end..=40).collect::<Vec<_>>(), "new: {is_new}");
    }
}

#[tokio::test]
async fn a_lost_oldest_segment_is_a_gap_when_a_segment_behind_one_that_is_left_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open_small(&directory);
    for n in 1..=40 {
        let topic = if (21..=34).contains(&n) { "b" } else { "a" };
        log.publish(text(topic, &format!("{n} {}", "x".repeat(500)))).await.unwrap();
    }
    log.close().await;
    let all = segments(&directory);
    let end = all[1].1;
    assert!(end <= 20, "a segment with messages of a is left before those of b");
    let is_of_b = |pair: &&[(PathBuf, u64)]| pair[0].1 >= 21 && pair[1].1 <= 35;
    let of_b = all.windows(2).find(is_of_b).expect("a segment has only messages of b");
    std::fs::remove_file(&all[0].0).unwrap();
    let (log, _) = open_small(&directory);
    log.purge_topic("b", None).await.unwrap();
    super::workload::enforce(&log).await;
    assert!(!of_b[0].0.exists(), "the segment is deleted");
    let expected = (end..=20).chain(35..=40).collect::<Vec<_>>();
    assert_eq!(sequences(&log).await, (expected.clone(), vec![damaged(1, end - 1)]));
    log.close().await;
    let (log, _) = open_small(&directory);
    assert_eq!(sequences(&log).await, (expected, vec![damaged(1, end - 1)]), "after a restart");
}

/// A log of messages a second apart, each of a topic of its own every third time, and the time of each.
async fn log_of_seconds(directory: &tempfile::TempDir, clock: &Clock) -> Vec<SystemTime> {
    let (log, _) = open_with(directory, Config { clock: clock.clone(), ..small() });
    let mut times = Vec::new();
    for n in 1..=40 {
        clock.advance(Duration::from_secs(1));
        let topic = if n % 3 == 0 { format!("own.{n}") } else { "a".into() };
        let new = text(&topic, &format!("{n} {}", "x".repeat(500)));
        times.push(log.publish(new).await.unwrap().time);
    }
    log.close().await;
    times
}

#[tokio::test]
async fn a_start_at_a_time_and_one_at_last_messages_report_a_lost_segment() {
    let source = tempfile::tempdir().unwrap();
    let clock = Clock::manual();
    let times = log_of_seconds(&source, &clock).await;
    let all = segments(&source);
    for lost in 0..all.len() {
        let directory = copy_of(&source);
        let (path, first) = &segments(&directory)[lost];
        std::fs::remove_file(path).unwrap();
        let last = all.get(lost + 1).map_or(40, |(_, next)| next - 1);
        let (log, _) = open_with(&directory, Config { clock: clock.clone(), ..small() });
        let starts = times.iter().enumerate().map(|(place, time)| (place as u64 + 1, Start::Time(*time)));
        for (from, start) in starts.chain([(1, Start::LastPerTopic)]) {
            let (messages, events) = read(&log, query(&[">"], start.clone())).await;
            let is_last = matches!(start, Start::LastPerTopic);
            let is_there = |n: u64| messages.iter().any(|(sequence, _)| *sequence == n);
            let is_reported = |n: u64| {
                events.iter().any(|event| matches!(event, Event::Damaged(range) if (number(range.first)..=number(range.last)).contains(&n)))
            };
            for n in from..=40 {
                let is_lost = (*first..=last).contains(&n);
                let is_due = is_there(n) || is_lost && is_reported(n) || is_last && n % 3 != 0;
                assert!(is_due, "{lost}, {start:?}: {n} is missing in silence, {events:?}");
                assert!(!(is_there(n) && is_reported(n)), "{lost}, {start:?}: {n} is there, and reported");
            }
        }
        log.close().await;
    }
}

#[tokio::test]
async fn a_lost_segment_stays_a_gap_when_those_beside_it_are_compacted() {
    let source = tempfile::tempdir().unwrap();
    let (log, _) = open_small(&source);
    for n in 1..=60 {
        let topic = if n % 6 == 0 { "kept" } else { "a" };
        log.publish(text(topic, &format!("{n} {}", "x".repeat(500)))).await.unwrap();
    }
    log.close().await;
    let all = segments(&source);
    for lost in 1..all.len() - 2 {
        let directory = copy_of(&source);
        std::fs::remove_file(&segments(&directory)[lost].0).unwrap();
        let config = Config { removal_delay: Duration::ZERO, ..small() };
        for start in 0..3 {
            let (log, opened) = open_with(&directory, config.clone());
            assert_eq!(opened.damaged.len(), 1, "{lost}, start {start}: {:?}", opened.damaged);
            if start == 0 {
                log.purge_topic("a", None).await.unwrap();
            }
            let embedded = log.embedded();
            embedded.enforce().await;
            assert!(segments(&directory).len() < all.len() - 3, "they are compacted");
            let (messages, events) = read(&log, query(&["kept"], Start::Earliest)).await;
            assert_eq!(events, [damaged(all[lost].1, all[lost + 1].1 - 1)], "{lost}, start {start}");
            assert!(messages.len() >= 8);
            log.close().await;
        }
        // Without a manifest, only the headers of the compacted segments say that there was more.
        for name in ["manifest.0", "manifest.1"] {
            std::fs::write(directory.path().join(name), "nothing").unwrap();
        }
        let (log, _) = open_with(&directory, config);
        let (_, events) = read(&log, query(&["kept"], Start::Earliest)).await;
        let covers = |event: &Event| {
            matches!(event, Event::Damaged(range) if number(range.first) <= all[lost].1
                && number(range.last) >= all[lost + 1].1 - 1)
        };
        assert!(events.iter().any(covers), "{lost}, without a manifest: {events:?}");
        log.close().await;
    }
}

#[tokio::test]
async fn a_reader_learns_at_once_that_only_a_loss_was_left_to_catch_up_with() {
    let directory = tempfile::tempdir().unwrap();
    log_of_segments(&directory).await;
    for (path, _) in &segments(&directory)[..2] {
        std::fs::remove_file(path).unwrap();
    }
    let (log, _) = open_small(&directory);
    for start in [Start::Earliest, Start::LastPerTopic] {
        let batching = Batching { heartbeat: Duration::from_secs(3600), ..Batching::default() };
        let query = Query { batching, stop: Stop::default(), ..query(&["another"], start.clone()) };
        let mut batches = subscribe(&log, query).await.unwrap();
        let mut events = Vec::new();
        loop {
            let batch = next(&mut batches).await.unwrap();
            events.extend(batch.events);
            if batch.progress.caught_up {
                break;
            }
        }
        assert!(!events.is_empty(), "{start:?}");
    }
}

#[tokio::test]
async fn several_lost_segments_are_all_gaps_and_each_is_reported_once() {
    let source = tempfile::tempdir().unwrap();
    log_of_segments(&source).await;
    let all = segments(&source);
    for lost in 1..1_u32 << all.len().min(6) {
        let directory = copy_of(&source);
        for (place, (path, _)) in segments(&directory).iter().enumerate() {
            if lost >> place & 1 == 1 {
                std::fs::remove_file(path).unwrap();
            }
        }
        assert!(!is_sound(&directory));
        let (log, _) = open_small(&directory);
        let (found, events) = sequences(&log).await;
        let is_reported = |n: &u64| {
            let in_range = |event: &Event| matches!(event, Event::Damaged(range) if (number(range.first)..=number(range.last)).contains(n));
            events.iter().filter(|event| in_range(event)).count()
        };
        for n in 1..=40 {
            assert_eq!(usize::from(found.contains(&n)) + is_reported(&n), 1, "{lost:b}: sequence {n}");
        }
        assert!(number(log.publish(text("b", "new")).await.unwrap().sequence) > 40);
        log.close().await;
    }
}

#[tokio::test]
async fn a_reader_gets_a_gap_for_a_lost_segment_also_when_retention_has_removed_all_that_was_beside_it() {
    let source = tempfile::tempdir().unwrap();
    let clock = Clock::manual();
    let config = Config {
        clock: clock.clone(),
        removal_delay: Duration::ZERO,
        dedupe_window: Duration::ZERO,
        ..small()
    };
    let (log, _) = open_with(&source, config.clone());
    for n in 1..=60 {
        let ttl = (n > 20).then_some(Duration::from_secs(1));
        let topic = if n > 20 { "short" } else { "a" };
        log.publish(NewMessage { ttl, ..text(topic, &format!("{n} {}", "x".repeat(500))) }).await.unwrap();
    }
    let one = Batching { limit: Some(1), ..Batching::default() };
    let mut batches =
        subscribe(&log, Query { batching: one, ..query(&["a"], Start::Earliest) }).await.unwrap();
    let mut begun = None;
    while let Some(batch) = next(&mut batches).await {
        begun = Some(batch.position);
    }
    log.close().await;
    for lost in [0, 1] {
        let directory = copy_of(&source);
        let all = segments(&directory);
        std::fs::remove_file(&all[lost].0).unwrap();
        clock.advance(Duration::from_secs(5));
        for start in 0..3 {
            let (log, _) = open_with(&directory, config.clone());
            let embedded = log.embedded();
            embedded.enforce().await;
            assert!(segments(&directory).len() < all.len() - 2, "what expired is removed");
            for topics in [&["a"][..], &[">"]] {
                let (found, events) = read(&log, query(topics, Start::Resume(begun.clone().unwrap()))).await;
                let found = found.into_iter().map(|(sequence, _)| sequence).collect::<Vec<_>>();
                for n in 2..=20 {
                    let is_in = |event: &Event| matches!(event, Event::Damaged(range) | Event::Removed(range) if (number(range.first)..=number(range.last)).contains(&n));
                    assert!(
                        found.contains(&n) || events.iter().any(is_in),
                        "{lost}, start {start}: {n}, {events:?}"
                    );
                }
            }
            log.close().await;
        }
    }
}

#[tokio::test]
async fn one_damaged_or_missing_copy_of_the_manifest_costs_nothing_and_is_written_again() {
    let source = tempfile::tempdir().unwrap();
    log_of_segments(&source).await;
    for name in ["manifest.0", "manifest.1"] {
        for damage in 0..3 {
            let directory = copy_of(&source);
            let path = directory.path().join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            match damage {
                0 => std::fs::remove_file(&path).unwrap(),
                1 => std::fs::write(&path, &bytes[..20]).unwrap(),
                _ => {
                    bytes[40] ^= 1;
                    std::fs::write(&path, bytes).unwrap();
                }
            }
            let faults = findings(&directory);
            assert_eq!(faults, vec![tools::Fault::ManifestCopy; usize::from(damage > 0)]);
            // The other copy still notices what is lost.
            std::fs::remove_file(&segments(&directory)[1].0).unwrap();
            let (log, opened) = open_small(&directory);
            assert_eq!(opened.damaged.len(), 1, "{:?}", opened.damaged);
            log.close().await;
            let has_both =
                ["manifest.0", "manifest.1"].map(|name| std::fs::read(directory.path().join(name)));
            assert!(has_both.iter().all(|bytes| bytes.as_ref().unwrap().len() > 20));
            assert!(!findings(&directory).contains(&tools::Fault::ManifestCopy));
        }
    }
}

#[tokio::test]
async fn without_a_manifest_the_headers_say_what_is_missing() {
    let source = tempfile::tempdir().unwrap();
    log_of_segments(&source).await;
    let all = segments(&source);
    for lost in [vec![], vec![0], vec![1], vec![1, 2], vec![0, 1, 3]] {
        let directory = copy_of(&source);
        let paths = segments(&directory);
        for name in ["manifest.0", "manifest.1"] {
            std::fs::write(directory.path().join(name), "nothing").unwrap();
        }
        for place in &lost {
            let place: &usize = place;
            std::fs::remove_file(&paths[*place].0).unwrap();
        }
        assert!(findings(&directory).contains(&tools::Fault::ManifestLost));
        let (log, opened) = open_small(&directory);
        assert!(opened.damaged[0].contains("the manifest"), "{:?}", opened.damaged);
        let (found, events) = sequences(&log).await;
        let is_lost = |n: &u64| {
            let place = all.partition_point(|(_, first)| first <= n) - 1;
            lost.contains(&place)
        };
        assert!(found.iter().copied().eq((1..=40).filter(|n| !is_lost(n))), "{lost:?}: {found:?}");
        for n in (1..=40).filter(is_lost) {
            let is_in = |event: &Event| matches!(event, Event::Damaged(range) if (number(range.first)..=number(range.last)).contains(&n));
            assert!(events.iter().any(is_in), "{lost:?}: {n} is not reported");
        }
        log.close().await;
        let (log, opened) = open_small(&directory);
        assert_eq!(opened.damaged.len(), usize::from(!lost.is_empty()) + usize::from(lost.len() > 2));
        log.close().await;
    }
}

#[tokio::test]
async fn a_copy_that_is_made_while_the_server_writes_opens_whatever_the_order_of_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open_small(&directory);
    for n in 1..=10 {
        log.publish(text("a", &format!("{n} {}", "x".repeat(500)))).await.unwrap();
    }
    let early = copy_of(&directory);
    for n in 11..=40 {
        log.publish(text("a", &format!("{n} {}", "x".repeat(500)))).await.unwrap();
    }
    let late = copy_of(&directory);
    let mix = |manifest: &tempfile::TempDir, other: &tempfile::TempDir| {
        let copy = copy_of(other);
        for name in ["manifest.0", "manifest.1"] {
            std::fs::copy(manifest.path().join(name), copy.path().join(name)).unwrap();
        }
        copy
    };
    // Segments that the manifest does not list are taken in.
    let mixed = mix(&early, &late);
    let (copy, opened) = open_small(&mixed);
    assert_eq!(opened.damaged, [""; 0]);
    assert_eq!(sequences(&copy).await, ((1..=40).collect(), vec![]));
    // Listed ones that were not copied are a gap, and so is the rest of the one that was written.
    let mixed = mix(&late, &early);
    let (copy, opened) = open_small(&mixed);
    assert!(!opened.damaged.is_empty());
    let (found, events) = sequences(&copy).await;
    assert_eq!(found, (1..=10).collect::<Vec<_>>());
    let covered = |n: u64| {
        let is_in = |event: &Event| matches!(event, Event::Damaged(range) if (number(range.first)..=number(range.last)).contains(&n));
        events.iter().any(is_in)
    };
    assert!((11..=40).all(covered), "{events:?}");
    assert!(number(copy.publish(text("b", "new")).await.unwrap().sequence) > 40);
}

#[tokio::test]
async fn a_manifest_of_another_log_is_refused_and_so_is_one_of_a_newer_version() {
    let [directory, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    log_of_segments(&directory).await;
    log_of_segments(&other).await;
    let path = directory.path().join("manifest.0");
    let own = std::fs::read(&path).unwrap();
    for name in ["manifest.0", "manifest.1"] {
        std::fs::copy(other.path().join(name), directory.path().join(name)).unwrap();
    }
    assert!(matches!(Log::open(directory.path(), small()), Err(OpenError::Foreign { .. })));
    let mut newer = own;
    newer[8] = 9;
    let length = usize::try_from(u32::from_le_bytes(newer[12..16].try_into().unwrap())).unwrap();
    let checksum = crc32c::crc32c(&newer[..length - 4]).to_le_bytes();
    newer[length - 4..length].copy_from_slice(&checksum);
    std::fs::write(&path, newer).unwrap();
    assert!(matches!(Log::open(directory.path(), small()), Err(OpenError::Version { version: 9, .. })));
}

/// Rolls, a deleted segment, and a compaction.
async fn work(log: &Log) {
    for n in 1..=20 {
        let topic = if n % 5 == 0 { "kept" } else { "a" };
        let _ = log.publish(text(topic, &format!("{n} {}", "x".repeat(400)))).await;
    }
    let _ = log.purge_topic("a", Some(sequence(12))).await;
    let embedded = log.embedded();
    embedded.enforce().await;
}

#[tokio::test]
async fn what_retention_removes_is_not_lost_whatever_call_the_power_fails_at() {
    let open = |disk: &Arc<Simulation>| {
        let config = Config { disk: Storage::Simulated(disk.clone()), segment_bytes: 2_000, ..config() };
        Log::open(Path::new("/log"), config).unwrap()
    };
    let whole = Simulation::new();
    let (log, _) = open(&whole);
    work(&log).await;
    let calls = whole.calls();
    log.close().await;
    for call in 0..calls {
        let disk = Simulation::new();
        let config = Config { disk: Storage::Simulated(disk.clone()), segment_bytes: 2_000, ..config() };
        disk.fail_at(call, Fault::Power);
        if let Ok((log, _)) = Log::open(Path::new("/log"), config) {
            work(&log).await;
        }
        for seed in 0..4 {
            let (log, opened) = open(&disk.lose_power(seed));
            assert_eq!(opened.damaged, [""; 0], "call {call}, seed {seed}");
            let (messages, events) = read(&log, query(&["kept"], Start::Earliest)).await;
            assert_eq!(events, [], "call {call}, seed {seed}");
            assert!(
                messages
                    .iter()
                    .map(|(sequence, _)| *sequence)
                    .eq([5, 10, 15, 20].into_iter().take(messages.len()))
            );
        }
    }
}
