//! Purges: the removal of messages on request.
//!
//! A purge is recorded in the file of trim points before it is acknowledged, together with the erasure that it asks for. Purges
//! that wait are recorded together.

use std::io;

use super::{Purge, Task, Worker, tails, trim::Limit};
use crate::messages::{
    Error,
    embedded::{disk::is_full, format::trim_points},
};

/// The number of times that a purge is tried on a topic that keeps changing.
const MAX_TRIES: usize = 100;

/// The most purges that are recorded together.
const MAX_PURGES: usize = 1000;

impl Worker {
    /// Carries out a purge, and those that follow it in the queue.
    pub(super) fn purge(&self, first: Purge) {
        let mut purges = vec![first];
        while purges.len() < MAX_PURGES {
            match self.waiting() {
                Some(Task::Purge(purge)) => purges.push(purge),
                other => {
                    self.put_back.replace(other);
                    break;
                }
            }
        }
        // An earlier purge may have failed to write its trim point, and one of these be its repetition.
        let recorded = self.write_trim_points();
        let mut replies = Vec::new();
        for Purge { topic, up_to, reply } in purges {
            let removed = match &recorded {
                Ok(()) => self.remove_purged(&topic, up_to),
                Err(error) => Err(error.repeat()),
            };
            replies.push((reply, removed));
        }
        let recorded = self.write_trim_points();
        if recorded.is_ok() && replies.iter().any(|(_, removed)| matches!(removed, Ok(1..))) {
            self.roll_if_thin();
        }
        for (reply, removed) in replies {
            let result = match &recorded {
                Err(error) => removed.and_then(|_| Err(error.repeat())),
                Ok(()) => removed,
            };
            let _ = reply.send(result);
        }
    }

    /// Removes the messages of a topic up to a sequence, and orders their erasure.
    fn remove_purged(&self, topic: &str, up_to: u64) -> Result<u64, Error> {
        tails::erase_topic(&self.shared, topic)?;
        // What has expired is removed along with it, but not because of a clock that may be ahead.
        let expired = Some(self.moment_of_removal().0);
        let limit = Limit { remove_up_to: up_to, expired, ..Limit::default() };
        let mut count = 0;
        for _ in 0..MAX_TRIES {
            let known = self.shared.state().topics.get(topic).cloned();
            let Some(known) = known else {
                // Retention, expiry or this purge has removed all messages. Their bytes may still be on the disk.
                let mut state = self.shared.state_mut();
                if state.topics.get(topic).is_some() {
                    continue;
                }
                let Some(purged) = state.topics.purge_gone(topic, up_to) else { return Err(Error::NoTopic) };
                drop(state);
                if purged.is_news {
                    self.is_unwritten.set(true);
                    self.eraser.borrow_mut().owe(topic, purged.up_to);
                }
                return Ok(count);
            };
            let purged = up_to.min(known.held.last.sequence);
            if known.held.first.sequence > up_to {
                // Everything was removed before: forget the message ids too, and erase.
                if self.shared.state_mut().topics.purge_ids(topic, purged) {
                    self.is_unwritten.set(true);
                    self.eraser.borrow_mut().owe(topic, purged);
                }
                return Ok(count);
            }
            let removed = self.trim_topic(&topic.into(), &known, &limit, purged)?;
            if removed.is_some() {
                self.eraser.borrow_mut().owe(topic, purged);
            }
            count += removed.unwrap_or(0);
        }
        // Publishers changed the topic during each try.
        Err(io::Error::from(io::ErrorKind::ResourceBusy).into())
    }

    /// Writes the file of trim points, if there are removals that it does not have.
    pub(super) fn write_trim_points(&self) -> Result<(), Error> {
        if self.is_unwritten.get() {
            self.shared
                .write_trim_points()
                .or_else(|error| {
                    // The room that was reserved for it is too small.
                    let has_room = is_full(&error) && self.give_room_back();
                    if has_room { self.shared.write_trim_points() } else { Err(error) }
                })
                .or_else(
                    |error| {
                        if is_full(&error) { self.shared.write_trim_points_to_free() } else { Err(error) }
                    },
                )
                .map_err(|error| {
                    let full = is_full(&error);
                    if full {
                        Error::Full(self.shared.needed_room(trim_points::TOPIC_BYTES))
                    } else {
                        error.into()
                    }
                })?;
            self.is_unwritten.set(false);
        }
        Ok(())
    }
}
