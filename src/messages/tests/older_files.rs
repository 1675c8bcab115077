//! Files of a log that were brought back from an older copy of it, without the others.

use super::{
    workload::{embedded, enforce},
    *,
};

const SEGMENT_BYTES: usize = 4_000;

fn open(directory: &tempfile::TempDir) -> (Log, Opened) {
    let config = Config {
        segment_bytes: SEGMENT_BYTES,
        removal_delay: Duration::ZERO,
        dedupe_window: Duration::ZERO,
        ..config()
    };
    open_with(directory, config)
}

/// The files whose names begin with one of these.
fn files(directory: &tempfile::TempDir, names: &[&str]) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        names.iter().any(|start| name.starts_with(start))
    };
    paths.filter(is_one).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn purged_messages_do_not_come_back_with_an_older_list_of_removals_or_of_files() {
    for names in [&["removed."][..], &["manifest."], &["removed.", "manifest."]] {
        let directory = tempfile::tempdir().unwrap();
        let (log, _) = open(&directory);
        for n in 1..=30 {
            log.publish(text(["a", "b"][n % 2], &format!("{n} {}", "x".repeat(500)))).await.unwrap();
        }
        log.close().await;
        let older = files(&directory, names);
        assert!(older.len() >= names.len(), "{names:?}");
        let (log, _) = open(&directory);
        log.purge_topic("a", Some(sequence(20))).await.unwrap();
        log.purge_topic("b", Some(sequence(10))).await.unwrap();
        for n in 31..=60 {
            log.publish(text(["a", "b"][n % 2], &format!("{n} {}", "x".repeat(500)))).await.unwrap();
        }
        for _ in 0..2 {
            enforce(&log).await;
        }
        assert_eq!(embedded(&log).owed_erasures(), 0);
        let (expected, events) = read(&log, query(&[">"], Start::Earliest)).await;
        assert_eq!((expected.first().map(|(sequence, _)| *sequence), events), (Some(11), vec![]));
        log.close().await;
        for (path, bytes) in older {
            std::fs::write(path, bytes).unwrap();
        }
        for start in 0..3 {
            let (log, _) = open(&directory);
            let (found, events) = read(&log, query(&[">"], Start::Earliest)).await;
            assert!(found == expected, "{names:?}, start {start}: {found:.40?}");
            // A file that was deleted since is missing by the older list.
            let is_right = |event: &Event| {
                let is_kept = |range: &SequenceRange| {
                    let range = number(range.first)..=number(range.last);
                    expected.iter().any(|(sequence, _)| range.contains(sequence))
                };
                matches!(event, Event::Damaged(range) if names.contains(&"manifest.") && !is_kept(range))
            };
            assert!(events.iter().all(is_right), "{names:?}, start {start}: {events:?}");
            assert_eq!(!events.is_empty(), names.contains(&"manifest."), "{names:?}, start {start}");
            enforce(&log).await;
            log.close().await;
        }
    }
}
