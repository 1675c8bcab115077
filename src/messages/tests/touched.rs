//! Files of a log that something else than its server changes: emptied, copied, replaced, or of a later version.

use super::{incarnations::copy_of, workload::embedded, *};
use crate::messages::embedded::tools::{self, verify};

/// Small segments.
fn small() -> Config {
    Config { segment_bytes: 4_000, ..config() }
}

async fn publish(log: &Log, count: usize) {
    for n in 0..count {
        log.publish(text("a", &format!("{n} {}", "x".repeat(500)))).await.unwrap();
    }
}

/// A log of several segments, which is closed.
async fn log_of_segments() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open_with(&directory, small());
    publish(&log, 40).await;
    log.close().await;
    directory
}

/// The paths of the segments, in order.
fn segments(directory: &tempfile::TempDir) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut paths = paths.filter(|path| path.extension().is_some_and(|e| e == "log")).collect::<Vec<_>>();
    paths.sort();
    paths
}

fn first_sequence(path: &Path) -> u64 {
    path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

fn is_sound(directory: &tempfile::TempDir) -> bool {
    let mut is_sound = true;
    let verified =
        verify(directory.path(), |finding| is_sound &= !finding.fault.is_damage(), |_, _| ()).unwrap();
    assert_eq!(verified.damage == 0, is_sound);
    is_sound
}

#[tokio::test]
async fn a_segment_that_was_emptied_is_a_gap_and_no_sequence_is_given_twice() {
    let source = log_of_segments().await;
    let count = segments(&source).len();
    assert!(count >= 4 && is_sound(&source));
    for (place, is_short) in [(count - 1, true), (count - 1, false), (1, true), (1, false), (0, true)] {
        let directory = copy_of(&source);
        let path = &segments(&directory)[place];
        let length = std::fs::metadata(path).unwrap().len();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_len(0).unwrap();
        if !is_short {
            file.set_len(length).unwrap();
        }
        let what = format!("segment {place} of {count}, short: {is_short}");
        assert!(!is_sound(&directory), "{what}");
        let first = first_sequence(path);
        let end = segments(&directory).get(place + 1).map(|next| first_sequence(next));
        let mut newest = 40;
        for start in 0..2 {
            let (log, opened) = open_with(&directory, small());
            assert!(!opened.damaged.is_empty(), "{what}, start {start}");
            let (messages, events) = read(&log, query(&["a"], Start::Earliest)).await;
            let [Event::Damaged(range)] = events[..] else { panic!("{what}, start {start}: {events:?}") };
            assert!(number(range.first) == first, "{what}: {range:?}");
            assert!(end.is_none_or(|end| number(range.last) == end - 1), "{what}: {range:?}");
            let is_lost = |n: &u64| (number(range.first)..=number(range.last)).contains(n);
            let expected = (1..=40).filter(|n| !is_lost(n)).collect::<Vec<_>>();
            let old = messages.iter().map(|(sequence, _)| *sequence).filter(|sequence| *sequence <= 40);
            assert_eq!(old.collect::<Vec<_>>(), expected, "{what}, start {start}");
            let published = number(log.publish(text("b", "new")).await.unwrap().sequence);
            assert!(published > newest && !is_lost(&published), "{what}: {published} in {range:?}");
            newest = published;
            log.close().await;
        }
        assert!(!is_sound(&directory), "{what}");
    }
}

#[tokio::test]
async fn the_newest_segment_of_a_closed_log_that_was_cut_is_a_gap_at_each_start() {
    let source = log_of_segments().await;
    let path = segments(&source).pop().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let block = |nth: usize| memchr::memmem::find_iter(&bytes, b"PBLK").nth(nth).unwrap();
    let mark = memchr::memmem::rfind(&bytes, b"PEND").unwrap();
    let cuts = [(mark, true), (mark + 3, true), (mark - 1, false), (block(1), false), (block(1) + 70, false)];
    for (cut, is_whole) in cuts {
        let mut directory = copy_of(&source);
        let path = segments(&directory).pop().unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(cut as u64).unwrap();
        assert_eq!(is_sound(&directory), cut == mark, "cut at {cut}");
        let mut before = 40;
        for start in 0..3 {
            let (log, _) = open_with(&directory, small());
            let (messages, events) = read(&log, query(&["a"], Start::Earliest)).await;
            let last = messages.iter().map(|(sequence, _)| *sequence).filter(|n| *n <= 40).max().unwrap();
            let what = format!("cut at {cut}, start {start}, up to {last}");
            let expected = if is_whole { vec![] } else { vec![damaged(last + 1, 40)] };
            assert_eq!((events, last == 40), (expected, is_whole), "{what}");
            let published = number(log.publish(text("a", "new")).await.unwrap().sequence);
            assert!(published > before, "{what}: {published}");
            before = published;
            if start == 0 {
                log.close().await;
            } else {
                // As after a kill.
                let killed = copy_of(&directory);
                drop(log);
                directory = killed;
            }
        }
    }
}

#[tokio::test]
async fn files_with_other_names_beside_the_segments_are_left_alone() {
    let directory = log_of_segments().await;
    let all = segments(&directory);
    let names = ["1.log", "+0000000000000000001.log", "0.log", "00000000000000000001.log.bak", "copy.log"];
    for name in names {
        std::fs::copy(&all[1], directory.path().join(name)).unwrap();
    }
    std::fs::create_dir(directory.path().join("2.log")).unwrap();
    assert!(is_sound(&directory));
    let (log, opened) = open_with(&directory, small());
    assert_eq!(opened.damaged, [""; 0]);
    let (messages, events) = read(&log, query(&["a"], Start::Earliest)).await;
    assert_eq!((messages.len(), events), (40, vec![]));
    assert_eq!(log.publish(text("a", "new")).await.unwrap().sequence, 41);
    log.close().await;
    for name in names {
        let path = directory.path().join(name);
        assert_eq!(std::fs::read(path).unwrap(), std::fs::read(&all[1]).unwrap(), "{name}");
    }
}

#[tokio::test]
async fn a_log_whose_newest_file_is_removed_moved_or_replaced_accepts_no_message() {
    for change in ["removed", "moved", "replaced by a copy", "replaced by rename"] {
        let directory = tempfile::tempdir().unwrap();
        let (log, _) = open_with(&directory, small());
        publish(&log, 2).await;
        let path = segments(&directory).pop().unwrap();
        let other = directory.path().join("other");
        match change {
            "removed" => std::fs::remove_file(&path).unwrap(),
            "moved" => std::fs::rename(&path, &other).unwrap(),
            _ => {
                std::fs::copy(&path, &other).unwrap();
                if change == "replaced by a copy" {
                    std::fs::remove_file(&path).unwrap();
                }
                std::fs::rename(&other, &path).unwrap();
            }
        }
        let refused = log.publish(text("a", "2")).await;
        assert!(matches!(refused, Err(Error::Failed)), "{change}: {refused:?}");
        assert!(*log.failed().borrow(), "{change}");
        let (messages, events) = read(&log, query(&["a"], Start::Earliest)).await;
        assert_eq!((messages.len(), events), (2, vec![]), "{change}: reading goes on");
        log.close().await;
        let (log, opened) = open_with(&directory, small());
        let is_lost = change == "removed" || change == "moved";
        assert_eq!(is_lost, !opened.damaged.is_empty(), "{change}: {:?}", opened.damaged);
        assert!(log.publish(text("a", "3")).await.unwrap().sequence.get() > 2, "{change}");
    }
}

#[tokio::test]
async fn removals_of_a_later_version_are_refused_and_stay() {
    let directory = log_of_segments().await;
    let (log, _) = open_with(&directory, small());
    log.purge_topic("a", Some(sequence(30))).await.unwrap();
    log.close().await;
    let paths = [0, 1].map(|copy| directory.path().join(format!("removed.{copy}")));
    let before = paths.each_ref().map(|path| std::fs::read(path).unwrap());
    // Of one that was being upgraded, one copy may be in the old version.
    for later in [&[0, 1][..], &[0], &[1]] {
        for (path, bytes) in paths.iter().zip(&before) {
            std::fs::write(path, bytes).unwrap();
        }
        for path in later.iter().map(|copy| &paths[*copy]) {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[8] += 1;
            let length = u64::from_le_bytes(bytes[20..28].try_into().unwrap());
            let end = 28 + usize::try_from(length).unwrap();
            let checksum = crc32c::crc32c(&bytes[..end]).to_le_bytes();
            bytes[end..end + 4].copy_from_slice(&checksum);
            std::fs::write(path, bytes).unwrap();
        }
        let changed = paths.each_ref().map(|path| std::fs::read(path).unwrap());
        let refused = Log::open(directory.path(), small()).unwrap_err();
        assert!(matches!(refused, OpenError::Version { version: 5, .. }), "{later:?}: {refused}");
        assert!(verify(directory.path(), |_| (), |_, _| ()).is_err());
        assert!(tools::Archive::open(directory.path(), &[]).is_err());
        assert_eq!(paths.each_ref().map(|path| std::fs::read(path).unwrap()), changed, "{later:?}");
    }
}

#[tokio::test]
async fn a_log_with_erased_messages_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open_with(&directory, Config { removal_delay: Duration::ZERO, ..small() });
    for n in 0..40 {
        let expiring = NewMessage { ttl: Some(Duration::from_millis(1)), ..text("e", "expires") };
        let purged = text("a", &"secret ".repeat(60));
        let all = [text("b", &n.to_string()), purged.clone(), expiring, text("b", "kept"), purged];
        // The blocks of some consist of erased messages alone.
        let all = if n % 3 == 0 { all[1..3].to_vec() } else { all.to_vec() };
        log.publish_batch(all).await.unwrap();
    }
    log.purge_topic("a", None).await.unwrap();
    embedded(&log).enforce().await;
    assert_eq!(log.owed_erasures(), 0);
    embedded(&log).sweep().await;
    for is_closed in [false, true] {
        if is_closed {
            log.close().await;
        }
        for path in segments(&directory) {
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(memchr::memmem::find(&bytes, b"secret "), None, "{}", path.display());
        }
        assert!(is_sound(&directory), "closed: {is_closed}");
    }
    let (log, opened) = open_with(&directory, small());
    assert_eq!(opened.damaged, [""; 0]);
    let (messages, events) = read(&log, query(&[">"], Start::Earliest)).await;
    assert_eq!((messages.len(), events), (52, vec![]));
}
