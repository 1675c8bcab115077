//! The files that match globs: which are read, and how long.
//!
//! Promises that a file which appears is read from its start, and that a file which goes is read to its end: its stream is
//! closed once the server has reported that it is deleted. A file that comes again continues where it was.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::ControlFlow,
};

use perennial::{
    client::Error,
    proto::{
        ErrorReason, ReadLinesResponse, WatchFilesResponse, file_change::Change, file_stream_event,
        line_stream_event::Event,
    },
};

use super::{Reading, Source, streams::Order};
use crate::{
    Failure, GRPC,
    output::{self, Problem},
};

/// What is known about the files that match.
#[derive(Default)]
pub struct Fleet {
    /// The files of a list that is not complete.
    listing: Option<BTreeSet<String>>,
    /// A list was complete.
    is_known: bool,
    /// The numbers of the streams of files that the globs match.
    numbers: HashMap<String, usize>,
    /// The numbers of streams whose files have gone, the oldest first. The streams keep their cursors.
    gone: VecDeque<usize>,
    /// Cursors of earlier runs for files that are not named.
    saved: BTreeMap<String, String>,
    /// There was such a cursor: a file without one is new.
    was_saved: bool,
}

impl Fleet {
    /// With cursors of earlier runs.
    pub fn new(saved: BTreeMap<String, String>) -> Self {
        let was_saved = !saved.is_empty();
        Self { listing: Some(BTreeSet::new()), saved, was_saved, ..Self::default() }
    }

    /// The cursors of files that are not known yet.
    pub fn saved(&self) -> impl Iterator<Item = (&str, &str)> {
        self.saved.iter().map(|(path, cursor)| (path.as_str(), cursor.as_str()))
    }
}

