//! One path that is followed: its chain of generations, and the state that is needed to notice a new one.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    Role,
    links::{LinkWatch, Links},
    names::{Names, Pending},
    unseen::{self, Unseen},
};
use crate::lines::{
    error::is_servers_own,
    history::{
        generation::{Arrival, Came, Generation},
        search, siblings,
    },
    identity::Identity,
    root::{FilePath, Named, Parent, Stamp},
    shared_read::SharedRead,
};

/// How long an event of a file that was seen at a path may take: it is in the queue by then.
const EVENT_PATIENCE: Duration = Duration::from_millis(100);

/// How many files that were at a path are remembered, for readers that resume in them.
const MAX_BEFORE: usize = 64;

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
    /// Those before it, the newest first, as far as readers are still in them.
    before: VecDeque<Weak<Generation>>,
    exists: bool,
    /// The path of the last file, without links.
    led_to: Option<FilePath>,
}

/// The state of a path, for those that inspect it.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not a state in disguise")]
pub struct Work {
    /// Where the path leads: itself, or the path of the file that its links lead to.
    pub target: Option<FilePath>,
    /// The directory of the target, while there is one.
    pub parent: Option<Parent>,
    /// The directory's watch is gone.
    pub is_stale: bool,
    /// The watch of the directory.
    pub directory: Option<(i32, Role)>,
    /// The watches of the directories of the links on the path.
    pub links: Links,
    /// The watch of the file, where its directory does not report its changes.
    pub file_watch: Option<i32>,
    /// Which file that is.
    pub watched_inode: Option<(u64, u64)>,
    /// The file may be written to by another name, which its directory does not report.
    pub is_elsewhere: bool,
    /// Size and content may be out of date for a moment, because other machines write to the file system.
    pub is_remote: bool,
    /// The names of files that events reported.
    pub names: Names,
    /// The last file.
    file: Option<Arc<File>>,
    /// Its size and times when it was last inspected.
    seen: Option<Stamp>,
    /// Another file was at the path without an event: how many events had come then, and since when.
    suspect: Option<(u64, Instant)>,
    /// Events were lost: the file at the path may come without one.
    has_lost_events: bool,
    /// A file was at the path and is gone before it could be opened.
    misses_some: bool,
    /// How many times a link was pointed elsewhere and again elsewhere since the last inspection.
    passed_links: usize,
    /// A file came to the path that cannot be opened. It is missing if another one comes.
    unread: Option<Identity>,
    /// Files that were found without an event; the event may come yet.
    found: Vec<Identity>,
}

/// A file that events reported, opened under its present name if possible.
#[derive(Debug)]
pub struct Arrived {
    pending: Pending,
    file: Option<(File, Identity)>,
    /// The file that cannot be opened.
    unread: Option<Identity>,
    came: Came,
}

impl Work {
    /// A watch is gone, with the directory or file that it watched, or it was a mark. Returns the watches that are needed no
    /// longer.
    pub fn forget(&mut self, watch: i32) -> Vec<(i32, Role)> {
        if self.directory.as_ref().is_some_and(|(known, _)| *known == watch) {
            self.parent = None;
            self.is_stale = true;
        }
        if self.file_watch == Some(watch) {
            self.watched_inode = None;
        }
        let (needless, passed_over) = self.links.forget(watch);
        self.passed_links += passed_over;
        needless
    }

    /// All watches, which are to be removed.
    pub fn take_watches(&mut self) -> Vec<(i32, Role)> {
        let links = std::mem::take(&mut self.links);
        let file = self.file_watch.take().map(|watch| (watch, Role::File));
        let others = [self.directory.take(), file].into_iter().flatten();
        links.watches().chain(others).collect()
    }

    /// The name of the target in its directory.
    pub fn name(&self) -> Option<&str> {
        self.target.as_ref().map(|target| target.name.as_str())
    }

    /// Opens the first files that events reported, under their present names.
    pub fn open_arrived(&self) -> Vec<Arrived> {
        self.names.pending().map(|pending| self.open_pending(pending)).collect()
    }

    fn open_pending(&self, pending: Pending) -> Arrived {
        let (came, named) = (pending.came, pending.name().zip(self.parent.as_ref()));
        let opened = named.map(|(name, parent)| {
            let (file, is_link) = parent.open_through(name)?;
            let identity = Identity::of(&file.metadata()?);
            Ok::<_, io::Error>((file, identity, is_link))
        });
        match opened {
            Some(Ok((file, identity, is_link))) => {
                // The event is about the link, not about its target.
                let came = if is_link { Came::Linked } else { came };
                Arrived { file: Some((file, identity)), unread: None, came, pending }
            }
            Some(Err(error)) => {
                let unread = named.and_then(|(name, parent)| unread(parent, name, &error));
                Arrived { file: None, unread, came, pending }
            }
            None => Arrived { file: None, unread: None, came, pending },
        }
    }

