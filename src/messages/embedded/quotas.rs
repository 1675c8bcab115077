//! The quotas of topics: they are replaced while the log is in use, and kept by the committer.

use std::{ops::ControlFlow, sync::Arc};

use super::Embedded;
use crate::messages::{
    Error,
    quota::{QuotaUsage, TopicQuota},
};

/// The number of topics that are counted under one lock.
const SLICE: usize = 1_000;

impl Embedded {
    /// Replaces the quotas, and counts what the topics take of them.
    pub async fn set_quotas(&self, quotas: Vec<TopicQuota>) -> Result<(), Error> {
        let quotas = Arc::from(quotas);
        let shared = self.shared.clone();
        if *shared.state().topics.quotas().all() == quotas {
            return Ok(());
        }
        shared.state_mut().topics.set_quotas(quotas);
        let count = move || {
            let has_more = shared.state_mut().topics.count_quotas(SLICE);
            if has_more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        Ok(self.pool().walk(count).await?)
    }

    /// The quotas, and what is used of each.
    pub fn quotas(&self) -> Vec<QuotaUsage> {
        self.shared.state().topics.quotas().usage()
    }
}
