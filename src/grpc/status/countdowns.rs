//! Errors of countdowns.

use super::{ErrorReason, Failure, show, show_both, too_long};
use crate::countdown::Error;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NoTarget => Self::field(
                "target",
                "is not set: set `start` to a number, `until_time` to a moment, or `name` to a shared countdown",
            ),
            Error::SetWithName { field } => {
                Self::field(field, "is set with `name`: it is the shared countdown's own, so leave it out")
            }
            Error::IntervalTooShort { interval, min } => {
                let text = format!("is {interval:?}: it must be {} or more", show(min));
                Self::field("interval", text)
            }
            Error::TooLong { length, max } => Self::field("interval", too_long(length, max)),
            Error::FromBelowTo { from, to } => {
                Self::field("start", format!("is {from}: it must not be below `to`, {to}"))
            }
            Error::StepTooSmall { step } => Self::field("step", format!("is {step}: it must be 1 or more")),
            Error::WaitFirstWithUntil => Self::field("wait_first", FIXED_END),
            Error::AlignWithUntil => Self::field("align", FIXED_END),
            Error::TooManyTicks { limit } => {
                let text = format!(
                    "the countdowns of this server would have more than {limit} ticks a second: try again later, or \
                     with a longer interval",
                );
                Self::new(ErrorReason::TooManyTicks, text).with("limit", limit)
            }
            Error::TooManyNumbers { left, max } => {
                let text = format!(
                    "is so short that {left} numbers are left: at most {max} are allowed, so use a longer one"
                );
                Self::field("interval", text)
            }
            Error::UntilTooFar { ahead, max } => {
                let (ahead, max) = show_both(ahead, max);
                let text =
                    format!("is {ahead} ahead: this server allows at most {max} (10 years by default)");
                Self::field("until_time", text)
            }
            Error::PositionInvalid(fault) => {
                let text = format!("is not valid here: {fault}; leave it out to start a new countdown");
                Self::field("cursor", text).with_reason(ErrorReason::CursorMalformed)
            }
        }
    }
}

/// Why a field cannot be set together with the moment of the last tick.
const FIXED_END: &str =
    "cannot be set together with `until_time`, which fixes the time of the last tick: leave one of them out";
