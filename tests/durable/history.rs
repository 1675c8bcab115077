//! What was acknowledged and what was read, over all crashes, held against each other.
//!
//! A history is sound if every acknowledged message was read once by every reader of its topic, under its sequence,
//! with the bytes that were published; if each reader saw sequences grow, and the messages of one publisher in the
//! order in which it published them; and if no two readers saw something different.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

/// A message, by its publisher and its number there.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Id {
    pub publisher: usize,
    pub number: u64,
}

/// A message, as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Read {
    pub sequence: i64,
    pub topic: String,
    pub id: Id,
    /// Every byte is as it was published.
    pub is_intact: bool,
}

/// All that a reader got, in its order.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub reader: String,
    /// The only topic that it reads; none: all.
    pub topic: Option<String>,
    pub messages: Vec<Read>,
}

/// What publishers and readers saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Sequences as acknowledged, with the topic.
    pub acknowledged: Vec<(Id, String, i64)>,
    pub readings: Vec<Reading>,
}

/// A broken promise of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Violation {
    /// Acknowledged, and not read.
    Lost { reader: String, id: Id, sequence: i64 },
    /// Read by another reader, and not by this one.
    Missed { reader: String, id: Id, sequence: i64 },
    /// Acknowledged under one sequence, and read under another one.
    Moved { reader: String, id: Id, acknowledged: i64, read: i64 },
    /// Read again, under the same sequence or another one.
    Twice { reader: String, id: Id, sequence: i64 },
    /// A sequence that is not higher than the one before it.
    Sequence { reader: String, sequence: i64, after: i64 },
    /// A message of a publisher that is older than the one before it.
    Order { reader: String, id: Id, after: u64 },
    /// Not what was published.
    Payload { reader: String, id: Id, sequence: i64 },
    /// Not the message that another reader got under this sequence.
    Differs { reader: String, sequence: i64, read: Id, other: Id },
    /// Not of the topic that was asked for.
    Topic { reader: String, sequence: i64 },
}

impl Reading {
    fn covers(&self, topic: &str) -> bool {
        self.topic.as_deref().is_none_or(|only| only == topic)
    }
}

impl History {
    /// All that is wrong.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        // What anyone read, by its sequence.
        let mut seen = BTreeMap::new();
        for reading in &self.readings {
            found.extend(alone(reading));
            for message in &reading.messages {
                let (other, _) =
                    *seen.entry(message.sequence).or_insert((message.id, message.topic.as_str()));
                if other != message.id {
                    let (reader, sequence) = (reading.reader.clone(), message.sequence);
                    found.push(Violation::Differs { reader, sequence, read: message.id, other });
                }
            }
        }
        for reading in &self.readings {
            found.extend(self.incomplete(reading, &seen));
        }
        found
    }

    /// Panics with the violations, if there are any.
    pub fn check(&self) {
        let found = self.violations();
        let first = found.iter().take(10).collect::<Vec<_>>();
        assert!(found.is_empty(), "{} violations in {self}, the first: {first:#?}", found.len());
    }

    /// What a reader did not get and should have.
    fn incomplete(&self, reading: &Reading, seen: &BTreeMap<i64, (Id, &str)>) -> Vec<Violation> {
        let mut found = Vec::new();
        let reader = || reading.reader.clone();
        let read = reading.messages.iter().map(|message| (message.id, message.sequence));
        let read = read.collect::<BTreeMap<_, _>>();
        let mut lost = HashSet::new();
        for (id, topic, sequence) in &self.acknowledged {
            let (id, acknowledged) = (*id, *sequence);
            match read.get(&id) {
                Some(read) if *read != acknowledged => {
                    found.push(Violation::Moved { reader: reader(), id, acknowledged, read: *read });
                }
                None if reading.covers(topic) && lost.insert(id) => {
                    found.push(Violation::Lost { reader: reader(), id, sequence: acknowledged });
                }
                _ => {}
            }
        }
        for (sequence, (id, topic)) in seen {
            if reading.covers(topic) && !read.contains_key(id) && !lost.contains(id) {
                found.push(Violation::Missed { reader: reader(), id: *id, sequence: *sequence });
            }
        }
        found
    }
}

/// What is wrong with a reading in itself.
fn alone(reading: &Reading) -> Vec<Violation> {
    let (mut found, mut ids, mut newest, mut numbers) = (Vec::new(), HashSet::new(), 0, BTreeMap::new());
    for Read { sequence, topic, id, is_intact } in &reading.messages {
        let (reader, sequence, id) = (reading.reader.clone(), *sequence, *id);
        let number = numbers.entry(id.publisher).or_insert(id.number);
        if !reading.covers(topic) {
            found.push(Violation::Topic { reader: reader.clone(), sequence });
        }
        if !is_intact {
            found.push(Violation::Payload { reader: reader.clone(), id, sequence });
        }
        if !ids.insert(id) {
            found.push(Violation::Twice { reader, id, sequence });
            continue;
        }
        if sequence <= newest {
            found.push(Violation::Sequence { reader: reader.clone(), sequence, after: newest });
        }
        if id.number < *number {
            found.push(Violation::Order { reader, id, after: *number });
        }
        newest = newest.max(sequence);
        *number = id.number.max(*number);
    }
    found
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} acknowledged", self.acknowledged.len())?;
        self.readings.iter().try_for_each(|reading| {
            write!(f, ", {} read by the reader {}", reading.messages.len(), reading.reader)
        })
    }
}

