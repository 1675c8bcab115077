//! The files that were at a path, one after another: a chain in which every reader holds its place, so that a file stays
//! open until all readers have read it, and no longer.

use std::{
    fs::File,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::time::Instant;

use super::overlap::Overlap;
use crate::lines::identity::Identity;

/// One file that was at a path.
#[derive(Debug)]
pub struct Generation {
    /// See [`file`](Self::file).
    file: Mutex<Option<Arc<File>>>,
    pub identity: Identity,
    pub arrival: Arrival,
    left: Mutex<Option<Left>>,
    next: OnceLock<Arc<Self>>,
    /// What it has in common with a file that was at the path before.
    overlap: Mutex<Overlap>,
    /// How many files of the chain are open.
    open: Arc<AtomicUsize>,
    max_open: usize,
}

/// How a file came to its path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival {
    pub came: Came,
    /// Other files were at the path before it, and are gone.
    pub misses_some: bool,
    /// The content may be out of date for a moment.
    pub is_remote: bool,
}

/// What brought a file to its path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Came {
    /// It was renamed onto the path: it may replace the file before, and hold its lines.
    Renamed,
    /// It was created at the path: it is a new file whatever it holds.
    Created,
    /// A link on the path was pointed to it: it is another file whatever it holds, and the file before stays what it is.
    Linked,
    /// No event reported it.
    #[default]
    Unseen,
}

/// How a file left its path.
#[derive(Clone, Copy, Debug)]
struct Left {
    since: Instant,
    /// See [`Generation::limit`].
    limit: Option<u64>,
}

impl Generation {
    /// The start of a chain, which has no file. At most `max_open` files of the chain are kept open.
    pub fn none(max_open: usize) -> Arc<Self> {
        Arc::new(Self {
            file: Mutex::default(),
            identity: Identity::default(),
            arrival: Arrival::default(),
            left: Mutex::new(Some(Left { since: Instant::now(), limit: None })),
            next: OnceLock::new(),
            overlap: Mutex::default(),
            open: Arc::default(),
            max_open,
        })
    }

    /// Puts a file after this one, which must be the last of its chain, and which leaves the path with this limit.
    pub fn push(
        &self,
        file: Arc<File>,
        identity: Identity,
        arrival: Arrival,
        limit: Option<u64>,
    ) -> Arc<Self> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        if open > self.max_open && self.close().is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        let next = Arc::new(Self {
            file: Mutex::new(Some(file)),
            identity,
            arrival,
            left: Mutex::default(),
            next: OnceLock::new(),
            overlap: Mutex::default(),
            open: self.open.clone(),
            max_open: self.max_open,
        });
        self.leave(limit);
        self.next.get_or_init(|| next).clone()
    }

    /// The file. `None` at the start of the chain, and where too many files are open. The last one of a chain has it.
    pub fn file(&self) -> Option<Arc<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is the start of a chain: there was no file yet.
    pub fn is_start(&self) -> bool {
        self.identity == Identity::default()
    }

    fn close(&self) -> Option<Arc<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The one that came to the path after it.
    pub fn next(&self) -> Option<&Arc<Self>> {
        self.next.get()
    }

    fn lock_left(&self) -> MutexGuard<'_, Option<Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when it is no longer at the path.
    pub fn left(&self) -> Option<Instant> {
        self.lock_left().map(|left| left.since)
    }

    /// The offset from which its lines are not this log's. It was its size when it was found to have left the path for a
    /// name that the rules deny or that is followed itself; `None` in all other cases.
    pub fn limit(&self) -> Option<u64> {
        self.lock_left().and_then(|left| left.limit)
    }

    /// What it has in common with a file that was at the path before. Others that compare them wait.
    pub fn overlap(&self) -> MutexGuard<'_, Overlap> {
        self.overlap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is no longer at the path. True if it was until now.
    pub fn leave(&self, limit: Option<u64>) -> bool {
        let mut left = self.lock_left();
        let was_here = left.is_none();
        left.get_or_insert_with(|| Left { since: Instant::now(), limit });
        was_here
    }

    /// It is at the path, again. True if it was not until now.
    pub fn come_back(&self) -> bool {
        self.lock_left().take().is_some()
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.close().is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        // One by one: a long chain would need a stack frame for each.
        let mut next = self.next.take();
        while let Some(mut generation) = next.and_then(Arc::into_inner) {
            next = generation.next.take();
        }
    }
}
