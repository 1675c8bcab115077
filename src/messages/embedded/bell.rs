//! Wakes followers when there is something for them.
//!
//! The committer rings once a commit. One task, the ringer, looks at which topics moved, and wakes those followers that
//! want one of them, a slice at a time, each slice behind the ones before it in the runtime's queue. So a follower is
//! woken at once when little is going on; under load a round lasts until those woken have been served, and the next one
//! brings them all that was committed meanwhile. A follower of a quiet topic sleeps however busy the others are.

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

use crate::messages::topic::Pattern;

/// How many followers are woken before others get their turn.
const SLICE: usize = 32;

/// More matches of a topic with a pattern than this, in a round, cost more than waking in vain.
const MAX_MATCHES: usize = 100_000;

/// Who waits for what.
#[derive(Debug, Default)]
pub struct Bell {
    followers: Mutex<Followers>,
    /// Every follower that wants a message up to this sequence was told of it.
    rung: AtomicU64,
}

#[derive(Debug, Default)]
struct Followers {
    next_id: u64,
    /// By their patterns: many followers want the same, and what they want is matched once for all of them.
    groups: HashMap<Arc<str>, Group>,
    by_topic: HashMap<Box<str>, HashSet<Arc<str>>>,
    /// Groups with a pattern that is no topic.
    wild: HashSet<Arc<str>>,
}

#[derive(Debug)]
struct Group {
    patterns: Arc<[Pattern]>,
    followers: HashMap<u64, Arc<Follower>>,
}

#[derive(Debug, Default)]
struct Follower {
    is_rung: AtomicBool,
    waker: AtomicWaker,
}

/// A place at the bell, until it is dropped.
#[derive(Debug)]
pub struct Place {
    bell: Arc<Bell>,
    group: Arc<str>,
    id: u64,
    follower: Arc<Follower>,
}

impl Bell {
    /// Nobody waits yet, for what is behind `head`.
    pub fn new(head: u64) -> Self {
        Self { followers: Mutex::default(), rung: AtomicU64::new(head) }
    }

    fn followers(&self) -> MutexGuard<'_, Followers> {
        // A panic elsewhere leaves at worst a name in a list that stands for nobody.
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place at the bell, for messages that match. What is in the log already must be read after this.
    pub fn follow(self: &Arc<Self>, patterns: &Arc<[Pattern]>) -> Place {
        let follower = Arc::<Follower>::default();
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
        Place { bell: self.clone(), group, id, follower }
    }

    /// Tells those who want one of these topics, or all where it is not known which moved, of messages up to `head`.
    pub async fn ring(&self, head: u64, topics: Option<HashSet<Arc<str>>>) {
        let round = self.round(topics);
        let mut slices = round.chunks(SLICE).peekable();
        // Marked first: that `rung` is moved must not let anyone pass over what is for him.
        for follower in &round {
            follower.is_rung.store(true, Ordering::Release);
        }
        self.rung.store(head, Ordering::Release);
        while let Some(slice) = slices.next() {
            for follower in slice {
                follower.waker.wake();
            }
            if slices.peek().is_some() {
                tokio::task::yield_now().await;
            }
        }
    }

    fn round(&self, topics: Option<HashSet<Arc<str>>>) -> Vec<Arc<Follower>> {
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

    /// How many follow.
    #[cfg(test)]
    pub fn follower_count(&self) -> usize {
        self.followers().groups.values().map(|group| group.followers.len()).sum()
    }
}

impl Place {
    /// Waits until there is something.
    pub async fn rung(&self) {
        poll_fn(|context| {
            self.follower.waker.register(context.waker());
            if self.follower.is_rung.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Nothing up to this sequence is for this follower, if it has read all that was there when it came, or was rung for;
    /// none if there is something.
    pub fn quiet_through(&self) -> Option<u64> {
        let through = self.bell.rung.load(Ordering::Acquire);
        (!self.follower.is_rung.load(Ordering::Acquire)).then_some(through)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut followers = self.bell.followers();
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
    async fn who_wants_a_topic_is_rung_and_nobody_else() {
        let bell = Arc::new(Bell::new(0));
        let [a, b, all, some] =
            [&["a"][..], &["b", "c"], &[">"], &["x.*", "b"]].map(|p| bell.follow(&patterns(p)));
        bell.ring(1, Some(topics(&["a"]))).await;
        assert!(a.rung().now_or_never().is_some() && all.rung().now_or_never().is_some());
        assert!(b.rung().now_or_never().is_none() && some.rung().now_or_never().is_none());
        assert_eq!(b.quiet_through(), Some(1));
        bell.ring(2, Some(topics(&["c", "x.y"]))).await;
        assert_eq!((a.quiet_through(), b.quiet_through(), some.quiet_through()), (Some(2), None, None));
        bell.ring(3, None).await;
        assert!([&a, &b, &all, &some].iter().all(|place| place.rung().now_or_never().is_some()));
        drop((a, b, all, some));
        let followers = bell.followers();
        assert!(followers.groups.is_empty() && followers.by_topic.is_empty() && followers.wild.is_empty());
    }

    #[tokio::test]
    async fn a_follower_that_sleeps_is_woken_and_one_that_goes_is_forgotten() {
        let bell = Arc::new(Bell::new(0));
        let tasks = (0..100).map(|n| {
            let place = bell.follow(&patterns(&[if n % 2 == 0 { "a" } else { "*" }]));
            tokio::spawn(async move { place.rung().await })
        });
        let tasks = tasks.collect::<Vec<_>>();
        tokio::task::yield_now().await;
        bell.ring(1, Some(topics(&["a"]))).await;
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(bell.follower_count(), 0);
    }
}