impl Reading {
    /// Takes what the stream of files yielded.
    pub(super) fn files(
        &mut self,
        given: Option<Result<WatchFilesResponse, Error>>,
    ) -> Result<ControlFlow<u8>, Failure> {
        match given {
            Some(Ok(response)) => self.changed(response),
            Some(Err(error)) => {
                self.opener.watch_ended();
                self.close()?;
                output::report(&Problem::call(&error));
                self.print_commands();
                Ok(ControlFlow::Break(crate::code_of(&error)))
            }
            None => {
                self.opener.watch_ended();
                self.opener.complete();
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    fn changed(&mut self, response: WatchFilesResponse) -> Result<ControlFlow<u8>, Failure> {
        for event in response.events {
            if let Some(file_stream_event::Event::Relisted(_)) = event.event {
                self.fleet.listing = Some(BTreeSet::new());
            }
        }
        let mut new = Vec::new();
        for change in response.changes.into_iter().filter_map(|it| it.change) {
            match (change, &mut self.fleet.listing) {
                (Change::Added(file), Some(listing)) => drop(listing.insert(file.path)),
                (Change::Removed(file), Some(listing)) => drop(listing.remove(&file.path)),
                (Change::Added(file), None) => new.push(file.path),
                (Change::Removed(file), None) => self.disappear(&file.path),
            }
        }
        if response.caught_up
            && let Some(listing) = self.fleet.listing.take()
        {
            return self.listed(listing);
        }
        if new.is_empty() { Ok(ControlFlow::Continue(())) } else { self.appear(new) }
    }

    /// Takes a complete list.
    fn listed(&mut self, listing: BTreeSet<String>) -> Result<ControlFlow<u8>, Failure> {
        if self.fleet.is_known {
            let known = self.fleet.numbers.keys().filter(|path| !listing.contains(*path)).cloned();
            for path in known.collect::<Vec<_>>() {
                self.disappear(&path);
            }
            return self.appear(listing.into_iter().collect());
        }
        let mut all = listing.clone();
        all.extend(self.fleet.saved.keys().cloned());
        if all.is_empty() {
            let globs = self.it.globs().join(" or ");
            if self.it.waits() {
                output::note(&format!("no file matches {globs} yet: waiting"));
            } else {
                let text = format!("no file matches {globs}");
                output::report(
                    &Problem::missing(text).with_remedy("`perennial files` lists the files".into()),
                );
                self.failed = Some(GRPC + 5);
                if self.sources.is_empty() {
                    return Ok(ControlFlow::Break(GRPC + 5));
                }
            }
        }
        self.opener.be_patient();
        if let ControlFlow::Break(code) = self.appear(all.into_iter().collect())? {
            return Ok(ControlFlow::Break(code));
        }
        self.fleet.is_known = true;
        // The server may still find a file that has gone, under another name.
        let gone = self.fleet.numbers.iter().filter(|(path, _)| !listing.contains(*path));
        for n in gone.map(|(_, n)| *n).collect::<Vec<_>>() {
            self.sources.get_mut(n).into_iter().for_each(|source| source.is_leaving = true);
        }
        if !self.it.follows() {
            self.opener.complete();
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads files that match.
    fn appear(&mut self, paths: Vec<String>) -> Result<ControlFlow<u8>, Failure> {
        let mut opened = Vec::new();
        let named = self.it.paths();
        for path in paths.into_iter().filter(|path| !named.contains(path)) {
            if let Some(n) = self.fleet.numbers.get(&path).copied() {
                let Some(source) = self.sources.get_mut(n) else { continue };
                source.is_leaving = false;
                if source.is_gone() {
                    source.come_again();
                    self.fleet.gone.retain(|gone| *gone != n);
                    opened.push(n);
                }
            } else {
                let cursor = self.fleet.saved.remove(&path);
                let n = self.place(Source::new(path.clone(), cursor, false));
                self.fleet.numbers.insert(path, n);
                opened.push(n);
            }
        }
        let reads = self.fleet.numbers.len() - self.fleet.gone.len();
        if reads > self.it.max_files() {
            return self.too_many();
        }
        if !opened.is_empty() {
            let paths = self.sources.iter().map(|source| source.path.clone()).collect::<Vec<_>>();
            self.printer.name(&self.out, &paths);
        }
        let is_new = self.fleet.is_known || self.fleet.was_saved;
        // Without --follow, all files are read in turn, and those that are named first.
        let named = if self.it.follows() { 0 } else { named.len() };
        let orders = (0..named).filter_map(|n| self.order(n, false)).collect::<Vec<_>>();
        let orders = orders.into_iter().chain(opened.into_iter().filter_map(|n| self.order(n, is_new)));
        let orders = orders.collect();
        self.opener.open(orders);
        Ok(ControlFlow::Continue(()))
    }

    fn too_many(&mut self) -> Result<ControlFlow<u8>, Failure> {
        // Those that were not opened have nothing to save.
        self.close()?;
        let (globs, max) = (self.it.globs().join(" or "), self.it.max_files());
        let text = format!("more than {max} files match {globs}");
        let remedy = "write globs that match fewer files, or raise --max-files".to_owned();
        output::report(&Problem::usage(text, Some("--max-files".into())).with_remedy(remedy));
        self.print_commands();
        Ok(ControlFlow::Break(crate::USAGE))
    }

    /// A place for a stream: that of the file that has been gone for longest if there are many.
    fn place(&mut self, source: Source) -> usize {
        if self.fleet.gone.len() > self.it.max_files()
            && let Some(n) = self.fleet.gone.pop_front()
            && let Some(old) = self.sources.get_mut(n)
        {
            self.fleet.numbers.remove(&old.path);
            *old = source;
            return n;
        }
        self.sources.push(source);
        self.sources.len() - 1
    }

    /// What opens a stream.
    pub(super) fn order(&self, n: usize, is_new: bool) -> Option<Order> {
        let source = self.sources.get(n)?;
        let (cursor, format) = (source.printed.as_deref(), self.out.format);
        let mut request = if is_new {
            self.it.request_of_new(&source.path, cursor, format)
        } else {
            self.it.request(&source.path, cursor, format)
        };
        // The stream of files reports when it is there.
        request.wait_for_create &= source.is_named;
        Some(Order { n, request, stop: source.stop.clone() })
    }

    /// A file does not match any more, or is gone.
    fn disappear(&mut self, path: &str) {
        let Some(n) = self.fleet.numbers.get(path).copied() else { return };
        let Some(source) = self.sources.get_mut(n).filter(|source| !source.is_gone()) else { return };
        source.is_leaving = true;
        if source.is_deleted || source.is_over() {
            self.retire(n);
        }
    }

    /// Closes the stream of a file that is gone, if everything of it was printed.
    pub(super) fn track(&mut self, n: usize, response: &ReadLinesResponse) {
        let Some(source) = self.sources.get_mut(n) else { return };
        for event in response.events.iter().filter_map(|it| it.event.as_ref()) {
            match event {
                Event::Deleted(_) => source.is_deleted = true,
                Event::Opened(_) | Event::Rotated(_) | Event::Truncated(_) => source.is_deleted = false,
                Event::Resumed(_) | Event::Gap(_) | Event::Late(_) | Event::Hole(_) => {}
            }
        }
        if source.is_leaving && source.is_deleted {
            self.retire(n);
        }
    }

    /// Whether the failure of a stream is that its file has gone, with nothing of it that was not printed.
    pub(super) fn went(&mut self, n: usize, error: &Error) -> bool {
        let Some(source) = self.sources.get(n) else { return false };
        let is_missing = error.has_reason(ErrorReason::FileNotFound)
            || source.is_leaving && error.has_reason(ErrorReason::CursorExpired);
        if source.is_named || !is_missing {
            return false;
        }
        let (is_unread, is_read) = (source.cursor.is_none() && source.printed.is_none(), source.is_deleted);
        if is_unread {
            output::note(&format!("{}: went before it was read", source.path));
        }
        // The cursor of a file that is lost would be an error in each run to come.
        self.retire(n);
        is_unread || is_read
    }

    fn retire(&mut self, n: usize) {
        self.connection.closed(n);
        self.printer.finish(&mut self.out, n);
        if let Some(source) = self.sources.get_mut(n) {
            source.go();
            self.fleet.gone.push_back(n);
            self.is_unsaved = true;
        }
    }
}
