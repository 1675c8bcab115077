//! How long it takes to find a place in a large file: ours over an open connection, and the tools that one would run, with
//! the start of their process.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use perennial::proto::{ReadLinesRequest, ReadLinesResponse, read_lines_request::Start};
use tokio::{io::AsyncReadExt, process::Command, time::timeout};
use tonic::transport::Channel;

use crate::{
    Plan, Result, directory,
    follower::{READ_LINES, content},
    measure::{head, median, row, to_f64},
    process::{Kind, Server, call},
};

/// How many lines the file has, and the line that is looked for.
const LINES: (u64, u64) = (10_600_000, 10_000_000);
const QUICK_LINES: (u64, u64) = (1_060_000, 1_000_000);

/// The length of a line in bytes, with its newline.
const WIDTH: u64 = 96;

/// How often each place is looked for; odd, so that the median is a run.
const RUNS: usize = 5;
const QUICK_RUNS: usize = 3;

/// What takes longer is given up, and not tried again.
const PATIENCE: Duration = Duration::from_secs(30);

const BIG: &str = "big.log";
const SPARSE: &str = "sparse.log";

/// The size of the file that is a hole but for its last line.
const HOLE: u64 = 20 << 30;
const LAST: &str = "the only line";

/// The line with a number, counted from 1, without its newline.
fn line(number: u64) -> String {
    format!("2026-01-01T00:00:00Z INFO request id={number:010} {:.<47}", "")
}

/// Writes both files; what was just written is in the cache.
fn write(root: &Path, lines: u64) -> Result<()> {
    let mut big = BufWriter::with_capacity(1 << 20, File::create(root.join(BIG))?);
    for number in 1..=lines {
        writeln!(big, "{}", line(number))?;
    }
    let big = big.into_inner()?;
    if big.metadata()?.len() != lines * WIDTH {
        return Err("a line has another length".into());
    }
    io::copy(&mut File::open(root.join(BIG))?, &mut io::sink())?;

    let mut sparse = File::create(root.join(SPARSE))?;
    sparse.set_len(HOLE)?;
    io::Seek::seek(&mut sparse, io::SeekFrom::End(0))?;
    Ok(writeln!(sparse, "{LAST}")?)
}

/// A place in a file, and the text there.
struct Place {
    title: String,
    request: ReadLinesRequest,
    /// The first line that is asked for.
    expect: String,
    /// Commands for a shell, in the directory of the file, that print it.
    tools: Vec<String>,
}

fn places((lines, number): (u64, u64)) -> Vec<Place> {
    let middle = lines / 2;
    let request = |file: &str, start| ReadLinesRequest {
        path: format!("logs/{file}"),
        start: Some(start),
        ..ReadLinesRequest::default()
    };
    vec![
        Place {
            title: "last 10 lines".into(),
            request: request(BIG, Start::Last(10)),
            expect: line(lines - 9),
            tools: vec![format!("tail -n 10 {BIG}")],
        },
        Place {
            title: format!("line {number}"),
            request: request(BIG, Start::FromLine(number.cast_signed())),
            expect: line(number),
            tools: vec![
                format!("sed -n '{number}{{p;q}}' {BIG}"),
                format!("tail -n +{number} {BIG} | head -n 1"),
            ],
        },
        Place {
            title: "an offset in the middle".into(),
            request: request(BIG, Start::FromOffset((middle * WIDTH).cast_signed())),
            expect: line(middle + 1),
            tools: vec![format!("tail -c +{} {BIG} | head -n 1", middle * WIDTH + 1)],
        },
        Place {
            title: format!("the last line of a sparse file of {} GiB", HOLE >> 30),
            request: request(SPARSE, Start::Last(1)),
            expect: LAST.into(),
            tools: vec![format!("tail -n 1 {SPARSE} | tr -d '\\000'")],
        },
    ]
}

/// The time until the line was there, or what was instead.
type Found = Result<Duration, String>;

