//! Items of a countdown: ticks, whose numbers fall while the countdown does not change. Each change of a shared countdown
//! gives it another version.

use serde::{Deserialize, Serialize};

use super::{
    Items,
    kind::{Kind, Parts},
    state::Digits,
};
use crate::{
    client::Error,
    proto::{
        Countdown, CountdownRequest, CountdownResponse, CountdownStreamEvent, Tick, countdown_request::Target,
    },
};

/// Something that happened to a countdown.
#[derive(Clone, Debug, PartialEq)]
pub struct CountdownEvent {
    /// The event; `None` if this version does not know it.
    pub event: Option<crate::proto::countdown_stream_event::Event>,
    /// The state of a shared countdown after the events of the response.
    pub countdown: Option<Countdown>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    remaining: i32,
    /// Only a shared countdown has versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Digits>,
}

/// The step between two numbers.
pub struct Track(i64);

impl Kind for CountdownRequest {
    type Item = Tick;
    type Event = CountdownEvent;
    type Key = Key;
    type Track = Track;

    const NAME: &'static str = "countdown";

    fn track(&self) -> Track {
        Track(self.step.map_or(1, i64::from))
    }

    fn begin(
        Track(step): &mut Track,
        response: &mut CountdownResponse,
        pending: Option<&Key>,
    ) -> Result<bool, Error> {
        if let Some(of_shared) = response.countdown.as_ref().and_then(|it| it.step) {
            *step = of_shared.into();
        }
        let Some(Key { remaining, version }) = pending else { return Ok(false) };
        let version = version.as_ref().map_or(0, |version| version.0);
        let Some(first) = response.ticks.first() else { return Ok(true) };
        if first.version() == version {
            // Of the numbers that were skipped before the first tick, those down to the pending one were handed out.
            let above = i64::from(first.remaining()) + response.skipped_ticks * *step;
            let handed_out = (above - i64::from(*remaining)).div_euclid(*step) + 1;
            response.skipped_ticks -= handed_out.clamp(0, response.skipped_ticks);
        }
        response.ticks.retain(|tick| {
            tick.version() > version || tick.version() == version && tick.remaining() < *remaining
        });
        Ok(response.ticks.is_empty())
    }

    fn key(_: &Track, item: &Tick) -> Key {
        Key { remaining: item.remaining(), version: item.version.map(Digits) }
    }

    fn gap(_: &CountdownEvent) -> Option<Error> {
        None
    }

    fn parts(response: CountdownResponse) -> Parts<Self> {
        let CountdownResponse { ticks, events, cursor, countdown, sent_time: _, skipped_ticks } = response;
        let event =
            |it: CountdownStreamEvent| CountdownEvent { event: it.event, countdown: countdown.clone() };
        Parts {
            skipped: skipped_ticks,
            events: events.into_iter().map(event).collect(),
            items: ticks,
            cursor,
            caught_up: false,
        }
    }
}

impl From<i32> for CountdownRequest {
    /// A countdown from this number to 0, which belongs to the call: one number a second.
    fn from(start: i32) -> Self {
        Self { target: Some(Target::Start(start)), ..Self::default() }
    }
}

impl From<&str> for CountdownRequest {
    /// The shared countdown with this name.
    fn from(name: &str) -> Self {
        Self { target: Some(Target::Name(name.into())), ..Self::default() }
    }
}

impl Items<CountdownRequest> {
    /// The time between two numbers; 1 s by default.
    #[must_use]
    pub fn interval(self, interval: std::time::Duration) -> Self {
        // A longer one is refused by the server.
        let interval = prost_types::Duration::try_from(interval)
            .unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 });
        self.with(|request| request.interval = Some(interval))
    }
}
