//! The lateness of a number: when it was sent, and when it arrived, both compared with the time it was due.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use perennial::proto::{CountdownResponse, Tick};

use crate::time;

/// The number of responses of which the fastest one gives the offset. With more, a clock that is set would be noticed
/// later; with fewer, all of them may have been delayed.
const SAMPLES: usize = 10;

/// How far the clock of this machine is ahead of the server's.
///
/// A response arrives after it was sent, so each response gives an upper bound. If the bound is no larger than the
/// duration of the first call, network delay explains it, and both clocks are assumed to agree.
#[derive(Debug)]
pub struct Offset {
    asked: Timestamp,
    /// The duration of the first call.
    round_trip: Option<SignedDuration>,
    ahead: VecDeque<SignedDuration>,
}

impl Offset {
    /// The offset for a call that is made at this time.
    pub fn new(asked: Timestamp) -> Self {
        Self { asked, round_trip: None, ahead: VecDeque::with_capacity(SAMPLES) }
    }

    /// Records a response that arrived now.
    pub fn record(&mut self, response: &CountdownResponse, now: Timestamp) {
        let Some(sent) = response.sent_time.as_ref().and_then(time::from_proto) else { return };
        if self.ahead.len() == SAMPLES {
            self.ahead.pop_front();
        }
        self.ahead.push_back(now.duration_since(sent));
        self.round_trip.get_or_insert_with(|| now.duration_since(self.asked));
    }

    /// The time on the server's clock when this machine's clock shows `now`.
    pub fn at_server(&self, now: Timestamp) -> Timestamp {
        let least = self.ahead.iter().min().copied().unwrap_or_default();
        let may_agree = !least.is_negative() && self.round_trip.is_none_or(|longest| least <= longest);
        if may_agree { now } else { now.saturating_sub(least).unwrap_or(now) }
    }
}

/// The lateness of one number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lateness {
    sent: SignedDuration,
    arrived: SignedDuration,
}

impl Lateness {
    /// The lateness of a number in a response that arrived at the time `arrived` of the server's clock.
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
    fn clocks_that_may_agree_are_assumed_to_agree() {
        let mut offset = Offset::new(at(0));
        assert_eq!(offset.at_server(at(7)), at(7));
        offset.record(&sent(40), at(50));
        assert_eq!(offset.at_server(at(60)), at(60));
    }

    #[test]
    fn a_slow_clock_is_corrected_by_the_fastest_response() {
        let mut offset = Offset::new(at(0));
        // The server's clock is an hour ahead, and a response takes at least 5 ms.
        offset.record(&sent(3_600_040), at(60));
        offset.record(&sent(3_600_095), at(100));
        offset.record(&sent(3_600_200), at(300));
        assert_eq!(offset.at_server(at(300)), at(3_600_295));
    }

    #[test]
    fn a_clock_that_is_ahead_by_more_than_the_delay_explains_is_corrected() {
        let mut offset = Offset::new(at(1_000));
        offset.record(&sent(20), at(1_030));
        assert_eq!(offset.at_server(at(1_040)), at(30));
    }

    #[test]
    fn a_clock_that_is_set_is_noticed_after_ten_responses() {
        let mut offset = Offset::new(at(0));
        offset.record(&sent(10), at(11));
        for n in 0..10 {
            offset.record(&sent(1_000 * n), at(1_000 * n + 500_000));
        }
        assert_eq!(offset.at_server(at(500_000)), at(0));
    }

    #[test]
    fn lateness_is_that_of_sending_and_that_of_arrival() {
        let due_time = Some(time::timestamp_to_proto(at(10)));
        let tick = Tick { due_time, ..Tick::default() };
        let late = Lateness::of(&tick, &sent(11), at(13)).unwrap();
        assert_eq!(late.in_words(), "sent 1.000 ms late, arrived 3.000 ms late");
    }
}
