//! Reports to followers when to read, and which file is at a path: one inotify instance and one thread for the whole
//! server, one watch for each directory, and one [`Followed`] for each path, whatever the number of its followers.
//!
//! Events wake followers, and report in which order files came to a path; each file is then inspected. inotify misses
//! writes by mmap and on remote file systems, its queue overflows, and its watches run out: so every followed path is
//! inspected once a second as well, and four times a second where no event can report a change. The thread ends with the
//! [`Watches`]; if it fails or panics, it starts again, and every path is inspected.
//!
//! A path with links is watched where it leads, as if the file there were followed by its own path, and in the directory
//! of each link. Of a path without links, the directories on it are watched, too: they may be replaced. A directory that is
//! outside the root, or that the rules deny, is never watched.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::{
        MemfdFlags,
        inotify::{self, CreateFlags, WatchFlags},
        memfd_create,
    },
};
use tokio::time::Instant;

use super::root::{
    FilePath, Named, Parent, Roots,
    rotated_name::is_rotation,
    trail::{LinkPlace, Trail},
};
pub use follow::Follow;
use followed::{Followed, Work};
use links::LinkWatch;

mod events;
mod follow;
mod followed;
mod links;
mod names;
mod unseen;

/// How often a watched path is inspected without an event.
const SAFETY: Duration = Duration::from_secs(1);

/// How often a path is polled for which no event can report a change: on a remote file system, or without a watch or a
/// directory.
const POLL: Duration = Duration::from_millis(250);

/// The events of every directory. A directory has one watch with one set of flags, for all of its roles.
const DIRECTORY: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ONLYDIR);

/// How often, and for how long, a new follower waits for the event of a file that has just come.
const ATTEMPTS: usize = 25;
const PAUSE: Duration = Duration::from_millis(5);

/// All followed paths. Dropping it ends its thread.
#[derive(Debug)]
pub struct Watches {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    roots: Arc<Roots>,
    inotify: Option<OwnedFd>,
    /// A file without a name, whose watches mark moments in the queue of events.
    marked: Option<OwnedFd>,
    /// Wakes the thread: a new path is followed, or the thread has to end.
    waker: OwnedFd,
    ends: AtomicBool,
    /// The thread is to panic after the next event.
    #[cfg(test)]
    panics: AtomicBool,
    /// How many files of a path are kept open.
    max_open: usize,
    table: Mutex<Table>,
}

impl Table {
    /// The events that come from now on are younger than the registrations that wait for this mark; `None`: than all.
    fn reach(&mut self, mark: Option<i32>) {
        let waits =
            |watching: &Watching| watching.after.is_some() && (mark.is_none() || watching.after == mark);
        for all in self.watched.values_mut().filter(|all| all.iter().any(waits)) {
            Arc::make_mut(all).iter_mut().filter(|it| waits(it)).for_each(|it| it.after = None);
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    followed: HashMap<FilePath, Arc<Followed>>,
    /// By the number of the watch: the paths that it reports to.
    watched: HashMap<i32, Arc<Vec<Watching>>>,
}

/// A path that a watch reports to.
#[derive(Clone, Debug)]
struct Watching {
    followed: Arc<Followed>,
    role: Role,
    /// Events are older than this registration until the one that says that the watch with this number is gone.
    after: Option<i32>,
}

impl Watching {
    fn is(&self, followed: &Arc<Followed>, role: &Role) -> bool {
        Arc::ptr_eq(&self.followed, followed) && self.role == *role
    }
}

/// Why a directory or a file is watched for a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Role {
    /// It is the directory of the file that the path leads to, which has this name.
    Directory(String),
    /// It is the directory of a link on the path, or of another directory on it, which has this name.
    Link(String),
    /// It is the file, whose changes its directory does not report.
    File,
    /// It is the mark up to which the events of a directory that is no longer on the path are recorded.
    Mark,
}

impl Watches {
    /// Starts the thread. Of each path, `max_open` rotated files are kept open.
    ///
    /// # Errors
    /// Where the system gives no thread or no descriptor.
    pub fn new(roots: Arc<Roots>, max_open: usize) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .inspect_err(|error| tracing::warn!(%error, "no inotify: followed files are polled"))
            .ok();
        let marked = memfd_create("perennial", MemfdFlags::CLOEXEC).ok();
        let waker = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let (ends, table) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared {
            roots,
            inotify,
            marked,
            waker,
            ends,
            #[cfg(test)]
            panics: AtomicBool::new(false),
            max_open,
            table,
        });
        let thread = {
            let shared = shared.clone();
            std::thread::Builder::new().name("lines-watch".into()).spawn(move || shared.keep_running())?
        };
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Follows a path. There need be no file, nor a directory. Blocks.
    ///
    /// # Errors
    /// The error of opening the file at the path, if the server lacks descriptors or memory for it.
    pub fn follow(&self, path: &FilePath) -> io::Result<Follow> {
        let followed = {
            let mut table = self.shared.table();
            let new = || Arc::new(Followed::new(path.clone(), self.shared.max_open));
            let followed = table.followed.entry(path.clone()).or_insert_with(new).clone();
            followed.add_follower();
            followed
        };
        // From here on, dropping it undoes everything.
        let follow = Follow::new(Arc::downgrade(&self.shared), followed);
        self.shared.wake()?;
        for _ in 0..ATTEMPTS {
            self.shared.look(&follow.followed)?;
            if !follow.followed.work().is_suspect() {
                break;
            }
            // The file at the path is a new one, which an event is about to report.
            std::thread::sleep(PAUSE);
        }
        Ok(follow)
    }

