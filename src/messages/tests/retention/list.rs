//! A log whose messages are a list, and one that does the same with segments.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::UNIX_EPOCH,
};

use super::*;
use crate::wire;

const TOPICS: [&str; 7] = ["t.0", "t.1", "t.2", "u.0", "u.1.x", "v", "w"];

const PATTERNS: [&[&str]; 8] =
    [&[">"], &["t.*"], &["t.0"], &["u.>", "v"], &["t.1", "t.1", "w"], &["*"], &["none"], &["u.0"]];

/// A message that was published.
#[derive(Clone, Debug)]
struct Item {
    sequence: u64,
    topic: &'static str,
    text: String,
    time: SystemTime,
    expires: Option<SystemTime>,
    bytes: u64,
}

#[derive(Debug)]
struct Model {
    rules: Vec<Rule>,
    clock: Clock,
    /// The messages that are not removed.
    held: Vec<Item>,
    /// By topic: the highest removed sequence, and how many removals there had been then.
    lost: BTreeMap<&'static str, (u64, u64)>,
    removals: u64,
    head: u64,
}

fn matches(patterns: &[&str], topic: &str) -> bool {
    patterns.iter().any(|pattern| topic::Pattern::parse(pattern).unwrap().matches(topic))
}

impl Item {
    fn new(published: Published, topic: &'static str, text: String, ttl: Option<Duration>) -> Self {
        let milliseconds = |since: Duration| {
            Duration::from_millis(u64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap())
        };
        let expires = ttl.map(|ttl| (published.time + ttl).duration_since(UNIX_EPOCH).unwrap());
        let expires = expires.map(|since| UNIX_EPOCH + milliseconds(since));
        let message = wire::message::Message {
            sequence: published.sequence.get(),
            topic,
            time: published.time,
            key: None,
            headers: &[],
            content: text.as_bytes(),
            is_text: true,
            message_id: None,
            expires,
        };
        let mut bytes = Vec::new();
        wire::message::put(&mut bytes, &message);
        let Published { sequence, time, .. } = published;
        Self { sequence: sequence.get(), topic, text, time, expires, bytes: bytes.len() as u64 }
    }
}

impl Model {
    fn rule(&self, topic: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.pattern.matches(topic))
    }

    fn has_expired(&self, item: &Item) -> bool {
        item.expires.is_some_and(|expires| expires <= self.clock.now())
    }

    fn served(&self) -> impl Iterator<Item = &Item> {
        self.held.iter().filter(|item| !self.has_expired(item))
    }

    fn publish(&mut self, item: Item) {
        if self.rule(item.topic).is_some_and(|rule| rule.is_last_only) {
            self.held.retain(|other| other.topic != item.topic);
        }
        self.head = item.sequence;
        self.held.push(item);
    }

    /// Removes the head of a topic for as long as `is_over` says so, or it has expired. How many messages.
    fn cut(&mut self, topic: &'static str, is_over: impl Fn(&Item, u64, u64) -> bool) -> u64 {
        let (mut count, mut bytes) = (0, 0);
        let of_topic = self.held.iter().filter(|item| item.topic == topic).cloned().collect::<Vec<_>>();
        for item in of_topic {
            let has_expired = self.has_expired(&item);
            if !has_expired && !is_over(&item, count, bytes) {
                break;
            }
            count += 1;
            bytes += item.bytes;
            self.held.retain(|other| other.sequence != item.sequence);
            if !has_expired {
                self.removals += 1;
                self.lost.insert(topic, (item.sequence, self.removals));
            }
        }
        count
    }

    fn enforce(&mut self) {
        let now = self.clock.now();
        let throughs = (0..self.rules.len()).map(|place| self.over_total(place)).collect::<Vec<_>>();
        for topic in TOPICS {
            let place = self.rules.iter().position(|rule| rule.pattern.matches(topic));
            let rule = place.map(|place| self.rules[place].clone());
            let through = place.map_or(0, |place| throughs[place]);
            let of_topic = self.held.iter().filter(|item| item.topic == topic);
            let (count, bytes) =
                of_topic.fold((0, 0), |(count, bytes), item| (count + 1, bytes + item.bytes));
            self.cut(topic, |item, removed, removed_bytes| {
                rule.as_ref().is_some_and(|rule| {
                    rule.age.is_some_and(|age| item.time < now - age)
                        || item.sequence <= through
                        || rule.count.is_some_and(|most| count - removed > most)
                        || rule.bytes.is_some_and(|most| bytes - removed_bytes > most)
                })
            });
        }
    }

    /// The sequence up to which a rule's topics go because all of them together have too much.
    fn over_total(&self, place: usize) -> u64 {
        let Some(total) = self.rules[place].total else { return 0 };
        let is_of =
            |item: &&Item| self.rules.iter().position(|rule| rule.pattern.matches(item.topic)) == Some(place);
        let mut left = self.held.iter().filter(is_of).map(|item| item.bytes).sum::<u64>();
        let mut through = 0;
        for item in self.held.iter().filter(is_of) {
            if left <= total {
                break;
            }
            left -= item.bytes;
            through = item.sequence;
        }
        through
    }

    /// The highest sequence that was removed of topics that match, of those with removals after the first `since` ones.
    fn lost(&self, patterns: &[&str], since: u64) -> u64 {
        let is_match = |topic: &str, at: u64| matches(patterns, topic) && at > since;
        let lost = self.lost.iter().filter(|(topic, (_, at))| is_match(topic, *at));
        lost.map(|(_, (lost, _))| *lost).max().unwrap_or(0)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<(usize, usize, Option<u64>)>, bool),
    Advance(u64),
    Enforce,
    Reopen,
    Purge(usize, Option<u64>),
    Read(Asked),
}

