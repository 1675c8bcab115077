//! Walks through the topics by name, in slices. Topics change between two slices.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use super::Topics;
use crate::messages::{
    embedded::{format::trim_points::TrimPoint, index::topic::Topic},
    topic::Pattern,
};

/// What is known about a topic.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// It holds messages.
    Alive(&'a Topic),
    /// It holds no message, and this was removed from it.
    Gone(&'a TrimPoint),
}

impl Known<'_> {
    /// What was removed from it.
    pub fn trim_point(&self) -> &TrimPoint {
        match self {
            Self::Alive(topic) => &topic.trim_point,
            Self::Gone(trim_point) => trim_point,
        }
    }

    /// The trim point, if it must be known after a restart.
    pub fn stored(&self) -> Option<TrimPoint> {
        match self {
            Self::Alive(topic) => topic.stored(),
            Self::Gone(trim_point) => Some(**trim_point),
        }
    }
}

impl Topics {
    /// The topics after a name that hold messages and may match: those with the longest common beginning of the patterns'
    /// topics.
    pub fn matching_after<'a>(
        &'a self,
        patterns: Option<&[Pattern]>,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Topic)> {
        matching(&self.alive, patterns, after).map(|(name, topic)| (name, topic.as_ref()))
    }

    /// Calls `each` for up to `most` topics after a name that may match, by name, whether they hold messages or not. Returns
    /// the name to continue after; `None` at the end. A topic that ends or begins again between two slices is in one of
    /// them, and in one only, because its name is what the walk goes by.
    pub fn known_after(
        &self,
        patterns: Option<&[Pattern]>,
        after: Option<&str>,
        most: usize,
        mut each: impl FnMut(&Arc<str>, Known<'_>),
    ) -> Option<Arc<str>> {
        let mut alive = self.matching_after(patterns, after).peekable();
        let mut gone = matching(&self.gone, patterns, after).peekable();
        let mut last = None;
        for _ in 0..most {
            let next = match (alive.peek(), gone.peek()) {
                (Some((first, _)), Some((second, _))) if second < first => None,
                (Some(_), _) => alive.next(),
                (None, _) => None,
            };
            let (name, known) = if let Some((name, topic)) = next {
                (name, Known::Alive(topic))
            } else {
                let (name, trim_point) = gone.next()?;
                (name, Known::Gone(trim_point))
            };
            each(name, known);
            last = Some(name);
        }
        last.cloned()
    }
}

fn matching<'a, T>(
    topics: &'a BTreeMap<Arc<str>, T>,
    patterns: Option<&[Pattern]>,
    after: Option<&str>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a T)> {
    let prefixes = || patterns.unwrap_or_default().iter().map(Pattern::prefix);
    let first = prefixes().min().unwrap_or_default();
    let prefix = prefixes().fold(first, |common, prefix| {
        let same = common.bytes().zip(prefix.bytes()).take_while(|(one, other)| one == other).count();
        // Both begin with whole characters that are the same.
        common.get(..same).unwrap_or_default()
    });
    let prefix = prefix.to_owned();
    let start = match after {
        Some(after) if after >= prefix.as_str() => Bound::Excluded(after),
        _ => Bound::Included(prefix.as_str()),
    };
    let topics = topics.range::<str, _>((start, Bound::Unbounded));
    topics.take_while(move |(name, _)| name.starts_with(prefix.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::embedded::{format::footer::Held, index::topic::Trimmed};

    fn hold(topics: &mut Topics, name: &str) {
        topics.add_held(name, &Held { messages: 1, ..Held::default() });
    }

    fn end(topics: &mut Topics, name: &str) {
        let known = topics.get(name).cloned().unwrap_or_default();
        let trim_point = TrimPoint { first_kept: 9, ..known.trim_point };
        assert!(topics.trim(name, &known, &Trimmed { messages: 1, trim_point, ..Trimmed::default() }));
    }

    /// The names of a slice, with those of topics without messages in capitals.
    fn slice(topics: &Topics, after: Option<&str>, seen: &mut Vec<String>) -> Option<Arc<str>> {
        topics.known_after(None, after, 2, |name, known| {
            seen.push(if matches!(known, Known::Gone(_)) { name.to_uppercase() } else { name.to_string() });
        })
    }

    #[test]
    fn each_topic_is_seen_once_though_topics_end_and_begin_again_between_slices() {
        let mut topics = Topics::new(vec![]);
        for name in ["a", "b", "c", "d", "e", "f"] {
            hold(&mut topics, name);
        }
        for name in ["a", "c", "e"] {
            end(&mut topics, name);
        }
        let mut seen = vec![];
        let mut after = slice(&topics, None, &mut seen);
        assert_eq!(after.as_deref(), Some("b"));
        while after.is_some() {
            // All topics that are left and those that were seen pass to the other side.
            for name in ["a", "b", "c", "d", "e", "f"] {
                if topics.get(name).is_some() { end(&mut topics, name) } else { hold(&mut topics, name) }
            }
            after = slice(&topics, after.as_deref(), &mut seen);
        }
        assert_eq!(seen, ["A", "b", "c", "D", "E", "f"]);
    }
}
