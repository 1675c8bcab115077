//! Where a reader is in the life of the files at its path.
//!
//! ```text
//!           the file is renamed or deleted              its successor is entered
//!  AtPath ───────────────────────────────▶ Draining ──────────────────────────────▶ AtPath
//!    ▲                                        │ there is no successor: `deleted`
//!    │     a file is at the path              ▼
//!    └───────────────────────────────────── Absent
//!
//!  AtPath, Draining, Absent ── the file before has late lines ──▶ LateLines ── they are read ──▶ as before
//! ```
//!
//! A file that is renamed is drained: its writer may not have reopened the log yet. It is left when it was quiet for the
//! grace, and one more read found nothing.

use tokio::time::Instant;

use super::Paused;
use crate::lines::{content::checkpoint::Checkpoint, identity::Identity};

/// Where a reader is in the life of the files at its path.
#[derive(Debug)]
pub enum State {
    /// In the file at the path, or in one whose renaming the reader has not noticed.
    AtPath,
    /// In a file that is no longer at the path.
    Draining { drained: Drained },
    /// No file is at the path, and this was reported. Lines that are still written to the file before are delivered.
    /// `since` is when that file left the path.
    Absent { since: Option<Instant>, drained: Drained },
    /// In the file before, for lines that were written to it after it was left. `paused` is continued after them.
    LateLines { paused: Box<Paused> },
}

/// How far a reader is with a file that is no longer at its path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drained {
    /// There may be more lines.
    No,
    /// It was quiet for the grace: it is read for the last time.
    LastRead,
    /// The last read found nothing: it can be left.
    Yes,
}

impl State {
    /// The file was found to be renamed or deleted.
    pub fn notice_renamed(&mut self) {
        if matches!(self, Self::AtPath) {
            *self = Self::Draining { drained: Drained::No };
        }
    }

    /// The file was read; `found_nothing` if it was at its end before.
    pub fn record_read(&mut self, found_nothing: bool) {
        if let Self::Draining { drained } | Self::Absent { drained, .. } = self {
            *drained = match drained {
                Drained::LastRead | Drained::Yes if found_nothing => Drained::Yes,
                _ => Drained::No,
            };
        }
    }

    /// The file was quiet for long enough: the next read is the last.
    pub fn ask_for_last_read(&mut self) {
        if let Self::Draining { drained } | Self::Absent { drained, .. } = self {
            *drained = Drained::LastRead;
        }
    }

    /// Nothing more can come from the file.
    pub fn give_up_file(&mut self) {
        self.notice_renamed();
        if let Self::Draining { drained } | Self::Absent { drained, .. } = self {
            *drained = Drained::Yes;
        }
    }

    pub fn is_drained(&self) -> bool {
        matches!(self, Self::Draining { drained: Drained::Yes } | Self::Absent { drained: Drained::Yes, .. })
    }

    /// The file left the path at `since`, and no other came: true if this has to be reported.
    pub fn report_absent(&mut self, since: Option<Instant>) -> bool {
        if self.is_absent() {
            return false;
        }
        *self = Self::Absent { since, drained: Drained::No };
        true
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }

    /// Ends the absence if the file is at the path again: then it left the path at another time than `since`, or has not
    /// left it. True if so.
    pub fn come_back(&mut self, left: Option<Instant>) -> bool {
        let is_back = matches!(self, Self::Absent { since, .. } if *since != left);
        if is_back {
            *self = if left.is_some() { Self::Draining { drained: Drained::No } } else { Self::AtPath };
        }
        is_back
    }

    /// Where the newer file is read on, while late lines of the file before are read.
    pub fn resume_at(&self) -> Option<(Identity, Checkpoint)> {
        match self {
            Self::LateLines { paused } => Some((paused.rotation.identity(), paused.checkpoint)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_renamed_file_is_drained_by_a_last_read_that_finds_nothing() {
        let mut state = State::AtPath;
        state.notice_renamed();
        state.record_read(true);
        assert!(!state.is_drained(), "it was not quiet for the grace");
        state.ask_for_last_read();
        state.record_read(false);
        assert!(!state.is_drained(), "a late line came with the last read");
        state.ask_for_last_read();
        state.record_read(true);
        assert!(state.is_drained());
        state.record_read(false);
        assert!(!state.is_drained(), "a late line came after the last read");
    }

    #[test]
    fn a_file_at_its_path_is_never_drained() {
        let mut state = State::AtPath;
        state.ask_for_last_read();
        state.record_read(true);
        assert!(matches!(state, State::AtPath));
    }

    #[test]
    fn an_absence_is_reported_once_and_ends_when_the_file_is_back_also_if_it_left_again() {
        let (first, second) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let mut state = State::Draining { drained: Drained::Yes };
        assert!(state.report_absent(Some(first)));
        assert!(!state.report_absent(Some(first)));
        assert!(!state.come_back(Some(first)), "it is still away");
        assert!(state.come_back(Some(second)));
        assert!(matches!(state, State::Draining { drained: Drained::No }), "it was back, and left again");
        assert!(state.report_absent(Some(second)));
        assert!(state.come_back(None));
        assert!(matches!(state, State::AtPath));
        assert!(!state.come_back(None));
    }

    #[test]
    fn a_file_that_is_given_up_can_be_left_from_every_state() {
        for mut state in [State::AtPath, State::Draining { drained: Drained::No }] {
            state.give_up_file();
            assert!(state.is_drained());
        }
    }
}
