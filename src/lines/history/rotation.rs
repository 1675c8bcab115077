//! Which file a reader is in, and which one comes next.
//!
//! A follower holds its place in the rotation of the files that were at the path since it came, so that each stays open
//! until it is read. A reader that was away is in an older file at first; from there it goes from one younger sibling to
//! the next, until it arrives in the rotation.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    archive::Archive,
    generation::{Came, Generation},
    overlap::Overlap,
    search,
};
use crate::lines::{
    Event, GapReason,
    content::checkpoint::Checkpoint,
    identity::Identity,
    root::{FilePath, Roots, places::Sibling},
};

use ahead::{Ahead, NextOld, next_old};
use chain::{first_joined, in_chain};
pub use whole::{Advanced, Openers, oldest};

mod ahead;
mod chain;
mod whole;

/// How many files a reader remembers having left, should one come back to the path.
const MAX_LEFT: usize = 16;

/// Which file a reader is in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rotation {
    at: At,
    /// How far the reader read the files that it left last, the last one first.
    left: VecDeque<(Identity, Checkpoint)>,
    /// Files that were read before this one, the last one first.
    older: VecDeque<Identity>,
    /// The last file that was left for another because a link was pointed to that one: it may be pointed back.
    linked: Option<(Identity, Checkpoint)>,
}

#[derive(Clone, Debug)]
enum At {
    /// A file that came to the path while it was followed; none if it is gone.
    Generation { generation: Arc<Generation>, file: Option<Arc<File>> },
    /// The file at the path, of which no more is known.
    Path { file: Arc<File>, identity: Identity },
    /// A file that was renamed away before the reader came.
    /// `joined` was the last generation when the reader came, and `ahead` are the files after this one, if they were listed.
    /// `is_copy`: it is a copy of the file at the path, which was truncated after it was copied.
    Old {
        file: Arc<File>,
        identity: Identity,
        left: Instant,
        joined: Option<Arc<Generation>>,
        ahead: Option<Ahead>,
        is_copy: bool,
        /// The content of the file, if it is compressed.
        archive: Option<Arc<Archive>>,
    },
    /// No file: what comes to the path after `last`, or as it once more, is the next one. The reader left `identity`.
    Nothing { last: Arc<Generation>, identity: Identity, since: Instant },
}

/// The file that comes after another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Successor {
    /// There is none yet.
    None,
    /// A file is at the path, to which nothing is written yet.
    Empty,
    /// A file can be read.
    Ready,
}

/// The next file of a reader.
#[derive(Debug)]
pub struct Entered {
    pub rotation: Rotation,
    /// Where the file is read from.
    pub checkpoint: Checkpoint,
    /// The events of the change.
    pub events: Vec<Event>,
}

impl At {
    fn of(generation: Arc<Generation>) -> Self {
        Self::Generation { file: generation.file(), generation }
    }

    /// The same with a compressed file.
    fn holding(mut self, content: Option<Archive>) -> Self {
        if let Self::Old { archive, .. } = &mut self {
            *archive = content.map(Arc::new);
        }
        self
    }
}

impl Rotation {
    /// At a file of a followed path, or where there is none yet.
    pub fn generation(generation: Arc<Generation>) -> Self {
        Self::at(At::of(generation))
    }

    /// The same, where the file is open already.
    pub fn opened(generation: Arc<Generation>, file: File) -> Self {
        let file = generation.file().unwrap_or_else(|| Arc::new(file));
        Self::at(At::Generation { generation, file: Some(file) })
    }

    /// At the file at the path.
    pub fn path(file: File) -> io::Result<Self> {
        let identity = Identity::of(&file.metadata()?);
        Ok(Self::at(At::Path { file: Arc::new(file), identity }))
    }

    /// At a file that was renamed away; `joined` was the last one when the reader came.
    pub fn old(file: File, joined: Option<Arc<Generation>>) -> io::Result<Self> {
        Ok(Self::at(old(file, joined, None, false)?))
    }

    /// The same in a copy of the file at the path, which was truncated after it was copied.
    pub fn copy(file: File, joined: Option<Arc<Generation>>) -> io::Result<Self> {
        Ok(Self::at(old(file, joined, None, true)?))
    }

    /// The same in a compressed file.
    pub fn compressed(
        archive: Archive,
        file: Arc<File>,
        joined: Option<Arc<Generation>>,
    ) -> io::Result<Self> {
        Ok(Self::at(old(file, joined, None, false)?.holding(Some(archive))))
    }

    /// Where there is no file; `last` was at the path before, and `identity` is the one that the reader was in, if any.
    pub fn nothing(last: Arc<Generation>, identity: Identity) -> Self {
        Self::at(At::Nothing { last, identity, since: Instant::now() })
    }

