//! Where a reader is in the life of the files at its path.
//!
//! ```text
//!           the file is renamed or deleted              its successor is entered
//!  AtPath ───────────────────────────────▶ Draining ──────────────────────────────▶ AtPath
//!    ▲                                        │ there is no successor: `deleted`
//!    │     a file is at the path              ▼
//!    └───────────────────────────────────── Absent
//!
//!  Draining, Absent ── the file is at the path again ──▶ AtPath, or Draining if it left once more
//!  AtPath, Draining, Absent ── a file that was left has late lines ──▶ LateLines ── they are read ──▶ as before
//! ```
//!
//! A file that is renamed is drained: its writer may not have reopened the log yet. It is left when it was quiet for the
//! grace, and one more read found nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::Paused;
use crate::lines::{content::checkpoint::Checkpoint, identity::Identity};

/// Where a reader is in the life of the files at its path.
#[derive(Debug)]
pub enum State {
    /// In the file at the path, or in one whose renaming the reader has not noticed.
    AtPath,
    /// In a file that is no longer at the path.
    Draining(Leaving),
    /// No file is at the path, and this was reported. Lines that are still written to the file before are delivered.
    /// `since` is when that file left the path.
    Absent { since: Option<Instant>, leaving: Leaving },
    /// In the file before, for lines that were written to it after it was left. `paused` is continued after them.
    LateLines { paused: Box<Paused>, leaving: Leaving },
}

/// A file that is no longer at its path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Leaving {
    drained: Drained,
    /// It became another log's: from this offset on, its lines are not this log's.
    foreign_from: Option<u64>,
    /// Since when its successor waits for late lines of the files before.
    waits_since: Option<Instant>,
}

/// How far a reader is with a file that is no longer at its path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Drained {
    /// There may be more lines.
    #[default]
    No,
    /// It was quiet for the grace: it is read for the last time.
    LastRead,
    /// The last read found nothing: it can be left.
    Yes,
}

impl State {
    fn leaving(&self) -> Option<Leaving> {
        match self {
            Self::AtPath => None,
            Self::Draining(leaving) | Self::Absent { leaving, .. } | Self::LateLines { leaving, .. } => {
                Some(*leaving)
            }
        }
    }

    /// Late lines have no last read: they are left at the end of the file.
    fn drained(&mut self) -> Option<&mut Drained> {
        match self {
            Self::Draining(leaving) | Self::Absent { leaving, .. } => Some(&mut leaving.drained),
            Self::AtPath | Self::LateLines { .. } => None,
        }
    }

    /// The file was found to be renamed or deleted.
    pub fn notice_renamed(&mut self) {
        if matches!(self, Self::AtPath) {
            *self = Self::Draining(Leaving::default());
        }
    }

    /// Whether the successor of this file may wait on for late lines of the files before it, up to this time in all.
    pub fn may_wait_for_late_lines(&mut self, limit: Duration) -> bool {
        match self {
            Self::AtPath => true,
            Self::Draining(leaving) | Self::Absent { leaving, .. } | Self::LateLines { leaving, .. } => {
                leaving.waits_since.get_or_insert_with(Instant::now).elapsed() < limit
            }
        }
    }

    /// The renamed file became another log's: its lines from this offset on are not this log's.
    pub fn become_foreign(&mut self, from: u64) {
        self.notice_renamed();
        match self {
            Self::AtPath => {}
            Self::Draining(leaving) | Self::Absent { leaving, .. } | Self::LateLines { leaving, .. } => {
                leaving.foreign_from = Some(from);
            }
        }
    }

    /// The offset from which the lines of the file are another log's, where the reader found that out.
    pub fn foreign_from(&self) -> Option<u64> {
        self.leaving().and_then(|leaving| leaving.foreign_from)
    }

    /// The file was read; `found_nothing` if it was at its end before.
    pub fn record_read(&mut self, found_nothing: bool) {
        if let Some(drained) = self.drained() {
            *drained = match drained {
                Drained::LastRead | Drained::Yes if found_nothing => Drained::Yes,
                _ => Drained::No,
            };
        }
    }

    /// The file was quiet for long enough: the next read is the last.
    pub fn ask_for_last_read(&mut self) {
        if let Some(drained) = self.drained() {
            *drained = Drained::LastRead;
        }
    }

    /// Nothing more can come from the file.
    pub fn give_up_file(&mut self) {
        self.notice_renamed();
        if let Some(drained) = self.drained() {
            *drained = Drained::Yes;
        }
    }

    pub fn is_drained(&self) -> bool {
        !self.is_late() && self.leaving().is_some_and(|leaving| leaving.drained == Drained::Yes)
    }

    /// The file left the path at `since`, and no other came: true if this has to be reported.
    pub fn report_absent(&mut self, since: Option<Instant>) -> bool {
        if self.is_absent() {
            return false;
        }
        let leaving = Leaving { drained: Drained::No, ..self.leaving().unwrap_or_default() };
        *self = Self::Absent { since, leaving };
        true
    }

    /// There is no file at the path, and the reader reads no other.
    pub fn absent(since: Option<Instant>) -> Self {
        Self::Absent { since, leaving: Leaving::default() }
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }

    /// Ends the absence if the file is at the path again: then it left the path at another time than `since`, or has not
    /// left it. True if so.
    pub fn come_back(&mut self, left: Option<Instant>) -> bool {
        let is_back = match self {
            Self::Absent { since, .. } => *since != left,
            Self::Draining(_) => left.is_none(),
            Self::AtPath | Self::LateLines { .. } => false,
        };
        if is_back {
            *self = Self::AtPath;
            if left.is_some() {
                self.notice_renamed();
            }
        }
        is_back
    }

    /// Whether the reader is in the file before.
    pub fn is_late(&self) -> bool {
        matches!(self, Self::LateLines { .. })
    }

    /// Goes to a file that was left, for its late lines.
    pub fn visit_late_lines(paused: Paused) -> Self {
        Self::LateLines { paused: Box::new(paused), leaving: Leaving::default() }
    }

    /// Ends the reading of late lines. Returns the reading that continues then; `None` in another state.
    pub fn return_from_late_lines(&mut self) -> Option<Paused> {
        match std::mem::replace(self, Self::AtPath) {
            Self::LateLines { paused, .. } => Some(*paused),
            other => {
                *self = other;
                None
            }
        }
    }

    /// The reading that continues after late lines of a file, if other files were left after that one. A reader that resumed
    /// in that file would come to those again.
    pub fn skipping(&self) -> Option<&Paused> {
        match self {
            Self::LateLines { paused, .. } if !paused.before.is_newest => Some(paused),
            _ => None,
        }
    }

    /// Where the newer file is read on, while late lines of the file before are read.
    pub fn resume_at(&self) -> Option<(Identity, Checkpoint)> {
        match self {
            Self::LateLines { paused, .. } => Some((paused.rotation.identity(), paused.checkpoint)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
