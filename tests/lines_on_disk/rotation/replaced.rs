//! Another file at the path: one that was renamed onto it goes on after what it has in common with the one before, and one
//! that was created there is a new one.

use std::fs;

use perennial::lines::{Delimiter, Event, Query, Rules, Start};

use super::is_gap;
use crate::bed::{Bed, LOG, Reading, follow, text};

fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|n| format!("line {n}\n")).collect()
}

/// Reads 1,000 lines.
async fn reading_of_1000(bed: &Bed) -> Reading {
    bed.append(LOG, lines(0..1000));
    let mut reading = bed.open(follow(Start::Head)).await;
    reading.read_lines(1000).await;
    reading
}

/// Each line came once, and the event says where the new file goes on.
fn goes_on(reading: &Reading, count: usize, next_offset: usize) {
    assert!(reading.texts().iter().enumerate().all(|(n, line)| *line == format!("line {n}")));
    assert_eq!(reading.lines.len(), count);
    assert_eq!(reading.events, [Event::Rotated { next_offset: next_offset as u64 }]);
}

/// `sed -i.bak`, and `rsync --backup` with its default suffix.
#[tokio::test]
async fn a_log_that_is_edited_in_place_with_a_backup_goes_on_after_the_overlap() {
    for bed in Bed::both() {
        for (backup, from) in [("app.log.bak", 1), ("app.log~", 0), (".app.log.old", 700)] {
            let mut reading = reading_of_1000(&bed).await;
            bed.append("temporary", lines(from..1010));
            bed.rename(LOG, backup);
            bed.rename("temporary", LOG);
            reading.read_until("line 1009").await;
            bed.append(LOG, "line 1010\n");
            reading.read_until("line 1010").await;
            goes_on(&reading, 1011, lines(from..1000).len());
            bed.remove(LOG);
            bed.remove(backup);
        }
    }
}

/// `tail -n 100 f > g && mv g f`
#[tokio::test]
async fn a_log_that_is_cut_to_its_last_lines_by_a_rename_goes_on_after_them() {
    for bed in Bed::both() {
        let mut reading = reading_of_1000(&bed).await;
        for cut in 1..4 {
            let last = fs::read_to_string(bed.path(LOG)).unwrap().lines().count();
            let (from, to) = (999 + cut - last.min(400), 999 + cut);
            bed.append("temporary", lines(from..to));
            bed.rename("temporary", LOG);
            let rotated =
                |event: &Event| *event == Event::Rotated { next_offset: lines(from..to).len() as u64 };
            reading.wait_for_event("rotated", rotated).await;
            bed.append(LOG, lines(to..to + 1));
            reading.read_until(&format!("line {to}")).await;
        }
        assert!(reading.texts().iter().enumerate().all(|(n, line)| *line == format!("line {n}")));
        assert_eq!((reading.lines.len(), reading.events.len()), (1003, 3));
    }
}

#[tokio::test]
async fn what_is_renamed_onto_the_path_and_has_less_than_1_kib_in_common_is_a_new_file() {
    for bed in Bed::both() {
        let mut reading = reading_of_1000(&bed).await;
        bed.append("temporary", lines(990..1001));
        bed.rename("temporary", LOG);
        reading.read_until("line 1000").await;
        assert_eq!(reading.lines.len(), 1011);
        assert_eq!(reading.events, [Event::Rotated { next_offset: 0 }]);
    }
}

/// A job that prints the same every time: its second run is no continuation of the first.
#[tokio::test]
async fn a_log_that_is_removed_and_created_with_the_same_lines_comes_in_full() {
    for bed in Bed::both() {
        let mut reading = reading_of_1000(&bed).await;
        for run in 2..6 {
            bed.remove(LOG);
            if run % 2 == 0 {
                reading.wait_for_event("deleted", |event| *event == Event::Deleted).await;
            }
            bed.append(LOG, lines(0..1000));
            reading.read_lines(run * 1000).await;
            let new = reading.take_events();
            let is_new =
                |event: &Event| matches!(event, Event::Opened { .. } | Event::Rotated { next_offset: 0 });
            assert_eq!(new.iter().filter(|event| is_new(event)).count(), 1, "{new:?}");
            assert!(!new.iter().any(is_gap), "{new:?}");
        }
        let expected = lines(0..1000).repeat(5);
        assert_eq!(reading.texts().join("\n") + "\n", expected);
    }
}

/// A link is pointed to another log that begins with the same banner.
#[tokio::test]
async fn the_target_of_a_link_that_is_pointed_elsewhere_is_a_new_file_though_it_begins_alike() {
    for bed in Bed::both() {
        let banner = lines(0..1000);
        bed.append("first", &banner);
        bed.append("second", banner.clone() + "second\n");
        std::os::unix::fs::symlink("first", bed.path(LOG)).unwrap();
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_lines(1000).await;
        std::os::unix::fs::symlink("second", bed.path("temporary")).unwrap();
        bed.rename("temporary", LOG);
        reading.read_until("second").await;
        assert_eq!(reading.lines.len(), 2001);
        assert_eq!(reading.events, [Event::Rotated { next_offset: 0 }]);
    }
}

/// The lines of the new file count from 1, also those that are not read again.
#[tokio::test]
async fn a_stream_that_ends_at_a_line_counts_the_lines_of_a_file_in_which_it_goes_on() {
    for bed in Bed::both() {
        for delimiter in [None, Some("\n"), Some("e 9")] {
            bed.append(LOG, lines(0..1000));
            let delimiter = Delimiter::parse(delimiter).unwrap();
            let count = |text: &str| {
                let bytes = if let Delimiter::Bytes(bytes) = &delimiter { &bytes[..] } else { b"\n" };
                text.matches(std::str::from_utf8(bytes).unwrap()).count()
            };
            let new = lines(300..10_000);
            let rules = Rules {
                until_line: Some(count(&new) as u64),
                delimiter: delimiter.clone(),
                ..Rules::default()
            };
            let mut reading = bed.open(Query { rules, ..follow(Start::Head) }).await;
            reading.read_lines(count(&lines(0..1000))).await;
            bed.append("temporary", &new);
            bed.rename("temporary", LOG);
            bed.append(LOG, lines(10_000..10_010));
            // It ends by itself.
            reading.read_to_end().await;
            let last = reading.lines.last().unwrap();
            assert_eq!(last.number, i64::try_from(count(&new)).ok());
            if count(&new) == 9_700 {
                assert_eq!(text(last), "line 9999");
                goes_on(&reading, 10_000, lines(300..1000).len());
            }
            bed.remove(LOG);
        }
    }
}
