//! Watches trees: the stream of the files that match globs, those that are there, and those that appear and go.
//!
//! A stream holds the paths that it knows, and looks at the disk where events report a change. Every path that it
//! yielded is of a file that could be opened for reading, as in a list of files. A file that goes and comes again within
//! [`GRACE`], as in a rotation, is no change.
//!
//! A position holds the number of paths that were yielded, and a sum of their hashes. A stream that resumes compares
//! them with the files that are there. If the caller has the first of them in the order of the paths, the stream yields
//! the rest; if not, it reports that, and yields all files again. So a position needs no memory of the server, and is
//! also known after a restart.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Error, FileInfo, Inner, Shows,
    root::rule::{Glob, Paths},
};
use crate::{
    blocking::Running,
    cursor,
    stream::{Batching, Pacing},
};
pub use held::Watched;
use notices::Inbox;
use scan::{Found, Look, State};

mod held;
pub mod notices;
mod scan;
#[cfg(test)]
mod tests;

/// The most globs of a query.
pub const MAX_GLOBS: usize = 64;

/// The most bytes of all globs of a query.
pub const MAX_GLOB_BYTES: usize = 4096;

/// A file is removed when it has been gone for this long.
const GRACE: Duration = Duration::from_secs(1);

/// How often everything is compared, for changes that no event reports, such as the permissions of a directory above.
const SAFETY: Duration = Duration::from_secs(60);

/// How often directories without a watch, and links, are compared.
const POLL: Duration = Duration::from_secs(1);

/// The pause between two looks, and the multiples of the time of a look that each kind of look waits after it.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSES: u32 = 4;
const POLL_PAUSES: u32 = 100;
const SAFETY_PAUSES: u32 = 200;

/// The bytes of a change besides its path.
const CHANGE_BYTES: usize = 48;

/// Which files to watch.
#[derive(Debug)]
pub struct Query {
    /// `ROOT/GLOB`.
    pub globs: Vec<String>,
    /// Only files whose path the caller may see.
    pub shows: Shows,
    /// A root that does not exist is one without files: the caller may not learn which exist.
    pub hides_roots: bool,
    /// Show files whose names are those of rotations of shown files.
    pub shows_rotated: bool,
    /// End when all files that are there were yielded.
    pub until_caught_up: bool,
    /// Continue after a batch that was delivered.
    pub position: Option<Position>,
    /// How the stream is divided into batches.
    pub batching: Batching,
}

/// A change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// A file matches.
    Added(FileInfo),
    /// The file at this path is gone, or can no longer be read.
    Removed(String),
}

/// Changes that leave together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The caller forgets the files that it has, before these changes.
    pub is_relisted: bool,
    /// In order.
    pub changes: Vec<Change>,
    /// Where to continue.
    pub position: Position,
    /// All files that are there were yielded.
    pub caught_up: bool,
}

/// The paths that a caller has: what a cursor of `WatchFiles` holds.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    /// A checksum of the globs.
    query: u32,
    count: u64,
    /// The sum of the hashes of the paths.
    sum: u128,
}

impl cursor::Position for Position {
    const KIND: cursor::Kind = cursor::Kind::Files;
    const DECODERS: &'static [cursor::Decoder<Self>] = &[cursor::decode_fields];
}

impl Position {
    fn start(query: u32) -> Self {
        Self { query, count: 0, sum: 0 }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Added(FileInfo { path, .. }) => {
                (self.count, self.sum) = (self.count.wrapping_add(1), self.sum.wrapping_add(hash(path)));
            }
            Change::Removed(path) => {
                (self.count, self.sum) = (self.count.wrapping_sub(1), self.sum.wrapping_sub(hash(path)));
            }
        }
    }

    /// How many of these files, sorted by path, the caller has, if it has the first of them and no others.
    fn prefix_of(&self, files: &[FileInfo]) -> Option<usize> {
        let count = usize::try_from(self.count).ok()?;
        let sum = files.get(..count)?.iter().fold(0_u128, |sum, file| sum.wrapping_add(hash(&file.path)));
        (sum == self.sum).then_some(count)
    }
}

fn hash(path: &str) -> u128 {
    let hash = blake3::hash(path.as_bytes());
    hash.as_bytes().first_chunk().map_or(0, |first| u128::from_le_bytes(*first))
}

/// Globs by their roots.
#[derive(Debug)]
pub struct Selection {
    paths: BTreeMap<String, Paths>,
    checksum: u32,
}