    /// Whether a file that is no longer at its path became another log's: its present name is denied by the rules, or
    /// followed itself. A rotation of the path is the path's own, also if it is followed.
    pub fn is_foreign(&self, path: &FilePath, file: &File) -> bool {
        self.shared.is_foreign(path, file)
    }

    /// How many watches there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.shared.table().watched.len()
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        let woken = self.shared.wake();
        if let Some(thread) = self.thread.take().filter(|_| woken.is_ok()) {
            // A panic was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic elsewhere leaves the maps whole: every change of them is one call.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) -> io::Result<()> {
        match rustix::io::write(&self.waker, &1_u64.to_ne_bytes()) {
            // Full: it was woken often enough.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Runs until the end, again after each failure.
    fn keep_running(&self) {
        let _told = TellOnExit(self);
        loop {
            // A panic was printed when it happened, and leaves nothing half done that an inspection does not correct.
            let _ = catch_unwind(AssertUnwindSafe(|| self.run()));
            if self.ends.load(Ordering::Acquire) {
                return;
            }
            tracing::error!("the thread that watches followed files failed, and starts again");
            std::thread::sleep(SAFETY);
            self.table().followed.values().for_each(|followed| followed.work().lose_events());
        }
    }

    fn run(&self) {
        let mut next = Instant::now() + POLL;
        let mut all = Instant::now() + SAFETY;
        let mut pending = Vec::new();
        while !self.ends.load(Ordering::Acquire) {
            let is_idle = self.table().followed.is_empty();
            let wait = next.saturating_duration_since(Instant::now());
            let wait = if pending.is_empty() { wait } else { Duration::ZERO };
            if let Err(error) = self.wait((!is_idle).then_some(wait)) {
                tracing::error!(%error, "followed files cannot be watched");
                return;
            }
            pending = self.read_events(pending);
            #[cfg(test)]
            assert!(!self.panics.swap(false, Ordering::Relaxed), "a test asked for it");
            let now = Instant::now();
            if now < next {
                continue;
            }
            let is_all = now >= all;
            let paths = self.table().followed.values().cloned().collect::<Vec<_>>();
            let due = paths.iter().filter(|followed| is_all || followed.is_polled());
            let polls = due.filter(|followed| self.check(followed)).count() > 0 || !is_all;
            if is_all {
                for followed in &paths {
                    self.roots.check_home(&followed.path);
                }
                all = now + SAFETY;
            }
            next = if polls { now + POLL } else { all };
        }
    }

    /// Waits for an event, a call of [`wake`](Self::wake), or the end of the time.
    fn wait(&self, time: Option<Duration>) -> io::Result<()> {
        let mut wanted = vec![PollFd::new(&self.waker, PollFlags::IN)];
        wanted.extend(self.inotify.as_ref().map(|inotify| PollFd::new(inotify, PollFlags::IN)));
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        match poll(&mut wanted, time.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.waker, &mut count);
        Ok(())
    }

    /// Polls a path without an event. True if it has to be polled again soon.
    fn check(&self, followed: &Arc<Followed>) -> bool {
        if let Err(error) = self.look(followed) {
            tracing::debug!(%error, path = %followed.path, "a followed file cannot be inspected");
        }
        followed.is_polled()
    }

    /// Finds out where the path leads and which file is there, and watches the directories that decide it.
    fn look(&self, followed: &Arc<Followed>) -> io::Result<()> {
        let mut work = followed.work();
        let Trail { target, parent, named, links, misses_some } = self.roots.trail(&followed.path);
        let is_same_directory = match (&work.parent, &parent) {
            (Some(old), Some(new)) => old.is_same(new)?,
            (old, new) => old.is_none() && new.is_none(),
        };
        let is_same = is_same_directory && (target.is_none() || work.target == target);
        let was_watched = is_same && !std::mem::take(&mut work.is_stale);
        if !was_watched {
            self.unwatch(followed, work.directory.take());
            if let Some(target) = target.filter(|target| work.target.as_ref() != Some(target)) {
                // The names are those of files at another target.
                work.names.forget();
                work.target = Some(target);
            }
            let role = Role::Directory(work.name().unwrap_or_default().to_owned());
            work.directory = parent.as_ref().and_then(|parent| self.watch_directory(followed, parent, role));
            work.is_remote = parent.as_ref().is_some_and(Parent::is_remote);
            if work.is_remote {
                tracing::info!(path = %followed.path, "a remote file system: this file is polled");
            }
            work.parent = parent;
        }
        let leads_elsewhere = !is_same_directory || followed.led_to() != work.target;
        let has_file = matches!(named, Some(Named::File(_)));
        self.watch_links(followed, &mut work, &links, leads_elsewhere, has_file);
        // What was seen before the directory was watched may be out of date, with no event that says so.
        let named = named.filter(|_| was_watched);
        let looked =
            followed.look(&mut work, was_watched, named, &|file| self.is_foreign(&followed.path, file));
        // Only where its directory does not report its changes: the file has another name, too.
        let wanted = if work.is_elsewhere { work.file_inode() } else { None };
        if wanted != work.watched_inode {
            let role = Role::File;
            self.unwatch(followed, work.file_watch.take().map(|watch| (watch, role.clone())));
            work.file_watch =
                work.file().and_then(|file| self.watch(followed, file, WatchFlags::MODIFY, role));
            work.watched_inode = wanted;
        }
        let is_reported = work.directory.is_some()
            && !misses_some
            && work.links.on_path.iter().all(LinkWatch::is_watched)
            && (!work.is_elsewhere || work.file_watch.is_some());
        followed.set_polled(!is_reported || work.is_remote);
        looked
    }

    /// Inspects the links on the path, and watches their directories. `has_file`: the target was found to be a file just
    /// now. See [`LinkWatch::inspect`].
    fn watch_links(
        &self,
        followed: &Arc<Followed>,
        work: &mut Work,
        links: &[LinkPlace],
        leads_elsewhere: bool,
        has_file: bool,
    ) {
        let mut old = std::mem::take(&mut work.links.on_path);
        for place in links {
            let known = old.iter().position(|known| known.is(place)).map(|at| old.swap_remove(at));
            let link = known.or_else(|| work.links.take_leaving(place)).map(|mut known| {
                work.pass_links(known.inspect(place, leads_elsewhere));
                known
            });
            work.links.on_path.push(link.unwrap_or_else(|| {
                let role = Role::Link(place.name.clone());
                LinkWatch::new(place, self.watch(followed, &place.directory, DIRECTORY, role))
            }));
        }
        old.retain(|old| !work.links.on_path.iter().any(|new| new.watch() == old.watch()));
        for mut old in old {
            // The file that replaced a link comes with an event, which counts as that of a link.
            let is_replaced = has_file && work.directory.as_ref().is_some_and(|own| old.is_at(own));
            work.pass_links(old.leave(is_replaced));
            match self.mark_for(followed) {
                Some(mark) => work.links.leaving.push((old, mark)),
                None => self.unwatch(followed, old.watch()),
            }
        }
    }

    /// Marks this moment for a path, which is told when all events before it are recorded. See [`mark`](Self::mark).
    fn mark_for(&self, followed: &Arc<Followed>) -> Option<i32> {
        // Under the lock, so that the event is not taken before it is registered.
        let mut table = self.table();
        let mark = self.mark().filter(|_| followed.is_followed())?;
        let watching = Watching { followed: followed.clone(), role: Role::Mark, after: None };
        Arc::make_mut(table.watched.entry(mark).or_default()).push(watching);
        Some(mark)
    }

    /// All events before a mark, or of a directory or file that is gone, are recorded.
    fn forget(&self, followed: &Arc<Followed>, watch: i32) {
        let left = followed.work().forget(watch);
        for left in left {
            self.unwatch(followed, Some(left));
        }
        self.unwatch(followed, Some((watch, Role::Mark)));
        self.check(followed);
    }

    /// See [`Watches::is_foreign`].
    fn is_foreign(&self, path: &FilePath, file: &File) -> bool {
        let Some(present) = self.roots.present_path(path, file) else { return false };
        if present == *path || self.roots.denies(&present) {
            return present != *path;
        }
        let table = self.table();
        let is_rotation_of =
            |path: &FilePath| present.is_beside(path) && is_rotation(&path.name, &present.name);
        let led_to = table.followed.get(path).and_then(|followed| followed.led_to());
        let is_rotation = is_rotation_of(path) || led_to.as_ref().is_some_and(is_rotation_of);
        !is_rotation && table.followed.contains_key(&present)
    }

    fn watch_directory(&self, followed: &Arc<Followed>, parent: &Parent, role: Role) -> Option<(i32, Role)> {
        let watch = self.watch(followed, &parent.descriptor().ok()?, DIRECTORY, role.clone())?;
        Some((watch, role))
    }

    /// Watches an open directory or file; `None` where there is no inotify, or no watch left.
    fn watch(&self, followed: &Arc<Followed>, open: impl AsFd, flags: WatchFlags, role: Role) -> Option<i32> {
        let inotify = self.inotify.as_ref()?;
        // Under the lock, so that the watch is not removed between its creation and its registration.
        let mut table = self.table();
        if !followed.is_followed() {
            return None;
        }
        match inotify::add_watch(inotify, Parent::watch_path(open.as_fd()), flags) {
            Ok(watch) => {
                let all = Arc::make_mut(table.watched.entry(watch).or_default());
                if !all.iter().any(|other| other.is(followed, &role)) {
                    // Another path may have the watch already, and the queue may have events of it.
                    let after = if all.is_empty() { None } else { self.mark() };
                    all.push(Watching { followed: followed.clone(), role, after });
                }
                Some(watch)
            }
            Err(error) => {
                let path = &followed.path;
                tracing::warn!(%error, %path, "no watch: this file is polled, {} times a second", 1000 / POLL.as_millis());
                None
            }
        }
    }

    /// Marks this moment in the queue of events: an event will say that the watch with this number is gone.
    fn mark(&self) -> Option<i32> {
        let (inotify, marked) = (self.inotify.as_ref()?, self.marked.as_ref()?);
        let mark =
            inotify::add_watch(inotify, Parent::watch_path(marked.as_fd()), WatchFlags::DELETE_SELF).ok()?;
        inotify::remove_watch(inotify, mark).ok()?;
        Some(mark)
    }

    fn unwatch(&self, followed: &Arc<Followed>, watch: Option<(i32, Role)>) {
        let Some((watch, role)) = watch else { return };
        let mut table = self.table();
        let Some(all) = table.watched.get_mut(&watch).map(Arc::make_mut) else { return };
        all.retain(|other| !other.is(followed, &role));
        if all.is_empty() {
            table.watched.remove(&watch);
            if let Some(inotify) = &self.inotify {
                // It fails if the directory or file is gone, and the watch with it.
                let _ = inotify::remove_watch(inotify, watch);
            }
        }
    }
}

/// Wakes the followers when the thread ends, so that they do not wait for it.
struct TellOnExit<'a>(&'a Shared);

impl Drop for TellOnExit<'_> {
    fn drop(&mut self) {
        self.0.ends.store(true, Ordering::Release);
        self.0.table().followed.values().for_each(|followed| followed.wake());
    }
}

#[cfg(test)]
mod tests;
