//! One path that is followed: its chain of generations, and all that is needed to see a new one.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::names::{Names, Pending};
use crate::lines::{
    error::is_servers_own,
    history::{
        generation::{Arrival, Came, Generation},
        siblings,
    },
    identity::Identity,
    root::{FilePath, Parent},
    shared_read::SharedRead,
};

/// How long an event of a file that was seen at a path may take: it is in the queue by then.
const EVENT_PATIENCE: Duration = Duration::from_millis(100);

/// Whether a file that is no longer at the path became another log's file.
pub type IsForeign<'a> = dyn Fn(&File) -> bool + 'a;

/// A path that is followed, by any number of followers.
#[derive(Debug)]
pub struct Followed {
    /// As it was asked for.
    pub path: FilePath,
    pub shared_read: SharedRead,
    followers: AtomicUsize,
    polled: AtomicBool,
    changed: watch::Sender<u64>,
    /// Held for moments only: readers ask for it on the runtime's threads.
    chain: Mutex<Chain>,
    /// Held while the file system is asked.
    work: Mutex<Work>,
}

#[derive(Debug)]
struct Chain {
    last: Arc<Generation>,
    exists: bool,
}

/// What is known about the path.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not a state in disguise")]
pub struct Work {
    /// The directory, while there is one.
    pub parent: Option<Parent>,
    /// The directory's watch is gone.
    pub is_stale: bool,
    /// The watch of the directory.
    pub directory: Option<i32>,
    /// The watch of the file, where its directory does not report its changes.
    pub file_watch: Option<i32>,
    /// Which file that is.
    pub watched_inode: Option<(u64, u64)>,
    /// The file is written to by another name, too: a link leads to it.
    pub is_elsewhere: bool,
    /// What is read may be out of date for a moment.
    pub is_remote: bool,
    /// The names of files that events reported.
    pub names: Names,
    /// The last file.
    file: Option<Arc<File>>,
    /// How it looked.
    seen: Option<[i64; 5]>,
    /// Another file was at the path without an event: how many events had come then, and since when.
    suspect: Option<(u64, Instant)>,
    /// Events were lost: the file at the path may come without one.
    has_lost_events: bool,
    /// A file was at the path and is gone before it could be opened.
    misses_some: bool,
    /// Files that were found without an event; the event may come yet.
    found: Vec<Identity>,
}

/// A file that events reported, opened under its present name if possible.
#[derive(Debug)]
pub struct Arrived {
    pending: Pending,
    file: Option<(File, Identity)>,
    came: Came,
}

impl Work {
    /// A watch is gone, with what it watched.
    pub fn forget(&mut self, watch: i32) {
        if self.directory == Some(watch) {
            self.parent = None;
            self.is_stale = true;
        } else {
            self.watched_inode = None;
        }
    }

    /// Opens the first files that events reported, under their present names.
    pub fn open_arrived(&self) -> Vec<Arrived> {
        let open = |name: &str| {
            let (file, is_link) = self.parent.as_ref()?.open_through(name).ok()?;
            let identity = Identity::of(&file.metadata().ok()?);
            Some((file, identity, is_link))
        };
        let opened = |pending: Pending| match pending.name().and_then(open) {
            Some((file, identity, is_link)) => {
                // What happened to a link did not happen to its target.
                let came = if is_link { Came::Created } else { pending.came };
                Arrived { file: Some((file, identity)), came, pending }
            }
            None => Arrived { file: None, came: pending.came, pending },
        };
        self.names.pending().map(opened).collect()
    }

    /// Events were lost: the next look believes what it finds.
    pub fn lose_events(&mut self) {
        self.names.forget();
        self.has_lost_events = true;
    }

    /// Whether an event is about to report the file at the path, and in which order it came; if none does in time, it is taken at a
    /// later look.
    fn waits_for_event(&mut self) -> bool {
        if std::mem::take(&mut self.has_lost_events) || self.file.is_none() || self.directory.is_none() {
            return false;
        }
        let changes = self.names.changes();
        match self.suspect {
            Some((then, since)) if then == changes => since.elapsed() < EVENT_PATIENCE,
            _ => {
                self.suspect = Some((changes, Instant::now()));
                true
            }
        }
    }

    /// Whether another file is at the path, which no event reported yet.
    pub fn is_suspect(&self) -> bool {
        self.suspect.is_some()
    }

    /// The size of the last file, if it became another log's file. See [`Generation::limit`].
    fn limit(&self, is_foreign: &IsForeign<'_>) -> Option<u64> {
        let file = self.file().filter(|file| is_foreign(file))?;
        file.metadata().ok().map(|metadata| metadata.len())
    }

    /// The last file.
    pub fn file(&self) -> Option<&File> {
        self.file.as_deref()
    }

    /// The device and the inode of the last file.
    pub fn file_inode(&self) -> Option<(u64, u64)> {
        let metadata = self.file()?.metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    }
}

impl Followed {
    /// Nothing is known yet.
    pub fn new(path: FilePath, max_open: usize) -> Self {
        Self {
            path,
            shared_read: SharedRead::default(),
            followers: AtomicUsize::new(0),
            polled: AtomicBool::new(true),
            changed: watch::Sender::new(0),
            chain: Mutex::new(Chain { last: Generation::none(max_open), exists: false }),
            work: Mutex::default(),
        }
    }

    /// To be called under the table's lock.
    pub fn add_follower(&self) {
        self.followers.fetch_add(1, Ordering::Relaxed);
    }

    /// To be called under the table's lock. Returns how many are left.
    pub fn remove_follower(&self) -> usize {
        self.followers.fetch_sub(1, Ordering::Relaxed) - 1
    }

