//! The clock of the machine is set forward and back: while the log is open, between two starts of the server, and when the
//! machine starts. Messages end neither early nor late, except as the log documents.

use std::time::UNIX_EPOCH;

use super::*;
use crate::messages::{
    clock::Clock,
    embedded::{Turns, simulated::Random},
    tests::history::ages::{MAX_AGE, Now, WINDOW},
};

const DAY: u64 = 24 * 3600;

/// Nothing is removed from the disk because of its age for this long after a start, or after the clock was set.
const DELAY: Duration = Duration::from_secs(600);

/// The clock of a machine, and the time that really passes.
#[derive(Clone, Debug)]
pub struct Time {
    pub clock: Clock,
    begin: SystemTime,
    elapsed: Duration,
    boot: u64,
    known: Known,
    /// While the machine has started with a clock that is ahead: how many times the clock was looked at.
    looks: u64,
}

/// What a log knows of the clock. In seconds; above 0 for a clock that is ahead.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    boot: u64,
    /// By how much the clock was wrong when the log last noticed that it was set.
    error: i64,
    /// The least by which it was wrong in this boot.
    least: i64,
}

impl Time {
    pub fn new() -> Self {
        let clock = Clock::manual_at(UNIX_EPOCH + Duration::from_secs(56 * 365 * DAY));
        let known = Known { boot: 0, error: 0, least: 0 };
        Self { begin: clock.now(), clock, elapsed: Duration::ZERO, boot: 0, known, looks: 0 }
    }

    fn right(&self) -> SystemTime {
        self.begin + self.elapsed
    }

    /// By how much the clock is ahead.
    fn error(&self) -> i64 {
        let seconds = |result: Duration| i64::try_from(result.as_secs()).unwrap();
        match self.clock.now().duration_since(self.right()) {
            Ok(ahead) => seconds(ahead),
            Err(behind) => -seconds(behind.duration()),
        }
    }

    fn set_right(&self) {
        self.clock.set(self.right());
    }

    fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.elapsed += by;
    }

    /// Sets the clock right, or wrong by up to 40 days.
    fn set(&self, random: &mut Random) {
        self.set_right();
        let most = (40 * DAY) >> random.below(20);
        let by = Duration::from_secs(2 + random.below(most));
        match random.below(4) {
            0 => self.clock.forward(by),
            1 => self.clock.back(by),
            2 if random.one_in(4) => self.clock.set(UNIX_EPOCH + Duration::from_secs(9)),
            _ => {}
        }
    }

    fn is_ahead(&self) -> bool {
        self.known.least > 0
    }

    fn now(&self) -> Now {
        Now { elapsed: self.elapsed, boot: self.boot, is_ahead: self.is_ahead() }
    }

    /// The machine starts again.
    pub fn reboot(&mut self, random: &mut Random) {
        let most = (3 * 3600) >> random.below(10);
        let down = Duration::from_secs(random.below(most));
        self.clock.reboot(down);
        self.elapsed += down;
        self.boot += 1;
        self.set_right();
        if random.one_in(3) {
            self.set(random);
        }
    }
}

impl World {
    pub fn config(&self) -> Config {
        let mut config = small(&self.disk, self.segment_bytes);
        config.retention.push(format!("old=age:{}s", MAX_AGE.as_secs()).parse().unwrap());
        let (clock, turns) = (self.time.clock.clone(), self.client.decides_commits.then(Turns::default));
        Config { clock, turns, removal_delay: DELAY, dedupe_window: WINDOW, ..config }
    }

    /// What the log on the disk knows of the clock.
    pub fn known_time(&self) -> Known {
        self.time.known
    }

    /// A copy with other knowledge of the clock takes the place of the log.
    pub fn restore_time(&mut self, known: Known) {
        self.time.known = known;
    }

    /// Call it before the log is opened: the log then measures the steps of the clock since it was closed, if the machine was
    /// not started again.
    pub fn notice_start(&mut self) {
        let (boot, error) = (self.time.boot, self.time.error());
        let known = self.time.known;
        if known.boot == boot {
            // The power may fail before the log has recorded that the clock was set.
            self.time.known.error = known.error.min(error);
            self.client.facts.push(Fact::Passed(self.time.now()));
            if self.is_limited {
                // The boot may not be recorded, so that the log takes the machine for another one.
                self.client.facts.push(Fact::Doubted);
            }
            return;
        }
        // The clock may have been behind when messages were published: that cannot be distinguished from downtime.
        self.client.facts.push(Fact::Passed(self.time.now()));
        if known.error < 0 {
            self.client.facts.push(Fact::Doubted);
        }
        self.time.known = Known { boot, error, least: error };
        self.time.looks = 0;
        self.client.facts.push(Fact::Passed(self.time.now()));
    }

    /// The log is open, and has recorded that the clock was set.
    pub fn notice(&mut self) {
        let error = self.time.error();
        let known = &mut self.time.known;
        (known.error, known.least) = (error, known.least.min(error));
        self.client.facts.push(Fact::Passed(self.time.now()));
    }

    /// Time passes, and sometimes the clock is set.
    pub async fn pass_time(&mut self, log: &Log) {
        let random = &mut self.client.random;
        let is_ahead = self.time.is_ahead();
        let most = if !is_ahead && random.one_in(8) { 1800 } else { 20 };
        self.time.advance(Duration::from_millis(random.below(most * 1000)));
        self.time.looks += 1;
        if is_ahead && self.time.looks > 5 {
            self.time.set_right();
        } else if random.one_in(8) {
            self.time.set(random);
        }
        embedded(log).settle().await;
        self.notice_clock(log);
    }

    /// The log may have recorded that the clock was set.
    pub fn notice_clock(&mut self, log: &Log) {
        if embedded(log).has_noticed_clock() {
            self.notice();
        } else {
            // A part of the disk may know of it.
            let error = self.time.error();
            self.time.known.error = self.time.known.error.min(error);
            self.client.facts.push(Fact::Passed(self.time.now()));
        }
    }

    /// The server is started again, and not the machine. Sometimes the clock is set meanwhile.
    pub fn pass_time_of_restart(&mut self) {
        let random = &mut self.client.random;
        self.time.advance(Duration::from_secs(random.below(60)));
        if random.one_in(4) && !self.is_limited {
            self.time.set(random);
        }
    }
}
