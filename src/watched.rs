//! Files that are read from time to time, and used again when they have changed.
//!
//! The files are read and compared: that also notices a link that leads elsewhere, a mount that was replaced, and a network
//! file system. New contents are used when they were read twice, because files are not always replaced in one step.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use tokio::sync::{Notify, watch};

/// The contents of some files over time.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// The contents that were used or refused last.
    settled: u64,
    are_refused: bool,
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
        Self { settled: mark, are_refused: false, seen: None, second_reading: Duration::MAX }
    }

    /// New contents are read the second time after this pause, so that a change takes little longer than the interval.
    pub fn with_second_reading(self, second_reading: Duration) -> Self {
        Self { second_reading, ..self }
    }

    /// Waits until the files must be read: after the interval, or when the operator asks for it. Returns whether that was so.
    pub async fn is_asked(&self, interval: Duration, asked: &Asked) -> bool {
        let pause = if self.seen.is_some() { interval.min(self.second_reading) } else { interval };
        tokio::time::timeout(pause, asked.request.notified()).await.is_ok()
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

    /// Whether these contents are in use.
    pub fn are_in_use(&self, mark: u64) -> bool {
        mark == self.settled && !self.are_refused
    }

    /// These contents are used or refused now.
    pub fn settle(&mut self, mark: u64, are_refused: bool) {
        (self.settled, self.are_refused, self.seen) = (mark, are_refused, None);
    }
}

/// A reading of files that the operator asks for. The task that follows the files reports when it is done, and why files are
/// refused.
#[derive(Debug, Default)]
pub struct Asked {
    request: Notify,
    done: Notify,
    fault: watch::Sender<Option<String>>,
}

impl Asked {
    /// Asks, and waits until the files are in use or refused.
    pub async fn ask(&self) {
        self.request.notify_one();
        self.done.notified().await;
    }

    /// The files that were asked for are in use or refused.
    pub fn done(&self) {
        self.done.notify_one();
    }

    /// New files are in use, or are refused because of a fault.
    pub fn settled(&self, fault: Option<String>) {
        self.fault.send_replace(fault);
    }

    /// The fault of the files that were read last; `None` while those that were read last are in use.
    pub fn faults(&self) -> watch::Receiver<Option<String>> {
        self.fault.subscribe()
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
        assert!(files.are_in_use(1) && !files.are_in_use(3));
        files.settle(3, false);
        assert!(files.are_in_use(3));
        files.settle(3, true);
        assert!(!files.are_in_use(3), "refused ones are tried again when the operator asks");
        assert_eq!(files.read(3), Reading::Same);
        assert_eq!(files.read(1), Reading::New);
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_reading_can_follow_sooner_than_the_next_interval() {
        let (asked, interval) = (Asked::default(), Duration::from_secs(10));
        let mut files = Watched::new(1).with_second_reading(Duration::from_secs(1));
        for (mark, seconds) in [(1, 10), (2, 10), (2, 1), (1, 1), (1, 10)] {
            let start = tokio::time::Instant::now();
            assert!(!files.is_asked(interval, &asked).await);
            assert_eq!(start.elapsed().as_secs(), seconds);
            files.read(mark);
        }
        let asks = async {
            asked.ask().await;
            assert_eq!(asked.faults().borrow().as_deref(), Some("it is empty"));
        };
        let follows = async {
            assert!(files.is_asked(interval, &asked).await);
            asked.settled(Some("it is empty".into()));
            asked.done();
        };
        tokio::join!(asks, follows);
    }
}
