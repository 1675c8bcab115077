//! `perennial.v1.Tick`, as an item of `CountdownResponse.ticks`.
//!
//! A client that catches up gets millions of ticks, each of about twenty parts of one to five bytes. So a tick is
//! written on the stack and copied once, and the parts that it shares with the tick before it are not encoded again.

use arrayvec::ArrayVec;
use bytes::BufMut;

/// `CountdownResponse.ticks`.
const TICKS: u8 = 1;

const REMAINING: u8 = 1;
const REMAINING_DURATION: u8 = 2;
const DUE_TIME: u8 = 3;
const END_TIME: u8 = 4;
const STATE: u8 = 5;
const VERSION: u8 = 6;

// The fields of `google.protobuf.Timestamp` and of `google.protobuf.Duration`.
const SECONDS: u8 = 1;
const NANOS: u8 = 2;

// The wire types of the tags.
const VARINT_TAG: u8 = 0;
const LENGTH_TAG: u8 = 2;

/// The longest encoding of a tick. No message in it is longer either, so that every length is one byte.
pub const MAX_BYTES: usize = 96;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A tick to encode. Moments are within the years 1 to 9999.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tick {
    /// The number that the countdown has reached.
    pub remaining: i32,
    /// From this tick to the last one.
    pub remaining_nanos: u64,
    /// When the tick is due, since 1970.
    pub due_nanos: i128,
    /// When the last tick is due, since 1970.
    pub end_nanos: i128,
    /// The number of a shared countdown's state, which is not 0.
    pub state: Option<i32>,
    /// The version of a shared countdown.
    pub version: Option<i64>,
}

/// A negative number takes ten bytes, also if its type has 32 bits.
fn signed(value: i64) -> u64 {
    value.cast_unsigned()
}

/// Writes the ticks of one countdown, one after another. The parts that a tick shares with the one before it are not
/// encoded again: the end of the countdown, and mostly the second in which the tick is due.
#[derive(Debug, Default)]
pub struct TickEncoder {
    left: Span,
    due: Span,
    end: Span,
}

impl TickEncoder {
    /// Appends a tick as an item of `CountdownResponse.ticks`.
    pub fn put(&mut self, out: &mut impl BufMut, tick: &Tick) {
        let mut item = Stack::<MAX_BYTES>::default();
        item.message(TICKS, |item| {
            item.number(REMAINING, signed(tick.remaining.into()));
            self.left.put(item, REMAINING_DURATION, tick.remaining_nanos.into());
            self.due.put(item, DUE_TIME, tick.due_nanos);
            self.end.put(item, END_TIME, tick.end_nanos);
            if let Some(state) = tick.state {
                item.number(STATE, signed(state.into()));
            }
            if let Some(version) = tick.version {
                item.number(VERSION, signed(version));
            }
        });
        out.put_slice(&item.0);
    }
}

/// The longest encoding of seconds, with their tag: the seconds of a moment before 1970.
const SECONDS_BYTES: usize = 11;

/// A moment or a duration in seconds and nanoseconds. The nanoseconds count up, also before 1970.
#[derive(Debug, Default)]
struct Span {
    /// The last encoded second, in nanoseconds since 1970.
    second: i128,
    seconds: Stack<SECONDS_BYTES>,
}

impl Span {
    fn put(&mut self, item: &mut Stack<MAX_BYTES>, field: u8, nanos: i128) {
        let nanos = match u64::try_from(nanos - self.second) {
            Ok(nanos) if nanos < NANOS_PER_SECOND.unsigned_abs() => nanos,
            _ => self.switch_to(nanos),
        };
        item.message(field, |item| {
            item.append(&self.seconds.0);
            item.number_unless_0(NANOS, nanos);
        });
    }

    /// Encodes the second of a moment, and returns the nanoseconds after it.
    #[expect(clippy::expect_used, reason = "a wrong moment would be wrong data")]
    fn switch_to(&mut self, nanos: i128) -> u64 {
        // A division of 128 bits costs more than all else here, and is needed from the year 2262 on.
        let (seconds, nanos) = if let Ok(nanos) = i64::try_from(nanos) {
            (nanos.div_euclid(NANOS_PER_SECOND), nanos.rem_euclid(NANOS_PER_SECOND))
        } else {
            let second = i128::from(NANOS_PER_SECOND);
            let narrow = |part: i128| i64::try_from(part).expect("a moment is within the years 1 to 9999");
            (narrow(nanos.div_euclid(second)), narrow(nanos.rem_euclid(second)))
        };
        self.second = i128::from(seconds) * i128::from(NANOS_PER_SECOND);
        self.seconds = Stack::default();
        self.seconds.number_unless_0(SECONDS, signed(seconds));
        signed(nanos)
    }
}

