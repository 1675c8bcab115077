//! What it costs that many readers search, or that one was away for long. Run these alone, and optimised:
//!
//! `cargo test --release --test lines_on_disk figures:: -- --ignored --nocapture --test-threads 1`

use std::time::{Duration, Instant};

use perennial::lines::{Error, Event, Start};
use rustix::time::{ClockId, clock_gettime};

use crate::bed::{Bed, LOG, follow, query};

/// The time that all threads of this process have computed.
fn computed() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// Prints what it took, and compares it with the figure that is promised.
fn within(what: &str, took: Duration, promised: Duration) {
    println!("{what}: {} ms of at most {} ms", took.as_millis(), promised.as_millis());
    assert!(took <= promised);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: run it alone and optimised"]
async fn a_reader_that_was_away_for_1500_rotations() {
    const ROTATIONS: usize = 1500;
    let bed = Bed::on_disk();
    bed.append(LOG, "0\n");
    let mut reading = bed.open(follow(Start::Head)).await;
    reading.read_until("0").await;
    let start = reading.resume();
    drop(reading);
    bed.rename(LOG, &format!("app.log.{ROTATIONS}"));
    for rotation in 1..=ROTATIONS {
        let name = format!("app.log.{}", ROTATIONS - rotation);
        bed.append(if rotation == ROTATIONS { LOG } else { &name }, format!("{rotation}\n"));
    }
    // Each was quiet for the grace.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (began, before) = (Instant::now(), computed());
    let mut reading = bed.open(follow(start)).await;
    reading.read_lines(ROTATIONS).await;
    println!("of it {} ms of CPU", computed().saturating_sub(before).as_millis());
    within("1,500 rotations while away", began.elapsed(), Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: run it alone and optimised"]
async fn twenty_expired_cursors_beside_20000_names() {
    let bed = Bed::on_disk();
    for n in 0..20_000 {
        bed.append(&format!("app.log-other-{n}"), "x\n");
    }
    let lines = (0..100).map(|n| format!("line {n} of the log that is gone\n")).collect::<String>();
    bed.append(LOG, lines);
    let mut reading = bed.open(query(Start::Head)).await;
    reading.read_to_end().await;
    let start = reading.resume();
    bed.remove(LOG);
    bed.append(LOG, "another\n");
    for state in ["at rest", "that change"] {
        if state == "at rest" {
            tokio::time::sleep(Duration::from_secs(1)).await;
        } else {
            bed.append("app.log-other", "x\n");
        }
        let before = computed();
        let opened = futures::future::join_all((0..20).map(|_| bed.try_open(query(start.clone())))).await;
        let took = computed().saturating_sub(before);
        assert!(opened.into_iter().all(|opened| matches!(opened, Err(Error::Expired))));
        within(&format!("20 expired cursors beside 20,000 names {state}"), took, Duration::from_millis(700));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: run it alone and optimised"]
async fn two_hundred_followers_of_a_file_of_60_mb_that_is_replaced_by_a_rename() {
    let bed = Bed::on_disk();
    let line =
        |n: usize| format!("{n:>9} a line of the log that is replaced by a rename, and that begins alike\n");
    let mut text = (0..60_000_000 / line(0).len()).map(line).collect::<String>();
    bed.append(LOG, &text);
    let mut readings = Vec::new();
    for _ in 0..200 {
        let mut reading = bed.open(follow(Start::Last(1))).await;
        reading.read_until_caught_up().await;
        readings.push(reading);
    }
    // The one without its first line does not begin alike.
    for (replacement, more) in [("one that begins alike", "more"), ("one that holds the end", "and more")] {
        let from = if more == "more" { 0 } else { line(0).len() };
        let next_offset = (text.len() - from) as u64;
        text = text[from..].to_owned() + more + "\n";
        bed.append("temporary", &text);
        let before = computed();
        bed.rename("temporary", LOG);
        for reading in &mut readings {
            reading.read_until(more).await;
            assert_eq!(reading.take_events(), [Event::Rotated { next_offset }]);
        }
        let took = computed().saturating_sub(before);
        within(
            &format!("200 followers of 60 MB, replaced by {replacement}"),
            took,
            Duration::from_millis(300),
        );
    }
}
