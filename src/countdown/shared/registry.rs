//! What is known of the shared countdowns of a log, and what is to be done when.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::{Notify, watch};

use super::{Error, HEADER_PREFIX, MAX_HEADERS, MAX_REQUEST_ID_BYTES, Phase, Record, Snapshot, Spec};
use crate::{
    countdown::{Clock, Config, schedule},
    messages::{self, Log},
};

/// What is known, from the log.
#[derive(Debug)]
pub(super) struct Registry {
    pub log: Log,
    pub clock: Clock,
    pub config: Config,
    by_name: RwLock<BTreeMap<Arc<str>, watch::Sender<Arc<Snapshot>>>>,
    /// Changes of the log up to this sequence are known.
    read: watch::Sender<u64>,
    /// The names of those that are being created, with how many requests do that.
    creating: Mutex<BTreeMap<String, usize>>,
    /// By the moment and the version.
    moments: Mutex<BTreeMap<(i128, u64), Arc<Snapshot>>>,
    /// The first of the moments is another one.
    moved: Notify,
}

impl Registry {
    pub fn new(log: Log, clock: Clock, config: Config) -> Self {
        Self {
            log,
            clock,
            config,
            by_name: RwLock::default(),
            read: watch::Sender::new(0),
            creating: Mutex::default(),
            moments: Mutex::default(),
            moved: Notify::new(),
        }
    }

    fn by_name(&self) -> RwLockReadGuard<'_, BTreeMap<Arc<str>, watch::Sender<Arc<Snapshot>>>> {
        // Every change is one call.
        self.by_name.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn by_name_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<Arc<str>, watch::Sender<Arc<Snapshot>>>> {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn moments(&self) -> MutexGuard<'_, BTreeMap<(i128, u64), Arc<Snapshot>>> {
        // Every change is one call.
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn find(&self, name: &str) -> Option<Arc<Snapshot>> {
        self.by_name().get(name).map(|changes| changes.borrow().clone())
    }

    /// Checks what no record shows to be wrong.
    pub fn check(&self, spec: &Spec) -> Result<(), Error> {
        let id_bytes = spec.request_id.as_ref().map(String::len);
        if let Some(bytes) = id_bytes.filter(|bytes| !(1..=MAX_REQUEST_ID_BYTES).contains(bytes)) {
            return Err(Error::RequestIdLength { bytes });
        }
        let Some(on_end) = &spec.on_end else { return Ok(()) };
        if on_end.headers.len() > MAX_HEADERS {
            return Err(Error::OnEnd(messages::Error::TooManyHeaders { count: on_end.headers.len() }));
        }
        if let Some((name, _)) = on_end.headers.iter().find(|(name, _)| name.starts_with(HEADER_PREFIX)) {
            return Err(Error::HeaderReserved { name: name.clone() });
        }
        self.log.check(&on_end.message()).map_err(Error::OnEnd)
    }

    fn creating(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        // Every change is one call.
        self.creating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one that is about to be created, until what is returned is dropped: it is known by then.
    pub fn place(&self, name: &str) -> Result<Place<'_>, Error> {
        let limit = self.config.max_countdowns;
        let mut creating = self.creating();
        if !creating.contains_key(name) {
            let by_name = self.by_name();
            let are_new = creating.keys().filter(|name| !by_name.contains_key(name.as_str()));
            if !by_name.contains_key(name) && by_name.len() + are_new.count() >= limit {
                return Err(Error::TooMany { limit });
            }
        }
        *creating.entry(name.to_owned()).or_default() += 1;
        Ok(Place { registry: self, name: name.to_owned() })
    }

    /// The countdowns behind a name, at most so many.
    pub fn behind(&self, after: Option<&str>, at_most: usize) -> Vec<Arc<Snapshot>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let by_name = self.by_name();
        let behind = by_name.range::<str, _>((from, Bound::Unbounded));
        behind.take(at_most).map(|(_, changes)| changes.borrow().clone()).collect()
    }

    /// How a countdown stands, now and from now on.
    pub fn changes(&self, name: &str) -> Option<watch::Receiver<Arc<Snapshot>>> {
        self.by_name().get(name).map(watch::Sender::subscribe)
    }