/// Encoded bytes, on the stack. It panics if it is full, which can only be a fault of this module.
#[derive(Debug, Default)]
struct Stack<const MAX: usize>(ArrayVec<u8, MAX>);

impl<const MAX: usize> Stack<MAX> {
    #[expect(clippy::expect_used, reason = "a tick cut short would be wrong data")]
    fn append(&mut self, bytes: &[u8]) {
        self.0.try_extend_from_slice(bytes).expect("a tick has a longest encoding");
    }

    fn number(&mut self, field: u8, value: u64) {
        self.0.push(field << 3 | VARINT_TAG);
        super::varint_bytes(value, |byte| self.0.push(byte));
    }

    /// Leaves out 0, as protobuf does where a field has no presence.
    fn number_unless_0(&mut self, field: u8, value: u64) {
        if value != 0 {
            self.number(field, value);
        }
    }

    /// Writes a nested message, and its length when it is known.
    #[expect(clippy::expect_used, reason = "a wrong length would be wrong data")]
    fn message(&mut self, field: u8, content: impl FnOnce(&mut Self)) {
        self.0.push(field << 3 | LENGTH_TAG);
        let length_at = self.0.len();
        self.0.push(0);
        content(self);
        let length = u8::try_from(self.0.len() - length_at - 1).ok().filter(|length| *length < 0x80);
        let byte = self.0.get_mut(length_at).expect("it was written above");
        *byte = length.expect("no message in a tick is longer than 127 bytes");
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
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
        prost_types::Timestamp { seconds: seconds.try_into().unwrap(), nanos: nanos.try_into().unwrap() }
    }

    fn put(out: &mut Vec<u8>, tick: &Tick) {
        TickEncoder::default().put(out, tick);
    }

    /// Decodes ticks as a client does.
    pub(crate) fn read(items: &[u8]) -> Vec<Tick> {
        let nanos = |seconds: i64, nanos: i32| i128::from(seconds) * SECOND + i128::from(nanos);
        let moment = |time: Option<prost_types::Timestamp>| time.map(|t| nanos(t.seconds, t.nanos)).unwrap();
        let ticks = proto::CountdownResponse::decode(items).unwrap().ticks;
        let tick = |tick: proto::Tick| Tick {
            remaining: tick.remaining.unwrap(),
            remaining_nanos: tick
                .remaining_duration
                .map(|d| nanos(d.seconds, d.nanos))
                .unwrap()
                .try_into()
                .unwrap(),
            due_nanos: moment(tick.due_time),
            end_nanos: moment(tick.end_time),
            state: Some(tick.state).filter(|state| *state != 0),
            version: tick.version,
        };
        ticks.into_iter().map(tick).collect()
    }

    proptest! {
        #[test]
        fn an_encoder_of_many_ticks_writes_each_as_if_it_were_alone(
            ticks in prop::collection::vec((any::<i32>(), any::<u64>(), moment(), moment(), 0..3_i128), 1..20),
            apart in prop_oneof![Just(1_i128), 1..2_000_000_000_i128],
        ) {
            let (mut encoder, mut together, mut alone) = (TickEncoder::default(), Vec::new(), Vec::new());
            for (remaining, remaining_nanos, due, end_nanos, more) in ticks {
                for k in 0..=more {
                    let due_nanos = (due - k * apart).max(MOMENTS.start);
                    let remaining_nanos = remaining_nanos.saturating_sub(u64::try_from(k * apart).unwrap_or(0));
                    let tick =
                        Tick { remaining, remaining_nanos, due_nanos, end_nanos, state: None, version: None };
                    encoder.put(&mut together, &tick);
                    put(&mut alone, &tick);
                }
            }
            prop_assert_eq!(together, alone);
        }

        #[test]
        fn an_encoded_tick_is_equal_to_that_of_prost(
            remaining in prop_oneof![any::<i32>(), Just(0)],
            remaining_nanos in prop_oneof![any::<u64>(), 0..10_000_000_000_u64, Just(0)],
            due_nanos in moment(),
            end_nanos in moment(),
            state in proptest::option::of(1..100_i32),
            version in proptest::option::of(any::<i64>()),
        ) {
            let mut ours = Vec::new();
            put(&mut ours, &Tick { remaining, remaining_nanos, due_nanos, end_nanos, state, version });
            let left = timestamp(remaining_nanos.into());
            let theirs = proto::CountdownResponse {
                ticks: vec![proto::Tick {
                    remaining: Some(remaining),
                    remaining_duration: Some(prost_types::Duration { seconds: left.seconds, nanos: left.nanos }),
                    due_time: Some(timestamp(due_nanos)),
                    end_time: Some(timestamp(end_nanos)),
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
