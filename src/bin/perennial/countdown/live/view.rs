//! What is known of the countdown that is watched, and what that makes at a moment.
//!
//! Between numbers it runs on by the moment of the last one, so numbers that come late change nothing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Zoned};
use perennial::proto::{Countdown, CountdownResponse, CountdownState, Tick};

use super::frame::{Shown, TENTHS};
use crate::{
    arguments::Watch,
    countdown::{
        event,
        lateness::{Lateness, Offset},
    },
    time,
};

pub struct View {
    name: Option<String>,
    tells_lateness: bool,
    offset: Offset,
    state: CountdownState,
    /// The moment of the last number, by the clock of the server.
    end: Option<Timestamp>,
    /// What is left while it stands still.
    left: Option<SignedDuration>,
    total: Option<SignedDuration>,
    number: Option<i32>,
    lateness: Option<Lateness>,
    /// How a shared one stood last.
    countdown: Option<Countdown>,
    /// What happened last.
    note: Option<String>,
    /// The connection is lost, and why.
    lost: Option<String>,
}

impl View {
    /// Of a call that is made now.
    pub fn new(it: &Watch, now: Timestamp) -> Self {
        Self {
            name: it.name().map(str::to_owned),
            tells_lateness: it.tells_lateness(),
            offset: Offset::new(now),
            state: CountdownState::Unspecified,
            end: it.until(),
            left: None,
            total: None,
            number: None,
            lateness: None,
            countdown: None,
            note: None,
            lost: None,
        }
    }

    /// Takes note of a response that arrived now.
    pub fn took(&mut self, response: &CountdownResponse, now: &Zoned) {
        let arrived = now.timestamp();
        self.offset.took(response, arrived);
        self.happened(response, now);
        if let Some(it) = &response.countdown {
            self.stands(it);
        } else if self.state == CountdownState::Unspecified {
            self.state = CountdownState::Running;
        }
        if let Some(tick) = response.ticks.last().filter(|tick| !self.is_stale(tick)) {
            self.ticked(tick);
            self.lateness = Lateness::of(tick, response, self.offset.at_server(arrived));
        }
        if self.total.is_none() {
            self.total = self.left(arrived);
        }
    }

    /// The connection is lost, or is back.
    pub fn connection(&mut self, lost: Option<String>) {
        self.lost = lost;
    }

    /// The stream ended with OK. One's own countdown has then ended, unless that was the end of its limit.
    pub fn ended(&mut self, now: Timestamp) {
        if self.countdown.is_none() && self.left(now).is_some_and(|left| left.is_zero()) {
            self.state = CountdownState::Ended;
        }
    }

    fn happened(&mut self, response: &CountdownResponse, now: &Zoned) {
        let after = response.countdown.as_ref();
        let mut told = response.events.iter().map(|it| event::sentence(it, after, now)).collect::<Vec<_>>();
        told.extend((response.skipped_ticks > 0).then(|| format!("skipped {}", response.skipped_ticks)));
        if !told.is_empty() {
            self.note = Some(format!("{} {}", now.strftime("%H:%M:%S"), told.join(", ")));
        }
    }

    fn stands(&mut self, it: &Countdown) {
        self.state = it.state();
        self.end = it.end_time.as_ref().and_then(time::from_proto);
        self.left = it.remaining_duration.as_ref().map(time::duration_from_proto);
        self.total = it.total_duration.as_ref().map(time::duration_from_proto);
        self.countdown = Some(it.clone());
    }

    /// It was made before the last change.
    fn is_stale(&self, tick: &Tick) -> bool {
        let version = self.countdown.as_ref().and_then(|it| it.version);
        tick.version.zip(version).is_some_and(|(tick, now)| tick < now)
    }

    fn ticked(&mut self, tick: &Tick) {
        self.end = tick.end_time.as_ref().and_then(time::from_proto).or(self.end);
        let left = tick.remaining_duration.as_ref().map(time::duration_from_proto);
        self.total = self.total.max(left);
        // A number that says what the clock says needs no words.
        let is_seconds = left == tick.remaining.map(|number| SignedDuration::from_secs(number.into()));
        self.number = tick.remaining.filter(|_| !is_seconds);
    }

    /// What is left at this moment, if that is known.
    fn left(&self, now: Timestamp) -> Option<SignedDuration> {
        match self.state {
            CountdownState::Running => {
                let left = self.end?.duration_since(self.offset.at_server(now));
                Some(left.max(SignedDuration::ZERO))
            }
            CountdownState::Ended => Some(SignedDuration::ZERO),
            CountdownState::Paused | CountdownState::Cancelled => self.left,
            CountdownState::Unspecified => None,
        }
    }

    /// How long until it looks different, if it will by itself.
    pub fn next_change(&self, now: Timestamp) -> Option<Duration> {
        if self.state != CountdownState::Running {
            return None;
        }
        let left = self.left(now).filter(SignedDuration::is_positive)?;
        let unit = if left <= TENTHS { 100_000_000 } else { 1_000_000_000 };
        // What is shown is rounded up: it changes when it falls below a whole unit.
        let until = left.as_nanos() - (time::ceiling(left, unit) - 1) * unit;
        Some(Duration::from_nanos(u64::try_from(until).unwrap_or_default()))
    }

    /// All that is shown at a moment.
    pub fn shown(&self, now: Timestamp) -> Shown {
        let lateness = self.lateness.filter(|_| self.tells_lateness);
        Shown {
            name: self.name.clone(),
            state: self.state,
            left: self.left(now),
            total: self.total,
            end: self.end,
            number: self.number,
            lateness: lateness.map(|it| format!("last number {}", it.in_words())),
            note: self.lost.clone().or_else(|| self.note.clone()),
        }
    }

    /// The line that stays behind, if there is something to tell.
    pub fn last_line(&self, now: &Zoned) -> Option<String> {
        let mut it = self.countdown.clone().unwrap_or_default();
        it.state = self.state.into();
        it.name = self.name.clone().unwrap_or_else(|| "countdown".into());
        it.remaining_duration = self.left(now.timestamp()).map(time::to_proto);
        it.end_time = self.end.map(time::timestamp_to_proto);
        (self.state != CountdownState::Unspecified).then(|| event::standing(&it, now))
    }
}

#[cfg(test)]
mod tests;
