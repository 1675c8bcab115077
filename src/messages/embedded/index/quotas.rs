//! What the topics take of the quotas.
//!
//! The sums belong to the index of topics: every change of a topic in the index changes them by the difference, so a start
//! finds them in the log, and they cannot differ from it. New quotas are counted topic by topic in the order of the names,
//! in slices; the topics after the last that was counted do not count until then.

use std::sync::Arc;

use crate::messages::{
    Error,
    quota::{QuotaUsage, TopicQuota},
};

/// The quotas, and what is used of each.
#[derive(Debug, Default)]
pub struct Quotas {
    all: Arc<[TopicQuota]>,
    used: Vec<Amount>,
    /// Rises with each change of the quotas.
    version: u64,
    counted: Counted,
}

/// The topics that have been counted.
#[derive(Debug, Default)]
enum Counted {
    #[default]
    All,
    UpTo(Option<Arc<str>>),
}

/// The topics with messages, and the bytes of their messages as the log stores them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Amount {
    pub topics: u64,
    pub bytes: u64,
}

/// The quotas in which a topic counts: a bit for each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mask(u64);

impl Mask {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The numbers of the quotas.
    fn iter(self) -> impl Iterator<Item = usize> {
        let mut bits = self.0;
        std::iter::from_fn(move || {
            let lowest = bits.trailing_zeros() as usize;
            bits &= bits.checked_sub(1)?;
            Some(lowest)
        })
    }
}

/// In which quotas the messages of a topic count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    pub version: u64,
    pub mask: Mask,
    /// The bytes that the next message replaces, if only the last message of the topic is kept.
    pub replaced: Option<u64>,
}

impl Share {
    pub fn is_empty(&self) -> bool {
        self.mask.is_empty()
    }
}

/// What a message changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    pub topics: i64,
    pub bytes: i64,
}

/// What a commit changes that is not on disk yet.
#[derive(Debug, Default)]
pub struct Added {
    version: u64,
    by_quota: Vec<Change>,
}

impl Added {
    /// Adds the change of one message to each quota of its topic.
    pub fn add(&mut self, share: &Share, change: Change) {
        if self.version != share.version {
            // The quotas have changed: the commit has messages that the new ones do not count until it is on disk.
            *self = Self { version: share.version, by_quota: Vec::new() };
        }
        for quota in share.mask.iter() {
            if self.by_quota.len() <= quota {
                self.by_quota.resize(quota + 1, Change::default());
            }
            if let Some(sum) = self.by_quota.get_mut(quota) {
                sum.topics += change.topics;
                sum.bytes += change.bytes;
            }
        }
    }

    /// Takes a change back.
    pub fn take_back(&mut self, share: &Share, change: Change) {
        if self.version == share.version {
            self.add(share, Change { topics: -change.topics, bytes: -change.bytes });
        }
    }

    fn of(&self, quota: usize, version: u64) -> Change {
        let known = self.by_quota.get(quota).filter(|_| self.version == version);
        known.copied().unwrap_or_default()
    }
}

impl Quotas {
    /// Replaces the quotas. No topic is counted yet.
    pub fn set(&mut self, quotas: Arc<[TopicQuota]>) {
        let used = vec![Amount::default(); quotas.len()];
        *self = Self { all: quotas, used, version: self.version + 1, counted: Counted::UpTo(None) };
    }

    /// The quotas, in the order of their bits in a [`Mask`].
    pub fn all(&self) -> &Arc<[TopicQuota]> {
        &self.all
    }

    /// Whether some topics may not have been counted.
    pub fn is_counting(&self) -> bool {
        matches!(self.counted, Counted::UpTo(_))
    }

    /// The last topic that was counted, if some were not.
    pub fn counted_up_to(&self) -> Option<Arc<str>> {
        match &self.counted {
            Counted::UpTo(name) => name.clone(),
            Counted::All => None,
        }
    }

    /// The topics up to this one have been counted; all if there is none.
    pub fn set_counted(&mut self, up_to: Option<Arc<str>>) {
        self.counted = up_to.map_or(Counted::All, |name| Counted::UpTo(Some(name)));
    }

    fn has_counted(&self, name: &str) -> bool {
        match &self.counted {
            Counted::All => true,
            Counted::UpTo(up_to) => up_to.as_deref().is_some_and(|up_to| name <= up_to),
        }
    }

    /// The quotas in which a topic counts.
    pub fn mask(&self, name: &str) -> Mask {
        let bits = self.all.iter().enumerate().filter(|(_, quota)| quota.has(name));
        Mask(bits.fold(0, |bits, (number, _)| bits | 1 << number))
    }

    /// In which quotas the messages of a topic count, whose mask in the index may be of earlier quotas.
    pub fn share(&self, name: &str, known: Option<Mask>) -> Share {
        let mask = known.filter(|_| self.has_counted(name)).unwrap_or_else(|| self.mask(name));
        Share { version: self.version, mask, replaced: None }
    }

    /// A topic takes another amount than before.
    pub fn change(&mut self, name: &str, mask: Mask, before: Amount, after: Amount) {
        if mask.is_empty() || !self.has_counted(name) {
            return;
        }
        for quota in mask.iter() {
            if let Some(used) = self.used.get_mut(quota) {
                used.topics = (used.topics + after.topics).saturating_sub(before.topics);
                used.bytes = (used.bytes + after.bytes).saturating_sub(before.bytes);
            }
        }
    }

    /// Counts a topic that was not counted yet.
    pub fn count(&mut self, mask: Mask, amount: Amount) {
        for quota in mask.iter() {
            if let Some(used) = self.used.get_mut(quota) {
                used.topics += amount.topics;
                used.bytes += amount.bytes;
            }
        }
    }

    /// The error of a message that would exceed a quota: it changes this much, which is in `added`.
    pub fn check(&self, share: &Share, change: Change, added: &Added) -> Result<(), Error> {
        for number in share.mask.iter().filter(|_| share.version == self.version) {
            let (Some(quota), Some(used)) = (self.all.get(number), self.used.get(number)) else { continue };
            let added = added.of(number, self.version);
            let is_over = |change: i64, used: u64, added: i64, limit: Option<u64>| {
                limit.filter(|limit| change > 0 && used.saturating_add_signed(added) > *limit)
            };
            if let Some(limit) = is_over(change.topics, used.topics, added.topics, quota.topics) {
                return Err(Error::TopicQuota { quota: quota.name(), limit });
            }
            if let Some(limit) = is_over(change.bytes, used.bytes, added.bytes, quota.bytes) {
                // Those before this one in its commit count, too.
                let used = used.bytes.saturating_add_signed(added.bytes - change.bytes);
                return Err(Error::StorageQuota { quota: quota.name(), limit, used });
            }
        }
        Ok(())
    }

    /// What is used of each.
    pub fn usage(&self) -> Vec<QuotaUsage> {
        let usage = |(quota, used): (&TopicQuota, &Amount)| QuotaUsage {
            quota: quota.clone(),
            topics: used.topics,
            bytes: used.bytes,
        };
        self.all.iter().zip(&self.used).map(usage).collect()
    }
}
