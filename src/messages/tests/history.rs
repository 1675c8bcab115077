//! A history of requests and answers of a log, and the check that the log kept its promises.
//!
//! A history is a list of facts in the order in which one client, which sends one request after another, learned them.
//! [`check`] finds the first broken promise: an acknowledged message that is missing, doubled, at another sequence, out of
//! order or with another payload; a refused or purged message that is there; half a batch; a forgotten message id; a consumer
//! with another position. Messages of a file that was lost may be missing, if that is reported, and nothing else may. Messages that expire
//! are there until they are that old, and no longer, by the time that really passed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use ages::{Ages, Now, Since, max_age};

pub mod ages;
mod tests;

/// The outcome of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was done; a message was published at this sequence.
    Done(u64),
    /// The message was a duplicate of the one at this sequence.
    Duplicate(u64),
    /// It was refused.
    Refused,
    /// Unknown.
    Unknown,
}

/// A message that was published. Its text is unique.
#[derive(Clone, Debug)]
pub struct Sent {
    pub topic: String,
    pub text: String,
    pub id: Option<String>,
    pub ttl: Option<Duration>,
    pub outcome: Outcome,
}

/// A message that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    pub sequence: u64,
    pub topic: String,
    pub text: String,
}

#[derive(Clone, Debug)]
pub enum Fact {
    /// One request, in the order of its messages. `is_atomic`: all or none.
    Published { messages: Vec<Sent>, is_atomic: bool },
    /// A topic up to a sequence.
    Purged { topic: String, through: u64, outcome: Outcome },
    /// All messages of all users, from the first to the head.
    Read(Vec<Seen>),
    /// Retention is enforced, and that is on disk.
    Enforced,
    /// A consumer was put at a sequence; none: it was deleted.
    Committed { consumer: String, at: Option<u64>, outcome: Outcome },
    /// All consumers, and where they are.
    Consumers(BTreeMap<String, u64>),
    /// The log was opened again: what it did not have on disk is gone.
    Opened,
    /// The file with the messages from the first to the last of these sequences was lost.
    Lost(u64, u64),
    /// The list of files that must exist was lost: the log may report files that retention removed.
    ListLost,
    /// The ranges that are reported to the next reader as damaged.
    Reported(Vec<(u64, u64)>),
    /// Time has passed.
    Passed(Now),
    /// The clock was wrong in a way that the log could not notice: from now on, messages may look older than they are.
    Doubted,
}

/// How many of the newest messages of a topic are kept, if not all of them.
pub type Keeps = fn(&str) -> Option<usize>;

/// Checks a history. The error is the first broken promise.
pub fn check(facts: &[Fact], keeps: Keeps) -> Result<(), String> {
    let mut checker = Checker { keeps, ..Checker::default() };
    for (at, fact) in facts.iter().enumerate() {
        checker.take(fact).map_err(|broken| format!("fact {at}: {broken}"))?;
    }
    Ok(())
}

/// Where a consumer may be.
struct Possible {
    now: Vec<Option<u64>>,
    ever: Vec<Option<u64>>,
}

impl Default for Possible {
    fn default() -> Self {
        Self { now: vec![None], ever: vec![None] }
    }
}

struct Checker {
    keeps: Keeps,
    /// By text: all that may be read.
    messages: BTreeMap<String, Message>,
    /// Of the messages that have their place: their texts.
    places: BTreeMap<u64, String>,
    /// By topic and id.
    ids: HashMap<(String, String), Vec<String>>,
    groups: usize,
    purges: Vec<(String, u64, bool)>,
    /// Where each may be, and how often the log had been opened when that was last in doubt.
    consumers: HashMap<String, (Possible, usize)>,
    is_enforced: bool,
    opened: usize,
    /// The lost ranges, and the reports to readers.
    lost: Vec<(u64, u64)>,
    reported: Vec<(u64, u64)>,
    is_list_lost: bool,
    ages: Ages,
}

#[derive(Clone, Debug)]
struct Message {
    topic: String,
    /// `None` if it is unknown whether the message is there.
    sequence: Option<u64>,
    ttl: Option<Duration>,
    since: Since,
    /// It is unknown whether the message was there once.
    is_unknown: bool,
    /// It was refused, or was missing when it had to be there: it must not appear.
    is_barred: bool,
    /// Those of a batch.
    group: Option<usize>,
    order: usize,
    /// How often the log had been opened.
    opened: usize,
    /// A reader got an event that says that it is lost.
    is_lost: bool,
}

