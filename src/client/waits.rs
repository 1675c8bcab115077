//! After which failures a call is made again, how long to wait before, and when to give up.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;
use tonic::Status;

use super::{Error, Notice, Observer, connect::Server};

/// The first wait: long enough for a proxy to restart.
pub(super) const MIN_WAIT: Duration = Duration::from_millis(100);
/// The longest wait, however long the outage: a reader is live again within this time after its server is back.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(2);

/// How long to try.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Limits {
    /// Before the first response.
    pub(super) connect: Duration,
    /// After it, since the last response; `None` for ever.
    pub(super) outage: Option<Duration>,
}

/// Decides after which failures to try again and how long to wait before, and notifies the observer.
pub(super) struct Waits {
    observer: Observer,
    limits: Limits,
    delays: ExponentialBackoff,
    /// The server has answered once.
    answered: bool,
    /// The first failure, or the first attempt, since the last response.
    since: Option<Instant>,
    interrupted: bool,
}

impl Waits {
    pub(super) fn new(observer: Observer, limits: Limits) -> Self {
        Self { observer, limits, delays: delays(), answered: false, since: None, interrupted: false }
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self) {
        if !self.answered {
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// Records that the server accepted a call.
    pub(super) fn answered(&mut self) {
        self.answered = true;
    }

    /// Records that a response arrived: the next failure starts with a short wait again.
    pub(super) fn delivered(&mut self) {
        self.answered();
        self.since = None;
        self.delays = delays();
        if std::mem::take(&mut self.interrupted) {
            (self.observer)(&Notice::Resumed);
        }
    }

    /// The time that is left to get a response, if it is bounded. A limit of zero bounds no attempt: it only allows one.
    pub(super) fn rest(&self) -> Option<Duration> {
        let limit = if self.answered { self.limits.outage? } else { self.limits.connect };
        let spent = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        (!limit.is_zero()).then(|| limit.saturating_sub(spent))
    }

    /// Waits before the next attempt, or returns the error if there should be no other attempt.
    pub(super) async fn wait_out(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_retryable() || !self.answered && self.limits.connect.is_zero() {
            return Err(error);
        }
        self.since.get_or_insert_with(Instant::now);
        let wait = full_jitter(self.delays.next().unwrap_or(MAX_WAIT));
        let wait = wait.max(error.retry_after().unwrap_or_default());
        if self.rest().is_some_and(|rest| wait >= rest) {
            return Err(error);
        }
        self.interrupted = true;
        (self.observer)(&Notice::Interrupted { error: &error, wait });
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(MIN_WAIT)
        .with_max_delay(MAX_WAIT)
        .without_max_times()
        .build()
}

/// A random time from zero to `wait`, so that the readers of a restarted server do not all return at once.
fn full_jitter(wait: Duration) -> Duration {
    wait.mul_f64(fastrand::f64())
}

/// The result of a step of a call, which may take up to `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, Status>>,
    server: &Server,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, step).await {
        Ok(result) => result.map_err(|status| server.error(&status)),
        Err(_) => Err(Error::Silent { waited: limit }),
    }
}
