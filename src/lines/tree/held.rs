//! The files and directories that all streams of files hold together, and their maximum.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::lines::Error;

/// The files and directories of all streams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Watched {
    held: Arc<AtomicUsize>,
    limit: usize,
}

impl Watched {
    /// Up to `limit` files and directories.
    pub fn new(limit: usize) -> Self {
        Self { held: Arc::default(), limit }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// The share of a stream, which holds nothing yet.
    pub fn share(&self) -> Share {
        Share { watched: self.clone(), count: 0 }
    }
}

/// The files and directories of one stream, until it is dropped.
#[derive(Debug)]
pub struct Share {
    watched: Watched,
    count: usize,
}

impl Share {
    /// Sets how many the stream holds.
    ///
    /// # Errors
    /// [`Error::TooManyWatched`]; then it is as it was.
    pub fn set(&mut self, count: usize) -> Result<(), Error> {
        let Watched { held, limit } = &self.watched;
        let more = count.saturating_sub(self.count);
        let add = |held: usize| held.checked_add(more).filter(|held| more == 0 || held <= limit);
        if held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_err() {
            return Err(Error::TooManyWatched { limit: *limit });
        }
        held.fetch_sub(self.count.saturating_sub(count), Ordering::Relaxed);
        self.count = count;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.watched.held.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn streams_share_the_maximum_and_a_dropped_one_leaves_room() {
        let watched = Watched::new(10);
        let (mut one, mut other) = (watched.share(), watched.share());
        one.set(6).unwrap();
        other.set(4).unwrap();
        assert!(matches!(other.set(5), Err(Error::TooManyWatched { limit: 10 })));
        assert_eq!(watched.count(), 10);
        one.set(2).unwrap();
        other.set(5).unwrap();
        assert_eq!(watched.count(), 7);
        drop(one);
        other.set(10).unwrap();
        assert!(other.set(usize::MAX).is_err());
        drop(other);
        assert_eq!(watched.count(), 0);
    }
}