    /// Events were lost: the next inspection does not wait for them.
    pub fn lose_events(&mut self) {
        self.names.forget();
        self.links.all().for_each(LinkWatch::forget_events);
        self.has_lost_events = true;
    }

    /// The links on the path were inspected, and this many were passed over.
    pub fn pass_links(&mut self, count: usize) {
        self.passed_links += count;
    }

    /// Whether an event is about to report the file at the path, and in which order it came. If no event does in time,
    /// a later inspection takes the file.
    fn waits_for_event(&mut self) -> bool {
        if std::mem::take(&mut self.has_lost_events) || self.directory.is_none() {
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
            chain: Mutex::new(Chain {
                last: Generation::none(max_open),
                before: VecDeque::new(),
                exists: false,
                led_to: None,
            }),
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
        // If a panic left a change half done, the next inspection corrects it.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that came to the path last.
    pub fn last(&self) -> Arc<Generation> {
        self.chain().last.clone()
    }

    /// A file that was at the path and that readers are still in, whatever its name is now.
    pub fn find(&self, identity: &Identity) -> Option<Arc<Generation>> {
        let chain = self.chain();
        let before = chain.before.iter().filter_map(Weak::upgrade);
        std::iter::once(chain.last.clone()).chain(before).find(|known| known.identity.is_same(identity))
    }

    /// The files that were at the path before the last one, as far as readers are still in them.
    fn before(&self) -> Vec<Identity> {
        let chain = self.chain();
        chain.before.iter().filter_map(Weak::upgrade).map(|before| before.identity).collect()
    }

    /// There is a file at the path.
    pub fn exists(&self) -> bool {
        self.chain().exists
    }

    /// The path of the last file, without links.
    pub fn led_to(&self) -> Option<FilePath> {
        self.chain().led_to.clone()
    }

    /// The last file is no longer at the path. True if it was until now.
    fn leave(last: &Generation, work: &Work, is_foreign: &IsForeign<'_>) -> bool {
        last.left().is_none() && last.leave(work.limit(is_foreign))
    }

    fn set_exists(&self, exists: bool) -> bool {
        std::mem::replace(&mut self.chain().exists, exists) != exists
    }

    /// Checks which file is at the path, and whether it changed; wakes the followers if so. `was_watched`: so was the
    /// directory, and an event reports, or is about to report, another file in it. `named` is what the name of the target
    /// was found to be just now.
    pub fn look(
        &self,
        work: &mut Work,
        was_watched: bool,
        named: Option<Named>,
        is_foreign: &IsForeign<'_>,
    ) -> io::Result<()> {
        let stat = || work.parent.as_ref().zip(work.name()).and_then(|(parent, name)| parent.stat(name));
        let found = match named {
            Some(Named::File(found)) => Some(found),
            Some(Named::Nothing) => None,
            Some(Named::Link) | None => stat(),
        };
        let last = self.last();
        let mut stamp = None;
        let changed = match found {
            None => {
                work.suspect = None;
                Self::leave(&last, work, is_foreign) | self.set_exists(false)
            }
            Some(found)
                if last.identity == found.identity && work.file.is_some() && work.passed_links == 0 =>
            {
                (work.suspect, work.is_elsewhere, stamp) = (None, found.is_elsewhere, Some(found.stamp));
                self.chain().led_to.clone_from(&work.target);
                last.come_back() | self.set_exists(true)
            }
            Some(found) => {
                work.is_elsewhere = found.is_elsewhere;
                if was_watched && !found.is_elsewhere && work.waits_for_event() {
                    return Ok(());
                }
                self.find_new(work, is_foreign)?
            }
        };
        let file_stamp = || Some(Stamp::of(&work.file()?.metadata().ok()?));
        let seen = stamp.or_else(file_stamp);
        if changed | (std::mem::replace(&mut work.seen, seen) != seen) {
            self.wake();
        }
        Ok(())
    }

    /// Takes the file at the path, and those that were there since the last one as far as they can be found.
    fn find_new(&self, work: &mut Work, is_foreign: &IsForeign<'_>) -> io::Result<bool> {
        let Some((parent, name)) = work.parent.as_ref().zip(work.name()) else { return Ok(false) };
        let passed_links = work.passed_links;
        let is_linked = work.file.is_some() && (self.chain().led_to != work.target || passed_links > 0);
        let beside = match &work.file {
            Some(last) if !is_linked || is_beside(parent, name, last)? => Some(last.metadata()?),
            _ => None,
        };
        let Unseen { mut files, current, misses_last } = match beside {
            Some(last) => {
                let list = || siblings::younger(&[parent.place()], &last, &self.before(), false);
                unseen::find(parent, name, Identity::of(&last), list)?
            }
            None => Unseen { files: Vec::new(), current: unseen::open(parent, name), misses_last: false },
        };
        let can_be_read = match current {
            Ok((file, identity)) => {
                files.retain(|(_, other, _)| *other != identity);
                // A file that a link led to in between may be one that was found by its name.
                let misses_last = misses_last || passed_links > files.len();
                files.push((file, identity, misses_last));
                work.passed_links = 0;
                true
            }
            Err(error) if is_servers_own(&error) => return Err(error),
            Err(error) => {
                work.unread = unread(parent, name, &error).or(work.unread);
                false
            }
        };
        work.found = files.iter().map(|(_, identity, _)| *identity).collect();
        let came = if is_linked { Came::Linked } else { Came::Unseen };
        for (file, identity, misses_some) in files {
            work.misses_some |= misses_some;
            self.push(work, file, identity, came, is_foreign);
        }
        if can_be_read {
            work.suspect = None;
            return Ok(true);
        }
        // The file at the path cannot be read, which is reported as a missing file, so the last file is left. The path
        // stays suspect, and every inspection tries again.
        Ok(Self::leave(&self.last(), work, is_foreign) | self.set_exists(false))
    }

    fn push(&self, work: &mut Work, file: File, identity: Identity, came: Came, is_foreign: &IsForeign<'_>) {
        let limit = work.limit(is_foreign);
        let mut chain = self.chain();
        // A file that was read, and may not be opened again, is not missing.
        let is_missing = |unread: &Identity| ![identity, chain.last.identity].contains(unread);
        work.misses_some |= work.unread.take().as_ref().is_some_and(is_missing);
        // The file may have been created after the link was pointed to it.
        let is_relinked = work.file.is_some() && chain.led_to != work.target;
        let came = if is_relinked { Came::Linked } else { came };
        let arrival =
            Arrival { came, misses_some: std::mem::take(&mut work.misses_some), is_remote: work.is_remote };
        let file = Arc::new(file);
        let next = chain.last.push(file.clone(), identity, arrival, limit);
        let last = std::mem::replace(&mut chain.last, next);
        chain.before.truncate(MAX_BEFORE - 1);
        chain.before.push_front(Arc::downgrade(&last));
        chain.exists = true;
        chain.led_to.clone_from(&work.target);
        work.file = Some(file);
    }

    /// Takes the files that events reported, as far as they still have the names under which they were opened, and
    /// inspects the path. True if one is a link.
    pub fn take_arrived(&self, work: &mut Work, opened: Vec<Arrived>, is_foreign: &IsForeign<'_>) -> bool {
        let is_link = opened.iter().any(|arrived| arrived.came == Came::Linked);
        let count = work.names.confirmed(opened.iter().map(|arrived| &arrived.pending));
        let is_last = work.names.take_pending(count);
        for (Arrived { file, unread, came, pending }, is_last) in opened.into_iter().zip(is_last) {
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
                // The last one may be at the path still, and unreadable; without a name it is gone.
                None => {
                    work.misses_some |= !is_last || pending.name().is_none();
                    work.unread = unread.or(work.unread);
                }
            }
        }
        self.wake();
        if let Err(error) = self.look(work, true, None, is_foreign) {
            tracing::debug!(%error, path = %self.path, "a followed file cannot be inspected");
        }
        is_link
    }
}

/// The file that cannot be opened, if that is because the server may not read it.
fn unread(parent: &Parent, name: &str, error: &io::Error) -> Option<Identity> {
    let may_not = error.kind() == io::ErrorKind::PermissionDenied;
    parent.stat(name).filter(|_| may_not).map(|found| found.identity)
}

/// Whether a file is in a directory, by a name that begins with `name`.
fn is_beside(parent: &Parent, name: &str, file: &File) -> io::Result<bool> {
    let identity = Identity::of(&file.metadata()?);
    let names = search::names_of(&[parent.place()], identity)?;
    Ok(names.iter().any(|found| found.name.starts_with(name)))
}
