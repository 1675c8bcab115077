//! Logs that are copied and truncated (`copytruncate`) while no reader is there: what the reader had not read is in the
//! copy.

use std::fs::{self, File};

use perennial::{
    lines::{Event, Found, GapReason, Query, RootRules, Start},
    stream::Batching,
};

use super::{
    away::{come_back, leave, lines},
    is_gap, is_truncated,
};
use crate::bed::{Bed, LOG, follow, query};

/// Moves older copies, and returns the name of the next one, of which there will be this many.
type Naming = dyn Fn(&Bed, usize) -> String;

/// More than what two processes may print when they start.
const READ: usize = 600;

fn truncate(bed: &Bed) {
    File::options().write(true).open(bed.path(LOG)).unwrap().set_len(0).unwrap();
}

/// After that, a file is younger than all that were created or written before, by the coarse clock of the file system.
pub fn wait_for_tick(bed: &Bed) {
    let now = |name: &str| {
        fs::write(bed.path(name), "").unwrap();
        let born = fs::metadata(bed.path(name)).unwrap().created().unwrap();
        bed.remove(name);
        born
    };
    let first = now("tick");
    while now("tick") <= first {}
}

fn copy_truncate(bed: &Bed, to: &str) {
    wait_for_tick(bed);
    fs::copy(bed.path(LOG), bed.path(to)).unwrap();
    wait_for_tick(bed);
    truncate(bed);
}

/// A log of which this many lines are read, and some are not.
async fn left(bed: &Bed) -> Start {
    bed.append(LOG, lines("a", 0..READ));
    let start = leave(bed, LOG).await;
    bed.append(LOG, lines("a", READ..READ + 50));
    start
}

fn size(lines: &str) -> u64 {
    lines.len() as u64
}

#[tokio::test]
async fn a_log_that_was_copied_and_truncated_while_away_is_read_in_its_copy() {
    for bed in Bed::both() {
        for name in ["app.log.1", "app.log-20261123", "app.log.old"] {
            for is_following in [false, true] {
                let start = left(&bed).await;
                copy_truncate(&bed, name);
                bed.append(LOG, "new\n");
                let query = Query { follow: is_following, ..query(start) };
                let mut reading = bed.open(query).await;
                reading.read_until("new").await;
                assert_eq!(reading.texts().join("\n"), lines("a", READ..READ + 50) + "new");
                let read_offset = size(&lines("a", 0..READ + 50));
                let truncated = Event::Truncated { read_offset, size: 4 };
                assert_eq!(reading.events, [Event::Resumed(Found::Moved), truncated], "{name}");
                bed.remove(name);
                bed.remove(LOG);
            }
        }
    }
}