    fn at(at: At) -> Self {
        Self { at, left: VecDeque::new(), older: VecDeque::new(), linked: None }
    }

    /// Remembers how far a file was read that was left before this one was entered.
    pub fn remember_older(&mut self, known: Option<(Identity, Checkpoint)>) {
        self.older.extend(known.map(|(identity, _)| identity));
        self.remember(known);
    }

    /// Remembers how far another file was read that may come again.
    pub fn remember(&mut self, known: Option<(Identity, Checkpoint)>) {
        self.left.extend(known);
        self.linked = known.or(self.linked);
    }

    /// How far another file was read that may come again, because a link on the path led to it.
    pub fn linked(&self) -> Option<(Identity, Checkpoint)> {
        self.linked.filter(|(identity, _)| *identity != self.identity())
    }

    /// Whether the file is at the path because a link was pointed to it: the file before is not rotated.
    pub fn is_linked(&self) -> bool {
        matches!(&self.at, At::Generation { generation, .. } if generation.arrival.came == Came::Linked)
    }

    /// In a file that was left, for its late lines.
    pub fn visit(file: Arc<File>, identity: Identity) -> Self {
        let (left, joined, ahead, is_copy) = (Instant::now(), None, None, false);
        Self::at(At::Old { file, identity, left, joined, ahead, is_copy, archive: None })
    }

    /// The late lines of a file that was left were read up to here.
    pub fn record_visit(&mut self, visited: Identity, checkpoint: Checkpoint) {
        for (_, known) in self.left.iter_mut().chain(&mut self.linked).filter(|(left, _)| *left == visited) {
            *known = checkpoint;
        }
    }

    /// The file; none where there is none yet.
    pub fn file(&self) -> Option<&Arc<File>> {
        match &self.at {
            At::Generation { file, .. } => file.as_ref(),
            At::Path { file, .. } | At::Old { file, .. } => Some(file),
            At::Nothing { .. } => None,
        }
    }

    /// The content of the file, if it is compressed.
    pub fn archive(&self) -> Option<&Arc<Archive>> {
        match &self.at {
            At::Old { archive, .. } => archive.as_ref(),
            At::Generation { .. } | At::Path { .. } | At::Nothing { .. } => None,
        }
    }

    /// Which file it is.
    pub fn identity(&self) -> Identity {
        match &self.at {
            At::Generation { generation, .. } => generation.identity,
            At::Path { identity, .. } | At::Old { identity, .. } | At::Nothing { identity, .. } => *identity,
        }
    }

    /// The file is the one at the path.
    pub fn is_current(&self) -> bool {
        match &self.at {
            At::Generation { generation, .. } => generation.left().is_none(),
            At::Path { .. } => true,
            At::Old { .. } | At::Nothing { .. } => false,
        }
    }

    /// See [`copy`](Self::copy).
    pub fn is_copy(&self) -> bool {
        matches!(self.at, At::Old { is_copy: true, .. })
    }

    /// The content may be out of date for a moment.
    pub fn is_remote(&self) -> bool {
        matches!(&self.at, At::Generation { generation, .. } if generation.arrival.is_remote)
    }

    /// Since when the file is no longer at its path.
    pub fn left(&self) -> Option<Instant> {
        match &self.at {
            At::Generation { generation, .. } => generation.left(),
            At::Path { .. } => None,
            At::Old { left, .. } => Some(*left),
            At::Nothing { since, .. } => Some(*since),
        }
    }

    /// The offset from which the lines of the file belong to another log, if it was renamed to that log's name.
    pub fn limit(&self) -> Option<u64> {
        match &self.at {
            At::Generation { generation, .. } => generation.limit(),
            At::Path { .. } | At::Old { .. } | At::Nothing { .. } => None,
        }
    }

    /// The state of the file that comes after this one.
    pub fn successor(&self) -> Successor {
        match &self.at {
            At::Path { .. } => Successor::None,
            At::Old { .. } => Successor::Ready,
            At::Nothing { last, .. } => {
                let is_back = last.file().is_some() && last.left().is_none();
                if is_back || last.next().is_some() { Successor::Ready } else { Successor::None }
            }
            At::Generation { generation, .. } => match generation.next() {
                None => Successor::None,
                Some(next) => {
                    let is_last = next.left().is_none() && next.next().is_none();
                    let size = next.file().filter(|_| is_last).map(|file| file.metadata());
                    if matches!(size, Some(Ok(it)) if it.len() == 0) {
                        Successor::Empty
                    } else {
                        Successor::Ready
                    }
                }
            },
        }
    }