#[derive(Clone, Debug)]
struct Asked {
    pattern: usize,
    from: From,
    limit: Option<u64>,
    fails: bool,
    max_items: usize,
}

#[derive(Clone, Debug)]
enum From {
    Earliest,
    Sequence(u64),
    Last(u64),
    LastPerTopic,
    Time(usize),
    Resume(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let ttl = prop_oneof![2 => Just(None), 1 => (1_u64..300).prop_map(Some)];
    let size = prop_oneof![4 => 0_usize..60, 1 => 0_usize..1500];
    let messages = proptest::collection::vec((0..TOPICS.len(), size, ttl), 1..30);
    let from = prop_oneof![
        1 => Just(From::Earliest),
        1 => (1_u64..400).prop_map(From::Sequence),
        1 => (0_u64..20).prop_map(From::Last),
        1 => Just(From::LastPerTopic),
        1 => (0_usize..1000).prop_map(From::Time),
        2 => (0_usize..1000).prop_map(From::Resume),
    ];
    let limit = prop_oneof![Just(None), (1_u64..10).prop_map(Some)];
    let read = (0..PATTERNS.len(), from, limit, any::<bool>(), 1_usize..20).prop_map(
        |(pattern, from, limit, fails, max_items)| Asked { pattern, from, limit, fails, max_items },
    );
    let until = prop_oneof![Just(None), (1_u64..400).prop_map(Some)];
    prop_oneof![
        6 => (messages, any::<bool>()).prop_map(|(messages, is_batch)| Step::Publish(messages, is_batch)),
        3 => (1_u64..200).prop_map(Step::Advance),
        4 => Just(Step::Enforce),
        1 => Just(Step::Reopen),
        2 => (0..TOPICS.len(), until).prop_map(|(topic, until)| Step::Purge(topic, until)),
        6 => read.prop_map(Step::Read),
    ]
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let limits = prop_oneof![
        Just("last".to_owned()),
        (20_u64..400).prop_map(|age| format!("age:{age}ms")),
        (1_u64..12).prop_map(|count| format!("count:{count}")),
        (100_u64..4000).prop_map(|bytes| format!("bytes:{bytes}")),
        (100_u64..8000).prop_map(|total| format!("total:{total}")),
        (1_u64..20, 100_u64..4000).prop_map(|(count, bytes)| format!("count:{count} bytes:{bytes}")),
        (50_u64..400, 300_u64..9000).prop_map(|(age, total)| format!("age:{age}ms total:{total}")),
    ];
    let pattern = proptest::sample::select(vec!["t.0", "t.*", "u.>", "v", "*", ">", "t.>"]);
    let rule = (pattern, limits).prop_map(|(pattern, limits)| format!("{pattern}={limits}").parse().unwrap());
    proptest::collection::vec(rule, 0..4)
}

/// What expires counts for as long as it is there, and when it leaves the disk is not said: with such a rule, more than
/// one outcome is right.
fn counts(rule: &Rule) -> bool {
    rule.count.is_some() || rule.bytes.is_some() || rule.total.is_some()
}

/// The log, the list, and where readers have been, each with the number of removals before it began.
struct Pair {
    bed: Bed,
    model: Model,
    places: Vec<(Position, u64)>,
}

impl Pair {
    async fn new(rules: Vec<Rule>) -> Self {
        let bed = Bed::with(&[], |config| config.retention.clone_from(&rules)).await;
        let clock = bed.config.clock.clone();
        let model = Model { rules, clock, held: Vec::new(), lost: BTreeMap::new(), removals: 0, head: 0 };
        Self { bed, model, places: Vec::new() }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Publish(messages, is_batch) => self.publish(messages, is_batch).await,
            Step::Advance(milliseconds) => self.bed.advance(milliseconds),
            Step::Enforce => {
                self.bed.enforce().await;
                self.model.enforce();
            }
            Step::Reopen => {
                self.bed.reopen().await;
                self.model.enforce();
            }
            Step::Purge(topic, until) => self.purge(TOPICS[topic], until).await,
            Step::Read(asked) => self.read(asked).await,
        }
        self.compare_topics().await;
    }

