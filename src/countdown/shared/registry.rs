//! The shared countdowns of a log, in memory: their states by name, and the moments when the server must act on one.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::{Notify, watch};

use super::{
    Error, HEADER_PREFIX, MAX_HEADERS, MAX_REQUEST_ID_BYTES, OnEnd, PREFIX, Phase, Position, Record,
    Snapshot, Spec,
};
use crate::{
    countdown::{Batch, Clock, Config, Moment},
    messages::{self, LastText, Log},
};

/// The states that the log holds, as far as it has been read.
#[derive(Debug)]
pub(super) struct Registry {
    pub log: Log,
    pub clock: Clock,
    pub config: Config,
    by_name: RwLock<BTreeMap<Arc<str>, watch::Sender<Arc<Snapshot>>>>,
    /// The log has been read up to this sequence.
    read_up_to: watch::Sender<u64>,
    /// The names that requests are creating, each with the number of those requests.
    creating: Mutex<BTreeMap<String, usize>>,
    /// When to act on a countdown, by the moment and the version.
    moments: Mutex<BTreeMap<(Moment, u64), Arc<Snapshot>>>,
    /// Notified when a moment becomes the first one.
    first_moment_changed: Notify,
}

impl Registry {
    pub fn new(log: Log, clock: Clock, config: Config) -> Self {
        Self {
            log,
            clock,
            config,
            by_name: RwLock::default(),
            read_up_to: watch::Sender::new(0),
            creating: Mutex::default(),
            moments: Mutex::default(),
            first_moment_changed: Notify::new(),
        }
    }

    fn by_name(&self) -> RwLockReadGuard<'_, BTreeMap<Arc<str>, watch::Sender<Arc<Snapshot>>>> {
        // A panic leaves the map consistent: every change of it is one call. The same holds for the locks below.
        self.by_name.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn by_name_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<Arc<str>, watch::Sender<Arc<Snapshot>>>> {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn moments(&self) -> MutexGuard<'_, BTreeMap<(Moment, u64), Arc<Snapshot>>> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count(&self) -> usize {
        self.by_name().len()
    }

    pub fn find(&self, name: &str) -> Option<Arc<Snapshot>> {
        self.by_name().get(name).map(|changes| changes.borrow().clone())
    }

    /// A snapshot with its end message, which is read from the log if it is not in memory.
    ///
    /// Fails with [`Error::NotFound`] if the countdown was deleted or its last message has expired meanwhile.
    pub async fn complete(&self, snapshot: Arc<Snapshot>) -> Result<Arc<Snapshot>, Error> {
        if snapshot.end_bytes_in_log.is_none() {
            return Ok(snapshot);
        }
        let on_end = Some(self.read_end(&snapshot).await?);
        let record = Record { on_end, ..snapshot.record.clone() };
        Ok(Snapshot::complete(snapshot.name.clone(), snapshot.version, record).into())
    }

    /// A batch whose snapshot, if it has one, is complete.
    pub async fn completed(&self, mut batch: Batch<Position>) -> Result<Batch<Position>, Error> {
        if let Some(snapshot) = batch.progress.snapshot.take() {
            batch.progress.snapshot = Some(self.complete(snapshot).await?);
        }
        Ok(batch)
    }

    /// Reads the end message of a countdown. All its records have the same one, so a later record does as well.
    async fn read_end(&self, snapshot: &Snapshot) -> Result<OnEnd, Error> {
        let last = self.log.last_text(&format!("{PREFIX}{}", snapshot.name)).await?;
        let Some(LastText { text, .. }) = last else { return Err(Error::NotFound) };
        let Some(stored) = text.and_then(|text| Record::from_json(&text)) else {
            let fault = format!("the record of the countdown {} is damaged", snapshot.name);
            let fault = io::Error::new(io::ErrorKind::InvalidData, fault);
            return Err(messages::Error::from(fault).into());
        };
        let on_end = stored.on_end.filter(|_| stored.id == snapshot.record.id);
        // Another countdown has the name, or none.
        on_end.ok_or(Error::NotFound)
    }

