//! A topic in the index, and what is removed from it.

use super::quotas::{Amount, Mask};
use crate::messages::embedded::format::{
    footer::{At, Held},
    trim_points::TrimPoint,
};

/// A topic that holds messages.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    /// Superseded messages below this sequence are recorded in the file of trim points; 0 for none.
    pub(super) recorded: u64,
    /// Its messages that are not removed.
    pub held: Held,
    /// What was removed from it.
    pub trim_point: TrimPoint,
    /// Only its last message is kept.
    pub is_last_only: bool,
    /// The quotas in which it counts.
    pub(super) quotas: Mask,
}

/// The messages that are removed from the oldest end of a topic, and the rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trimmed {
    /// The number of removed messages.
    pub messages: u64,
    /// The size of the messages, in bytes as the log stores them.
    pub bytes: u64,
    /// The size of those that expire.
    pub expiring_bytes: u64,
    /// The trim point afterwards.
    pub trim_point: TrimPoint,
    /// The first message that is left; `None` if none is.
    pub first: Option<Kept>,
}

/// The first message that is left of a topic.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    pub at: At,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires: u64,
}

impl Topic {
    /// What it takes of its quotas.
    pub(super) fn amount(&self) -> Amount {
        Amount { topics: 1, bytes: self.held.bytes }
    }

    /// The trim point, if it must be known after a restart.
    pub fn stored(&self) -> Option<TrimPoint> {
        let is_stored = self.trim_point != TrimPoint::default() && !self.is_superseded_only();
        is_stored.then_some(self.trim_point)
    }

    /// Whether only superseded messages were removed: the messages themselves show that after a restart.
    fn is_superseded_only(&self) -> bool {
        let TrimPoint { lost_up_to, purged_up_to, .. } = self.trim_point;
        self.is_last_only && lost_up_to == 0 && purged_up_to == 0 && self.recorded == 0
    }

    /// Removes all but the last message, if only that is kept.
    pub(super) fn supersede(&mut self) {
        if self.is_last_only {
            let Held { last, last_expires, last_bytes, .. } = self.held;
            let bytes = u64::from(last_bytes);
            self.trim_point.first_kept = self.trim_point.first_kept.max(last.sequence);
            self.held = Held {
                messages: 1,
                bytes,
                first: last,
                first_expires: last_expires,
                expiring_bytes: if last_expires == 0 { 0 } else { bytes },
                all_expired: last_expires,
                ..self.held
            };
        }
    }
}
