//! What the log knows of the wall clock, as it is on disk: its steps, and the boot of the newest messages.
//!
//! ```text
//! known boot: 0 or 2 | boot id, 24 bytes | its number | its first sequence | wall clock minus boot clock, zigzag | asleep
//! number of steps | for each: boot | up to | since | shift, zigzag | doubtful shift, zigzag | cap
//! ```
//!
//! All numbers are varints. The bytes are a field of a file with a checksum, so nothing here detects damage but a wrong
//! length.

use bytes::{Buf, BufMut};

use crate::{
    messages::clock::BootId,
    wire::{put_varint, take_varint},
};

/// The number of steps that are kept. A step whose messages are all removed is dropped first.
pub const MAX_STEPS: usize = 1_000;

/// A change of the wall clock, and what it means for the publish times of the messages before it. In nanoseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// The number of the boot of the machine in which it was measured: steps of the same boot have the same number.
    pub boot: u64,
    /// The highest sequence that was given before the step.
    pub up_to: u64,
    /// Messages from this sequence on were published in the same boot of the machine, so the step is exact for them.
    pub since: u64,
    /// How far the clock was moved: above 0 for forward.
    pub shift: i64,
    /// The shift for messages before `since`. It is in doubt whether their publish times had the same error.
    pub doubtful_shift: i64,
    /// Messages before `since` count as published at this time at the latest; 0 for no limit.
    pub cap: u64,
}

/// The boot of the machine in which the log was open last, with messages in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Boot {
    /// The boot.
    pub id: BootId,
    /// Its number: higher than those of earlier boots.
    pub number: u64,
    /// Messages from this sequence on are published in it.
    pub since: u64,
    /// The wall clock minus the boot clock after the last step, in nanoseconds.
    pub offset: i64,
    /// How long the machine had been suspended in it, in nanoseconds; the highest number if that is unknown.
    pub asleep: u64,
}

/// Everything that the log keeps of the wall clock.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClockHistory {
    /// `None` if there was no message, or if the system does not identify its boots.
    pub boot: Option<Boot>,
    /// The steps, oldest first.
    pub steps: Vec<Step>,
}

