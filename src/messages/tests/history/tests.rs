//! The checker passes a history without a fault, and finds each fault.

use super::*;

fn sent(topic: &str, text: &str, outcome: Outcome) -> Sent {
    Sent { topic: topic.into(), text: text.into(), id: None, ttl: None, outcome }
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
    let facts = vec![
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
    let kept = seen(&[(1, "a", "1"), (3, "a", "3")]);
    let facts = vec![
        published("a", "1", Outcome::Done(1)),
        id(published("a", "2", Outcome::Done(2))),
        published("a", "3", Outcome::Done(3)),
        Fact::Committed { consumer: "c".into(), at: Some(2), outcome: Outcome::Done(0) },
        Fact::Opened,
        Fact::Lost(2, 2),
        Fact::Reported(vec![(2, 2)]),
        kept.clone(),
        Fact::Consumers(BTreeMap::new()),
        Fact::Reported(vec![]),
        kept,
        id(published("a", "4", Outcome::Done(4))),
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
    let reported = |first, last| Fact::Reported(vec![(first, last)]);
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
        (vec![one(), two(), Fact::Lost(1, 1), seen(&[second])], "1: 1 of a is lost"),
        (vec![one(), two(), Fact::Lost(1, 1), reported(1, 1), seen(&[])], "2: 2 of a is lost"),
        (vec![one(), two(), Fact::Lost(1, 1), reported(1, 2)], "(1, 2) is reported as lost"),
        (vec![one(), Fact::Lost(1, 1), reported(1, 1), seen(&[first])], "is there, and reported"),
        (vec![one(), Fact::ListLost, reported(1, 1), seen(&[])], "1: 1 of a is lost"),
        (vec![one(), Fact::Lost(1, 1), published("a", "2", Outcome::Done(1))], "not after 1"),
        (vec![at(Some(1), done), Fact::Lost(1, 1), consumers(&[2])], "c is at Some(2)"),
    ] {
        let broken = broken(&facts);
        assert!(broken.contains(expected), "{broken:?} instead of {expected:?}");
    }
}
