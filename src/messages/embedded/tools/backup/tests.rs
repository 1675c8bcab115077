//! Backups of logs that were damaged, into directories that hold something else, and from backups that were changed.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;

use super::{
    super::{
        Fault,
        tests::{files, make},
        verify,
    },
    *,
};
use crate::messages::{Sequence, embedded::format::trim_points::TrimPoint};

/// A log of several segments that was closed some time ago.
async fn log() -> Source {
    let source = Source(tempfile::tempdir().unwrap());
    let log = make(&source.path()).await;
    log.purge_topic("a", Sequence::new(1)).await.unwrap();
    log.close().await;
    age(&source.path());
    source
}

/// A data directory.
struct Source(TempDir);

impl Source {
    /// The directory of the log.
    fn path(&self) -> PathBuf {
        self.0.path().join("messages")
    }
}

/// Sets the times of all files back, so that a backup does not wait until the newest segment is quiet.
fn age(directory: &Path) {
    for path in files(directory).iter().filter(|path| path.is_file()) {
        let past = SystemTime::now() - Duration::from_secs(60);
        fs::File::open(path).unwrap().set_modified(past).unwrap();
    }
}

fn make_backup(log: &Source, to: &TempDir, replaces: bool) -> Result<BackedUp, Error> {
    backup(&log.path(), to.path(), replaces, |_, _| ())
}

/// The names and contents of the files below a directory.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut contents = BTreeMap::new();
    for path in files(directory) {
        if path.is_dir() {
            contents.extend(self::contents(&path));
        } else {
            contents.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    contents
}

/// The sound segments of a log that are not the newest one.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let mut segments = files(directory).into_iter().filter(is_segment).collect::<Vec<_>>();
    segments.pop();
    segments
}

#[tokio::test]
async fn a_backup_is_kept_if_the_log_has_lost_messages_that_it_has() {
    type Loss = fn(&Path);
    let losses: [(&str, Loss); 4] = [
        ("the file is missing", |log| fs::remove_file(&segments(log)[1]).unwrap()),
        ("a message of", |log| {
            let text = |path: &PathBuf| memchr::memmem::rfind(&fs::read(path).unwrap(), "ü".as_bytes());
            // The last one, because the first message is purged.
            let path = &segments(log).into_iter().rfind(|path| text(path).is_some()).unwrap();
            let (mut bytes, at) = (fs::read(path).unwrap(), text(path).unwrap());
            bytes[at + 1] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("removed messages that are still on disk", |log| {
            for name in ["removed.0", "removed.1"] {
                fs::write(log.join(name), "no trim points").unwrap();
            }
        }),
        ("the manifest is lost", |log| {
            for name in manifest::NAMES {
                fs::write(log.join(name), "no manifest").unwrap();
            }
        }),
    ];
    for (expected, lose) in losses {
        let (log, to) = (log().await, tempfile::tempdir().unwrap());
        make_backup(&log, &to, false).unwrap();
        let whole = to.path().join(WHOLE);
        let before = contents(&whole);
        lose(&log.path());
        age(&log.path());
        for _ in 0..2 {
            let error = make_backup(&log, &to, false).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::Worse { .. }), "{text}");
            assert!(text.contains("--replace") && text.contains(expected), "{text}");
            assert!(contents(&whole) == before, "{expected}");
        }
        // It is still a backup that can be restored.
        let restored = tempfile::tempdir().unwrap();
        restore(to.path(), &restored.path().join("messages"), |_, _| ()).unwrap();
        let made = make_backup(&log, &to, true).unwrap();
        assert!(!made.faults.is_empty(), "{expected}");
        assert!(contents(&whole) != before, "{expected}");
        assert!(!to.path().join(UNFINISHED).exists());
        // The backup before has the same fault now.
        make_backup(&log, &to, false).unwrap();
    }
}