impl Selection {
    fn new(globs: &[String]) -> Result<Self, Error> {
        let fault = |fault: String| Error::Globs { fault };
        if globs.is_empty() {
            return Err(fault("has no glob: set at least one, such as `logs/**/*.log`".into()));
        }
        let bytes = globs.iter().map(String::len).sum::<usize>();
        if globs.len() > MAX_GLOBS || bytes > MAX_GLOB_BYTES {
            let text = format!(
                "has {} globs with {bytes} bytes: up to {MAX_GLOBS} with {MAX_GLOB_BYTES} bytes are possible",
                globs.len()
            );
            return Err(fault(text));
        }
        let mut by_root = BTreeMap::<String, Vec<Glob>>::new();
        for (index, text) in globs.iter().enumerate() {
            let (root, glob) = text.split_once('/').unwrap_or((text, "**"));
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            if root.is_empty() || !root.bytes().all(is_name) {
                let fault =
                    "does not begin with the name of a root: write `ROOT/GLOB`, such as `logs/**/*.log`";
                return Err(Error::Glob { index, fault: fault.into() });
            }
            // It is a path with patterns, so it begins at the root.
            let glob = format!("/{glob}").parse::<Glob>();
            let glob =
                glob.map_err(|error| Error::Glob { index, fault: format!("is not valid: {error}") })?;
            by_root.entry(root.into()).or_default().push(glob);
        }
        let paths = by_root.into_iter().map(|(root, globs)| Ok((root, Paths::new(&globs)?)));
        let paths = paths.collect::<Result<_, super::GlobError>>();
        let paths = paths.map_err(|error| fault(format!("cannot be used together: {error}")))?;
        let mut sorted = globs.to_vec();
        sorted.sort();
        Ok(Self { paths, checksum: crc32c::crc32c(sorted.join("\0").as_bytes()) })
    }

    fn roots(&self) -> impl Iterator<Item = &str> {
        self.paths.keys().map(String::as_str)
    }

    fn holds(&self, path: &str) -> bool {
        self.has(path, Paths::hold)
    }

    fn reaches(&self, directory: &str) -> bool {
        self.has(directory.trim_end_matches('/'), Paths::reach)
    }

    fn has(&self, path: &str, has: impl Fn(&Paths, &Path) -> bool) -> bool {
        let (root, relative) = path.split_once('/').unwrap_or((path, ""));
        self.paths.get(root).is_some_and(|paths| has(paths, Path::new(relative)))
    }
}

/// What the thread of a look returns.
type Looked = (Box<State>, Result<Found, Error>, Duration);

/// One stream.
#[derive(Debug)]
pub struct Watcher {
    pool: crate::blocking::Pool,
    inbox: Arc<Inbox>,
    /// `None` during a look.
    state: Option<Box<State>>,
    looking: Option<Running<Looked>>,
    position: Position,
    is_relisted: bool,
    pending: VecDeque<Change>,
    /// Files that went, and when that is a change.
    leaving: BTreeMap<String, Instant>,
    phase: Phase,
    until_caught_up: bool,
    pacing: Pacing,
    /// The earliest time of the next look for changes, for what no event reports, and for everything.
    next: [Instant; 3],
    _guard: DropGuard,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// The files that are there are not known.
    New,
    /// They are being yielded.
    Initial,
    Live,
}

impl Watcher {
    /// Checks a query.
    pub fn open(inner: &Arc<Inner>, query: Query) -> Result<Self, Error> {
        let selection = Selection::new(&query.globs)?;
        let missing = selection.roots().find(|root| !inner.roots.has_root(root));
        if let Some(root) = missing.filter(|_| !query.hides_roots) {
            return Err(Error::NotFound { path: root.into() });
        }
        let start = Position::start(selection.checksum);
        let position = query.position.unwrap_or(start);
        if position.query != start.query {
            return Err(Error::Mismatch);
        }
        let gone = CancellationToken::new();
        let guard = gone.clone().drop_guard();
        let state = State::new(inner.clone(), selection, query.shows, query.shows_rotated, gone);
        let now = Instant::now();
        Ok(Self {
            pool: inner.options.pool.clone(),
            inbox: state.inbox.clone(),
            state: Some(Box::new(state)),
            looking: None,
            position,
            is_relisted: false,
            pending: VecDeque::new(),
            leaving: BTreeMap::new(),
            phase: Phase::New,
            until_caught_up: query.until_caught_up,
            pacing: Pacing::new(query.batching, now),
            next: [now; 3],
            _guard: guard,
        })
    }

