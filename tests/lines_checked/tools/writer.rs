//! A thread that writes numbered lines to a log, about one a millisecond.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::{Mutex, OwnedMutexGuard};

/// The time between two lines.
const APART: Duration = Duration::from_millis(1);

/// How many lines a writer still writes to the old file when it is asked to open the new one.
const LATE: usize = 5;

/// When a writer opens its log.
#[derive(Clone, Debug)]
pub enum Opens {
    /// For each line, as a shell does with `>>`.
    EachTime,
    /// When this file is there, as a daemon does at a signal. It removes the file.
    AskedBy(PathBuf),
}

/// A writer that runs.
pub struct Writer {
    shared: Arc<Shared>,
    thread: JoinHandle<usize>,
}

#[derive(Default)]
struct Shared {
    ends: AtomicBool,
    /// Held while a line is written.
    writes: Arc<Mutex<()>>,
}

/// The text of a line: some are long, so that proofs by content have something to prove.
pub fn line(number: usize) -> String {
    format!("line {number} {}", "x".repeat(number * 7 % 60))
}

fn open(log: &Path) -> File {
    File::options().create(true).append(true).open(log).unwrap()
}

impl Writer {
    pub fn start(log: PathBuf, opens: Opens) -> Self {
        let shared = Arc::<Shared>::default();
        let run = {
            let shared = shared.clone();
            move || {
                let (mut file, mut number, mut late) = (open(&log), 0, None);
                while !shared.ends.load(Ordering::Relaxed) {
                    let held = shared.writes.blocking_lock();
                    match &opens {
                        Opens::EachTime => file = open(&log),
                        Opens::AskedBy(flag) if late.is_none() && flag.exists() => {
                            std::fs::remove_file(flag).unwrap();
                            late = Some(number + LATE);
                        }
                        Opens::AskedBy(_) => {}
                    }
                    if late.take_if(|late| *late <= number).is_some() {
                        file = open(&log);
                    }
                    file.write_all((line(number) + "\n").as_bytes()).unwrap();
                    number += 1;
                    drop(held);
                    thread::sleep(APART);
                }
                number
            }
        };
        Self { shared: shared.clone(), thread: thread::spawn(run) }
    }

    /// Writes no line while the guard is held.
    pub async fn hold(&self) -> OwnedMutexGuard<()> {
        self.shared.writes.clone().lock_owned().await
    }

    /// Ends it: the number of lines that it wrote.
    pub fn end(self) -> usize {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
