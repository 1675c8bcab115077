//! The demo: data for every stream, in a directory that survives a restart.
//!
//! A root `demo` with an application log that grows every half second and is rotated every minute, and a topic
//! `demo.clock` with a message every second.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{Timestamp, ToSpan};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::messages::{Content, Log, NewMessage};

/// The name of the demo root.
pub const ROOT: &str = "demo";

/// The topic of the demo messages.
const TOPIC: &str = "demo.clock";

/// The pause between two lines.
const LINE_INTERVAL: Duration = Duration::from_millis(500);

/// The log is rotated after this many lines, that is every minute.
const LINES_A_FILE: u64 = 120;

/// Up to this many rotated files are kept.
const KEPT: u32 = 5;

/// A new log begins with this many lines.
const FIRST_LINES: u64 = 50;

/// The messages of the log, in turn.
const STORIES: [&str; 8] = [
    "INFO  GET /orders 200 3.1ms",
    "INFO  POST /orders 201 12.4ms",
    "INFO  GET /orders/42 200 1.9ms",
    "DEBUG cache miss key=orders/42",
    "INFO  GET /menu/crème-brûlée 200 2.2ms",
    "WARN  slow query 212ms table=orders",
    "INFO  GET /health 200 0.2ms",
    "ERROR POST /payments 502 upstream closed the connection",
];

/// The log of an imaginary application.
#[derive(Debug)]
pub struct AppLog {
    path: PathBuf,
    next: u64,
}

impl AppLog {
    /// Opens the log, or creates it with some lines.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let path = directory.join("app.log");
        let last = [path.clone(), rotated(&path, 1)].iter().find_map(|path| last_number(path).ok().flatten());
        let mut log = Self { path, next: last.map_or(1, |last| last + 1) };
        if last.is_none() {
            let start = Timestamp::now();
            for n in 0..FIRST_LINES {
                let ago = i64::try_from((FIRST_LINES - n) / 2).unwrap_or(0);
                log.write(start.checked_sub(ago.seconds()).unwrap_or(start))?;
            }
        }
        Ok(log)
    }

    fn write(&mut self, time: Timestamp) -> io::Result<()> {
        let n = self.next;
        if n > 1 && n % LINES_A_FILE == 1 {
            for generation in (0..KEPT).rev() {
                let _ = fs::rename(rotated(&self.path, generation), rotated(&self.path, generation + 1));
            }
        }
        let story = usize::try_from(n).ok().and_then(|n| STORIES.get(n * 5 % STORIES.len())).unwrap_or(&"");
        let line = format!("{time:.3} request={n:06} {story}\n");
        File::options().create(true).append(true).open(&self.path)?.write_all(line.as_bytes())?;
        self.next += 1;
        Ok(())
    }
}

fn rotated(path: &Path, generation: u32) -> PathBuf {
    if generation == 0 { path.into() } else { path.with_extension(format!("log.{generation}")) }
}

/// The number of the last request in a log file.
fn last_number(path: &Path) -> io::Result<Option<u64>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(4096)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let tail = String::from_utf8_lossy(&tail);
    let number = |line: &str| line.split_once("request=")?.1.split(' ').next()?.parse().ok();
    Ok(tail.lines().rev().find_map(number))
}

/// Runs until the server drains. Logs errors, and tries again at the next interval.
pub async fn run(mut app_log: AppLog, log: Log, shutdown: CancellationToken) {
    let mut lines = interval(LINE_INTERVAL);
    let mut clock = interval(Duration::from_secs(1));
    lines.set_missed_tick_behavior(MissedTickBehavior::Skip);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = lines.tick() => {
                if let Err(error) = app_log.write(Timestamp::now()) {
                    tracing::warn!(%error, "the demo cannot write its log");
                }
            }
            _ = clock.tick() => {
                let text = format!("It is {:.0}", Timestamp::now());
                let message = NewMessage { topic: TOPIC.into(), content: Content::Text(text), ..NewMessage::default() };
                if let Err(error) = log.publish(message).await {
                    tracing::warn!(%error, "the demo cannot publish");
                }
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn numbers(path: &Path) -> Vec<u64> {
        let text = fs::read_to_string(path).unwrap();
        let number = |line: &str| line.split_once("request=")?.1.split(' ').next()?.parse().ok();
        text.lines().map(|line| number(line).unwrap()).collect()
    }

    #[test]
    fn a_new_log_has_lines_and_continues_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        drop(AppLog::open(directory.path()).unwrap());
        let mut log = AppLog::open(directory.path()).unwrap();
        log.write(Timestamp::now()).unwrap();
        let expected = (1..=FIRST_LINES + 1).collect::<Vec<_>>();
        assert_eq!(numbers(&directory.path().join("app.log")), expected);
    }

    #[test]
    fn rotation_keeps_five_files_and_loses_no_line_between_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = AppLog::open(directory.path()).unwrap();
        while log.next <= 8 * LINES_A_FILE + 3 {
            log.write(Timestamp::now()).unwrap();
        }
        let newest_last = (0..=KEPT).rev().map(|generation| rotated(&log.path, generation));
        let kept = newest_last.flat_map(|path| numbers(&path)).collect::<Vec<_>>();
        assert_eq!(kept, (3 * LINES_A_FILE + 1..=8 * LINES_A_FILE + 3).collect::<Vec<_>>());
        assert!(!rotated(&log.path, KEPT + 1).exists());
    }

    #[test]
    fn a_log_that_was_rotated_just_before_a_restart_continues_its_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let log = AppLog::open(directory.path()).unwrap();
        fs::rename(&log.path, rotated(&log.path, 1)).unwrap();
        assert_eq!(AppLog::open(directory.path()).unwrap().next, FIRST_LINES + 1);
    }
}
