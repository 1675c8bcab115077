//! Counts what a log holds, by its indexes.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::Path, time::Duration};

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::{Archive, Error, at, object};
use crate::{
    cursor,
    messages::{
        Position, Sequence,
        embedded::{
            format::{footer::Posting, segment_header},
            index::segment::Segment,
        },
        topic,
    },
    wire::message,
};

/// What a log holds. Messages are those that a reader would get, unless a field says otherwise.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// The directory of the log.
    pub directory: String,
    /// Its identity, which cursors contain; `None` if no file says it.
    pub log: Option<String>,
    /// When it was created; `None` if the identity does not contain it.
    pub create_time: Option<Timestamp>,
    /// The version of the format.
    pub format_version: u32,
    /// The number of segment files.
    pub segments: usize,
    /// The number of segments that were compacted.
    pub compacted_segments: usize,
    /// The number of topics of users.
    pub topics: u64,
    /// The number of messages of users' topics.
    pub messages: u64,
    /// The size of these messages.
    pub bytes: u64,
    /// The number of messages of the server's own topics.
    pub system_messages: u64,
    /// The size of these messages.
    pub system_bytes: u64,
    /// The room that the directory takes on the disk, in bytes.
    pub disk_bytes: u64,
    /// The oldest message of all topics.
    pub first: Option<End>,
    /// The newest message of all topics.
    pub last: Option<End>,
    /// The highest sequence that the log has given; 0 for none.
    pub head_sequence: u64,
    /// The number of messages on disk with an id, removed ones included.
    pub message_ids: u64,
    /// The number of torn tails that were set aside.
    pub torn_files: usize,
    /// The largest topics, largest first.
    pub largest_topics: Vec<TopicStats>,
    /// The consumers, by name.
    pub consumers: Vec<ConsumerStats>,
}

/// A message at an end of the log.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// Its sequence.
    pub sequence: u64,
    /// When it was published; `None` if it is damaged.
    pub time: Option<Timestamp>,
}

/// A topic.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicStats {
    /// Its name.
    pub name: String,
    /// The number of its messages.
    pub messages: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The sequence of its oldest message.
    pub first_sequence: u64,
    /// The sequence of its newest message.
    pub last_sequence: u64,
}

/// A consumer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerStats {
    /// Its name.
    pub name: String,
    /// The committed sequence, 0 for the start of the log; `None` if the commit is damaged.
    pub sequence: Option<u64>,
    /// The number of sequences from there to the newest message of users' topics.
    pub lag: Option<u64>,
    /// When it was committed; `None` if the commit is damaged.
    pub commit_time: Option<Timestamp>,
}

/// The counts of a topic.
#[derive(Default)]
struct Count {
    messages: u64,
    bytes: u64,
    first: u64,
    /// The last sequence, and the index of its segment.
    last: (u64, usize),
}

