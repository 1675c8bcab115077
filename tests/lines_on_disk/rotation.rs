//! Rotation: files that are renamed, truncated, replaced and deleted while they are read.

use std::{
    fs::{self, File},
    io::Write,
    time::Duration,
};

use perennial::lines::{Event, Found, Options, Start};

use crate::bed::{Bed, LOG, follow, options, query};

mod away;
mod copied;
mod identity;
mod linked;
mod links;
mod mistaken;
mod numbers;
mod out_of_sight;
mod replaced;
mod torture;
mod variants;
mod watched;

fn is_gap(event: &Event) -> bool {
    matches!(event, Event::Gap { .. })
}

fn is_truncated(event: &Event) -> bool {
    matches!(event, Event::Truncated { .. })
}

fn is_rotated(event: &Event) -> bool {
    matches!(event, Event::Rotated { .. })
}

#[tokio::test]
async fn lines_written_late_to_a_file_that_was_renamed_come_before_those_of_its_successor() {
    // Long, so that on a busy machine each line is written within the grace of the one before it.
    let grace = Options { rotation_grace: Duration::from_secs(3), ..options() };
    for bed in Bed::both_with(grace) {
        bed.append(LOG, "first\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("first").await;
        let mut writer = File::options().append(true).open(bed.path(LOG)).unwrap();
        bed.rename(LOG, "app.log.1");
        bed.append(LOG, "new\n");
        for late in 0..4 {
            writeln!(writer, "late {late}").unwrap();
            reading.read_until(&format!("late {late}")).await;
        }
        reading.read_until("new").await;
        assert_eq!(reading.texts(), ["first", "late 0", "late 1", "late 2", "late 3", "new"]);
        assert_eq!(reading.events, [Event::Rotated { next_offset: 0 }]);
    }
}

#[tokio::test]
async fn files_that_came_and_were_renamed_before_a_follower_read_them_are_all_read_in_order() {
    for bed in Bed::both() {
        bed.append(LOG, "0\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("0").await;
        for generation in 1..=6 {
            for old in (1..generation).rev() {
                bed.rename(&format!("app.log.{old}"), &format!("app.log.{}", old + 1));
            }
            bed.rename(LOG, "app.log.1");
            bed.append(LOG, format!("{generation}\n"));
        }
        reading.read_until("6").await;
        assert_eq!(reading.texts(), ["0", "1", "2", "3", "4", "5", "6"]);
        assert_eq!(reading.events, vec![Event::Rotated { next_offset: 0 }; 6]);
    }
}

#[tokio::test]
async fn a_reader_that_was_away_reads_all_files_that_came_since() {
    for bed in Bed::both() {
        bed.append(LOG, "0\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("0").await;
        let start = reading.resume();
        drop(reading);
        for generation in 1..=6 {
            for old in (1..generation).rev() {
                bed.rename(&format!("app.log.{old}"), &format!("app.log.{}", old + 1));
            }
            bed.rename(LOG, "app.log.1");
            bed.append(LOG, format!("{generation}\n"));
        }
        let mut reading = bed.open(follow(start)).await;
        reading.read_until("6").await;
        assert_eq!(reading.texts(), ["1", "2", "3", "4", "5", "6"]);
        assert_eq!(reading.events[0], Event::Resumed(Found::Moved));
        assert_eq!(reading.events[1..], vec![Event::Rotated { next_offset: 0 }; 6]);
    }
}

/// More files than any list of siblings should be cut to.
#[tokio::test]
async fn a_reader_that_was_away_for_1500_rotations_reads_all_files_that_came_since() {
    const ROTATIONS: usize = 1500;
    for bed in Bed::both() {
        bed.append(LOG, "0\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("0").await;
        let start = reading.resume();
        drop(reading);
        bed.rename(LOG, &format!("app.log.{ROTATIONS}"));
        for rotation in 1..=ROTATIONS {
            let name =
                if rotation == ROTATIONS { LOG.into() } else { format!("app.log.{}", ROTATIONS - rotation) };
            bed.append(&name, format!("{rotation}\n"));
        }
        let mut reading = bed.open(follow(start)).await;
        reading.read_lines(ROTATIONS).await;
        assert_eq!(reading.texts(), (1..=ROTATIONS).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(reading.events.len(), 1 + ROTATIONS);
        assert!(reading.events[1..].iter().all(is_rotated), "{:?}", reading.events);
    }
}

/// It was truncated, and written to, and then put aside: what was written since is not lost.
#[tokio::test]
async fn a_reader_that_was_away_finds_a_file_that_was_truncated_before_it_was_renamed() {
    for bed in Bed::both() {
        bed.append(LOG, "1\n2\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("2").await;
        let start = reading.resume();
        drop(reading);
        fs::write(bed.path(LOG), "3\n").unwrap();
        bed.rename(LOG, "app.log.1");
        bed.append(LOG, "4\n");
        let mut reading = bed.open(follow(start)).await;
        reading.read_until("4").await;
        assert_eq!(reading.texts(), ["3", "4"]);
        let truncated = Event::Truncated { read_offset: 4, size: 2 };
        let rotated = Event::Rotated { next_offset: 0 };
        assert_eq!(reading.events, [Event::Resumed(Found::Truncated), truncated, rotated]);
    }
}

#[tokio::test]
async fn a_new_file_that_is_larger_than_the_offset_already_is_read_from_its_start() {
    for bed in Bed::both() {
        bed.append(LOG, "short\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("short").await;
        bed.append("next", (0..1000).map(|n| format!("line {n}\n")).collect::<String>());
        bed.rename(LOG, "app.log.1");
        bed.rename("next", LOG);
        reading.read_until("line 999").await;
        assert_eq!(reading.lines.len(), 1001);
        assert_eq!((reading.texts()[1].as_str(), reading.lines[1].offset), ("line 0", Some(0)));
        assert_eq!(reading.events, [Event::Rotated { next_offset: 0 }]);
    }
}

#[tokio::test]
async fn rewritten_to_exactly_the_same_size_is_truncated() {
    for bed in Bed::both() {
        bed.append(LOG, "round 0\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("round 0").await;
        for round in 1..10 {
            let line = format!("round {round}");
            fs::write(bed.path(LOG), format!("{line}\n")).unwrap();
            reading.read_until(&line).await;
            let events = reading.take_events();
            assert!(matches!(events[..], [Event::Truncated { read_offset: 8, .. }]), "{events:?}");
        }
        assert_eq!(reading.texts(), (0..10).map(|round| format!("round {round}")).collect::<Vec<_>>());
        // A reader that was away notices it, too.
        let start = reading.resume();
        fs::write(bed.path(LOG), "round x\n").unwrap();
        let mut reading = bed.open(follow(start)).await;
        reading.read_until("round x").await;
        let truncated = Event::Truncated { read_offset: 8, size: 8 };
        assert_eq!(reading.events, [Event::Resumed(Found::Truncated), truncated]);
    }
}

#[tokio::test]
async fn truncated_to_a_shorter_length_is_read_from_its_start() {
    for bed in Bed::both() {
        bed.append(LOG, "a long line\nanother\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("another").await;
        fs::write(bed.path(LOG), "new\n").unwrap();
        reading.read_until("new").await;
        bed.append(LOG, "more\n");
        reading.read_until("more").await;
        assert_eq!(reading.texts(), ["a long line", "another", "new", "more"]);
        assert!(
            matches!(reading.events[..], [Event::Truncated { read_offset: 20, .. }]),
            "{:?}",
            reading.events
        );
    }
}

/// A writer that keeps its offset leaves a hole where the file was truncated: in one block, and over many.
#[tokio::test]
async fn a_hole_that_copytruncate_leaves_is_reported_and_is_no_text() {
    for bed in Bed::both() {
        for lines in [10, 100_000] {
            bed.append(LOG, "");
            let mut writer = File::create(bed.path(LOG)).unwrap();
            let before = (0..lines).map(|n| format!("line {n}\n")).collect::<String>();
            writer.write_all(before.as_bytes()).unwrap();
            let mut reading = bed.open(follow(Start::Head)).await;
            reading.read_lines(lines).await;
            fs::copy(bed.path(LOG), bed.path("app.log.1")).unwrap();
            File::options().write(true).open(bed.path(LOG)).unwrap().set_len(0).unwrap();
            writer.write_all(b"after the hole\n").unwrap();
            reading.read_until("after the hole").await;
            let bytes = before.len() as u64;
            assert_eq!(
                (reading.lines.len(), reading.lines[lines].offset),
                (lines + 1, Some(before.len().try_into().unwrap()))
            );
            let hole = Event::Hole { offset: 0, bytes };
            assert!(
                matches!(&reading.events[..], [Event::Truncated { read_offset, .. }, reported] if *reported == hole && *read_offset == bytes),
                "{:?}",
                reading.events
            );
            assert!(reading.texts().iter().all(|line| !line.contains('\0')));
            // A reader that comes later gets the hole reported, too.
            let mut late = bed.open(query(Start::Head)).await;
            late.read_to_end().await;
            assert_eq!((late.texts(), late.events), (vec!["after the hole".to_string()], vec![hole]));
            bed.remove("app.log.1");
            bed.remove(LOG);
        }
    }
}

#[tokio::test]
async fn a_cursor_beyond_the_end_is_reported_as_truncated_once() {
    for bed in Bed::both() {
        bed.append(LOG, (0..10).map(|n| format!("line {n}\n")).collect::<String>());
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("line 9").await;
        let start = reading.resume();
        File::options().write(true).open(bed.path(LOG)).unwrap().set_len(14).unwrap();
        for follows in [true, false] {
            let mut reading = if follows {
                bed.open(follow(start.clone())).await
            } else {
                bed.open(query(start.clone())).await
            };
            reading.read_until("line 1").await;
            if follows {
                reading.quiet_for(Duration::from_millis(300)).await;
            } else {
                reading.read_to_end().await;
            }
            assert_eq!(reading.texts(), ["line 0", "line 1"]);
            assert_eq!(
                reading.events,
                [Event::Resumed(Found::Truncated), Event::Truncated { read_offset: 70, size: 14 }]
            );
            // It is not reported again to a reader that resumes after it.
            let mut again = bed.open(query(reading.resume())).await;
            again.read_to_end().await;
            assert_eq!((again.texts(), again.events), (vec![], vec![Event::Resumed(Found::Exact)]));
        }
    }
}

#[tokio::test]
async fn the_rest_of_a_file_that_is_deleted_while_it_is_read_is_delivered() {
    for bed in Bed::both() {
        let lines = 200_000;
        bed.append(LOG, (0..lines).map(|n| format!("line {n}\n")).collect::<String>());
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.batch().await.unwrap();
        assert!(reading.lines.len() < lines);
        bed.remove(LOG);
        reading.wait_for_event("deleted", |event| *event == Event::Deleted).await;
        assert_eq!(reading.lines.len(), lines);
        assert!(reading.texts().iter().enumerate().all(|(n, line)| *line == format!("line {n}")));
        assert_eq!(reading.events, [Event::Deleted]);
        bed.append(LOG, "new\n");
        reading.read_until("new").await;
        assert_eq!(reading.events, [Event::Deleted, Event::Opened { size: 4 }]);
    }
}

#[tokio::test]
async fn a_reader_that_does_not_follow_reads_a_deleted_file_to_its_end() {
    for bed in Bed::both() {
        let lines = 200_000;
        bed.append(LOG, (0..lines).map(|n| format!("line {n}\n")).collect::<String>());
        let mut reading = bed.open(query(Start::Head)).await;
        reading.batch().await.unwrap();
        bed.remove(LOG);
        reading.read_to_end().await;
        assert_eq!(reading.lines.len(), lines);
    }
}

#[tokio::test]
async fn late_lines_of_an_older_file_come_before_a_reader_enters_the_next_one() {
    for bed in Bed::both() {
        bed.append(LOG, "1\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        for number in 1..3 {
            bed.rename(LOG, &format!("app.log-2026010{number}"));
            bed.append(LOG, format!("{}\n", number + 1));
            reading.read_until(&(number + 1).to_string()).await;
        }
        bed.append("app.log-20260101", "late\n");
        bed.rename(LOG, "app.log-20260103");
        bed.append(LOG, "4\n");
        reading.read_until("4").await;
        assert_eq!(reading.texts(), ["1", "2", "3", "late", "4"]);
    }
}