#[tokio::test]
async fn a_first_backup_of_a_damaged_log_is_made_and_a_copy_of_the_manifest_is_no_loss() {
    let (log, to) = (log().await, tempfile::tempdir().unwrap());
    fs::remove_file(&segments(&log.path())[1]).unwrap();
    let made = make_backup(&log, &to, false).unwrap();
    assert!(matches!(made.faults[..], [Finding { fault: Fault::Lost { .. }, .. }]), "{made:?}");
    fs::write(log.path().join("manifest.0"), "half of it").unwrap();
    let made = make_backup(&log, &to, false).unwrap();
    assert_eq!(made.faults.len(), 2, "{made:?}");
}

#[tokio::test]
async fn a_directory_with_anything_else_in_it_is_left_as_it_is() {
    let log = log().await;
    for names in [
        &["messages.old"][..],
        &["messages", "messages.old"],
        &["messages.unfinished"],
        &["messages", "messages.unfinished", "messages.old"],
        &["backup/messages", "messages.old"],
        &["backup/messages", "messages.unfinished"],
        &["messages.unfinished.old", "backup/messages.old"],
    ] {
        let to = tempfile::tempdir().unwrap();
        for name in names {
            if let Some(name) = name.strip_prefix("backup/") {
                make_backup(&log, &to, false).unwrap();
                fs::rename(to.path().join(WHOLE), to.path().join(name)).unwrap();
            }
        }
        for name in names.iter().filter(|name| !name.contains('/')) {
            // A log that was moved away.
            fs::create_dir(to.path().join(name)).unwrap();
            for path in files(&log.path()) {
                fs::copy(&path, to.path().join(name).join(path.file_name().unwrap())).unwrap();
            }
        }
        let before = contents(to.path());
        let error = make_backup(&log, &to, true).unwrap_err();
        assert!(matches!(error, Error::NotABackup { .. }), "{names:?}: {error}");
        assert!(contents(to.path()) == before, "{names:?}");
    }
    // A link is not followed.
    let (to, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_backup(&log, &elsewhere, false).unwrap();
    symlink(elsewhere.path().join(WHOLE), to.path().join(OLD)).unwrap();
    let error = make_backup(&log, &to, false).unwrap_err();
    assert!(matches!(error, Error::NotABackup { .. }), "{error}");
}

#[tokio::test]
async fn an_exchange_that_was_interrupted_is_completed() {
    let log = log().await;
    for (moved, left) in [
        // After the backup before was renamed, and before the new one was.
        (OLD, &[][..]),
        // While the backup before was removed.
        (WHOLE, &[(OLD, &["backup.ndjson", "removed.0"][..])]),
        (WHOLE, &[(OLD, &[])]),
        // Before the first file was copied.
        (WHOLE, &[(UNFINISHED, &["backup.ndjson.part"])]),
    ] {
        let to = tempfile::tempdir().unwrap();
        make_backup(&log, &to, false).unwrap();
        let whole = to.path().join(WHOLE);
        fs::rename(&whole, to.path().join("x")).unwrap();
        fs::rename(to.path().join("x"), to.path().join(moved)).unwrap();
        let from = to.path().join(moved);
        for (directory, names) in left {
            fs::create_dir(to.path().join(directory)).unwrap();
            for name in *names {
                let file = from.join(name.trim_end_matches(".part"));
                fs::copy(file, to.path().join(directory).join(name)).unwrap();
            }
        }
        assert_eq!(make_backup(&log, &to, false).unwrap().copied_segments, 1, "the newest one");
        assert_eq!(files(to.path()), [whole]);
    }
}

#[tokio::test]
async fn a_record_that_names_a_file_outside_the_backup_is_refused_and_no_link_is_followed() {
    let (log, outer) = (log().await, tempfile::tempdir().unwrap());
    let to = TempDir::new_in(outer.path()).unwrap();
    make_backup(&log, &to, false).unwrap();
    let record = to.path().join("messages/backup.ndjson");
    let sound = fs::read_to_string(&record).unwrap();
    let data = tempfile::tempdir().unwrap();
    let new = data.path().join("data/messages");
    fs::create_dir(data.path().join("data")).unwrap();
    let own = segments(&log.path())[0].file_name().unwrap().to_str().unwrap().to_owned();
    for name in [
        format!("../../{own}"),
        format!("/{own}"),
        format!("{own}/"),
        format!("./{own}"),
        "cron".into(),
        "backup.ndjson".into(),
        "removed.2".into(),
        String::new(),
    ] {
        let changed = sound.replacen(&format!("\"{own}\""), &format!("\"{name}\""), 1);
        assert_ne!(changed, sound);
        fs::write(&record, changed).unwrap();
        // Where the name leads to, from the directory of the backup.
        let beside = outer.path().join(&own);
        fs::copy(to.path().join(WHOLE).join(&own), &beside).unwrap();
        let restored = restore(to.path(), &new, |_, _| ());
        fs::remove_file(beside).unwrap();
        assert!(!data.path().join(&own).exists(), "{name}");
        let Err(error) = restored else { panic!("{name}: restored") };
        assert!(matches!(&error, Error::RecordedName { name: named, .. } if *named == name), "{error}");
        let checked = check(to.path(), |_| (), |_, _| ());
        assert!(matches!(checked, Err(Error::RecordedName { .. })), "{name}");
        assert!(matches!(make_backup(&log, &to, false), Err(Error::RecordedName { .. })), "{name}");
    }
    fs::write(&record, sound).unwrap();
    // A file that another account has linked to one of root's.
    let victim = data.path().join("victim");
    fs::write(&victim, "of root").unwrap();
    let unfinished = to.path().join(UNFINISHED);
    fs::create_dir(&unfinished).unwrap();
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let newest = files(&log.path()).into_iter().rfind(is_segment).unwrap();
    let newest = format!("{}.part", newest.file_name().unwrap().to_str().unwrap());
    for name in ["backup.ndjson.part", &newest] {
        symlink(&victim, unfinished.join(name)).unwrap();
    }
    make_backup(&log, &to, false).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "of root");
    restore(to.path(), &new, |_, _| ()).unwrap();
    assert_eq!(verify(&new, |_| (), |_, _| ()).unwrap().damage, 0);
}