impl Archive {
    /// Counts what the log holds, with up to `most` of the largest topics.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn stats(&self, most: usize) -> Result<Stats, Error> {
        let topics = self.counts()?;
        let id = self.log.map(|log| Uuid::from_bytes(log.id));
        let mut stats = Stats {
            directory: self.directory.display().to_string(),
            log: id.map(|id| id.to_string()),
            create_time: id.and_then(made),
            format_version: segment_header::VERSION,
            segments: self.segments.len(),
            compacted_segments: self.segments.iter().filter(|segment| segment.replaces_up_to > 0).count(),
            topics: 0,
            messages: 0,
            bytes: 0,
            system_messages: 0,
            system_bytes: 0,
            disk_bytes: disk_bytes(&self.directory)?,
            first: None,
            last: None,
            head_sequence: self.head,
            message_ids: self.segments.iter().map(|segment| segment.summary().ids).sum(),
            torn_files: self.files.torn.len(),
            largest_topics: Vec::new(),
            consumers: Vec::new(),
        };
        for (name, count) in &topics {
            if topic::is_reserved(name) {
                stats.system_messages += count.messages;
                stats.system_bytes += count.bytes;
            } else {
                stats.topics += 1;
                stats.messages += count.messages;
                stats.bytes += count.bytes;
            }
            if let Some(consumer) = name.strip_prefix(topic::CONSUMER_PREFIX) {
                stats.consumers.push(self.consumer(consumer, name, count)?);
            }
        }
        let first = topics.iter().min_by_key(|(_, count)| count.first);
        let last = topics.iter().max_by_key(|(_, count)| count.last.0);
        stats.first = first.map(|(name, count)| self.end(name, count.first)).transpose()?;
        stats.last = last.map(|(name, count)| self.end(name, count.last.0)).transpose()?;
        stats.largest_topics = largest(topics, most);
        Ok(stats)
    }

    fn counts(&self) -> Result<BTreeMap<String, Count>, Error> {
        let mut topics = BTreeMap::<String, Count>::new();
        for (place, segment) in self.segments.iter().enumerate() {
            for (name, held) in self.topics_of(segment)? {
                let (messages, bytes, first, last) = if self.is_all_live(&name, &held) {
                    (held.messages, held.bytes, held.first.sequence, held.last.sequence)
                } else {
                    let live = self.live(segment, &name)?;
                    let (Some(first), Some(last)) = (live.first(), live.last()) else { continue };
                    let bytes = live.iter().map(|posting| u64::from(posting.length)).sum();
                    (live.len() as u64, bytes, first.sequence, last.sequence)
                };
                let count = topics.entry(name).or_default();
                if count.messages == 0 {
                    count.first = first;
                }
                count.messages += messages;
                count.bytes += bytes;
                count.last = (last, place);
            }
        }
        Ok(topics)
    }

    fn consumer(&self, consumer: &str, topic: &str, count: &Count) -> Result<ConsumerStats, Error> {
        let segment = self.segments.get(count.last.1);
        let posting = match segment {
            Some(segment) => self.live(segment, topic)?.pop(),
            None => None,
        };
        let bytes =
            posting.zip(segment).map(|(posting, segment)| read(segment, &posting)).transpose()?.flatten();
        let found = bytes.as_deref().and_then(message::read);
        let text = found.as_ref().and_then(|found| std::str::from_utf8(found.content).ok());
        let position = text.and_then(|text| cursor::decode::<Position>(text).ok());
        let sequence = position.map(|position| position.sequence().map_or(0, Sequence::get));
        Ok(ConsumerStats {
            name: consumer.into(),
            sequence,
            lag: sequence.map(|sequence| self.topics.newest().saturating_sub(sequence)),
            commit_time: found.and_then(|found| object::timestamp(found.time).ok()),
        })
    }

    /// A message with its time.
    fn end(&self, topic: &str, sequence: u64) -> Result<End, Error> {
        for segment in self.segments.iter().filter(|segment| segment.summary().last_sequence >= sequence) {
            let live = self.live(segment, topic)?;
            let Ok(place) = live.binary_search_by_key(&sequence, |posting| posting.sequence) else {
                continue;
            };
            let bytes = live.get(place).map(|posting| read(segment, posting)).transpose()?.flatten();
            let found = bytes.as_deref().and_then(message::read);
            return Ok(End { sequence, time: found.and_then(|found| object::timestamp(found.time).ok()) });
        }
        Ok(End { sequence, time: None })
    }
}

/// The bytes of a message; `None` if they are damaged.
fn read(segment: &Segment, posting: &Posting) -> Result<Option<Vec<u8>>, Error> {
    let bytes = segment.file.read_soundly(posting.offset.into(), posting.length as usize);
    let bytes = bytes.map_err(at(&segment.path))?;
    Ok((crc32c::crc32c(&bytes) == posting.checksum).then_some(bytes))
}

/// When a log was created: the identity of logs in this version of the format contains it.
fn made(id: Uuid) -> Option<Timestamp> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    object::timestamp(Duration::new(seconds, nanos)).ok()
}

fn largest(topics: BTreeMap<String, Count>, most: usize) -> Vec<TopicStats> {
    let mut topics = topics.into_iter().collect::<Vec<_>>();
    topics.sort_by_key(|(_, count)| std::cmp::Reverse(count.bytes));
    topics.truncate(most);
    let stats = |(name, count): (String, Count)| TopicStats {
        name,
        messages: count.messages,
        bytes: count.bytes,
        first_sequence: count.first,
        last_sequence: count.last.0,
    };
    topics.into_iter().map(stats).collect()
}

fn disk_bytes(directory: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).map_err(at(directory))? {
        // One that is gone takes none.
        if let Ok(metadata) = entry.map_err(at(directory))?.metadata() {
            bytes += metadata.blocks() * 512;
        }
    }
    Ok(bytes)
}
