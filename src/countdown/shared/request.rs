//! A shared countdown as a request to create it describes it.

use std::time::Duration;

use super::{Error, OnEnd, Spec, Target};
use crate::countdown::request::{INTERVAL, STEP, TO};

/// A shared countdown as a request describes it. `None` is a field that the request leaves out.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// As in [`Spec`], but without a default.
    pub target: Option<Target>,
    /// As in [`Spec`]; by default 0.
    pub to: Option<i32>,
    /// As in [`Spec`]; by default 1.
    pub step: Option<i32>,
    /// As in [`Spec`]; by default a second.
    pub interval: Option<Duration>,
    /// As in [`Spec`].
    pub on_end: Option<OnEnd>,
    /// As in [`Spec`].
    pub request_id: Option<String>,
}

impl Request {
    /// The countdown that the request asks for.
    ///
    /// # Errors
    /// [`Error::NoTarget`].
    pub fn spec(self) -> Result<Spec, Error> {
        let Self { target, to, step, interval, on_end, request_id } = self;
        Ok(Spec {
            target: target.ok_or(Error::NoTarget)?,
            to: to.unwrap_or(TO),
            step: step.unwrap_or(STEP),
            interval: interval.unwrap_or(INTERVAL),
            on_end,
            request_id,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_left_out_have_their_defaults_except_the_target() {
        let spec = Request { target: Some(Target::From(3)), ..Request::default() }.spec().unwrap();
        assert_eq!((spec.to, spec.step, spec.interval), (0, 1, Duration::from_secs(1)));
        assert!(matches!(Request::default().spec(), Err(Error::NoTarget)));
    }
}
