//! A countdown as a request describes it, with fields that may be left out: their defaults, and which of them a request
//! may set together.

use std::time::Duration;

use super::{Error, Spec, Target};

/// The most ticks of a batch, unless a request sets it.
pub const MAX_BATCH: usize = 1_000;

/// The bound of the numbers, unless a request sets it.
pub(super) const TO: i32 = 0;

/// The difference between two numbers, unless a request sets it.
pub(super) const STEP: i32 = 1;

/// The time between two ticks, unless a request sets it.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// A countdown as a request describes it. `None` is a field that the request leaves out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// As in [`Spec`], but without a default: one of them must be set, or the name of a shared countdown.
    pub target: Option<Target>,
    /// As in [`Spec`]; by default 0.
    pub to: Option<i32>,
    /// As in [`Spec`]; by default 1.
    pub step: Option<i32>,
    /// As in [`Spec`]; by default a second.
    pub interval: Option<Duration>,
    /// As in [`Spec`].
    pub wait_first: bool,
    /// As in [`Spec`].
    pub align: bool,
}

impl Request {
    /// The countdown that the request asks for.
    ///
    /// # Errors
    /// [`Error::NoTarget`].
    pub fn spec(self) -> Result<Spec, Error> {
        let Self { target, to, step, interval, wait_first, align } = self;
        Ok(Spec {
            target: target.ok_or(Error::NoTarget)?,
            to: to.unwrap_or(TO),
            step: step.unwrap_or(STEP),
            interval: interval.unwrap_or(INTERVAL),
            wait_first,
            align,
        })
    }

    /// Checks that a request for a shared countdown leaves out the fields that the countdown itself defines.
    ///
    /// # Errors
    /// [`Error::SetWithName`].
    pub fn check_with_name(&self) -> Result<(), Error> {
        let fields = [
            ("to", self.to.is_some()),
            ("step", self.step.is_some()),
            ("interval", self.interval.is_some()),
            ("wait_first", self.wait_first),
            ("align", self.align),
        ];
        match fields.into_iter().find(|(_, is_set)| *is_set) {
            Some((field, _)) => Err(Error::SetWithName { field }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_left_out_have_their_defaults() {
        let spec = Request { target: Some(Target::From(3)), ..Request::default() }.spec().unwrap();
        assert_eq!((spec.to, spec.step, spec.interval), (0, 1, Duration::from_secs(1)));
        assert!(!spec.wait_first && !spec.align);
        let interval = Some(Duration::from_millis(5));
        let target = Some(Target::From(3));
        let request =
            Request { target, to: Some(-4), step: Some(2), interval, wait_first: true, align: true };
        let spec = request.spec().unwrap();
        assert_eq!((spec.to, spec.step, Some(spec.interval)), (-4, 2, interval));
        assert!(spec.wait_first && spec.align);
    }

    #[test]
    fn a_request_without_a_target_is_refused() {
        assert_eq!(Request::default().spec().map(drop), Err(Error::NoTarget));
    }

    #[test]
    fn each_field_that_a_shared_countdown_defines_is_refused_with_its_name() {
        assert_eq!(Request::default().check_with_name(), Ok(()));
        for (field, request) in [
            ("to", Request { to: Some(0), ..Request::default() }),
            ("step", Request { step: Some(1), ..Request::default() }),
            ("interval", Request { interval: Some(INTERVAL), ..Request::default() }),
            ("wait_first", Request { wait_first: true, ..Request::default() }),
            ("align", Request { align: true, ..Request::default() }),
        ] {
            assert_eq!(request.check_with_name(), Err(Error::SetWithName { field }));
        }
    }
}
