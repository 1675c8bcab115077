//! The sleepers of one clock, by the moment at which they are due. Sleepers of one moment share an entry, and sleepers
//! of one wake group are woken back to back.
//!
//! The queue reads no clock and sets no timer.

use std::{
    collections::BTreeMap,
    ops::{Add, Sub},
    task::Waker,
};

use slab::Slab;

use crate::{
    countdown::{Moment, Nanos},
    stream::WakeGroup,
};

/// How many of the last rounds decide whether the clock is busy.
const ROUNDS: usize = 16;

/// The clock is busy if the last [`ROUNDS`] rounds took less than this: one in half a millisecond.
const BUSY_SPAN: Nanos = Nanos::new(8_000_000);

/// The gap between two rounds of a busy clock. Sleepers that become due in it wait for its end, so that one wake serves
/// several moments. It makes no sleeper later than this.
const GAP: Nanos = Nanos::new(400_000);

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A moment of a lane's clock, which is the monotonic clock or the wall clock, as the kernel's timer counts it.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct LaneMoment(i64);

impl LaneMoment {
    /// The first moment that a timer can be set to.
    pub(super) const FIRST: Self = Self(1);

    /// The last one, in the year 2262 of the wall clock. It does not come while the server runs.
    pub(super) const LAST: Self = Self(i64::MAX);

    /// The moment in seconds and nanoseconds.
    pub(super) fn new(seconds: i64, nanos: i64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(nanos))
    }

    /// A moment of the wall clock. One before 1970 is due, and one after the last moment does not come.
    pub(super) fn of_wall_clock(moment: Moment) -> Self {
        Self::default() + (moment - Moment::EPOCH).max(Nanos::ZERO)
    }

    /// The seconds and the nanoseconds of a moment that is not before [`FIRST`](Self::FIRST).
    pub(super) fn parts(self) -> (i64, i64) {
        (self.0 / NANOS_PER_SECOND, self.0 % NANOS_PER_SECOND)
    }
}

impl Add<Nanos> for LaneMoment {
    type Output = Self;

    /// At most [`LAST`](Self::LAST): no length here is below zero.
    fn add(self, length: Nanos) -> Self {
        i64::try_from(i128::from(self.0) + length.get()).map_or(Self::LAST, Self)
    }
}

impl Sub for LaneMoment {
    type Output = Nanos;

    fn sub(self, other: Self) -> Nanos {
        Nanos::new(i128::from(self.0) - i128::from(other.0))
    }
}

/// The sleepers of one clock.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: BTreeMap<LaneMoment, Entry>,
    next_id: u64,
    pace: Pace,
}

/// The sleepers of one moment.
#[derive(Debug)]
struct Entry {
    /// Distinguishes it from an earlier entry of the same moment.
    id: u64,
    wakers: Wakers,
}

/// One sleeper.
#[derive(Debug)]
pub(super) struct Sleeping {
    pub wake_group: Option<WakeGroup>,
    pub waker: Waker,
}

/// Most moments have one sleeper, which needs no allocation.
#[derive(Debug)]
enum Wakers {
    One(Sleeping),
    Many(Slab<Sleeping>),
}

/// Identifies a sleeper in the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryId {
    moment: LaneMoment,
    id: u64,
    key: usize,
}

impl Queue {
    /// Adds a sleeper.
    pub(super) fn insert(&mut self, moment: LaneMoment, sleeping: Sleeping) -> EntryId {
        let Some(entry) = self.entries.get_mut(&moment) else {
            let id = self.next_id;
            self.next_id += 1;
            self.entries.insert(moment, Entry { id, wakers: Wakers::One(sleeping) });
            return EntryId { moment, id, key: 0 };
        };
        let key = entry.wakers.insert(sleeping);
        EntryId { moment, id: entry.id, key }
    }

    /// The waker of a sleeper, if it is still in the queue.
    pub(super) fn waker(&mut self, id: EntryId) -> Option<&mut Waker> {
        let entry = self.entries.get_mut(&id.moment).filter(|entry| entry.id == id.id)?;
        match &mut entry.wakers {
            Wakers::One(one) => Some(&mut one.waker),
            Wakers::Many(wakers) => wakers.get_mut(id.key).map(|one| &mut one.waker),
        }
    }

