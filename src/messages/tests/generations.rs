//! A log lives through several generations, in each of which it is opened, used, and ended by a crash or a close. Between
//! them and meanwhile happens what happens to logs: power cuts, full disks, lost files, restored copies, wrong clocks.
//!
//! Everything is judged: what a reader from the start gets, by the history checker; what readers get that come back with the
//! cursors of earlier generations, by [`held`]; and whether purged messages are still on the disk.
//!
//! The threads of the log take turns, so a seed repeats its history; but in every fourth seed they run freely.
//!
//! `PERENNIAL_SEEDS=20000 cargo test --release --lib generations -- --ignored` takes more seeds, and `PERENNIAL_SEED=7` one.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    history::{Fact, Outcome, Seen},
    workload::{self, Client, DIRECTORY, embedded, enforce, for_each_seed, seeds, small},
    *,
};
use clocks::{Known, Time};
use held::Held;
use losses::Lost;

mod clocks;
mod held;
mod losses;

/// How often a log is opened.
const GENERATIONS: u64 = 4;

/// How many calls of the disk a generation makes, about.
const CALLS: u64 = 250;

/// The most cursors that are kept.
const MAX_HELD: usize = 12;

/// A log, its clients, and what they know.
struct World {
    client: Client,
    disk: Arc<Simulation>,
    segment_bytes: usize,
    held: Vec<Held>,
    copy: Option<Copy>,
    strange: Vec<Strange>,
    /// The disk fails at some call to come.
    is_armed: bool,
    /// The disk may have been full in this boot of the machine.
    is_limited: bool,
    time: Time,
}

/// A copy of the log's directory, and what was known when it was made.
#[derive(Clone)]
struct Copy {
    disk: Arc<Simulation>,
    head: u64,
    facts: Vec<Fact>,
    strange: Vec<Strange>,
    known: Known,
}

