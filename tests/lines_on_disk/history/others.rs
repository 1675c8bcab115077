//! Files that may be generations of the log, or of another one, or cannot be read.

use std::os::unix::fs::symlink;

use perennial::lines::{Event, GapReason, OnGap, Query, RootRules, Start};

use super::{gaps, gzip, history, lines, numbers, zstd};
use crate::bed::{Bed, LOG, follow, query};

const GAP: Event = Event::Gap { reason: GapReason::Deleted, bytes: None };

async fn read(bed: &Bed) -> (Vec<String>, Vec<Event>) {
    let mut reading = bed.open(history(Start::Head)).await;
    reading.read_to_end().await;
    (reading.texts(), gaps(&reading.events))
}

#[tokio::test]
async fn numbered_logs_that_are_written_beside_a_log_are_a_gap_of_its_history() {
    for bed in Bed::both() {
        // Each not within one tick of the file system's clock.
        let tick = || std::thread::sleep(std::time::Duration::from_millis(20));
        bed.append(LOG, lines(0..10));
        tick();
        bed.append("app-2.log", "another log\n");
        assert_eq!(read(&bed).await, (numbers(0..10), vec![GAP]));
        bed.append("app-1.log", "another log\n");
        bed.append("app-3.log", "another log\n");
        // The first one is not taken for one that was followed by the others.
        tick();
        for name in ["app-1.log", "app-2.log", "app-3.log"] {
            bed.append(name, "another log\n");
        }
        assert_eq!(read(&bed).await, (numbers(0..10), vec![GAP]));
    }
}

#[tokio::test]
async fn numbered_files_that_were_renamed_when_the_next_was_created_are_generations() {
    for bed in Bed::both() {
        for generation in 0..4 {
            for number in (1..3).rev().filter(|number| bed.path(&format!("app-{number}.log")).exists()) {
                bed.rename(&format!("app-{number}.log"), &format!("app-{}.log", number + 1));
            }
            if bed.path(LOG).exists() {
                bed.rename(LOG, "app-1.log");
            }
            bed.append(LOG, lines(generation * 10..generation * 10 + 10));
            // Not within one tick of the file system's clock.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let (texts, _) = read(&bed).await;
        assert_eq!(texts, numbers(0..40));
    }
}

#[tokio::test]
async fn a_generation_that_cannot_be_opened_is_a_gap() {
    for bed in Bed::both() {
        bed.append(LOG, lines(0..10));
        symlink("nothing", bed.path("app.log.1")).unwrap();
        assert_eq!(read(&bed).await, (numbers(0..10), vec![GAP]));
        // Beside one that can, of the same naming and of another.
        bed.append("app.log.2", lines(20..30));
        let all = [numbers(20..30), numbers(0..10)].concat();
        assert_eq!(read(&bed).await, (all.clone(), vec![GAP]));
        bed.rename("app.log.2", "app.log-20261123");
        assert_eq!(read(&bed).await, (all, vec![GAP]));
    }
    let deny = vec!["app.log.1.gz".parse().unwrap()];
    let bed = Bed::on_disk_with(RootRules { deny, ..RootRules::default() });
    bed.append("app.log.1", lines(0..10));
    gzip(&bed, "app.log.1");
    bed.append(LOG, lines(10..20));
    assert_eq!(read(&bed).await, (numbers(10..20), vec![GAP]));
}

/// A reader that is cut after `deleted`.
async fn read_until_deleted(bed: &Bed, history: bool) -> Start {
    bed.append(LOG, lines(0..10));
    let mut reading = bed.open(Query { history, ..follow(Start::Head) }).await;
    reading.read_until("line 00009").await;
    bed.remove(LOG);
    reading.wait_for_event("deleted", |event| *event == Event::Deleted).await;
    reading.resume()
}

#[tokio::test]
async fn a_generation_that_came_and_was_compressed_after_the_log_was_deleted_is_no_silent_loss() {
    for bed in Bed::both() {
        for (history, compress) in
            [(false, gzip as fn(&Bed, &str)), (true, gzip), (false, zstd), (true, zstd)]
        {
            let start = read_until_deleted(&bed, history).await;
            bed.append(LOG, lines(10..20));
            bed.rename(LOG, "app.log.1");
            compress(&bed, "app.log.1");
            bed.append(LOG, lines(20..30));
            let on_gap = OnGap::Skip;
            let mut reading = bed.open(Query { history, on_gap, ..query(start) }).await;
            reading.read_to_end().await;
            assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(20..30), vec![GAP]), "{history}");
            for name in std::fs::read_dir(bed.path("")).unwrap() {
                std::fs::remove_file(name.unwrap().path()).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn generations_from_before_a_log_was_deleted_are_no_gap_after_it() {
    for bed in Bed::both() {
        bed.append("app.log.1", "older\n");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let start = read_until_deleted(&bed, false).await;
        gzip(&bed, "app.log.1");
        bed.append(LOG, lines(20..30));
        let mut reading = bed.open(query(start)).await;
        reading.read_to_end().await;
        assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(20..30), vec![]));
    }
}