    async fn publish(&mut self, messages: Vec<(usize, usize, Option<u64>)>, is_batch: bool) {
        let may_expire = |topic: &str| !self.model.rule(topic).is_some_and(counts);
        let new = messages.into_iter().map(|(topic, size, ttl)| {
            let ttl = ttl.map(Duration::from_millis).filter(|_| may_expire(TOPICS[topic]));
            NewMessage { ttl, ..text(TOPICS[topic], &"x".repeat(size)) }
        });
        let new = new.collect::<Vec<_>>();
        let published = if is_batch {
            self.bed.log.publish_batch(new.clone()).await.unwrap()
        } else {
            self.bed.log.publish_each(new.clone()).await.await.into_iter().map(Result::unwrap).collect()
        };
        for (new, published) in new.into_iter().zip(published) {
            let topic = TOPICS.into_iter().find(|topic| *topic == new.topic).unwrap();
            let Content::Text(text) = new.content else { panic!() };
            self.model.publish(Item::new(published, topic, text, new.ttl));
        }
    }

    async fn purge(&mut self, topic: &'static str, until: Option<u64>) {
        let until = until.map(|until| until.max(1));
        let held = self.model.held.iter().filter(|item| item.topic == topic).collect::<Vec<_>>();
        let expired = held.iter().filter(|item| self.model.has_expired(item)).count() as u64;
        let (first, is_listed) =
            (held.first().map(|item| item.sequence), self.bed.topic(topic).await.is_some());
        let purged = self.bed.log.purge_topic(topic, until.map(sequence)).await;
        let through = until.unwrap_or(u64::MAX);
        let Some(first) = first.filter(|_| is_listed) else {
            return assert!(matches!(purged, Ok(0) | Err(Error::NoTopic)), "{topic}: {purged:?}");
        };
        let purged = purged.unwrap();
        if first > through {
            return assert_eq!(purged, 0);
        }
        let count = self.model.cut(topic, |item, _, _| item.sequence <= through);
        assert!(purged <= count && purged + expired >= count, "{topic}: {purged} purged, not {count}");
    }

