//! What a reader gets in situations that people reported of tools that follow logs: each is a script of steps on a log,
//! with a reader that follows all the time, one that is away for some steps, and `tail -F` as control.

use std::{path::Path, time::Duration};

use perennial::proto::{OnGap, ReadLinesRequest, ReadLinesResponse, line_stream_event::Event};
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

use crate::{
    Plan, Result, directory,
    follower::{Follower, READ_LINES, Reader, SILENCE, Sink, content},
    measure::{head, row},
    process::{Kind, Server, WIDE, call},
};
use scripts::{SCRIPTS, Script, Stage};

mod load;
mod scripts;

/// How often each situation runs.
const RUNS: usize = 3;
const QUICK_RUNS: usize = 1;

/// A reader that received no line for this time has all, or will not get the rest.
const QUIET: Duration = Duration::from_millis(1_500);

/// What a reader got of the lines that a script wrote.
#[derive(Default)]
struct Tally {
    lines: Vec<Vec<u8>>,
    /// Gaps and truncations that were reported.
    reports: usize,
}

impl Sink for Tally {
    fn take(&mut self, line: &[u8]) {
        self.lines.push(line.to_vec());
    }

    fn is_full(&self) -> bool {
        false
    }
}

/// How a tally differs from what was written.
#[derive(Clone, Copy, Debug, Default)]
struct Difference {
    written: usize,
    lost: usize,
    /// Those of them in runs without any report.
    silent: usize,
    twice: usize,
    /// Lines of another log, parts of lines, and NULs.
    foreign: usize,
    reports: usize,
}

impl Difference {
    fn of(tally: &Tally, written: &[String]) -> Self {
        let mut left = std::collections::HashMap::<&[u8], usize>::new();
        for line in written {
            *left.entry(line.as_bytes()).or_default() += 1;
        }
        let known = left.keys().copied().collect::<std::collections::HashSet<_>>();
        let mut difference = Self { written: written.len(), reports: tally.reports, ..Self::default() };
        for line in &tally.lines {
            match left.get_mut(line.as_slice()) {
                Some(count) if *count > 0 => *count -= 1,
                _ if known.contains(line.as_slice()) => difference.twice += 1,
                _ => difference.foreign += 1,
            }
        }
        difference.lost = left.values().sum();
        difference.silent = if tally.reports == 0 { difference.lost } else { 0 };
        difference
    }

    fn add(&mut self, other: Self) {
        self.written += other.written;
        self.lost += other.lost;
        self.silent += other.silent;
        self.twice += other.twice;
        self.foreign += other.foreign;
        self.reports += other.reports;
    }

    /// Lines are missing and no event says so, or they are foreign.
    fn is_wrong(self) -> bool {
        self.foreign > 0 || self.silent > 0 || self.twice > 0 && self.reports == 0
    }
}

/// Our reader, which is cut before a step and continues after another.
struct Ours<'a> {
    server: &'a Server,
    request: ReadLinesRequest,
    stream: Option<Streaming<ReadLinesResponse>>,
}

impl Ours<'_> {
    async fn resume(&mut self) -> Result<()> {
        if self.stream.is_none() {
            let channel = self.server.connect(WIDE).await?;
            self.stream = Some(call(&channel, READ_LINES, self.request.clone()).await?);
        }
        Ok(())
    }

    /// Reads until then.
    async fn read(&mut self, tally: &mut Tally, until: Instant) -> Result<()> {
        let Some(stream) = &mut self.stream else {
            tokio::time::sleep_until(until).await;
            return Ok(());
        };
        while let Ok(response) = timeout_at(until, stream.message()).await {
            let response = response?.ok_or("the stream ended")?;
            response.lines.iter().for_each(|line| tally.take(content(line.content.as_ref())));
            let is_report = |event: &Event| matches!(event, Event::Gap(_) | Event::Truncated(_));
            tally.reports +=
                response.events.iter().filter(|event| event.event.as_ref().is_some_and(is_report)).count();
            self.request.cursor = Some(response.cursor);
        }
        Ok(())
    }
}

/// Plays a script before our reader.
async fn ours(script: &Script, is_away: bool) -> Result<Difference> {
    let root = directory()?;
    let server = Server::start(Kind::Perennial, root.path())?;
    let mut stage = Stage::new(root.path(), script)?;
    let request = ReadLinesRequest {
        path: format!("logs/{}", script.log),
        follow: true,
        on_gap: OnGap::Skip.into(),
        ..ReadLinesRequest::default()
    };
    let (mut ours, mut tally) = (Ours { server: &server, request, stream: None }, Tally::default());
    ours.resume().await?;
    ours.read(&mut tally, Instant::now() + script.apart).await?;
    for step in 0..script.steps {
        if is_away && step == script.away.start {
            ours.stream = None;
        }
        (script.step)(&mut stage, step)?;
        ours.read(&mut tally, Instant::now() + script.apart).await?;
        if is_away && step + 1 == script.away.end {
            ours.resume().await?;
        }
    }
    loop {
        let before = tally.lines.len();
        ours.read(&mut tally, Instant::now() + QUIET).await?;
        if tally.lines.len() == before {
            return Ok(Difference::of(&tally, &stage.written));
        }
    }
}

/// Plays a script before `tail -F`.
async fn tail(script: &Script) -> Result<Difference> {
    let root = directory()?;
    let mut stage = Stage::new(root.path(), script)?;
    let mut tail = Follower::tail(&root.path().join(script.log))?;
    let mut tally = Tally::default();
    tail.fill(&mut tally, script.apart).await?;
    for step in 0..script.steps {
        (script.step)(&mut stage, step)?;
        let end = Instant::now() + script.apart;
        while Instant::now() < end {
            tail.fill(&mut tally, end.saturating_duration_since(Instant::now())).await?;
        }
    }
    tail.fill(&mut tally, SILENCE.min(QUIET)).await?;
    Ok(Difference::of(&tally, &stage.written))
}

fn show(script: &Script, reader: &str, all: Difference) {
    let counts = [all.written, all.silent, all.lost - all.silent, all.twice, all.foreign, all.reports];
    let cells = [script.title.to_owned(), reader.to_owned()].into_iter();
    row(&cells.chain(counts.map(|count| count.to_string())).collect::<Vec<_>>());
}

const COLUMNS: [&str; 8] = [
    "situation",
    "reader",
    "lines",
    "lost in silence",
    "lost and reported",
    "twice",
    "foreign",
    "gaps and truncations reported",
];

/// Prints what readers get in each situation, and what the large ones cost; an error if ours is wrong in one.
pub async fn run(plan: Plan) -> Result<()> {
    let runs = plan.runs(RUNS, QUICK_RUNS);
    head(&format!("Situations from reports: sums of {runs} runs"), &COLUMNS);
    let mut wrong = Vec::new();
    for script in SCRIPTS.iter().filter(|script| script.can_run()) {
        let mut sums = [Difference::default(); 3];
        for _ in 0..runs {
            for (sum, is_away) in sums.iter_mut().zip([false, true]) {
                sum.add(ours(script, is_away).await?);
            }
            if let Some(sum) = sums.last_mut() {
                sum.add(tail(script).await?);
            }
        }
        for (sum, reader) in sums.into_iter().zip(["perennial", "perennial, away for a while", "tail -F"]) {
            show(script, reader, sum);
            if sum.is_wrong() && reader != Reader::Tail.name() {
                wrong.push(format!("{}: {reader}", script.title));
            }
        }
    }
    load::run().await?;
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}

/// Whether a program is here.
fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|directory| Path::new(&directory).join(program).exists())
}
