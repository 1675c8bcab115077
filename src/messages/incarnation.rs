//! Incarnations: which history a sequence belongs to.
//!
//! Each run of a server that publishes begins an incarnation: a random id, recorded with its first message. Two copies of
//! a log that both go on publishing give the same sequences to different messages, but never the same incarnations. A
//! cursor carries the last incarnations at or below its sequence, so the log can say whether it has the history that the
//! reader has seen, and up to where. Works on memory alone, and for every kind of log.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The number of incarnations that a cursor and the header of a segment carry.
pub const MAX_LINEAGE: usize = 8;

/// The number of incarnations that a log keeps. Above it, the oldest are dropped, and cursors there are checked by their
/// sequence alone.
pub const MAX_INCARNATIONS: usize = 10_000;

/// The id of an incarnation.
pub type IncarnationId = [u8; 8];

/// One run of a server that published.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Incarnation {
    /// Its id.
    pub id: IncarnationId,
    /// The sequence of its first message.
    pub first_sequence: u64,
}

impl Incarnation {
    /// A new incarnation, with a random id.
    pub fn begin(first_sequence: u64) -> Self {
        Self { first_sequence, ..Self::of_log(*uuid::Uuid::new_v4().as_bytes()) }
    }

    /// The incarnation of all messages from before incarnations were recorded. Its id is the second half of the log's
    /// identity, which is random, so that copies of a log that are converted separately agree on it.
    pub fn of_log(log: [u8; 16]) -> Self {
        let (_, id) = log.split_at(8);
        Self { id: id.try_into().unwrap_or_default(), first_sequence: 1 }
    }
}

/// The last incarnations at or below a sequence, oldest first: at most [`MAX_LINEAGE`]. None for a position before the
/// first message, and for a sequence that the log has not reached.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct Lineage {
    list: [Incarnation; MAX_LINEAGE],
    length: usize,
}

impl Lineage {
    /// The last of some incarnations, which are in order.
    pub fn last_of(incarnations: &[Incarnation]) -> Self {
        let mut lineage = Self::default();
        let skipped = incarnations.len().saturating_sub(MAX_LINEAGE);
        for (slot, incarnation) in lineage.list.iter_mut().zip(incarnations.iter().skip(skipped)) {
            *slot = *incarnation;
            lineage.length += 1;
        }
        lineage
    }

    /// The incarnations, oldest first.
    pub fn as_slice(&self) -> &[Incarnation] {
        self.list.get(..self.length).unwrap_or_default()
    }

    /// Whether it has all incarnations of the log up to its sequence, and not only the last ones.
    pub fn is_complete(&self) -> bool {
        self.length < MAX_LINEAGE
    }

    /// A lineage from untrusted numbers: `None` if they are not in order.
    pub fn checked(incarnations: &[Incarnation]) -> Option<Self> {
        let is_ordered = incarnations.is_sorted_by(|a, b| a.first_sequence < b.first_sequence);
        let starts = incarnations.first().is_none_or(|first| first.first_sequence > 0);
        (is_ordered && starts && incarnations.len() <= MAX_LINEAGE).then(|| Self::last_of(incarnations))
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

impl Serialize for Lineage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Lineage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let incarnations = Vec::<Incarnation>::deserialize(deserializer)?;
        Self::checked(&incarnations).ok_or_else(|| de::Error::custom("not a lineage"))
    }
}

/// The histories of a position and of the log are not the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Diverged {
    /// The last sequence that both have, 0 for no message; `None` if it is unknown.
    pub last_common: Option<u64>,
}

/// The incarnations of a log.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Incarnations {
    /// Those that began below this sequence are not known any more; 0 if all are known.
    pub merged_below: u64,
    list: Vec<Incarnation>,
}

impl Incarnations {
    /// The incarnations with their first sequences in order. Others are dropped.
    pub fn new(merged_below: u64, list: impl IntoIterator<Item = Incarnation>) -> Self {
        let mut incarnations = Self { merged_below, list: Vec::new() };
        list.into_iter().for_each(|incarnation| incarnations.push(incarnation));
        incarnations
    }