fn found(start: Instant, is_right: bool) -> Found {
    if is_right { Ok(start.elapsed()) } else { Err("something else came".into()) }
}

fn too_late() -> Found {
    Err(format!("nothing within {} s", PATIENCE.as_secs()))
}

/// The time until a response holds lines, which have to begin with the one that is looked for.
async fn ask(channel: &Channel, place: &Place) -> Result<Found> {
    let start = Instant::now();
    let first = timeout(PATIENCE, async {
        let mut stream = call::<_, ReadLinesResponse>(channel, READ_LINES, place.request.clone()).await?;
        while let Some(response) = stream.message().await? {
            if let Some(line) = response.lines.into_iter().next() {
                return Ok(Some(line));
            }
        }
        Ok::<_, crate::Error>(None)
    });
    let Ok(line) = first.await else { return Ok(too_late()) };
    Ok(found(start, line?.is_some_and(|line| content(line.content.as_ref()) == place.expect.as_bytes())))
}

/// The first time on a server that has just started, and the median of further ones.
async fn ours(root: &Path, place: &Place, runs: usize) -> Result<(String, String)> {
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let server = Server::start(Kind::Perennial, root)?;
        let channels = server.connections(1).await?;
        let channel = channels.first().ok_or("no connection")?;
        // What a connection costs at its first call is no part of the place.
        let warm_up = ReadLinesRequest { path: "logs/none".into(), ..ReadLinesRequest::default() };
        if call::<_, ReadLinesResponse>(channel, READ_LINES, warm_up).await.is_ok() {
            return Err("a file that is not there was opened".into());
        }
        first.push(ask(channel, place).await?);
        again.push(ask(channel, place).await?);
        if again.iter().any(Found::is_err) {
            break;
        }
    }
    Ok((middle(&first), middle(&again)))
}

/// The time until a shell's command has printed the line.
async fn tool(root: &Path, command: &str, expect: &str) -> Result<Found> {
    let start = Instant::now();
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(root).kill_on_drop(true);
    let mut child = shell.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().ok_or("no stdout")?;
    let mut output = vec![0; expect.len()];
    let read = timeout(PATIENCE, stdout.read_exact(&mut output)).await;
    let Ok(read) = read else { return Ok(too_late()) };
    Ok(found(start, read.is_ok() && output == expect.as_bytes()))
}

/// The median, or what went wrong.
fn middle(times: &[Found]) -> String {
    if let Some(wrong) = times.iter().find_map(|time| time.as_ref().err()) {
        return wrong.clone();
    }
    let median = median(times.iter().flatten().map(Duration::as_secs_f64));
    format!("{:.2} ms", median * 1e3)
}

/// Prints how long it takes to find a place.
pub async fn run(plan: Plan) -> Result<()> {
    let size = if plan.quick { QUICK_LINES } else { LINES };
    let runs = plan.runs(RUNS, QUICK_RUNS);
    let root = directory()?;
    write(root.path(), size.0)?;
    let bytes = fs::metadata(root.path().join(BIG))?.len();
    head(
        &format!(
            "Places in a file of {:.2} GB, {} lines, medians of {runs} runs",
            to_f64(bytes) / 1e9,
            size.0
        ),
        &["place", "perennial, first time", "perennial, again", "tools"],
    );
    for place in places(size) {
        let (first, again) = ours(root.path(), &place, runs).await?;
        let mut tools = Vec::new();
        for command in &place.tools {
            let mut times = Vec::new();
            for _ in 0..runs {
                times.push(tool(root.path(), command, &place.expect).await?);
                if times.iter().any(Found::is_err) {
                    break;
                }
            }
            // A bar would end the cell.
            tools.push(format!("`{}`: {}", command.replace('|', "\\|"), middle(&times)));
        }
        row(&[place.title.clone(), first, again, tools.join("; ")]);
    }
    Ok(())
}
