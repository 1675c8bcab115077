//! Start and open: where a stream begins, and files that are not there yet.

use std::{
    fs,
    os::unix::fs::FileExt,
    sync::{Arc, Barrier},
    time::Duration,
};

use perennial::lines::{Error, Event, Files, Query, Root, Start};
use perennial::stream::Batching;

use crate::bed::{Bed, Reading, append, follow, options, query, query_of};

/// How often two things that must not miss each other are raced.
const RACES: usize = 150;

/// The size of the blocks in which a search goes backward, and of a read.
const BLOCK_BYTES: usize = 64 * 1024;

fn waiting(name: &str) -> Query {
    Query { follow: true, wait_for_create: true, ..query_of(name, Start::Head) }
}

fn is_opened(event: &Event) -> bool {
    matches!(event, Event::Opened { .. })
}

fn is_deleted(event: &Event) -> bool {
    matches!(event, Event::Deleted)
}

/// Does something on a thread, at the same moment as the caller opens a reading.
async fn race(bed: &Bed, query: Query, other: impl FnOnce() + Send + 'static) -> Reading {
    let barrier = Arc::new(Barrier::new(2));
    let thread = {
        let barrier = barrier.clone();
        std::thread::spawn(move || {
            barrier.wait();
            other();
        })
    };
    barrier.wait();
    let reading = bed.open(query).await;
    tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap();
    reading
}

#[tokio::test]
async fn lines_appended_between_the_end_and_the_watch_are_delivered() {
    for bed in Bed::both() {
        for n in 0..RACES {
            let (name, path) = (format!("{n}.log"), bed.path(&format!("{n}.log")));
            bed.append(&name, "0\n");
            let query = Query { follow: true, ..query_of(&name, Start::Head) };
            let mut reading =
                race(&bed, query, move || (1..10).for_each(|line| append(&path, format!("{line}\n")))).await;
            reading.read_lines(10).await;
            assert_eq!(reading.texts(), (0..10).map(|line| line.to_string()).collect::<Vec<_>>());
            assert!(reading.events.is_empty(), "{:?}", reading.events);
        }
    }
}

#[tokio::test]
async fn lines_appended_while_the_start_is_searched_are_delivered() {
    for bed in Bed::both() {
        for n in 0..RACES {
            let (name, path) = (format!("{n}.log"), bed.path(&format!("{n}.log")));
            bed.append(&name, "10\n11\n");
            let start = [Start::Last(0), Start::Last(1), Start::Last(3), Start::Line(5), Start::Offset(6)]
                [n % 5]
                .clone();
            let query = Query { follow: true, ..query_of(&name, start.clone()) };
            let write = move || (12..30).for_each(|line| append(&path, format!("{line}\n")));
            let mut reading = race(&bed, query, write).await;
            bed.append(&name, "30\n");
            reading.read_until("30").await;
            let first = match start {
                Start::Line(_) => Some(14),
                Start::Offset(_) => Some(12),
                // Of the end as it was at some moment.
                _ => reading.texts().first().map(|first| first.parse().unwrap()),
            };
            let expected = (first.unwrap()..=30).map(|line: i32| line.to_string()).collect::<Vec<_>>();
            assert_eq!(reading.shown(), expected, "{start:?}");
        }
    }
}

