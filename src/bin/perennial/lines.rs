//! `perennial lines`: prints files, each from a stream of its own, and keeps their cursors.
//!
//! Promises that a cursor is saved only after everything before it was written to stdout. So the next run after a kill
//! repeats some lines and loses no line. A stream that fails is reported and the others continue; the exit code is that
//! of the first failure.

use std::{
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use futures::{
    StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use perennial::{
    client::{Client, Error},
    proto::{ErrorReason, ReadLinesResponse},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Failure, INTERRUPTED,
    arguments::{Format, Lines},
    can_resume, code_of,
    output::{self, Connection, Output, Problem},
    quote,
    session::{self, Session},
};

pub mod cursor_file;
mod event;
mod names;
mod printer;
mod progress;

use cursor_file::CursorFile;
use printer::Printer;
use progress::Progress;

/// The time between two saves in bulk: each save waits for the disk.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// The streams on one connection. A server allows 256 by default.
const MAX_STREAMS: usize = 100;

/// The number of a stream, and what it yielded: a response, an error, or `None` when it ended with OK.
type Given = (usize, Option<Result<ReadLinesResponse, Error>>);

/// Prints the files to their ends, an error, or Ctrl-C.
pub async fn read(
    client: &Client,
    it: Lines,
    prefix: Vec<String>,
    format: Format,
    stop: CancellationToken,
) -> Result<u8, Failure> {
    let mut reading = Reading::new(it, prefix, format)?;
    let streams = reading.open(client);
    match session::run(&mut reading, streams, &stop).await {
        Err(Failure::Cursors(error)) => Ok(reading.save_failed(&error)),
        done => done,
    }
}

/// The stream of one file.
struct Source {
    path: String,
    /// The cursor of the last response.
    cursor: Option<String>,
    /// The lines that this run received.
    delivered: i64,
    /// The last cursor before which everything was printed.
    printed: Option<String>,
    is_live: bool,
    /// The stream ended, or failed and that was reported.
    is_over: bool,
}

struct Reading {
    it: Lines,
    prefix: Vec<String>,
    sources: Vec<Source>,
    out: Output,
    printer: Printer,
    progress: Progress,
    connection: Connection,
    file: Option<CursorFile>,
    /// A cursor has moved since the last save.
    is_unsaved: bool,
    saved: Instant,
    /// The exit code for the first stream that failed.
    failed: Option<u8>,
}

impl Session for Reading {
    type Item = Given;

    async fn received(&mut self, (n, given): Given) -> Result<ControlFlow<u8>, Failure> {
        if !matches!(given, Some(Ok(_))) {
            self.connection.closed(n);
        }
        match given {
            Some(Ok(response)) => self.print(n, &response)?,
            Some(Err(error)) => self.stream_failed(n, &error)?,
            None => {
                self.printer.finish(&mut self.out, n);
                // It does not delay the next save.
                self.sources.get_mut(n).into_iter().for_each(|it| (it.is_live, it.is_over) = (true, true));
            }
        }
        self.out.relieve()?;
        if self.is_unsaved && self.file.is_some() && self.saved.elapsed() >= SAVE_INTERVAL {
            self.out.flush()?;
            self.save()?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn idle(&mut self) -> Result<Option<Duration>, Failure> {
        self.out.flush()?;
        if !self.is_unsaved || self.file.is_none() {
            return Ok(None);
        }
        let due = SAVE_INTERVAL.saturating_sub(self.saved.elapsed());
        if due.is_zero() || self.sources.iter().all(|source| source.is_live) {
            self.save()?;
            return Ok(None);
        }
        Ok(Some(due))
    }

    async fn ended(&mut self) -> Result<u8, Failure> {
        self.close()?;
        Ok(self.failed.unwrap_or_default())
    }

    async fn interrupted(&mut self) -> Result<u8, Failure> {
        self.close()?;
        if let Some(file) = self.it.resume() {
            let delivered = self.sources.first().map_or(0, |source| source.delivered);
            let words = self.it.words_with_file(delivered, &file.to_string_lossy());
            self.print_words(words);
        } else {
            let is_over = |source: &Source| source.is_over || self.it.is_limit(source.delivered);
            let open = self.sources.iter().enumerate().filter(|(_, source)| !is_over(source));
            open.for_each(|(n, _)| self.print_command(n));
        }
        Ok(INTERRUPTED)
    }
}

impl Reading {
    fn new(it: Lines, prefix: Vec<String>, format: Format) -> Result<Self, Failure> {
        let (file, entries) = match it.resume() {
            Some(file) => CursorFile::open(file, it.paths()).map(|(file, entries)| (Some(file), entries))?,
            None => (None, Vec::new()),
        };
        if let (false, Some(file)) = (entries.is_empty(), it.resume()) {
            output::note(&format!("continuing from {}", file.display()));
        }
        let source = |path: &String| Source {
            path: path.clone(),
            cursor: None,
            delivered: 0,
            printed: entries.iter().find(|(of, _)| of == path).map(|(_, cursor)| cursor.clone()),
            is_live: false,
            is_over: false,
        };
        let out = Output::new(format);
        Ok(Self {
            sources: it.paths().iter().map(source).collect(),
            printer: Printer::new(&it, &out),
            progress: Progress::new(it.paths().len(), it.follows(), it.until_offset()),
            connection: Connection::default(),
            it,
            prefix,
            out,
            file,
            is_unsaved: false,
            saved: Instant::now(),
            failed: None,
        })
    }

    fn open(&self, client: &Client) -> SelectAll<BoxStream<'static, Given>> {
        let open = |client: &Client, (n, source): &(usize, &Source)| {
            let n = *n;
            let client = client.clone().with_observer(self.connection.observer(n));
            let request = self.it.request(&source.path, source.printed.as_deref(), self.out.format);
            let responses = client.read_lines(request).responses();
            let end = stream::once(std::future::ready(None));
            responses.map(Some).chain(end).map(move |given| (n, given)).boxed()
        };
        let sources = self.sources.iter().enumerate().collect::<Vec<_>>();
        let open = |sources: &[(usize, &Source)]| {
            let client = client.apart();
            sources.iter().map(|source| open(&client, source)).collect::<Vec<_>>()
        };
        sources.chunks(MAX_STREAMS).flat_map(open).collect()
    }

    fn print(&mut self, n: usize, response: &ReadLinesResponse) -> Result<(), Failure> {
        self.printer.print(&mut self.out, n, response)?;
        self.progress.record(n, response);
        let Some(source) = self.sources.get_mut(n) else { return Ok(()) };
        let lines = i64::try_from(response.lines.len()).unwrap_or(i64::MAX);
        source.delivered = source.delivered.saturating_add(lines);
        source.cursor = Some(response.cursor.clone());
        source.is_live = response.caught_up;
        if !self.printer.holds(n) {
            source.printed.clone_from(&source.cursor);
            self.is_unsaved = true;
        }
        Ok(())
    }

    /// Saves the cursors. Call it only after a flush. It waits for the disk, so that no line is printed meanwhile.
    fn save(&mut self) -> Result<(), cursor_file::Error> {
        if let Some(file) = &mut self.file {
            let entries = self.sources.iter();
            file.save(entries.filter_map(|it| Some((it.path.as_str(), it.printed.as_deref()?))))?;
        }
        self.is_unsaved = false;
        self.saved = Instant::now();
        Ok(())
    }

    /// Prints the pieces that are held, flushes, and saves the cursors.
    fn close(&mut self) -> Result<(), Failure> {
        for (n, source) in self.sources.iter_mut().enumerate() {
            self.printer.finish(&mut self.out, n);
            source.printed = source.cursor.take().or(source.printed.take());
            source.cursor.clone_from(&source.printed);
        }
        self.out.flush()?;
        self.progress.hide();
        Ok(self.save()?)
    }

    fn stream_failed(&mut self, n: usize, error: &Error) -> Result<(), Failure> {
        self.printer.finish(&mut self.out, n);
        self.out.flush()?;
        let Some(source) = self.sources.get_mut(n) else { return Ok(()) };
        if source.cursor.is_some() {
            source.printed.clone_from(&source.cursor);
        }
        source.is_over = true;
        let path = source.path.clone();
        self.save()?;
        let is_of_all = matches!(error, Error::Unreachable { .. });
        let mut problem = Problem::call(error);
        if self.sources.len() > 1 && !is_of_all {
            problem = problem.about(&path);
        }
        if let Some(file) = self.it.resume().filter(|_| is_about_cursor(error)) {
            problem = problem.with_remedy(self.remedy(&path, file, error));
        }
        output::report(&problem);
        if self.it.resume().is_none() && can_resume(error) {
            self.print_command(n);
        }
        self.failed.get_or_insert(code_of(error));
        // The other streams would only repeat it.
        if is_of_all { Err(Failure::Reported(code_of(error))) } else { Ok(()) }
    }

    /// Prints commands that continue exactly. The file still holds the cursors of the last save, so that the next run
    /// with it would repeat lines.
    fn save_failed(&mut self, error: &cursor_file::Error) -> u8 {
        self.progress.hide();
        output::report(&Problem::local(error.to_string()));
        for n in 0..self.sources.len() {
            if let Some(source) = self.sources.get_mut(n).filter(|source| !source.is_over) {
                source.cursor.clone_from(&source.printed);
                self.print_command(n);
            }
        }
        1
    }

    /// How to continue when the server refuses a saved cursor.
    fn remedy(&self, path: &str, file: &Path, error: &Error) -> String {
        let file = file.display();
        let restart = if self.sources.len() > 1 {
            format!("delete the line of {path} in {file} to read it from its start")
        } else {
            format!("delete {file} to read from the start")
        };
        if error.has_reason(ErrorReason::CursorExpired) {
            format!("{restart}, or add --on-gap skip to continue after the gap")
        } else {
            restart
        }
    }

    /// Prints the command that resumes a file, if a response has arrived.
    fn print_command(&self, n: usize) {
        let source = self.sources.get(n);
        if let Some((source, cursor)) = source.and_then(|it| Some((it, it.cursor.as_ref()?))) {
            self.print_words(self.it.words(&source.path, source.delivered, cursor));
        }
    }

    fn print_words(&self, words: Vec<String>) {
        let words = self.prefix.iter().cloned().chain(words).collect::<Vec<_>>();
        output::line(&quote::command(&words));
    }
}

fn is_about_cursor(error: &Error) -> bool {
    [ErrorReason::CursorMalformed, ErrorReason::CursorMismatch, ErrorReason::CursorExpired]
        .into_iter()
        .any(|reason| error.has_reason(reason))
}
