//! A file and those it was rotated from: which one is being read, and which one comes next. Everything here blocks.
//!
//! A log is rotated by renaming it (`app.log` → `app.log.1`) and making a new one at its path. A reader keeps its
//! descriptor, so that what is still written to the old file is read too; it goes on with the next younger file when
//! the old one is used up. After a pause, or a restart, it finds the file it was in among the siblings by identity
//! and marker, and the younger ones by when they were made.

use std::{fs::File, io, sync::atomic::AtomicBool, time::Duration};

use super::{
    Error, Event, OnGap, Position, Start,
    place::{self, HEAD},
    root::{FilePath, Parent, Sibling},
    source::{Identity, Source},
};

/// How many siblings are looked at: far more than a rotation keeps, few enough to look at all.
const MAX_SIBLINGS: usize = 1000;

/// How often a file that was there a moment ago is looked for.
const ATTEMPTS: usize = 5;

/// How long to wait in between: a rotation of a few files takes less.
const PAUSE: Duration = Duration::from_millis(10);

/// A file, its directory, and where the reader is.
#[derive(Debug)]
pub struct Generations {
    parent: Parent,
    name: String,
    /// The file being read: perhaps renamed by now. None while there is nothing to read.
    pub source: Option<Source>,
}

/// What became of an attempt to go on.
enum Step {
    /// The next file is taken; whether it is the one at the path.
    Taken(bool),
    /// It was renamed since it was listed.
    Renamed,
    /// There is none.
    None,
}

/// What stands at the path, beside the file being read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Look {
    /// The file being read has grown.
    pub has_more: bool,
    /// It was truncated or written anew; its size.
    pub truncated: Option<u64>,
    /// It is the one at the path.
    pub is_current: bool,
    /// It, or the next one, can be read: something is at the path.
    pub exists: bool,
}

/// Where a reader starts, and what happened before.
#[derive(Debug)]
pub struct Opened {
    /// The events to tell first.
    pub events: Vec<Event>,
    /// The file is the one at the path.
    pub is_current: bool,
}

impl Generations {
    /// Of a file in a directory.
    pub fn new(parent: Parent, path: &FilePath) -> Self {
        Self { parent, name: path.name.clone(), source: None }
    }

    /// Finds the place to start. `path` is what to name in errors.
    pub fn open(
        &mut self,
        start: &Start,
        on_gap: OnGap,
        path: &str,
        gone: &AtomicBool,
    ) -> Result<Opened, Error> {
        if let Start::Resume(position) = start {
            return self.resume(position, on_gap, path);
        }
        let file = self.open_current(path)?;
        let place = match start {
            Start::Last(count) => place::last(&file, *count, gone)?,
            // The reader itself counts on from here: the line may not be written yet.
            Start::Head | Start::Line(_) | Start::Resume(_) => HEAD,
            Start::Offset(offset) => {
                let size = file.metadata()?.len();
                place::offset(&file, *offset)?.ok_or(Error::OffsetBeyondEnd { offset: *offset, size })?
            }
        };
        self.source = Some(Source::new(file, place)?);
        Ok(Opened { events: Vec::new(), is_current: true })
    }

    fn open_current(&self, path: &str) -> Result<File, Error> {
        self.parent.open(&self.name).map_err(|error| Error::of_open(error, path))
    }

    fn resume(&mut self, position: &Position, on_gap: OnGap, path: &str) -> Result<Opened, Error> {
        let place = position.place;
        let current = self.parent.open(&self.name);
        if let Ok(file) = &current
            && Identity::of(&file.metadata()?) == position.identity
            && !position.marker.holds(file, place.offset)?
        {
            let size = file.metadata()?.len();
            self.source = Some(Source::new(file.try_clone()?, HEAD)?);
            let truncated = Event::Truncated { read_offset: place.offset, size };
            return Ok(Opened { events: vec![truncated], is_current: true });
        }
        if let Some(file) = again(|| self.find(position))? {
            let source = Source::new(file, place)?;
            let is_current = current.is_ok_and(|file| {
                file.metadata().is_ok_and(|metadata| Identity::of(&metadata) == source.identity())
            });
            self.source = Some(source);
            return Ok(Opened { events: Vec::new(), is_current });
        }
        if position.deleted {
            // All of the deleted file was delivered: what is at the path now, or will be, comes next.
            return Ok(Opened { events: Vec::new(), is_current: false });
        }
        if on_gap == OnGap::Fail {
            return Err(Error::Expired);
        }
        self.source = Some(Source::new(self.open_current(path)?, HEAD)?);
        let gap = Event::Gap { reason: "the file that was being read is gone", bytes: None };
        Ok(Opened { events: vec![gap], is_current: true })
    }