    /// The incarnations, oldest first.
    pub fn as_slice(&self) -> &[Incarnation] {
        &self.list
    }

    /// Adds the newest incarnation. One that is known, or that does not begin above the last one, is not added.
    pub fn push(&mut self, incarnation: Incarnation) {
        let newest = self.list.last().map_or(0, |last| last.first_sequence);
        if incarnation.first_sequence <= newest || incarnation.first_sequence < self.merged_below {
            return;
        }
        self.list.push(incarnation);
        if self.list.len() > MAX_INCARNATIONS {
            self.list.remove(0);
            self.merged_below = self.list.first().map_or(0, |oldest| oldest.first_sequence);
        }
    }

    /// Adds what the header of a later segment says, where the file of all incarnations is lost. If some are missing
    /// between those that are known and the lineage, cursors below the lineage are checked by their sequence alone.
    pub fn extend(&mut self, lineage: &Lineage) {
        let known = self.list.last().map_or(0, |last| last.first_sequence);
        let [oldest, .., newest] = lineage.as_slice() else {
            return lineage.as_slice().iter().for_each(|incarnation| self.push(*incarnation));
        };
        if newest.first_sequence <= known {
            return;
        }
        if !lineage.is_complete() && !self.list.contains(oldest) {
            self.list.clear();
            self.merged_below = oldest.first_sequence;
        }
        lineage.as_slice().iter().for_each(|incarnation| self.push(*incarnation));
    }

    /// The last incarnations at or below a sequence.
    pub fn lineage(&self, sequence: u64) -> Lineage {
        let end = self.list.partition_point(|incarnation| incarnation.first_sequence <= sequence);
        Lineage::last_of(self.list.get(..end).unwrap_or_default())
    }

