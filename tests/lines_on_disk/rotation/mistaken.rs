//! Rotations while no reader is there: which files are not taken for others, and which are not read twice.

use std::fs;

use super::{
    away::{come_back, has_expired, leave, lines},
    copied::wait_for_tick,
    is_gap,
};
use crate::bed::{Bed, LOG, query};

/// The same 2 KiB, in a log beside it and in its successor.
#[tokio::test]
async fn two_processes_that_print_the_same_banner_are_not_taken_for_each_other() {
    for bed in Bed::both() {
        let banner = lines("banner", 0..120);
        bed.append(LOG, banner.clone() + "first 1\n");
        let start = leave(&bed, LOG).await;
        bed.append("app.log.2", banner.clone() + "foreign 1\n");
        bed.remove(LOG);
        has_expired(&bed, query(start.clone())).await;
        bed.append(LOG, banner.clone() + "second 1\n");
        has_expired(&bed, query(start)).await;
        // Where the banner is all that was read: in another file of the directory it proves nothing.
        bed.remove(LOG);
        bed.append(LOG, &banner);
        let start = leave(&bed, LOG).await;
        bed.remove(LOG);
        bed.append("app.log.1", banner.clone() + "foreign 2\n");
        has_expired(&bed, query(start)).await;
        bed.remove("app.log.1");
        bed.remove("app.log.2");
    }
}

#[tokio::test]
async fn another_log_with_the_name_of_a_rotation_is_never_read() {
    for bed in Bed::both() {
        bed.append(LOG, "1\n");
        let start = leave(&bed, LOG).await;
        bed.append(LOG, "2\n");
        bed.rename(LOG, "app.log.1");
        bed.append("app.log.2", "foreign\n");
        bed.append(LOG, "3\n");
        // It is written on, also by the coarse clock of the file system.
        let born = fs::metadata(bed.path(LOG)).unwrap().created().unwrap();
        while fs::metadata(bed.path("app.log.2")).unwrap().modified().unwrap() <= born {
            bed.append("app.log.2", "foreign\n");
        }
        let reading = come_back(&bed, LOG, start, "3").await;
        assert_eq!(reading.texts(), ["2", "3"]);
    }
}

/// The log was renamed to the next number of a log beside it, which was not renamed.
#[tokio::test]
async fn a_log_that_is_numbered_before_its_extension_is_not_read_as_the_history_of_another() {
    for bed in Bed::both() {
        bed.append(LOG, "1\n");
        bed.append("app-1.log", "foreign\n");
        let start = leave(&bed, LOG).await;
        bed.append(LOG, "2\n");
        bed.rename(LOG, "app-2.log");
        bed.append(LOG, "3\n");
        let reading = come_back(&bed, LOG, start.clone(), "3").await;
        assert_eq!(reading.texts(), ["2", "3"]);
        // It is written on, also by the coarse clock of the file system.
        let born = fs::metadata(bed.path(LOG)).unwrap().created().unwrap();
        while fs::metadata(bed.path("app-1.log")).unwrap().modified().unwrap() <= born {
            bed.append("app-1.log", "foreign\n");
        }
        let reading = come_back(&bed, LOG, start, "3").await;
        assert_eq!(reading.texts(), ["2", "3"]);
    }
}

/// The first 200 bytes and the last 64 before the cursor are the same.
#[tokio::test]
async fn a_file_that_differs_in_the_last_1_kib_before_the_cursor_is_another_one() {
    for bed in Bed::both() {
        let content = |middle: &str| lines("head", 0..100) + middle + &lines("tail", 0..10);
        bed.append(LOG, content("one\n"));
        let start = leave(&bed, LOG).await;
        bed.append("temporary", content("two\n") + "more\n");
        bed.rename("temporary", LOG);
        has_expired(&bed, query(start)).await;
    }
}

#[tokio::test]
async fn a_copy_of_the_log_is_not_read_again_also_if_the_log_grew_since() {
    for bed in Bed::both() {
        for grows in [false, true] {
            bed.append(LOG, lines("a", 0..50));
            let start = leave(&bed, LOG).await;
            fs::copy(bed.path(LOG), bed.path("app.log.20261123")).unwrap();
            if grows {
                // Not within the same tick of the file system's clock.
                let written = || fs::metadata(bed.path(LOG)).unwrap().modified().unwrap();
                let copied = fs::metadata(bed.path("app.log.20261123")).unwrap().created().unwrap();
                bed.append(LOG, "grown\n");
                while written() <= copied {
                    fs::File::options()
                        .append(true)
                        .open(bed.path(LOG))
                        .unwrap()
                        .set_modified(std::time::SystemTime::now())
                        .unwrap();
                }
            }
            bed.rename(LOG, "app.log.1");
            bed.append(LOG, "new\n");
            let reading = come_back(&bed, LOG, start, "new").await;
            let expected = if grows { vec!["grown", "new"] } else { vec!["new"] };
            assert_eq!(reading.texts(), expected);
            assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
            for name in ["app.log.20261123", "app.log.1", LOG] {
                bed.remove(name);
            }
        }
    }
}