/// A cursor of a history that the log does not have.
#[derive(Clone)]
struct Strange {
    position: Position,
    /// The last sequence that both have.
    common: u64,
    /// The other history has lost files.
    has_losses: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut client = Client::new(seed);
        let segment_bytes = 4096 << client.random.index(3);
        client.max_ttl = Duration::from_secs(2 * 3600);
        client.decides_commits = !seed.is_multiple_of(4);
        Self {
            client,
            disk: Simulation::new(),
            segment_bytes,
            held: Vec::new(),
            copy: None,
            strange: Vec::new(),
            is_armed: false,
            is_limited: false,
            time: Time::new(),
        }
    }

    fn open(&self) -> Result<(Log, Opened), OpenError> {
        Log::open(Path::new(DIRECTORY), self.config())
    }

    /// The power fails at some call, perhaps while the log is opened.
    fn arm(&mut self) {
        self.is_armed = self.client.random.one_in(2);
        if self.is_armed {
            let call = self.client.random.below(CALLS);
            self.disk.fail_at(self.disk.calls() + call, Fault::Power);
        }
    }

    fn lose_power(&mut self) {
        self.disk = self.disk.lose_power(self.client.random.number());
        self.time.reboot(&mut self.client.random);
        (self.is_armed, self.is_limited) = (false, false);
    }

    /// Opens the log, again and again if the power fails meanwhile.
    async fn begin(&mut self, lost: Vec<Lost>) -> Log {
        loop {
            self.notice_start();
            match self.open() {
                Ok((log, opened)) => {
                    let has_losses = !lost.is_empty() || self.has_losses();
                    assert!(has_losses || opened.damaged.is_empty(), "{:?}", opened.damaged);
                    self.notice();
                    self.client.facts.push(Fact::Opened);
                    let head = embedded(&log).head();
                    if lost.iter().any(|lost| matches!(lost, Lost::List)) {
                        // The list has the steps of the clock, too.
                        self.client.facts.push(Fact::Doubted);
                    }
                    self.client.facts.extend(lost.into_iter().map(|lost| lost.fact(head)));
                    embedded(&log).settle().await;
                    if self.is_armed && *log.failed().borrow() {
                        return log;
                    }
                    self.observe(&log).await;
                    return log;
                }
                Err(error) => {
                    assert!(self.is_armed, "{error}");
                    self.lose_power();
                }
            }
        }
    }

    fn has_losses(&self) -> bool {
        self.client.facts.iter().any(|fact| matches!(fact, Fact::Lost(..) | Fact::ListLost))
    }

    /// Does one thing after another, until the log gives up.
    async fn work(&mut self, log: &Log, steps: u64) {
        for _ in 0..steps {
            self.pass_time(log).await;
            match self.client.random.below(29) {
                0 | 1 => self.client.purge(log).await,
                2 | 3 => enforce(log).await,
                4 => embedded(log).sweep().await,
                5 | 6 => self.client.commit(log).await,
                7 => self.client.delete(log).await,
                8 => self.observe(log).await,
                9 => self.copy(log),
                10 => self.fill(),
                11 => self.heal(log).await,
                12 => self.check_erased(log).await,
                13 => self.commit_strange(log).await,
                14 => {
                    embedded(log).look_at_clock().await;
                    self.notice_clock(log);
                }
                _ => self.client.publish(log).await,
            }
            // The threads keep pace, so that a seed does the same each time.
            embedded(log).settle().await;
            if *log.failed().borrow() {
                return;
            }
        }
        self.observe(log).await;
    }

    /// Reads everything, by those who begin and by those who come back.
    async fn observe(&mut self, log: &Log) {
        let (all, events) = workload::seen(log, query(&[">"], Start::Earliest)).await;
        let damaged = events.iter().map(|event| match event {
            Event::Damaged(range) => (number(range.first), number(range.last)),
            event => panic!("a reader that begins gets {event:?}"),
        });
        self.client.facts.push(Fact::Reported(damaged.collect()));
        self.client.facts.push(Fact::Read(all.clone()));
        let consumers = log.list_consumers(10, None).await.unwrap().consumers;
        // With the last commit of a consumer, its only one may be lost: the others are erased.
        let is_readable = |consumer: &ConsumerInfo| consumer.position.is_ok() || !self.has_losses();
        let consumers = consumers
            .into_iter()
            .filter(is_readable)
            .map(|consumer| (consumer.name, number(consumer.position.unwrap().sequence())));
        let consumers = consumers.collect::<BTreeMap<_, _>>();
        self.client.facts.push(Fact::Consumers(consumers));
        self.resume_all(log, &all).await;
        self.resume_strange(log, &all).await;
        if self.held.len() >= MAX_HELD {
            let place = self.client.random.index(self.held.len());
            self.held.swap_remove(place);
        }
        let held = self.hold(log, &all).await;
        self.held.push(held);
    }

    fn copy(&mut self, log: &Log) {
        self.copy = Some(Copy {
            disk: self.disk.kill(),
            head: embedded(log).head(),
            facts: self.client.facts.clone(),
            strange: self.strange.clone(),
            known: self.known_time(),
        });
    }

    /// The copy takes the place of the log.
    fn restore(&mut self) {
        let Some(Copy { disk, head, facts, strange, known }) = self.copy.clone() else { return };
        self.restore_time(known);
        let has_losses = self.has_losses();
        // The copy is kept, too.
        self.disk = disk.kill();
        self.disk.set_capacity(None);
        self.disk.set_max_files(None);
        self.client.facts = facts;
        let is_known = |other: &Strange| strange.iter().any(|known| known.position == other.position);
        self.strange.retain(|other| !is_known(other));
        self.strange.iter_mut().for_each(|other| other.common = other.common.min(head));
        self.strange.extend(strange);
        for held in std::mem::take(&mut self.held) {
            match held.at_copy(head) {
                Ok(held) => self.held.push(held),
                // Without one, the log had lost all of its history.
                Err(position) if position.lineage.as_slice().is_empty() => {}
                Err(position) => {
                    self.strange.push(Strange { position: *position, common: head, has_losses });
                }
            }
        }
        let excess = self.strange.len().saturating_sub(MAX_HELD);
        self.strange.drain(..excess);
    }

    /// There is little room left, or none for another file.
    fn fill(&mut self) {
        self.is_limited = true;
        if self.client.random.one_in(3) {
            self.disk.set_max_files(Some(self.disk.count()));
        } else {
            self.disk.set_capacity(Some(self.disk.used() + self.client.random.below(4 * 1024)));
        }
    }

    /// Makes room by purging everything, or by adding some.
    async fn heal(&mut self, log: &Log) {
        let bytes = log
            .list_topics(None, 100, None)
            .await
            .unwrap()
            .topics
            .iter()
            .map(|topic| topic.bytes.unwrap())
            .sum::<u64>();
        if bytes > 3 * self.segment_bytes as u64 {
            for topic in workload::TOPICS {
                self.client.purge_up_to(log, topic, embedded(log).head()).await;
            }
            for _ in 0..2 {
                enforce(log).await;
            }
            if !self.is_armed {
                let sent = self.client.facts.len();
                self.client.publish(log).await;
                let is_refused = |fact: &Fact| matches!(fact, Fact::Published { messages, .. } if messages.iter().any(|sent| sent.outcome == Outcome::Refused));
                assert!(
                    !self.client.facts[sent..].iter().any(is_refused),
                    "all is purged, and there is no room"
                );
            }
        }
        self.disk.set_capacity(None);
        self.disk.set_max_files(None);
    }

    /// No file has a message that was purged.
    async fn check_erased(&mut self, log: &Log) {
        enforce(log).await;
        if self.is_armed || *log.failed().borrow() || log.owed_erasures() > 0 {
            return;
        }
        let purged = self.purged();
        let directory = Path::new(DIRECTORY);
        for path in self.disk.list(directory).unwrap() {
            let bytes = self.disk.read_file(&path);
            for text in &purged {
                if let Some(at) = memchr::memmem::find(&bytes, text.as_bytes()) {
                    self.client
                        .facts
                        .iter()
                        .enumerate()
                        .for_each(|(at, fact)| eprintln!("{at}: {fact:.20?}"));
                    panic!("{text} was purged, and is at byte {at} of {}", path.display());
                }
            }
        }
    }

    /// The beginnings of messages that were purged for certain.
    fn purged(&self) -> Vec<String> {
        let known = self.known();
        let is_purged = |seen: &Seen| {
            self.client.facts.iter().any(|fact| {
                matches!(fact, Fact::Purged { topic, through, outcome: Outcome::Done(_) }
                    if *topic == seen.topic && seen.sequence <= *through)
            })
        };
        let purged = known.values().filter(|seen| is_purged(seen));
        purged.map(|seen| format!("{}-", seen.text.split('-').next().unwrap())).collect()
    }

    /// The messages whose sequences are known.
    fn known(&self) -> BTreeMap<u64, Seen> {
        let mut known = BTreeMap::new();
        for fact in &self.client.facts {
            match fact {
                Fact::Published { messages, .. } => {
                    for sent in messages {
                        if let Outcome::Done(sequence) = sent.outcome {
                            let (topic, text) = (sent.topic.clone(), sent.text.clone());
                            known.insert(sequence, Seen { sequence, topic, text });
                        }
                    }
                }
                Fact::Read(all) => known.extend(all.iter().map(|seen| (seen.sequence, seen.clone()))),
                _ => {}
            }
        }
        known
    }

    /// The sequences of lost files.
    fn lost(&self) -> Vec<(u64, u64)> {
        let lost = self.client.facts.iter().filter_map(|fact| match fact {
            Fact::Lost(first, last) => Some((*first, *last)),
            _ => None,
        });
        lost.collect()
    }

    /// A commit of another history is refused, unless it passes over nothing of this one.
    async fn commit_strange(&mut self, log: &Log) {
        let strange = self.strange.last().filter(|_| self.lost().is_empty());
        let Some(Strange { position, common, .. }) = strange.cloned() else { return };
        match log.commit_cursor("one", position.clone(), true).await {
            Err(Error::Diverged(_) | Error::Ahead { .. }) => {}
            // It passes over nothing, and there is no room for it.
            Err(Error::Full(_)) if self.disk.free().bytes < u64::MAX || self.disk.free().files < u64::MAX => {
            }
            Ok(_) => {
                // A torn tail may have jumped over its sequences, as over those that a client of this history may know.
                let (all, _) = workload::seen(log, query(&[">"], Start::Earliest)).await;
                let reference = position.delivered_up_to.max(position.reported_up_to);
                let is_passed = |seen: &&Seen| seen.sequence > common && seen.sequence <= reference;
                assert_eq!(all.iter().find(is_passed), None, "{position:?} passes it over");
                let (at, outcome) = (Some(number(position.sequence())), Outcome::Done(0));
                self.client.facts.push(Fact::Committed { consumer: "one".into(), at, outcome });
            }
            Err(error) => panic!("{position:?}: {error}"),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.client.facts.iter().enumerate().for_each(|(at, fact)| eprintln!("{at}: {fact:.20?}"));
        }
    }
}

