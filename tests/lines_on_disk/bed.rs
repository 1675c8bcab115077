//! A directory on each kind of file system, files in it, and a reading of one of them that remembers what came.
//!
//! What a test waits for comes within [`LIMIT`], or the test fails and prints what came instead.

#![allow(dead_code, reason = "each group of tests uses a part of it")]

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use futures::{Stream, StreamExt};
use perennial::{
    lines::{
        Batch, Error, Event, Files, MayRead, OnGap, Options, Position, Query, Root, RootRules, Rules, Start,
    },
    proto::{self, line::Content},
    stream::Batching,
};
use prost::Message;
use tempfile::TempDir;
use tokio::time::{Instant, timeout, timeout_at};

/// How long anything may take that should happen at once: generous, because the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(120);

/// What the root is called, and the file in it that most tests read.
pub const ROOT: &str = "r";
pub const LOG: &str = "app.log";

/// A directory that is a root, and what reads the files in it.
pub struct Bed {
    directory: TempDir,
    pub files: Files,
}

/// Short, so that a test need not wait.
pub fn options() -> Options {
    Options { rotation_grace: Duration::from_millis(50), ..Options::default() }
}

impl Bed {
    /// One on a disk, one in memory: a test runs on each, and prints which one it is on.
    pub fn both() -> impl Iterator<Item = Self> {
        Self::both_with(options())
    }

    /// With other settings.
    pub fn both_with(options: Options) -> impl Iterator<Item = Self> {
        [env!("CARGO_TARGET_TMPDIR"), "/dev/shm"].into_iter().map(move |parent| {
            println!("in {parent}");
            Self::below(parent, options.clone())
        })
    }

    /// Where there is a disk.
    pub fn on_disk() -> Self {
        Self::below(env!("CARGO_TARGET_TMPDIR"), options())
    }

    /// Where files are in memory.
    pub fn in_memory() -> Self {
        Self::below("/dev/shm", options())
    }

    /// The same, with rules.
    pub fn on_disk_with(rules: RootRules) -> Self {
        Self::with_rules(env!("CARGO_TARGET_TMPDIR"), options(), rules)
    }

    fn below(parent: &str, options: Options) -> Self {
        Self::with_rules(parent, options, RootRules::default())
    }

    /// Below this directory.
    pub fn with_rules(parent: &str, options: Options, rules: RootRules) -> Self {
        let directory = TempDir::new_in(parent).unwrap();
        let root = Root { rules, ..Root::new(ROOT, directory.path()) };
        let files = Files::new(vec![root], options).unwrap();
        Self { directory, files }
    }

    /// Of a file in the root.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Appends in one write; makes the file if there is none.
    pub fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        append(&self.path(name), text);
    }

    pub fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    /// Opens a reading that is expected to open.
    pub async fn open(&self, query: Query) -> Reading {
        let shown = format!("{query:?}");
        self.try_open(query).await.unwrap_or_else(|error| panic!("{shown}: {error:?}"))
    }

    pub async fn try_open(&self, query: Query) -> Result<Reading, Error> {
        Self::try_open_on(&self.files, query).await
    }

    /// The same by another server over the same directory.
    pub async fn try_open_on(files: &Files, query: Query) -> Result<Reading, Error> {
        let opened = timeout(LIMIT, files.open(query)).await.expect("it opens, or fails to");
        Ok(Reading {
            batches: Box::pin(opened?),
            lines: Vec::new(),
            events: Vec::new(),
            position: None,
            caught_up: false,
        })
    }

    /// The texts of all that a query yields that does not follow.
    pub async fn all(&self, query: Query) -> Vec<String> {
        let mut reading = self.open(query).await;
        reading.read_to_end().await;
        reading.texts()
    }
}

/// Appends in one write; makes the file if there is none.
pub fn append(path: &Path, text: impl AsRef<[u8]>) {
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_ref()).unwrap();
}

/// Reads [`LOG`] to its end.
pub fn query(start: Start) -> Query {
    query_of(LOG, start)
}

/// Reads [`LOG`] and stays.
pub fn follow(start: Start) -> Query {
    Query { follow: true, ..query(start) }
}

/// Reads a file of the root to its end.
pub fn query_of(name: &str, start: Start) -> Query {
    Query {
        path: format!("{ROOT}/{name}"),
        may_read: MayRead::default(),
        start,
        history: false,
        follow: false,
        wait_for_create: false,
        on_gap: OnGap::Fail,
        rules: Rules::default(),
        patterns: perennial::lines::Patterns::default(),
        partial_flush: None,
        batching: Batching::default(),
    }
}

/// A stream of lines, and all that came.
pub struct Reading {
    batches: Pin<Box<dyn Stream<Item = Result<Batch, Error>> + Send>>,
    pub lines: Vec<proto::Line>,
    pub events: Vec<Event>,
    /// The position after the last batch.
    pub position: Option<Position>,
    /// The last batch ended at the end of the file.
    pub caught_up: bool,
}

impl Reading {
    /// The next batch, taken note of; none at the end.
    pub async fn batch(&mut self) -> Option<Batch> {
        let Ok(next) = timeout(LIMIT, self.batches.next()).await else {
            panic!("no batch within {LIMIT:?} after {}", self.seen());
        };
        let batch = next.transpose().unwrap_or_else(|error| panic!("{error:?} after {}", self.seen()))?;
        self.take_note(&batch);
        Some(batch)
    }