    /// Takes out a sleeper. The caller drops the waker outside the lock: the last waker of a task drops the task, and
    /// with it perhaps another sleeper.
    pub(super) fn remove(&mut self, id: EntryId) -> Option<Waker> {
        let entry = self.entries.get_mut(&id.moment).filter(|entry| entry.id == id.id)?;
        let Wakers::Many(wakers) = &mut entry.wakers else {
            return self.entries.remove(&id.moment).and_then(|entry| entry.wakers.one()).map(|one| one.waker);
        };
        let waker = wakers.try_remove(id.key);
        if wakers.is_empty() {
            self.entries.remove(&id.moment);
        }
        waker.map(|one| one.waker)
    }

    /// Moves sleepers that are due to `due`, moment by moment, until `due` has `at_least` of them. Then sorts them by
    /// wake group.
    pub(super) fn take_due(&mut self, now: LaneMoment, at_least: usize, due: &mut Vec<Sleeping>) {
        let before = due.len();
        while due.len() < at_least
            && let Some(first) = self.entries.first_entry()
            && *first.key() <= now
        {
            first.remove().wakers.move_to(due);
        }
        if due.len() > before {
            self.pace.round(now);
            due.sort_by_key(|one| one.wake_group);
        }
    }

    /// Takes out all sleepers, and resets the pace, because the clock may have been set.
    pub(super) fn take_all(&mut self) -> Vec<Waker> {
        self.pace = Pace::default();
        let mut all = Vec::new();
        for (_, entry) in std::mem::take(&mut self.entries) {
            entry.wakers.move_to(&mut all);
        }
        all.into_iter().map(|one| one.waker).collect()
    }

    /// When the next round is due.
    pub(super) fn next(&self) -> Option<LaneMoment> {
        self.entries.first_key_value().map(|(moment, _)| self.pace.not_before(*moment))
    }

    /// How many moments have sleepers.
    pub(super) fn moments(&self) -> usize {
        self.entries.len()
    }

    /// How many sleepers there are.
    pub(super) fn sleepers(&self) -> usize {
        self.entries.values().map(|entry| entry.wakers.len()).sum()
    }
}

impl Wakers {
    fn insert(&mut self, sleeping: Sleeping) -> usize {
        match self {
            Self::Many(wakers) => wakers.insert(sleeping),
            Self::One(_) => {
                let mut wakers = Slab::with_capacity(4);
                // The first insertion into an empty slab gets key 0, which the first sleeper's id already has.
                std::mem::replace(self, Self::Many(Slab::new())).one().map(|first| wakers.insert(first));
                let key = wakers.insert(sleeping);
                *self = Self::Many(wakers);
                key
            }
        }
    }

    fn one(self) -> Option<Sleeping> {
        if let Self::One(one) = self { Some(one) } else { None }
    }

    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(wakers) => wakers.len(),
        }
    }

    fn move_to(self, due: &mut Vec<Sleeping>) {
        match self {
            Self::One(one) => due.push(one),
            Self::Many(wakers) => due.extend(wakers.into_iter().map(|(_, one)| one)),
        }
    }
}

/// When the last rounds were.
#[derive(Debug, Default)]
struct Pace {
    rounds: [LaneMoment; ROUNDS],
    next: usize,
    /// The next round is not before this moment.
    not_before: LaneMoment,
}

impl Pace {
    #[expect(clippy::expect_used, reason = "a round that is not recorded would set a wrong pace")]
    fn round(&mut self, now: LaneMoment) {
        let oldest = self.rounds.get_mut(self.next).expect("`next` is below the number of rounds");
        let span = now - std::mem::replace(oldest, now);
        self.next = (self.next + 1) % ROUNDS;
        let is_busy = span < BUSY_SPAN;
        self.not_before = if is_busy { now + GAP } else { now };
    }

    fn not_before(&self, moment: LaneMoment) -> LaneMoment {
        moment.max(self.not_before)
    }
}

#[cfg(test)]
mod tests;