#[tokio::test]
async fn a_job_that_prints_the_same_every_day_is_delivered_every_day() {
    for bed in Bed::both() {
        for names in [["app.log-20261121", "app.log-20261122"], ["app.log.2", "app.log.1"]] {
            bed.append(LOG, lines("job", 0..50));
            let start = leave(&bed, LOG).await;
            for name in names {
                bed.rename(LOG, name);
                bed.append(LOG, lines("job", 0..50));
            }
            bed.append(LOG, "end\n");
            let reading = come_back(&bed, LOG, start, "end").await;
            assert_eq!(reading.texts().join("\n"), lines("job", 0..50).repeat(2) + "end");
            for name in names.into_iter().chain([LOG]) {
                bed.remove(name);
            }
        }
    }
}

#[tokio::test]
async fn generations_that_are_gone_or_compressed_are_a_gap() {
    for bed in Bed::both() {
        for (names, lost, compressed) in [
            (["app.log.3", "app.log.2", "app.log.1"], "app.log.2", ""),
            (["app.log.3", "app.log.2", "app.log.1"], "app.log.1", "app.log.1.gz"),
            (
                ["app-20261121.log", "app-20261122.log", "app-20261123.log"],
                "app-20261122.log",
                "app-20261122.log.gz",
            ),
        ] {
            bed.append(LOG, "0\n");
            let start = leave(&bed, LOG).await;
            for (n, name) in names.iter().enumerate() {
                bed.rename(LOG, name);
                bed.append(LOG, format!("{}\n", n + 1));
            }
            if compressed.is_empty() {
                bed.remove(lost);
            } else {
                bed.rename(lost, compressed);
            }
            let reading = come_back(&bed, LOG, start, "3").await;
            assert_eq!(reading.lines.len(), 2, "{:?}", reading.texts());
            assert_eq!(
                reading.events.iter().filter(|event| is_gap(event)).count(),
                1,
                "{:?}",
                reading.events
            );
            for name in names.into_iter().chain([LOG, compressed]) {
                // Some of them were removed or renamed.
                let _ = fs::remove_file(bed.path(name));
            }
        }
    }
}

/// Waits until the clock of the file system, which is coarse, has a later time than that of the last write to a file.
fn wait_for_a_tick_after(bed: &Bed, name: &str) {
    let written = fs::metadata(bed.path(name)).unwrap().modified().unwrap();
    let probe = bed.path("probe");
    loop {
        fs::write(&probe, "").unwrap();
        let now = fs::metadata(&probe).unwrap().created().unwrap();
        fs::remove_file(&probe).unwrap();
        if now > written {
            return;
        }
    }
}

/// Its time of creation is earlier than that of the file before it, as when the clock is set back in between; or only its
/// date is.
#[tokio::test]
async fn a_dated_generation_is_delivered_or_a_gap_when_the_clock_was_set_back() {
    for bed in Bed::both() {
        bed.append("early", "2\n");
        wait_for_a_tick_after(&bed, "early");
        bed.append(LOG, "1\n");
        let start = leave(&bed, LOG).await;
        bed.rename(LOG, "app.log-20261121");
        bed.rename("early", "app.log-20261122");
        bed.append(LOG, "3\n");
        let reading = come_back(&bed, LOG, start, "3").await;
        assert_eq!(reading.texts(), ["2", "3"]);
        assert!(!reading.events.iter().any(is_gap), "{:?}", reading.events);
        // It was created and written later, and has an earlier date.
        let start = leave(&bed, LOG).await;
        bed.rename(LOG, "app.log-20261124");
        bed.append(LOG, "4\n");
        bed.rename(LOG, "app.log-20261120");
        bed.append(LOG, "5\n");
        let reading = come_back(&bed, LOG, start, "5").await;
        let is_complete = reading.texts() == ["4", "5"];
        assert!(
            is_complete || reading.events.iter().any(is_gap),
            "{:?} {:?}",
            reading.texts(),
            reading.events
        );
    }
}

/// Files on one side of the one that was read come next; those on the other side are passed over, which is in doubt.
#[tokio::test]
async fn a_doubt_about_files_that_are_passed_over_is_a_gap_also_after_others_were_read() {
    for bed in Bed::both() {
        bed.append(LOG, "0\n");
        let start = leave(&bed, LOG).await;
        bed.rename(LOG, "app.log.3");
        wait_for_tick(&bed);
        bed.append("app.log.5", "lost\n");
        for (name, line) in [("app.log.2", "1\n"), ("app.log.1", "2\n"), (LOG, "3\n")] {
            wait_for_tick(&bed);
            bed.append(name, line);
        }
        let reading = come_back(&bed, LOG, start, "3").await;
        assert_eq!(reading.texts(), ["1", "2", "3"]);
        assert_eq!(reading.events.iter().filter(|event| is_gap(event)).count(), 1, "{:?}", reading.events);
    }
}
