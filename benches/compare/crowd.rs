//! Many followers: of a directory of files that rest, and of one file that grows fast.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    time::Duration,
};

use perennial::proto::{Line, ReadLinesRequest, ReadLinesResponse, read_lines_request::Start};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tonic::{Streaming, transport::Channel};

use crate::{
    Plan, Result, directory,
    follower::{LOG, READ_LINES, SILENCE, content},
    measure::{each, head, kib, row, to_f64},
    process::{Kind, Server, call},
    writer::Pace,
};

const CONNECTIONS: usize = 100;

/// How many follow files that rest, how many files these are, and how long they rest.
const FOLLOWERS: usize = 10_000;
const FILES: usize = 100;
const REST: Duration = Duration::from_secs(30);
const QUICK_REST: Duration = Duration::from_secs(10);

/// How long what the opening put off may take.
const SETTLE: Duration = Duration::from_secs(2);

/// How long the line that ends the rest may take to reach all.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many clients follow one file, and how it grows: the time between two lines, and the time of a run.
const READERS: usize = 1_000;
const GAP: Duration = Duration::from_micros(500);
const LINES: usize = 10_000;
const QUICK_LINES: usize = 4_000;

/// The length of such a line in bytes, with its newline.
const WIDTH: usize = 96;

/// What one follower got of lines that are numbered from 0.
#[derive(Debug, Default)]
struct Got {
    next: usize,
    lines: usize,
    lost: usize,
    twice: usize,
    wrong: usize,
    last: Option<Instant>,
    fault: Option<String>,
}

impl Got {
    fn take(&mut self, line: &Line, name: &str) {
        self.lines += 1;
        let text = str::from_utf8(content(line.content.as_ref())).unwrap_or_default();
        let mut words = text.split(' ');
        let number =
            words.next().filter(|word| *word == name).and(words.next()).and_then(|n| n.parse::<usize>().ok());
        match number {
            Some(number) if number < self.next => self.twice += 1,
            Some(number) => {
                self.lost += number - self.next;
                self.next = number + 1;
            }
            None => self.wrong += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.lines += other.lines;
        self.lost += other.lost;
        self.twice += other.twice;
        self.wrong += other.wrong;
        self.last = self.last.max(other.last);
        self.fault = self.fault.take().or(other.fault);
    }

    /// An error if not all was as it should be.
    fn check(&self) -> Result<()> {
        match &self.fault {
            Some(fault) => Err(format!("a follower ended: {fault}").into()),
            None if self.lost + self.twice + self.wrong > 0 => Err(format!(
                "followers lost {}, got {} twice and {} wrong",
                self.lost, self.twice, self.wrong
            )
            .into()),
            None => Ok(()),
        }
    }
}

/// A stream that follows a file from its end, and is live.
async fn open(channel: &Channel, file: &str) -> Result<Streaming<ReadLinesResponse>> {
    let request = ReadLinesRequest {
        path: format!("logs/{file}"),
        start: Some(Start::Last(0)),
        follow: true,
        ..ReadLinesRequest::default()
    };
    let mut stream = call::<_, ReadLinesResponse>(channel, READ_LINES, request).await?;
    stream.message().await?.ok_or("it ended")?;
    Ok(stream)
}

/// Reads this number of lines of a file, unless none comes for `silence`.
async fn follow(
    mut stream: Streaming<ReadLinesResponse>,
    name: String,
    lines: usize,
    silence: Duration,
) -> Got {
    let mut got = Got::default();
    let mut end = Instant::now() + silence;
    while got.next < lines {
        let response = match timeout_at(end, stream.message()).await {
            Ok(Ok(Some(response))) => response,
            Ok(Ok(None)) => {
                got.fault = Some("it ended".into());
                break;
            }
            Ok(Err(status)) => {
                got.fault = Some(status.to_string());
                break;
            }
            Err(_) => break,
        };
        response.lines.iter().for_each(|line| got.take(line, &name));
        if !response.lines.is_empty() {
            let now = Instant::now();
            (got.last, end) = (Some(now), now + silence);
        }
    }
    got.lost += lines.saturating_sub(got.next);
    got
}

async fn all(mut followers: JoinSet<Got>) -> Result<Got> {
    let mut sum = Got::default();
    while let Some(got) = followers.join_next().await {
        sum.add(got?);
    }
    Ok(sum)
}

/// The files that many follow: their names are the first word of their lines.
fn name(file: usize) -> String {
    format!("app-{file:03}.log")
}

fn append(path: &Path, name: &str, number: usize) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(format!("{name} {number}\n").as_bytes())
}

