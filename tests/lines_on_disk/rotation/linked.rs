//! Files that have another name, too: symlinks and hard links, in other directories.

use std::{fs, os::unix::fs::symlink};

use perennial::lines::{Event, Start};
use tokio::time::{Duration, Instant};

use super::{is_gap, is_truncated};
use crate::bed::{Bed, LOG, Reading, follow};

/// The least time between two polls of a file.
const POLL: Duration = Duration::from_secs(1);

/// Appends these lines one by one, and reads each before the next: a write that is only found by a poll takes the time
/// between two polls. On a busy machine one that takes less is enough.
async fn are_reported(bed: &Bed, name: &str, reading: &mut Reading, lines: &[&str]) {
    let mut soonest = Duration::MAX;
    for line in lines {
        let written = Instant::now();
        bed.append(name, format!("{line}\n"));
        reading.read_until(line).await;
        soonest = soonest.min(written.elapsed());
    }
    assert!(soonest < POLL * 9 / 10, "the soonest line came after {soonest:?}");
}

#[tokio::test]
async fn a_symlink_is_followed_where_it_leads_is_retargeted_dangles_and_comes_back() {
    for bed in Bed::both() {
        fs::create_dir(bed.path("day")).unwrap();
        bed.append("day/one", "1\n");
        symlink("day/one", bed.path(LOG)).unwrap();
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        // Written to where it leads: nothing happens in its own directory.
        are_reported(&bed, "day/one", &mut reading, &["2a", "2b", "2c", "2d", "2e"]).await;
        bed.append("day/two", "3\n");
        symlink("day/two", bed.path("temporary")).unwrap();
        bed.rename("temporary", LOG);
        reading.read_until("3").await;
        assert_eq!(reading.take_events(), [Event::Rotated { next_offset: 0 }]);
        bed.append("day/two", "4\n");
        reading.read_until("4").await;
        bed.remove("day/two");
        reading.wait_for_event("deleted", |event| *event == Event::Deleted).await;
        bed.append("day/two", "5\n");
        reading.read_until("5").await;
        assert_eq!(reading.take_events(), [Event::Deleted, Event::Opened { size: 2 }]);
        // Replaced where it leads.
        bed.append("day/three", "6\n");
        bed.rename("day/three", "day/two");
        reading.read_until("6").await;
        assert_eq!(reading.texts(), ["1", "2a", "2b", "2c", "2d", "2e", "3", "4", "5", "6"]);
        assert_eq!(reading.events, [Event::Rotated { next_offset: 0 }]);
    }
}

#[tokio::test]
async fn lines_appended_by_another_name_of_the_file_are_noticed() {
    for bed in Bed::both() {
        fs::create_dir(bed.path("elsewhere")).unwrap();
        bed.append(LOG, "1\n");
        fs::hard_link(bed.path(LOG), bed.path("elsewhere/other")).unwrap();
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        are_reported(&bed, "elsewhere/other", &mut reading, &["2a", "2b", "2c", "2d", "2e"]).await;
        // A name that is made later is found by a poll.
        let mut reading = {
            bed.remove("elsewhere/other");
            drop(reading);
            bed.open(follow(Start::Last(0))).await
        };
        reading.read_until_caught_up().await;
        fs::hard_link(bed.path(LOG), bed.path("elsewhere/other")).unwrap();
        bed.append("elsewhere/other", "4\n");
        reading.read_until("4").await;
        assert_eq!(reading.texts(), ["4"]);
        assert!(
            !reading.events.iter().any(|event| is_gap(event) || is_truncated(event)),
            "{:?}",
            reading.events
        );
    }
}
