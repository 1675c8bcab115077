//! Where a reader starts: at a place of the file at the path, or where another reader stopped, wherever that is by now.
//! Everything here blocks.

use std::{
    fs::File,
    io,
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    Error, Event, Found, GapReason, Inner, OnGap, Position, Query, Start,
    chain::Chain,
    generations, place,
    root::{FilePath, Parent, Sibling},
    source::{self, Identity, Standing},
    split::HEAD,
    watch::{Follow, Generation},
};

/// Where a reader starts, and what happened before.
#[derive(Debug)]
pub struct Opened {
    /// Tells of changes, for one who follows.
    pub follow: Option<Follow>,
    /// Which file it is in.
    pub chain: Chain,
    /// Where in it.
    pub standing: Standing,
    /// No line before this number is wanted.
    pub skip_to: Option<u64>,
    /// What is to be told first.
    pub events: Vec<Event>,
    /// There is no file yet.
    pub waits_for_file: bool,
}

/// What can be told of a query without looking at the file.
pub fn check(query: &Query, path: &FilePath) -> Result<(), Error> {
    let counts = match &query.start {
        Start::Line(0) => return Err(Error::LineZero),
        Start::Resume(position) if position.path != path.checksum() => return Err(Error::Mismatch),
        Start::Resume(position) if !position.is_sound() => return Err(Error::PositionInvalid),
        Start::Resume(position) => position.standing.place.number.is_some(),
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
    let opener = Opener { inner, query, path, follow };
    match &query.start {
        Start::Resume(position) => opener.resume(position, skip_to),
        start => opener.begin(start, skip_to, gone),
    }
}

struct Opener<'a> {
    inner: &'a Inner,
    query: &'a Query,
    path: &'a FilePath,
    follow: Option<Follow>,
}

