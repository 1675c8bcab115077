//! The state of the countdown that is watched, and what the display shows of it at a given time.
//!
//! The display counts towards the end that the last number carried, so a number that arrives late changes nothing.

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
    shows_lateness: bool,
    offset: Offset,
    state: CountdownState,
    /// The end of the countdown by the server's clock.
    end: Option<Timestamp>,
    /// The remaining time of a countdown that is paused or cancelled.
    left: Option<SignedDuration>,
    total: Option<SignedDuration>,
    number: Option<i32>,
    lateness: Option<Lateness>,
    /// The last known state of a shared countdown.
    countdown: Option<Countdown>,
    /// The last event.
    note: Option<String>,
    /// Why the connection is lost, while it is.
    lost: Option<String>,
}

impl View {
    /// The view of a call that is made now.
    pub fn new(it: &Watch, now: Timestamp) -> Self {
        Self {
            name: it.name().map(str::to_owned),
            shows_lateness: it.shows_lateness(),
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

    /// Records a response that arrived now.
    pub fn record(&mut self, response: &CountdownResponse, now: &Zoned) {
        let arrived = now.timestamp();
        self.offset.record(response, arrived);
        self.record_events(response, now);
        if let Some(it) = &response.countdown {
            self.record_state(it);
        } else if self.state == CountdownState::Unspecified {
            self.state = CountdownState::Running;
        }
        if let Some(tick) = response.ticks.last().filter(|tick| !self.is_stale(tick)) {
            self.record_tick(tick);
            self.lateness = Lateness::of(tick, response, self.offset.at_server(arrived));
        }
        if self.total.is_none() {
            self.total = self.left(arrived);
        }
    }

    /// The connection is lost, with the reason, or is back.
    pub fn connection(&mut self, lost: Option<String>) {
        self.lost = lost;
    }

    /// The stream ended with OK. Then a countdown that is not shared has ended, unless the limit was reached.
    pub fn ended(&mut self, now: Timestamp) {
        if self.countdown.is_none() && self.left(now).is_some_and(|left| left.is_zero()) {
            self.state = CountdownState::Ended;
        }
    }

    fn record_events(&mut self, response: &CountdownResponse, now: &Zoned) {
        let after = response.countdown.as_ref();
        let mut sentences =
            response.events.iter().map(|it| event::sentence(it, after, now)).collect::<Vec<_>>();
        sentences.extend((response.skipped_ticks > 0).then(|| format!("skipped {}", response.skipped_ticks)));
        if !sentences.is_empty() {
            self.note = Some(format!("{} {}", now.strftime("%H:%M:%S"), sentences.join(", ")));
        }
    }

    fn record_state(&mut self, it: &Countdown) {
        self.state = it.state();
        self.end = it.end_time.as_ref().and_then(time::from_proto);
        self.left = it.remaining_duration.as_ref().map(time::duration_from_proto);
        self.total = it.total_duration.as_ref().map(time::duration_from_proto);
        self.countdown = Some(it.clone());
    }

    /// Whether the tick is older than the last change.
    fn is_stale(&self, tick: &Tick) -> bool {
        let version = self.countdown.as_ref().and_then(|it| it.version);
        tick.version.zip(version).is_some_and(|(tick, now)| tick < now)
    }

    fn record_tick(&mut self, tick: &Tick) {
        self.end = tick.end_time.as_ref().and_then(time::from_proto).or(self.end);
        let left = tick.remaining_duration.as_ref().map(time::duration_from_proto);
        self.total = self.total.max(left);
        // A number that equals the remaining seconds is not shown twice.
        let is_seconds = left == tick.remaining.map(|number| SignedDuration::from_secs(number.into()));
        self.number = tick.remaining.filter(|_| !is_seconds);
    }

    /// The remaining time, if it is known.
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

    /// The time until the display changes without a response, if it does.
    pub fn next_change(&self, now: Timestamp) -> Option<Duration> {
        if self.state != CountdownState::Running {
            return None;
        }
        let left = self.left(now).filter(SignedDuration::is_positive)?;
        let unit = if left <= TENTHS { 100_000_000 } else { 1_000_000_000 };
        // The shown time is rounded up, so it changes when the remaining time falls below a whole unit.
        let until = left.as_nanos() - (time::ceiling(left, unit) - 1) * unit;
        Some(Duration::from_nanos(u64::try_from(until).unwrap_or_default()))
    }

    /// The content of the frame at a given time.
    pub fn shown(&self, now: Timestamp) -> Shown {
        let lateness = self.lateness.filter(|_| self.shows_lateness);
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

    /// The line that is left at the end, if a response has arrived.
    pub fn last_line(&self, now: &Zoned) -> Option<String> {
        let mut it = self.countdown.clone().unwrap_or_default();
        it.state = self.state.into();
        it.name = self.name.clone().unwrap_or_else(|| "countdown".into());
        it.remaining_duration = self.left(now.timestamp()).map(time::to_proto);
        it.end_time = self.end.map(time::timestamp_to_proto);
        (self.state != CountdownState::Unspecified).then(|| event::state_sentence(&it, now))
    }
}

#[cfg(test)]
mod tests;
