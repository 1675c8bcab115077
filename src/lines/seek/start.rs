//! Finds the file and the position where a reader starts: in the file at the path, or where another reader stopped, under
//! whatever name that file has now. Everything here blocks.

use std::{
    fs::File,
    io,
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    sync::{Arc, atomic::AtomicBool},
    time::SystemTime,
};

use super::{last_admitted::LastAdmitted, locate};
use crate::{
    blocking::Pool,
    lines::{
        Error, Event, Found, GapReason, Inner, OnGap, PARTIAL_FLUSHES, Position, Query, Start,
        content::{checkpoint::Checkpoint, position::HEAD, pread::despite_truncation},
        history::{
            archived,
            generation::Generation,
            rotation::{Openers, Rotation, oldest},
            search, siblings,
        },
        identity::Identity,
        reader::late::{LATE_WINDOW, Left},
        root::{FilePath, places::Place},
        watch::Follow,
    },
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
    /// Files that were left, to be checked for lines that were written to them since.
    pub late: Vec<Left>,
    /// The events of the first batch.
    pub events: Vec<Event>,
    /// There is no file yet.
    pub waits_for_file: bool,
    /// Finds the checkpoint, which is not known yet.
    search: Option<LastAdmitted>,
}

impl Opened {
    /// Does the search that the start needs, which may go through the whole file. Each step waits for its turn as a read
    /// does, so that other streams of the connection have theirs in between.
    pub async fn search(mut self, pool: &Pool) -> Result<Self, Error> {
        while let Some(mut search) = self.search.take() {
            let step = move || (search.step(), search);
            match pool.run(step).await? {
                (ControlFlow::Continue(()), search) => self.search = Some(search),
                (ControlFlow::Break(found), _) => self.checkpoint = found?,
            }
        }
        Ok(self)
    }
}