async fn live(seed: u64) -> Vec<Fact> {
    let mut world = World::new(seed);
    for generation in 0..GENERATIONS {
        if generation > 0 && world.client.random.one_in(4) {
            world.restore();
        }
        let lost = world.lose_files();
        world.arm();
        let log = world.begin(lost).await;
        let steps = 10 + world.client.random.below(40);
        if !*log.failed().borrow() {
            world.work(&log, steps).await;
        }
        match world.client.random.below(4) {
            0 => {
                log.close().await;
                world.disk = world.disk.kill();
                world.pass_time_of_restart();
            }
            1 if !world.is_armed => {
                world.disk = world.disk.kill();
                world.pass_time_of_restart();
            }
            _ => world.lose_power(),
        }
    }
    world.is_armed = false;
    world.disk.set_capacity(None);
    world.disk.set_max_files(None);
    for _ in 0..2 {
        let log = world.begin(Vec::new()).await;
        world.work(&log, 5).await;
        assert!(!*log.failed().borrow(), "the disk is whole again");
        world.client.publish(&log).await;
        world.observe(&log).await;
        log.close().await;
        world.disk = world.disk.kill();
    }
    world.client.check().unwrap_or_else(|broken| panic!("{broken}"));
    std::mem::take(&mut world.client.facts)
}

#[test]
fn a_seed_repeats_its_history() {
    for_each_seed(12, |seed| async move {
        // Not one whose threads run freely.
        let seed = seed * 4 + 1 + seed % 3;
        let first = format!("{:#?}", live(seed).await);
        let second = format!("{:#?}", live(seed).await);
        if let Some((one, other)) = first.lines().zip(second.lines()).find(|(one, other)| one != other) {
            panic!("seed {seed}: {one} and {other}");
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    });
}

#[test]
fn a_log_of_several_generations_keeps_its_promises() {
    for_each_seed(seeds(20, 60), |seed| async move { _ = live(seed).await });
}

#[test]
#[ignore = "takes minutes"]
fn many_logs_of_several_generations_keep_their_promises() {
    for_each_seed(seeds(400, 400), |seed| async move { _ = live(seed).await });
}
