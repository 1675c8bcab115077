//! From an append to its line at a client on the same machine.

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    Plan, Result, crowd, directory,
    follower::{Follower, LOG, Reader, SILENCE, Sink},
    measure::{between, head, milliseconds, now, percentile, row},
    process::{Kind, Server},
};

/// How many single lines are appended.
const LINES: usize = 2_000;
const QUICK_LINES: usize = 400;

/// The time from one line to the next.
const GAPS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(10));

/// How old lines were when a client had them.
#[derive(Default)]
struct Ages {
    nanos: Vec<i64>,
    target: usize,
}

impl Sink for Ages {
    fn take(&mut self, line: &[u8]) {
        let written = str::from_utf8(line).ok().and_then(|line| line.parse::<i64>().ok());
        self.nanos.extend(written.map(|written| now() - written));
    }

    fn is_full(&self) -> bool {
        self.nanos.len() >= self.target
    }
}

/// Appends a line with the time.
fn stamp(path: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let line = format!("{}\n", now());
    file.write_all(line.as_bytes())
}

fn stamps(path: &Path, lines: usize) -> std::io::Result<()> {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..lines {
        thread::sleep(between(&mut random, GAPS));
        stamp(path)?;
    }
    Ok(())
}

async fn ages(reader: Reader, lines: usize) -> Result<Ages> {
    let root = directory()?;
    let server = if reader.is_ours() { Some(Server::start(Kind::Perennial, root.path())?) } else { None };
    let log: PathBuf = root.path().join(LOG);
    stamp(&log)?;
    let mut follower = Follower::open(reader, root.path(), server.as_ref()).await?;
    // One line from before, and one that shows that the reader follows: neither counts.
    for _ in 0..2 {
        let mut warm_up = Ages { target: 1, ..Ages::default() };
        if !follower.fill(&mut warm_up, SILENCE).await? {
            return Err(format!("{} is not live", reader.name()).into());
        }
        stamp(&log)?;
    }
    let writing = tokio::task::spawn_blocking(move || stamps(&log, lines));
    let mut ages = Ages { nanos: Vec::with_capacity(lines + 1), target: lines + 1 };
    follower.fill(&mut ages, SILENCE).await?;
    writing.await??;
    Ok(ages)
}

async fn latency(lines: usize) -> Result<()> {
    head(
        &format!(
            "From append to client: {lines} single lines, {} to {} ms apart",
            GAPS.0.as_millis(),
            GAPS.1.as_millis()
        ),
        &["reader", "lines", "lost", "p50", "p99", "most"],
    );
    for reader in [Reader::Perennial, Reader::Tail] {
        let Ages { nanos, target } = ages(reader, lines).await?;
        // The line that ended the warm-up may be the first.
        let mut nanos = nanos.get(1..).unwrap_or_default().to_vec();
        nanos.sort_unstable();
        row(&[
            reader.name().into(),
            nanos.len().to_string(),
            (target - 1 - nanos.len()).to_string(),
            milliseconds(percentile(&nanos, 50)),
            milliseconds(percentile(&nanos, 99)),
            milliseconds(percentile(&nanos, 100)),
        ]);
    }
    Ok(())
}

/// The parts.
pub const PARTS: [&str; 3] = ["latency", "rest", "one-file"];

/// Prints how fast lines arrive, and what many followers cost.
pub async fn run(plan: Plan) -> Result<()> {
    let mut result = Ok(());
    for part in PARTS.into_iter().filter(|part| plan.part.is_none_or(|asked| asked == *part)) {
        let ran = match part {
            "latency" => latency(if plan.quick { QUICK_LINES } else { LINES }).await,
            "rest" => crowd::many_files(plan).await,
            _ => crowd::one_file(plan).await,
        };
        // What goes wrong in one says nothing of the others.
        result = result.and(ran);
    }
    result
}