    /// The file that a position was in, wherever it was renamed to.
    fn find(&self, position: &Position) -> io::Result<Option<File>> {
        let siblings = self.parent.siblings(&self.name, MAX_SIBLINGS)?;
        for sibling in siblings.iter().filter(|sibling| sibling.identity == position.identity) {
            let Ok(file) = self.parent.open(&sibling.name) else { continue };
            let is_same = Identity::of(&file.metadata()?) == position.identity;
            if is_same && position.marker.holds(&file, position.place.offset)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Looks at the file being read and at the path.
    pub fn look(&mut self) -> io::Result<Look> {
        let at_path = self.parent.open(&self.name).and_then(|file| file.metadata()).map(|m| Identity::of(&m));
        let Some(source) = &self.source else {
            return Ok(Look { has_more: false, truncated: None, is_current: false, exists: at_path.is_ok() });
        };
        let truncated = if source.is_intact()? { None } else { Some(source.file().metadata()?.len()) };
        let is_current = at_path.as_ref().is_ok_and(|identity| *identity == source.identity());
        Ok(Look { has_more: source.has_more()?, truncated, is_current, exists: at_path.is_ok() })
    }

    /// Back to the start of a file that was truncated. Returns how far it had been read.
    pub fn rewind(&mut self) -> io::Result<u64> {
        self.source.as_mut().map_or(Ok(0), Source::rewind)
    }

    /// Goes on with the next younger file, and tells whether it is the one at the path. None if there is none.
    pub fn advance(&mut self) -> io::Result<Option<bool>> {
        for _ in 1..ATTEMPTS {
            match self.try_advance()? {
                Step::Renamed => {}
                Step::Taken(is_current) => return Ok(Some(is_current)),
                Step::None => return Ok(None),
            }
        }
        Ok(None)
    }

    fn try_advance(&mut self) -> io::Result<Step> {
        let siblings = self.parent.siblings(&self.name, MAX_SIBLINGS)?;
        let Some(next) = self.next_of(&siblings)? else { return Ok(Step::None) };
        let file = match self.parent.open(&next.name) {
            Ok(file) if Identity::of(&file.metadata()?) == next.identity => file,
            // Renamed since it was listed: look again.
            _ => return Ok(Step::Renamed),
        };
        self.source = Some(Source::new(file, HEAD)?);
        Ok(Step::Taken(next.name == self.name))
    }

    fn next_of<'a>(&self, siblings: &'a [Sibling]) -> io::Result<Option<&'a Sibling>> {
        let at_path = siblings.iter().find(|sibling| sibling.name == self.name);
        let Some(source) = &self.source else { return Ok(at_path) };
        let own = (source.identity().birth(), source.file().metadata()?.modified()?);
        let age = |sibling: &Sibling| (sibling.identity.birth(), sibling.modified);
        let younger = siblings
            .iter()
            .filter(|sibling| sibling.identity != source.identity() && age(sibling) > own)
            .filter(|sibling| is_generation(&self.name, &sibling.name))
            .min_by_key(|sibling| (age(sibling), sibling.name == self.name));
        // A file that was put at the path though it is older is what its reader wants, too.
        Ok(younger.or_else(|| at_path.filter(|sibling| sibling.identity != source.identity())))
    }

    /// The directory.
    pub fn parent(&self) -> &Parent {
        &self.parent
    }
}

/// Looks again for a file that is not found: a rotation may be moving it, and all its siblings, just now.
fn again<T>(mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    for _ in 1..ATTEMPTS {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        std::thread::sleep(PAUSE);
    }
    look()
}

/// A name that rotation gives: the file's own, or with a number or a date behind it. Others, `app.log.bak` or
/// `app.log.1.gz`, are copies whose lines would come twice.
fn is_generation(name: &str, sibling: &str) -> bool {
    let Some(suffix) = sibling.strip_prefix(name) else { return false };
    suffix.is_empty()
        || suffix.bytes().any(|byte| byte.is_ascii_digit())
            && suffix.bytes().all(|byte| byte.is_ascii_digit() || b".-_:TZ".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::is_generation;

    #[test]
    fn a_generation_is_told_from_a_copy_by_its_name() {
        for name in ["app.log", "app.log.1", "app.log.12", "app.log-20261123", "app.log.2026-11-23T10:00:00Z"]
        {
            assert!(is_generation("app.log", name), "{name}");
        }
        for name in ["app.log.bak", "app.log.1.gz", "app.log2.old", "app.log~", "app.log.", "other.log"] {
            assert!(!is_generation("app.log", name), "{name}");
        }
    }
}
