//! Cursors that readers keep over generations, and what the log owes to those who come back with them.

use super::*;
use crate::cursor;
use embedded::{disk::Disk, format::trim_points};

/// A cursor, and what its reader has not read.
pub struct Held {
    position: Position,
    topics: &'static [&'static str],
    /// The head when the cursor was handed out, and the messages after the cursor that were there then: those, and all later
    /// ones, are owed.
    head: u64,
    there: BTreeSet<u64>,
    /// The number of facts that were known then.
    facts: usize,
    /// The log is a copy from before the cursor, so it may have removed messages later than the one that handed it out.
    is_restored: bool,
    /// The disk has the loss epoch of the cursor for certain.
    is_epoch_on_disk: bool,
}

const ALL: &[&str] = &[">"];

/// The topics of a subscription, of which one is taken at random.
const PATTERNS: [&[&str]; 5] = [ALL, ALL, &["a", "b.*"], &["b.x"], &["*"]];

impl Held {
    /// The last sequence that the cursor depends on.
    fn reference(&self) -> u64 {
        self.position.delivered_up_to.max(self.position.reported_up_to)
    }

    /// The cursor in a copy that was made at a head; the position alone if the copy does not have its history.
    pub fn at_copy(mut self, head: u64) -> Result<Self, Box<Position>> {
        if self.reference() > head {
            return Err(self.position.into());
        }
        self.head = self.head.min(head);
        self.is_restored = true;
        self.there.retain(|sequence| *sequence <= head);
        Ok(self)
    }

    /// As a client sends it.
    fn query(&self) -> Query {
        let position = cursor::decode(&cursor::encode(&self.position)).unwrap();
        query(self.topics, Start::Resume(position))
    }
}

fn matches(topics: &[&str], topic: &str) -> bool {
    topics.iter().any(|pattern| crate::messages::topic::Pattern::parse(pattern).unwrap().matches(topic))
}

fn ranges(events: &[Event], is_one: impl Fn(&Event) -> Option<SequenceRange>) -> Vec<(u64, u64)> {
    let ranges = events.iter().filter_map(is_one);
    ranges.map(|range| (number(range.first), number(range.last))).collect()
}

fn is_in(ranges: &[(u64, u64)], sequence: u64) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&sequence))
}

impl World {
    /// Reads from some start, is cut, and keeps the cursor.
    pub async fn hold(&mut self, log: &Log, all: &[Seen]) -> Held {
        let random = &mut self.client.random;
        let topics = PATTERNS[random.index(PATTERNS.len())];
        let batching = Batching {
            limit: Some(1 + random.below(60)),
            max_items: 1 + random.index(20),
            ..Batching::default()
        };
        let mut batches = subscribe(log, Query { batching, ..query(topics, Start::Earliest) }).await.unwrap();
        let mut position = None;
        while let Some(batch) = next(&mut batches).await {
            position = Some(batch.position);
        }
        let position = position.unwrap();
        let after = position.delivered_up_to;
        let there = all.iter().map(|seen| seen.sequence).filter(|sequence| *sequence > after);
        let (there, head) = (there.collect(), embedded(log).head());
        let is_epoch_on_disk = !self.is_armed && self.has_epoch_on_disk(log, position.lost_before);
        let facts = self.client.facts.len();
        Held { there, head, topics, position, facts, is_restored: false, is_epoch_on_disk }
    }

    /// The file of trim points has a loss epoch.
    fn has_epoch_on_disk(&self, log: &Log, epoch: u64) -> bool {
        let disk = Disk::Simulated(self.disk.clone());
        let id = embedded(log).id();
        let points = trim_points::read(&disk, Path::new(DIRECTORY), id).unwrap().unwrap();
        points.epochs.iter().any(|run| (run.first..=run.last).contains(&epoch))
    }