    /// Whether the file came to the path again after it was left, so that a part of a line at its end may still grow.
    pub fn comes_again(&self) -> bool {
        match &self.at {
            At::Generation { generation, .. } => in_chain(generation.next(), generation.identity).is_some(),
            At::Old { identity, joined, .. } => in_chain(joined.as_ref(), *identity).is_some(),
            At::Path { .. } | At::Nothing { .. } => false,
        }
    }

    /// The next file, for a reader that has used up this one; none if there is none yet. Blocks.
    fn advance(
        &self,
        roots: &Roots,
        path: &FilePath,
        checkpoint: Checkpoint,
        was_gone: bool,
    ) -> io::Result<Option<Entered>> {
        match &self.at {
            At::Generation { generation, .. } => {
                let Some(next) = generation.next() else { return Ok(None) };
                self.enter_generation(roots, path, next, checkpoint, was_gone, Followed::default()).map(Some)
            }
            At::Path { .. } => Ok(None),
            At::Nothing { last, .. } => {
                let is_back = last.file().is_some() && last.left().is_none();
                let Some(next) = (if is_back { Some(last) } else { last.next() }) else { return Ok(None) };
                self.enter_generation(roots, path, next, checkpoint, was_gone, Followed::default()).map(Some)
            }
            At::Old { file, identity, joined, ahead, is_copy, .. } => {
                let joined = joined.as_ref();
                let first = joined.and_then(|joined| first_joined(joined, *identity, &self.older));
                let enter = |next: Option<&Arc<Generation>>, how| {
                    next.map(|next| self.enter_generation(roots, path, next, checkpoint, was_gone, how))
                        .transpose()
                };
                if in_chain(first, *identity).is_some() {
                    // The file is at the path again, perhaps after others that were there in between.
                    let is_next = |it: &&Arc<Generation>| it.identity != *identity || it.arrival.misses_some;
                    let next = first.and_then(|it| Some(it).filter(is_next).or_else(|| it.next()));
                    return enter(next, Followed::default());
                }
                let older = self.older.iter().copied().filter(|older| older != identity).collect::<Vec<_>>();
                let own = (&file.metadata()?, *is_copy);
                match next_old(roots, path, own, &older, joined, ahead.as_ref())? {
                    NextOld::Listed(at, how) => self.enter(at, checkpoint, was_gone, how).map(Some),
                    NextOld::Joined(how) => enter(first, how),
                    NextOld::Nothing => Ok(None),
                }
            }
        }
    }

    fn enter_generation(
        &self,
        roots: &Roots,
        path: &FilePath,
        next: &Arc<Generation>,
        checkpoint: Checkpoint,
        was_gone: bool,
        Followed { misses_some, is_backup, listed_until }: Followed,
    ) -> io::Result<Entered> {
        let mut is_listed = listed_until.is_some_and(|last| in_chain(Some(next), last).is_some());
        let is_new = |next: &Generation, is_listed: bool| next.arrival.misses_some && !is_listed;
        // What was at the path before a log that was copied and truncated came before its copies.
        let (mut next, mut misses_some) = (next, misses_some || is_new(next, is_listed) && !self.is_copy());
        loop {
            is_listed &= listed_until != Some(next.identity);
            let file = match next.file() {
                Some(file) => Some(file),
                // It was not kept open, and may have been deleted since.
                None => reopen(roots, path, next)?,
            };
            let later = if file.is_none() { next.next() } else { None };
            misses_some |= file.is_none() && !is_listed;
            let Some(later) = later else {
                let at = At::Generation { generation: next.clone(), file };
                return self.enter(
                    at,
                    checkpoint,
                    was_gone,
                    Followed { misses_some, is_backup, listed_until },
                );
            };
            next = later;
            misses_some |= is_new(next, is_listed);
        }
    }

