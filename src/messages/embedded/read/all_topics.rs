//! Questions about all topics, of which there may be a million. They are asked in slices, so that no lock is held for long.

use std::{
    collections::HashMap,
    io,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use crate::messages::{
    Sequence, TopicInfo, TopicPage,
    embedded::{
        Embedded, Shared,
        format::trim_points::{TrimPoint, TrimPoints},
        index::{topic::Topic, topics::Topics},
        stamp,
    },
    topic::{self, Pattern},
};

/// The number of topics that are looked at under one lock.
const SLICE: usize = 4096;

/// The number of sets of patterns whose losses are kept.
const MAX_LOSSES: usize = 1024;

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
    fn find(&self, patterns: &[Pattern], epoch: u64) -> Option<u64> {
        let losses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let loss = losses.get(key(patterns).as_str()).filter(|loss| loss.epoch == epoch);
        loss.map(|loss| loss.lost_up_to)
    }

    fn keep(&self, patterns: &[Pattern], loss: Loss) {
        let mut losses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if losses.len() >= MAX_LOSSES {
            losses.clear();
        }
        losses.insert(key(patterns).into(), loss);
    }
}

fn key(patterns: &[Pattern]) -> String {
    patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(" ")
}

/// A walk through the topics that hold messages, by name. Topics that cannot match are left out, some others are not.
#[derive(Debug)]
struct Walk {
    patterns: Option<Arc<[Pattern]>>,
    after: Option<Arc<str>>,
}

impl Walk {
    fn new(patterns: Option<Arc<[Pattern]>>, after: Option<&str>) -> Self {
        Self { patterns, after: after.map(Arc::from) }
    }