impl ClockHistory {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// The history in the manifest; that of a log without one is empty. `None` if it is not in this form.
    pub fn read(mut bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        Self::take(&mut bytes).filter(|_| bytes.is_empty())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(if self.boot.is_some() { 2 } else { 0 });
        if let Some(Boot { id, number, since, offset, asleep }) = self.boot {
            out.put_slice(&id.0);
            put_varint(out, number);
            put_varint(out, since);
            put_varint(out, zigzag(offset));
            put_varint(out, asleep);
        }
        put_varint(out, self.steps.len() as u64);
        for Step { boot, up_to, since, shift, doubtful_shift, cap } in &self.steps {
            for number in [*boot, *up_to, *since, zigzag(*shift), zigzag(*doubtful_shift), *cap] {
                put_varint(out, number);
            }
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let boot = match bytes.try_get_u8().ok()? {
            0 => None,
            // With 1, the last number is missing.
            known @ 1..=2 => {
                let mut id = BootId([0; 24]);
                bytes.try_copy_to_slice(&mut id.0).ok()?;
                let (number, since) = (take_varint(bytes)?, take_varint(bytes)?);
                let offset = unzigzag(take_varint(bytes)?);
                let asleep = if known == 1 { u64::MAX } else { take_varint(bytes)? };
                Some(Boot { id, number, since, offset, asleep })
            }
            _ => return None,
        };
        let count = usize::try_from(take_varint(bytes)?).ok().filter(|count| *count <= MAX_STEPS)?;
        let mut steps = Vec::with_capacity(count);
        for _ in 0..count {
            steps.push(Step {
                boot: take_varint(bytes)?,
                up_to: take_varint(bytes)?,
                since: take_varint(bytes)?,
                shift: unzigzag(take_varint(bytes)?),
                doubtful_shift: unzigzag(take_varint(bytes)?),
                cap: take_varint(bytes)?,
            });
        }
        Some(Self { boot, steps })
    }

    /// The number of the boot `now`, if it is known.
    pub fn current(&self, now: Option<BootId>) -> Option<u64> {
        self.boot.filter(|boot| Some(boot.id) == now).map(|boot| boot.number)
    }

    /// A number for a boot that has none.
    pub fn next_number(&self) -> u64 {
        let known =
            self.boot.map(|boot| boot.number).into_iter().chain(self.steps.last().map(|step| step.boot));
        known.max().map_or(0, |newest| newest.saturating_add(1))
    }

    /// Adds a step. Drops those that concern no message with the sequence `oldest` or a higher one; if there are still too
    /// many, joins the two oldest so that no message gets an older publish time.
    pub fn add(&mut self, step: Step, oldest: u64) {
        self.steps.retain(|step| step.up_to >= oldest);
        self.steps.push(step);
        while let [first, second, ..] = self.steps.as_slice()
            && self.steps.len() > MAX_STEPS
        {
            let joined = first.join(second);
            self.steps.splice(..2, [joined]);
        }
    }
}

impl Step {
    /// One step for two: each message counts as published when the two say, or later.
    fn join(&self, next: &Self) -> Self {
        let sum = |first: i64, second: i64| first.max(0).saturating_add(second);
        // Messages of the second boot did not see the first step; those before it are in doubt for both.
        Self {
            boot: next.boot,
            up_to: next.up_to,
            since: next.since,
            shift: sum(self.shift.max(self.doubtful_shift), next.shift),
            doubtful_shift: sum(self.shift.max(self.doubtful_shift), next.doubtful_shift),
            cap: 0,
        }
    }
}

fn zigzag(number: i64) -> u64 {
    (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step() -> impl Strategy<Value = Step> {
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<i64>(), any::<i64>(), any::<u64>());
        numbers.prop_map(|(boot, up_to, since, shift, doubtful_shift, cap)| Step {
            boot,
            up_to,
            since,
            shift,
            doubtful_shift,
            cap,
        })
    }

    proptest! {
        #[test]
        fn a_history_is_read_as_it_was_written(
            steps in proptest::collection::vec(step(), 0..20),
            boot in proptest::option::of((any::<[u8; 24]>(), any::<[u64; 3]>(), any::<i64>())),
            rest in any::<[u8; 3]>(),
        ) {
            let boot = boot.map(|(id, [number, since, asleep], offset)| Boot {
                id: BootId(id),
                number,
                since,
                offset,
                asleep,
            });
            let history = ClockHistory { boot, steps };
            let mut bytes = Vec::new();
            history.put(&mut bytes);
            for length in 0..bytes.len() {
                prop_assert_eq!(ClockHistory::take(&mut bytes.get(..length).unwrap()), None);
            }
            bytes.extend(rest);
            let mut left = bytes.as_slice();
            prop_assert_eq!(ClockHistory::take(&mut left), Some(history));
            prop_assert_eq!(left, rest);
        }
    }

    #[test]
    fn steps_without_messages_are_dropped_and_the_number_of_the_others_is_bounded() {
        let step = |up_to| Step { boot: 1, up_to, since: 1, shift: 1, doubtful_shift: 1, cap: 0 };
        let mut history = ClockHistory::default();
        (1..=5).for_each(|up_to| history.add(step(up_to), 1));
        history.add(step(6), 4);
        assert_eq!(history.steps.iter().map(|step| step.up_to).collect::<Vec<_>>(), [4, 5, 6]);
        (7..3000).for_each(|up_to| history.add(step(up_to), 4));
        assert_eq!(history.steps.len(), MAX_STEPS);
        assert_eq!(history.steps.iter().map(|step| step.shift).sum::<i64>(), 2996);
    }
}
