//! The files that were at a path, one after another: a chain in which every reader holds its place, so that a file stays
//! open for as long as somebody has not read it, and no longer.

use std::{
    fs::File,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::time::Instant;

use crate::lines::identity::Identity;

/// One file that was at a path.
#[derive(Debug)]
pub struct Generation {
    /// See [`file`](Self::file).
    file: Mutex<Option<Arc<File>>>,
    /// Which file it is.
    pub identity: Identity,
    /// Others were at the path before it, and are gone.
    pub misses_some: bool,
    /// What is read of it may be out of date for a moment.
    pub is_remote: bool,
    left: Mutex<Option<Instant>>,
    next: OnceLock<Arc<Self>>,
    /// How many files of the chain are open.
    open: Arc<AtomicUsize>,
    max_open: usize,
}

impl Generation {
    /// The start of a chain: no file. Of those that follow, so many are kept open.
    pub fn none(max_open: usize) -> Arc<Self> {
        Arc::new(Self {
            file: Mutex::default(),
            identity: Identity::default(),
            misses_some: false,
            is_remote: false,
            left: Mutex::new(Some(Instant::now())),
            next: OnceLock::new(),
            open: Arc::default(),
            max_open,
        })
    }

    /// Puts a file behind this one, which must be the last of its chain.
    pub fn push(&self, file: Arc<File>, identity: Identity, misses_some: bool, is_remote: bool) -> Arc<Self> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        if open > self.max_open && self.close().is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        let next = Arc::new(Self {
            file: Mutex::new(Some(file)),
            identity,
            misses_some,
            is_remote,
            left: Mutex::default(),
            next: OnceLock::new(),
            open: self.open.clone(),
            max_open: self.max_open,
        });
        self.leave();
        self.next.get_or_init(|| next).clone()
    }

    /// The file: none at the start of the chain, and where too many are open. The last one of a chain has it.
    pub fn file(&self) -> Option<Arc<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The start of a chain: there was no file yet.
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

    /// Since when it is no longer at the path.
    pub fn left(&self) -> Option<Instant> {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is no longer at the path. True if it was until now.
    pub fn leave(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let was_here = left.is_none();
        left.get_or_insert_with(Instant::now);
        was_here
    }

    /// It is at the path, again. True if it was not until now.
    pub fn come_back(&self) -> bool {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.close().is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        // One by one: a long chain would take as many frames of the stack.
        let mut next = self.next.take();
        while let Some(mut generation) = next.and_then(Arc::into_inner) {
            next = generation.next.take();
        }
    }
}
