//! Finds the file and the position where a reader starts: in the file at the path, or where another reader stopped, under
//! whatever name that file has now. Everything here blocks.

use std::{
    fs::File,
    io,
    sync::{Arc, atomic::AtomicBool},
};

use super::locate;
use crate::lines::{
    Error, Event, Found, GapReason, Inner, OnGap, PARTIAL_FLUSHES, Position, Query, Start,
    content::{checkpoint::Checkpoint, position::HEAD, pread::despite_truncation},
    history::{generation::Generation, rotation::Rotation, siblings},
    identity::Identity,
    root::{FilePath, Parent},
    watch::Follow,
};

/// Where a reader starts, and what happened before.
#[derive(Debug)]
pub struct Opened {
    /// Reports changes, for a stream that follows.
    pub follow: Option<Follow>,
    /// Which file it is in.
    pub rotation: Rotation,
    /// Where in it.
    pub checkpoint: Checkpoint,
    /// See [`Position::directory`].
    pub directory: Option<u32>,
    /// No line before this number is wanted.
    pub skip_to: Option<u64>,
    /// The events of the first batch.
    pub events: Vec<Event>,
    /// There is no file yet.
    pub waits_for_file: bool,
}

/// Checks a query as far as that is possible without the file.
pub fn check(query: &Query, path: &FilePath) -> Result<(), Error> {
    if query.wait_for_create && !query.follow {
        return Err(Error::NeedsFollow { field: "wait_for_create" });
    }
    if let Some(pause) = query.partial_flush {
        if !query.follow {
            return Err(Error::NeedsFollow { field: "partial_flush" });
        }
        if !PARTIAL_FLUSHES.contains(&pause) {
            return Err(Error::PartialFlush { pause });
        }
    }
    if query.rules.until_line == Some(0) {
        return Err(Error::LineZero { field: "until_line" });
    }
    let counts = match &query.start {
        Start::Line(0) => return Err(Error::LineZero { field: "from_line" }),
        Start::Resume(position) if position.path != path.checksum() => return Err(Error::Mismatch),
        Start::Resume(position) if !position.is_sound() => return Err(Error::PositionInvalid),
        Start::Resume(position) => position.checkpoint.line.number.is_some(),
        Start::Head | Start::Line(_) => true,
        Start::Offset(offset) => *offset == 0,
        Start::Last(_) => false,
    };
    if query.rules.until_line.is_some() && !counts {
        return Err(Error::NumbersUnknown);
    }
    Ok(())
}

/// Finds the file and the place.
pub fn open(inner: &Arc<Inner>, query: &Query, path: &FilePath, gone: &AtomicBool) -> Result<Opened, Error> {
    // Watched before anything is read, so that nothing is written unnoticed in between.
    let follow = query.follow.then(|| inner.watches.follow(path)).transpose();
    let follow = follow.map_err(|error| Error::of_open(error, &query.path))?;
    let skip_to = match &query.start {
        Start::Line(number) => Some(*number).filter(|number| *number > 1),
        Start::Resume(position) => position.skip_to,
        _ => None,
    };
    let directory = inner.roots.parent(path).and_then(|parent| parent.checksum()).ok();
    let opener = Opener { inner, query, path, directory, follow };
    match &query.start {
        Start::Resume(position) => opener.resume(position, skip_to),
        start => opener.begin(start, skip_to, gone),
    }
}

struct Opener<'a> {
    inner: &'a Inner,
    query: &'a Query,
    path: &'a FilePath,
    directory: Option<u32>,
    follow: Option<Follow>,
}

