//! Parts of footers that were read lately, and what was made of them.

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache as QuickCache};

use crate::messages::embedded::{
    disk::File,
    format::footer::{Footer, Found, Posting, Range, RangeList},
};

/// The size of the parts of footers that are kept in memory.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// The expected number of these parts.
const CACHE_ITEMS: usize = 4096;

/// Parts of footers that were read lately.
#[derive(Debug)]
pub struct Cache(QuickCache<(u64, Key), Kept, Weight>);

/// The cheapest way to read the messages that match from a segment.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Run by run.
    Runs,
    /// One by one, by the index of these topics.
    Topics(Vec<Arc<str>>),
}

impl Cache {
    /// The bytes of memory that the parts hold, about.
    pub fn memory(&self) -> u64 {
        self.0.weight()
    }
}

/// The footer of a segment, by the id of the segment.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub id: u64,
    pub file: &'a File,
    pub footer: &'a Footer,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Key {
    List,
    Range(usize),
    Postings(Box<str>),
    Plan(Box<str>),
}

#[derive(Clone, Debug)]
enum Kept {
    List(Arc<RangeList>),
    Range(Range),
    Postings(Arc<[Posting]>),
    Plan(Arc<Plan>),
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<(u64, Key), Kept> for Weight {
    fn weight(&self, (_, key): &(u64, Key), kept: &Kept) -> u64 {
        let key = match key {
            Key::List | Key::Range(_) => 0,
            Key::Postings(text) | Key::Plan(text) => text.len(),
        };
        let kept = match kept {
            Kept::List(list) => list.bytes(),
            Kept::Range(range) => range.bytes(),
            Kept::Postings(postings) => size_of_val(postings.as_ref()),
            Kept::Plan(plan) => match plan.as_ref() {
                Plan::Runs => 0,
                Plan::Topics(topics) => topics.iter().map(|topic| topic.len() + 32).sum(),
            },
        };
        (key + kept + 64) as u64
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self(QuickCache::with_weighter(CACHE_ITEMS, CACHE_BYTES, Weight))
    }
}

impl Cache {
    /// The list of the ranges of a footer.
    pub fn list(&self, of: Source<'_>) -> Found<Arc<RangeList>> {
        if let Some(Kept::List(list)) = self.0.get(&(of.id, Key::List)) {
            return Ok(Ok(list));
        }
        Ok(of.footer.ranges(of.file)?.map(|list| {
            let list = Arc::new(list);
            self.0.insert((of.id, Key::List), Kept::List(list.clone()));
            list
        }))
    }

    /// A range of records.
    pub fn range(&self, of: Source<'_>, list: &RangeList, place: usize) -> Found<Range> {
        let key = (of.id, Key::Range(place));
        if let Some(Kept::Range(range)) = self.0.get(&key) {
            return Ok(Ok(range));
        }
        Ok(of.footer.range(of.file, list, place)?.inspect(|range| {
            self.0.insert(key, Kept::Range(range.clone()));
        }))
    }

    /// The places of the messages of a topic, if they are in memory.
    pub fn postings(&self, id: u64, topic: &str) -> Option<Arc<[Posting]>> {
        match self.0.get(&(id, Key::Postings(topic.into()))) {
            Some(Kept::Postings(postings)) => Some(postings),
            _ => None,
        }
    }

    /// Keeps the places of the messages of a topic.
    pub fn keep_postings(&self, id: u64, topic: &str, postings: &Arc<[Posting]>) {
        self.0.insert((id, Key::Postings(topic.into())), Kept::Postings(postings.clone()));
    }

    /// The plan for some patterns, if it is in memory.
    pub fn plan(&self, id: u64, patterns: &str) -> Option<Arc<Plan>> {
        match self.0.get(&(id, Key::Plan(patterns.into()))) {
            Some(Kept::Plan(plan)) => Some(plan),
            _ => None,
        }
    }

    /// Keeps the plan for some patterns.
    pub fn keep_plan(&self, id: u64, patterns: &str, plan: &Arc<Plan>) {
        self.0.insert((id, Key::Plan(patterns.into())), Kept::Plan(plan.clone()));
    }
}
