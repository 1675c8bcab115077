//! `perennial lines`: prints files, each from a stream of its own, and keeps their cursors.
//!
//! Promises that a cursor is saved only after everything before it was written to stdout. So the next run after a kill
//! repeats some lines and loses no line. A stream that fails is reported and the others continue; the exit code is that
//! of the first failure.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
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
mod fleet;
mod names;
mod printer;
mod progress;
mod streams;

use cursor_file::CursorFile;
use fleet::Fleet;
use printer::Printer;
use progress::Progress;
use streams::{Given, Opener, Streams};

/// The time between two saves in bulk: each save waits for the disk.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// The most files for which a run prints the commands that continue them.
const MAX_COMMANDS: usize = 20;

/// Prints the files to their ends, an error, or Ctrl-C.
pub async fn read(
    client: &Client,
    it: Lines,
    prefix: Vec<String>,
    format: Format,
    stop: CancellationToken,
) -> Result<u8, Failure> {
    let (mut reading, streams) = Reading::new(client, it, prefix, format)?;
    reading.open();
    match session::run(&mut reading, streams, &stop).await {
        Err(Failure::Cursors(error)) => Ok(reading.save_failed(&error)),
        done => done,
    }
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Older lines are left.
    Reading,
    Live,
    /// The stream ended, or failed and that was reported.
    Over,
    /// The file is gone, and the stream is closed.
    Gone,
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
    phase: Phase,
    /// It is an argument, and not one that a glob matches.
    is_named: bool,
    /// The stream of files has reported that it is gone.
    is_leaving: bool,
    /// The stream of lines has reported that it is deleted: everything of it was delivered.
    is_deleted: bool,
    /// Closes the stream.
    stop: CancellationToken,
}

impl Source {
    fn new(path: String, printed: Option<String>, is_named: bool) -> Self {
        Self {
            path,
            cursor: None,
            delivered: 0,
            printed,
            phase: Phase::Reading,
            is_named,
            is_leaving: false,
            is_deleted: false,
            stop: CancellationToken::new(),
        }
    }

    fn go(&mut self) {
        self.stop.cancel();
        self.printed = self.cursor.clone().or(self.printed.take());
        self.phase = Phase::Gone;
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over | Phase::Gone)
    }

    fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    fn come_again(&mut self) {
        let (path, printed, delivered) = (self.path.clone(), self.printed.take(), self.delivered);
        *self = Self { delivered, ..Self::new(path, printed, self.is_named) };
    }
}

struct Reading {
    it: Lines,
    prefix: Vec<String>,
    sources: Vec<Source>,
    fleet: Fleet,
    opener: Opener,
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