    fn enter(
        &self,
        at: At,
        checkpoint: Checkpoint,
        was_gone: bool,
        Followed { misses_some, is_backup, .. }: Followed,
    ) -> io::Result<Entered> {
        let (left, older, linked) = (self.left.clone(), self.older.clone(), self.linked);
        let mut rotation = Self { at, left, older, linked };
        rotation.left.push_front((self.identity(), checkpoint));
        rotation.left.truncate(MAX_LEFT);
        rotation.older.push_front(self.identity());
        rotation.older.truncate(MAX_LEFT);
        if rotation.is_linked() {
            rotation.linked = Some((self.identity(), checkpoint));
        }
        let file = rotation.file().cloned();
        let proven = match &file {
            Some(file) => self.find_read(&rotation, file, &checkpoint, is_backup)?,
            None => None,
        };
        let mut events = Vec::new();
        // The file after a backup that holds what was read is the next one.
        if misses_some && !(is_backup && proven.is_some()) {
            events.push(Event::Gap { reason: GapReason::Deleted, bytes: None });
        }
        let Some(file) = file else {
            return Ok(Entered { rotation, checkpoint: Checkpoint::start(), events });
        };
        let read_offset = checkpoint.line.offset;
        let lost = rotation.known().filter(|_| proven.is_none() && !self.is_copy());
        let checkpoint = proven.unwrap_or_else(Checkpoint::start);
        let next_offset = checkpoint.line.offset;
        events.push(if self.is_copy() {
            Event::Truncated { read_offset, size: file.metadata()?.len() }
        } else if was_gone && next_offset == 0 {
            Event::Opened { size: file.metadata()?.len() }
        } else {
            Event::Rotated { next_offset }
        });
        // It was read before, and was truncated since: lines that were written after that may be lost.
        if let Some(known) = lost {
            let (read_offset, size) = (known.line.offset, file.metadata()?.len());
            events.push(Event::Truncated { read_offset, size });
        }
        Ok(Entered { rotation, checkpoint, events })
    }

    /// How far the reader read this file before, if it left it and came to it again.
    fn known(&self) -> Option<Checkpoint> {
        let identity = self.identity();
        self.left.iter().find(|(left, _)| *left == identity).map(|(_, known)| *known)
    }

    /// How far the reader has read the file that comes next, as far as that is proven.
    fn find_read(
        &self,
        next: &Self,
        file: &File,
        checkpoint: &Checkpoint,
        is_backup: bool,
    ) -> io::Result<Option<Checkpoint>> {
        if self.is_copy() || self.archive().is_some() || next.archive().is_some() {
            return Ok(None);
        }
        if let Some(known) = next.known() {
            return Ok(if known.is_intact(file)? { Some(known) } else { None });
        }
        let Some(old) = self.file() else { return Ok(None) };
        let resume = |overlap: &mut Overlap, came| match came {
            Came::Created | Came::Linked => Ok(None),
            Came::Unseen if is_backup && checkpoint.is_proof() => {
                overlap.resume(self.identity(), old, file, checkpoint)
            }
            Came::Renamed => overlap.resume(self.identity(), old, file, checkpoint),
            // The file before has another name: that is a rotation.
            Came::Unseen if !checkpoint.is_proof() || old.metadata()?.nlink() > 0 => Ok(None),
            Came::Unseen => {
                let is_prefix = overlap.is_prefix(self.identity(), old, file, checkpoint)?;
                Ok(is_prefix.then_some(*checkpoint))
            }
        };
        match &next.at {
            At::Generation { generation, .. } => resume(&mut generation.overlap(), generation.arrival.came),
            _ => resume(&mut Overlap::default(), Came::Unseen),
        }
    }
}

/// Finds a file that came to the path, under its present name.
fn reopen(roots: &Roots, path: &FilePath, generation: &Generation) -> io::Result<Option<Arc<File>>> {
    let found = search::names_of(&roots.places(path), generation.identity)?;
    found.first().map_or(Ok(None), open)
}

/// Opens a file that was listed. `None` if its name is another file's by now.
fn open(sibling: &Sibling) -> io::Result<Option<Arc<File>>> {
    let Ok(file) = sibling.place.open(&sibling.name) else { return Ok(None) };
    Ok((Identity::of(&file.metadata()?) == sibling.identity).then(|| Arc::new(file)))
}

/// How a file follows the one before it.
#[derive(Clone, Copy, Debug, Default)]
struct Followed {
    /// There may have been others in between.
    misses_some: bool,
    /// See [`siblings::Younger::is_backup`](super::siblings::Younger::is_backup).
    is_backup: bool,
    /// All files before this one of the chain were looked for, also compressed ones: only `misses_some` says whether some of
    /// them are missing.
    listed_until: Option<Identity>,
}

fn old(
    file: impl Into<Arc<File>>,
    joined: Option<Arc<Generation>>,
    ahead: Option<Ahead>,
    is_copy: bool,
) -> io::Result<At> {
    let file = file.into();
    let metadata = file.metadata()?;
    // A rename changes the time of the file's change of state: since then a writer may have been late.
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(metadata.ctime().try_into().unwrap_or(0));
    let changed = changed + Duration::from_nanos(metadata.ctime_nsec().try_into().unwrap_or(0));
    let now = Instant::now();
    let age = changed.elapsed().unwrap_or_default();
    let left = now.checked_sub(age).unwrap_or(now);
    Ok(At::Old { identity: Identity::of(&metadata), file, left, joined, ahead, is_copy, archive: None })
}
