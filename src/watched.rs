//! Files that are read from time to time, and used again when they have changed.
//!
//! The files are read and compared: that also notices a link that leads elsewhere, a mount that was replaced, and a network
//! file system. New contents are used when they were read twice, because files are not always replaced in one step.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use tokio::sync::Notify;

/// The contents of some files over time.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// The contents that were used or refused last.
    settled: u64,
    /// Other contents, which were read once since.
    seen: Option<u64>,
    /// The longest pause before the second reading.
    second_reading: Duration,
}

/// What was read, beside what was read before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reading {
    /// The contents that were used or refused last.
    Same,
    /// Other ones, for the first time.
    New,
    /// Other ones, for the second time.
    Again,
}

/// A number that is another one for other contents.
pub fn mark(contents: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    hasher.finish()
}

impl Watched {
    /// Files whose contents with this mark are in use. New ones are read the second time after an interval.
    pub fn new(mark: u64) -> Self {
        Self { settled: mark, seen: None, second_reading: Duration::MAX }
    }

    /// New contents are read the second time after this pause, so that a change takes little longer than the interval.
    pub fn with_second_reading(self, second_reading: Duration) -> Self {
        Self { second_reading, ..self }
    }

    /// Waits until the files must be read: after the interval, or when the operator asks for it. Returns whether that was so.
    pub async fn is_asked(&self, interval: Duration, asked: &Notify) -> bool {
        let pause = if self.seen.is_some() { interval.min(self.second_reading) } else { interval };
        tokio::time::timeout(pause, asked.notified()).await.is_ok()
    }

    /// These contents were read.
    pub fn read(&mut self, mark: u64) -> Reading {
        let reading = match self.seen {
            _ if mark == self.settled => Reading::Same,
            Some(seen) if seen == mark => Reading::Again,
            _ => Reading::New,
        };
        self.seen = (reading != Reading::Same).then_some(mark);
        reading
    }

    /// These contents are used or refused now.
    pub fn settle(&mut self, mark: u64) {
        (self.settled, self.seen) = (mark, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_used_when_they_were_read_twice() {
        let mut files = Watched::new(1);
        for (mark, reading) in [
            (1, Reading::Same),
            (2, Reading::New),
            // Half of the files were replaced when they were read first.
            (3, Reading::New),
            (3, Reading::Again),
            // Nothing was done with it.
            (3, Reading::Again),
            (1, Reading::Same),
            (3, Reading::New),
        ] {
            assert_eq!(files.read(mark), reading, "{mark}");
        }
        files.settle(3);
        assert_eq!(files.read(3), Reading::Same);
        assert_eq!(files.read(1), Reading::New);
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_reading_can_follow_sooner_than_the_next_interval() {
        let (asked, interval) = (Notify::new(), Duration::from_secs(10));
        let mut files = Watched::new(1).with_second_reading(Duration::from_secs(1));
        for (mark, seconds) in [(1, 10), (2, 10), (2, 1), (1, 1), (1, 10)] {
            let start = tokio::time::Instant::now();
            assert!(!files.is_asked(interval, &asked).await);
            assert_eq!(start.elapsed().as_secs(), seconds);
            files.read(mark);
        }
        asked.notify_one();
        assert!(files.is_asked(interval, &asked).await);
    }
}
