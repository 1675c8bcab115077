//! Quotas of topics: how many topics the log has that match, and how many bytes it stores of their messages.

use super::topic::Pattern;

/// There are up to this many quotas: the index has a bit for each in every topic.
pub const MAX_QUOTAS: usize = 64;

/// How much the topics that match may take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicQuota {
    /// A topic counts if one of these matches it.
    pub patterns: Vec<Pattern>,
    /// The most topics with messages; `None` for any number.
    pub topics: Option<u64>,
    /// The most bytes of messages; `None` for any number.
    pub bytes: Option<u64>,
}

impl TopicQuota {
    /// Its patterns, as texts and metrics name it.
    pub fn name(&self) -> String {
        self.patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Whether a topic counts.
    pub fn has(&self, topic: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(topic))
    }
}

/// A quota, and what is used of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QuotaUsage {
    /// The quota of which this is the use.
    pub quota: TopicQuota,
    /// The topics that match and have messages.
    pub topics: u64,
    /// The bytes of their messages.
    pub bytes: u64,
}
