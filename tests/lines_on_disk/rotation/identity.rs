//! Which file is which: inodes that come again, files that go and come back, and those that are replaced.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use perennial::lines::{Error, Event, Found, Start};

use super::{is_gap, is_rotated, is_truncated};
use crate::bed::{Bed, LOG, follow, query, query_of};

/// ext4 gives the inode of the file that was deleted to the one that is made next.
#[tokio::test]
async fn a_file_made_after_another_was_deleted_is_a_new_one_though_it_has_its_inode() {
    for bed in Bed::both() {
        bed.append(LOG, "round 0\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("round 0").await;
        for round in 1..20 {
            bed.remove(LOG);
            let is_told = round % 3 == 0;
            if is_told {
                reading.wait_for_event("deleted", |event| *event == Event::Deleted).await;
            }
            let line = format!("round {round}");
            bed.append(LOG, format!("{line}\n"));
            reading.read_until(&line).await;
            let events = reading.take_events();
            let is_new =
                |event: &Event| matches!(event, Event::Opened { .. } | Event::Rotated { next_offset: 0 });
            assert_eq!(events.iter().filter(|event| is_new(event)).count(), 1, "{events:?}");
            assert!(!events.iter().any(|event| is_truncated(event) || is_gap(event)), "{events:?}");
        }
        assert_eq!(reading.texts(), (0..20).map(|round| format!("round {round}")).collect::<Vec<_>>());
    }
}

/// The same for one that was away: the file that was read is gone, and the new one must not pass for it.
#[tokio::test]
async fn a_reader_that_was_away_is_not_fooled_by_an_inode_that_came_again() {
    for bed in Bed::both() {
        bed.append(LOG, "old 1\nold 2\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("old 2").await;
        let start = reading.resume();
        drop(reading);
        bed.remove(LOG);
        bed.append(LOG, "new 1\nnew 2\nnew 3\n");
        let error = bed.try_open(follow(start)).await.err().unwrap();
        assert!(matches!(error, Error::Expired), "{error:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_renamed_away_and_back_continues_without_replay() {
    for bed in Bed::both() {
        bed.append(LOG, "1\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        // At once.
        bed.rename(LOG, "elsewhere");
        bed.rename("elsewhere", LOG);
        bed.append(LOG, "2\n");
        reading.read_until("2").await;
        // After it was reported as deleted.
        for away in ["app.log.1", "elsewhere"] {
            bed.rename(LOG, away);
            reading.wait_for_event("deleted", |event| *event == Event::Deleted).await;
            bed.append(away, "while away\n");
            bed.rename(away, LOG);
            bed.append(LOG, "back\n");
            reading.read_until("back").await;
            assert!(
                !reading.events.iter().any(|event| is_truncated(event) || is_gap(event)),
                "{:?}",
                reading.events
            );
        }
        // With another file at the path in between.
        bed.rename(LOG, "app.log.1");
        bed.append(LOG, "other\n");
        reading.read_until("other").await;
        bed.rename(LOG, "app.log.2");
        bed.rename("app.log.1", LOG);
        bed.append(LOG, "end\n");
        reading.read_until("end").await;
        let expected = ["1", "2", "while away", "back", "while away", "back", "other", "end"];
        assert_eq!(reading.texts(), expected, "{:?}", reading.events);
    }
}

#[tokio::test]
async fn a_file_that_is_moved_over_another_one_is_read_by_the_followers_of_both() {
    for bed in Bed::both() {
        bed.append("a", "a1\n");
        bed.append("b", "b1\n");
        let open = async |name| {
            bed.open(perennial::lines::Query { follow: true, ..query_of(name, Start::Head) }).await
        };
        let (mut a, mut b) = (open("a").await, open("b").await);
        a.read_until("a1").await;
        b.read_until("b1").await;
        bed.rename("a", "b");
        b.read_until("a1").await;
        a.wait_for_event("deleted", |event| *event == Event::Deleted).await;
        bed.append("b", "b2\n");
        b.read_until("b2").await;
        bed.append("a", "a2\n");
        a.read_until("a2").await;
        assert_eq!(
            (a.texts(), b.texts()),
            (vec!["a1".into(), "a2".into()], vec!["b1".into(), "a1".into(), "b2".into()])
        );
        assert_eq!(a.events, [Event::Deleted, Event::Opened { size: 3 }]);
        assert_eq!(b.events, [Event::Rotated { next_offset: 0 }]);
    }
}

/// An editor, or a tool that writes a new file and renames it, has appended; or has written something else.
#[tokio::test]
async fn a_replacement_that_begins_alike_is_an_append_and_any_other_a_new_file() {
    for bed in Bed::both() {
        for lines in [2, 100_000] {
            let _ = fs::remove_file(bed.path(LOG));
            let mut text = (0..lines).map(|n| format!("line {n}\n")).collect::<String>();
            bed.append(LOG, &text);
            let mut reading = bed.open(follow(Start::Head)).await;
            reading.read_lines(lines).await;
            for more in ["more", "and more"] {
                let next_offset = text.len() as u64;
                text += &format!("{more}\n");
                bed.append("temporary", &text);
                bed.rename("temporary", LOG);
                reading.read_until(more).await;
                assert_eq!(reading.take_events(), [Event::Rotated { next_offset }]);
            }
            assert_eq!(reading.lines.len(), lines + 2);
            // The last byte that was read differs.
            let other = format!("{}!\nand more\n", text.strip_suffix("e\nand more\n").unwrap());
            bed.append("temporary", other + "tail\n");
            bed.rename("temporary", LOG);
            reading.read_until("tail").await;
            assert_eq!(reading.events, [Event::Rotated { next_offset: 0 }]);
            assert_eq!(reading.lines.len(), (lines + 2) + (lines + 3));
        }
    }
}

/// A job that starts its log again with `>`, and writes as many bytes with the same end.
#[tokio::test]
async fn a_file_that_is_rewritten_with_the_same_size_and_end_but_another_head_is_read_again() {
    for bed in Bed::both() {
        let run = |run: usize| {
            let end = (0..20).map(|n| format!("the same line {n}\n"));
            std::iter::once(format!("run {run}\n")).chain(end).collect::<String>()
        };
        let lines = run(0).lines().count();
        bed.append(LOG, run(0));
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_lines(lines).await;
        let bytes = run(0).len() as u64;
        for n in 1..4 {
            // In one write, so that no other size is seen.
            let file = fs::File::options().write(true).open(bed.path(LOG)).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, run(n).as_bytes(), 0).unwrap();
            reading.read_lines((n + 1) * lines).await;
            assert_eq!(reading.take_events(), [Event::Truncated { read_offset: bytes, size: bytes }]);
        }
        assert_eq!(reading.texts().join("\n") + "\n", (0..4).map(run).collect::<String>());
        // A reader that was away notices it, too.
        let start = reading.resume();
        fs::write(bed.path(LOG), run(4)).unwrap();
        let mut reading = bed.open(follow(start)).await;
        reading.read_lines(lines).await;
        assert_eq!(reading.texts().join("\n") + "\n", run(4));
        let truncated = Event::Truncated { read_offset: bytes, size: bytes };
        assert_eq!(reading.events, [Event::Resumed(Found::Truncated), truncated]);
    }
}

/// Its time of creation is earlier than that of the file before it, as when the clock is set back in between.
#[tokio::test]
async fn a_numbered_generation_that_seems_older_than_the_one_before_it_is_not_skipped() {
    for bed in Bed::both() {
        bed.append("early", "2\n");
        bed.append(LOG, "1\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        let start = reading.resume();
        drop(reading);
        bed.rename(LOG, "app.log.3");
        bed.rename("early", "app.log.2");
        bed.append("app.log.1", "3\n");
        bed.append(LOG, "4\n");
        let mut reading = bed.open(follow(start)).await;
        reading.read_until("4").await;
        assert_eq!(reading.texts(), ["2", "3", "4"]);
        assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
    }
}

/// Some rotations give the newest file the highest number.
#[tokio::test]
async fn generations_that_are_numbered_upward_are_read_in_order() {
    for bed in Bed::both() {
        bed.append(LOG, "1\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        let start = reading.resume();
        drop(reading);
        for number in 1..6 {
            bed.rename(LOG, &format!("app.log.{number}"));
            bed.append(LOG, format!("{}\n", number + 1));
        }
        let mut reading = bed.open(follow(start)).await;
        reading.read_until("6").await;
        assert_eq!(reading.texts(), ["2", "3", "4", "5", "6"]);
    }
}

/// A writer replaces, renames away and deletes the file all the time: a reader that opens or lists it finds a whole file, or
/// none, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_or_delete_between_list_and_open_is_a_file_or_none() {
    for bed in Bed::both() {
        let ends = AtomicBool::new(false);
        let writes = || {
            let mut round = 0;
            while !ends.load(Ordering::Relaxed) {
                bed.append("temporary", format!("{round}\n{round}\n"));
                bed.rename("temporary", LOG);
                match round % 3 {
                    0 => bed.remove(LOG),
                    1 => bed.rename(LOG, "app.log.1"),
                    _ => {}
                }
                round += 1;
            }
        };
        let reads = async {
            let mut found = 0;
            for _ in 0..500 {
                for file in bed.files.list(None, 10, None, std::time::SystemTime::now()).await.unwrap().files
                {
                    let name = file.path.strip_prefix("r/").unwrap().to_owned();
                    match bed.try_open(query_of(&name, Start::Head)).await {
                        Ok(mut reading) => {
                            reading.read_to_end().await;
                            let texts = reading.texts();
                            // The temporary one may be seen before it is written.
                            assert!(
                                texts.is_empty() && name == "temporary"
                                    || texts.len() == 2 && texts[0] == texts[1],
                                "{texts:?}"
                            );
                            found += 1;
                        }
                        Err(Error::NotFound { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
            ends.store(true, Ordering::Relaxed);
            found
        };
        let found = std::thread::scope(|scope| {
            scope.spawn(writes);
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(reads))
        });
        assert!(found > 0);
    }
}

/// Followers come and go while it is replaced, and each of them reads only whole files, and ends up in the last.
#[tokio::test]
async fn a_follower_that_comes_while_the_file_is_replaced_ends_up_in_the_last_one() {
    for bed in Bed::both() {
        for round in 0..10 {
            let _ = fs::remove_file(bed.path(LOG));
            bed.append(LOG, "first\n");
            let replaces = async {
                for n in 0..round {
                    bed.append("temporary", format!("{n}\n"));
                    bed.rename("temporary", LOG);
                    tokio::task::yield_now().await;
                }
                bed.append("temporary", "last\n");
                bed.rename("temporary", LOG);
            };
            let (mut reading, ()) = tokio::join!(bed.open(follow(Start::Head)), replaces);
            reading.read_until("last").await;
            reading.quiet_for(Duration::from_millis(5)).await;
            assert_eq!(
                reading.texts().iter().filter(|line| *line == "last").count(),
                1,
                "{:?}",
                reading.texts()
            );
            assert!(
                reading.events.iter().all(|event| is_rotated(event) || is_gap(event)),
                "{:?}",
                reading.events
            );
        }
        assert!(bed.all(query(Start::Head)).await == ["last"]);
    }
}
