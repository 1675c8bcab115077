//! The only wrapper of a call: quota, deadline, end on shutdown, eviction of a stalled reader, metrics, and one log line
//! when a stream ends.
//!
//! A stream ends once and is counted once, in one of these ways: its generator ends or fails; its deadline passes; the
//! server drains; its reader stalls; or its client goes away and the stream is dropped. The transport does not poll a
//! stream whose reader has no room, so one task inspects all streams from time to time. It takes the generator and all
//! that it holds out of a stalled stream. What remains reports the reason if the client reads again.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Request, Response, Status};

use self::permit::{Permits, Permitted};
use self::stall::{Evictable, Inspections, StallWatch, Unsent, Watched};
use super::{
    access::Asks,
    codec::Encoded,
    metrics::{Metrics, Sent},
    status::{self, Failure},
};
use crate::{
    access::{Access, Rights},
    blocking::Owner,
    reason::code_name,
    stream::{Batching, WakeGroup},
    supervised,
};

mod admission;
pub(super) mod audit;
mod backlog;
mod guard;
mod log_limit;
mod peer;
mod permit;
mod responses;
pub(super) mod stall;

pub use admission::{Admission, Buffers, Connection, Part, timeout};
pub use audit::{AllowedTopics, RefusedMessages};
pub use backlog::{Backlog, Held, Kept};
pub use log_limit::{ConnectionLog, LogLimit};
pub use peer::Peer;
pub use permit::{Ends, Permit};
pub use responses::Responses;

/// The default of [`Config::max_streams`]: about 1 GiB of idle streams.
const MAX_STREAMS: usize = 100_000;

/// The default of [`Config::stall`]: long enough for a laptop that sleeps between two meetings.
const STALL: Duration = Duration::from_secs(300);

/// The default of [`Config::max_buffered`]: a small part of the memory of a server.
const MAX_BUFFERED: usize = 256 * 1024 * 1024;

/// The default of [`Config::max_buffered_per_connection`]: several of the largest requests at once.
const MAX_BUFFERED_PER_CONNECTION: usize = 32 * 1024 * 1024;

/// The default of [`Config::max_unsent`]: a batch of the usual size for each of 16,000 readers that take nothing.
const MAX_UNSENT: usize = 1024 * 1024 * 1024;

/// The log repeats up to this many characters of a request.
const MAX_SUBJECT: usize = 200;

/// The operator's limits on calls.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Up to this many calls are open at once.
    pub max_streams: usize,
    /// A call ends when its client takes nothing for this long while a response waits, or sends nothing for this long
    /// while its request is not complete.
    pub stall: Duration,
    /// The server holds up to this many bytes of requests that are not complete and of answers that wait.
    pub max_buffered: usize,
    /// The server holds up to this many of these bytes for one connection.
    pub max_buffered_per_connection: usize,
    /// The server holds up to this many bytes of responses that readers do not take. Above it, the streams and the
    /// connections end that have waited longest.
    pub max_unsent: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_streams: MAX_STREAMS,
            stall: STALL,
            max_buffered: MAX_BUFFERED,
            max_buffered_per_connection: MAX_BUFFERED_PER_CONNECTION,
            max_unsent: MAX_UNSENT,
        }
    }
}

/// What all calls of a server share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: RwLock<Config>,
    /// `None`: every caller may do everything.
    access: Option<Arc<Access>>,
    shutdown: CancellationToken,
    metrics: Metrics,
    /// The number of open calls.
    open: AtomicUsize,
    /// The bytes of requests that are not complete and of answers that wait.
    buffered: AtomicUsize,
    unsent: Arc<Unsent>,
    log_limit: Arc<LogLimit>,
    /// The limit on lines about callers who were refused.
    audit_limit: Arc<LogLimit>,
    next_id: AtomicU64,
    streams: Mutex<HashMap<u64, Watched>>,
    permits: Permits,
    /// Of the open connections.
    backlogs: Mutex<HashMap<u64, Weak<Backlog>>>,
    inspections: Arc<Inspections>,
    /// The number of streams that have ended.
    ended: AtomicU64,
}

