//! A history of requests and answers of a log, and the check that the log kept its promises.
//!
//! A history is a list of facts in the order in which one client, which sends one request after another, learned them.
//! [`check`] finds the first broken promise: an acknowledged message that is missing, doubled, at another sequence, out of
//! order or with another payload; a refused or purged message that is there; half a batch; a forgotten message id; a consumer
//! with another position.

use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    pub expires: bool,
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
    /// Where each may be, and how often the log was opened when that was last in doubt.
    consumers: HashMap<String, (Vec<Option<u64>>, usize)>,
    is_enforced: bool,
    opened: usize,
}

#[derive(Clone, Debug)]
struct Message {
    topic: String,
    /// `None` if it is unknown whether the message is there.
    sequence: Option<u64>,
    expires: bool,
    /// It is unknown whether the message was there once.
    is_unknown: bool,
    /// It was refused, or was missing when it had to be there: it must not appear.
    is_barred: bool,
    /// Those of a batch.
    group: Option<usize>,
    order: usize,
    /// How often the log had been opened.
    opened: usize,
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
        }
    }
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
                let possible = self.consumers.entry(consumer.clone()).or_insert_with(|| (vec![None], 0));
                match outcome {
                    Outcome::Refused => {}
                    Outcome::Unknown => {
                        possible.0.push(*at);
                        possible.1 = self.opened;
                    }
                    Outcome::Done(_) | Outcome::Duplicate(_) => *possible = (vec![*at], self.opened),
                }
                Ok(())
            }
            Fact::Consumers(found) => self.found_consumers(found),
            Fact::Opened => {
                self.is_enforced = false;
                self.opened += 1;
                Ok(())
            }
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
                expires: sent.expires,
                is_unknown: sent.outcome == Outcome::Unknown,
                is_barred: matches!(sent.outcome, Outcome::Refused | Outcome::Duplicate(_)),
                // One with an id may have been there before, on its own.
                group: (is_atomic && sent.id.is_none()).then_some(self.groups),
                order,
                opened: self.opened,
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
            let may_be_removed = message.expires || (self.keeps)(&message.topic).is_some();
            if message.is_barred && message.sequence.is_none() && !may_be_removed {
                return None;
            }
            let is_purged = |(topic, through, _): &&(String, u64, bool)| {
                *topic == message.topic && message.sequence.is_none_or(|sequence| sequence <= *through)
            };
            let mut purges = self.purges.iter().filter(is_purged).map(|(_, _, is_done)| *is_done);
            let is_certain = purges.clone().next().is_none() && message.sequence.is_some();
            let is_gone = message.sequence.is_some() && purges.any(|is_done| is_done);
            (!is_gone).then(|| (text.clone(), is_certain))
        };
        texts.into_iter().flatten().filter_map(known).collect()
    }

    /// A message was said to be at a sequence already.
    fn same(&mut self, sent: &Sent, sequence: u64, earlier: &[(String, bool)]) -> Result<(), String> {
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
            self.place(text, *sequence)?;
            let is_in = |(of, through, is_done): &&(String, u64, bool)| {
                *is_done && of == topic && sequence <= through
            };
            if let Some(purge) = self.purges.iter().find(is_in) {
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
            message.is_barred |= !texts.contains(text.as_str()) && (is_decided || self.is_enforced);
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
            let may_have_been = message.is_unknown && message.expires && message.sequence.is_none();
            *newer.entry(&message.topic).or_default() += usize::from(may_have_been);
        }
        for (sequence, text) in self.places.iter().rev() {
            let message = &self.messages[text];
            let newer = newer.entry(&message.topic).or_default();
            let is_superseded = (self.keeps)(&message.topic).is_some_and(|most| *newer >= most);
            let is_purged =
                |(of, through, _): &(String, u64, bool)| *of == message.topic && sequence <= through;
            let may_be_gone =
                message.expires || is_superseded || message.is_barred || self.purges.iter().any(is_purged);
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
            let may_be_gone = message.expires
                || (self.keeps)(&message.topic).is_some()
                || self.purges.iter().any(|(topic, ..)| *topic == message.topic);
            if let Some(group) = message.group.filter(|_| !may_be_gone) {
                let (some, all) = groups.entry(group).or_insert((false, true));
                *some |= texts.contains(text.as_str());
                *all &= texts.contains(text.as_str()) || message.is_barred && message.sequence.is_some();
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
            if !possible.contains(&at) {
                return Err(format!("{consumer} is at {at:?}, not at {possible:?}"));
            }
            if *since < self.opened {
                *possible = vec![at];
            }
        }
        match found.keys().find(|consumer| !self.consumers.contains_key(*consumer)) {
            Some(consumer) => Err(format!("{consumer} was never made")),
            None => Ok(()),
        }
    }
}

fn sent(topic: &str, text: &str, outcome: Outcome) -> Sent {
    Sent { topic: topic.into(), text: text.into(), id: None, expires: false, outcome }
}

fn published(topic: &str, text: &str, outcome: Outcome) -> Fact {
    Fact::Published { messages: vec![sent(topic, text, outcome)], is_atomic: false }
}

