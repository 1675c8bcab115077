//! Patterns of filters: they are refused, or each line of a file is either among those that match or among the others.

use std::{fs, path::PathBuf, pin::pin, sync::LazyLock};

use perennial::{
    lines::{Error, Files, MayRead, OnGap, Options, Patterns, Query, Root, Rules, Start},
    proto::{Line, ReadLinesResponse},
    stream::Batching,
};
use prost::Message;
use tempfile::TempDir;
use tokio_stream::StreamExt;

use super::house::{answer, in_memory};

pub const WORDS: &[&str] = &[
    "\n",
    "\r\n",
    "\t",
    "^",
    "$",
    "\\b",
    "\\B",
    "\\z",
    "(?m)",
    "(?s)",
    "(?i)",
    "(?R)",
    "(?-u)",
    "(?x)",
    "\\w",
    "\\pL",
    "[^a]",
    "[[:alpha:]]",
    "\\x{e9}",
    "\\n",
    "\\r",
    "{3}",
    "{0,9}",
    "*?",
    "+",
    "|",
    "(",
    ")",
    "(?P<a>",
    ".",
    "é",
    "\0",
];

struct Place {
    _directory: TempDir,
    files: Files,
    log: PathBuf,
}

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let directory = TempDir::new_in(in_memory()).unwrap();
    let log = directory.path().join("a.log");
    fs::write(&log, "").unwrap();
    let files = Files::new(vec![Root::new("logs", directory.path())], Options::default()).unwrap();
    Place { _directory: directory, files, log }
});

/// The first line is the patterns, with a tab after each but the last; a log follows.
pub fn run(bytes: &[u8]) {
    let end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    let (head, log) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let Ok(head) = std::str::from_utf8(head) else { return };
    let patterns = head.split('\t').map(str::to_owned).collect::<Vec<_>>();
    fs::write(&PLACE.log, log).unwrap();
    let (none, matching) = (Vec::new, || patterns.clone());
    let include = lines(Start::Head, matching(), none());
    let exclude = lines(Start::Head, none(), matching());
    let (include, exclude) = match (include, exclude) {
        (Ok(include), Ok(exclude)) => (include, exclude),
        (
            Err(Error::Pattern { field: "include", fault }),
            Err(Error::Pattern { field: "exclude", fault: other }),
        ) => {
            return assert_eq!(fault, other);
        }
        (include, exclude) => panic!("{include:?} {exclude:?}"),
    };
    let both = lines(Start::Head, matching(), matching()).unwrap();
    assert!(both.is_empty(), "{both:?} match, and do not");
    let last = lines(Start::Last(1), matching(), none()).unwrap();
    assert_eq!(last.first(), include.iter().rfind(|line| !line.continued), "the last line that matches");
    let mut all = [include, exclude].concat();
    all.sort_by_key(|line| line.offset);
    assert_eq!(all, lines(Start::Head, none(), none()).unwrap(), "a line is missing, or comes twice");
}

fn lines(start: Start, include: Vec<String>, exclude: Vec<String>) -> Result<Vec<Line>, Error> {
    let query = Query {
        path: "logs/a.log".into(),
        may_read: MayRead::default(),
        start,
        history: false,
        follow: false,
        wait_for_create: false,
        on_gap: OnGap::Fail,
        rules: Rules { max_line_bytes: Some(64), ..Rules::default() },
        patterns: Patterns { include, exclude, ..Patterns::default() },
        partial_flush: None,
        batching: Batching::default(),
    };
    answer("lines", async {
        let mut stream = pin!(PLACE.files.open(query).await?);
        let mut lines = Vec::new();
        while let Some(batch) = stream.next().await {
            for item in batch?.items {
                lines.extend(ReadLinesResponse::decode(item).unwrap().lines);
            }
        }
        // Where a stream starts decides whether the numbers of its lines are known.
        for line in &mut lines {
            line.number = None;
        }
        Ok(lines)
    })
}
