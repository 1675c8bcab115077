//! The wall clock of a log: the only place where it is read.

use std::time::SystemTime;
#[cfg(test)]
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What tells the time of messages, and when they are too old.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's.
    #[default]
    System,
    /// One that a test sets.
    #[cfg(test)]
    Manual(Arc<Mutex<SystemTime>>),
}

impl Clock {
    /// Now.
    pub fn now(&self) -> SystemTime {
        match self {
            Self::System => SystemTime::now(),
            #[cfg(test)]
            Self::Manual(time) => *time.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// One that stands still, at the time that it is now.
    #[cfg(test)]
    pub fn manual() -> Self {
        Self::Manual(Arc::new(Mutex::new(SystemTime::now())))
    }

    /// Lets time pass.
    #[cfg(test)]
    pub fn advance(&self, by: Duration) {
        match self {
            Self::System => {}
            Self::Manual(time) => *time.lock().unwrap_or_else(PoisonError::into_inner) += by,
        }
    }
}
