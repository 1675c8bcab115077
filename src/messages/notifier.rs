//! Notifies followers when there are messages for them.
//!
//! After each commit, one task finds the topics that have new messages and wakes the followers that want one of them, in
//! slices: each slice queues in the runtime after the slices before it. So a follower is woken at once when there is little
//! to do. The followers of one connection are in one slice, so that their responses leave in one write. Under load a round lasts until the woken followers have been served, and the next round brings them everything
//! that was committed meanwhile. A follower of a quiet topic is not woken, however busy other topics are.

use std::{
    collections::{HashMap, HashSet},
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
};

use futures::task::AtomicWaker;

use crate::{
    messages::topic::Pattern,
    stream::{self, WakeGroup, alarm::Alarms},
};

/// How many followers are woken before other tasks run; the rest of a connection's followers is woken with them.
const SLICE: usize = 32;

/// The most followers that are woken before other tasks run, also of one connection.
const MAX_SLICE: usize = 240;

/// Matching more pairs of topic and pattern than this in a round costs more than waking followers in vain.
const MAX_MATCHES: usize = 100_000;

/// The followers, and what they follow.
#[derive(Debug, Default)]
pub struct Notifier {
    followers: Mutex<Followers>,
    /// Every follower that wants a message up to this sequence was notified.
    notified_up_to: AtomicU64,
    /// For the heartbeats of followers.
    pub alarms: Alarms,
}

#[derive(Debug, Default)]
struct Followers {
    next_id: u64,
    /// By their patterns: many followers have the same, which are matched once for all of them.
    groups: HashMap<Arc<str>, Group>,
    by_topic: HashMap<Box<str>, HashSet<Arc<str>>>,
    /// The groups with a wildcard.
    wild: HashSet<Arc<str>>,
}

#[derive(Debug)]
struct Group {
    patterns: Arc<[Pattern]>,
    followers: HashMap<u64, Arc<Waiter>>,
}

#[derive(Debug, Default)]
struct Waiter {
    wake_group: Option<WakeGroup>,
    is_notified: AtomicBool,
    waker: AtomicWaker,
}

/// A follower's registration, until it is dropped.
#[derive(Debug)]
pub struct Registration {
    notifier: Arc<Notifier>,
    group: Arc<str>,
    id: u64,
    follower: Arc<Waiter>,
}

impl Notifier {
    /// Without followers; the log is at `head`.
    pub fn new(head: u64) -> Self {
        Self { notified_up_to: AtomicU64::new(head), ..Self::default() }
    }

    fn followers(&self) -> MutexGuard<'_, Followers> {
        // At worst, a panic elsewhere leaves an entry without followers.
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a follower of messages that match. It must read what the log holds already after this.
    pub fn follow(
        self: &Arc<Self>,
        patterns: &Arc<[Pattern]>,
        wake_group: Option<WakeGroup>,
    ) -> Registration {
        let follower = Arc::new(Waiter { wake_group, ..Waiter::default() });
        let texts = patterns.iter().map(Pattern::as_str).collect::<Vec<_>>();
        let group = Arc::<str>::from(texts.join(" "));
        let mut followers = self.followers();
        let id = followers.next_id;
        followers.next_id += 1;
        let Followers { groups, by_topic, wild, .. } = &mut *followers;
        let known = groups.entry(group.clone()).or_insert_with(|| {
            for pattern in patterns.iter() {
                match pattern.literal() {
                    Some(topic) => _ = by_topic.entry(topic.into()).or_default().insert(group.clone()),
                    None => _ = wild.insert(group.clone()),
                }
            }
            Group { patterns: patterns.clone(), followers: HashMap::new() }
        });
        known.followers.insert(id, follower.clone());
        drop(followers);
        Registration { notifier: self.clone(), group, id, follower }
    }

    /// Notifies the followers of these topics, or all if the topics are not known, of messages up to `head`.
    pub async fn notify(&self, head: u64, topics: Option<HashSet<Arc<str>>>) {
        let mut round = self.round(topics);
        round.sort_unstable_by_key(|follower| follower.wake_group);
        // Mark followers before advancing `notified_up_to`; otherwise one could skip a message addressed to it.
        for follower in &round {
            follower.is_notified.store(true, Ordering::Release);
        }
        self.notified_up_to.store(head, Ordering::Release);
        let mut left = round.as_slice();
        while !left.is_empty() {
            let slice = stream::slice(left, |follower| follower.wake_group, SLICE, MAX_SLICE);
            let (now, later) = left.split_at(slice);
            for follower in now {
                follower.waker.wake();
            }
            left = later;
            if !left.is_empty() {
                tokio::task::yield_now().await;
            }
        }
    }