    /// The messages that a reader must get from a start, up to where gaps were reported before, and the number of removals
    /// before it began.
    fn expect(&self, from: &From, patterns: &[&str]) -> Option<(Start, Vec<Item>, u64, u64)> {
        let served = || self.model.served().filter(|item| matches(patterns, item.topic));
        let later = |after: u64| served().filter(|item| item.sequence > after).cloned().collect::<Vec<_>>();
        let now = self.model.removals;
        Some(match *from {
            From::Earliest => (Start::Earliest, later(0), 0, now),
            From::Last(count) => {
                let over = served().count().saturating_sub(usize::try_from(count).unwrap());
                (Start::Last(count), served().skip(over).cloned().collect(), 0, now)
            }
            From::LastPerTopic => {
                let lasts = served().map(|item| (item.topic, item.sequence)).collect::<BTreeMap<_, _>>();
                let is_last = |item: &&Item| lasts[item.topic] == item.sequence;
                (Start::LastPerTopic, served().filter(is_last).cloned().collect(), 0, now)
            }
            From::Time(place) => {
                let place = place.checked_rem(self.model.held.len());
                let time = place.map_or(self.model.clock.now(), |place| self.model.held[place].time);
                (Start::Time(time), served().filter(|item| item.time >= time).cloned().collect(), 0, now)
            }
            From::Sequence(sequence) => (from_sequence(sequence), later(sequence - 1), sequence - 1, 0),
            From::Resume(place) => {
                let (position, began) = self.places[place.checked_rem(self.places.len())?].clone();
                let (after, reported) =
                    (position.delivered_up_to, position.delivered_up_to.max(position.reported_up_to));
                let began = if position.lost_before > 0 { began } else { 0 };
                (Start::Resume(position), later(after), reported, began)
            }
        })
    }

    async fn read(&mut self, asked: Asked) {
        let Asked { pattern, from, limit, fails, max_items } = asked;
        let patterns = PATTERNS[pattern];
        let Some((start, mut expected, reported, began)) = self.expect(&from, patterns) else { return };
        let lost = self.model.lost(patterns, began);
        if let Some(limit) = limit {
            expected.truncate(usize::try_from(limit).unwrap());
        }
        let batching = Batching { limit, max_items, ..Batching::default() };
        let on_gap = if fails { OnGap::Fail } else { OnGap::Skip };
        let what = format!("{patterns:?} {start:?} {limit:?}");
        let stream = subscribe(&self.bed.log, Query { on_gap, batching, ..query(patterns, start) }).await;
        if fails && lost > reported {
            let Err(Error::Removed { oldest: _, newest, removed_up_to }) = stream else {
                panic!("{what}: no gap")
            };
            return assert_eq!((newest.get(), removed_up_to.get()), (self.model.head, lost), "{what}");
        }
        let mut stream = stream.unwrap();
        let (mut seen, mut events) = (Vec::new(), Vec::new());
        while let Some(batch) = next(&mut stream).await {
            events.extend(batch.events.clone());
            seen.extend(decode(&batch).into_iter().map(|m| {
                let text = text_of(&m);
                (m.sequence.unwrap().cast_unsigned(), m.topic, text)
            }));
            if batch.position.snapshot == 0 && !batch.position.is_awaited {
                self.places.push((batch.position, began));
            }
        }
        let expected = expected.into_iter().map(|item| (item.sequence, item.topic.to_owned(), item.text));
        assert_eq!(seen, expected.collect::<Vec<_>>(), "{what}");
        let gap = (lost > reported).then(|| removed(reported + 1, lost));
        assert_eq!(events, gap.into_iter().collect::<Vec<_>>(), "{what}");
    }

    async fn compare_topics(&self) {
        let page = self.bed.log.list_topics(None, 100, None).await.unwrap();
        let listed = page.topics.iter().map(|topic| (topic.name.as_str(), topic)).collect::<BTreeMap<_, _>>();
        let named = listed.keys().copied().collect::<BTreeSet<_>>();
        assert!(named.iter().all(|name| TOPICS.contains(name)), "{named:?}");
        for topic in TOPICS {
            let held = self.model.held.iter().filter(|item| item.topic == topic).collect::<Vec<_>>();
            let served = self.model.served().filter(|item| item.topic == topic).collect::<Vec<_>>();
            match listed.get(topic) {
                Some(info) => compare(info, &held, &served),
                None => assert_eq!(served.len(), 0, "{topic} is not listed"),
            }
        }
    }
}