#[tokio::test]
async fn a_copy_of_the_manifest_that_is_being_written_is_no_fault() {
    let log = log().await;
    let path = log.path().join("manifest.1");
    let bytes = fs::read(&path).unwrap();
    let is_over = AtomicBool::new(false);
    let faults = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // It is empty for a moment.
                fs::write(&path, &bytes).unwrap();
                thread::sleep(Duration::from_micros(50));
            }
        });
        let to = tempfile::tempdir().unwrap();
        let made = (0..30).map(|_| make_backup(&log, &to, false)).collect::<Vec<_>>();
        is_over.store(true, Ordering::Relaxed);
        made.into_iter().flat_map(|made| made.unwrap().faults).collect::<Vec<_>>()
    });
    assert_eq!(faults, []);
}

fn points(point: TrimPoint) -> TrimPoints {
    TrimPoints { forgotten_up_to: 70, topics: vec![("a".into(), point)], ..TrimPoints::default() }
}

#[test]
fn trim_points_are_not_above_the_copy_and_erasure_is_owed_since_before_it() {
    let before =
        points(TrimPoint { first_kept: 11, purged_up_to: 10, erased_up_to: 10, ..TrimPoint::default() });
    let after = TrimPoint { first_kept: 61, lost_up_to: 60, purged_up_to: 60, lost_at: 5, erased_up_to: 60 };
    let copied = as_of(points(after), &before, 50);
    let expected =
        TrimPoint { first_kept: 50, lost_up_to: 49, purged_up_to: 49, lost_at: 5, erased_up_to: 10 };
    assert_eq!((copied.forgotten_up_to, copied.topics[..].to_vec()), (49, vec![("a".into(), expected)]));
    assert_eq!(owed(&copied), BTreeMap::from([("a".into(), (10, 49))]));
    let unknown = as_of(points(after), &TrimPoints::default(), 100);
    assert_eq!(owed(&unknown), BTreeMap::from([("a".into(), (0, 60))]));
}
