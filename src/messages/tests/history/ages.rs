//! The ages of messages as they really are, whatever the clock of the machine shows, and what may be gone because of them.

use std::time::Duration;

/// A difference of ages that is not judged: smaller steps of a clock are not noticed.
const SLACK: Duration = Duration::from_secs(1);

/// Messages of the topic "old" are removed when they are older.
pub const MAX_AGE: Duration = Duration::from_secs(3600);

/// Message ids are known for this long.
pub const WINDOW: Duration = Duration::from_secs(3600);

/// How long the messages of a topic are kept.
pub fn max_age(topic: &str) -> Option<Duration> {
    (topic == "old").then_some(MAX_AGE)
}

/// A moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// The time since the history began.
    pub elapsed: Duration,
    /// The number of the boot of the machine.
    pub boot: u64,
    /// The machine has started with a clock that was ahead, and that was not set right since: messages of earlier boots may
    /// look expired.
    pub is_ahead: bool,
}

/// The known facts about the time of a history.
#[derive(Debug, Default)]
pub struct Ages {
    /// `None` if the history has no times.
    now: Option<Now>,
    /// Messages that were published before this moment may look older than they are.
    doubted_before: Duration,
}

/// When a message was published; `None` if the history has no times.
pub type Since = Option<Now>;

impl Ages {
    pub fn set(&mut self, now: Now) {
        self.now = Some(now);
    }

    /// From now on, the messages so far may look older than they are.
    pub fn doubt(&mut self) {
        self.doubted_before = self.now.unwrap_or_default().elapsed;
    }

    pub fn now(&self) -> Since {
        self.now
    }

    fn age(&self, since: Since) -> Option<(Now, Now, Duration)> {
        let (now, since) = (self.now?, since?);
        Some((now, since, now.elapsed.saturating_sub(since.elapsed)))
    }

    /// Whether a message that lives for some time may have ended.
    pub fn may_be_over(&self, since: Since, lives: Option<Duration>) -> bool {
        let (Some(lives), Some((_, since, age))) = (lives, self.age(since)) else { return lives.is_some() };
        age + SLACK >= lives || since.elapsed <= self.doubted_before
    }

    /// Whether a message of an earlier boot may look expired now.
    pub fn may_be_hidden(&self, since: Since) -> bool {
        self.age(since).is_some_and(|(now, since, _)| now.is_ahead && since.boot < now.boot)
    }

    /// Whether an expired message may be there again: the ages of messages of earlier boots fall with the clock.
    pub fn may_come_back(&self, since: Since) -> bool {
        let is_doubted = |since: Now| since.elapsed <= self.doubted_before;
        self.age(since).is_some_and(|(now, since, _)| since.boot < now.boot || is_doubted(since))
    }

    /// Whether a message that lives for some time has ended for certain: in the boot of its publication, ages are exact.
    pub fn is_over(&self, since: Since, lives: Option<Duration>) -> bool {
        let (Some(lives), Some((now, since, age))) = (lives, self.age(since)) else { return false };
        now.boot == since.boot && since.elapsed > self.doubted_before && age > lives + SLACK
    }

    /// Whether the id of a message must be known.
    pub fn knows_id(&self, since: Since) -> bool {
        let is_known = |(now, since, age): (Now, Now, Duration)| {
            age + SLACK < WINDOW && now.boot <= since.boot + 1 && since.elapsed > self.doubted_before
        };
        self.age(since).is_none_or(is_known)
    }

    /// Whether the id of a message must not be known any more.
    pub fn forgets_id(&self, since: Since) -> bool {
        self.is_over(since, Some(WINDOW))
    }
}
