//! The index of a segment whose footer is not written yet.

use std::{collections::HashMap, sync::Arc};

use crate::messages::embedded::format::{
    block::{Block, Salt},
    footer::{self, Held, List, Posting, SparseEntry, Summary, version2},
};

/// The size of a run of blocks: a batch or two, so that a slow or narrow subscription reads little in vain.
const RUN_BYTES: u64 = 64 * 1024;

/// The index of a segment, built block by block.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    entries: Vec<SparseEntry>,
    /// The offset after the last block, and after a mark that follows it.
    end: u64,
    topics: Vec<(Arc<str>, OfTopic)>,
    places: HashMap<Arc<str>, u32>,
    summary: Summary,
    salt: Salt,
}

/// The messages of a topic. With a million topics most have one message in a segment.
#[derive(Clone, Debug)]
enum OfTopic {
    One(Posting),
    More(Box<List>),
}

impl OfTopic {
    fn add(&mut self, posting: Posting) {
        match self {
            Self::One(first) => {
                let mut list = List::default();
                for posting in [*first, posting] {
                    list.held.add(&posting);
                    list.postings.push(posting);
                }
                *self = Self::More(Box::new(list));
            }
            Self::More(list) => {
                list.held.add(&posting);
                list.postings.push(posting);
            }
        }
    }

    fn held(&self) -> Held {
        match self {
            Self::One(posting) => {
                let mut held = Held::default();
                held.add(posting);
                held
            }
            Self::More(list) => list.held,
        }
    }

    fn postings(&self) -> &[Posting] {
        match self {
            Self::One(posting) => std::slice::from_ref(posting),
            Self::More(list) => &list.postings,
        }
    }
}

impl IndexBuilder {
    /// The index of a segment without blocks, whose header ends at an offset.
    pub fn new(salt: Salt, header_end: usize) -> Self {
        Self { salt, end: header_end as u64, ..Self::default() }
    }

    /// The bytes of memory that it holds, about.
    pub fn memory(&self) -> usize {
        let messages = usize::try_from(self.summary.messages).unwrap_or(usize::MAX);
        messages.saturating_mul(size_of::<Posting>())
            + self.topics.len() * 2 * size_of::<(Arc<str>, OfTopic)>()
            + self.entries.len() * size_of::<SparseEntry>()
    }

    /// Adds a block from `start` to `end` whose body begins at `body`.
    pub fn add(&mut self, block: &Block, start: u64, body: u64, end: u64) {
        let time = block.time;
        match self.entries.last_mut() {
            Some(entry) if start - u64::from(entry.offset) < RUN_BYTES => {
                entry.last_sequence = block.last_sequence;
                (entry.min_time, entry.max_time) = (entry.min_time.min(time), entry.max_time.max(time));
            }
            _ => self.entries.push(SparseEntry {
                offset: offset_of(start),
                first_sequence: block.first_sequence,
                last_sequence: block.last_sequence,
                min_time: time,
                max_time: time,
            }),
        }
        // The place of each topic of the block, once it is known.
        let mut places = vec![None; block.topics.len()];
        for entry in &block.entries {
            let posting = Posting {
                sequence: entry.sequence,
                time,
                expires: entry.expires,
                offset: offset_of(body + u64::from(entry.start)),
                length: entry.end - entry.start,
                checksum: entry.checksum,
            };
            let topic = entry.topic as usize;
            let Some((name, place)) = block.topics.get(topic).zip(places.get_mut(topic)) else { continue };
            *place = Some(match *place {
                Some(place) => self.add_to(place, posting),
                None => self.add_by_name(name, posting),
            });
        }
        let summary = &mut self.summary;
        if summary.messages == 0 {
            summary.first_sequence = block.first_sequence;
            (summary.min_time, summary.max_time) = (time, time);
        }
        summary.last_sequence = block.last_sequence;
        summary.last_time = time;
        (summary.min_time, summary.max_time) = (summary.min_time.min(time), summary.max_time.max(time));
        summary.messages += block.entries.len() as u64;
        summary.ids += block.ids.len() as u64;
        summary.topics = self.topics.len() as u64;
        self.end = end;
    }

    fn add_to(&mut self, place: u32, posting: Posting) -> u32 {
        if let Some((_, of_topic)) = self.topics.get_mut(place as usize) {
            of_topic.add(posting);
        }
        place
    }

    fn add_by_name(&mut self, name: &Arc<str>, posting: Posting) -> u32 {
        if let Some(place) = self.places.get(name.as_ref()) {
            return self.add_to(*place, posting);
        }
        let place = offset_of(self.topics.len() as u64);
        self.places.insert(name.clone(), place);
        self.topics.push((name.clone(), OfTopic::One(posting)));
        place
    }

    /// Adds a mark after the last block.
    pub fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// The topics in the order of their names.
    fn sorted(&self) -> Vec<&(Arc<str>, OfTopic)> {
        let mut topics = self.topics.iter().collect::<Vec<_>>();
        topics.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        topics
    }

    /// The index as a footer.
    pub fn to_footer(&self) -> Vec<u8> {
        let topics = self.sorted().into_iter();
        let topics = topics.map(|(name, of_topic)| (name.as_ref(), of_topic.held(), of_topic.postings()));
        footer::to_bytes(self.end, &self.entries, topics, &self.summary, self.salt)
    }

    /// The index as a footer of version 2 of the format.
    pub fn to_footer_of_version_2(&self) -> Vec<u8> {
        let list =
            |of_topic: &OfTopic| List { held: of_topic.held(), postings: of_topic.postings().to_vec() };
        let lists = self.sorted().into_iter().map(|(name, of_topic)| (name, list(of_topic)));
        let lists = lists.collect::<Vec<_>>();
        let topics = lists.iter().map(|(name, list)| (name.as_ref(), list));
        version2::to_bytes(self.end, &self.entries, topics, &self.summary, self.salt)
    }

    /// The sparse index.
    pub fn entries(&self) -> &[SparseEntry] {
        &self.entries
    }

    /// The offset after the last block, and after a mark that follows it.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// A summary of the segment.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// The salt of its records.
    pub fn salt(&self) -> Salt {
        self.salt
    }

    /// The places of the messages of a topic, in order.
    pub fn postings(&self, topic: &str) -> &[Posting] {
        self.of(topic).map(OfTopic::postings).unwrap_or_default()
    }

    /// What the segment holds of a topic.
    pub fn held(&self, topic: &str) -> Option<Held> {
        self.of(topic).map(OfTopic::held)
    }

    fn of(&self, topic: &str) -> Option<&OfTopic> {
        self.topics.get(*self.places.get(topic)? as usize).map(|(_, of_topic)| of_topic)
    }

    /// The topics from a place on, at most `most` of them, in the order of their first messages.
    pub fn topics(&self, from: usize, most: usize) -> impl Iterator<Item = (&Arc<str>, Held)> {
        let topics = self.topics.iter().skip(from).take(most);
        topics.map(|(name, of_topic)| (name, of_topic.held()))
    }
}

#[expect(clippy::expect_used, reason = "a segment has at most 1 GiB, and a commit")]
fn offset_of(at: u64) -> u32 {
    u32::try_from(at).expect("an offset within a segment fits 32 bits")
}