/// Prints what it costs to follow many files that rest, and how fast all are awake.
pub async fn many_files(plan: Plan) -> Result<()> {
    let rest = if plan.quick { QUICK_REST } else { REST };
    let root = directory()?;
    for file in 0..FILES {
        File::create(root.path().join(name(file)))?;
    }
    let server = Server::start(Kind::Perennial, root.path())?;
    let channels = server.connections(CONNECTIONS).await?;
    let before = server.memory()?;
    let mut followers = JoinSet::new();
    for (number, channel) in (0..FOLLOWERS).zip(channels.iter().cycle()) {
        // Neighbours on a connection follow different files.
        let name = name((number + number / CONNECTIONS) % FILES);
        let stream = open(channel, &name)
            .await
            .map_err(|error| format!("follower {number} of {FOLLOWERS}: {error}"))?;
        followers.spawn(follow(stream, name, 1, SETTLE + rest + PATIENCE));
    }
    tokio::time::sleep(SETTLE).await;
    let (instances, watches) = server.watches()?;
    let (cpu, start) = (server.cpu()?, Instant::now());
    tokio::time::sleep(rest).await;
    let idle = server.cpu()?.saturating_sub(cpu).as_secs_f64() / start.elapsed().as_secs_f64();
    let memory = server.memory()?.saturating_sub(before);

    let woken = Instant::now();
    for file in 0..FILES {
        append(&root.path().join(name(file)), &name(file), 0)?;
    }
    let got = all(followers).await?;
    let took = got.last.map_or(Duration::ZERO, |last| last - woken);
    head(
        &format!(
            "{FOLLOWERS} followers of {FILES} files, {CONNECTIONS} connections, {} s of rest, then a line each",
            rest.as_secs()
        ),
        &[
            "server",
            "inotify instances",
            "watches",
            "CPU at rest",
            "memory a stream",
            "delivered",
            "missed",
            "until all had their line",
        ],
    );
    row(&[
        Kind::Perennial.name().into(),
        instances.to_string(),
        watches.to_string(),
        format!("{:.2} %", idle * 100.0),
        kib(to_f64(memory) / to_f64(FOLLOWERS.try_into()?)),
        got.lines.to_string(),
        got.lost.to_string(),
        format!("{:.1} ms", took.as_secs_f64() * 1e3),
    ]);
    got.check()
}

/// Appends numbered lines, each in one write.
fn grow(path: &Path, lines: usize) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    let mut pace = Pace::new(GAP);
    for number in 0..lines {
        let line = format!("{LOG} {number:010} {:.<fill$}\n", "", fill = WIDTH - LOG.len() - 13);
        pace.wait();
        file.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// Prints what it costs to deliver one file to many.
pub async fn one_file(plan: Plan) -> Result<()> {
    let lines = if plan.quick { QUICK_LINES } else { LINES };
    let root = directory()?;
    let log = root.path().join(LOG);
    fs::write(&log, "")?;
    let server = Server::start(Kind::Perennial, root.path())?;
    let channels = server.connections(CONNECTIONS).await?;
    let mut followers = JoinSet::new();
    for (_, channel) in (0..READERS).zip(channels.iter().cycle()) {
        let stream = open(channel, LOG).await?;
        followers.spawn(follow(stream, LOG.into(), lines, SILENCE + SETTLE));
    }
    let (cpu, start) = (server.cpu()?, Instant::now());
    tokio::task::spawn_blocking(move || grow(&log, lines)).await??;
    let written = start.elapsed();
    let got = all(followers).await?;
    let cpu = server.cpu()?.saturating_sub(cpu);
    let took = got.last.map_or(Duration::ZERO, |last| last - start);
    head(
        &format!(
            "{READERS} followers of one file, {CONNECTIONS} connections, {lines} lines of {WIDTH} B in {:.1} s",
            written.as_secs_f64()
        ),
        &["server", "delivered", "lost", "lines delivered a second", "all had all after", "CPU a delivery"],
    );
    let delivered = u64::try_from(got.lines)?;
    row(&[
        Kind::Perennial.name().into(),
        got.lines.to_string(),
        got.lost.to_string(),
        format!("{:.0}", to_f64(delivered) / took.as_secs_f64()),
        format!("{:.2} s", took.as_secs_f64()),
        format!("{:.0} ns", each(cpu, delivered)),
    ]);
    got.check()
}