#[tokio::test]
async fn a_log_that_was_copied_and_truncated_many_times_while_away_is_read_in_all_copies() {
    let downward = |bed: &Bed, count: usize| {
        for number in (1..count).rev() {
            bed.rename(&format!("app.log.{number}"), &format!("app.log.{}", number + 1));
        }
        "app.log.1".to_owned()
    };
    let names: [&Naming; 3] = [&downward, &|_, count| format!("app.log.{count}"), &|_, count| {
        format!("app.log-202611{:02}", 10 + count)
    }];
    for bed in Bed::both() {
        for name in names {
            let start = left(&bed).await;
            let mut expected = lines("a", READ..READ + 50);
            for count in 1..5 {
                copy_truncate(&bed, &name(&bed, count));
                bed.append(LOG, lines("b", count * 10..count * 10 + count));
                expected += &lines("b", count * 10..count * 10 + count);
            }
            let mut reading = come_back(&bed, LOG, start, "b line 43").await;
            assert_eq!(reading.texts().join("\n") + "\n", expected, "{:?}", reading.events);
            assert_eq!(reading.events[0], Event::Resumed(Found::Moved));
            assert_eq!(reading.events.iter().filter(|event| is_truncated(event)).count(), 4);
            assert_eq!(reading.events.len(), 5, "{:?}", reading.events);
            // It goes on in the log, and notices that it is truncated again.
            bed.append(LOG, lines("b", 100..200));
            reading.read_until("b line 199").await;
            truncate(&bed);
            bed.append(LOG, "end\n");
            reading.read_until("end").await;
            assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
            for entry in fs::read_dir(bed.path("")).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_reader_that_is_cut_in_a_copy_continues_in_it_and_in_those_after_it() {
    for bed in Bed::both() {
        let start = left(&bed).await;
        copy_truncate(&bed, "app.log.1");
        bed.append(LOG, lines("b", 0..3));
        let batching = Batching { max_items: 7, ..Batching::default() };
        let mut reading = bed.open(Query { batching, ..follow(start) }).await;
        reading.read_lines(7).await;
        let start = reading.resume();
        drop(reading);
        // Upward: the newest copy has the highest number.
        copy_truncate(&bed, "app.log.2");
        bed.append(LOG, "new\n");
        let reading = come_back(&bed, LOG, start, "new").await;
        let expected = lines("a", READ + 7..READ + 50) + &lines("b", 0..3) + "new";
        assert_eq!(reading.texts().join("\n"), expected);
        assert_eq!(reading.events.iter().filter(|event| is_truncated(event)).count(), 2);
        assert_eq!(reading.events.len(), 3, "{:?}", reading.events);
    }
}

/// None of them is read, and the loss is reported.
async fn is_truncated_only(bed: &Bed, start: Start, why: &str) {
    bed.append(LOG, "new\n");
    let reading = come_back(bed, LOG, start, "new").await;
    assert_eq!(reading.texts(), ["new"], "{why}");
    assert_eq!(reading.events[0], Event::Resumed(Found::Truncated), "{why}");
    assert!(reading.events.iter().any(is_truncated), "{why}");
    for entry in fs::read_dir(bed.path("")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

#[tokio::test]
async fn a_file_that_may_be_no_copy_of_a_truncated_log_is_not_read() {
    for bed in Bed::both() {
        let start = left(&bed).await;
        copy_truncate(&bed, "app.log.1");
        fs::copy(bed.path("app.log.1"), bed.path("app.log-20261123")).unwrap();
        is_truncated_only(&bed, start, "two copies").await;

        let start = left(&bed).await;
        copy_truncate(&bed, "app.log.2");
        is_truncated_only(&bed, start, "a number that may be another log's").await;

        for name in ["app-1.log", "app.log.bak", "other.log.1", "app.log.1.gz"] {
            let start = left(&bed).await;
            copy_truncate(&bed, name);
            is_truncated_only(&bed, start, name).await;
        }

        // A job that printed the same the day before, and was truncated without a copy today.
        bed.append(LOG, lines("a", 0..READ + 50));
        copy_truncate(&bed, "app.log.1");
        let start = left(&bed).await;
        truncate(&bed);
        is_truncated_only(&bed, start, "an older copy").await;

        // Two processes print the same 2 KiB when they start.
        let banner = lines("banner", 0..130);
        bed.append(LOG, &banner);
        let start = leave(&bed, LOG).await;
        wait_for_tick(&bed);
        bed.append("app.log.1", banner + "foreign\n");
        wait_for_tick(&bed);
        truncate(&bed);
        is_truncated_only(&bed, start, "another log").await;

        // It is written on.
        let start = left(&bed).await;
        wait_for_tick(&bed);
        fs::copy(bed.path(LOG), bed.path("app.log.1")).unwrap();
        truncate(&bed);
        wait_for_tick(&bed);
        bed.append("app.log.1", "foreign\n");
        let mut reading = bed.open(query(start)).await;
        reading.read_to_end().await;
        assert_eq!((reading.texts().len(), reading.events[0].clone()), (0, Event::Resumed(Found::Truncated)));
        bed.remove("app.log.1");
        bed.remove(LOG);
    }
}

#[tokio::test]
async fn a_copy_with_less_than_was_seen_is_not_read() {
    for bed in Bed::both() {
        bed.append(LOG, lines("a", 0..READ + 50));
        let batching = Batching { max_items: READ, ..Batching::default() };
        let mut reading = bed.open(Query { batching, ..query(Start::Head) }).await;
        reading.read_lines(READ).await;
        let start = reading.resume();
        copy_truncate(&bed, "app.log.1");
        let copy = File::options().write(true).open(bed.path("app.log.1")).unwrap();
        copy.set_len(size(&lines("a", 0..READ + 20))).unwrap();
        wait_for_tick(&bed);
        is_truncated_only(&bed, start, "a part of a copy").await;
    }
}

#[tokio::test]
async fn a_copy_is_read_only_if_the_rules_admit_it() {
    let rules = RootRules { deny: vec!["app.log.1".parse().unwrap()], ..RootRules::default() };
    let bed = Bed::on_disk_with(rules);
    let start = left(&bed).await;
    copy_truncate(&bed, "app.log.1");
    is_truncated_only(&bed, start, "denied").await;

    let rules = RootRules {
        allow: vec!["/app.log".parse().unwrap()],
        history: vec!["old/**".parse().unwrap()],
        ..RootRules::default()
    };
    let bed = Bed::on_disk_with(rules);
    for directory in ["old", "other"] {
        fs::create_dir(bed.path(directory)).unwrap();
    }
    for (name, is_found) in [("old/app.log.1", true), ("other/app.log.1", false)] {
        let start = left(&bed).await;
        copy_truncate(&bed, name);
        bed.append(LOG, "new\n");
        let reading = come_back(&bed, LOG, start, "new").await;
        assert_eq!(reading.lines.len(), if is_found { 51 } else { 1 }, "{name}");
        bed.remove(name);
        bed.remove(LOG);
    }
}

/// It is truncated to a length after the part that was read.
#[tokio::test]
async fn text_that_was_seen_and_cut_off_before_it_was_read_is_a_gap() {
    for bed in Bed::both() {
        let batching = Batching { max_items: 1, ..Batching::default() };
        let cut_off = |to: usize| {
            let log = File::options().write(true).open(bed.path(LOG)).unwrap();
            log.set_len(size(&lines("a", 0..to))).unwrap();
        };
        let gap = |from: usize, to: usize| Event::Gap {
            reason: perennial::lines::GapReason::Truncated,
            bytes: Some(size(&lines("a", from..to))),
        };
        bed.append(LOG, lines("a", 0..10));
        let mut reading = bed.open(Query { batching: batching.clone(), ..follow(Start::Head) }).await;
        reading.read_lines(2).await;
        cut_off(8);
        bed.append(LOG, "b\n");
        // While it reads: two lines are lost.
        reading.read_until("b").await;
        assert_eq!(reading.texts().join("\n") + "\n", lines("a", 0..8) + "b\n");
        assert_eq!(
            reading.events,
            [Event::Gap {
                reason: perennial::lines::GapReason::Truncated,
                bytes: Some(size(&lines("a", 8..10)) - 2)
            }]
        );
        bed.remove(LOG);
        // While it is away.
        bed.append(LOG, lines("a", 0..10));
        let mut reading = bed.open(Query { batching, ..query(Start::Head) }).await;
        reading.read_lines(2).await;
        let start = reading.resume();
        drop(reading);
        cut_off(8);
        let mut reading = bed.open(query(start)).await;
        reading.read_to_end().await;
        assert_eq!(reading.texts().join("\n") + "\n", lines("a", 2..8));
        assert_eq!(reading.events, [Event::Resumed(Found::Exact), gap(8, 10)]);
        bed.remove(LOG);
    }
}

#[tokio::test]
async fn a_line_whose_first_part_is_copied_and_truncated_is_not_joined_and_not_lost_in_silence() {
    for bed in Bed::both() {
        bed.append(LOG, "1\nfirst ");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until_caught_up().await;
        copy_truncate(&bed, "app.log.1");
        bed.append(LOG, "second\n2\n");
        reading.read_until("2").await;
        assert_eq!(reading.shown(), ["1", "second", "2"]);
        let cut_off = Event::Gap { reason: GapReason::Truncated, bytes: Some(6) };
        assert!(
            matches!(&reading.events[..], [gap, Event::Truncated { read_offset: 2, .. }] if *gap == cut_off)
        );
        bed.remove(LOG);
        bed.remove("app.log.1");
        // The reader is away: the part is the end of the copy.
        let start = left(&bed).await;
        bed.append(LOG, "first ");
        copy_truncate(&bed, "app.log.1");
        bed.append(LOG, "second\n2\n");
        let mut reading = bed.open(follow(start)).await;
        reading.read_until("2").await;
        assert_eq!(reading.shown()[50..], ["first $", "second", "2"]);
        assert!(matches!(reading.events[..], [Event::Resumed(Found::Moved), Event::Truncated { .. }]));
    }
}