impl Opener<'_> {
    fn begin(self, start: &Start, skip_to: Option<u64>, gone: &AtomicBool) -> Result<Opened, Error> {
        let chain = match self.at_path() {
            Ok(chain) => chain,
            Err(Error::NotFound { .. }) if self.query.wait_for_create && self.inner.roots.has(self.path) => {
                return Ok(self.wait(Identity::default(), Standing::start(), Vec::new()));
            }
            Err(error) => return Err(error),
        };
        let Some(file) = chain.file() else { return Err(self.not_found()) };
        let delimiter = &self.query.rules.delimiter;
        let stand = || {
            let place = match start {
                Start::Last(count) => Some(place::last(file, *count, delimiter, gone)?),
                // The reader itself counts on from here: the line may not be written yet.
                Start::Head | Start::Line(_) | Start::Resume(_) => Some(HEAD),
                Start::Offset(offset) => place::offset(file, *offset, delimiter, gone)?,
            };
            place.map(|place| Standing::at(file, place)).transpose()
        };
        let Some(standing) = source::despite_truncation(stand)? else {
            let Start::Offset(offset) = *start else { return Err(self.not_found()) };
            return Err(Error::OffsetBeyondEnd { offset, size: file.metadata()?.len() });
        };
        Ok(Opened {
            follow: self.follow,
            chain,
            standing,
            skip_to,
            events: Vec::new(),
            waits_for_file: false,
        })
    }

    /// At the file that is at the path.
    fn at_path(&self) -> Result<Chain, Error> {
        let last = self.follow.as_ref().map(Follow::last).filter(|last| last.left().is_none());
        // Unless it was left just now.
        if let Some(chain) = last.map(Chain::generation).filter(|chain| chain.file().is_some()) {
            return Ok(chain);
        }
        let open = || self.inner.roots.parent(self.path)?.open(&self.path.name);
        let file = open().map_err(|error| Error::of_open(error, &self.query.path))?;
        match self.follow.as_ref().map(Follow::last) {
            // It has just come, and is found again as the next one.
            Some(last) => Ok(Chain::old(file, Some(last))?),
            None => Ok(Chain::path(file)?),
        }
    }

    fn not_found(&self) -> Error {
        Error::NotFound { path: self.query.path.clone() }
    }

    /// Nothing is there: what comes is read from its start, unless it is the file that the reader stood in.
    fn wait(self, identity: Identity, standing: Standing, events: Vec<Event>) -> Opened {
        let last = self.follow.as_ref().map_or_else(|| Generation::none(0), Follow::last);
        Opened {
            follow: self.follow,
            chain: Chain::nothing(last, identity),
            standing,
            skip_to: None,
            events,
            waits_for_file: true,
        }
    }

    fn resume(self, position: &Position, skip_to: Option<u64>) -> Result<Opened, Error> {
        let mut opened = self.resume_at(position, skip_to)?;
        opened.chain.remember(position.back);
        Ok(opened)
    }

    fn resume_at(self, position: &Position, skip_to: Option<u64>) -> Result<Opened, Error> {
        let standing = position.standing;
        let looked = generations::again(|| self.look(position))?;
        let (chain, standing, events) = match looked {
            Some(Looked::Exact(chain)) => (chain, standing, vec![Event::Resumed(Found::Exact)]),
            Some(Looked::Moved(chain)) => (chain, standing, vec![Event::Resumed(Found::Moved)]),
            Some(Looked::Truncated(chain, size)) => {
                let read_offset = standing.place.offset;
                let truncated = Event::Truncated { read_offset, size };
                (chain, Standing::start(), vec![Event::Resumed(Found::Truncated), truncated])
            }
            None if position.deleted => return self.resume_after_deleted(position),
            None if self.query.on_gap == OnGap::Fail => return Err(Error::Expired),
            None => {
                let gap = Event::Gap { reason: GapReason::Expired, bytes: None };
                let events = vec![Event::Resumed(Found::Lost), gap];
                match self.at_path() {
                    Ok(chain) => (chain, Standing::start(), events),
                    Err(Error::NotFound { .. }) if self.follow.is_some() => {
                        return Ok(self.wait(Identity::default(), Standing::start(), events));
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        Ok(Opened { follow: self.follow, chain, standing, skip_to, events, waits_for_file: false })
    }

    /// All of a file was delivered and it was gone: what is at the path now, or will be, comes next.
    fn resume_after_deleted(self, position: &Position) -> Result<Opened, Error> {
        let resumed = Event::Resumed(Found::Exact);
        match self.at_path() {
            Ok(chain) => {
                let size =
                    chain.file().map_or(Ok(0), |file| file.metadata().map(|metadata| metadata.len()))?;
                let events = vec![resumed, Event::Opened { size }];
                let (follow, standing) = (self.follow, Standing::start());
                Ok(Opened { follow, chain, standing, skip_to: None, events, waits_for_file: false })
            }
            Err(Error::NotFound { .. }) => Ok(self.wait(position.identity, position.standing, vec![resumed])),
            Err(error) => Err(error),
        }
    }

    /// Looks for what a position points at, at the path first.
    fn look(&self, position: &Position) -> io::Result<Option<Looked>> {
        let Position { identity, standing, .. } = position;
        let Ok(parent) = self.inner.roots.parent(self.path) else { return Ok(None) };
        let current = parent.open(&self.path.name).ok();
        if let Some(file) = current {
            if Identity::of(&file.metadata()?).is_same(identity) {
                return if standing.is_intact(&file)? {
                    Ok(Some(Looked::Exact(self.chain_of(file, true)?)))
                } else {
                    let size = file.metadata()?.len();
                    Ok(Some(Looked::Truncated(self.chain_of(file, true)?, size)))
                };
            }
            if let Some(old) = self.find(&parent, position)? {
                return Ok(Some(Looked::Moved(self.chain_of(old, false)?)));
            }
            if standing.place.offset > 0 && standing.is_copied(&file)? {
                return Ok(Some(Looked::Moved(self.chain_of(file, true)?)));
            }
        } else if let Some(old) = self.find(&parent, position)? {
            return Ok(Some(Looked::Moved(self.chain_of(old, false)?)));
        }
        self.find_truncated(&parent, position)
    }

    /// The file that a position was in, truncated first and then renamed. Only its birth can tell that it is the same.
    fn find_truncated(&self, parent: &Parent, position: &Position) -> io::Result<Option<Looked>> {
        let is_it = |sibling: &Sibling, _: &File| {
            Ok(position.identity.birth() != 0 && sibling.identity.is_same(&position.identity))
        };
        let Some(file) = generations::find(parent, &self.path.name, is_it)? else { return Ok(None) };
        let size = file.metadata()?.len();
        Ok(Some(Looked::Truncated(self.chain_of(file, false)?, size)))
    }

    /// The file that a position was in, wherever it was renamed to.
    fn find(&self, parent: &Parent, position: &Position) -> io::Result<Option<File>> {
        generations::find(parent, &self.path.name, |sibling, file| {
            Ok(sibling.identity.is_same(&position.identity) && position.standing.is_intact(file)?)
        })
    }

    fn chain_of(&self, file: File, is_at_path: bool) -> io::Result<Chain> {
        let last = self.follow.as_ref().map(Follow::last);
        let identity = Identity::of(&file.metadata()?);
        match last {
            Some(last) if last.identity == identity => Ok(Chain::opened(last, file)),
            None if is_at_path => Chain::path(file),
            last => Chain::old(file, last),
        }
    }
}

/// What was found where a position points.
enum Looked {
    Exact(Chain),
    Moved(Chain),
    Truncated(Chain, u64),
}
