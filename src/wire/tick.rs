//! `perennial.v1.Tick`, as an item of `CountdownResponse.ticks`.

use bytes::BufMut;

use super::{put_length_tag, put_varint, put_varint_tag, varint_len};

/// `CountdownResponse.ticks`.
const TICKS: u32 = 1;

const REMAINING: u32 = 1;
const REMAINING_TIME: u32 = 2;
const DUE_TIME: u32 = 3;
const END_TIME: u32 = 4;
const STATE: u32 = 5;
const VERSION: u32 = 6;

/// Of `google.protobuf.Timestamp`, and of `google.protobuf.Duration`.
const SECONDS: u32 = 1;
const NANOS: u32 = 2;

/// Every field above has a tag of one byte.
const TAG_BYTES: usize = 1;

/// The longest that [`put`] writes: in a timestamp of the years before 1970 the seconds take ten bytes.
pub const MAX_BYTES: usize = 96;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// One number of a countdown. Moments are nanoseconds since 1970, within the years 1 to 9999.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tick {
    /// The number.
    pub remaining: i32,
    /// From this tick to the last one, in nanoseconds.
    pub remaining_time: u64,
    /// When it was due.
    pub due: i128,
    /// When the last one is.
    pub end: i128,
    /// Of a shared countdown: the number of its state, which is not 0.
    pub state: Option<i32>,
    /// Of a shared countdown.
    pub version: Option<i64>,
}

/// Appends a tick as an item of `CountdownResponse.ticks`.
pub fn put(out: &mut impl BufMut, tick: &Tick) {
    let remaining = signed(tick.remaining.into());
    let (left, due, end) = (Span::of(tick.remaining_time.into()), Span::of(tick.due), Span::of(tick.end));
    let state = tick.state.map(|state| signed(state.into()));
    let version = tick.version.map(signed);
    let optional = |value: Option<u64>| value.map_or(0, |value| TAG_BYTES + varint_len(value));
    let length = optional(Some(remaining))
        + [left, due, end].iter().map(|span| TAG_BYTES + 1 + span.len()).sum::<usize>()
        + optional(state)
        + optional(version);
    put_length_tag(out, TICKS);
    put_varint(out, length as u64);
    put_number(out, REMAINING, remaining);
    for (field, span) in [(REMAINING_TIME, left), (DUE_TIME, due), (END_TIME, end)] {
        span.put(out, field);
    }
    for (field, value) in [(STATE, state), (VERSION, version)] {
        if let Some(value) = value {
            put_number(out, field, value);
        }
    }
}

/// A negative number takes ten bytes, also where its type has 32 bits.
fn signed(value: i64) -> u64 {
    value.cast_unsigned()
}

fn put_number(out: &mut impl BufMut, field: u32, value: u64) {
    put_varint_tag(out, field);
    put_varint(out, value);
}

/// A moment or a duration as the wire has it; nanoseconds count up, also before 1970.
#[derive(Clone, Copy)]
struct Span {
    seconds: u64,
    nanos: u64,
}

impl Span {
    fn of(nanos: i128) -> Self {
        // A division of 128 bits costs more than all else here, and is needed from the year 2262 on.
        let (seconds, nanos) = if let Ok(nanos) = i64::try_from(nanos) {
            (nanos.div_euclid(NANOS_PER_SECOND), nanos.rem_euclid(NANOS_PER_SECOND))
        } else {
            let second = i128::from(NANOS_PER_SECOND);
            let seconds = i64::try_from(nanos.div_euclid(second)).unwrap_or(i64::MAX);
            (seconds, i64::try_from(nanos.rem_euclid(second)).unwrap_or(0))
        };
        Self { seconds: signed(seconds), nanos: signed(nanos) }
    }

    /// What is 0 is left out, as protobuf does where a field has no presence.
    fn fields(self) -> [(u32, u64); 2] {
        [(SECONDS, self.seconds), (NANOS, self.nanos)]
    }

    fn len(self) -> usize {
        self.fields()
            .iter()
            .filter(|(_, value)| *value != 0)
            .map(|(_, value)| TAG_BYTES + varint_len(*value))
            .sum()
    }

    fn put(self, out: &mut impl BufMut, field: u32) {
        put_length_tag(out, field);
        put_varint(out, self.len() as u64);
        for (field, value) in self.fields() {
            if value != 0 {
                put_number(out, field, value);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::proto;

    const SECOND: i128 = NANOS_PER_SECOND as i128;
    const MOMENTS: std::ops::Range<i128> = -62_135_596_800 * SECOND..253_402_300_800 * SECOND;

    fn moment() -> impl Strategy<Value = i128> {
        let whole = MOMENTS.prop_map(|nanos| nanos - nanos % SECOND);
        prop_oneof![MOMENTS, whole, Just(0), Just(-1), Just(MOMENTS.start), Just(MOMENTS.end - 1)]
    }

    fn timestamp(nanos: i128) -> prost_types::Timestamp {
        let (seconds, nanos) = (nanos.div_euclid(SECOND), nanos.rem_euclid(SECOND));
        prost_types::Timestamp {
            seconds: seconds.try_into().unwrap_or_default(),
            nanos: nanos.try_into().unwrap_or_default(),
        }
    }

    /// Ticks as a client reads them.
    pub(crate) fn read(items: &[u8]) -> Vec<Tick> {
        let nanos = |seconds: i64, nanos: i32| i128::from(seconds) * SECOND + i128::from(nanos);
        let moment = |time: Option<prost_types::Timestamp>| time.map_or(0, |t| nanos(t.seconds, t.nanos));
        let ticks =
            proto::CountdownResponse::decode(items).map(|response| response.ticks).unwrap_or_default();
        let tick = |tick: proto::Tick| Tick {
            remaining: tick.remaining.unwrap_or(i32::MIN),
            remaining_time: tick
                .remaining_time
                .map_or(0, |d| nanos(d.seconds, d.nanos))
                .try_into()
                .unwrap_or(0),
            due: moment(tick.due_time),
            end: moment(tick.end_time),
            state: Some(tick.state).filter(|state| *state != 0),
            version: tick.version,
        };
        ticks.into_iter().map(tick).collect()
    }

    proptest! {
        #[test]
        fn a_tick_is_as_prost_writes_it(
            remaining in prop_oneof![any::<i32>(), Just(0)],
            remaining_time in prop_oneof![any::<u64>(), 0..10_000_000_000_u64, Just(0)],
            due in moment(),
            end in moment(),
            state in proptest::option::of(1..100_i32),
            version in proptest::option::of(any::<i64>()),
        ) {
            let mut ours = Vec::new();
            put(&mut ours, &Tick { remaining, remaining_time, due, end, state, version });
            let left = timestamp(remaining_time.into());
            let theirs = proto::CountdownResponse {
                ticks: vec![proto::Tick {
                    remaining: Some(remaining),
                    remaining_time: Some(prost_types::Duration { seconds: left.seconds, nanos: left.nanos }),
                    due_time: Some(timestamp(due)),
                    end_time: Some(timestamp(end)),
                    state: state.unwrap_or_default(),
                    version,
                }],
                ..Default::default()
            };
            prop_assert!(ours.len() <= MAX_BYTES);
            prop_assert_eq!(ours, theirs.encode_to_vec());
        }
    }
}