#[tokio::test]
async fn a_file_that_replaces_the_other_between_its_end_and_the_watch_is_delivered() {
    for bed in Bed::both() {
        for n in 0..RACES {
            let path = |suffix: &str| bed.path(&format!("{n}.log{suffix}"));
            let (name, log, new, old) = (format!("{n}.log"), path(""), path(".new"), path(".1"));
            append(&log, "old\n");
            append(&new, "new\n");
            // Between a rename and what replaces it there is no file.
            let mut reading = race(&bed, waiting(&name), move || {
                if n % 2 == 0 {
                    fs::rename(&log, old).unwrap();
                }
                fs::rename(new, log).unwrap();
            })
            .await;
            reading.read_until("new").await;
            match &reading.texts()[..] {
                [new] => {
                    assert_eq!(new, "new");
                    assert!(
                        matches!(reading.events[..], [] | [Event::Opened { .. }]),
                        "{:?}",
                        reading.events
                    );
                }
                [old, new] => assert_eq!(
                    (old.as_str(), new.as_str(), &reading.events[..]),
                    ("old", "new", &[Event::Rotated { next_offset: 0 }][..])
                ),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_missing_file_is_not_found_or_waited_for() {
    for bed in Bed::both() {
        for query in [query(Start::Head), follow(Start::Head), follow(Start::Last(3))] {
            let error = bed.try_open(query).await.err().unwrap();
            assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
        }
        let elsewhere = Query { path: "none/app.log".into(), ..waiting("app.log") };
        let error = bed.try_open(elsewhere).await.err().unwrap();
        assert!(matches!(error, Error::NotFound { .. }), "a root that is not there: {error:?}");
        for start in [Start::Head, Start::Last(1), Start::Last(0)] {
            let mut reading = bed.open(Query { start: start.clone(), ..waiting("app.log") }).await;
            assert_eq!(reading.batch().await.unwrap().count, 0, "the first batch leaves at once");
            bed.append("app.log", "1\n2\n3\n");
            reading.read_until("3").await;
            assert_eq!(reading.texts(), ["1", "2", "3"], "{start:?}: a new file is read from its start");
            assert!(matches!(reading.events[..], [Event::Opened { .. }]), "{:?}", reading.events);
            bed.remove("app.log");
        }
    }
}

#[tokio::test]
async fn a_reader_that_waits_for_a_file_does_not_get_one_that_was_deleted_but_is_still_open() {
    for bed in Bed::both() {
        bed.append("app.log", "1\n");
        let mut other = bed.open(follow(Start::Head)).await;
        other.read_until("1").await;
        bed.remove("app.log");
        other.wait_for_event("deleted", is_deleted).await;
        let mut reading = bed.open(waiting("app.log")).await;
        let mut resumed = bed.open(Query { start: other.resume(), ..waiting("app.log") }).await;
        for reading in [&mut reading, &mut resumed] {
            reading.batch().await.unwrap();
            reading.quiet_for(Duration::from_millis(100)).await;
        }
        bed.append("app.log", "2\n");
        for reading in [&mut reading, &mut resumed] {
            reading.read_until("2").await;
            assert_eq!(
                (reading.texts(), reading.events.last()),
                (vec!["2".into()], Some(&Event::Opened { size: 2 }))
            );
        }
    }
}

#[tokio::test]
async fn a_reader_that_resumes_while_its_file_is_away_goes_on_in_it_when_it_is_back() {
    for bed in Bed::both() {
        fs::create_dir(bed.path("dir")).unwrap();
        bed.append("app.log", "1\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        bed.rename("app.log", "dir/away");
        reading.wait_for_event("deleted", is_deleted).await;
        let start = reading.resume();
        drop(reading);
        let mut resumed = bed.open(follow(start)).await;
        resumed.batch().await.unwrap();
        let mut twice = bed.open(follow(resumed.resume())).await;
        twice.batch().await.unwrap();
        bed.append("dir/away", "2\n");
        bed.rename("dir/away", "app.log");
        for reading in [&mut resumed, &mut twice] {
            reading.read_until("2").await;
            assert_eq!(reading.texts(), ["2"]);
        }
    }
}

#[tokio::test]
async fn a_missing_parent_that_appears_later_is_waited_for() {
    for bed in Bed::both() {
        let mut reading = bed.open(waiting("a/b/app.log")).await;
        reading.batch().await.unwrap();
        let mut resumed = bed.open(Query { start: reading.resume(), ..waiting("a/b/app.log") }).await;
        resumed.batch().await.unwrap();
        fs::create_dir(bed.path("a")).unwrap();
        fs::create_dir(bed.path("a/b")).unwrap();
        bed.append("a/b/app.log", "1\n");
        for reading in [&mut reading, &mut resumed] {
            reading.read_until("1").await;
            assert_eq!(reading.texts(), ["1"]);
            assert!(matches!(reading.events.last(), Some(Event::Opened { .. })), "{:?}", reading.events);
        }
        bed.append("a/b/app.log", "2\n");
        reading.read_until("2").await;
    }
}

#[tokio::test]
async fn a_parent_that_is_removed_and_made_again_is_followed() {
    for bed in Bed::both() {
        for turn in 0..2 {
            fs::create_dir(bed.path("dir")).unwrap();
            bed.append("dir/app.log", "1\n");
            let mut reading = bed.open(Query { follow: true, ..query_of("dir/app.log", Start::Head) }).await;
            reading.read_until("1").await;
            fs::remove_dir_all(bed.path("dir")).unwrap();
            reading.wait_for_event("deleted", is_deleted).await;
            fs::create_dir(bed.path("dir")).unwrap();
            bed.append("dir/app.log", "2\n");
            reading.read_until("2").await;
            bed.append("dir/app.log", "3\n");
            reading.read_until("3").await;
            assert_eq!(reading.texts(), ["1", "2", "3"], "{turn}");
            assert!(matches!(reading.events[..], [Event::Deleted, Event::Opened { .. }]));
            fs::remove_dir_all(bed.path("dir")).unwrap();
        }
    }
}

#[tokio::test]
async fn a_parent_that_is_moved_away_is_drained_before_the_new_one() {
    for bed in Bed::both() {
        fs::create_dir(bed.path("dir")).unwrap();
        bed.append("dir/app.log", "1\n");
        let mut reading = bed.open(Query { follow: true, ..query_of("dir/app.log", Start::Head) }).await;
        reading.read_until("1").await;
        bed.rename("dir", "away");
        bed.append("away/app.log", "2\n");
        fs::create_dir(bed.path("dir")).unwrap();
        bed.append("dir/app.log", "3\n");
        reading.read_until("3").await;
        assert_eq!(reading.texts(), ["1", "2", "3"]);
    }
}

#[tokio::test]
async fn a_directory_comes_first_and_its_file_later() {
    for bed in Bed::both() {
        fs::create_dir(bed.path("dir")).unwrap();
        let mut reading = bed.open(waiting("dir/app.log")).await;
        reading.batch().await.unwrap();
        bed.append("dir/app.log", "");
        reading.wait_for_event("opened", is_opened).await;
        bed.append("dir/app.log", "1\n");
        reading.read_until("1").await;
        assert_eq!((reading.texts(), reading.events.len()), (vec!["1".to_string()], 1));
    }
}

#[tokio::test]
async fn a_file_that_becomes_a_directory_is_drained_and_reported_and_the_next_file_is_waited_for() {
    for bed in Bed::both() {
        bed.append("app.log", "1\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        bed.rename("app.log", "away");
        fs::create_dir(bed.path("app.log")).unwrap();
        bed.append("away", "2\nhalf");
        reading.wait_for_event("deleted", is_deleted).await;
        assert_eq!(reading.shown(), ["1", "2", "half$"]);
        let error = bed.try_open(follow(Start::Head)).await.err().unwrap();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
        fs::remove_dir(bed.path("app.log")).unwrap();
        bed.append("app.log", "3\n");
        reading.read_until("3").await;
        assert_eq!(reading.shown(), ["1", "2", "half$", "3"]);
        assert!(matches!(reading.events[..], [Event::Deleted, Event::Opened { .. }]));
    }
}

#[tokio::test]
async fn the_first_batch_leaves_before_the_stream_waits() {
    for bed in Bed::both() {
        bed.append("empty", "");
        bed.append("full", "1\n2\npart");
        for (name, start, count) in [
            ("empty", Start::Head, 0),
            ("empty", Start::Line(7), 0),
            ("full", Start::Head, 2),
            ("full", Start::Last(0), 0),
            ("full", Start::Offset(8), 0),
            ("full", Start::Line(3), 0),
        ] {
            let mut reading = bed.open(Query { follow: true, ..query_of(name, start.clone()) }).await;
            let first = reading.batch().await.unwrap();
            assert!(first.count == count && first.progress.caught_up, "{name} {start:?}: {first:?}");
        }
        assert_eq!(bed.open(waiting("none")).await.batch().await.unwrap().count, 0);
    }
}

#[tokio::test]
async fn the_batch_that_reaches_the_end_says_so_also_if_it_is_full() {
    for bed in Bed::both() {
        bed.append("app.log", "1\n2\n3\npart");
        let batching = Batching { max_items: 1, ..Batching::default() };
        let mut reading = bed.open(Query { batching, ..follow(Start::Head) }).await;
        reading.read_until_caught_up().await;
        assert_eq!(reading.texts(), ["1", "2", "3"]);
        bed.append("app.log", " of 4\n");
        let batch = reading.batch().await.unwrap();
        assert!(batch.count == 1 && batch.progress.caught_up, "{batch:?}");
        reading.quiet_for(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn files_of_proc_and_sys_are_read_whole_though_their_sizes_are_wrong() {
    let mut bed = Bed::on_disk();
    let roots = [("proc", "/proc"), ("sys", "/sys")];
    let roots = roots.map(|(name, path)| Root::new(name, path));
    bed.files = Files::new(roots.into(), options()).unwrap();
    // None says its size: those of /proc are empty, those of /sys have a page.
    for path in [
        "proc/version",
        "proc/cpuinfo",
        "proc/filesystems",
        "sys/kernel/mm/transparent_hugepage/enabled",
        "sys/kernel/fscaps",
    ] {
        let content = fs::read_to_string(format!("/{path}")).unwrap();
        let lines = content.lines().collect::<Vec<_>>();
        let of = |start| Query { path: path.into(), ..query(start) };
        assert_eq!(bed.all(of(Start::Head)).await, lines, "{path}");
        for count in [0, 1, 2, 100_000] {
            let tail = &lines[lines.len().saturating_sub(count)..];
            assert_eq!(bed.all(of(Start::Last(count as u64))).await, tail, "the last {count} of {path}");
        }
        assert_eq!(bed.all(of(Start::Line(1))).await, lines, "{path}");
        assert_eq!(bed.all(of(Start::Offset(1))).await.concat(), lines.concat()[1..], "{path}");
        assert_eq!(bed.all(of(Start::Line(lines.len() as u64 + 1))).await, [""; 0], "{path}");
    }
}

#[tokio::test]
async fn the_last_lines_are_found_across_every_border_of_blocks() {
    for bed in Bed::both() {
        // Newlines just before, at and after each border, counted from the end as the search does.
        for (shift, tail) in
            [0, 1, 2, 3, BLOCK_BYTES / 2].into_iter().flat_map(|shift| [(shift, ""), (shift, "no newline")])
        {
            let lengths = [
                BLOCK_BYTES,
                2 * BLOCK_BYTES + 1,
                1,
                BLOCK_BYTES - 1,
                2,
                BLOCK_BYTES - 2,
                BLOCK_BYTES,
                shift + 1,
            ];
            let mut content =
                (lengths.iter().map(|length| "x".repeat(length - 1) + "\n")).collect::<String>();
            content.push_str(tail);
            fs::write(bed.path("app.log"), &content).unwrap();
            let lines = content.lines().collect::<Vec<_>>();
            for count in 0..=lines.len() + 1 {
                let expected = &lines[lines.len().saturating_sub(count)..];
                assert!(
                    bed.all(query(Start::Last(count as u64))).await == expected,
                    "{count}, shifted by {shift}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_last_lines_of_more_than_4_gib_are_found() {
    const BEHIND_4_GIB: u64 = (4 << 30) + 12_345;
    for bed in Bed::both() {
        let file = fs::File::create(bed.path("app.log")).unwrap();
        file.write_all_at(b"head\n", 0).unwrap();
        let content = (0..20_000).map(|n| format!("line {n}\n")).collect::<String>();
        file.write_all_at(content.as_bytes(), BEHIND_4_GIB).unwrap();
        let lines = content.lines().collect::<Vec<_>>();
        for count in [1, 10, 19_999, 20_000] {
            let mut reading = bed.open(query(Start::Last(count))).await;
            reading.read_to_end().await;
            assert!(reading.texts() == lines[20_000 - usize::try_from(count).unwrap()..], "{count}");
            assert!(reading.lines[0].offset.unwrap() >= i64::try_from(BEHIND_4_GIB).unwrap());
        }
        // The hole is no line; before it there is one.
        let mut reading = bed.open(query(Start::Last(20_001))).await;
        reading.read_to_end().await;
        assert_eq!((reading.texts()[0].as_str(), reading.lines.len()), ("head", 20_001));
        let expected = Event::Hole { offset: 5, bytes: BEHIND_4_GIB - 5 };
        assert_eq!(reading.events, [expected]);
    }
}

#[tokio::test]
async fn a_last_line_without_newline_is_counted_and_flagged() {
    for bed in Bed::both() {
        bed.append("app.log", "1\n2\n3");
        for (start, expected) in [
            (Start::Head, &["1", "2", "3$"][..]),
            (Start::Last(1), &["3$"]),
            (Start::Last(2), &["2", "3$"]),
            (Start::Line(3), &["3$"]),
        ] {
            let mut reading = bed.open(query(start)).await;
            reading.read_to_end().await;
            assert_eq!(reading.shown(), expected);
        }
        // A follower waits for its newline.
        let mut reading = bed.open(follow(Start::Last(2))).await;
        reading.read_until("2").await;
        bed.append("app.log", " and a half\n");
        reading.read_until("3 and a half").await;
        assert_eq!(reading.shown(), ["2", "3 and a half"]);
    }
}

#[tokio::test]
async fn the_last_lines_are_all_lines_of_a_shorter_file_and_no_lines_of_an_empty_one() {
    for bed in Bed::both() {
        bed.append("app.log", "1\n2\n");
        bed.append("empty", "");
        for count in [2, 3, 1000, u64::MAX] {
            assert_eq!(bed.all(query(Start::Last(count))).await, ["1", "2"]);
        }
        assert_eq!(bed.all(query(Start::Last(0))).await, [""; 0]);
        for count in [0, 1, u64::MAX] {
            assert_eq!(bed.all(query_of("empty", Start::Last(count))).await, [""; 0]);
            let empty = Query { follow: true, ..query_of("empty", Start::Last(count)) };
            bed.open(empty).await.quiet_for(Duration::from_millis(50)).await;
        }
        let mut reading = bed.open(follow(Start::Last(0))).await;
        reading.batch().await.unwrap();
        bed.append("app.log", "3\n");
        reading.read_until("3").await;
        assert_eq!(reading.texts(), ["3"]);
    }
}

#[tokio::test]
async fn the_last_0_lines_within_a_line_that_is_being_written_are_its_rest() {
    for bed in Bed::both() {
        bed.append("app.log", "1\nbegun");
        let mut reading = bed.open(follow(Start::Last(0))).await;
        reading.batch().await.unwrap();
        bed.append("app.log", " and done\n2\n");
        reading.read_until("2").await;
        assert_eq!(reading.shown(), [" and done<", "2"]);
    }
}