    /// Each reader comes back, and everything that it has not read is delivered or reported.
    pub async fn resume_all(&mut self, log: &Log, all: &[Seen]) {
        let (known, lost) = (self.known(), self.lost());
        let is_unknown = |fact: &Fact| match fact {
            Fact::Published { messages, .. } => messages.iter().any(|sent| sent.outcome == Outcome::Unknown),
            _ => false,
        };
        let has_unknown = self.client.facts.iter().any(is_unknown);
        let is_list_lost = self.client.facts.iter().any(|fact| matches!(fact, Fact::ListLost));
        for held in &self.held {
            let after = held.position.delivered_up_to;
            let (read, events) = match subscribe(log, held.query()).await {
                Ok(batches) => workload::all_of(batches).await,
                // With the list, the log has lost how far the sequences had jumped after a torn write.
                Err(Error::Ahead { .. }) if is_list_lost => continue,
                Err(error) => panic!("after {:?}: {error:?}", held.position),
            };
            let what = || format!("after {:?} of {:?}, with {events:?}", held.position, held.topics);
            let is_match = |seen: &&Seen| matches(held.topics, &seen.topic);
            if let Some(Event::Diverged(range)) = events.first() {
                // With the file in which its incarnation began, the log has lost that it had this history.
                let is_lost =
                    (number(range.first)..=number(range.last)).all(|sequence| is_in(&lost, sequence));
                let is_repeated = read.first().is_some_and(|first| first.sequence <= after);
                assert!(is_lost && !is_repeated, "{}", what());
                continue;
            }
            let expected = all.iter().filter(|seen| seen.sequence > after && is_kept(seen)).filter(is_match);
            let kept = read.iter().filter(|seen| is_kept(seen));
            assert!(kept.eq(expected), "{}: {read:.10?}", what());
            assert!(read.first().is_none_or(|first| first.sequence > after), "{}: {read:.10?}", what());
            let reported = ranges(&events, |event| match event {
                Event::Damaged(range) | Event::Removed(range) => Some(*range),
                Event::Diverged(_) => panic!("{}", what()),
            });
            let removed = ranges(&events, |event| match event {
                Event::Removed(range) => Some(*range),
                _ => None,
            });
            let got = read.iter().map(|seen| seen.sequence).collect::<BTreeSet<_>>();
            let owed = |sequence: &u64| {
                *sequence > after && (*sequence > held.head || held.there.contains(sequence))
            };
            for (sequence, seen) in known.iter().filter(|(sequence, seen)| owed(sequence) && is_match(seen)) {
                // Messages that expire, or that a later one supersedes, are not reported.
                let may_go = seen.text.contains(workload::EXPIRES) || workload::KEEPS(&seen.topic) == Some(1);
                let is_known = got.contains(sequence) || is_in(&reported, *sequence);
                assert!(may_go || is_known, "{sequence} of {} is missing in silence {}", seen.topic, what());
            }
            // A gap has a cause, which may be a message of which the client never learned that it was there, or one that
            // seemed to have expired when the cursor was handed out, or a lost file: nothing says what that had.
            let is_of_lost_file =
                |range: &(u64, u64)| lost.iter().any(|(first, last)| *first <= range.1 && range.0 <= *last);
            let unexplained = removed.iter().filter(|range| !is_of_lost_file(range));
            // A power cut may undo a removal, and with it the epoch of the cursor. Then every removal is reported.
            let epoch = held.position.lost_before;
            let is_epoch_undone = epoch > 0 && !embedded(log).knows_epoch(epoch);
            let may_be_undone = held.is_restored || !held.is_epoch_on_disk;
            assert!(may_be_undone || !is_epoch_undone, "the epoch is forgotten {}", what());
            for range in unexplained.filter(|_| !has_unknown && !held.is_restored) {
                let is_missing = |sequence: &u64| is_in(&[*range], *sequence) && !got.contains(sequence);
                // With a file, the message may be lost that had superseded another one: that is there again.
                let is_seen = |sequence: u64| {
                    let later = self.client.facts.get(held.facts..).unwrap_or_default();
                    let has = |all: &Vec<Seen>| all.iter().any(|seen| seen.sequence == sequence);
                    later.iter().any(|fact| matches!(fact, Fact::Read(all) if has(all)))
                };
                let may_be_owed = |sequence: &u64, seen: &Seen| {
                    owed(sequence)
                        || seen.text.contains(workload::EXPIRES)
                        || is_epoch_undone && *sequence > after
                        || *sequence > after && is_seen(*sequence)
                };
                let causes =
                    known.iter().filter(|(sequence, seen)| may_be_owed(sequence, seen) && is_match(seen));
                let has_cause = { causes }.any(|(sequence, _)| is_missing(sequence));
                assert!(has_cause, "nothing was removed in {range:?} {}", what());
            }
        }
    }

    /// Readers with cursors of other histories get an error or an event.
    pub async fn resume_strange(&mut self, log: &Log, all: &[Seen]) {
        for Strange { position, common, has_losses } in &self.strange {
            let common = *common;
            let resume = |on_gap| {
                let position = cursor::decode(&cursor::encode(position)).unwrap();
                Query { on_gap, ..query(ALL, Start::Resume(position)) }
            };
            let what = || format!("{position:?}, of which {common} is the last common one");
            let failed = subscribe(log, resume(OnGap::Fail)).await.err();
            let last_common = match failed {
                Some(Error::Diverged(Diverged { last_common })) => last_common,
                Some(Error::Ahead { .. }) => continue,
                None | Some(Error::Removed { .. }) => {
                    // Its sequences were lost here, too: nothing is passed over.
                    let reference = position.delivered_up_to.max(position.reported_up_to);
                    let is_passed = |seen: &&Seen| seen.sequence > common && seen.sequence <= reference;
                    assert_eq!(all.iter().find(is_passed), None, "{} is passed over", what());
                    continue;
                }
                Some(error) => panic!("{}: {error}", what()),
            };
            let Some(last_common) = last_common else { continue };
            let is_passed = |seen: &&Seen| seen.sequence > common && seen.sequence <= last_common;
            assert_eq!(all.iter().find(is_passed), None, "{}: not {last_common}", what());
            let (read, events) = workload::seen(log, resume(OnGap::Skip)).await;
            assert!(matches!(events.first(), Some(Event::Diverged(_))), "{}: {events:?}", what());
            let after = last_common.min(position.delivered_up_to);
            let expected = all.iter().filter(|seen| seen.sequence > after && is_kept(seen));
            assert!(read.iter().filter(|seen| is_kept(seen)).eq(expected), "{}: {read:.10?}", what());
            // With the newest file, a log loses where its incarnations began, and with that what it has in common with others.
            let is_read = |seen: &&Seen| !has_losses && seen.sequence <= common.min(position.delivered_up_to);
            assert_eq!(read.iter().find(is_read), None, "{} comes again", what());
        }
    }
}

fn is_kept(seen: &Seen) -> bool {
    workload::is_kept(seen)
}
