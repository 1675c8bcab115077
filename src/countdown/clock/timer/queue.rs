//! Who sleeps until when: one entry a moment, however many share it.
//!
//! Sleepers of one wake group are woken back to back.
//!
//! No time and no timer in here: moments are numbers, in nanoseconds of whatever clock.

use std::{collections::BTreeMap, task::Waker};

use slab::Slab;

use crate::stream::WakeGroup;

/// So many rounds are looked back upon.
const ROUNDS: usize = 16;

/// A clock that had them within so many nanoseconds, one each half a millisecond, is busy.
const BUSY_SPAN: i64 = 8_000_000;

/// What a busy clock leaves between two rounds, in nanoseconds: what is due meanwhile waits, so that one wake serves
/// several moments. It bounds how late a sleeper is made by it.
const GAP: i64 = 400_000;

/// Those who sleep.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: BTreeMap<i64, Entry>,
    next_id: u64,
    pace: Pace,
}

/// Those who sleep until one moment.
#[derive(Debug)]
struct Entry {
    /// Tells it from one before it of the same moment.
    id: u64,
    wakers: Wakers,
}

/// One who sleeps.
#[derive(Debug)]
pub(super) struct Sleeping {
    pub wake_group: Option<WakeGroup>,
    pub waker: Waker,
}

/// Most are alone, and one waker needs no allocation.
#[derive(Debug)]
enum Wakers {
    One(Sleeping),
    Many(Slab<Sleeping>),
}

/// The place of a sleeper in the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    moment: i64,
    id: u64,
    key: usize,
}

impl Queue {
    /// Adds a sleeper.
    pub(super) fn insert(&mut self, moment: i64, sleeping: Sleeping) -> Place {
        let Some(entry) = self.entries.get_mut(&moment) else {
            let id = self.next_id;
            self.next_id += 1;
            self.entries.insert(moment, Entry { id, wakers: Wakers::One(sleeping) });
            return Place { moment, id, key: 0 };
        };
        let key = entry.wakers.insert(sleeping);
        Place { moment, id: entry.id, key }
    }

    /// The waker of a sleeper, if nobody has taken it out.
    pub(super) fn waker(&mut self, place: Place) -> Option<&mut Waker> {
        let entry = self.entries.get_mut(&place.moment).filter(|entry| entry.id == place.id)?;
        match &mut entry.wakers {
            Wakers::One(one) => Some(&mut one.waker),
            Wakers::Many(wakers) => wakers.get_mut(place.key).map(|one| &mut one.waker),
        }
    }

    /// Takes out a sleeper. What is returned is to be dropped without a lock: the last waker of a task drops the task,
    /// and with it perhaps another sleeper.
    pub(super) fn remove(&mut self, place: Place) -> Option<Waker> {
        let entry = self.entries.get_mut(&place.moment).filter(|entry| entry.id == place.id)?;
        let Wakers::Many(wakers) = &mut entry.wakers else {
            return self
                .entries
                .remove(&place.moment)
                .and_then(|entry| entry.wakers.one())
                .map(|one| one.waker);
        };
        let waker = wakers.try_remove(place.key);
        if wakers.is_empty() {
            self.entries.remove(&place.moment);
        }
        waker.map(|one| one.waker)
    }

    /// Moves those who are due to `due`, all of a moment or none, until there are so many; those who are to be woken
    /// together get to be neighbours.
    pub(super) fn take_due(&mut self, now: i64, at_least: usize, due: &mut Vec<Sleeping>) {
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

    /// Takes out all. The clock may have been set: nothing is known of its pace.
    pub(super) fn take_all(&mut self) -> Vec<Waker> {
        self.pace = Pace::default();
        let mut all = Vec::new();
        for (_, entry) in std::mem::take(&mut self.entries) {
            entry.wakers.move_to(&mut all);
        }
        all.into_iter().map(|one| one.waker).collect()
    }

    /// When to look for those who are due.
    pub(super) fn next(&self) -> Option<i64> {
        self.entries.first_key_value().map(|(moment, _)| self.pace.not_before(*moment))
    }

    /// How many moments there are.
    pub(super) fn moments(&self) -> usize {
        self.entries.len()
    }

    /// How many sleep.
    pub(super) fn sleepers(&self) -> usize {
        self.entries.values().map(|entry| entry.wakers.len()).sum()
    }
}

impl Wakers {
    fn insert(&mut self, sleeping: Sleeping) -> usize {
        match self {
            Self::Many(wakers) => wakers.insert(sleeping),
            Self::One(_) => {
                let one = std::mem::replace(self, Self::Many(Slab::with_capacity(4)));
                let Self::Many(wakers) = self else { return 0 };
                // It gets key 0, which its sleeper has.
                one.one().map(|one| wakers.insert(one));
                wakers.insert(sleeping)
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
    rounds: [i64; ROUNDS],
    next: usize,
    /// The next round is not before.
    floor: i64,
}

impl Pace {
    fn round(&mut self, now: i64) {
        let Some(oldest) = self.rounds.get_mut(self.next) else { return };
        let span = now - std::mem::replace(oldest, now);
        self.next = (self.next + 1) % ROUNDS;
        let is_busy = span < BUSY_SPAN;
        self.floor = if is_busy { now + GAP } else { now };
    }

    fn not_before(&self, moment: i64) -> i64 {
        moment.max(self.floor)
    }
}

#[cfg(test)]
mod tests;
