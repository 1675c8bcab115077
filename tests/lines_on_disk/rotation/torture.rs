//! A reader that is cut and resumed at random, also on another server, while the file is rotated, truncated and written
//! to in parts: a checker sees every line.

use std::{
    fs::{self, File},
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use perennial::lines::{Event, Files, OnGap, Query, Root, Start};

use super::{is_gap, is_truncated};
use crate::bed::{Bed, LIMIT, LOG, ROOT, follow, options};

/// How many lines the writer writes.
const LINES: usize = 4_000;

/// How many seeds each test has.
const SEEDS: u64 = 3;

/// How many rotated files it keeps.
const KEPT: usize = 5;

/// What the writer does besides writing lines.
#[derive(Clone, Copy)]
struct Does {
    copytruncate: bool,
    delete: bool,
}

/// Writes numbered lines into a file that it rotates.
struct Writer<'a> {
    bed: &'a Bed,
    random: fastrand::Rng,
    does: Does,
    /// How many lines were read: it waits for the reader before it destroys what would be missed.
    read: Arc<AtomicUsize>,
    written: usize,
}

impl Writer<'_> {
    fn run(mut self) {
        let mut log = self.open();
        while self.written < LINES {
            match self.random.u64(..200) {
                0 => log = self.rotate(log),
                1 if self.does.copytruncate => self.copytruncate(),
                2 => thread::sleep(Duration::from_millis(self.random.u64(..20))),
                _ => self.write(&mut log),
            }
        }
    }

    fn open(&self) -> File {
        File::options().create(true).append(true).open(self.bed.path(LOG)).unwrap()
    }

    /// A line in one write, or in two.
    fn write(&mut self, log: &mut File) {
        let line =
            format!("line {} {}\n", self.written, "x".repeat(self.random.u64(..300).try_into().unwrap()));
        let cut = if self.random.u64(..3) == 0 { self.random.u64(..line.len() as u64) } else { 0 };
        let (before, behind) = line.split_at(cut.try_into().unwrap());
        log.write_all(before.as_bytes()).unwrap();
        log.write_all(behind.as_bytes()).unwrap();
        self.written += 1;
    }

    /// Puts all files aside by one, and writes on in the old one for a while.
    fn rotate(&mut self, mut log: File) -> File {
        if self.does.delete {
            // The oldest goes; all readers have passed it.
            self.wait_for_reader();
            let _ = fs::remove_file(self.bed.path(&format!("app.log.{KEPT}")));
        }
        let name = |number: usize| {
            self.bed.path(&if number == 0 { LOG.into() } else { format!("app.log.{number}") })
        };
        let last = (0..=LINES).find(|number| !name(*number).exists()).unwrap();
        for number in (0..last).rev() {
            fs::rename(name(number), name(number + 1)).unwrap();
        }
        let new = self.open();
        for _ in 0..self.random.u64(..5) {
            self.write(&mut log);
        }
        new
    }

    fn copytruncate(&self) {
        self.wait_for_reader();
        let log = File::options().write(true).open(self.bed.path(LOG)).unwrap();
        log.set_len(0).unwrap();
    }

    fn wait_for_reader(&self) {
        let end = Instant::now() + LIMIT;
        while self.read.load(Ordering::Acquire) < self.written {
            assert!(
                Instant::now() < end,
                "the reader has {} of {}",
                self.read.load(Ordering::Acquire),
                self.written
            );
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Follows, is cut at random, and continues after the last batch that it took.
async fn read(bed: &Bed, mut start: Start, seed: u64, read: &AtomicUsize) -> Vec<Event> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut other = None;
    let (mut next, mut events) = (0, Vec::new());
    while next < LINES {
        let files: &Files = other.as_ref().unwrap_or(&bed.files);
        let query = Query { on_gap: OnGap::Fail, ..follow(start.clone()) };
        let mut reading = Bed::try_open_on(files, query)
            .await
            .unwrap_or_else(|error| panic!("after {next}: {error:?} {events:?}"));
        let batches = 1 + random.u64(..20);
        for _ in 0..batches {
            if next == LINES {
                break;
            }
            let patience = Duration::from_millis(random.u64(..300));
            let Ok(batch) = tokio::time::timeout(patience, reading.batch()).await else { break };
            batch.expect("the stream goes on");
            for line in reading.take_texts() {
                let number = line.split(' ').nth(1).and_then(|number| number.parse::<usize>().ok());
                assert_eq!(number, Some(next), "{line:?} {events:?} {:?}", reading.events);
                next += 1;
            }
            events.extend(reading.take_events());
            start = reading.resume();
            read.store(next, Ordering::Release);
        }
        other = match random.u64(..4) {
            0 => Some(Files::new(vec![Root::new(ROOT, bed.path(""))], options()).unwrap()),
            1 => None,
            _ => other,
        };
    }
    events
}

/// `TORTURE_SEEDS` sets how many there are; the test prints which one failed.
async fn torture(does: Does, first_seed: u64) {
    let seeds = std::env::var("TORTURE_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("a number"));
    for seed in first_seed..first_seed + seeds {
        for bed in Bed::both() {
            println!("seed {seed}");
            bed.append(LOG, "");
            // In the first file before it is rotated.
            let mut first = bed.open(follow(Start::Head)).await;
            first.batch().await.unwrap();
            let start = first.resume();
            drop(first);
            let count = Arc::new(AtomicUsize::new(0));
            let random = fastrand::Rng::with_seed(seed);
            let writer = Writer { bed: &bed, random, does, read: count.clone(), written: 0 };
            let events = thread::scope(|scope| {
                scope.spawn(|| writer.run());
                tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(read(&bed, start, seed + 1, &count))
                })
            });
            assert!(!events.iter().any(is_gap), "{events:?}");
            assert!(does.copytruncate || !events.iter().any(is_truncated), "{events:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_cut_at_random_gets_each_line_once_while_the_file_is_rotated() {
    torture(Does { copytruncate: false, delete: false }, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_cut_at_random_gets_each_line_once_while_old_files_are_deleted() {
    torture(Does { copytruncate: false, delete: true }, 1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_cut_at_random_gets_each_line_once_while_the_file_is_truncated() {
    torture(Does { copytruncate: true, delete: false }, 2_000_000).await;
}