    /// The error that comes next.
    pub async fn error(&mut self) -> Error {
        let next = timeout(LIMIT, self.batches.next()).await;
        next.expect("an error within the limit").expect("no end").expect_err("an error")
    }

    fn take_note(&mut self, batch: &Batch) {
        let lines = proto::ReadLinesResponse::decode(batch.items.concat().as_slice()).unwrap().lines;
        assert_eq!(lines.len(), batch.count, "a batch holds what it says");
        self.lines.extend(lines);
        self.events.extend(batch.events.iter().cloned());
        self.position = Some(batch.position.clone());
        self.caught_up = batch.progress.caught_up;
    }

    /// Reads on until this line was read; one that was read before does not count.
    pub async fn read_until(&mut self, line: &str) {
        self.read_while(&format!("the line {line:?}"), |lines, _| lines.iter().all(|it| text(it) != line))
            .await;
    }

    /// Reads on until this many lines were read, all in all.
    pub async fn read_lines(&mut self, count: usize) {
        let end = Instant::now() + LIMIT;
        while self.lines.len() < count {
            assert!(Instant::now() < end, "{count} lines within {LIMIT:?}, but {}", self.seen());
            self.batch().await.unwrap_or_else(|| panic!("{count} lines"));
        }
    }

    /// Reads on until this event comes; one that came before does not count.
    pub async fn wait_for_event(&mut self, what: &str, is_it: impl Fn(&Event) -> bool) {
        self.read_while(what, |_, events| !events.iter().any(&is_it)).await;
    }

    /// Reads on until a batch ends at the end of the file.
    pub async fn read_until_caught_up(&mut self) {
        let end = Instant::now() + LIMIT;
        loop {
            assert!(Instant::now() < end, "the end of the file within {LIMIT:?}, but {}", self.seen());
            self.batch().await.expect("the stream goes on");
            if self.caught_up {
                return;
            }
        }
    }

    /// Reads until the stream ends.
    pub async fn read_to_end(&mut self) {
        while self.batch().await.is_some() {}
    }

    /// No line, event or end comes for this time.
    pub async fn quiet_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(next) = timeout_at(end, self.batches.next()).await {
            let batch = next.expect("the stream goes on").unwrap();
            let is_quiet = batch.count == 0 && batch.events.is_empty();
            self.take_note(&batch);
            assert!(is_quiet, "nothing should have come, but {}", self.seen());
        }
    }

    /// The contents of all lines so far; what is no UTF-8 with replacement characters.
    pub fn texts(&self) -> Vec<String> {
        self.lines.iter().map(text).collect()
    }

    /// All lines so far with their flags, as [`shown`] writes them.
    pub fn shown(&self) -> Vec<String> {
        self.lines.iter().map(shown).collect()
    }

    /// All lines so far, which are forgotten.
    pub fn take_texts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines).iter().map(text).collect()
    }

    /// All events so far, which are forgotten.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// A start after the last batch.
    pub fn resume(&self) -> Start {
        Start::Resume(self.position.clone().expect("a batch came"))
    }

    async fn read_while(&mut self, what: &str, wants: impl Fn(&[proto::Line], &[Event]) -> bool) {
        let end = Instant::now() + LIMIT;
        loop {
            let (lines, events) = (self.lines.len(), self.events.len());
            assert!(Instant::now() < end, "{what} within {LIMIT:?}, but {}", self.seen());
            self.batch().await.unwrap_or_else(|| panic!("{what} before the end"));
            if !wants(&self.lines[lines..], &self.events[events..]) {
                return;
            }
        }
    }

    /// The last of what came, for a test that fails.
    /// What came so far, shortened.
    pub fn seen(&self) -> String {
        let cut = |line: String| line.chars().take(60).collect::<String>();
        let lines =
            self.lines[self.lines.len().saturating_sub(5)..].iter().map(shown).map(cut).collect::<Vec<_>>();
        let events = &self.events[self.events.len().saturating_sub(20)..];
        format!(
            "{} lines, the last {lines:?}, {} events, the last {events:?}",
            self.lines.len(),
            self.events.len()
        )
    }
}

/// The content of a line; what is no UTF-8 with replacement characters.
pub fn text(line: &proto::Line) -> String {
    match line.content.clone() {
        Some(Content::Data(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Some(Content::Text(text)) => text,
        None => String::new(),
    }
}

/// The content of a line in bytes.
pub fn bytes(line: &proto::Line) -> Vec<u8> {
    match line.content.clone() {
        Some(Content::Data(bytes)) => bytes,
        Some(Content::Text(text)) => text.into_bytes(),
        None => Vec::new(),
    }
}

/// The content of a line and a sign for each flag: `<` continued, `>` has_more, `!` truncated, `-` skipped, `~` partial,
/// `$` without newline.
pub fn shown(line: &proto::Line) -> String {
    let flags = [
        (line.continued, "<"),
        (line.has_more, ">"),
        (line.truncated, "!"),
        (line.skipped, "-"),
        (line.partial, "~"),
        (line.no_newline, "$"),
    ];
    text(line) + &flags.into_iter().filter(|(set, _)| *set).map(|(_, sign)| sign).collect::<String>()
}