    fn round(&self, topics: Option<HashSet<Arc<str>>>) -> Vec<Arc<Waiter>> {
        let followers = self.followers();
        let of = |group: &Group| group.followers.values().cloned().collect::<Vec<_>>();
        let Some(topics) = topics else { return followers.groups.values().flat_map(of).collect() };
        let mut wanted = HashSet::new();
        for topic in &topics {
            wanted.extend(followers.by_topic.get(topic.as_ref()).into_iter().flatten());
        }
        let is_too_many = followers.wild.len().saturating_mul(topics.len()) > MAX_MATCHES;
        let wants = |group: &Group| {
            let mut wild = group.patterns.iter().filter(|pattern| pattern.literal().is_none());
            wild.any(|pattern| topics.iter().any(|topic| pattern.matches(topic)))
        };
        let wild = followers.wild.iter();
        wanted.extend(wild.filter(|wild| is_too_many || followers.groups.get(*wild).is_some_and(wants)));
        wanted.into_iter().filter_map(|group| followers.groups.get(group)).flat_map(of).collect()
    }

    /// The number of followers.
    #[cfg(test)]
    pub fn follower_count(&self) -> usize {
        self.followers().groups.values().map(|group| group.followers.len()).sum()
    }
}

impl Registration {
    /// Waits for a notification.
    pub async fn notified(&self) {
        poll_fn(|context| {
            self.follower.waker.register(context.waker());
            if self.follower.is_notified.swap(false, Ordering::AcqRel) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// No message up to this sequence is for this follower, apart from those that it was notified of before. `None` if it is
    /// notified now.
    pub fn quiet_up_to(&self) -> Option<u64> {
        let through = self.notifier.notified_up_to.load(Ordering::Acquire);
        (!self.follower.is_notified.load(Ordering::Acquire)).then_some(through)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut followers = self.notifier.followers();
        let Followers { groups, by_topic, wild, .. } = &mut *followers;
        let Some(group) = groups.get_mut(&self.group) else { return };
        group.followers.remove(&self.id);
        if !group.followers.is_empty() {
            return;
        }
        for topic in group.patterns.iter().filter_map(Pattern::literal) {
            if let Some(of_topic) = by_topic.get_mut(topic) {
                of_topic.remove(&self.group);
                if of_topic.is_empty() {
                    by_topic.remove(topic);
                }
            }
        }
        wild.remove(&self.group);
        groups.remove(&self.group);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn patterns(texts: &[&str]) -> Arc<[Pattern]> {
        texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
    }

    fn topics(names: &[&str]) -> HashSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[tokio::test]
    async fn only_followers_of_a_topic_are_notified() {
        let notifier = Arc::new(Notifier::new(0));
        let [a, b, all, some] =
            [&["a"][..], &["b", "c"], &[">"], &["x.*", "b"]].map(|p| notifier.follow(&patterns(p), None));
        notifier.notify(1, Some(topics(&["a"]))).await;
        assert!(a.notified().now_or_never().is_some() && all.notified().now_or_never().is_some());
        assert!(b.notified().now_or_never().is_none() && some.notified().now_or_never().is_none());
        assert_eq!(b.quiet_up_to(), Some(1));
        notifier.notify(2, Some(topics(&["c", "x.y"]))).await;
        assert_eq!((a.quiet_up_to(), b.quiet_up_to(), some.quiet_up_to()), (Some(2), None, None));
        notifier.notify(3, None).await;
        assert!(
            [&a, &b, &all, &some].iter().all(|registration| registration.notified().now_or_never().is_some())
        );
        drop((a, b, all, some));
        let followers = notifier.followers();
        assert!(followers.groups.is_empty() && followers.by_topic.is_empty() && followers.wild.is_empty());
    }

    #[tokio::test]
    async fn a_follower_that_sleeps_is_woken_and_one_that_goes_is_forgotten() {
        let notifier = Arc::new(Notifier::new(0));
        let tasks = (0..100).map(|n| {
            let registration = notifier.follow(&patterns(&[if n % 2 == 0 { "a" } else { "*" }]), None);
            tokio::spawn(async move { registration.notified().await })
        });
        let tasks = tasks.collect::<Vec<_>>();
        tokio::task::yield_now().await;
        notifier.notify(1, Some(topics(&["a"]))).await;
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(notifier.follower_count(), 0);
    }
}
