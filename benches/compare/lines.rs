//! A large log, read by one client at full speed; and by many that take nothing.

use std::{
    io::{BufWriter, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use perennial::proto::{ReadLinesRequest, ReadLinesResponse};
use prost::Message;
use tonic::transport::Channel;

use crate::{
    Plan, Result, directory,
    follower::READ_LINES as OURS,
    measure::{each, head, kib, median, row, to_f64},
    peer::{READ_LINES, Text},
    process::{Kind, NARROW, Server, call, python},
};

const PYTHON_CLIENT: &str = "perennial, Python client";

/// The name of the log below its root.
const LOG: &str = "big.log";

/// How many lines the bulk read has, and how many grpc.aio gets of them: its cost a line does not depend on it.
const LINES: (u64, u64) = (2_000_000, 200_000);
const QUICK_LINES: (u64, u64) = (400_000, 20_000);

/// How often a pair of runs alternates; odd, so that the median is a run.
const RUNS: usize = 5;
const QUICK_RUNS: usize = 1;

/// How many readers stall, and how long.
const STALLED: usize = 1_000;
const STALL: Duration = Duration::from_secs(60);
const QUICK_STALL: Duration = Duration::from_secs(10);

/// Lines of 82 bytes, as an access log has.
fn write_log(path: &Path, lines: u64) -> Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    for n in 0..lines {
        writeln!(file, "2026-01-01T00:00:00Z INFO request id={n:016x} path=/orders/eu status=200 t=00042us")?;
    }
    Ok(file.flush()?)
}

async fn count<Q, R>(
    channel: &Channel,
    method: &'static str,
    request: Q,
    items: fn(&R) -> usize,
) -> Result<u64>
where
    Q: Message + Send + Sync + 'static,
    R: Message + Default + Send + Sync + 'static,
{
    let mut stream = call::<Q, R>(channel, method, request).await?;
    let mut count = 0;
    while let Some(response) = stream.message().await? {
        count += items(&response);
    }
    Ok(count.try_into()?)
}

fn ours() -> ReadLinesRequest {
    ReadLinesRequest { path: format!("logs/{LOG}"), ..ReadLinesRequest::default() }
}

struct Run {
    cpu: Duration,
    wall: Duration,
    lines: u64,
}

async fn run(kind: Kind, root: &Path, lines: u64) -> Result<Run> {
    let server = Server::start(kind, root)?;
    let channels = server.connections(1).await?;
    let channel = channels.first().ok_or("no connection")?;
    let (cpu, start) = (server.cpu()?, Instant::now());
    let count = match kind {
        Kind::Perennial => {
            count(channel, OURS, ours(), |batch: &ReadLinesResponse| batch.lines.len()).await?
        }
        Kind::Tonic | Kind::Aio => {
            let text = root.join(LOG).display().to_string();
            count(channel, READ_LINES, Text { text }, |_: &Text| 1).await?
        }
    };
    let run = Run { cpu: server.cpu()?.saturating_sub(cpu), wall: start.elapsed(), lines: count };
    if count == lines { Ok(run) } else { Err(format!("{count} lines of {lines}").into()) }
}

/// Prints what a line costs the server.
pub async fn bulk(plan: Plan) -> Result<()> {
    let (lines, few) = if plan.quick { QUICK_LINES } else { LINES };
    let (root, short) = (directory()?, directory()?);
    write_log(&root.path().join(LOG), lines)?;
    write_log(&short.path().join(LOG), few)?;

    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    let runs = plan.runs(RUNS, QUICK_RUNS);
    for _ in 0..runs {
        ours.push(run(Kind::Perennial, root.path(), lines).await?);
        peers.push(run(Kind::Tonic, root.path(), lines).await?);
    }
    let ratio = |value: fn(&Run) -> f64| median(ours.iter().zip(&peers).map(|(a, b)| value(a) / value(b)));
    let (cpu_ratio, speed_ratio) = (ratio(cpu), ratio(speed));

    head(
        &format!("ReadLines: {lines} lines of 82 B, one reader, {runs} runs"),
        &["server", "CPU a line", "lines a second", "CPU, perennial / tonic", "speed, perennial / tonic"],
    );
    show(Kind::Perennial, &ours, [format!("{cpu_ratio:.2}"), format!("{speed_ratio:.2}")]);
    show(Kind::Tonic, &peers, [String::new(), String::new()]);
    if let Some(why) = Kind::Aio.missing() {
        row(&[PYTHON_CLIENT.into(), format!("not run: {why}")]);
        row(&[Kind::Aio.name().into(), format!("not run: {why}")]);
        return Ok(());
    }
    let (cpu, speed) = python_client(root.path(), lines)?;
    row(&[PYTHON_CLIENT.into(), format!("{cpu:.0} ns"), format!("{speed:.0}"), String::new(), String::new()]);
    let python = run(Kind::Aio, short.path(), few).await?;
    show(Kind::Aio, &[python], [format!("({few} lines)"), String::new()]);
    Ok(())
}

/// What a line costs our server, and how many a second a client that grpcio-tools generated reads, with default
/// options.
fn python_client(root: &Path, lines: u64) -> Result<(f64, f64)> {
    let server = Server::start(Kind::Perennial, root)?;
    let stubs = directory()?;
    let cpu = server.cpu()?;
    let output = Command::new(python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compare/read.py"))
        .args([server.address(), &ours().path])
        .arg(stubs.path())
        .stderr(Stdio::inherit())
        .output()?;
    let cpu = server.cpu()?.saturating_sub(cpu);
    let output = String::from_utf8(output.stdout)?;
    let (count, seconds) = output.trim().split_once(' ').ok_or("read.py printed nothing")?;
    if count.parse::<u64>()? != lines {
        return Err(format!("{count} lines of {lines}").into());
    }
    Ok((each(cpu, lines), to_f64(lines) / seconds.parse::<f64>()?))
}

fn cpu(run: &Run) -> f64 {
    each(run.cpu, run.lines)
}

fn speed(run: &Run) -> f64 {
    to_f64(run.lines) / run.wall.as_secs_f64()
}

fn show(kind: Kind, runs: &[Run], rest: [String; 2]) {
    let (cpu, speed) = (median(runs.iter().map(cpu)), median(runs.iter().map(speed)));
    let [first, second] = rest;
    row(&[kind.name().into(), format!("{cpu:.0} ns"), format!("{speed:.0}"), first, second]);
}

/// Prints what a reader that takes nothing costs the server.
pub async fn stalled(plan: Plan) -> Result<()> {
    let root = directory()?;
    write_log(&root.path().join(LOG), QUICK_LINES.0)?;
    let hold = if plan.quick { QUICK_STALL } else { STALL };
    head(
        &format!(
            "{STALLED} readers of ReadLines that take nothing for {} s, each on a connection",
            hold.as_secs()
        ),
        &["server", "memory before", "memory at the end", "a reader"],
    );
    for kind in [Kind::Perennial, Kind::Tonic] {
        let server = Server::start(kind, root.path())?;
        let before = server.memory()?;
        let mut held = Vec::with_capacity(STALLED);
        for _ in 0..STALLED {
            let channel = server.connect(NARROW).await?;
            held.push(stall(kind, &channel, root.path()).await?);
        }
        tokio::time::sleep(hold).await;
        let after = server.memory()?;
        let each = kib(to_f64(after.saturating_sub(before)) / to_f64(held.len().try_into()?));
        row(&[kind.name().into(), kib(to_f64(before)), kib(to_f64(after)), each]);
    }
    Ok(())
}

/// A stream that is open and not read.
async fn stall(kind: Kind, channel: &Channel, root: &Path) -> Result<Box<dyn Send>> {
    Ok(match kind {
        Kind::Perennial => Box::new(call::<_, ReadLinesResponse>(channel, OURS, ours()).await?),
        Kind::Tonic | Kind::Aio => {
            let text = root.join(LOG).display().to_string();
            Box::new(call::<_, Text>(channel, READ_LINES, Text { text }).await?)
        }
    })
}