/// Two publishers, two topics; two readers of all and one of a topic.
fn sound() -> History {
    let message = |n: u64| {
        let topic = if n.is_multiple_of(3) { "b" } else { "a" };
        // Sequences may have gaps.
        let sequence = i64::try_from(n * 2 + 1).unwrap();
        let id = Id { publisher: usize::try_from(n % 2).unwrap(), number: n / 2 };
        Read { sequence, topic: topic.into(), id, is_intact: true }
    };
    let messages = (0..12).map(message).collect::<Vec<_>>();
    let acknowledged = messages.iter().map(|m| (m.id, m.topic.clone(), m.sequence)).collect();
    let only_b = messages.iter().filter(|m| m.topic == "b").cloned().collect();
    let readings = vec![
        Reading { reader: "1".into(), topic: None, messages: messages.clone() },
        Reading { reader: "2".into(), topic: None, messages },
        Reading { reader: "b".into(), topic: Some("b".into()), messages: only_b },
    ];
    History { acknowledged, readings }
}

/// What is found when the messages of the second reader are changed.
fn found(change: impl FnOnce(&mut Vec<Read>)) -> Vec<Violation> {
    let mut history = sound();
    change(&mut history.readings[1].messages);
    history.violations()
}

fn reader() -> String {
    "2".into()
}

#[test]
fn a_sound_history_is_found_sound_also_if_an_acknowledgement_came_twice_or_did_not_arrive() {
    let mut history = sound();
    history.check();
    history.acknowledged.push(history.acknowledged[3].clone());
    history.acknowledged.remove(5);
    history.check();
}

#[test]
fn a_loss_is_found_by_every_reader_and_by_one() {
    let mut history = sound();
    history.readings.iter_mut().for_each(|reading| drop(reading.messages.pop()));
    let lost = history.violations();
    assert_eq!(lost.len(), 3, "{lost:?}");
    assert!(lost.iter().any(|v| matches!(v, Violation::Lost { reader, sequence: 23, .. } if reader == "1")));
    let Read { id, sequence, .. } = sound().readings[1].messages[4].clone();
    assert_eq!(
        found(|messages| drop(messages.remove(4))),
        [Violation::Lost { reader: reader(), id, sequence }]
    );
}

#[test]
fn a_message_that_was_not_acknowledged_is_read_by_all_or_by_none() {
    let mut history = sound();
    history.acknowledged.remove(4);
    let Read { id, sequence, .. } = history.readings[1].messages.remove(4);
    assert_eq!(history.violations(), [Violation::Missed { reader: reader(), id, sequence }]);
    history.readings[0].messages.remove(4);
    history.check();
}

#[test]
fn a_duplicate_is_found_under_its_sequence_and_under_another_one() {
    let again = sound().readings[1].messages[4].clone();
    let (id, sequence) = (again.id, again.sequence);
    let twice = [Violation::Twice { reader: reader(), id, sequence }];
    assert_eq!(found(|messages| messages.insert(5, again.clone())), twice);
    assert_eq!(found(|messages| messages.push(again.clone())), twice);
    let elsewhere = found(|messages| messages.push(Read { sequence: 99, ..again }));
    assert!(elsewhere.contains(&Violation::Twice { reader: reader(), id, sequence: 99 }), "{elsewhere:?}");
}

#[test]
fn a_reorder_is_found_of_sequences_and_of_a_publisher() {
    let swapped = found(|messages| messages.swap(3, 4));
    assert_eq!(swapped, [Violation::Sequence { reader: reader(), sequence: 7, after: 9 }]);
    // The log itself took two messages of a publisher in the wrong order: all read them so.
    let mut history = sound();
    for messages in history.readings.iter_mut().map(|reading| &mut reading.messages) {
        let places = [2, 4].map(|number| messages.iter().position(|m| m.sequence == 2 * number + 1));
        let [Some(first), Some(second)] = places else { continue };
        (messages[first].id, messages[second].id) = (messages[second].id, messages[first].id);
    }
    let order = history.violations();
    assert!(
        order.iter().any(|violation| matches!(violation, Violation::Order { after: 2, .. })),
        "{order:?}"
    );
    assert!(order.iter().any(|violation| matches!(violation, Violation::Moved { .. })), "{order:?}");
}

#[test]
fn a_wrong_payload_is_found() {
    let Read { id, sequence, .. } = sound().readings[1].messages[4].clone();
    let wrong = found(|messages| messages[4].is_intact = false);
    assert_eq!(wrong, [Violation::Payload { reader: reader(), id, sequence }]);
}

#[test]
fn a_message_that_another_reader_saw_elsewhere_is_found() {
    let moved = found(|messages| messages[11].sequence = 99);
    let id = sound().readings[1].messages[11].id;
    assert_eq!(moved, [Violation::Moved { reader: reader(), id, acknowledged: 23, read: 99 }]);
    let mut history = sound();
    history.acknowledged.clear();
    history.readings[1].messages[11].id.number = 77;
    let differs = history.violations();
    assert!(differs.iter().any(|violation| matches!(violation, Violation::Differs { sequence: 23, .. })));
}

#[test]
fn a_message_of_another_topic_is_found() {
    let mut history = sound();
    let foreign = history.readings[0].messages[1].clone();
    history.readings[2].messages.insert(1, foreign);
    assert_eq!(history.violations(), [Violation::Topic { reader: "b".into(), sequence: 3 }]);
}