    /// Checks the parts of a request that [`Record::create`] does not check.
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
        self.creating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves room for a countdown that a request is about to create, until the reservation is dropped. By then the
    /// countdown has been read from the log, or could not be created.
    pub fn reserve(&self, name: &str) -> Result<Reservation<'_>, Error> {
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
        Ok(Reservation { registry: self, name: name.to_owned() })
    }

    /// Up to `at_most` countdowns after a name that `shows` names, sorted by name.
    pub fn list_after(
        &self,
        after: Option<&str>,
        at_most: usize,
        shows: impl Fn(&str) -> bool,
    ) -> Vec<Arc<Snapshot>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let by_name = self.by_name();
        let later = by_name.range::<str, _>((from, Bound::Unbounded));
        later
            .filter(|(name, _)| shows(name))
            .take(at_most)
            .map(|(_, changes)| changes.borrow().clone())
            .collect()
    }

    /// The current state of a countdown, and its changes from now on.
    pub fn changes(&self, name: &str) -> Option<watch::Receiver<Arc<Snapshot>>> {
        self.by_name().get(name).map(watch::Sender::subscribe)
    }

    /// Waits until another moment is the first one.
    pub async fn first_moment_changed(&self) {
        self.first_moment_changed.notified().await;
    }

    /// Waits until the log has been read up to this sequence.
    pub async fn reached(&self, sequence: u64) -> Result<(), Error> {
        let mut read = self.read_up_to.subscribe();
        read.wait_for(|read| *read >= sequence).await.map(drop).map_err(|_| messages::Error::Closed.into())
    }

    /// Records a change that was read from the log, unless it or a later one is already known.
    pub fn apply(&self, name: &str, version: u64, record: Record, expires: Option<Moment>) {
        let mut by_name = self.by_name_mut();
        let known = by_name.get(name).map(|changes| changes.borrow().clone());
        if known.as_ref().is_some_and(|known| known.version >= version) {
            return;
        }
        let is_deleted = matches!(record.phase, Phase::Deleted);
        let name = known.as_ref().map_or_else(|| name.into(), |known| known.name.clone());
        let snapshot = Arc::new(Snapshot::new(name.clone(), version, record, expires));
        let changes = if is_deleted { by_name.remove(&name) } else { by_name.get(&name).cloned() };
        match changes {
            // Send it under the lock, so that watchers see the changes of a countdown in order.
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

    /// Records that the log has been read up to this sequence.
    pub fn advance(&self, sequence: u64) {
        self.read_up_to.send_if_modified(|read| {
            let is_later = *read < sequence;
            *read = sequence.max(*read);
            is_later
        });
    }

    pub fn schedule(&self, moment: Moment, snapshot: Arc<Snapshot>) {
        let mut moments = self.moments();
        moments.insert((moment, snapshot.version), snapshot);
        let is_first = moments.first_key_value().is_some_and(|(key, _)| key.0 == moment);
        drop(moments);
        if is_first {
            self.first_moment_changed.notify_one();
        }
    }

    /// Schedules every countdown: the task that took those that are due has ended before it was done with them.
    pub fn schedule_all(&self) {
        let all = self.by_name().values().map(|changes| changes.borrow().clone()).collect::<Vec<_>>();
        for snapshot in all {
            if let Some(moment) = snapshot.moment() {
                self.schedule(moment, snapshot);
            }
        }
    }

    fn unschedule(&self, snapshot: &Snapshot) {
        if let Some(moment) = snapshot.moment() {
            self.moments().remove(&(moment, snapshot.version));
        }
    }

    /// Takes out up to `at_most` countdowns that are due to end, and removes those whose last message has expired.
    pub fn take_due(&self, at_most: usize) -> Vec<Arc<Snapshot>> {
        let now = self.clock.wall().into();
        let mut due = Vec::new();
        while due.len() < at_most {
            let mut moments = self.moments();
            let Some(first) = moments.first_entry().filter(|first| first.key().0 <= now) else { break };
            let snapshot = first.remove();
            drop(moments);
            if snapshot.record.is_over() { self.remove(&snapshot) } else { due.push(snapshot) }
        }
        due
    }

    pub fn next_moment(&self) -> Option<Moment> {
        self.moments().first_key_value().map(|(key, _)| key.0)
    }

    /// Whether the countdown was not changed after this snapshot.
    pub fn is_current(&self, snapshot: &Snapshot) -> bool {
        self.find(&snapshot.name).is_some_and(|current| current.version == snapshot.version)
    }

    /// Removes a countdown whose last message has expired in the log, unless it was changed meanwhile.
    pub fn remove(&self, snapshot: &Snapshot) {
        let mut by_name = self.by_name_mut();
        let is_current =
            |changes: &watch::Sender<Arc<Snapshot>>| changes.borrow().version == snapshot.version;
        if by_name.get(&snapshot.name).is_some_and(is_current) {
            by_name.remove(&snapshot.name);
        }
    }
}

/// Room for a countdown that a request is creating: it counts towards the limit, once for each name.
pub(super) struct Reservation<'a> {
    registry: &'a Registry,
    name: String,
}

impl Drop for Reservation<'_> {
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