fn seen(messages: &[(u64, &str, &str)]) -> Fact {
    let seen = |(sequence, topic, text): &(u64, &str, &str)| Seen {
        sequence: *sequence,
        topic: (*topic).into(),
        text: (*text).into(),
    };
    Fact::Read(messages.iter().map(seen).collect())
}

fn broken(facts: &[Fact]) -> String {
    let keeps: Keeps = |topic| (topic == "two").then_some(2);
    check(facts, keeps).err().unwrap_or_default()
}

#[test]
fn a_history_without_a_fault_passes() {
    let id = |fact: Fact| match fact {
        Fact::Published { mut messages, is_atomic } => {
            messages[0].id = Some("id".into());
            Fact::Published { messages, is_atomic }
        }
        fact => fact,
    };
    let facts = [
        id(published("a", "1", Outcome::Done(1))),
        published("two", "2", Outcome::Done(2)),
        id(published("a", "3", Outcome::Duplicate(1))),
        published("two", "4", Outcome::Done(3)),
        published("a", "5", Outcome::Refused),
        published("two", "6", Outcome::Done(4)),
        published("b", "7", Outcome::Unknown),
        published("b", "8", Outcome::Unknown),
        Fact::Enforced,
        Fact::Opened,
        seen(&[(1, "a", "1"), (3, "two", "4"), (4, "two", "6"), (6, "b", "8")]),
        Fact::Purged { topic: "a".into(), through: 1, outcome: Outcome::Done(1) },
        id(published("a", "9", Outcome::Done(9))),
        Fact::Opened,
        seen(&[(3, "two", "4"), (4, "two", "6"), (6, "b", "8"), (9, "a", "9")]),
    ];
    assert_eq!(broken(&facts), "");
}

#[test]
fn each_fault_of_a_history_is_found() {
    let one = || published("a", "1", Outcome::Done(1));
    let two = || published("a", "2", Outcome::Done(2));
    let purged = || Fact::Purged { topic: "a".into(), through: 1, outcome: Outcome::Done(1) };
    let batch = |outcome| Fact::Published {
        messages: vec![sent("a", "1", outcome), sent("a", "2", outcome)],
        is_atomic: true,
    };
    let id = |text, outcome| Fact::Published {
        messages: vec![Sent { id: Some("id".into()), ..sent("a", text, outcome) }],
        is_atomic: false,
    };
    let at = |at, outcome| Fact::Committed { consumer: "c".into(), at, outcome };
    let consumers = |at: &[u64]| Fact::Consumers(at.iter().map(|at| ("c".into(), *at)).collect());
    let (first, second) = ((1, "a", "1"), (2, "a", "2"));
    let (unknown, done) = (Outcome::Unknown, Outcome::Done(0));
    for (facts, expected) in [
        (vec![one(), two(), seen(&[second])], "1: 1 of a is lost"),
        (vec![one(), seen(&[first]), Fact::Opened, seen(&[])], "1: 1 of a is lost"),
        (vec![published("a", "1", unknown), seen(&[first]), Fact::Opened, seen(&[])], "is lost"),
        (vec![published("two", "1", Outcome::Done(1)), seen(&[])], "1: 1 of two is lost"),
        (vec![one(), seen(&[first, first])], "1 comes before 1"),
        (vec![one(), seen(&[first, (2, "a", "1")])], "is at 2 and at Some(1)"),
        (vec![one(), two(), seen(&[second, first])], "2 comes before 1"),
        (vec![one(), published("a", "2", Outcome::Done(1))], "not after 1"),
        (
            vec![
                published("a", "1", unknown),
                published("a", "2", unknown),
                seen(&[(1, "a", "2"), (2, "a", "1")]),
            ],
            "was sent after",
        ),
        (vec![one(), seen(&[(1, "a", "other")])], "other was never sent"),
        (vec![one(), seen(&[(1, "b", "1")])], "is of b, not of a"),
        (vec![one(), purged(), seen(&[first])], "is there after"),
        (vec![published("a", "1", Outcome::Refused), seen(&[first])], "was refused"),
        (vec![published("a", "1", unknown), Fact::Opened, seen(&[]), seen(&[first])], "gone, and is there"),
        (vec![batch(unknown), seen(&[second])], "half of the batch"),
        (vec![id("1", Outcome::Done(1)), id("2", Outcome::Done(2))], "though it is 1 again"),
        (vec![id("1", Outcome::Duplicate(1))], "is not one of []"),
        (vec![id("1", Outcome::Done(1)), id("2", Outcome::Duplicate(2))], "at [Some(1)]"),
        (vec![at(Some(1), done), at(Some(2), done), consumers(&[1])], "c is at Some(1)"),
        (vec![at(Some(1), done), at(None, done), consumers(&[1])], "c is at Some(1)"),
        (
            vec![at(Some(1), done), at(None, unknown), Fact::Opened, consumers(&[]), consumers(&[1])],
            "c is at Some(1)",
        ),
        (vec![consumers(&[1])], "c was never made"),
    ] {
        let broken = broken(&facts);
        assert!(broken.contains(expected), "{broken:?} instead of {expected:?}");
    }
}