impl Default for Checker {
    fn default() -> Self {
        Self {
            keeps: |_| None,
            messages: BTreeMap::new(),
            places: BTreeMap::new(),
            ids: HashMap::new(),
            groups: 0,
            purges: Vec::new(),
            consumers: HashMap::new(),
            is_enforced: false,
            opened: 0,
            lost: Vec::new(),
            reported: Vec::new(),
            is_list_lost: false,
            ages: Ages::default(),
        }
    }
}

fn is_in(ranges: &[(u64, u64)], sequence: u64) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&sequence))
}

impl Checker {
    fn take(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Published { messages, is_atomic } => self.published(messages, *is_atomic),
            Fact::Purged { topic, through, outcome } => {
                if *outcome != Outcome::Refused {
                    self.purges.push((topic.clone(), *through, *outcome != Outcome::Unknown));
                }
                Ok(())
            }
            Fact::Read(seen) => self.read(seen),
            Fact::Enforced => {
                self.is_enforced = true;
                Ok(())
            }
            Fact::Committed { consumer, at, outcome } => {
                let (possible, since) = self.consumers.entry(consumer.clone()).or_default();
                if *outcome != Outcome::Refused {
                    possible.ever.push(*at);
                    *since = self.opened;
                }
                match outcome {
                    Outcome::Refused => {}
                    Outcome::Unknown => possible.now.push(*at),
                    Outcome::Done(_) | Outcome::Duplicate(_) => possible.now = vec![*at],
                }
                Ok(())
            }
            Fact::Consumers(found) => self.found_consumers(found),
            Fact::Opened => {
                self.is_enforced = false;
                self.opened += 1;
                Ok(())
            }
            Fact::Lost(first, last) => {
                self.lose(*first, *last);
                Ok(())
            }
            Fact::ListLost => {
                self.is_list_lost = true;
                Ok(())
            }
            Fact::Reported(ranges) => self.reported(ranges),
            Fact::Passed(now) => {
                self.ages.set(*now);
                Ok(())
            }
            Fact::Doubted => {
                self.ages.doubt();
                Ok(())
            }
        }
    }

    /// Messages that were superseded by lost ones may be the last ones again, and so may earlier commits of consumers.
    fn lose(&mut self, first: u64, last: u64) {
        self.lost.push((first, last));
        self.lost.sort_unstable();
        for (possible, since) in self.consumers.values_mut() {
            possible.ever.push(None);
            (possible.now, *since) = (possible.ever.clone(), self.opened);
        }
        for message in self.messages.values_mut() {
            message.is_barred &= message.sequence.is_none() || (self.keeps)(&message.topic) != Some(1);
        }
    }

    fn reported(&mut self, ranges: &[(u64, u64)]) -> Result<(), String> {
        let is_lost = |(first, last): &(u64, u64)| {
            let mut next = *first;
            for (from, to) in &self.lost {
                if (*from..=*to).contains(&next) {
                    next = to + 1;
                }
            }
            next > *last
        };
        // A power cut can tear the stamp of a message that has expired and is being erased. With a clock that is behind, it
        // looks as if it had not expired.
        let is_over = |(first, last): &(u64, u64)| {
            let text = self.places.get(first).filter(|_| first == last);
            text.is_some_and(|text| self.ages.may_be_over(self.messages[text].since, self.messages[text].ttl))
        };
        let unexplained =
            ranges.iter().find(|range| !self.is_list_lost && !is_lost(range) && !is_over(range));
        self.reported = ranges.to_vec();
        match unexplained {
            Some(range) => Err(format!("{range:?} is reported as lost, of {:?}", self.lost)),
            None => Ok(()),
        }
    }

    fn published(&mut self, messages: &[Sent], is_atomic: bool) -> Result<(), String> {
        self.groups += 1;
        self.is_enforced = false;
        for sent in messages {
            let order = self.messages.len();
            let message = Message {
                topic: sent.topic.clone(),
                sequence: None,
                ttl: sent.ttl,
                since: self.ages.now(),
                is_unknown: sent.outcome == Outcome::Unknown,
                is_barred: matches!(sent.outcome, Outcome::Refused | Outcome::Duplicate(_)),
                // One with an id may have been there before, on its own.
                group: (is_atomic && sent.id.is_none()).then_some(self.groups),
                order,
                opened: self.opened,
                is_lost: false,
            };
            self.messages.insert(sent.text.clone(), message);
            let earlier = self.earlier(sent);
            match sent.outcome {
                Outcome::Done(sequence) => {
                    if let Some((text, _)) = earlier.iter().find(|(_, is_certain)| *is_certain) {
                        return Err(format!("{sent:?} was taken, though it is {text:.20} again"));
                    }
                    let newest = self.places.last_key_value().map_or(0, |(newest, _)| *newest);
                    if sequence <= newest {
                        return Err(format!("{sent:?} is not after {newest}"));
                    }
                    self.place(&sent.text, sequence)?;
                }
                Outcome::Duplicate(sequence) => self.same(sent, sequence, &earlier)?,
                Outcome::Refused | Outcome::Unknown => {}
            }
            let is_there = matches!(sent.outcome, Outcome::Done(_) | Outcome::Unknown);
            if let Some(id) = sent.id.clone().filter(|_| is_there) {
                self.ids.entry((sent.topic.clone(), id)).or_default().push(sent.text.clone());
            }
        }
        Ok(())
    }

    /// The messages with the same id that may be there, and whether each must be known.
    fn earlier(&self, sent: &Sent) -> Vec<(String, bool)> {
        let texts = sent.id.clone().and_then(|id| self.ids.get(&(sent.topic.clone(), id)));
        let known = |text: &String| {
            let message = &self.messages[text];
            // A message that no reader has seen may have been removed before.
            let may_be_removed = self.may_be_removed(message);
            if message.is_barred && message.sequence.is_none() && !may_be_removed {
                return None;
            }
            let is_purged = |(topic, through, _): &&(String, u64, bool)| {
                *topic == message.topic && message.sequence.is_none_or(|sequence| sequence <= *through)
            };
            let mut purges = self.purges.iter().filter(is_purged).map(|(_, _, is_done)| *is_done);
            let is_kept = message.sequence.is_some_and(|sequence| !is_in(&self.lost, sequence));
            let is_certain = purges.clone().next().is_none() && is_kept && self.ages.knows_id(message.since);
            let is_gone = message.sequence.is_some() && purges.any(|is_done| is_done);
            (!is_gone).then(|| (text.clone(), is_certain))
        };
        texts.into_iter().flatten().filter_map(known).collect()
    }

    /// A message may be removed by a limit or by its age.
    fn may_be_removed(&self, message: &Message) -> bool {
        let has_age = self.ages.now().is_some() && max_age(&message.topic).is_some();
        message.ttl.is_some() || (self.keeps)(&message.topic).is_some() || has_age
    }

    /// A message may have ended by its age.
    fn may_be_over(&self, message: &Message) -> bool {
        let since = message.since;
        let is_old = || self.ages.now().is_some() && self.ages.may_be_over(since, max_age(&message.topic));
        self.ages.may_be_over(since, message.ttl) || is_old()
    }

    /// A message was said to be at a sequence already.
    fn same(&mut self, sent: &Sent, sequence: u64, earlier: &[(String, bool)]) -> Result<(), String> {
        let message = self.places.get(&sequence).map(|text| &self.messages[text]);
        if message.is_some_and(|message| self.ages.forgets_id(message.since)) {
            return Err(format!("{sent:?} is taken for {sequence}, which is too old"));
        }
        let places = earlier.iter().map(|(text, _)| self.messages[text].sequence).collect::<Vec<_>>();
        let unplaced = earlier.iter().zip(&places).filter(|(_, place)| place.is_none());
        match unplaced.collect::<Vec<_>>().as_slice() {
            _ if places.contains(&Some(sequence)) => Ok(()),
            [] => Err(format!("{sent:?} is not one of {earlier:?} at {places:?}")),
            [((text, _), _)] => self.place(text, sequence),
            // It is unknown which one.
            _ => Ok(()),
        }
    }

    fn place(&mut self, text: &str, sequence: u64) -> Result<(), String> {
        let message = self.messages.get_mut(text).ok_or_else(|| format!("{text:.20} was never published"))?;
        if message.sequence.is_some_and(|known| known != sequence) {
            return Err(format!("{text:.20} is at {sequence} and at {:?}", message.sequence));
        }
        message.sequence = Some(sequence);
        match self.places.insert(sequence, text.into()) {
            Some(other) if other != text => Err(format!("{sequence} is {text:.20} and was {other:.20}")),
            _ => Ok(()),
        }
    }

    fn read(&mut self, seen: &[Seen]) -> Result<(), String> {
        if let Some(pair) = seen.windows(2).find(|pair| pair[0].sequence >= pair[1].sequence) {
            return Err(format!("{} comes before {}", pair[0].sequence, pair[1].sequence));
        }
        for Seen { sequence, topic, text } in seen {
            let known =
                self.messages.get(text).ok_or_else(|| format!("{sequence}: {text:.40} was never sent"))?;
            if known.topic != *topic {
                return Err(format!("{sequence} is of {topic}, not of {}", known.topic));
            }
            if known.is_barred {
                return Err(format!("{sequence}: {text:.20} was refused, or gone, and is there"));
            }
            if is_in(&self.reported, *sequence) {
                return Err(format!("{sequence}: {text:.20} is there, and reported as lost"));
            }
            if self.ages.is_over(known.since, known.ttl) {
                return Err(format!("{sequence}: {text:.20} outlives its {:?}", known.ttl));
            }
            self.place(text, *sequence)?;
            let is_purged = |(of, through, is_done): &&(String, u64, bool)| {
                *is_done && of == topic && sequence <= through
            };
            if let Some(purge) = self.purges.iter().find(is_purged) {
                return Err(format!("{sequence}: {text:.20} is there after {purge:?}"));
            }
        }
        self.check_order()?;
        let texts = seen.iter().map(|seen| seen.text.as_str()).collect::<BTreeSet<_>>();
        self.check_missing(&texts)?;
        self.check_groups(&texts)?;
        // A message that is missing after a start stays missing, and so does a removed one once the trim point is on disk.
        for (text, message) in &mut self.messages {
            let is_decided = message.sequence.is_none() && message.opened < self.opened;
            let may_come_back = message.ttl.is_some() && self.ages.may_come_back(message.since);
            message.is_barred |=
                !texts.contains(text.as_str()) && !may_come_back && (is_decided || self.is_enforced);
            let is_reported = |sequence| is_in(&self.lost, sequence) && is_in(&self.reported, sequence);
            message.is_lost |= message.sequence.is_some_and(is_reported);
        }
        Ok(())
    }

    /// All were sent one after another.
    fn check_order(&self) -> Result<(), String> {
        let orders = self.places.values().map(|text| self.messages[text].order).collect::<Vec<_>>();
        match orders.windows(2).find(|pair| pair[0] > pair[1]) {
            Some(pair) => Err(format!("message {} was sent after message {}", pair[0], pair[1])),
            None => Ok(()),
        }
    }

    fn check_missing(&self, texts: &BTreeSet<&str>) -> Result<(), String> {
        let mut newer = HashMap::<&str, usize>::new();
        // They may have been there until they expired, and have taken the place of others.
        for message in self.messages.values() {
            let may_have_been = message.is_unknown && message.ttl.is_some() && message.sequence.is_none();
            *newer.entry(&message.topic).or_default() += usize::from(may_have_been);
        }
        for (sequence, text) in self.places.iter().rev() {
            let message = &self.messages[text];
            let newer = newer.entry(&message.topic).or_default();
            let is_superseded = (self.keeps)(&message.topic).is_some_and(|most| *newer >= most);
            let is_purged =
                |(of, through, _): &(String, u64, bool)| *of == message.topic && sequence <= through;
            let is_lost = message.is_lost || is_in(&self.lost, *sequence) && is_in(&self.reported, *sequence);
            let is_hidden = message.ttl.is_some() && self.ages.may_be_hidden(message.since);
            let may_be_gone = self.may_be_over(message)
                || is_hidden
                || is_superseded
                || message.is_barred
                || is_lost
                || self.purges.iter().any(is_purged);
            if !texts.contains(text.as_str()) && !may_be_gone {
                return Err(format!("{sequence}: {text:.20} of {} is lost", message.topic));
            }
            *newer += 1;
        }
        Ok(())
    }

    /// Of a batch with an unknown outcome, either all messages are there or none.
    fn check_groups(&self, texts: &BTreeSet<&str>) -> Result<(), String> {
        let mut groups = HashMap::<usize, (bool, bool)>::new();
        for (text, message) in &self.messages {
            let may_be_gone =
                self.may_be_removed(message) || self.purges.iter().any(|(topic, ..)| *topic == message.topic);
            if let Some(group) = message.group.filter(|_| !may_be_gone) {
                let (some, all) = groups.entry(group).or_insert((false, true));
                *some |= texts.contains(text.as_str());
                let was_there = (message.is_barred || message.is_lost) && message.sequence.is_some();
                *all &= texts.contains(text.as_str()) || was_there;
            }
        }
        match groups.iter().find(|(_, (some, all))| *some && !all) {
            Some((group, _)) => Err(format!("half of the batch in request {group} is there")),
            None => Ok(()),
        }
    }

    fn found_consumers(&mut self, found: &BTreeMap<String, u64>) -> Result<(), String> {
        for (consumer, (possible, since)) in &mut self.consumers {
            let at = found.get(consumer).copied();
            if !possible.now.contains(&at) {
                return Err(format!("{consumer} is at {at:?}, not at {:?}", possible.now));
            }
            if *since < self.opened {
                possible.now = vec![at];
            }
        }
        match found.keys().find(|consumer| !self.consumers.contains_key(*consumer)) {
            Some(consumer) => Err(format!("{consumer} was never made")),
            None => Ok(()),
        }
    }
}
