//! `perennial.v1.Tick`, as an item of `CountdownResponse.ticks`.
//!
//! A reader that was away gets millions of them, and they are made of some twenty parts of one to five bytes. So each
//! is written on the stack, and copied once.

use bytes::BufMut;

/// `CountdownResponse.ticks`.
const TICKS: u8 = 1;

const REMAINING: u8 = 1;
const REMAINING_TIME: u8 = 2;
const DUE_TIME: u8 = 3;
const END_TIME: u8 = 4;
const STATE: u8 = 5;
const VERSION: u8 = 6;

/// Of `google.protobuf.Timestamp`, and of `google.protobuf.Duration`.
const SECONDS: u8 = 1;
const NANOS: u8 = 2;

/// Wire types, as a tag has them.
const VARINT_TAG: u8 = 0;
const LENGTH_TAG: u8 = 2;

/// The longest that [`put`] writes. No message in it is longer either, so that every length is one byte.
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
    let mut pen = Pen { bytes: [0; MAX_BYTES], len: 0 };
    pen.message(TICKS, |pen| {
        pen.number(REMAINING, signed(tick.remaining.into()));
        pen.span(REMAINING_TIME, tick.remaining_time.into());
        pen.span(DUE_TIME, tick.due);
        pen.span(END_TIME, tick.end);
        if let Some(state) = tick.state {
            pen.number(STATE, signed(state.into()));
        }
        if let Some(version) = tick.version {
            pen.number(VERSION, signed(version));
        }
    });
    out.put_slice(pen.bytes.get(..pen.len).unwrap_or_default());
}

/// A negative number takes ten bytes, also where its type has 32 bits.
fn signed(value: i64) -> u64 {
    value.cast_unsigned()
}

/// A moment or a duration in seconds and nanoseconds; these count up, also before 1970.
fn split(nanos: i128) -> (u64, u64) {
    // A division of 128 bits costs more than all else here, and is needed from the year 2262 on.
    let (seconds, nanos) = if let Ok(nanos) = i64::try_from(nanos) {
        (nanos.div_euclid(NANOS_PER_SECOND), nanos.rem_euclid(NANOS_PER_SECOND))
    } else {
        let second = i128::from(NANOS_PER_SECOND);
        let seconds = i64::try_from(nanos.div_euclid(second)).unwrap_or(i64::MAX);
        (seconds, i64::try_from(nanos.rem_euclid(second)).unwrap_or(0))
    };
    (signed(seconds), signed(nanos))
}

/// Writes a tick.
struct Pen {
    bytes: [u8; MAX_BYTES],
    len: usize,
}

impl Pen {
    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.byte(value.to_le_bytes()[0]);
    }

    fn number(&mut self, field: u8, value: u64) {
        self.byte(field << 3 | VARINT_TAG);
        self.varint(value);
    }

    /// Its length is written when it is known.
    fn message(&mut self, field: u8, content: impl FnOnce(&mut Self)) {
        self.byte(field << 3 | LENGTH_TAG);
        let length_at = self.len;
        self.byte(0);
        content(self);
        if let (Some(place), Ok(length)) =
            (self.bytes.get_mut(length_at), u8::try_from(self.len - length_at - 1))
        {
            *place = length;
        }
    }

    fn span(&mut self, field: u8, nanos: i128) {
        let (seconds, nanos) = split(nanos);
        self.message(field, |pen| {
            // What is 0 is left out, as protobuf does where a field has no presence.
            for (field, value) in [(SECONDS, seconds), (NANOS, nanos)] {
                if value != 0 {
                    pen.number(field, value);
                }
            }
        });
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
