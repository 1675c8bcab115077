//! Situations whose cost once grew with the square: many rotations while a reader is away, and a large file that is replaced
//! under many followers.

use std::{
    fs,
    io::Write,
    time::{Duration, Instant},
};

use perennial::proto::{ReadLinesRequest, ReadLinesResponse, read_lines_request::Start};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    Result, directory,
    follower::{LOG, READ_LINES, content},
    measure::{head, row},
    process::{Kind, Server, WIDE, call},
};

const ROTATIONS: usize = 1_500;

const FOLLOWERS: usize = 200;
const LARGE_BYTES: usize = 60_000_000;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run() -> Result<()> {
    head("Situations: what they cost", &["situation", "lines", "time", "server CPU"]);
    away().await?;
    replaced().await
}

fn request(start: Option<Start>) -> ReadLinesRequest {
    ReadLinesRequest { path: format!("logs/{LOG}"), start, follow: true, ..ReadLinesRequest::default() }
}

/// A reader is away for many rotations.
async fn away() -> Result<()> {
    let root = directory()?;
    let path = |name: &str| root.path().join(name);
    fs::write(path(LOG), "0\n")?;
    let server = Server::start(Kind::Perennial, root.path())?;
    let channel = server.connect(WIDE).await?;
    let mut stream = call::<_, ReadLinesResponse>(&channel, READ_LINES, request(None)).await?;
    let cursor = stream.message().await?.ok_or("it ended")?.cursor;
    drop(stream);
    fs::rename(path(LOG), path(&format!("{LOG}.{ROTATIONS}")))?;
    for rotation in 1..ROTATIONS {
        fs::write(path(&format!("{LOG}.{}", ROTATIONS - rotation)), format!("{rotation}\n"))?;
    }
    fs::write(path(LOG), format!("{ROTATIONS}\n"))?;
    let (started, cpu, mut lines) = (Instant::now(), server.cpu()?, 0);
    let resumed = ReadLinesRequest { cursor: Some(cursor), ..request(None) };
    let mut stream = call::<_, ReadLinesResponse>(&channel, READ_LINES, resumed).await?;
    while lines < ROTATIONS {
        let response = timeout(PATIENCE, stream.message()).await??.ok_or("it ended")?;
        for line in response.lines {
            lines += 1;
            if content(line.content.as_ref()) != lines.to_string().as_bytes() {
                return Err(format!("line {lines} came as {line:?}").into());
            }
        }
    }
    show(
        &format!("{ROTATIONS} rotations while a reader is away"),
        lines,
        started,
        server.cpu()?.saturating_sub(cpu),
    );
    Ok(())
}

/// A large file is replaced by one with a line more, under many followers.
async fn replaced() -> Result<()> {
    let root = directory()?;
    let mut text = Vec::new();
    while text.len() < LARGE_BYTES {
        writeln!(text, "line {} of a file that is replaced under its followers", text.len())?;
    }
    fs::write(root.path().join(LOG), &text)?;
    let server = Server::start(Kind::Perennial, root.path())?;
    let channels = server.connections(10).await?;
    let mut followers = JoinSet::new();
    for channel in channels.iter().cycle().take(FOLLOWERS) {
        let mut stream =
            call::<_, ReadLinesResponse>(channel, READ_LINES, request(Some(Start::Last(0)))).await?;
        stream.message().await?.ok_or("it ended")?;
        followers.spawn(async move {
            loop {
                let response = timeout(PATIENCE, stream.message()).await.ok()?.ok()??;
                if let Some(line) = response.lines.first() {
                    return Some(content(line.content.as_ref()) == b"more" && response.lines.len() == 1);
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    text.extend_from_slice(b"more\n");
    fs::write(root.path().join("temporary"), &text)?;
    let (started, cpu) = (Instant::now(), server.cpu()?);
    fs::rename(root.path().join("temporary"), root.path().join(LOG))?;
    let mut lines = 0;
    while let Some(got) = followers.join_next().await {
        if got? != Some(true) {
            return Err("a follower of a file that was replaced got another line, or none".into());
        }
        lines += 1;
    }
    let title = format!("60 MB are replaced by rename under {FOLLOWERS} followers");
    show(&title, lines, started, server.cpu()?.saturating_sub(cpu));
    Ok(())
}

fn show(title: &str, lines: usize, started: Instant, cpu: Duration) {
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    row(&[title.into(), lines.to_string(), seconds(started.elapsed()), seconds(cpu)]);
}
