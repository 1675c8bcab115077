//! Saves the state of a stream: after each item, or at most once in a given time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::store::Store;
use crate::client::Error;

/// How often a stream without items saves its cursor.
const IDLE: Duration = Duration::from_secs(1);

/// Decides when to save. The saves themselves run elsewhere.
pub(super) struct Keeper {
    store: Arc<dyn Store>,
    /// The number of the last save that began; locked while it runs. One that comes late is left out.
    last: Arc<Mutex<u64>>,
    saves: u64,
    every: Duration,
    /// When the next save is due, if there is something to save.
    due: Option<Instant>,
    saved: Option<(Instant, String)>,
    /// A save was begun, and has not reported its end.
    is_saving: bool,
}

impl Keeper {
    pub(super) fn new(store: Arc<dyn Store>, every: Duration) -> Self {
        Self { store, last: Arc::default(), saves: 0, every, due: None, saved: None, is_saving: false }
    }

    /// The state has changed: by an item, or only by a response without items.
    pub(super) fn changed(&mut self, by_item: bool) {
        let every = if by_item { self.every } else { self.every.max(IDLE) };
        let due = self.saved.as_ref().map_or_else(Instant::now, |(saved, _)| *saved + every);
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    /// When the next save is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether there is something to save, or a save that may not end.
    pub(super) fn is_unsaved(&self) -> bool {
        self.due.is_some() || self.is_saving
    }

    /// The save that was begun has ended.
    pub(super) fn ended(&mut self) {
        self.is_saving = false;
    }

    /// Makes the save of a state, which blocks; `None` if it was saved before.
    pub(super) fn save(
        &mut self,
        state: String,
    ) -> Option<impl FnOnce() -> Result<(), Error> + Send + use<>> {
        self.due = None;
        if !self.is_saving && self.saved.as_ref().is_some_and(|(_, saved)| *saved == state) {
            return None;
        }
        self.is_saving = true;
        self.saved = Some((Instant::now(), state.clone()));
        self.saves += 1;
        let (store, last, number) = (self.store.clone(), self.last.clone(), self.saves);
        Some(move || {
            // Each change is one assignment, so a panic elsewhere leaves it whole.
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if *last > number {
                return Ok(());
            }
            *last = number;
            store.save(&state).map_err(|error| fault(store.as_ref(), error.as_ref()))
        })
    }
}

/// The state in a store, and the name of the store.
pub(super) fn load(store: &dyn Store) -> Result<(Option<String>, String), Error> {
    let text = store.load().map_err(|error| fault(store, error.as_ref()))?;
    Ok((text, store.name()))
}

fn fault(store: &dyn Store, error: &(dyn std::error::Error + Send + Sync)) -> Error {
    Error::Store { place: store.name(), fault: error.to_string() }
}
