//! Removes what rules and expiry remove, thousands of topics at a time, with other tasks in between.

use std::{io, sync::Arc};

use super::{
    TOPICS_AT_ONCE, Worker,
    due::Due,
    trim::{Limit, Over},
};
use crate::messages::{
    Error,
    clock::whole,
    embedded::{age::Moment, format::footer::At, read::fetch::retrying},
    retention::Rule,
};

/// The number of topics that are trimmed under one lock.
const TRIMMED_AT_ONCE: usize = 256;

impl Worker {
    /// Removes the messages that are over a limit or expired.
    pub(super) fn remove(&self, moment: &Moment) -> Result<(), Error> {
        let rules = self.shared.state().topics.rules().to_vec();
        let removed_by_rule = rules
            .iter()
            .enumerate()
            .map(|(place, rule)| self.limit_of(place, rule, moment))
            .collect::<Result<Vec<_>, _>>()?;
        self.all_due_up_to.set(self.all_due_up_to.get().max(all_due_up_to(&rules, &removed_by_rule)));
        let mut after = None::<Arc<str>>;
        loop {
            let (over, last) = self.over(&rules, &removed_by_rule, after.as_deref(), moment);
            self.trim_topics(&over)?;
            match last {
                Some(last) if self.let_others_in() => after = Some(last),
                _ => return Ok(()),
            }
        }
    }

    /// Removes the oldest messages of topics. One that has changed meanwhile is left for the next run.
    fn trim_topics(&self, over: &[Over]) -> io::Result<()> {
        let all_trimmed = retrying(|| self.shared.trim_all(over))?;
        let (mut over, mut all_trimmed) = (over.chunks(TRIMMED_AT_ONCE), all_trimmed.chunks(TRIMMED_AT_ONCE));
        while let Some((over, all_trimmed)) = over.next().zip(all_trimmed.next()) {
            let mut state = self.shared.state_mut();
            for ((name, topic, limit), trimmed) in over.iter().zip(all_trimmed) {
                // As in `trim_topic`.
                if trimmed.messages > 0 || trimmed.first.is_none() {
                    let is_done = state.topics.trim(name, topic, trimmed);
                    self.is_unwritten.set(self.is_unwritten.get() || is_done);
                    let is_by_age = is_done && limit.is_by_age();
                    self.removals_by_age.set(self.removals_by_age.get() + u64::from(is_by_age));
                }
            }
        }
        Ok(())
    }

    /// What a rule removes of its topics together.
    fn limit_of(&self, place: usize, rule: &Rule, moment: &Moment) -> io::Result<Limit> {
        // Messages that are published meanwhile are not old, even if all others are.
        let head = *self.shared.head.borrow();
        let due = match rule.age {
            Some(age) => retrying(|| self.shared.due(whole(age), head, moment))?,
            None => Due::default(),
        };
        let remove_up_to = match rule.total {
            Some(total) => retrying(|| self.shared.over_total(place, total))?,
            None => 0,
        };
        Ok(Limit { remove_up_to, due: due.into(), expired: Some(moment.clone()), ..Limit::default() })
    }

    /// The topics after a name that are over a limit, and the name to continue after; `None` for the last page.
    fn over(
        &self,
        rules: &[Rule],
        removed_by_rule: &[Limit],
        after: Option<&str>,
        moment: &Moment,
    ) -> (Vec<Over>, Option<Arc<str>>) {
        let state = self.shared.state();
        let (mut over, mut last, mut count) = (Vec::new(), None, 0);
        for (name, topic) in state.topics.after(after).take(TOPICS_AT_ONCE) {
            count += 1;
            last = Some(name.clone());
            let held = &topic.held;
            let rule = state.topics.rule_of(name);
            let rule = rule.and_then(|place| Some((rules.get(place)?, removed_by_rule.get(place)?)));
            let mut limit = Limit { expired: Some(moment.clone()), ..Limit::default() };
            if let Some((rule, of_rule)) = rule {
                limit = of_rule.clone();
                limit.messages = rule.count.map_or(0, |most| held.messages.saturating_sub(most));
                limit.bytes = rule.bytes.map_or(0, |most| held.bytes.saturating_sub(most));
            }
            let At { sequence, time } = held.first;
            if moment.has_expired(sequence, time, held.first_expires)
                || limit.has_all(sequence, sequence)
                || limit.messages > 0
                || limit.bytes > 0
            {
                over.push((name.clone(), topic.clone(), limit));
            }
        }
        (over, last.filter(|_| count == TOPICS_AT_ONCE))
    }
}

/// A limit removes all messages up to this sequence, whatever their topic; 0 for none. The limits by number and size of a single
/// topic say nothing about messages of which the topic is unknown.
fn all_due_up_to(rules: &[Rule], limits: &[Limit]) -> u64 {
    let Some(last) = rules.iter().position(|rule| rule.pattern.matches_all()) else { return 0 };
    let up_to = limits.iter().take(last + 1).map(|limit| limit.remove_up_to.max(limit.due.up_to()));
    up_to.min().unwrap_or(0)
}
