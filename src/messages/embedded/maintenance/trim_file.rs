//! The trim points in memory and in their file.

use std::{io, sync::MutexGuard};

use super::{TOPICS_AT_ONCE, lock, room, trim::Limit};
use crate::messages::embedded::{
    Shared,
    format::trim_points::{self, MAX_RUNS, TrimPointFile},
    read::fetch::retrying,
};

impl Shared {
    /// Subtracts from the topics what was removed before the last end of the server.
    pub fn apply_trim_points(&self) -> io::Result<()> {
        let mut unapplied = Vec::new();
        self.for_each_topic(|_, name, topic| {
            let first_kept = topic.trim_point.first_kept;
            if first_kept > topic.held.first.sequence {
                let limit = Limit { remove_up_to: first_kept - 1, ..Limit::default() };
                unapplied.push((name.clone(), topic.clone(), limit));
            }
        });
        for some in unapplied.chunks(TOPICS_AT_ONCE) {
            let all_trimmed = retrying(|| self.trim_all(some))?;
            let mut state = self.state_mut();
            for ((name, topic, _), mut trimmed) in some.iter().zip(all_trimmed) {
                // The trim point already says which of the removed messages were lost, superseded or expired.
                trimmed.trim_point.lost_up_to = topic.trim_point.lost_up_to;
                state.topics.trim(name, topic, &trimmed);
            }
        }
        Ok(())
    }

    /// Writes the file of trim points if not both copies have the same content in the newest version: then it may not be on disk, and nothing must be
    /// erased that it says is removed. It also holds the identity and the salt of the log, without which a segment whose
    /// header is damaged would be lost. False if it cannot be written yet.
    pub fn ensure_trim_points(&self) -> bool {
        if trim_points::is_settled(&self.config.disk, &self.directory) {
            return true;
        }
        let written = self.write_trim_points();
        if let Err(error) = &written {
            tracing::warn!(%error, "the file of trim points cannot be written yet");
        }
        written.is_ok()
    }

    pub fn trim_point_file(&self) -> MutexGuard<'_, TrimPointFile> {
        lock(&self.trim_point_file)
    }

    /// Replaces the file of trim points.
    pub fn write_trim_points(&self) -> io::Result<()> {
        let content = self.all_trim_points().to_bytes(self.identity);
        self.trim_point_file().write(&content)
    }

    /// The same. If the disk is full, the room of the spare files is used: nothing can be freed before it is recorded.
    pub fn write_trim_points_to_free(&self) -> io::Result<()> {
        room::with_spare(&self.config.disk, &self.directory, || self.write_trim_points())
    }

    /// Reserves room for the trim points of all topics, so that any removal can be recorded on a full disk.
    pub fn reserve_trim_points(&self) {
        let topics = self.state().topics.count_all() as u64;
        let bytes = topics * trim_points::TOPIC_BYTES + MAX_RUNS as u64 * trim_points::EPOCHS_BYTES;
        let reserved = self.trim_point_file().reserve(bytes);
        if let Err(error) = reserved {
            tracing::debug!(%error, "there is no room to reserve for trim points");
        }
    }
}
