//! Tells followers that it is time to look: one inotify instance for the whole server, a watch a directory.
//!
//! It only wakes; what happened is found by looking. inotify misses what mmap and remote file systems write, its
//! queue overflows, and its watches run out, so a follower also looks by itself now and then. Where there is no
//! inotify, it looks more often: [`Watch::interval`] says how often.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    task::JoinHandle,
};

use super::root::Parent;

/// How often a watched file is looked at all the same.
const SAFETY: Duration = Duration::from_secs(1);

/// How often an unwatched file is looked at.
const POLL: Duration = Duration::from_millis(250);

/// What is read of the queue at once: about a hundred events.
const QUEUE_BYTES: usize = 8 * 1024;

/// All watches of a server. Dropping it ends the task that reads the queue.
#[derive(Debug)]
pub struct Watches {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    inotify: Option<AsyncFd<OwnedFd>>,
    directories: Mutex<HashMap<i32, HashMap<String, Follow>>>,
}

/// Those who follow one file.
#[derive(Debug)]
struct Follow {
    changed: watch::Sender<()>,
}

/// One follower's share of a watch; dropping the last one of a directory removes the directory's watch.
#[derive(Debug)]
pub struct Watch {
    changed: Option<watch::Receiver<()>>,
    place: Option<(Weak<Shared>, i32, String)>,
}

impl Watches {
    /// Starts the task that reads the queue, on the runtime of the caller.
    pub fn new() -> Self {
        #[expect(deprecated, reason = "for types that may change their descriptor; an OwnedFd keeps it")]
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(io::Error::from)
            .and_then(|queue| AsyncFd::with_interest(queue, Interest::READABLE))
            .inspect_err(|error| tracing::warn!(%error, "no inotify: followed files are polled"))
            .ok();
        let shared = Arc::new(Shared { inotify, directories: Mutex::default() });
        let reader = shared.inotify.is_some().then(|| tokio::spawn(read_queue(shared.clone())));
        Self { shared, reader }
    }

    /// Watches a file of a directory; it need not be there. Without inotify the watch only tells how often to look.
    pub fn watch(&self, parent: &Parent, name: &str) -> Watch {
        self.try_watch(parent, name).unwrap_or_else(|error| {
            tracing::warn!(%error, "a followed file cannot be watched and is polled");
            Watch { changed: None, place: None }
        })
    }

    fn try_watch(&self, parent: &Parent, name: &str) -> io::Result<Watch> {
        let Some(inotify) = &self.shared.inotify else { return Ok(Watch { changed: None, place: None }) };
        let descriptor = parent.descriptor()?;
        let flags = WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ONLYDIR;
        // Under the lock, so that no one removes the directory's watch between making it and being counted.
        let mut directories = self.shared.directories();
        let directory = inotify::add_watch(inotify, Parent::watch_path(&descriptor), flags)?;
        let follow = directories.entry(directory).or_default().entry(name.into());
        let follow = follow.or_insert_with(|| Follow { changed: watch::Sender::new(()) });
        let changed = Some(follow.changed.subscribe());
        Ok(Watch { changed, place: Some((Arc::downgrade(&self.shared), directory, name.into())) })
    }

    /// How many directories are watched.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.shared.directories().len()
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

impl Shared {
    fn directories(&self) -> MutexGuard<'_, HashMap<i32, HashMap<String, Follow>>> {
        // A panic elsewhere leaves the map whole: every change of it is one call.
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the followers of a file, or of a whole directory, or all.
    fn wake(&self, directory: Option<i32>, name: Option<&str>) {
        let directories = self.directories();
        let wanted = directories.iter().filter(|(id, _)| directory.is_none_or(|directory| directory == **id));
        for (_, files) in wanted {
            let wanted = files.iter().filter(|(file, _)| name.is_none_or(|name| name == *file));
            wanted.for_each(|(_, follow)| follow.changed.send_replace(()));
        }
    }
}

/// Ends with an error of the queue only; then every follower still looks by itself.
async fn read_queue(shared: Arc<Shared>) {
    let Some(inotify) = &shared.inotify else { return };
    let mut buffer = [const { MaybeUninit::uninit() }; QUEUE_BYTES];
    loop {
        let Ok(mut ready) = inotify.readable().await else { return };
        let mut events = inotify::Reader::new(inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => shared.wake(None, None),
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_string_lossy());
                    shared.wake(Some(event.wd()), name.as_deref());
                }
                Err(rustix::io::Errno::WOULDBLOCK) => break ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "inotify ended: followed files are polled");
                    return;
                }
            }
        }
    }
}

impl Watch {
    /// How often to look even when nothing was told.
    pub fn interval(&self) -> Duration {
        if self.changed.is_some() { SAFETY } else { POLL }
    }

    /// Takes note that the file is looked at now: what changes from here on is told.
    pub fn mark(&mut self) {
        if let Some(changed) = &mut self.changed {
            changed.mark_unchanged();
        }
    }

    /// Waits until something changed since [`mark`](Self::mark). Cancelling it loses nothing.
    pub async fn changed(&mut self) {
        let told = match &mut self.changed {
            Some(changed) => changed.changed().await.is_ok(),
            None => false,
        };
        if !told {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Before counting the others.
        self.changed = None;
        let Some((shared, directory, name)) = self.place.take() else { return };
        let Some(shared) = shared.upgrade() else { return };
        let mut directories = shared.directories();
        let Some(files) = directories.get_mut(&directory) else { return };
        if files.get(&name).is_some_and(|follow| follow.changed.receiver_count() == 0) {
            files.remove(&name);
        }
        if files.is_empty() {
            directories.remove(&directory);
            if let Some(inotify) = &shared.inotify {
                // It fails where the directory itself is gone, and its watch with it.
                let _ = inotify::remove_watch(inotify, directory);
            }
        }
    }
}
