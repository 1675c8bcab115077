//! Archives that the operator named, which hold generations of several logs with the same name.

use std::fs;

use perennial::lines::{Event, GapReason, MayRead, Query, RootRules, Start};

use super::{gaps, gzip};
use crate::bed::{Bed, query_of};

const GAP: Event = Event::Gap { reason: GapReason::Deleted, bytes: None };

/// Files with one line each, which is their path.
fn with_files(glob: &str, paths: &[&str]) -> Bed {
    let history = vec![glob.parse().unwrap()];
    let bed = Bed::on_disk_with(RootRules { history, ..RootRules::default() });
    for path in paths {
        fs::create_dir_all(bed.path(path).parent().unwrap()).unwrap();
        let plain = path.strip_suffix(".gz").unwrap_or(path);
        bed.append(plain, format!("{path}\n"));
        if plain != *path {
            gzip(&bed, plain);
        }
    }
    bed
}

/// The history of a log for a caller that may read what begins so only, and its gaps.
async fn read(bed: &Bed, log: &str, right: &'static str) -> (Vec<String>, Vec<Event>) {
    let may_read = MayRead::only(move |path| path.starts_with(right));
    let whole = Query { may_read, ..Query { history: true, ..query_of(log, Start::Head) } };
    let mut reading = bed.open(whole).await;
    reading.read_to_end().await;
    (reading.texts(), gaps(&reading.events))
}

fn texts(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

#[tokio::test]
async fn two_logs_with_the_same_name_under_one_archive_get_their_own_generations_only() {
    for (glob, a, b) in [
        ("archive/**", "archive/a", "archive/b"),
        ("archive/*/*", "archive/a", "archive/b"),
        ("archive/**", "archive/a/2026/11", "archive/b/2026/11"),
        ("*/old/**", "a/old", "b/old"),
        ("*/old/**", "a/old/2026-11-23", "b/old/2026-11-24"),
    ] {
        let [a1, a2, b1] =
            [(a, "2.gz"), (a, "1"), (b, "1.gz")].map(|(at, end)| format!("{at}/app.log.{end}"));
        let bed = with_files(glob, &[&b1, &a1, &a2, "a/app.log", "b/app.log", "c/app.log", "app.log"]);
        let own = texts(&[&a1, &a2, "a/app.log"]);
        assert_eq!(read(&bed, "a/app.log", "r/").await, (own, vec![]), "{glob}");
        let own = texts(&[&b1, "b/app.log"]);
        assert_eq!(read(&bed, "b/app.log", "r/").await, (own, vec![]), "{glob}");
        for log in ["c/app.log", "app.log"] {
            assert_eq!(read(&bed, log, "r/").await, (texts(&[log]), vec![]), "{glob} {log}");
        }
    }
}

#[tokio::test]
async fn a_log_of_the_root_and_one_of_a_directory_get_their_own_generations_only() {
    let own = ["archive/app.log.2.gz", "archive/2026/app.log.1", "app.log"];
    let other = ["archive/a/app.log.3.gz", "a/app.log"];
    let bed = with_files("archive/**", &[&own[..], &other[..]].concat());
    assert_eq!(read(&bed, "app.log", "r/").await, (texts(&own), vec![]));
    assert_eq!(read(&bed, "a/app.log", "r/").await, (texts(&other), vec![]));
}

#[tokio::test]
async fn a_caller_with_a_right_to_one_directory_gets_nothing_of_another() {
    // The caller needs no right to the archive of the log. The archive of another log does not belong to this one.
    let bed =
        with_files("archive/**", &["archive/a/app.log.1", "archive/b/app.log.2", "a/app.log", "b/app.log"]);
    let own = texts(&["archive/a/app.log.1", "a/app.log"]);
    assert_eq!(read(&bed, "a/app.log", "r/a/").await, (own, vec![]));
    bed.remove("archive/a/app.log.1");
    assert_eq!(read(&bed, "a/app.log", "r/a/").await, (texts(&["a/app.log"]), vec![]));
    // Nothing says whose it is.
    fs::remove_dir_all(bed.path("b")).unwrap();
    assert_eq!(read(&bed, "a/app.log", "r/a/").await, (texts(&["a/app.log"]), vec![GAP]));
}

#[tokio::test]
async fn a_flat_archive_of_all_logs_is_read_where_only_one_has_the_name() {
    let bed =
        with_files("archive/**", &["archive/app.log.1.gz", "archive/web.log.1", "a/app.log", "b/web.log"]);
    let own = texts(&["archive/app.log.1.gz", "a/app.log"]);
    assert_eq!(read(&bed, "a/app.log", "r/").await, (own, vec![]));
    assert_eq!(read(&bed, "a/app.log", "r/a/").await, (texts(&["a/app.log"]), vec![GAP]));
}

#[tokio::test]
async fn two_archives_of_which_nothing_says_whose_they_are_are_a_gap() {
    let bed = with_files("archive/**", &["archive/x/app.log.2", "archive/y/app.log.1", "a/app.log"]);
    assert_eq!(read(&bed, "a/app.log", "r/").await, (texts(&["a/app.log"]), vec![GAP]));
    // Its own generations come after it.
    bed.append("a/app.log.1", "own\n");
    assert_eq!(read(&bed, "a/app.log", "r/").await, (texts(&["own", "a/app.log"]), vec![GAP]));
    // If the log has an archive of its own, the other archives do not belong to it.
    fs::create_dir(bed.path("archive/a")).unwrap();
    bed.append("archive/a/app.log.2", "older\n");
    assert_eq!(read(&bed, "a/app.log", "r/").await, (texts(&["older", "own", "a/app.log"]), vec![]));
}

/// A cursor is not trusted: it may name a file of another log.
#[tokio::test]
async fn a_cursor_in_an_archive_of_another_log_is_not_found_without_a_right_to_it() {
    let bed = with_files("archive/**", &["archive/b/app.log.1", "a/app.log"]);
    let log = "a/app.log";
    let mut reading = bed.open(Query { history: true, ..query_of(log, Start::Head) }).await;
    reading.read_lines(1).await;
    assert_eq!(reading.texts(), texts(&["archive/b/app.log.1"]));
    let resumed = |right: &'static str| {
        let may_read = MayRead::only(move |path| path.starts_with(right));
        Query { may_read, ..Query { history: true, ..query_of(log, reading.resume()) } }
    };
    assert!(bed.try_open(resumed("r/a/")).await.is_err());
    assert!(bed.try_open(resumed("r/")).await.is_ok());
}