impl Inner {
    fn config(&self) -> Config {
        *self.config.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<u64, Watched>> {
        // Every change of the map is one call, so a panic elsewhere cannot leave it half changed.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn backlogs(&self) -> MutexGuard<'_, HashMap<u64, Weak<Backlog>>> {
        // As above.
        self.backlogs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// Call this on the runtime that serves the calls: it starts the task that evicts stalled streams, which runs
    /// until `shutdown`.
    pub fn new(config: Config, shutdown: CancellationToken, registry: &mut Registry) -> Self {
        Self::guarded(config, None, shutdown, registry)
    }

    /// The same, where `access` says who may do what.
    pub fn guarded(
        config: Config,
        access: Option<Arc<Access>>,
        shutdown: CancellationToken,
        registry: &mut Registry,
    ) -> Self {
        let inner = Arc::new(Inner {
            unsent: Arc::new(Unsent::new(config.max_unsent, registry)),
            config: RwLock::new(config),
            access,
            shutdown,
            metrics: Metrics::new(registry),
            open: AtomicUsize::new(0),
            buffered: AtomicUsize::new(0),
            log_limit: Arc::new(LogLimit::of_the_server()),
            audit_limit: Arc::new(LogLimit::of_the_server()),
            next_id: AtomicU64::new(0),
            streams: Mutex::default(),
            permits: Permits::default(),
            backlogs: Mutex::default(),
            inspections: Arc::default(),
            ended: AtomicU64::new(0),
        });
        // Without one of these, stalled or revoked streams would never end.
        let weak = Arc::downgrade(&inner);
        supervised::spawn("sweep", move |_| stall::sweep(weak.clone()));
        if let Some(access) = inner.access.clone() {
            let weak = Arc::downgrade(&inner);
            supervised::spawn("permits", move |is_again| {
                permit::watch(weak.clone(), access.clone(), is_again)
            });
        }
        let weak = Arc::downgrade(&inner);
        supervised::spawn("connections", move |_| stall::watch_connections(weak.clone()));
        Self(inner)
    }

    /// Begins a streaming call. `subject` is what the log names it by.
    pub fn begin<T: Asks>(
        &self,
        method: &'static str,
        request: &Request<T>,
        subject: impl std::fmt::Display,
    ) -> Result<Call, Status> {
        let Inner { metrics, shutdown, .. } = &*self.0;
        metrics.opened(method);
        let admitted = self.admission(request, false);
        let admitted = admitted.and_then(|admission| Ok((admission, self.decide(method, request)?)));
        let subject = subject.to_string().chars().take(MAX_SUBJECT).collect::<String>();
        let connection = request.extensions().get::<Connection>();
        let peer = connection.map(|connection| connection.peer);
        let log = connection.map(|connection| connection.log.clone());
        let owner = connection.map_or(0, |connection| connection.number);
        let wake_group = connection.and_then(|connection| connection.wake_group);
        let ends = connection.map_or(shutdown, |connection| &connection.ends).clone();
        let permitted = admitted.and_then(|(admission, allowed)| {
            let rights = allowed.as_ref().map(|allowed| allowed.caller.rights().clone());
            Ok((admission, rights.unwrap_or_else(|| Rights::all().into()), self.permit(allowed, &ends)?))
        });
        let (admitted, rights, permitted, ends) = match permitted {
            Ok((admission, rights, Some((permitted, ends)))) => {
                (Ok(admission), rights, Some(permitted), ends)
            }
            Ok((admission, rights, None)) => (Ok(admission), rights, None, Ends::with_connection(ends)),
            Err(refusal) => (Err(refusal), Arc::default(), None, Ends::with_connection(ends)),
        };
        let (calls, sent) = (self.clone(), metrics.sent(method));
        let (items, bytes, ending, started) = (0, 0, None, Instant::now());
        let mut call = Call {
            calls,
            rights,
            method,
            subject,
            peer,
            log,
            owner,
            wake_group,
            started,
            admission: None,
            ends,
            permitted,
            sent,
            items,
            bytes,
            ending,
        };
        match admitted {
            Err(refusal) => return Err(call.end(refusal)),
            Ok(admission) => {
                call.started = admission.started;
                call.admission = Some(admission);
            }
        }
        if call.ends.are_now() {
            let failure = call.ends.failure();
            return Err(call.end(failure));
        }
        Ok(call)
    }

    /// Answers a unary call. A call whose deadline has passed ends with `DEADLINE_EXCEEDED`, before its answer begins or
    /// while it runs.
    pub async fn unary<Q: Asks, A>(
        &self,
        method: &'static str,
        request: Request<Q>,
        answer: impl AsyncFnOnce(Q) -> Result<A, Failure>,
    ) -> Result<Response<A>, Status> {
        let admission = self.admission(&request, true)?;
        let Admission { started, deadline, .. } = admission;
        let allowed = self.decide(method, &request).map(drop);
        if let (Err(denied), messages @ 1..) = (&allowed, request.get_ref().messages()) {
            self.0.metrics.refused(method, denied.reason(), messages);
        }
        let answer = async {
            allowed?;
            answer(request.into_inner()).await
        };
        let answer = match deadline {
            None => answer.await,
            // `timeout_at` polls the answer first, so an answer that never waits would be sent although its deadline
            // passed.
            Some(deadline) if Instant::now() >= deadline => Err(status::deadline_exceeded()),
            Some(deadline) => tokio::time::timeout_at(deadline, answer)
                .await
                .unwrap_or_else(|_| Err(status::deadline_exceeded())),
        };
        let answer = answer.map(Response::new).map_err(Status::from);
        let code = code_name(answer.as_ref().err().map_or(Code::Ok, Status::code));
        self.0.metrics.answered(method, code);
        tracing::debug!(method, code, seconds = started.elapsed().as_secs_f64());
        answer
    }

    /// The admission that a request has from the gate, or one that counts from now.
    fn admission<T>(&self, request: &Request<T>, is_short: bool) -> Result<Admission, Failure> {
        if let Some(admission) = request.extensions().get::<Admission>() {
            return Ok(admission.clone());
        }
        let text = request.metadata().get("grpc-timeout").and_then(|text| text.to_str().ok());
        self.admit(text.and_then(timeout), is_short)
    }

    /// Measures how long a stream waits for its reader.
    pub(super) fn stall_watch(&self) -> Arc<StallWatch> {
        StallWatch::new(self.0.inspections.clone())
    }

    /// Has a stream inspected from time to time, until the guard is dropped.
    pub(super) fn inspect(&self, stall: Arc<StallWatch>, evictable: Weak<dyn Evictable>) -> Inspected {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        self.0.streams().insert(id, Watched { stall, evictable });
        Inspected { id, inner: self.0.clone() }
    }

    /// The number of streams and of large answers that have ended.
    pub fn ended(&self) -> u64 {
        self.0.ended.load(Ordering::Relaxed)
    }

    /// The limits of the operator.
    pub fn config(&self) -> Config {
        self.0.config()
    }

    /// Changes the limits. What is above a new one ends as it would have ended without the change, and nothing is added.
    pub fn set_config(&self, config: Config) {
        self.0.unsent.set_limit(config.max_unsent);
        *self.0.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// The counters of all calls.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}

/// Keeps a stream among those that are inspected.
#[derive(Debug)]
pub(super) struct Inspected {
    id: u64,
    inner: Arc<Inner>,
}

impl Drop for Inspected {
    fn drop(&mut self) {
        self.inner.streams().remove(&self.id);
        self.inner.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A streaming call that has begun. Dropping it ends it: as cancelled, unless it has ended before.
#[derive(Debug)]
pub struct Call {
    calls: Calls,
    rights: Arc<Rights>,
    method: &'static str,
    subject: String,
    peer: Option<Peer>,
    log: Option<Arc<ConnectionLog>>,
    /// The owner of what the call hands to the pool.
    owner: Owner,
    wake_group: Option<WakeGroup>,
    started: Instant,
    /// `None` if the call was not admitted.
    admission: Option<Admission>,
    ends: Ends,
    /// `None` without rules.
    permitted: Option<Permitted>,
    sent: Sent,
    items: u64,
    bytes: u64,
    ending: Option<(Code, &'static str)>,
}

impl Call {
    /// Opens a generator. Fails when that fails, at the deadline, or when the server drains.
    pub async fn open<S, E: Into<Failure>>(
        mut self,
        open: impl Future<Output = Result<S, E>>,
    ) -> Result<(Self, S), Status> {
        let (ends, deadline) = (self.ends.clone(), self.deadline());
        let passed = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let opened = tokio::select! {
            opened = open => opened.map_err(Into::into),
            () = passed => Err(status::deadline_exceeded()),
            failure = ends.reached() => Err(failure),
        };
        match opened {
            Ok(stream) => Ok((self, stream)),
            Err(failure) => Err(self.end(failure)),
        }
    }

    /// Serves a generator until it ends or the call must end.
    pub fn serve<T: 'static, S>(self, stream: S) -> Responses<T>
    where
        S: Stream<Item = Result<Outgoing<T>, Failure>> + Send + 'static,
    {
        let ends = self.ends.owned();
        self.serve_until(stream, Some(ends))
    }

    /// Like [`serve`](Self::serve), for a generator that ends by itself when the server drains, after last responses.
    pub fn serve_to_the_end<T: 'static, S>(self, stream: S) -> Responses<T>
    where
        S: Stream<Item = Result<Outgoing<T>, Failure>> + Send + 'static,
    {
        self.serve_until(stream, None)
    }

    fn serve_until<T: 'static, S>(
        self,
        stream: S,
        ends: Option<WaitForCancellationFutureOwned>,
    ) -> Responses<T>
    where
        S: Stream<Item = Result<Outgoing<T>, Failure>> + Send + 'static,
    {
        Responses::new(self, stream, ends)
    }

    /// What a call divides its stream by if it does not ask for something else: batches of this size, and the streams
    /// of one connection are woken together.
    pub fn batching(&self, max_bytes: usize) -> Batching {
        Batching { max_bytes, wake_group: self.wake_group, ..Batching::default() }
    }

    /// What the caller may do.
    pub fn rights(&self) -> &Arc<Rights> {
        &self.rights
    }

    /// When the call must end.
    pub fn ends(&self) -> &Ends {
        &self.ends
    }

    /// What its caller may do while it is open; `None` without rules.
    pub fn permit(&self) -> Option<Arc<Permit>> {
        self.permitted.as_ref().map(|permitted| permitted.permit.clone())
    }

    fn deadline(&self) -> Option<Instant> {
        self.admission.as_ref().and_then(|admission| admission.deadline)
    }

    fn end(&mut self, failure: Failure) -> Status {
        let reason = failure.reason();
        self.ending = Some((reason.code(), reason.as_str_name()));
        failure.into()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Self { calls, method, subject, peer, log, started, items, bytes, ending, .. } = self;
        let (code, reason) = ending.unwrap_or((Code::Cancelled, "CLIENT_GONE"));
        let error = Some(reason).filter(|_| !matches!(code, Code::Ok | Code::Cancelled));
        let code = code_name(code);
        calls.0.metrics.ended(method, code, error);
        let limited = log.as_ref().map_or_else(|| calls.0.log_limit.admit(), |log| log.admit());
        let Some(left_out) = limited else { return };
        let left_out = (left_out > 0).then_some(left_out);
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(method, subject = ?subject, peer, items, bytes, seconds, code, reason, left_out, "stream ended");
    }
}

/// A response that leaves, and what it counts for.
#[derive(Debug)]
pub struct Outgoing<T> {
    /// The response.
    pub response: T,
    /// How many ticks, lines, messages or results it holds. Refusals do not count.
    pub items: usize,
    /// How many bytes the items have.
    pub bytes: usize,
}

impl Outgoing<Encoded> {
    /// A batch: its encoded items, how many they are, and the encoding of all other fields of the response.
    pub fn batch(items: Vec<Bytes>, count: usize, rest: Bytes) -> Self {
        let bytes = items.iter().map(Bytes::len).sum();
        Self { response: Encoded { items, rest }, items: count, bytes }
    }
}

#[cfg(test)]
mod tests;
