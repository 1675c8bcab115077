//! Reports which names changed in watched directories: one inotify instance and one thread for all streams of files.
//!
//! It is not the instance that reports writes to followed files: a directory has one set of flags in each instance, and
//! a stream of files must not wake for each write to a log.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::sync::Notify;

use crate::lines::root::Parent;

/// The events of a directory: a name came, went, or got other permissions.
const DIRECTORY: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ONLYDIR);

/// The bytes of the queue that are read at once: about a hundred events.
const QUEUE_BYTES: usize = 8 * 1024;

/// Of a directory with more changed names than this, all names are read again.
const MAX_NAMES: usize = 1_000;

/// If a stream has not looked yet at more changed names and directories than this, it reads all directories again: what
/// is kept for one that its client holds up stays small.
const MAX_CHANGES: usize = 20_000;

/// The pause after a failure of the thread.
const PAUSE: Duration = Duration::from_secs(1);

/// All watched directories. Dropping it ends its thread.
#[derive(Debug)]
pub struct Notices {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    inotify: Option<OwnedFd>,
    /// Wakes the thread for its end.
    waker: OwnedFd,
    ends: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    by_watch: HashMap<i32, Vec<Registered>>,
}

/// A directory of a stream.
#[derive(Debug)]
struct Registered {
    id: u64,
    inbox: Arc<Inbox>,
    path: Arc<str>,
}

/// What changed for one stream since it looked last.
#[derive(Debug, Default)]
pub struct Inbox {
    changes: Mutex<Changes>,
    changed: Notify,
}

/// Changed names.
#[derive(Debug, Default)]
pub struct Changes {
    /// Events were lost: everything may have changed.
    pub all: bool,
    /// By directory.
    pub directories: BTreeMap<Arc<str>, Names>,
    /// The names and directories that were added.
    count: usize,
}

/// The changed names of a directory.
#[derive(Debug)]
pub enum Names {
    /// All may have changed.
    All,
    /// These changed.
    Some(BTreeSet<String>),
}

/// A watch of a directory, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Weak<Shared>,
    number: i32,
    id: u64,
}

impl Inbox {
    /// What changed since the last call.
    pub fn take(&self) -> Changes {
        std::mem::take(&mut self.changes())
    }

    /// Waits for a change since the last [`take`](Self::take). Cancelling it loses nothing.
    pub async fn changed(&self) {
        loop {
            let notified = self.changed.notified();
            let is_changed = {
                let changes = self.changes();
                changes.all || !changes.directories.is_empty()
            };
            if is_changed {
                return;
            }
            notified.await;
        }
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        // A panic elsewhere leaves the map whole: each change is one call.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything may have changed.
    pub fn set_all(&self) {
        self.changes().all = true;
        self.changed.notify_one();
    }

    /// A name changed in a directory; `None`: all may have.
    pub fn add(&self, path: &Arc<str>, name: Option<&str>) {
        self.changes().add(path, name);
        self.changed.notify_one();
    }
}

impl Changes {
    fn add(&mut self, path: &Arc<str>, name: Option<&str>) {
        if self.all {
            return;
        }
        let names = self.directories.entry(path.clone()).or_insert_with(|| {
            self.count += 1;
            Names::Some(BTreeSet::new())
        });
        match (&mut *names, name) {
            (Names::Some(some), Some(name)) if some.len() < MAX_NAMES => {
                self.count += usize::from(some.insert(name.to_owned()));
            }
            (names, _) => *names = Names::All,
        }
        if self.count > MAX_CHANGES {
            *self = Self { all: true, ..Self::default() };
        }
    }
}

impl Notices {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system gives no thread or no descriptor.
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .inspect_err(|error| tracing::warn!(%error, "no inotify: watched directories are polled"))
            .ok();
        let waker = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let (ends, table) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { inotify, waker, ends, table });
        let thread = {
            let shared = shared.clone();
            std::thread::Builder::new().name("files-watch".into()).spawn(move || shared.keep_running())?
        };
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Watches an open directory, which has this path for the stream. `None` where there is no inotify, or no watch left.
    pub fn watch(&self, directory: &Parent, path: &str, inbox: &Arc<Inbox>) -> Option<Watch> {
        let inotify = self.shared.inotify.as_ref()?;
        let descriptor = directory.descriptor().ok()?;
        // Under the lock, so that the watch is not removed between its creation and its registration.
        let mut table = self.shared.table();
        let number = inotify::add_watch(inotify, Parent::watch_path(descriptor.as_fd()), DIRECTORY)
            .inspect_err(|error| tracing::debug!(%error, path, "no watch: this directory is polled"))
            .ok()?;
        table.next_id += 1;
        let id = table.next_id;
        let registered = Registered { id, inbox: inbox.clone(), path: path.into() };
        table.by_watch.entry(number).or_default().push(registered);
        Some(Watch { shared: Arc::downgrade(&self.shared), number, id })
    }

    /// How many directories are watched.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.shared.table().by_watch.len()
    }

    /// As after an overflow of the queue.
    #[cfg(test)]
    pub fn lose_events(&self) {
        self.shared.lose_events();
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        let woken = rustix::io::write(&self.shared.waker, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take().filter(|_| woken.is_ok()) {
            // A panic was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut table = shared.table();
        let Some(all) = table.by_watch.get_mut(&self.number) else { return };
        all.retain(|one| one.id != self.id);
        if all.is_empty() {
            table.by_watch.remove(&self.number);
            if let Some(inotify) = &shared.inotify {
                // It fails if the directory is gone, and the watch with it.
                let _ = inotify::remove_watch(inotify, self.number);
            }
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // As above.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until the end, again after each failure.
    fn keep_running(&self) {
        loop {
            // A panic was printed when it happened.
            let done = catch_unwind(AssertUnwindSafe(|| self.run()));
            if self.ends.load(Ordering::Acquire) {
                return;
            }
            tracing::error!(?done, "the thread that watches directories failed, and starts again");
            std::thread::sleep(PAUSE);
            self.lose_events();
        }
    }

    fn run(&self) -> io::Result<()> {
        while !self.ends.load(Ordering::Acquire) {
            let mut wanted = vec![PollFd::new(&self.waker, PollFlags::IN)];
            wanted.extend(self.inotify.as_ref().map(|inotify| PollFd::new(inotify, PollFlags::IN)));
            match poll(&mut wanted, None) {
                Ok(_) | Err(Errno::INTR) => self.read_events()?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_events(&self) -> io::Result<()> {
        let Some(inotify) = &self.inotify else { return Ok(()) };
        let mut buffer = [const { MaybeUninit::uninit() }; QUEUE_BYTES];
        let mut events = inotify::Reader::new(inotify, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                tracing::warn!("inotify's queue overflowed: every watched directory is read again");
                self.lose_events();
                continue;
            }
            let name = event.file_name().map(|name| name.to_str());
            let mut table = self.table();
            if event.events().contains(ReadFlags::IGNORED) {
                // The directory was removed or unmounted.
                let gone = table.by_watch.remove(&event.wd()).unwrap_or_default();
                for one in gone {
                    one.inbox.add(&one.path, None);
                }
                continue;
            }
            for one in table.by_watch.get(&event.wd()).into_iter().flatten() {
                match name {
                    None => one.inbox.add(&one.path, None),
                    Some(Ok(name)) => one.inbox.add(&one.path, Some(name)),
                    // Names that are not UTF-8 are not shown.
                    Some(Err(_)) => {}
                }
            }
        }
    }

    fn lose_events(&self) {
        for one in self.table().by_watch.values().flatten() {
            one.inbox.set_all();
        }
    }
}