    /// Checks that the log has the history of a position at a sequence. `head` is the newest sequence of the log.
    pub fn check(&self, lineage: &Lineage, sequence: u64, head: u64) -> Result<(), Diverged> {
        let of_position = lineage.as_slice();
        let Some(newest) = of_position.last() else { return Ok(()) };
        if sequence < self.merged_below {
            return Ok(());
        }
        // The next incarnation of the position, where there is one, ends the common part; and so does the log's own.
        let mut end = sequence;
        for incarnation in of_position.iter().rev() {
            let place =
                self.list.binary_search_by_key(&incarnation.first_sequence, |known| known.first_sequence);
            let place = place.ok().filter(|place| self.list.get(*place) == Some(incarnation));
            let Some(place) = place else {
                end = incarnation.first_sequence - 1;
                continue;
            };
            let next = self.list.get(place + 1).map(|next| next.first_sequence - 1);
            if incarnation == newest && next.is_none_or(|next| sequence <= next) {
                return Ok(());
            }
            return Err(Diverged { last_common: Some(end.min(next.unwrap_or(head))) });
        }
        // With all incarnations of both known, the first ones show where the histories part.
        let is_all_known = lineage.is_complete() && self.merged_below == 0;
        let own = self.list.first().map_or(head, |first| first.first_sequence - 1);
        Err(Diverged { last_common: is_all_known.then_some(end.min(own)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation(id: u8, first_sequence: u64) -> Incarnation {
        Incarnation { id: [id; 8], first_sequence }
    }

    fn table(list: &[(u8, u64)]) -> Incarnations {
        Incarnations::new(0, list.iter().map(|(id, first)| incarnation(*id, *first)))
    }

    /// Checks a position of one log in another, whose head is 1,000.
    fn check(log: &[(u8, u64)], of: &[(u8, u64)], sequence: u64) -> Result<(), Option<u64>> {
        let lineage = table(of).lineage(sequence);
        table(log).check(&lineage, sequence, 1_000).map_err(|diverged| diverged.last_common)
    }

    #[test]
    fn a_position_is_valid_in_every_log_that_has_its_history() {
        let log = [(1, 1), (2, 51), (3, 80)];
        for sequence in [0, 1, 50, 51, 79, 80, 900] {
            assert_eq!(check(&log, &log, sequence), Ok(()), "{sequence}");
        }
        // The copy has gone on since: positions up to where it was made are valid.
        assert_eq!(check(&log, &[(1, 1)], 50), Ok(()));
        assert_eq!(check(&[(1, 1)], &[(1, 1)], 5_000), Ok(()), "whether it is ahead is for others to say");
    }

    #[test]
    fn a_restored_copy_and_a_fork_are_noticed_with_the_last_common_sequence() {
        // A backup that ended at 50 goes on; the original had gone on to 100, in the same run and in a later one.
        assert_eq!(check(&[(1, 1), (2, 51)], &[(1, 1)], 51), Err(Some(50)));
        assert_eq!(check(&[(1, 1), (2, 51)], &[(1, 1)], 100), Err(Some(50)));
        assert_eq!(check(&[(1, 1), (2, 51)], &[(1, 1), (3, 71)], 100), Err(Some(50)));
        assert_eq!(check(&[(1, 1), (2, 51)], &[(1, 1), (3, 41)], 100), Err(Some(40)));
        assert_eq!(check(&[(1, 1)], &[(1, 1), (3, 41)], 100), Err(Some(40)));
        // Two copies of an empty log.
        assert_eq!(check(&[(2, 1)], &[(1, 1)], 7), Err(Some(0)));
        assert_eq!(check(&[(2, 1)], &[(1, 1)], 0), Ok(()));
        assert_eq!(check(&[], &[(1, 1)], 7), Err(Some(0)), "the copy was made before the first message");
    }

    #[test]
    fn without_a_common_incarnation_among_the_last_ones_the_last_common_sequence_is_unknown() {
        let of = (1..=12).map(|n| (n, u64::from(n) * 10 - 9)).collect::<Vec<_>>();
        assert_eq!(check(&[(1, 1), (99, 15)], &of, 115), Err(None));
        assert_eq!(check(&[(1, 1), (2, 11), (3, 21), (4, 31), (5, 41), (99, 45)], &of, 115), Err(Some(44)));
    }

    #[test]
    fn the_oldest_incarnations_merge_and_positions_there_are_checked_by_their_sequence() {
        let mut incarnations = Incarnations::default();
        for n in 1..=MAX_INCARNATIONS as u64 + 5 {
            incarnations.push(Incarnation { id: n.to_le_bytes(), first_sequence: n * 10 });
        }
        assert_eq!((incarnations.as_slice().len(), incarnations.merged_below), (MAX_INCARNATIONS, 60));
        let other = Incarnations::new(0, [incarnation(7, 1)]);
        assert_eq!(incarnations.check(&other.lineage(59), 59, 1_000_000), Ok(()));
        let unknown = Err(Diverged { last_common: None });
        assert_eq!(incarnations.check(&other.lineage(60), 60, 1_000_000), unknown);
        assert_eq!(incarnations.lineage(79).as_slice().len(), 2);
    }

    #[test]
    fn the_table_is_rebuilt_from_the_headers_of_segments() {
        let all = table(&(1..=30).map(|n| (n, u64::from(n) * 10)).collect::<Vec<_>>());
        let rebuild = |ends: &[u64]| {
            let mut rebuilt = Incarnations::default();
            for end in ends {
                rebuilt.extend(&all.lineage(*end));
            }
            rebuilt
        };
        assert_eq!(rebuild(&[0, 55, 60, 120, 190, 250, 300]), all);
        let with_hole = rebuild(&[0, 55, 300]);
        assert_eq!((with_hole.merged_below, with_hole.as_slice().len()), (230, 8));
        assert_eq!(with_hole.check(&all.lineage(100), 100, 400), Ok(()));
        assert_eq!(rebuild(&[300]).merged_below, 230);
    }
}
