//! Questions about all topics, of which there may be a million. They are asked in slices, so that no lock is held for long.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use crate::messages::{
    Sequence, TopicInfo, TopicPage,
    embedded::{
        Embedded, Shared,
        format::trim_points::{TrimPoint, TrimPoints},
        index::topics::{Topic, Topics},
        stamp,
    },
    topic::{self, Pattern},
};

/// The number of topics that are looked at under one lock.
const SLICE: usize = 4096;

/// The number of sets of patterns whose losses are kept.
const MAX_LOSSES: usize = 1024;

/// The number of times that losses are looked for while topics end and begin again.
const MAX_TRIES: usize = 10;

/// The highest lost sequence of topics that match, by their patterns. Many subscriptions have the same, and ask for it
/// whenever a message is lost.
#[derive(Debug, Default)]
pub struct Losses(Mutex<HashMap<Box<str>, Loss>>);

#[derive(Clone, Copy, Debug)]
struct Loss {
    /// The loss epoch of the log at which it was found.
    epoch: u64,
    lost_up_to: u64,
}

impl Losses {
    fn find(&self, patterns: &str, epoch: u64) -> Option<u64> {
        let losses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        losses.get(patterns).filter(|loss| loss.epoch == epoch).map(|loss| loss.lost_up_to)
    }

    fn keep(&self, patterns: String, loss: Loss) {
        let mut losses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if losses.len() >= MAX_LOSSES {
            losses.clear();
        }
        losses.insert(patterns.into(), loss);
    }
}

impl Shared {
    /// Calls `each` for each topic after a name that holds messages, by name, until it breaks. Topics that cannot match are
    /// left out, some others are not. Topics change between two slices.
    pub fn try_for_each_topic(
        &self,
        patterns: Option<&[Pattern]>,
        after: Option<&str>,
        mut each: impl FnMut(&Topics, &Arc<str>, &Topic) -> ControlFlow<()>,
    ) {
        let mut after = after.map(Arc::<str>::from);
        loop {
            let state = self.state();
            let (mut seen, mut last) = (0, None);
            for (name, topic) in state.topics.matching_after(patterns, after.as_deref()).take(SLICE) {
                (seen, last) = (seen + 1, Some(name));
                if each(&state.topics, name, topic).is_break() {
                    return;
                }
            }
            if seen < SLICE {
                return;
            }
            after = last.cloned();
        }
    }

    /// Calls `each` for each topic that holds messages, by name.
    pub fn for_each_topic(&self, mut each: impl FnMut(&Topics, &Arc<str>, &Topic)) {
        self.try_for_each_topic(None, None, |topics, name, topic| {
            each(topics, name, topic);
            ControlFlow::Continue(())
        });
    }

    /// Calls `each` for each topic that holds no message any more, by name. Topics change between two slices.
    pub fn for_each_gone(&self, mut each: impl FnMut(&Arc<str>, &TrimPoint)) {
        let mut after = None::<Arc<str>>;
        loop {
            let state = self.state();
            let (mut seen, mut last) = (0, None);
            for (name, trim_point) in state.topics.gone_after(after.as_deref()).take(SLICE) {
                (seen, last) = (seen + 1, Some(name));
                each(name, trim_point);
            }
            if seen < SLICE {
                return;
            }
            after = last.cloned();
        }
    }

    /// What must be known after a restart of every removal so far.
    pub fn all_trim_points(&self) -> TrimPoints {
        for _ in 0..MAX_TRIES {
            let before = self.state().topics.passages();
            let mut points = Vec::new();
            self.for_each_topic(|_, name, topic| {
                points.extend(topic.stored().map(|point| (name.clone(), point)));
            });
            self.for_each_gone(|name, trim_point| points.push((name.clone(), *trim_point)));
            let state = self.state();
            if state.topics.passages() == before {
                return state.topics.to_store(points);
            }
        }
        let topics = &self.state().topics;
        topics.to_store(topics.trim_points())
    }

    /// The highest sequence after `after` that was lost of the topics that match; 0 for none.
    pub fn lost_up_to(&self, patterns: &[Pattern], after: u64) -> u64 {
        let epoch = {
            let state = self.state();
            let topics = &state.topics;
            if topics.max_lost() <= after {
                return 0;
            }
            if let Some(lost) = lost_of_names(topics, patterns, None) {
                return if lost > after { lost } else { 0 };
            }
            topics.loss_epoch()
        };
        let text = patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(" ");
        let lost_up_to = self.losses.find(&text, epoch).unwrap_or_else(|| {
            let lost_up_to = self.find_lost(patterns, None);
            self.losses.keep(text, Loss { epoch, lost_up_to });
            lost_up_to
        });
        if lost_up_to > after { lost_up_to } else { 0 }
    }

