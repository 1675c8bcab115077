//! The queue compared with a list, and its pace.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Wake,
};

use proptest::prelude::*;

use super::*;

/// Counts its wakes.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn at(nanos: i64) -> LaneMoment {
    LaneMoment::new(0, nanos)
}

fn sleeping() -> Sleeping {
    of(0, Arc::new(Count::default()).into())
}

fn of(wake_group: u64, waker: Waker) -> Sleeping {
    Sleeping { wake_group: WakeGroup::new(wake_group), waker }
}

/// Records its name when it is woken.
struct Named(usize, Arc<Mutex<BTreeSet<usize>>>);

impl Wake for Named {
    fn wake(self: Arc<Self>) {
        assert!(self.1.lock().unwrap().insert(self.0), "twice");
    }
}

#[test]
fn an_entry_of_the_same_moment_that_is_inserted_later_has_another_id() {
    let mut queue = Queue::default();
    let old = queue.insert(at(5), sleeping());
    queue.take_due(at(5), 1, &mut Vec::new());
    let new = queue.insert(at(5), sleeping());
    assert!(queue.waker(old).is_none());
    assert!(queue.remove(old).is_none());
    assert!(queue.waker(new).is_some());
}

#[test]
fn a_moment_with_no_other_close_to_it_is_served_at_once() {
    let mut queue = Queue::default();
    for now in (0..100).map(|n| at(n * 1_000_000)) {
        queue.insert(now, sleeping());
        assert_eq!(queue.next(), Some(now));
        queue.take_due(now, usize::MAX, &mut Vec::new());
    }
}

#[test]
fn moments_close_together_are_served_together_and_none_later_than_the_gap() {
    let mut queue = Queue::default();
    let moments = (0..10_000).map(|n| at(n * 10_000));
    for moment in moments.clone() {
        queue.insert(moment, sleeping());
    }
    let (mut rounds, mut due, mut first) = (0, Vec::new(), at(0));
    while let Some(now) = queue.next() {
        assert!((first..=first + GAP).contains(&now));
        queue.take_due(now, usize::MAX, &mut due);
        rounds += 1;
        first = at(i64::try_from(due.len()).unwrap() * 10_000);
    }
    assert_eq!(due.len(), moments.count());
    assert!(rounds < 300, "{rounds}");
}

proptest! {
    #[test]
    fn each_due_sleeper_is_taken_once_and_a_removed_one_never(
        sleepers in prop::collection::vec((0..6_i64, any::<bool>()), 0..40),
        stops in prop::collection::vec(0..6_i64, 0..6),
        at_least in 1..10_usize,
    ) {
        let woken = Arc::new(Mutex::new(BTreeSet::new()));
        let mut queue = Queue::default();
        let places = sleepers.iter().enumerate().map(|(name, (moment, _))| {
            queue.insert(at(*moment), of(name as u64 % 3, Arc::new(Named(name, Arc::clone(&woken))).into()))
        });
        let places = places.collect::<Vec<_>>();
        for (place, (_, leaves)) in places.iter().zip(&sleepers) {
            prop_assert!(queue.waker(*place).is_some());
            if *leaves {
                prop_assert!(queue.remove(*place).is_some());
                prop_assert!(queue.remove(*place).is_none());
            }
        }
        let stays = || sleepers.iter().enumerate().filter(|(_, (_, leaves))| !leaves);
        prop_assert_eq!(queue.sleepers(), stays().count());
        prop_assert_eq!(queue.moments(), stays().map(|(_, (moment, _))| moment).collect::<BTreeSet<_>>().len());
        let mut now = -1;
        for stop in stops.into_iter().chain([6]) {
            now = now.max(stop);
            loop {
                let mut due = Vec::new();
                queue.take_due(at(now), at_least, &mut due);
                if due.is_empty() {
                    break;
                }
                for one in due {
                    one.waker.wake();
                }
            }
            let expected = stays().filter(|(_, (moment, _))| *moment <= now).map(|(name, _)| name);
            prop_assert_eq!(&*woken.lock().unwrap(), &expected.collect::<BTreeSet<_>>());
        }
        prop_assert_eq!((queue.sleepers(), queue.moments()), (0, 0));
    }
}