    /// Waits for changes, or until a heartbeat is due. `None` when the stream is over.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        if self.pacing.is_over() {
            return Ok(None);
        }
        let heartbeat = self.pacing.heartbeat_at();
        while !self.pacing.is_first() && !self.is_ready() {
            tokio::select! {
                biased;
                looked = self.look() => looked?,
                () = sleep_until(heartbeat) => break,
            }
        }
        Ok(Some(self.batch()))
    }

    fn is_ready(&self) -> bool {
        self.is_relisted || !self.pending.is_empty() || self.phase == Phase::Initial
    }

    fn batch(&mut self) -> Batch {
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while changes.len() < self.pacing.max_items() && bytes < self.pacing.max_bytes() {
            let Some(change) = self.pending.pop_front() else { break };
            let (Change::Added(FileInfo { path, .. }) | Change::Removed(path)) = &change;
            bytes += path.len() + CHANGE_BYTES;
            self.position.apply(&change);
            changes.push(change);
        }
        self.pacing.record(changes.len(), Instant::now());
        let caught_up = self.phase != Phase::New && self.pending.is_empty();
        if caught_up {
            self.phase = Phase::Live;
            if self.until_caught_up {
                self.pacing.end();
            }
        }
        Batch {
            is_relisted: std::mem::take(&mut self.is_relisted),
            changes,
            position: self.position,
            caught_up,
        }
    }

    /// Looks at the disk when there may be a change. Cancelling it loses nothing.
    async fn look(&mut self) -> Result<(), Error> {
        if self.looking.is_none() {
            let Some(look) = self.wait().await else {
                self.expire();
                return Ok(());
            };
            let Some(mut state) = self.state.take() else {
                return Err(std::io::Error::other("a look was lost").into());
            };
            self.looking = Some(self.pool.run(move || {
                let began = std::time::Instant::now();
                let found = state.look(look);
                (state, found, began.elapsed())
            }));
        }
        let Some(looking) = &mut self.looking else { return Ok(()) };
        let looked = looking.await;
        self.looking = None;
        let (state, found, took) = looked?;
        let now = Instant::now();
        let [soon, poll, all] = &mut self.next;
        *soon = now + PAUSE.max(took * PAUSES);
        *poll = (*poll).max(now + POLL.max(took * POLL_PAUSES));
        if self.phase == Phase::New || *all <= now {
            *all = now + SAFETY.max(took * SAFETY_PAUSES);
        }
        self.state = Some(state);
        self.take(found?, now);
        Ok(())
    }

    /// Waits for the next look. `None`: a file has been gone for long enough.
    async fn wait(&mut self) -> Option<Look> {
        if self.phase == Phase::New {
            return Some(Look::All);
        }
        let [soon, poll, all] = self.next;
        let leaves = self.leaving.values().min().copied();
        let polls = self.state.as_ref().is_some_and(|state| state.needs_poll());
        let changed = async {
            sleep_until(soon).await;
            self.inbox.changed().await;
        };
        tokio::select! {
            biased;
            () = changed => Some(Look::Changes(self.inbox.take())),
            () = sleep_until(leaves.unwrap_or(all)), if leaves.is_some() => None,
            () = sleep_until(poll), if polls => Some(Look::Poll),
            () = sleep_until(all) => Some(Look::All),
        }
    }

    /// Takes the differences that a look found.
    fn take(&mut self, found: Found, now: Instant) {
        let Found { mut added, gone } = found;
        added.sort_by(|a, b| a.path.cmp(&b.path));
        if self.phase == Phase::New {
            let known = self.position.prefix_of(&added);
            if known.is_none() {
                (self.is_relisted, self.position) = (true, Position::start(self.position.query));
            }
            self.pending.extend(added.into_iter().skip(known.unwrap_or(0)).map(Change::Added));
            self.phase = Phase::Initial;
            return;
        }
        for path in gone {
            self.leaving.entry(path).or_insert(now + GRACE);
        }
        let new = added.into_iter().filter(|file| self.leaving.remove(&file.path).is_none());
        self.pending.extend(new.map(Change::Added));
    }

    /// Files that have been gone for long enough are removed.
    fn expire(&mut self) {
        let now = Instant::now();
        let due = self.leaving.iter().filter(|(_, due)| **due <= now).map(|(path, _)| path.clone());
        for path in due.collect::<Vec<_>>() {
            self.leaving.remove(&path);
            self.pending.push_back(Change::Removed(path));
        }
    }
}
