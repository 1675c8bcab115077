//! Purged messages: which of their bytes may still be on the disk.

use std::sync::Arc;

use super::Topics;

/// A purge of messages that were removed before.
#[derive(Clone, Copy, Debug)]
pub struct PurgedAgain {
    /// The last of them.
    pub up_to: u64,
    /// They were not all purged before.
    pub is_news: bool,
}

impl Topics {
    /// Forgets the ids of a topic's messages up to a sequence, and has its trim point recorded. False if they were forgotten
    /// before.
    pub fn purge_ids(&mut self, name: &str, up_to: u64) -> bool {
        let Some(topic) = self.alive.get_mut(name) else { return false };
        let is_news = topic.trim_point.purged_up_to < up_to;
        topic.trim_point.purged_up_to = topic.trim_point.purged_up_to.max(up_to);
        if is_news {
            topic.recorded = topic.trim_point.first_kept;
        }
        is_news
    }

    /// Has the removed messages of a topic that holds no message any more erased, up to a sequence, and forgets their ids.
    /// `None` if the topic is not known.
    pub fn purge_gone(&mut self, name: &str, up_to: u64) -> Option<PurgedAgain> {
        let trim_point = self.gone.get_mut(name)?;
        let up_to = up_to.min(trim_point.first_kept.saturating_sub(1));
        let is_news = trim_point.purged_up_to < up_to;
        trim_point.purged_up_to = trim_point.purged_up_to.max(up_to);
        Some(PurgedAgain { up_to, is_news })
    }

    /// The topics of which bytes of purged messages may still be on disk, and the last sequence of those.
    pub fn owing_erasure(&self) -> Vec<(Arc<str>, u64)> {
        let alive = self.alive.iter().map(|(name, topic)| (name, topic.trim_point));
        let all = alive.chain(self.gone.iter().map(|(name, trim_point)| (name, *trim_point)));
        let owing = all.filter(|(_, trim_point)| trim_point.owes_erasure());
        owing.map(|(name, trim_point)| (name.clone(), trim_point.purged_up_to)).collect()
    }

    /// Records that the bytes of a topic's purged messages up to a sequence have left the disk.
    pub fn erased(&mut self, name: &str, up_to: u64) {
        let alive = self.alive.get_mut(name).map(|topic| &mut topic.trim_point);
        if let Some(trim_point) = alive.or_else(|| self.gone.get_mut(name)) {
            trim_point.erased_up_to = trim_point.erased_up_to.max(up_to);
        }
    }
}