/// Checks a query as far as that is possible without the file.
pub fn check(query: &Query, path: &FilePath) -> Result<(), Error> {
    if query.wait_for_create && !query.follow {
        return Err(Error::NeedsFollow { field: "wait_for_create" });
    }
    if let Some(field) = field_of_one_file(query) {
        return Err(Error::NotInHistory { field });
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
        Start::Resume(position) if position.compressed.is_some() && !query.history => {
            return Err(Error::NeedsHistory);
        }
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

/// A field that is of one file, in a query for the whole history.
fn field_of_one_file(query: &Query) -> Option<&'static str> {
    if !query.history {
        return None;
    }
    match query.start {
        Start::Last(_) => Some("last"),
        Start::Line(_) => Some("from_line"),
        Start::Offset(_) => Some("from_offset"),
        Start::Head | Start::Resume(_) if query.rules.until_line.is_some() => Some("until_line"),
        Start::Head | Start::Resume(_) => query.rules.until_offset.map(|_| "until_offset"),
    }
}

/// Finds the file and the place.
pub fn open(
    inner: &Arc<Inner>,
    query: &Query,
    path: &FilePath,
    gone: &Arc<AtomicBool>,
) -> Result<Opened, Error> {
    inner.roots.check_home(path);
    // Watched before anything is read, so that nothing is written unnoticed in between.
    let follow = query.follow.then(|| inner.watches.follow(path)).transpose();
    let follow = follow.map_err(|error| Error::of_open(error, &query.path))?;
    let skip_to = match &query.start {
        Start::Line(number) => Some(*number).filter(|number| *number > 1),
        Start::Resume(position) => position.skip_to,
        _ => None,
    };
    let directory = inner.roots.parent(path).and_then(|parent| parent.checksum()).ok();
    let openers = query.history.then(|| Openers { archives: inner.archives.clone(), gone: gone.clone() });
    let opener = Opener { inner, query, path, directory, follow, openers };
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
    /// For a reader of the whole history.
    openers: Option<Openers>,
}

impl Opener<'_> {
    fn begin(self, start: &Start, skip_to: Option<u64>, gone: &Arc<AtomicBool>) -> Result<Opened, Error> {
        let mut events = Vec::new();
        // Asked for once: what comes to the path after it is read after it.
        let joined = self.follow.as_ref().map(Follow::last);
        if let Some(openers) = &self.openers {
            let (oldest, skipped) = oldest(&self.inner.roots, self.path, joined.as_ref(), openers)?;
            events = skipped;
            if let Some(oldest) = oldest {
                return Ok(self.opened(oldest, Checkpoint::start(), skip_to, events));
            }
        }
        let rotation = match self.at_path_after(joined.clone()) {
            Ok(rotation) => rotation,
            Err(Error::NotFound { .. }) if self.query.wait_for_create && self.inner.roots.has(self.path) => {
                let opened = self.wait(Identity::default(), Checkpoint::start(), events);
                let nothing = joined.map(|joined| Rotation::nothing(joined, Identity::default()));
                return Ok(Opened { rotation: nothing.unwrap_or(opened.rotation), ..opened });
            }
            Err(error) => return Err(error),
        };
        let Some(file) = rotation.file() else { return Err(self.not_found()) };
        let rules = &self.query.rules;
        let delimiter = &rules.delimiter;
        if let Start::Last(count) = *start
            && count > 0
            && rules.filter.is_some()
        {
            let search = LastAdmitted::new(file.clone(), count, rules.clone(), gone.clone());
            let opened = self.opened(rotation, Checkpoint::start(), skip_to, Vec::new());
            return Ok(Opened { search: Some(search), ..opened });
        }
        let stand = || {
            let position = match start {
                Start::Last(count) => Some(locate::last(file, *count, delimiter, gone)?),
                // The reader itself counts on from here: the line may not be written yet.
                Start::Head | Start::Line(_) | Start::Resume(_) => Some(HEAD),
                Start::Offset(offset) => locate::offset(file, *offset, delimiter, gone)?,
            };
            position.map(|position| Checkpoint::at(&**file, position)).transpose()
        };
        let Some(checkpoint) = despite_truncation(stand)? else {
            let Start::Offset(offset) = *start else { return Err(self.not_found()) };
            return Err(Error::OffsetBeyondEnd { offset, size: file.metadata()?.len() });
        };
        Ok(self.opened(rotation, checkpoint, skip_to, events))
    }

    /// At the file that is at the path.
    fn at_path(&self) -> Result<Rotation, Error> {
        self.at_path_after(self.follow.as_ref().map(Follow::last))
    }

    /// The same, where this was the last file of the chain.
    fn at_path_after(&self, last: Option<Arc<Generation>>) -> Result<Rotation, Error> {
        let here = last.clone().filter(|last| last.left().is_none());
        // Unless it was left just now.
        if let Some(rotation) = here.map(Rotation::generation).filter(|rotation| rotation.file().is_some()) {
            return Ok(rotation);
        }
        let open = || self.inner.roots.parent(self.path)?.open(&self.path.name);
        let file = open().map_err(|error| Error::of_open(error, &self.query.path))?;
        match last {
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
            late: Vec::new(),
            events,
            waits_for_file: true,
            search: None,
        }
    }

    fn resume(self, position: &Position, skip_to: Option<u64>) -> Result<Opened, Error> {
        let (places, relinked) = (self.inner.roots.places(self.path), self.inner.roots.relinked(self.path));
        let mut opened = self.resume_at(position, skip_to)?;
        opened.rotation.remember_older(position.late);
        opened.rotation.remember(position.resume_at);
        let last = position.late.map(|left| (left, false));
        // Where late lines were read, it is the file that is read on.
        let is_left = |(identity, _): &(Identity, Checkpoint)| *identity != opened.rotation.identity();
        let linked = position.resume_at.filter(is_left).map(|left| (left, true));
        for ((identity, checkpoint), is_linked) in [last, linked].into_iter().flatten() {
            let Some(left) = left_file(&places, identity, checkpoint, is_linked)? else { continue };
            if !is_linked || relinked.is_some_and(|since| is_written_soon(&left.file, since)) {
                opened.late.push(left);
            }
        }
        Ok(opened)
    }

    fn resume_at(self, position: &Position, skip_to: Option<u64>) -> Result<Opened, Error> {
        let checkpoint = position.checkpoint;
        let may_change = || !self.inner.roots.places(self.path).iter().all(|place| place.is_settled());
        let looked =
            siblings::again(|| self.look(position, &self.inner.roots.places(self.path)), may_change)?;
        let (rotation, checkpoint, events) = match looked {
            Some(Looked::Exact(rotation)) => (rotation, checkpoint, vec![Event::Resumed(Found::Exact)]),
            Some(Looked::Moved(rotation)) => (rotation, checkpoint, vec![Event::Resumed(Found::Moved)]),
            Some(Looked::Truncated(rotation, size)) => {
                let read_offset = checkpoint.line.offset;
                let mut events = vec![Event::Resumed(Found::Truncated)];
                let unread = position.size.saturating_sub(read_offset);
                if unread > 0 {
                    events.push(Event::Gap { reason: GapReason::Truncated, bytes: Some(unread) });
                }
                events.push(Event::Truncated { read_offset, size });
                (rotation, Checkpoint::start(), events)
            }
            None if self.may_not_read(position) => return Err(self.not_found()),
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
        let events = with_cut_off(events, &rotation, position)?;
        Ok(self.opened(rotation, checkpoint, skip_to, events))
    }

    fn opened(
        self,
        rotation: Rotation,
        checkpoint: Checkpoint,
        skip_to: Option<u64>,
        events: Vec<Event>,
    ) -> Opened {
        let Self { follow, directory, .. } = self;
        let (late, waits_for_file, search) = (Vec::new(), false, None);
        Opened { follow, rotation, checkpoint, directory, skip_to, late, events, waits_for_file, search }
    }

    /// All of a file was delivered and it was gone: what is at the path now, or will be, comes next. Others that were there
    /// in between are a gap.
    fn resume_after_deleted(self, position: &Position) -> Result<Opened, Error> {
        let mut events = vec![Event::Resumed(Found::Exact)];
        let has_birth = position.identity.birth() != 0;
        let path = self.inner.roots.places(self.path).into_iter().next().filter(|_| has_birth);
        if let Some(path) = path
            && search::are_left(&path, position.identity, position.written)?
        {
            events.push(Event::Gap { reason: GapReason::Deleted, bytes: None });
        }
        match self.at_path() {
            Ok(rotation) => {
                let size =
                    rotation.file().map_or(Ok(0), |file| file.metadata().map(|metadata| metadata.len()))?;
                events.push(Event::Opened { size });
                Ok(self.opened(rotation, Checkpoint::start(), None, events))
            }
            Err(Error::NotFound { .. }) => Ok(self.wait(position.identity, position.checkpoint, events)),
            Err(error) => Err(error),
        }
    }

    /// Looks for what a position points at, at the path first.
    fn look(&self, position: &Position, places: &[Arc<Place>]) -> io::Result<Option<Looked>> {
        let Position { identity, checkpoint, .. } = position;
        if let Some(openers) = self.openers.as_ref().filter(|_| position.compressed.is_some()) {
            let joined = self.follow.as_ref().map(Follow::last);
            let found = archived::of_archive(places, position, joined.as_ref(), openers)?;
            return Ok(found.map(
                |(is_same, rotation)| {
                    if is_same { Looked::Exact(rotation) } else { Looked::Moved(rotation) }
                },
            ));
        }
        let current = places.first().and_then(|path| path.open(&path.name).ok());
        if let Some(file) = &current
            && Identity::of(&file.metadata()?).is_same(identity)
        {
            let (size, rotation) = (file.metadata()?.len(), self.rotation_of(file.try_clone()?, true)?);
            let is_proven = checkpoint.is_prefix_of(file)?;
            if is_proven {
                return Ok(Some(Looked::Exact(rotation)));
            }
            let copy = search::copy_of(places, position, &file.metadata()?)?;
            let joined = self.follow.as_ref().map(Follow::last);
            return Ok(Some(match copy {
                Some(copy) => Looked::Moved(Rotation::copy(copy, joined)?),
                None => Looked::Truncated(rotation, size),
            }));
        }
        if let Some(rotation) = self.find_open(position)? {
            return Ok(Some(Looked::Moved(rotation)));
        }
        match search::by_identity(places, identity, checkpoint)? {
            Some(search::Found::Proven(file)) if position.is_copy => {
                let joined = self.follow.as_ref().map(Follow::last);
                return Ok(Some(Looked::Moved(Rotation::copy(file, joined)?)));
            }
            Some(search::Found::Proven(file)) => {
                return Ok(Some(Looked::Moved(self.rotation_of(file, false)?)));
            }
            Some(search::Found::Rewritten(file)) => {
                let size = file.metadata()?.len();
                return Ok(Some(Looked::Truncated(self.rotation_of(file, false)?, size)));
            }
            None => {}
        }
        let is_proof = checkpoint.is_proof();
        if self.is_copied(position) {
            let Some(file) = search::by_content(&self.inner.heads, places, checkpoint)? else {
                return Ok(None);
            };
            let is_current = match &current {
                Some(current) => Identity::of(&current.metadata()?) == Identity::of(&file.metadata()?),
                None => false,
            };
            return Ok(Some(Looked::Moved(self.rotation_of(file, is_current)?)));
        }
        if let Some(openers) = &self.openers {
            let joined = self.follow.as_ref().map(Follow::last);
            if let Some(rotation) = archived::of_file(places, position, joined.as_ref(), openers)? {
                return Ok(Some(Looked::Moved(rotation)));
            }
        }
        match current {
            Some(file) if is_proof && checkpoint.is_prefix_of(&file)? => {
                Ok(Some(Looked::Moved(self.rotation_of(file, true)?)))
            }
            _ => Ok(None),
        }
    }

    /// Whether the file of a position is at the path, and the server has no permission to read it. It is not gone, and a later
    /// resume can continue in it.
    fn may_not_read(&self, position: &Position) -> bool {
        let Ok(parent) = self.inner.roots.parent(self.path) else { return false };
        let opened = parent.open(&self.path.name);
        let is_refused = opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        let found = parent.stat(&self.path.name).filter(|_| is_refused);
        found.is_some_and(|found| found.identity.is_same(&position.identity))
    }

    /// Whether the directory of the path is another one than that of the position: then its files may be copies. In the same
    /// directory, only the file at the path may replace the one that was read, and all others with the same lines are
    /// other logs.
    fn is_copied(&self, position: &Position) -> bool {
        position.directory.is_some() && self.directory.is_some() && position.directory != self.directory
    }

    /// The file that a position is in, if this process saw it renamed away from the path, and other readers are still in it.
    fn find_open(&self, position: &Position) -> io::Result<Option<Rotation>> {
        let generation = self.follow.as_ref().and_then(|follow| follow.find(&position.identity));
        let found = generation.and_then(|generation| Some((generation.file()?, generation)));
        let Some((file, generation)) = found else { return Ok(None) };
        if position.deleted && file.metadata()?.nlink() == 0 {
            return Ok(None);
        }
        let is_own = !self.inner.is_foreign(self.path, &file);
        Ok((is_own && position.checkpoint.is_prefix_of(&*file)?).then(|| Rotation::generation(generation)))
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

/// Adds the loss of text that was seen after the checkpoint, and is in the file no longer.
fn with_cut_off(mut events: Vec<Event>, rotation: &Rotation, position: &Position) -> io::Result<Vec<Event>> {
    let is_found = matches!(events.first(), Some(Event::Resumed(Found::Exact | Found::Moved)));
    let is_plain = !rotation.is_remote() && rotation.archive().is_none();
    let Some(file) = rotation.file().filter(|_| is_found && is_plain) else { return Ok(events) };
    // It may have been truncated since it was found; then what was read is not missing.
    let kept = file.metadata()?.len().max(position.checkpoint.line.offset);
    let bytes = position.size.saturating_sub(kept);
    if bytes > 0 {
        events.push(Event::Gap { reason: GapReason::Truncated, bytes: Some(bytes) });
    }
    Ok(events)
}

/// Whether the last write to a file is no later than that of a late writer, after a link was pointed to another file.
fn is_written_soon(file: &File, since: SystemTime) -> bool {
    let written = file.metadata().and_then(|metadata| metadata.modified());
    written.is_ok_and(|written| written <= since + LATE_WINDOW)
}

/// A file that a reader left before it was cut.
fn left_file(
    places: &[Arc<Place>],
    identity: Identity,
    checkpoint: Checkpoint,
    is_linked: bool,
) -> io::Result<Option<Left>> {
    let Some(search::Found::Proven(file)) = search::by_identity(places, &identity, &checkpoint)? else {
        return Ok(None);
    };
    let identity = Identity::of(&file.metadata()?);
    Ok(Some(Left { file: Arc::new(file), identity, checkpoint, is_linked }))
}

/// What was found where a position points.
enum Looked {
    Exact(Rotation),
    Moved(Rotation),
    Truncated(Rotation, u64),
}
