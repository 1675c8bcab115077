//! Stream: slow readers, cancelling and silence.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use perennial::lines::{Event, GapReason, Start};
use tokio::time::timeout;

use crate::{
    bed::{Bed, LIMIT, LOG, follow},
    harness::until,
};

/// More than are kept open.
const GENERATIONS: usize = 300;

/// The most files of one path that are kept open for readers that have not reached them.
const MAX_OPEN: usize = 256;

/// The file is put aside under a number that grows, and a new one holds this line.
fn rotate(bed: &Bed, generation: usize) {
    bed.rename(LOG, &format!("app.log.{}", generation - 1));
    bed.append("temporary", format!("{generation}\n"));
    bed.rename("temporary", LOG);
}

/// How many descriptors of this process lead into the directory.
fn opened(bed: &Bed) -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let leads_here = |entry: std::io::Result<fs::DirEntry>| {
        let to = entry.ok().and_then(|entry| fs::read_link(entry.path()).ok());
        // The directory itself is the root, and stays open.
        to.is_some_and(|to| to.starts_with(bed.path("")) && to != bed.path("").components().as_path())
    };
    descriptors.map(leads_here).filter(|leads| *leads).count()
}

/// How many of this process's watches are on the directory.
fn watches(bed: &Bed) -> usize {
    let inode = format!(" ino:{:x} ", fs::metadata(bed.path("")).unwrap().ino());
    let descriptors = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let infos = descriptors.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let watches = |info: String| {
        info.lines().filter(|line| line.starts_with("inotify wd:") && line.contains(&inode)).count()
    };
    infos.map(watches).sum()
}

#[tokio::test]
async fn a_slow_client_gets_every_line_that_is_on_disk_whatever_was_rotated_meanwhile() {
    for bed in Bed::both() {
        bed.append(LOG, "0\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("0").await;
        for generation in 1..=GENERATIONS {
            rotate(&bed, generation);
        }
        assert!(opened(&bed) <= MAX_OPEN + 10, "{} are open", opened(&bed));
        // Each is quiet for this time before the next one is read.
        let all = reading.read_lines(GENERATIONS + 1);
        timeout(3 * LIMIT, all).await.expect("all lines");
        assert_eq!(reading.texts(), (0..=GENERATIONS).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(reading.events, vec![Event::Rotated { next_offset: 0 }; GENERATIONS]);
    }
}

#[tokio::test]
async fn a_slow_client_gets_a_gap_for_the_lines_that_a_rotation_removed_before_it_read_them() {
    for bed in Bed::both() {
        bed.append(LOG, "0\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("0").await;
        for generation in 1..=GENERATIONS {
            rotate(&bed, generation);
        }
        until("the last one is at hand", async || opened(&bed) >= MAX_OPEN).await;
        for generation in 0..GENERATIONS {
            bed.remove(&format!("app.log.{generation}"));
        }
        reading.read_until(&GENERATIONS.to_string()).await;
        // The files that were kept open are read, and the others are reported as a gap.
        let read = reading.texts().iter().map(|line| line.parse().unwrap()).collect::<Vec<usize>>();
        assert!(read.is_sorted_by(|one, next| one < next), "{read:?}");
        assert!(read.len() <= GENERATIONS && read.last() == Some(&GENERATIONS), "{read:?}");
        let gap = Event::Gap { reason: GapReason::Deleted, bytes: None };
        assert!(reading.events.contains(&gap), "{:?}", reading.events);
        bed.append(LOG, "and on\n");
        reading.read_until("and on").await;
    }
}

/// A client that takes one batch of a file much larger than any buffer costs no memory meanwhile.
#[tokio::test]
async fn nothing_is_read_ahead_of_a_client_that_takes_nothing() {
    for bed in Bed::both() {
        let line = "x".repeat(99) + "\n";
        bed.append(LOG, line.repeat(100_000));
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.batch().await.unwrap();
        let read = reading.lines.len();
        assert!(read * 100 <= 128 * 1024, "{read}");
        bed.append(LOG, "last\n");
        bed.rename(LOG, "app.log.1");
        bed.append(LOG, "new\n");
        reading.read_until("new").await;
        assert_eq!(reading.lines.len(), 100_002);
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_while_it_waits_frees_all_it_has_at_once() {
    for bed in Bed::both() {
        let at_first = opened(&bed);
        for is_gone in [false, true] {
            bed.append(LOG, "1\n");
            let mut all = Vec::new();
            for _ in 0..10 {
                let mut reading = bed.open(follow(Start::Head)).await;
                reading.read_until_caught_up().await;
                all.push(reading);
            }
            // One waits in a file that was renamed away, with others to come after it.
            let mut reading = bed.open(follow(Start::Head)).await;
            reading.read_until("1").await;
            all.push(reading);
            for generation in 1..10 {
                rotate(&bed, generation);
            }
            if is_gone {
                bed.remove(LOG);
            }
            for reading in &mut all {
                // It waits, and is cut while it does.
                let _ = timeout(Duration::from_millis(5), reading.batch()).await;
            }
            assert!(opened(&bed) > at_first);
            assert_eq!(watches(&bed), 1);
            let dropped = Instant::now();
            drop(all);
            while watches(&bed) > 0 || opened(&bed) > at_first {
                let left = (watches(&bed), opened(&bed));
                assert!(dropped.elapsed() < LIMIT, "{left:?}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            for file in fs::read_dir(bed.path("")).unwrap() {
                fs::remove_file(file.unwrap().path()).unwrap();
            }
        }
    }
}