    /// Waits until the first of the moments is another one.
    pub async fn moments_moved(&self) {
        self.moved.notified().await;
    }

    /// Waits until the change of this sequence is known.
    pub async fn reached(&self, sequence: u64) -> Result<(), Error> {
        let mut read = self.read.subscribe();
        read.wait_for(|read| *read >= sequence).await.map(drop).map_err(|_| messages::Error::Closed.into())
    }

    /// Takes note of a change, unless it is known.
    pub fn apply(&self, name: &str, version: u64, record: Record, forgotten: Option<i128>) {
        let mut by_name = self.by_name_mut();
        let known = by_name.get(name).map(|changes| changes.borrow().clone());
        if known.as_ref().is_some_and(|known| known.version >= version) {
            return;
        }
        let is_deleted = matches!(record.phase, Phase::Deleted);
        let name = known.as_ref().map_or_else(|| name.into(), |known| known.name.clone());
        let snapshot = Arc::new(Snapshot::new(name.clone(), version, record, forgotten));
        let changes = if is_deleted { by_name.remove(&name) } else { by_name.get(&name).cloned() };
        match changes {
            // Under the lock: changes of one are told in their order.
            Some(changes) => _ = changes.send_replace(snapshot.clone()),
            None if is_deleted => {}
            None => _ = by_name.insert(name, watch::Sender::new(snapshot.clone())),
        }
        drop(by_name);
        if let Some(known) = known {
            self.unschedule(&known);
        }
        if !is_deleted && let Some(moment) = snapshot.moment() {
            self.schedule(moment, snapshot);
        }
    }

    /// All up to this sequence of the log is known.
    pub fn has_read(&self, sequence: u64) {
        self.read.send_if_modified(|read| {
            let is_behind = *read < sequence;
            *read = sequence.max(*read);
            is_behind
        });
    }

    pub fn schedule(&self, moment: i128, snapshot: Arc<Snapshot>) {
        let mut moments = self.moments();
        moments.insert((moment, snapshot.version), snapshot);
        let is_first = moments.first_key_value().is_some_and(|(key, _)| key.0 == moment);
        drop(moments);
        if is_first {
            self.moved.notify_one();
        }
    }

    fn unschedule(&self, snapshot: &Snapshot) {
        if let Some(moment) = snapshot.moment() {
            self.moments().remove(&(moment, snapshot.version));
        }
    }

    /// Takes out what is due, at most so many of it; what is over for long is forgotten.
    pub fn take_due(&self, at_most: usize) -> Vec<Arc<Snapshot>> {
        let now = schedule::nanos(self.clock.wall());
        let mut due = Vec::new();
        while due.len() < at_most {
            let mut moments = self.moments();
            let Some(first) = moments.first_entry().filter(|first| first.key().0 <= now) else { break };
            let snapshot = first.remove();
            drop(moments);
            if snapshot.record.is_over() { self.forget(&snapshot) } else { due.push(snapshot) }
        }
        due
    }

    pub fn next_moment(&self) -> Option<i128> {
        self.moments().first_key_value().map(|(key, _)| key.0)
    }

    /// Nothing was done to it since.
    pub fn is_current(&self, snapshot: &Snapshot) -> bool {
        self.find(&snapshot.name).is_some_and(|current| current.version == snapshot.version)
    }

    /// Forgets a countdown that the log has forgotten.
    pub fn forget(&self, snapshot: &Snapshot) {
        let mut by_name = self.by_name_mut();
        let is_current =
            |changes: &watch::Sender<Arc<Snapshot>>| changes.borrow().version == snapshot.version;
        if by_name.get(&snapshot.name).is_some_and(is_current) {
            by_name.remove(&snapshot.name);
        }
    }
}

/// The place of one that is being created.
pub(super) struct Place<'a> {
    registry: &'a Registry,
    name: String,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut creating = self.registry.creating();
        if let Some(requests) = creating.get_mut(&self.name) {
            *requests -= 1;
            if *requests == 0 {
                creating.remove(&self.name);
            }
        }
    }
}
