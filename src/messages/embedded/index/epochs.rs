//! Loss epochs: numbers that say of two removals which one was later, and whether the log has them.
//!
//! A subscription that had a fresh start keeps the epoch in which it began: what was removed up to then is no gap of it. A
//! power cut or a restored copy can undo removals, and with them epochs that cursors have. So each run of the server begins
//! with a random number above the last epoch that it knows, and the file of trim points has the ranges of all runs: an epoch
//! outside of these is of a history that the log does not have, and nothing is concluded from it. No clock is involved.

use crate::messages::embedded::format::trim_points::{EpochRange, MAX_RUNS};

/// The first epoch of a run is above the last one by up to this number. The ranges of two runs that follow the same one overlap
/// with the probability of their lengths in it.
const MAX_JUMP: u64 = 1 << 40;

/// The loss epochs of a log.
#[derive(Debug)]
pub struct Epochs {
    /// Oldest first, and not adjacent but by chance.
    runs: Vec<EpochRange>,
    /// The last one is this run of the server.
    has_begun: bool,
    /// The last epoch from before this run; 0 for none.
    before: u64,
    /// The first epoch of this run is above that by this number.
    jump: u64,
}

impl Default for Epochs {
    fn default() -> Self {
        let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
        Self { runs: Vec::new(), has_begun: false, before: 0, jump: 1 + random % MAX_JUMP }
    }
}

impl Epochs {
    /// Takes the epochs of earlier runs. No removal was in a later epoch than `last`.
    pub fn restore(&mut self, runs: Vec<EpochRange>, last: u64) {
        self.before = runs.last().map_or(0, |run| run.last).max(last);
        self.runs = runs;
    }

    /// The epoch of the last removal; 0 if there was none.
    pub fn last(&self) -> u64 {
        self.runs.last().map_or(self.before, |run| run.last)
    }

    /// The epoch of another removal.
    pub fn next(&mut self) -> u64 {
        let next = if self.has_begun { 1 } else { self.jump };
        let next = self.before.max(self.last()).saturating_add(next);
        match self.runs.last_mut().filter(|_| self.has_begun) {
            Some(run) => run.last = next,
            None => self.runs.push(EpochRange { first: next, last: next }),
        }
        self.has_begun = true;
        let excess = self.runs.len().saturating_sub(MAX_RUNS);
        self.runs.drain(..excess);
        next
    }

    /// Whether an epoch is one of this log.
    pub fn has(&self, epoch: u64) -> bool {
        let place = self.runs.partition_point(|run| run.last < epoch);
        self.runs.get(place).is_some_and(|run| run.first <= epoch)
    }

    /// The epochs of the runs that are known, oldest first.
    pub fn runs(&self) -> &[EpochRange] {
        &self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The epochs after a restart, of which the disk has some runs.
    fn restarted(runs: &[EpochRange]) -> Epochs {
        let mut epochs = Epochs::default();
        epochs.restore(runs.to_vec(), 0);
        epochs
    }

    #[test]
    fn epochs_rise_and_the_log_has_those_of_its_runs_alone() {
        let mut epochs = Epochs::default();
        assert_eq!((epochs.last(), epochs.has(0), epochs.has(1)), (0, false, false));
        let mut last = 0;
        for _ in 0..20 {
            let first = epochs.next();
            assert!(first > last && !epochs.has(first - 1) && epochs.has(first) && !epochs.has(first + 1));
            assert_eq!((epochs.next(), epochs.last()), (first + 1, first + 1));
            assert!(last == 0 || epochs.has(last), "of an earlier run");
            last = first + 1;
            epochs = restarted(epochs.runs());
            assert_eq!(epochs.last(), last, "a run that removes nothing");
            epochs = restarted(epochs.runs());
        }
    }

    #[test]
    fn the_log_does_not_have_epochs_that_were_undone() {
        let mut epochs = Epochs::default();
        let common = epochs.next();
        let mut undone = restarted(epochs.runs());
        let (first, second) = (undone.next(), undone.next());
        // Whether later runs begin below those epochs or above.
        for _ in 0..100 {
            let mut other = restarted(epochs.runs());
            for _ in 0..3 {
                other.next();
                other = restarted(other.runs());
            }
            assert!(other.has(common) && !other.has(first) && !other.has(second));
        }
    }

    #[test]
    fn the_epochs_of_the_last_runs_are_kept() {
        let mut epochs = Epochs::default();
        let first = epochs.next();
        for _ in 1..MAX_RUNS {
            epochs = restarted(epochs.runs());
            epochs.next();
        }
        assert!(epochs.has(first));
        let mut epochs = restarted(epochs.runs());
        epochs.next();
        assert_eq!((epochs.has(first), epochs.runs().len()), (false, MAX_RUNS));
    }

    #[test]
    fn a_file_without_runs_has_no_epoch_that_can_be_given_again() {
        let mut epochs = Epochs::default();
        epochs.restore(Vec::new(), 1_700_000_000_000_000_000);
        assert!(!epochs.has(epochs.last()));
        assert!(epochs.next() > 1_700_000_000_000_000_000);
    }
}