    /// Calls `each` for each topic of a slice, until it breaks. Breaks then, and at the end of the walk.
    fn step(
        &mut self,
        shared: &Shared,
        mut each: impl FnMut(&Topics, &Arc<str>, &Topic) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let state = shared.state();
        let (mut seen, mut last) = (0, None);
        let topics = state.topics.matching_after(self.patterns.as_deref(), self.after.as_deref());
        for (name, topic) in topics.take(SLICE) {
            (seen, last) = (seen + 1, Some(name));
            each(&state.topics, name, topic)?;
        }
        self.after = last.cloned();
        if seen < SLICE { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The search for the highest lost sequence of the topics that match, or of those that have lost messages since a loss
/// epoch. One of a topic whose trim point was dropped counts, because it may have matched.
#[derive(Debug)]
struct LossSearch {
    patterns: Arc<[Pattern]>,
    since: Option<u64>,
    after: Option<Arc<str>>,
    lost_up_to: u64,
}

impl LossSearch {
    fn new(patterns: Arc<[Pattern]>, since: Option<u64>) -> Self {
        Self { patterns, since, after: None, lost_up_to: 0 }
    }

    /// Searches a slice. Breaks with the result at the end.
    fn step(&mut self, shared: &Shared) -> ControlFlow<u64> {
        let topics = &shared.state().topics;
        let (patterns, after) = (self.patterns.clone(), self.after.take());
        self.after = topics.known_after(Some(&patterns), after.as_deref(), SLICE, |name, known| {
            self.look(name, known.trim_point());
        });
        if self.after.is_some() {
            return ControlFlow::Continue(());
        }
        let (forgotten_up_to, forgotten_at) = topics.forgotten();
        let counts = self.since.is_none_or(|since| forgotten_at > since);
        ControlFlow::Break(if counts { self.lost_up_to.max(forgotten_up_to) } else { self.lost_up_to })
    }

    fn look(&mut self, name: &str, point: &TrimPoint) {
        if point.lost_up_to > self.lost_up_to
            && self.since.is_none_or(|since| point.lost_at > since)
            && self.patterns.iter().any(|pattern| pattern.matches(name))
        {
            self.lost_up_to = point.lost_up_to;
        }
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
        let mut walk = Walk::new(patterns.map(Arc::from), after);
        while walk.step(self, &mut each).is_continue() {}
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

    /// What must be known after a restart of every removal so far. No lock is held for longer than a slice takes.
    pub fn all_trim_points(&self) -> TrimPoints {
        let (mut points, mut after) = (Vec::new(), None::<Arc<str>>);
        loop {
            let state = self.state();
            after = state.topics.known_after(None, after.as_deref(), SLICE, |name, known| {
                points.extend(known.stored().map(|point| (name.clone(), point)));
            });
            if after.is_none() {
                // Under the same lock as the last slice: whatever was dropped meanwhile is among the forgotten ones.
                return state.topics.to_store(points);
            }
        }
    }

    /// The highest lost sequence of the topics that match, if it is known without a search. It is exact only above `after`.
    fn known_loss(&self, patterns: &[Pattern], since: Option<u64>, after: u64) -> Result<u64, Unknown> {
        let state = self.state();
        let topics = &state.topics;
        if topics.max_lost() <= after {
            return Ok(0);
        }
        let epoch = topics.loss_epoch();
        let known = lost_of_names(topics, patterns, since)
            .or_else(|| since.is_none().then(|| self.losses.find(patterns, epoch)).flatten());
        known.ok_or(Unknown { epoch })
    }
}

/// A search is needed, whose result is that of this loss epoch or a later one.
struct Unknown {
    epoch: u64,
}

/// The highest lost sequence of topics by their names, of losses since an epoch if one is given; `None` if a pattern is not a
/// name.
fn lost_of_names(topics: &Topics, patterns: &[Pattern], since: Option<u64>) -> Option<u64> {
    let names = patterns.iter().map(Pattern::literal).collect::<Option<Vec<_>>>()?;
    Some(names.into_iter().map(|name| topics.lost_of(name, since)).max().unwrap_or(0))
}

impl Embedded {
    /// The highest sequence after `after` that was lost of the topics that match; 0 for none.
    pub async fn lost_up_to(&self, patterns: &Arc<[Pattern]>, after: u64) -> io::Result<u64> {
        let lost_up_to = match self.shared.known_loss(patterns, None, after) {
            Ok(lost_up_to) => lost_up_to,
            Err(Unknown { epoch }) => {
                let lost_up_to = self.search_losses(patterns, None).await?;
                self.shared.losses.keep(patterns, Loss { epoch, lost_up_to });
                lost_up_to
            }
        };
        Ok(if lost_up_to > after { lost_up_to } else { 0 })
    }

    /// The same, of the topics that have lost messages since a loss epoch. It is not kept for other subscriptions, because
    /// each has an epoch of its own.
    pub async fn lost_since(&self, epoch: u64, patterns: &Arc<[Pattern]>, after: u64) -> io::Result<u64> {
        let lost_up_to = match self.shared.known_loss(patterns, Some(epoch), after) {
            Ok(lost_up_to) => lost_up_to,
            Err(_) => self.search_losses(patterns, Some(epoch)).await?,
        };
        Ok(if lost_up_to > after { lost_up_to } else { 0 })
    }

    async fn search_losses(&self, patterns: &Arc<[Pattern]>, since: Option<u64>) -> io::Result<u64> {
        let shared = self.shared.clone();
        let mut search = LossSearch::new(patterns.clone(), since);
        self.pool().walk(move || search.step(&shared)).await
    }

    /// The oldest sequence that the log holds of the users' topics.
    pub async fn oldest(&self) -> io::Result<Option<Sequence>> {
        let (shared, mut walk, mut oldest) = (self.shared.clone(), Walk::new(None, None), None::<u64>);
        let step = move || {
            let step = walk.step(&shared, |_, name, topic| {
                if !topic::is_reserved(name) {
                    let first = topic.held.first.sequence;
                    oldest = Some(oldest.map_or(first, |oldest| oldest.min(first)));
                }
                ControlFlow::Continue(())
            });
            if step.is_break() { ControlFlow::Break(oldest) } else { ControlFlow::Continue(()) }
        };
        Ok(self.pool().walk(step).await?.and_then(Sequence::new))
    }

    /// The topics that match and that `shows` names, sorted by name: at most `page_size`, after the name `after`.
    pub async fn list_topics(
        &self,
        pattern: Pattern,
        page_size: usize,
        after: Option<&str>,
        shows: impl Fn(&str) -> bool + Send + 'static,
    ) -> io::Result<TopicPage> {
        let info = |name: &Arc<str>, topic: &Topic| TopicInfo {
            name: name.to_string(),
            messages: topic.held.messages,
            bytes: Some(topic.held.bytes),
            first: stamp(topic.held.first),
            last: stamp(topic.held.last),
        };
        let (shared, mut topics) = (self.shared.clone(), Vec::new());
        let mut walk = Walk::new(Some(Arc::new([pattern.clone()])), after);
        let step = move || {
            let step = walk.step(&shared, |_, name, topic| {
                if pattern.matches(name) && shows(name) {
                    topics.push(info(name, topic));
                }
                if topics.len() > page_size { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if step.is_break() {
                ControlFlow::Break(std::mem::take(&mut topics))
            } else {
                ControlFlow::Continue(())
            }
        };
        let mut topics = self.pool().walk(step).await?;
        let has_more = topics.len() > page_size;
        topics.truncate(page_size);
        let next = topics.last().filter(|_| has_more).map(|topic| topic.name.clone());
        Ok(TopicPage { topics, next })
    }
}
