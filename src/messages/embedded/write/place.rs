//! Placing messages in a commit: which of them are published, and with which sequence.

use super::{
    commit::Commit,
    committer::Committer,
    queue::{Mode, Outcome, Request},
};
use crate::messages::{
    Config, Error, Expected, NewMessage, Published, Sequence,
    embedded::{age::Moment, format::footer::At, read::find, time_of},
    topic,
};

impl Committer {
    /// Adds the messages of a request to the commit.
    pub fn take(&self, commit: &mut Commit, request: Request) {
        let Request { messages, mode, reply, room } = request;
        let mut results = Vec::with_capacity(messages.len());
        let savepoint = commit.builder.savepoint();
        for (index, message) in messages.iter().enumerate() {
            match self.place(commit, message, mode) {
                Err(error) if mode != Mode::Each => {
                    commit.builder.roll_back(savepoint);
                    commit.answers.push((reply, Outcome::Refused { index, error }, room));
                    return;
                }
                result => results.push(result),
            }
            if mode == Mode::Each {
                commit.builder.close_if_full();
            }
        }
        commit.builder.close_if_full();
        commit.answers.push((reply, Outcome::Each(results), room));
    }

    /// Adds a message to the commit, or finds that it was published before.
    fn place(&self, commit: &mut Commit, new: &NewMessage, mode: Mode) -> Result<Published, Error> {
        let Commit { builder, moment, moment_of_ids, .. } = commit;
        let (known, purged, topic_count, consumer_count, share) = {
            let state = self.shared.state();
            let known = state.topics.key_value(&new.topic).map(|(name, _)| name.clone());
            let purged = if new.message_id.is_some() { state.topics.purged_up_to(&new.topic) } else { 0 };
            let topics = &state.topics;
            (known, purged, topics.count(), topics.consumer_count(), topics.share(&new.topic))
        };
        let id = new.message_id.as_deref().map(|id| self.dedupe.key(&new.topic, id));
        if let Some(key) = id {
            let in_commit = builder.find(key).map(|sequence| (sequence, builder.time));
            let earlier = in_commit.or_else(|| {
                self.dedupe.find(key, &new.topic, moment_of_ids).filter(|(sequence, _)| *sequence > purged)
            });
            if let Some((sequence, time)) = earlier {
                let sequence = Sequence::of_message(sequence);
                return Ok(Published { sequence, time: time_of(time), duplicate: true });
            }
        }
        let in_commit = builder.last(&new.topic);
        let expected = match new.expected {
            Expected::Any => None,
            Expected::Empty => Some(None),
            Expected::Last(sequence) => Some(Some(sequence)),
        };
        if let Some(expected) = expected {
            let current = match in_commit {
                Some(last) => last,
                None => self.current(&new.topic, moment)?,
            };
            let current = Sequence::new(current);
            if expected != current {
                return Err(Error::SequenceMismatch { expected, current });
            }
        }
        let is_new = known.is_none() && in_commit.is_none();
        let Config { max_topics, max_consumers, .. } = self.shared.config;
        // Consumers have a limit of their own, and take no room of the topics.
        let consumers = consumer_count + builder.new_consumers();
        let topics = topic_count + builder.new_topics() - consumers;
        if is_new && topic::is_of_consumer(&new.topic) {
            if consumers >= max_consumers {
                return Err(Error::TooManyConsumers { limit: max_consumers });
            }
        } else if is_new && mode != Mode::Own && topics >= max_topics {
            return Err(Error::TooManyTopics { limit: max_topics });
        }
        let name = known.unwrap_or_else(|| new.topic.as_str().into());
        let savepoint = builder.savepoint();
        let sequence = Sequence::of_message(builder.push(name, new, id, is_new, share));
        // No quota applies to messages of the server itself: it has promised to publish them.
        if !share.is_empty() && mode != Mode::Own {
            let state = self.shared.state();
            let checked = state.topics.quotas().check(&share, builder.last_change(), builder.added());
            drop(state);
            if let Err(error) = checked {
                builder.roll_back(savepoint);
                return Err(error);
            }
        }
        Ok(Published { sequence, time: time_of(builder.time), duplicate: false })
    }

    /// The sequence of a topic's last message that has not expired; 0 if there is none.
    fn current(&self, topic: &str, moment: &Moment) -> Result<u64, Error> {
        let (known, segments) = {
            let state = self.shared.state();
            let Some(known) = state.topics.get(topic) else { return Ok(0) };
            let At { sequence, time } = known.held.last;
            if !moment.has_expired(sequence, time, known.held.last_expires) {
                return Ok(sequence);
            }
            (known.clone(), state.segments.clone())
        };
        let last = find::last_live(&self.shared, &segments, topic, &known, moment)?;
        Ok(last.map_or(0, |(_, posting)| posting.sequence))
    }
}