/// Compares a listed topic with the model. Expired messages may be counted or not.
fn compare(info: &TopicInfo, held: &[&Item], served: &[&Item]) {
    let within = |value: u64, low: u64, high: u64| (low..=high).contains(&value);
    let sum = |items: &[&Item]| items.iter().map(|item| item.bytes).sum::<u64>();
    let (first, last) = (held.first().expect("a topic that is listed"), held.last().unwrap());
    let (first_served, last_served) = (served.first().unwrap_or(last), served.last().unwrap_or(first));
    assert!(within(info.messages, served.len() as u64, held.len() as u64), "{info:?} {held:#?}");
    assert!(within(info.bytes.unwrap(), sum(served), sum(held)), "{info:?}, not {}", sum(held));
    assert!(within(number(info.first.sequence), first.sequence, first_served.sequence), "{info:?} {first:?}");
    assert!(within(number(info.last.sequence), last_served.sequence, last.sequence), "{info:?} {last:?}");
    let time_of = |sequence| held.iter().find(|item| item.sequence == number(sequence)).unwrap().time;
    assert_eq!(
        (info.first.time, info.last.time),
        (time_of(info.first.sequence), time_of(info.last.sequence)),
        "{info:?}"
    );
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn retention_leaves_what_a_model_leaves(
        rules in rules(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        runtime().block_on(async {
            let mut pair = Pair::new(rules).await;
            for step in steps {
                pair.step(step).await;
            }
            let all = Asked { pattern: 0, from: From::Earliest, limit: None, fails: false, max_items: 1000 };
            pair.step(Step::Read(all)).await;
            pair.bed.log.close().await;
        });
    }

    #[test]
    fn an_expired_message_does_not_take_others_within_a_limit_along(
        most in 1_usize..12,
        steps in proptest::collection::vec((0_usize..3000, proptest::option::of(1_u64..200), 0_u64..60, 0..8), 1..80),
    ) {
        runtime().block_on(async {
            let rules = [format!("a=count:{most}"), format!("b=bytes:{}", most * 1000)];
            let mut bed = Bed::new(&[&rules[0], &rules[1]]).await;
            let mut items = Vec::new();
            for (size, ttl, milliseconds, what) in steps {
                for topic in ["a", "b"] {
                    let ttl = ttl.map(Duration::from_millis);
                    let new = NewMessage { ttl, ..text(topic, &"x".repeat(size)) };
                    let published = bed.log.publish(new).await.unwrap();
                    items.push(Item::new(published, topic, "x".repeat(size), ttl));
                }
                bed.advance(milliseconds);
                match what {
                    0 => bed.reopen().await,
                    1..4 => bed.enforce().await,
                    _ => continue,
                }
                for topic in ["a", "b"] {
                    let now = bed.config.clock.now();
                    let is_there = |item: &&&Item| item.expires.is_none_or(|expires| expires > now);
                    let of_topic = items.iter().filter(|item| item.topic == topic).collect::<Vec<_>>();
                    let newest = of_topic.iter().rev().scan((0, 0), |(count, bytes), item| {
                        (*count, *bytes) = (*count + 1, *bytes + item.bytes);
                        let is_within = if topic == "a" { *count <= most } else { *bytes <= most as u64 * 1000 };
                        is_within.then_some(item)
                    });
                    let kept = newest.filter(|item| is_there(item)).count();
                    let all = of_topic.iter().filter(is_there).map(|item| item.sequence).collect::<Vec<_>>();
                    let (seen, _) = read(&bed.log, query(&[topic], Start::Earliest)).await;
                    let seen = seen.into_iter().map(|(sequence, _)| sequence).collect::<Vec<_>>();
                    prop_assert!(all.ends_with(&seen), "{all:?} {seen:?}");
                    prop_assert!(seen.len() >= kept, "{topic}: {} of {kept}", seen.len());
                    let info = bed.topic(topic).await;
                    let (messages, bytes) = info.map_or((0, 0), |info| (info.messages, info.bytes.unwrap()));
                    prop_assert!(messages >= seen.len() as u64);
                    prop_assert!(topic == "b" && bytes <= most as u64 * 1000 || topic == "a" && messages <= most as u64);
                }
            }
            bed.log.close().await;
            Ok(())
        })?;
    }
}