    async fn received(&mut self, given: Given) -> Result<ControlFlow<u8>, Failure> {
        let (n, given) = match given {
            Given::Lines(n, given) => (n, given),
            Given::Files(given) => return self.files(given),
        };
        if !matches!(given, Some(Ok(_))) {
            self.connection.closed(n);
        }
        match given {
            Some(Ok(response)) => self.print(n, &response)?,
            Some(Err(error)) => self.stream_failed(n, &error)?,
            None => {
                self.printer.finish(&mut self.out, n);
                // It does not delay the next save.
                if let Some(source) = self.sources.get_mut(n) {
                    source.phase = Phase::Over;
                }
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
        if due.is_zero() || self.sources.iter().all(|source| source.phase != Phase::Reading) {
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
            self.print_commands();
        }
        Ok(INTERRUPTED)
    }
}

impl Reading {
    fn new(
        client: &Client,
        it: Lines,
        prefix: Vec<String>,
        format: Format,
    ) -> Result<(Self, Streams), Failure> {
        let (paths, has_globs) = (it.paths(), !it.globs().is_empty());
        let (file, entries) = match it.resume() {
            Some(file) => {
                CursorFile::open(file, &paths, has_globs).map(|(file, entries)| (Some(file), entries))?
            }
            None => (None, Vec::new()),
        };
        if let (false, Some(file)) = (entries.is_empty(), it.resume()) {
            output::note(&format!("continuing from {}", file.display()));
        }
        let mut saved = entries.into_iter().collect::<BTreeMap<_, _>>();
        let sources = paths.into_iter().map(|path| {
            let cursor = saved.remove(&path);
            Source::new(path, cursor, true)
        });
        let sources = sources.collect();
        let (out, connection) = (Output::new(format), Connection::default());
        let (opener, streams) = Opener::new(client, &connection, has_globs && !it.follows());
        let reading = Self {
            sources,
            fleet: Fleet::new(saved),
            opener,
            printer: Printer::new(&it, &out),
            progress: Progress::new(it.follows(), it.until_offset()),
            connection,
            it,
            prefix,
            out,
            file,
            is_unsaved: false,
            saved: Instant::now(),
            failed: None,
        };
        Ok((reading, streams))
    }

    fn open(&mut self) {
        let watch = self.it.watch_request();
        // Without --follow, files are read in turn once all are known.
        if watch.is_none() || self.it.follows() {
            let orders = (0..self.sources.len()).filter_map(|n| self.order(n, false)).collect();
            self.opener.open(orders);
        }
        match watch {
            Some(request) => self.opener.watch(request),
            None => self.opener.complete(),
        }
    }

    fn print(&mut self, n: usize, response: &ReadLinesResponse) -> Result<(), Failure> {
        self.printer.print(&mut self.out, n, response)?;
        self.progress.record(n, response);
        let Some(source) = self.sources.get_mut(n) else { return Ok(()) };
        let lines = i64::try_from(response.lines.len()).unwrap_or(i64::MAX);
        source.delivered = source.delivered.saturating_add(lines);
        source.cursor = Some(response.cursor.clone());
        source.phase = if response.caught_up { Phase::Live } else { Phase::Reading };
        if !self.printer.holds(n) {
            source.printed.clone_from(&source.cursor);
            self.is_unsaved = true;
        }
        self.track(n, response);
        Ok(())
    }

    /// Saves the cursors. Call it only after a flush. It waits for the disk, so that no line is printed meanwhile.
    fn save(&mut self) -> Result<(), cursor_file::Error> {
        if let Some(file) = &mut self.file {
            let entries = self.sources.iter().filter(|source| !source.is_gone());
            let entries = entries.filter_map(|it| Some((it.path.as_str(), it.printed.as_deref()?)));
            file.save(entries.chain(self.fleet.saved()))?;
        }
        self.is_unsaved = false;
        self.saved = Instant::now();
        Ok(())
    }

    /// Prints the pieces that are held, flushes, and saves the cursors.
    fn close(&mut self) -> Result<(), Failure> {
        for (n, source) in self.sources.iter_mut().enumerate().filter(|(_, source)| !source.is_gone()) {
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
        if self.went(n, error) {
            return Ok(());
        }
        let is_several = self.it.is_several();
        let Some(source) = self.sources.get_mut(n) else { return Ok(()) };
        if source.cursor.is_some() {
            source.printed.clone_from(&source.cursor);
        }
        let (path, is_gone) = (source.path.clone(), source.is_gone());
        if !is_gone {
            source.phase = Phase::Over;
        }
        self.save()?;
        let is_of_all = matches!(error, Error::Unreachable { .. });
        let mut problem = Problem::call(error);
        if is_several && !is_of_all {
            problem = problem.about(&path);
        }
        if is_gone {
            problem = problem.with_remedy("the file is gone: lines at its end may be lost".into());
        } else if let Some(file) = self.it.resume().filter(|_| is_about_cursor(error)) {
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
            if let Some(source) = self.sources.get_mut(n).filter(|source| !source.is_over()) {
                source.cursor.clone_from(&source.printed);
                self.print_command(n);
            }
        }
        1
    }

    /// How to continue when the server refuses a saved cursor.
    fn remedy(&self, path: &str, file: &Path, error: &Error) -> String {
        let file = file.display();
        let restart = if self.it.is_several() {
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

    /// Prints the commands that continue the files that are open.
    fn print_commands(&self) {
        let is_over = |source: &Source| source.is_over() || self.it.is_limit(source.delivered);
        let open = self.sources.iter().enumerate().filter(|(_, source)| !is_over(source));
        let open = open.map(|(n, _)| n).collect::<Vec<_>>();
        if open.len() > MAX_COMMANDS {
            let text = "files were read: with --resume FILE, the next run continues each of them";
            output::note(&format!("{} {text}", open.len()));
        } else {
            for n in open {
                self.print_command(n);
            }
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
