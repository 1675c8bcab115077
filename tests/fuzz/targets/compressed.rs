//! Rotated files that may be compressed, of any bytes: a reader of the whole history gets their lines or a gap, and then the
//! lines of the log after them, within bounds of memory.

use std::{
    fs::{self, File},
    path::PathBuf,
    pin::pin,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use perennial::{
    lines::{
        Event, Files, GapReason, MayRead, OnGap, Options, Patterns, Position, Query, Root, Rules, Start,
    },
    proto::{Line, ReadLinesResponse, line::Content},
    stream::Batching,
};
use prost::Message;
use tempfile::TempDir;
use tokio_stream::StreamExt;

use super::house::{answer, in_memory};

struct Place {
    _directory: TempDir,
    files: Files,
    rotated: PathBuf,
}

/// An archive may hold 1,000 times its bytes, or this.
const MOST_CONTENT: u64 = 64 << 20;

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let directory = TempDir::new_in(in_memory()).unwrap();
    fs::write(directory.path().join("a.log"), "\nlast\n").unwrap();
    let rotated = directory.path().join("a.log.1");
    let files = Files::new(vec![Root::new("logs", directory.path())], Options::default()).unwrap();
    Place { _directory: directory, files, rotated }
});

pub fn run(bytes: &[u8]) {
    fs::write(&PLACE.rotated, bytes).unwrap();
    // A file that ends too early may still grow if it was written just now.
    let old = SystemTime::now() - Duration::from_secs(60);
    File::options().write(true).open(&PLACE.rotated).unwrap().set_modified(old).unwrap();
    let whole = read(Start::Head, usize::MAX);
    let last = whole.lines.last().map(|line| line.content.clone());
    assert_eq!(last, Some(Some(Content::Text("last".into()))), "the log after it is missing");
    let content = whole.lines.iter().map(|line| line.content.as_ref().map_or(0, size)).sum::<u64>();
    assert!(content <= MOST_CONTENT + 1000 * (bytes.len() as u64 + 64 * 1024) + 64 * 1024, "{content} bytes");
    assert!(whole.faults <= 1, "one file has {} faults", whole.faults);
    // A reader that was cut after the first batch gets the rest.
    let first = read(Start::Head, 2);
    if let Some(position) = first.cut {
        let rest = read(Start::Resume(position), usize::MAX);
        assert_eq!([first.lines, rest.lines].concat(), whole.lines, "a line is missing, or comes twice");
    }
}

fn size(content: &Content) -> u64 {
    match content {
        Content::Text(text) => text.len() as u64,
        Content::Data(bytes) => bytes.len() as u64,
    }
}

struct Read {
    lines: Vec<Line>,
    faults: usize,
    /// The position at which the reading was cut.
    cut: Option<Position>,
}

/// Reads all, or up to the first batch that has lines if `most` is small.
fn read(start: Start, most: usize) -> Read {
    let query = Query {
        path: "logs/a.log".into(),
        may_read: MayRead::default(),
        start,
        history: true,
        follow: false,
        wait_for_create: false,
        on_gap: OnGap::Fail,
        rules: Rules { max_line_bytes: Some(4096), ..Rules::default() },
        patterns: Patterns::default(),
        partial_flush: None,
        batching: Batching { max_items: most.min(Batching::default().max_items), ..Batching::default() },
    };
    let read = answer("lines", async {
        let mut stream = pin!(PLACE.files.open(query).await?);
        let mut read = Read { lines: Vec::new(), faults: 0, cut: None };
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            for item in batch.items {
                read.lines.extend(ReadLinesResponse::decode(item).unwrap().lines);
            }
            let is_fault =
                |event: &&Event| matches!(event, Event::Gap { reason: GapReason::Unreadable { .. }, .. });
            read.faults += batch.events.iter().filter(is_fault).count();
            if !read.lines.is_empty() && most < usize::MAX {
                read.cut = Some(batch.position);
                break;
            }
        }
        Ok::<_, perennial::lines::Error>(read)
    });
    read.expect("a file that cannot be read is a gap")
}