impl Opener<'_> {
    fn begin(self, start: &Start, skip_to: Option<u64>, gone: &AtomicBool) -> Result<Opened, Error> {
        let rotation = match self.at_path() {
            Ok(rotation) => rotation,
            Err(Error::NotFound { .. }) if self.query.wait_for_create && self.inner.roots.has(self.path) => {
                return Ok(self.wait(Identity::default(), Checkpoint::start(), Vec::new()));
            }
            Err(error) => return Err(error),
        };
        let Some(file) = rotation.file() else { return Err(self.not_found()) };
        let delimiter = &self.query.rules.delimiter;
        let stand = || {
            let position = match start {
                Start::Last(count) => Some(locate::last(file, *count, delimiter, gone)?),
                // The reader itself counts on from here: the line may not be written yet.
                Start::Head | Start::Line(_) | Start::Resume(_) => Some(HEAD),
                Start::Offset(offset) => locate::offset(file, *offset, delimiter, gone)?,
            };
            position.map(|position| Checkpoint::at(file, position)).transpose()
        };
        let Some(checkpoint) = despite_truncation(stand)? else {
            let Start::Offset(offset) = *start else { return Err(self.not_found()) };
            return Err(Error::OffsetBeyondEnd { offset, size: file.metadata()?.len() });
        };
        Ok(Opened {
            follow: self.follow,
            rotation,
            checkpoint,
            directory: self.directory,
            skip_to,
            events: Vec::new(),
            waits_for_file: false,
        })
    }

    /// At the file that is at the path.
    fn at_path(&self) -> Result<Rotation, Error> {
        let last = self.follow.as_ref().map(Follow::last).filter(|last| last.left().is_none());
        // Unless it was left just now.
        if let Some(rotation) = last.map(Rotation::generation).filter(|rotation| rotation.file().is_some()) {
            return Ok(rotation);
        }
        let open = || self.inner.roots.parent(self.path)?.open(&self.path.name);
        let file = open().map_err(|error| Error::of_open(error, &self.query.path))?;
        match self.follow.as_ref().map(Follow::last) {
            // It has just come, and is found again as the next one.
            Some(last) => Ok(Rotation::old(file, Some(last))?),
            None => Ok(Rotation::path(file)?),
        }
    }

    fn not_found(&self) -> Error {
        Error::NotFound { path: self.query.path.clone() }
    }

    /// Nothing is there: what comes is read from its start, unless it is the file that the reader stood in.
    fn wait(self, identity: Identity, checkpoint: Checkpoint, events: Vec<Event>) -> Opened {
        let last = self.follow.as_ref().map_or_else(|| Generation::none(0), Follow::last);
        Opened {
            follow: self.follow,
            rotation: Rotation::nothing(last, identity),
            checkpoint,
            directory: self.directory,
            skip_to: None,
            events,
            waits_for_file: true,
        }
    }

    fn resume(self, position: &Position, skip_to: Option<u64>) -> Result<Opened, Error> {
        let mut opened = self.resume_at(position, skip_to)?;
        opened.rotation.remember(position.resume_at);
        Ok(opened)
    }

    fn resume_at(self, position: &Position, skip_to: Option<u64>) -> Result<Opened, Error> {
        let checkpoint = position.checkpoint;
        let looked = siblings::again(|| self.look(position))?;
        let (rotation, checkpoint, events) = match looked {
            Some(Looked::Exact(rotation)) => (rotation, checkpoint, vec![Event::Resumed(Found::Exact)]),
            Some(Looked::Moved(rotation)) => (rotation, checkpoint, vec![Event::Resumed(Found::Moved)]),
            Some(Looked::Truncated(rotation, size)) => {
                let read_offset = checkpoint.line.offset;
                let truncated = Event::Truncated { read_offset, size };
                (rotation, Checkpoint::start(), vec![Event::Resumed(Found::Truncated), truncated])
            }
            None if position.deleted => return self.resume_after_deleted(position),
            None if self.query.on_gap == OnGap::Fail => return Err(Error::Expired),
            None => {
                let gap = Event::Gap { reason: GapReason::Expired, bytes: None };
                let events = vec![Event::Resumed(Found::Lost), gap];
                match self.at_path() {
                    Ok(rotation) => (rotation, Checkpoint::start(), events),
                    Err(Error::NotFound { .. }) if self.follow.is_some() => {
                        return Ok(self.wait(Identity::default(), Checkpoint::start(), events));
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let Self { follow, directory, .. } = self;
        Ok(Opened { follow, rotation, checkpoint, directory, skip_to, events, waits_for_file: false })
    }

    /// All of a file was delivered and it was gone: what is at the path now, or will be, comes next.
    fn resume_after_deleted(self, position: &Position) -> Result<Opened, Error> {
        let resumed = Event::Resumed(Found::Exact);
        match self.at_path() {
            Ok(rotation) => {
                let size =
                    rotation.file().map_or(Ok(0), |file| file.metadata().map(|metadata| metadata.len()))?;
                let events = vec![resumed, Event::Opened { size }];
                let Self { follow, directory, .. } = self;
                let checkpoint = Checkpoint::start();
                Ok(Opened {
                    follow,
                    rotation,
                    checkpoint,
                    directory,
                    skip_to: None,
                    events,
                    waits_for_file: false,
                })
            }
            Err(Error::NotFound { .. }) => {
                Ok(self.wait(position.identity, position.checkpoint, vec![resumed]))
            }
            Err(error) => Err(error),
        }
    }

    /// Looks for what a position points at, at the path first.
    fn look(&self, position: &Position) -> io::Result<Option<Looked>> {
        let Position { identity, checkpoint, .. } = position;
        let Ok(parent) = self.inner.roots.parent(self.path) else { return Ok(None) };
        let current = parent.open(&self.path.name).ok();
        if let Some(file) = current {
            if Identity::of(&file.metadata()?).is_same(identity) {
                return if checkpoint.is_prefix_of(&file)? {
                    Ok(Some(Looked::Exact(self.rotation_of(file, true)?)))
                } else {
                    let size = file.metadata()?.len();
                    Ok(Some(Looked::Truncated(self.rotation_of(file, true)?, size)))
                };
            }
            if let Some(old) = self.find(&parent, position)? {
                return Ok(Some(Looked::Moved(self.rotation_of(old, false)?)));
            }
            if checkpoint.is_proof() && checkpoint.is_prefix_of(&file)? {
                return Ok(Some(Looked::Moved(self.rotation_of(file, true)?)));
            }
        } else if let Some(old) = self.find(&parent, position)? {
            return Ok(Some(Looked::Moved(self.rotation_of(old, false)?)));
        }
        self.find_truncated(&parent, position)
    }

    /// The file that a position is in, if it was truncated first and then renamed. Only its birth can prove that it is the
    /// same file.
    fn find_truncated(&self, parent: &Parent, position: &Position) -> io::Result<Option<Looked>> {
        let wanted = &position.identity;
        let is_it = |found: &Identity, _: &File| Ok(wanted.birth() != 0 && found.is_same(wanted));
        let Some(file) = siblings::find(parent, &self.path.name, wanted.inode(), is_it)? else {
            return Ok(None);
        };
        let size = file.metadata()?.len();
        Ok(Some(Looked::Truncated(self.rotation_of(file, false)?, size)))
    }

    /// The file that a position is in, under any name that begins with its own.
    fn find(&self, parent: &Parent, position: &Position) -> io::Result<Option<File>> {
        let wanted = &position.identity;
        siblings::find(parent, &self.path.name, wanted.inode(), |found, file| {
            Ok(found.is_same(wanted) && position.checkpoint.is_prefix_of(file)?)
        })
    }

    fn rotation_of(&self, file: File, is_at_path: bool) -> io::Result<Rotation> {
        let last = self.follow.as_ref().map(Follow::last);
        let identity = Identity::of(&file.metadata()?);
        match last {
            Some(last) if last.identity == identity => Ok(Rotation::opened(last, file)),
            None if is_at_path => Rotation::path(file),
            last => Rotation::old(file, last),
        }
    }
}

/// What was found where a position points.
enum Looked {
    Exact(Rotation),
    Moved(Rotation),
    Truncated(Rotation, u64),
}
