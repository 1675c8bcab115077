//! Rotations while no reader is there: which files a reader that comes back finds, under which names, and which it does not
//! take for its own.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use perennial::lines::{Error, Event, Files, Found, OnGap, Query, Root, RootRules, Start};
use tempfile::TempDir;

use super::is_gap;
use crate::bed::{Bed, LOG, ROOT, Reading, follow, options, query, query_of};

pub fn lines(of: &str, numbers: std::ops::Range<usize>) -> String {
    numbers.map(|n| format!("{of} line {n}\n")).collect()
}

/// Reads a file to its end, and leaves.
pub async fn leave(bed: &Bed, name: &str) -> Start {
    let mut reading = bed.open(query_of(name, Start::Head)).await;
    reading.read_to_end().await;
    reading.resume()
}

pub async fn come_back(bed: &Bed, name: &str, start: Start, last: &str) -> Reading {
    let mut reading = bed.open(Query { follow: true, ..query_of(name, start) }).await;
    reading.read_until(last).await;
    reading
}

pub async fn has_expired(bed: &Bed, query: Query) {
    match bed.try_open(query).await.map(|_| ()) {
        Err(Error::Expired) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn rotated_files_are_found_wherever_the_rotation_puts_its_mark() {
    for bed in Bed::both() {
        for names in [
            &["app.log.3", "app.log.2", "app.log.1"][..],
            &["app.log-20261121", "app.log-20261122", "app.log-20261123"],
            &["app-20261121.log", "app-20261122.log", "app-20261123.log"],
            &["app.3.log", "app.2.log", "app.1.log"],
            &["20261121-app.log", "20261122-app.log", "20261123-app.log"],
            &["app.log.2026-11-21T10:00:00Z", "app.log.2026-11-21T11:00:00Z"],
            &["app.log-20261121", "app.log-20261121-1", "app.log-20261121-2"],
            &["app.log.old"],
            &["app.bak"],
            &["app.log~"],
        ] {
            bed.append(LOG, "0\n");
            let start = leave(&bed, LOG).await;
            bed.append(LOG, "more\n");
            for (n, name) in names.iter().enumerate() {
                bed.rename(LOG, name);
                bed.append(LOG, format!("{}\n", n + 1));
            }
            let reading = come_back(&bed, LOG, start, &names.len().to_string()).await;
            let rotations = (1..=names.len()).map(|n| n.to_string());
            assert_eq!(reading.texts(), std::iter::once("more".into()).chain(rotations).collect::<Vec<_>>());
            assert_eq!(reading.events[0], Event::Resumed(Found::Moved));
            assert!(!reading.events.iter().any(is_gap), "{names:?} {:?}", reading.events);
            for name in names.iter().chain([&LOG]) {
                bed.remove(name);
            }
        }
    }
}

#[tokio::test]
async fn dated_files_behind_a_link_are_read_in_order() {
    for bed in Bed::both() {
        let day = |day: usize| format!("app-2026-11-{day}.log");
        let point = |to: &str| {
            symlink(to, bed.path("temporary")).unwrap();
            bed.rename("temporary", LOG);
        };
        bed.append(&day(21), "1\n");
        point(&day(21));
        let start = leave(&bed, LOG).await;
        bed.append(&day(21), "2\n");
        for (n, line) in [(22, "3\n"), (23, "4\n")] {
            bed.append(&day(n), line);
            point(&day(n));
        }
        let reading = come_back(&bed, LOG, start, "4").await;
        assert_eq!(reading.texts(), ["2", "3", "4"]);
        assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
    }
}

/// A container that is started again, and whose log is rotated: two links lead to the last one.
#[tokio::test]
async fn the_links_of_a_kubelet_lead_to_all_logs_of_a_container() {
    for bed in Bed::both() {
        for directory in ["containers", "pods", "pods/app"] {
            fs::create_dir(bed.path(directory)).unwrap();
        }
        let point = |to: &str| {
            symlink(format!("../pods/app/{to}"), bed.path("temporary")).unwrap();
            bed.rename("temporary", "containers/app.log");
        };
        bed.append("pods/app/0.log", "1\n");
        point("0.log");
        let start = leave(&bed, "containers/app.log").await;
        bed.append("pods/app/0.log", "2\n");
        bed.rename("pods/app/0.log", "pods/app/0.log.20261123-101010");
        bed.append("pods/app/0.log", "3\n");
        bed.append("pods/app/1.log", "4\n");
        point("1.log");
        let reading = come_back(&bed, "containers/app.log", start, "4").await;
        assert_eq!(reading.texts(), ["2", "3", "4"]);
        assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
    }
}

#[tokio::test]
async fn directories_by_day_behind_a_link_are_read_in_order() {
    for bed in Bed::both() {
        let begin = |day: &str, line: &str| {
            fs::create_dir(bed.path(day)).unwrap();
            bed.append(&format!("{day}/app.log"), line);
            symlink(day, bed.path("temporary")).unwrap();
            bed.rename("temporary", "today");
        };
        begin("2026-11-21", "1\n");
        let start = leave(&bed, "today/app.log").await;
        bed.append("2026-11-21/app.log", "2\n");
        begin("2026-11-22", "3\n");
        begin("2026-11-23", "4\n");
        let reading = come_back(&bed, "today/app.log", start, "4").await;
        assert_eq!(reading.texts(), ["2", "3", "4"]);
        assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
    }
}

/// Several processes have a log each, and a link leads to one of them.
#[tokio::test]
async fn logs_that_are_written_at_the_same_time_are_not_one_after_another_behind_a_link() {
    for bed in Bed::both() {
        for n in 1..4 {
            bed.append(&format!("worker-{n}.log"), format!("{n} first\n"));
        }
        symlink("worker-1.log", bed.path(LOG)).unwrap();
        let start = leave(&bed, LOG).await;
        let written = |n| fs::metadata(bed.path(&format!("worker-{n}.log"))).unwrap().modified().unwrap();
        let born = fs::metadata(bed.path("worker-2.log")).unwrap().created().unwrap();
        while written(1) <= born {
            std::thread::sleep(std::time::Duration::from_millis(1));
            bed.append("worker-1.log", "");
            fs::File::options()
                .append(true)
                .open(bed.path("worker-1.log"))
                .unwrap()
                .set_modified(std::time::SystemTime::now())
                .unwrap();
        }
        for n in 1..4 {
            bed.append(&format!("worker-{n}.log"), format!("{n} second\n"));
        }
        bed.remove(LOG);
        symlink("worker-3.log", bed.path(LOG)).unwrap();
        let reading = come_back(&bed, LOG, start, "3 second").await;
        assert_eq!(reading.texts(), ["1 second", "3 first", "3 second"]);
        assert_eq!(reading.events.iter().filter(|event| is_gap(event)).count(), 1, "{:?}", reading.events);
    }
}

fn copy_tree(from: &Path, to: &Path) {
    let mut names = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    names.sort();
    for name in names {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

/// Another server over a copy of the directory.
fn copied(bed: &Bed) -> (TempDir, Files) {
    let copy = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    copy_tree(&bed.path(""), copy.path());
    let files = Files::new(vec![Root::new(ROOT, copy.path())], options()).unwrap();
    (copy, files)
}

#[tokio::test]
async fn a_tree_that_was_copied_resumes_exactly_where_the_content_is_proof() {
    for bed in Bed::both() {
        bed.append(LOG, lines("old", 0..100));
        bed.append("app.log.9", lines("oldest", 0..100));
        let start = leave(&bed, LOG).await;
        bed.append(LOG, "rest\n");
        bed.rename(LOG, "app.log.2");
        bed.append("app.log.1", "next\n");
        bed.append(LOG, "last\n");
        let (copy, files) = copied(&bed);
        let mut reading = Bed::try_open_on(&files, follow(start.clone())).await.unwrap();
        reading.read_until("last").await;
        assert_eq!(reading.texts(), ["rest", "next", "last"]);
        assert_eq!(reading.events[0], Event::Resumed(Found::Moved));
        assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
        // Two files with the same content are no proof.
        fs::copy(copy.path().join("app.log.2"), copy.path().join("copy")).unwrap();
        let files = Files::new(vec![Root::new(ROOT, copy.path())], options()).unwrap();
        let twice = Bed::try_open_on(&files, query(start)).await;
        assert!(matches!(twice, Err(Error::Expired)));
    }
}

#[tokio::test]
async fn a_tree_that_was_copied_is_lost_where_less_than_1_kib_was_read() {
    for bed in Bed::both() {
        bed.append(LOG, "1\n");
        let start = leave(&bed, LOG).await;
        bed.append(LOG, "2\n");
        let (_copy, files) = copied(&bed);
        let expired = Bed::try_open_on(&files, query(start.clone())).await;
        assert!(matches!(expired, Err(Error::Expired)));
        let skip = Query { on_gap: OnGap::Skip, ..query(start) };
        let mut reading = Bed::try_open_on(&files, skip).await.unwrap();
        reading.read_to_end().await;
        assert_eq!(reading.texts(), ["1", "2"]);
        assert!(reading.events.iter().any(is_gap), "{:?}", reading.events);
    }
}

#[tokio::test]
async fn an_archive_is_searched_only_if_the_operator_named_it() {
    let archive = || RootRules {
        allow: vec!["/app.log".parse().unwrap()],
        history: vec!["archive/**".parse().unwrap()],
        ..RootRules::default()
    };
    let denied = || RootRules { deny: vec!["archive".parse().unwrap()], ..archive() };
    let unnamed = || RootRules { history: Vec::new(), ..archive() };
    for (rules, is_found) in [(archive(), true), (denied(), false), (unnamed(), false)] {
        let bed = Bed::on_disk_with(rules);
        fs::create_dir_all(bed.path("archive/2026")).unwrap();
        bed.append(LOG, "1\n");
        let start = leave(&bed, LOG).await;
        bed.append(LOG, "2\n");
        for (name, line) in
            [("app-20261121.log", "3\n"), ("app-20261122.log", "4\n"), ("app-20261123.log", "5\n")]
        {
            bed.rename(LOG, &format!("archive/2026/{name}"));
            bed.append(LOG, line);
        }
        if is_found {
            let reading = come_back(&bed, LOG, start, "5").await;
            assert_eq!(reading.texts(), ["2", "3", "4", "5"]);
            assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
        } else {
            has_expired(&bed, follow(start)).await;
        }
    }
}

#[tokio::test]
async fn a_log_that_was_edited_in_place_with_a_backup_while_away_goes_on_after_the_overlap() {
    for bed in Bed::both() {
        bed.append(LOG, lines("a", 0..200));
        let start = leave(&bed, LOG).await;
        bed.append("temporary", lines("a", 1..210));
        bed.rename(LOG, "app.log.bak");
        bed.rename("temporary", LOG);
        let reading = come_back(&bed, LOG, start, "a line 209").await;
        assert_eq!(reading.texts().join("\n") + "\n", lines("a", 200..210));
        let next_offset = lines("a", 1..200).len() as u64;
        assert_eq!(reading.events, [Event::Resumed(Found::Moved), Event::Rotated { next_offset }]);
    }
}

/// The rules admit the log alone, but this process saw where it went, and another reader holds it open.
#[tokio::test]
async fn a_log_that_was_renamed_away_under_the_eyes_of_the_server_is_found_whatever_its_name_is() {
    let bed = Bed::on_disk_with(RootRules { allow: vec![LOG.parse().unwrap()], ..RootRules::default() });
    bed.append(LOG, "1\n");
    let mut watching = bed.open(follow(Start::Head)).await;
    watching.read_until("1").await;
    let start = leave(&bed, LOG).await;
    bed.append(LOG, "2\n");
    bed.rename(LOG, "elsewhere.txt");
    watching.wait_for_event("deleted", |event| *event == Event::Deleted).await;
    let reading = come_back(&bed, LOG, start.clone(), "2").await;
    assert_eq!(reading.events, [Event::Resumed(Found::Moved)]);
    drop((watching, reading));
    // Without one, its name decides.
    bed.append(LOG, "3\n");
    has_expired(&bed, query(start)).await;
}

/// More was seen of the file than was delivered.
#[tokio::test]
async fn what_was_in_a_file_that_was_truncated_while_away_is_a_gap() {
    for bed in Bed::both() {
        bed.append(LOG, lines("a", 0..10));
        let batching = perennial::stream::Batching { max_items: 1, ..perennial::stream::Batching::default() };
        let mut reading = bed.open(Query { batching, ..query(Start::Head) }).await;
        reading.read_lines(1).await;
        let start = reading.resume();
        drop(reading);
        fs::write(bed.path(LOG), "new\n").unwrap();
        let mut reading = bed.open(query(start)).await;
        reading.read_to_end().await;
        assert_eq!(reading.texts(), ["new"]);
        let gap = |event: &Event| matches!(event, Event::Gap { bytes: Some(bytes), .. } if *bytes == lines("a", 1..10).len() as u64);
        assert!(reading.events.iter().any(gap), "{:?}", reading.events);
    }
}

/// A position names a file by its inode, its birth and its content: that does not open it.
#[tokio::test]
async fn a_forged_position_opens_nothing_that_the_rules_refuse() {
    let rules = RootRules {
        allow: vec!["*.log".parse().unwrap()],
        deny: vec!["*.key".parse().unwrap()],
        history: vec!["archive/**".parse().unwrap()],
        ..RootRules::default()
    };
    let bed = Bed::on_disk_with(rules);
    fs::create_dir(bed.path("archive")).unwrap();
    let names: [PathBuf; 3] =
        ["app.log.key.1", "secret.txt", "archive/secret.key"].map(|name| bed.path(name));
    for name in names {
        bed.append(LOG, lines("a", 0..100));
        let start = leave(&bed, LOG).await;
        // The very file that the position names, by inode, birth and content.
        fs::rename(bed.path(LOG), &name).unwrap();
        bed.append(LOG, "own\n");
        fs::write(&name, lines("a", 0..100) + "secret\n").unwrap();
        has_expired(&bed, query(start)).await;
        bed.remove(LOG);
    }
}
