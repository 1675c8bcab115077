//! Files that are copied, truncated, compressed or deleted while a reader is in an older one, or away.

use std::{
    fs::{self, File},
    time::{Duration, SystemTime},
};

use perennial::lines::{Error, Event, GapReason, OnGap, Options, Query, Start};

use super::{compress, gaps, gzip, history, lines, numbers, rotate, rotated};
use crate::bed::{Bed, LOG, Reading, follow, options};

fn gap(reason: GapReason) -> Event {
    Event::Gap { reason, bytes: None }
}

/// Reads the whole history in small batches, and follows.
fn slow() -> Query {
    let mut query = Query { history: true, ..follow(Start::Head) };
    query.batching.max_items = 30;
    query
}

/// Two generations of 100 lines, and a reader that stopped in the older one.
async fn stopped(bed: &Bed, query: Query) -> Reading {
    bed.append("app.log.1", lines(0..100));
    bed.append(LOG, lines(100..200));
    let mut reading = bed.open(query).await;
    reading.read_lines(60).await;
    reading
}

/// Compresses a file with a tool that does not keep the time of its last write.
fn gzip_without_time(bed: &Bed, name: &str) {
    gzip(bed, name);
    let archive = File::options().write(true).open(bed.path(&format!("{name}.gz"))).unwrap();
    archive.set_modified(SystemTime::now()).unwrap();
}

#[tokio::test]
async fn a_log_that_is_copied_and_truncated_while_a_reader_is_in_an_older_file_is_read_from_the_copy() {
    for bed in Bed::both() {
        for query in [slow(), Query { follow: false, ..slow() }] {
            let mut reading = stopped(&bed, query.clone()).await;
            bed.rename("app.log.1", "app.log.2");
            fs::copy(bed.path(LOG), bed.path("app.log.1")).unwrap();
            fs::write(bed.path(LOG), "").unwrap();
            bed.append(LOG, lines(200..210));
            reading.read_until("line 00209").await;
            assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..210), vec![]));
            for name in ["app.log.1", "app.log.2", LOG] {
                bed.remove(name);
            }
        }
    }
}

#[tokio::test]
async fn a_log_that_is_truncated_without_a_copy_while_a_reader_is_in_an_older_file_is_a_gap() {
    for bed in Bed::both() {
        for query in [slow(), Query { follow: false, ..slow() }] {
            let mut reading = stopped(&bed, query.clone()).await;
            fs::write(bed.path(LOG), "").unwrap();
            bed.append(LOG, lines(200..210));
            reading.read_until("line 00209").await;
            assert_eq!(reading.texts(), [numbers(0..100), numbers(200..210)].concat());
            assert_eq!(gaps(&reading.events), [gap(GapReason::Truncated)]);
            for name in ["app.log.1", LOG] {
                bed.remove(name);
            }
        }
    }
}

#[tokio::test]
async fn a_file_that_is_deleted_while_it_is_read_is_no_gap_if_the_next_one_is_at_the_path_or_was_kept_open() {
    for bed in Bed::both() {
        let mut reading = stopped(&bed, slow()).await;
        bed.remove("app.log.1");
        bed.rename(LOG, "app.log.1");
        bed.append(LOG, lines(200..210));
        reading.read_until("line 00209").await;
        assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..210), vec![]));
    }
}

#[tokio::test]
async fn files_that_were_not_kept_open_are_read_from_their_archives_and_are_a_gap_if_they_are_deleted() {
    for bed in Bed::both_with(Options { max_rotated: 1, ..options() }) {
        for deleted in [None, Some("app.log.3.gz")] {
            let mut reading = stopped(&bed, slow()).await;
            // The reader has used up the list of the older files.
            reading.read_until("line 00089").await;
            let mut live = bed.open(follow(Start::Head)).await;
            for generation in 2..6 {
                rotate(&bed, 9);
                bed.append(LOG, lines(generation * 100..generation * 100 + 100));
                live.read_until(&format!("line {:05}", generation * 100 + 99)).await;
                gzip(&bed, "app.log.1");
            }
            if let Some(name) = deleted {
                bed.remove(name);
            }
            reading.read_until("line 00599").await;
            if deleted.is_none() {
                assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..600), vec![]));
            } else {
                assert_eq!(reading.texts(), [numbers(0..200), numbers(300..600)].concat());
                assert_eq!(gaps(&reading.events), [gap(GapReason::Deleted)]);
            }
            let names = fs::read_dir(bed.path("")).unwrap().map(|entry| entry.unwrap().path());
            names.for_each(|path| fs::remove_file(path).unwrap());
        }
    }
}

