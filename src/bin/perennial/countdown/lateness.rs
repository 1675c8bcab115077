//! How late a number is: when it was sent, by the clock of the server, and when it arrived, by the clock here.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use perennial::proto::{CountdownResponse, Tick};

use crate::time;

/// Of so many responses the one that was fastest tells best how the clocks differ: enough to have one that met no
/// delay, and few enough to notice soon that a clock was set.
const SAMPLES: usize = 10;

/// How far the clock here is ahead of the server's.
///
/// A response arrives after it was sent, so each tells how far that is at most. Clocks that may agree are taken to: they
/// do where no more was observed than the way of a response explains, which was no longer than the whole first call.
#[derive(Debug)]
pub struct Offset {
    asked: Timestamp,
    /// How long the first call took, there and back.
    round_trip: Option<SignedDuration>,
    ahead: VecDeque<SignedDuration>,
}

impl Offset {
    /// Of a call that is made at this moment.
    pub fn new(asked: Timestamp) -> Self {
        Self { asked, round_trip: None, ahead: VecDeque::with_capacity(SAMPLES) }
    }

    /// Takes note of a response that arrived now.
    pub fn took(&mut self, response: &CountdownResponse, now: Timestamp) {
        let Some(sent) = response.sent_time.as_ref().and_then(time::from_proto) else { return };
        if self.ahead.len() == SAMPLES {
            self.ahead.pop_front();
        }
        self.ahead.push_back(now.duration_since(sent));
        self.round_trip.get_or_insert_with(|| now.duration_since(self.asked));
    }

    /// What the clock of the server shows when the one here shows `now`.
    pub fn at_server(&self, now: Timestamp) -> Timestamp {
        let least = self.ahead.iter().min().copied().unwrap_or_default();
        let may_agree = !least.is_negative() && self.round_trip.is_none_or(|longest| least <= longest);
        if may_agree { now } else { now.saturating_sub(least).unwrap_or(now) }
    }
}

/// Of one number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lateness {
    sent: SignedDuration,
    arrived: SignedDuration,
}

impl Lateness {
    /// Of a number in a response that arrived when the clock of the server showed `arrived`.
    pub fn of(tick: &Tick, response: &CountdownResponse, arrived: Timestamp) -> Option<Self> {
        let due = time::from_proto(tick.due_time.as_ref()?)?;
        let sent = time::from_proto(response.sent_time.as_ref()?)?;
        Some(Self { sent: sent.duration_since(due), arrived: arrived.duration_since(due) })
    }

    /// `sent 0.412 ms late, arrived 0.931 ms late`.
    pub fn in_words(self) -> String {
        format!("sent {} ms late, arrived {} ms late", milliseconds(self.sent), milliseconds(self.arrived))
    }
}

fn milliseconds(duration: SignedDuration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_795_000_000_000 + millis).unwrap()
    }

    fn sent(millis: i64) -> CountdownResponse {
        let sent_time = Some(time::timestamp_to_proto(at(millis)));
        CountdownResponse { sent_time, ..CountdownResponse::default() }
    }

    #[test]
    fn clocks_that_may_agree_are_taken_to() {
        let mut offset = Offset::new(at(0));
        assert_eq!(offset.at_server(at(7)), at(7));
        offset.took(&sent(40), at(50));
        assert_eq!(offset.at_server(at(60)), at(60));
    }

    #[test]
    fn a_clock_that_is_behind_is_corrected_by_the_fastest_response() {
        let mut offset = Offset::new(at(0));
        // The server's is an hour ahead, and the way is of 5 ms at least.
        offset.took(&sent(3_600_040), at(60));
        offset.took(&sent(3_600_095), at(100));
        offset.took(&sent(3_600_200), at(300));
        assert_eq!(offset.at_server(at(300)), at(3_600_295));
    }

    #[test]
    fn a_clock_that_is_ahead_of_what_the_way_explains_is_corrected() {
        let mut offset = Offset::new(at(1_000));
        offset.took(&sent(20), at(1_030));
        assert_eq!(offset.at_server(at(1_040)), at(30));
    }

    #[test]
    fn a_clock_that_is_set_is_noticed_after_some_responses() {
        let mut offset = Offset::new(at(0));
        offset.took(&sent(10), at(11));
        for n in 0..10 {
            offset.took(&sent(1_000 * n), at(1_000 * n + 500_000));
        }
        assert_eq!(offset.at_server(at(500_000)), at(0));
    }

    #[test]
    fn a_number_is_late_by_both_clocks() {
        let due_time = Some(time::timestamp_to_proto(at(10)));
        let tick = Tick { due_time, ..Tick::default() };
        let late = Lateness::of(&tick, &sent(11), at(13)).unwrap();
        assert_eq!(late.in_words(), "sent 1.000 ms late, arrived 3.000 ms late");
    }
}
