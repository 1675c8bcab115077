//! Rotations whose numbers do not begin with 1, such as logrotate's with `start 5`, while no reader is there.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use super::{
    away::{come_back, leave},
    is_gap,
};
use crate::bed::{Bed, LOG};

/// How long a generation lives at least: far longer than the ticks of a file system's clock.
const LIFE: Duration = Duration::from_millis(200);

/// How long after the rotation the directory may change.
const ADJACENT: Duration = Duration::from_millis(100);

/// For how long a rotation is interrupted: far less than a missing file takes to be believed gone.
const STANDS_STILL: Duration = Duration::from_millis(100);

/// Waits until the file at the path has lived for `times` the time that it takes to rotate, which a busy machine may extend.
async fn live(bed: &Bed, times: u32) {
    let changed = fs::metadata(bed.path("")).unwrap().modified().unwrap();
    let born = fs::metadata(bed.path(LOG)).unwrap().created().unwrap();
    let life = LIFE.max(changed.duration_since(born).unwrap_or_default() * times);
    while SystemTime::now().duration_since(born).unwrap() < life {
        tokio::time::sleep(LIFE / 10).await;
    }
}

/// Renames all rotated files, and the log to the first number. As logrotate does, deletes the oldest file after that.
async fn rotate(bed: &Bed, first: usize, round: usize) {
    live(bed, 50).await;
    for n in (first..first + round).rev() {
        let next = format!("{LOG}.{}", n + 1);
        fs::rename(bed.path(&format!("{LOG}.{n}")), bed.path(&next)).unwrap();
    }
    bed.rename(LOG, &format!("{LOG}.{first}"));
    bed.append(LOG, format!("{}\n", round + 1));
    bed.append("too-old", "");
    bed.remove("too-old");
}

#[tokio::test]
async fn numbers_that_begin_above_1_are_no_gap() {
    for bed in Bed::both() {
        for first in [2, 5, 100] {
            for count in [1, 3] {
                bed.append(LOG, "0\n");
                let start = leave(&bed, LOG).await;
                bed.append(LOG, "more\n");
                for round in 0..count {
                    rotate(&bed, first, round).await;
                }
                live(&bed, 50).await;
                let reading = come_back(&bed, LOG, start, &count.to_string()).await;
                assert_eq!(reading.texts().len(), count + 1, "{first}, {count}: {:?}", reading.texts());
                // A rotation that takes longer looks like one after which something was removed.
                let changed = fs::metadata(bed.path("")).unwrap().modified().unwrap();
                let born = fs::metadata(bed.path(LOG)).unwrap().created().unwrap();
                let is_slow = changed.duration_since(born).is_ok_and(|time| time > ADJACENT);
                let has_gap = reading.events.iter().any(is_gap);
                assert!(!has_gap || is_slow, "{first}, {count}: {:?}", reading.events);
                for entry in fs::read_dir(bed.path("")).unwrap() {
                    fs::remove_file(entry.unwrap().path()).unwrap();
                }
            }
        }
    }
}

/// Between two renames a number is missing for as long as the rotation stands still.
#[tokio::test]
async fn a_reader_that_comes_in_the_middle_of_a_rotation_misses_nothing() {
    for stop in 1..=3 {
        for bed in Bed::both() {
            bed.append(LOG, "0\n");
            let start = leave(&bed, LOG).await;
            bed.append(LOG, "more\n");
            for round in 0..3 {
                rotate(&bed, 1, round).await;
            }
            let name = |n: usize| if n == 0 { LOG.to_owned() } else { format!("{LOG}.{n}") };
            let mut renames = (0..=3).rev().map(|n| (name(n), name(n + 1)));
            renames.by_ref().take(stop).for_each(|(from, to)| bed.rename(&from, &to));
            let rotate = async {
                tokio::time::sleep(STANDS_STILL).await;
                renames.for_each(|(from, to)| bed.rename(&from, &to));
                bed.append(LOG, "4\n");
            };
            let (reading, ()) = tokio::join!(come_back(&bed, LOG, start, "4"), rotate);
            assert_eq!(reading.texts(), ["more", "1", "2", "3", "4"], "{stop}");
            assert!(!reading.events.iter().any(is_gap), "{stop}: {:?}", reading.events);
        }
    }
}

/// They look like those of a rotation that begins with a higher number, but that something was removed later.
#[tokio::test]
async fn numbers_whose_first_files_were_deleted_are_a_gap() {
    for bed in Bed::both() {
        for deleted in 1..=3 {
            bed.append(LOG, "0\n");
            let start = leave(&bed, LOG).await;
            bed.append(LOG, "more\n");
            for round in 0..5 {
                rotate(&bed, 1, round).await;
            }
            // As long after the last rotation as that came after the one before, at least.
            let born = |name: &str| fs::metadata(bed.path(name)).unwrap().created().unwrap();
            let life = born(LOG).duration_since(born(&format!("{LOG}.1"))).unwrap();
            while born(LOG).elapsed().unwrap() < life {
                tokio::time::sleep(LIFE / 10).await;
            }
            for n in 1..=deleted {
                bed.remove(&format!("{LOG}.{n}"));
            }
            let reading = come_back(&bed, LOG, start, "5").await;
            assert_eq!(reading.texts().len(), 6 - deleted, "{deleted}: {:?}", reading.texts());
            assert!(reading.events.iter().any(is_gap), "{deleted}: {:?}", reading.events);
            for entry in fs::read_dir(bed.path("")).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }
    }
}
