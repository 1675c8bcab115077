//! Finds how the messages of a segment that match are read: topic by topic, or by runs.

use std::{ops::ControlFlow, sync::Arc};

use super::{Index, Sealed, Segment};
use crate::messages::{
    embedded::{
        format::footer::{Found, Held},
        index::{
            builder::IndexBuilder,
            cache::{Cache, Plan},
        },
    },
    topic::Pattern,
};

/// Messages are read one by one instead of by runs if they are less than this fraction of a segment,
const NARROW: u64 = 8;

/// and if they are of at most this many topics, each of which is looked up for each batch.
const MAX_NARROW: usize = 64;

/// The number of topics of a segment without a footer that are searched for those that match: its index is locked
/// meanwhile, and the next search may be a moment later.
const MAX_SEARCHED: usize = 8192;

/// A search for the topics that match, which ends when they are too many to be read one by one.
struct Search<'a> {
    patterns: &'a [Pattern],
    topics: Vec<Arc<str>>,
    bytes: u64,
    /// Messages of more bytes are read by runs.
    most: u64,
}

impl<'a> Search<'a> {
    /// A search in a segment whose blocks have this many bytes.
    fn new(patterns: &'a [Pattern], bytes: u64) -> Self {
        Self { patterns, topics: Vec::new(), bytes: 0, most: bytes / NARROW }
    }

    fn has(&self, name: &str) -> bool {
        self.topics.iter().any(|topic| topic.as_ref() == name)
    }

    fn is_wide(&self) -> bool {
        self.topics.len() > MAX_NARROW || self.bytes > self.most
    }

    fn add(&mut self, name: &str, held: &Held) -> ControlFlow<()> {
        if self.patterns.iter().any(|pattern| pattern.matches(name)) {
            self.topics.push(name.into());
            self.bytes += held.bytes;
        }
        if self.is_wide() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn plan(self) -> Plan {
        if self.is_wide() { Plan::Runs } else { Plan::Topics(self.topics) }
    }
}

impl Segment {
    /// How to read the messages that match.
    pub fn plan(&self, cache: &Cache, patterns: &[Pattern]) -> Found<Arc<Plan>> {
        if patterns.iter().any(Pattern::matches_all) {
            return Ok(Ok(Arc::new(Plan::Runs)));
        }
        let are_literal = patterns.iter().all(|pattern| pattern.literal().is_some());
        let Index::Sealed(sealed) = &self.index else {
            if are_literal {
                return Ok(self.plan_of_topics(cache, patterns)?.map(Arc::new));
            }
            let plan = self.with_builder(|builder| Some(Self::plan_of_open(builder, patterns)));
            return Ok(Ok(Arc::new(plan.unwrap_or(Plan::Runs))));
        };
        let text = patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(" ");
        if let Some(plan) = cache.plan(self.id, &text) {
            return Ok(Ok(plan));
        }
        let plan = if are_literal {
            self.plan_of_topics(cache, patterns)
        } else {
            self.plan_of_wildcards(cache, sealed, patterns)
        };
        let plan = Arc::new(sound!(plan));
        cache.keep_plan(self.id, &text, &plan);
        Ok(Ok(plan))
    }

    /// A plan for patterns without wildcards.
    fn plan_of_topics(&self, cache: &Cache, patterns: &[Pattern]) -> Found<Plan> {
        let mut search = Search::new(patterns, self.blocks_end());
        for name in patterns.iter().filter_map(Pattern::literal) {
            let held = sound!(self.held(cache, name));
            if let Some(held) = held.filter(|_| !search.has(name)) {
                let _ = search.add(name, &held);
            }
        }
        Ok(Ok(search.plan()))
    }

    fn plan_of_wildcards(&self, cache: &Cache, sealed: &Sealed, patterns: &[Pattern]) -> Found<Plan> {
        let list = sound!(self.list(cache, sealed));
        let mut search = Search::new(patterns, self.blocks_end());
        let from = patterns.iter().map(Pattern::prefix).min().unwrap_or_default();
        for place in list.find(from).unwrap_or(0)..list.len() {
            let is_past = |name: &str| {
                let mut prefixes = patterns.iter().map(Pattern::prefix);
                prefixes.all(|prefix| name > prefix && !name.starts_with(prefix))
            };
            if search.is_wide() || list.first_name(place).is_some_and(is_past) {
                break;
            }
            let range = sound!(sealed.footer.range(&self.file, &list, place));
            let _ = range.records().try_for_each(|record| search.add(record.name, &record.held));
        }
        Ok(Ok(search.plan()))
    }

    fn plan_of_open(builder: &IndexBuilder, patterns: &[Pattern]) -> Plan {
        if builder.summary().topics > MAX_SEARCHED as u64 {
            return Plan::Runs;
        }
        let mut search = Search::new(patterns, builder.end());
        let _ = builder.topics(0, MAX_SEARCHED).try_for_each(|(name, held)| search.add(name, &held));
        search.plan()
    }
}
