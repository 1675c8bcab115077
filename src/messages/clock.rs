//! The wall clock of a log. Nothing else in the log reads it.

use std::time::SystemTime;
#[cfg(test)]
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The source of the time of messages, and of the time that their age is measured against.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's clock.
    #[default]
    System,
    /// A clock that a test sets.
    #[cfg(test)]
    Manual(Arc<Mutex<SystemTime>>),
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> SystemTime {
        match self {
            Self::System => SystemTime::now(),
            #[cfg(test)]
            Self::Manual(time) => *time.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// A clock that does not move by itself, set to the time now.
    #[cfg(test)]
    pub fn manual() -> Self {
        Self::Manual(Arc::new(Mutex::new(SystemTime::now())))
    }

    /// Moves a manual clock forward.
    #[cfg(test)]
    pub fn advance(&self, by: Duration) {
        match self {
            Self::System => {}
            Self::Manual(time) => *time.lock().unwrap_or_else(PoisonError::into_inner) += by,
        }
    }
}
