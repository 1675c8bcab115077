//! Where a countdown's time comes from.

/// A source of time.
#[derive(Clone, Debug)]
pub enum Clock {
    /// tokio's timers: to the next millisecond, and virtual in tests.
    Tokio,
}