#[tokio::test]
async fn a_generation_that_has_left_the_path_and_has_no_successor_is_the_history_of_a_new_reader() {
    for bed in Bed::both() {
        for waits in [false, true] {
            bed.append(LOG, lines(0..10));
            let mut first = bed.open(follow(Start::Head)).await;
            first.read_until("line 00009").await;
            bed.rename(LOG, "app.log.1");
            first.wait_for_event("the end of the log", |event| matches!(event, Event::Deleted)).await;
            let query = Query { history: true, wait_for_create: waits, ..follow(Start::Head) };
            let mut second = bed.open(query).await;
            second.read_until("line 00009").await;
            bed.append(LOG, lines(10..20));
            for reading in [&mut first, &mut second] {
                reading.read_until("line 00019").await;
                assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..20), vec![]), "{waits}");
            }
            for name in ["app.log.1", LOG] {
                bed.remove(name);
            }
        }
    }
}

/// Generations of 100 lines that are named by dates, the last of which is at the path.
fn dated(bed: &Bed) {
    for (at, name) in (0..).zip(["-20261121", "-20261122", "-20261123", ""]) {
        bed.append(&format!("{LOG}{name}"), lines(at * 100..at * 100 + 100));
    }
}

#[tokio::test]
async fn a_file_that_is_compressed_while_it_is_read_is_known_by_its_content_if_its_time_is_not_kept() {
    for bed in Bed::both() {
        for query in [slow(), Query { follow: false, ..slow() }] {
            dated(&bed);
            let mut reading = bed.open(query).await;
            reading.read_lines(150).await;
            // So that the times differ by more than a second, too.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            for date in ["20261121", "20261122", "20261123"] {
                gzip_without_time(&bed, &format!("{LOG}-{date}"));
            }
            reading.read_until("line 00399").await;
            assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..400), vec![]));
            let names = fs::read_dir(bed.path("")).unwrap().map(|entry| entry.unwrap().path());
            names.for_each(|path| fs::remove_file(path).unwrap());
        }
    }
}

#[tokio::test]
async fn a_file_that_a_reader_follows_and_that_is_compressed_without_its_time_is_read_once() {
    for bed in Bed::both() {
        dated(&bed);
        let mut reading = bed.open(slow()).await;
        reading.read_lines(250).await;
        bed.rename(LOG, "app.log-20261124");
        bed.append(LOG, lines(400..410));
        tokio::time::sleep(Duration::from_millis(1100)).await;
        gzip_without_time(&bed, "app.log-20261124");
        reading.read_until("line 00409").await;
        assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..410), vec![]));
    }
}

#[tokio::test]
async fn a_position_after_a_common_start_does_not_move_to_another_generation_that_begins_alike() {
    for bed in Bed::both() {
        bed.append(LOG, lines(0..5));
        let mut first = history(Start::Head);
        first.batching.max_items = 5;
        let mut reading = bed.open(first.clone()).await;
        reading.read_lines(5).await;
        bed.append(LOG, lines(5..10));
        bed.remove(LOG);
        for (name, from) in [("app.log.1", 20), (LOG, 30)] {
            bed.append(name, lines(0..5) + &lines(from..from + 10));
        }
        for is_compressed in [false, true] {
            if is_compressed {
                gzip(&bed, "app.log.1");
            }
            let resumed = bed.try_open(Query { start: reading.resume(), ..first.clone() }).await;
            assert!(matches!(resumed.err(), Some(Error::Expired)), "{is_compressed}");
            let skips = Query { start: reading.resume(), on_gap: OnGap::Skip, ..first.clone() };
            let mut resumed = bed.open(skips).await;
            resumed.read_to_end().await;
            assert_eq!(gaps(&resumed.events), [gap(GapReason::Expired)], "{is_compressed}");
        }
    }
}

#[tokio::test]
async fn a_log_that_is_replaced_all_the_time_does_not_end_its_history_before_it() {
    let bed = Bed::in_memory();
    rotated(&bed);
    compress(&bed.path("app.log.3"), "gzip", &[]);
    let until = std::time::Instant::now() + Duration::from_secs(2);
    let (log, new) = (bed.path(LOG), bed.path("new"));
    let replaces = std::thread::spawn(move || {
        while std::time::Instant::now() < until {
            fs::write(&new, lines(300..400)).unwrap();
            fs::rename(&new, &log).unwrap();
        }
    });
    while !replaces.is_finished() {
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        assert_eq!(reading.texts(), numbers(0..400));
    }
    replaces.join().unwrap();
}