    /// The same, of the topics that have lost messages since a loss epoch. It is not kept for other subscriptions, because
    /// each has an epoch of its own.
    pub fn lost_since(&self, epoch: u64, patterns: &[Pattern], after: u64) -> u64 {
        let of_names = {
            let state = self.state();
            if state.topics.max_lost() <= after {
                return 0;
            }
            lost_of_names(&state.topics, patterns, Some(epoch))
        };
        let lost_up_to = of_names.unwrap_or_else(|| self.find_lost(patterns, Some(epoch)));
        if lost_up_to > after { lost_up_to } else { 0 }
    }

    /// The highest lost sequence of the topics that match, or of those that have lost messages since a loss epoch. One of a
    /// topic whose trim point was dropped counts, because it may have matched.
    fn find_lost(&self, patterns: &[Pattern], since: Option<u64>) -> u64 {
        // A topic may pass from one list to the other between two slices, so that neither loop sees it.
        for _ in 0..MAX_TRIES {
            let before = self.state().topics.passages();
            let lost_up_to = self.look_for_lost(patterns, since);
            if self.state().topics.passages() == before {
                return lost_up_to;
            }
        }
        // To report too much is an honest second best.
        self.state().topics.max_lost()
    }

    fn look_for_lost(&self, patterns: &[Pattern], since: Option<u64>) -> u64 {
        let is_since = |lost_at: u64| since.is_none_or(|since| lost_at > since);
        let is_match = |name: &str, point: &TrimPoint| {
            is_since(point.lost_at) && patterns.iter().any(|pattern| pattern.matches(name))
        };
        let mut lost_up_to = 0;
        self.try_for_each_topic(Some(patterns), None, |_, name, topic| {
            if topic.trim_point.lost_up_to > lost_up_to && is_match(name, &topic.trim_point) {
                lost_up_to = topic.trim_point.lost_up_to;
            }
            ControlFlow::Continue(())
        });
        self.for_each_gone(|name, trim_point| {
            if trim_point.lost_up_to > lost_up_to && is_match(name, trim_point) {
                lost_up_to = trim_point.lost_up_to;
            }
        });
        let topics = &self.state().topics;
        let (forgotten_up_to, forgotten_at) = topics.forgotten();
        if is_since(forgotten_at) { lost_up_to.max(forgotten_up_to) } else { lost_up_to }
    }
}

/// The highest lost sequence of topics by their names, of losses since an epoch if one is given; `None` if a pattern is not a
/// name.
fn lost_of_names(topics: &Topics, patterns: &[Pattern], since: Option<u64>) -> Option<u64> {
    let names = patterns.iter().map(Pattern::literal).collect::<Option<Vec<_>>>()?;
    Some(names.into_iter().map(|name| topics.lost_of(name, since)).max().unwrap_or(0))
}

impl Embedded {
    /// The oldest sequence that the log holds of the users' topics.
    pub fn oldest(&self) -> Option<Sequence> {
        let mut oldest = None::<u64>;
        self.shared.for_each_topic(|_, name, topic| {
            if !topic::is_reserved(name) {
                let first = topic.held.first.sequence;
                oldest = Some(oldest.map_or(first, |oldest| oldest.min(first)));
            }
        });
        oldest.and_then(Sequence::new)
    }

    /// The topics that match, sorted by name: at most `page_size`, after the name `after`.
    pub fn list_topics(&self, pattern: &Pattern, page_size: usize, after: Option<&str>) -> TopicPage {
        let info = |name: &Arc<str>, topic: &Topic| TopicInfo {
            name: name.to_string(),
            messages: topic.held.messages,
            bytes: topic.held.bytes,
            first: stamp(topic.held.first),
            last: stamp(topic.held.last),
        };
        let mut topics = Vec::new();
        let patterns = std::slice::from_ref(pattern);
        self.shared.try_for_each_topic(Some(patterns), after, |_, name, topic| {
            if pattern.matches(name) {
                topics.push(info(name, topic));
            }
            if topics.len() > page_size { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let has_more = topics.len() > page_size;
        topics.truncate(page_size);
        let next = topics.last().filter(|_| has_more).map(|topic| topic.name.clone());
        TopicPage { topics, next }
    }
}