    /// Somebody follows.
    pub fn is_followed(&self) -> bool {
        self.followers.load(Ordering::Relaxed) > 0
    }

    /// Whether no event reports changes of the file, so that it has to be polled.
    pub fn is_polled(&self) -> bool {
        self.polled.load(Ordering::Relaxed)
    }

    /// See [`is_polled`](Self::is_polled).
    pub fn set_polled(&self, polled: bool) {
        self.polled.store(polled, Ordering::Relaxed);
    }

    /// Notifies of changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Has every follower look.
    pub fn wake(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// See [`Work`].
    pub fn work(&self) -> MutexGuard<'_, Work> {
        // What a panic left half done is found out by the next look.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that came to the path last.
    pub fn last(&self) -> Arc<Generation> {
        self.chain().last.clone()
    }

    /// There is a file at the path.
    pub fn exists(&self) -> bool {
        self.chain().exists
    }

    /// The last file is no longer at the path. True if it was until now.
    fn leave(last: &Generation, work: &Work, is_foreign: &IsForeign<'_>) -> bool {
        last.left().is_none() && last.leave(work.limit(is_foreign))
    }

    fn set_exists(&self, exists: bool) -> bool {
        std::mem::replace(&mut self.chain().exists, exists) != exists
    }

    /// Checks which file is at the path, and whether it changed; wakes the followers if so. `was_watched`: so was the
    /// directory, and an event reports, or is about to report, another file in it.
    pub fn look(&self, work: &mut Work, was_watched: bool, is_foreign: &IsForeign<'_>) -> io::Result<()> {
        let found = work.parent.as_ref().and_then(|parent| parent.stat(&self.path.name));
        let last = self.last();
        let changed = match found {
            None => {
                work.suspect = None;
                Self::leave(&last, work, is_foreign) | self.set_exists(false)
            }
            Some(found) if last.identity == found.identity && work.file.is_some() => {
                (work.suspect, work.is_elsewhere) = (None, found.is_elsewhere);
                last.come_back() | self.set_exists(true)
            }
            Some(found) => {
                work.is_elsewhere = found.is_elsewhere;
                if was_watched && !found.is_elsewhere && work.waits_for_event() {
                    return Ok(());
                }
                self.find(work, is_foreign)?
            }
        };
        let seen = work
            .file()
            .and_then(|file| file.metadata().ok())
            .map(|it| [it.size().cast_signed(), it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()]);
        if changed | (std::mem::replace(&mut work.seen, seen) != seen) {
            self.wake();
        }
        Ok(())
    }

    /// Takes the file at the path, and those that were there since the last one as far as they can be found.
    fn find(&self, work: &mut Work, is_foreign: &IsForeign<'_>) -> io::Result<bool> {
        let Some(parent) = &work.parent else { return Ok(false) };
        let name = &self.path.name;
        let mut files = Vec::new();
        if let Some(last) = &work.file {
            let last = last.metadata()?;
            for sibling in siblings::younger(parent, name, &last)? {
                if let Ok(file) = parent.open(&sibling.name)
                    && Identity::of(&file.metadata()?) == sibling.identity
                    && sibling.name != *name
                {
                    files.push((file, sibling.identity));
                }
            }
        }
        let can_be_read = match parent.open(name) {
            Ok(file) => {
                let identity = Identity::of(&file.metadata()?);
                files.retain(|(_, other)| *other != identity);
                files.push((file, identity));
                true
            }
            Err(error) if is_servers_own(&error) => return Err(error),
            Err(_) => false,
        };
        work.found = files.iter().map(|(_, identity)| *identity).collect();
        for (file, identity) in files {
            self.push(work, file, identity, Came::Unseen, is_foreign);
        }
        if can_be_read {
            work.suspect = None;
            return Ok(true);
        }
        // What is there may not be read, which looks like nothing: the last file is left all the same. It stays
        // suspect, and is tried again at every look.
        Ok(Self::leave(&self.last(), work, is_foreign) | self.set_exists(false))
    }

    fn push(&self, work: &mut Work, file: File, identity: Identity, came: Came, is_foreign: &IsForeign<'_>) {
        let limit = work.limit(is_foreign);
        let mut chain = self.chain();
        let arrival =
            Arrival { came, misses_some: std::mem::take(&mut work.misses_some), is_remote: work.is_remote };
        let file = Arc::new(file);
        chain.last = chain.last.push(file.clone(), identity, arrival, limit);
        chain.exists = true;
        work.file = Some(file);
    }

    /// Takes the files that events reported, as far as they still have the names under which they were opened, and looks
    /// at the path.
    pub fn take_arrived(&self, work: &mut Work, opened: Vec<Arrived>, is_foreign: &IsForeign<'_>) {
        let count = work.names.confirmed(opened.iter().map(|arrived| &arrived.pending));
        let is_last = work.names.take_pending(count);
        for (Arrived { file, came, .. }, is_last) in opened.into_iter().zip(is_last) {
            match file {
                Some((_, identity)) if identity == self.last().identity => {
                    // It may be away again by now; then it is reported as gone once more.
                    self.last().come_back();
                }
                Some((_, identity)) if work.found.contains(&identity) => {}
                Some((file, identity)) => {
                    self.push(work, file, identity, came, is_foreign);
                    if !is_last {
                        Self::leave(&self.last(), work, is_foreign);
                    }
                }
                None => work.misses_some |= !is_last,
            }
        }
        self.wake();
        if let Err(error) = self.look(work, true, is_foreign) {
            tracing::debug!(%error, path = %self.path, "a followed file cannot be looked at");
        }
    }
}
