//! The only wrapper of a call: quota, deadline, end on shutdown, eviction of a stalled reader, metrics, and one log line
//! when a stream ends.
//!
//! A stream ends once and is counted once, in one of these ways: its generator ends or fails; its deadline passes; the
//! server drains; its reader stalls; or its client goes away and the stream is dropped. The transport does not poll a
//! stream whose reader has no room, so one task inspects all streams from time to time. It takes the generator and all
//! that it holds out of a stalled stream. What remains reports the reason if the client reads again.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use prometheus_client::registry::Registry;
use prost::Message;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Request, Response, Status, metadata::MetadataMap};

use self::stall::{Evictable, StallWatch};
use super::{
    codec::Encoded,
    metrics::{Metrics, Sent},
    status::{self, Failure},
};
use crate::{reason::code_name, stream::WakeGroup};

mod stall;

/// The default of [`Config::max_streams`]: about 1 GiB of idle streams.
const MAX_STREAMS: usize = 100_000;

/// The default of [`Config::stall`]: long enough for a laptop that sleeps between two meetings.
const STALL: Duration = Duration::from_secs(300);

/// The log repeats up to this many characters of a request.
const MAX_SUBJECT: usize = 200;

/// The operator's limits on streams.
#[derive(Clone, Debug)]
pub struct Config {
    /// Up to this many streams are open at once.
    pub max_streams: usize,
    /// A stream ends when its reader takes nothing for this long while a response waits.
    pub stall: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_streams: MAX_STREAMS, stall: STALL }
    }
}

/// The connection of a request: an extension of the request.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The streams of this connection are woken together, so that their writes coalesce.
    pub wake_group: Option<WakeGroup>,
    /// The address of the client.
    pub peer: SocketAddr,
    /// Cancelled when the streams of the connection must end: it has reached its maximum age, or the server drains.
    pub ends: CancellationToken,
}

/// What all calls of a server share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    shutdown: CancellationToken,
    metrics: Metrics,
    open: AtomicUsize,
    next_id: AtomicU64,
    streams: Mutex<HashMap<u64, Weak<dyn Evictable>>>,
}

impl Inner {
    fn streams(&self) -> MutexGuard<'_, HashMap<u64, Weak<dyn Evictable>>> {
        // Every change of the map is one call, so a panic elsewhere cannot leave it half changed.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// Call this on the runtime that serves the calls: it starts the task that evicts stalled streams, which runs
    /// until `shutdown`.
    pub fn new(config: Config, shutdown: CancellationToken, registry: &mut Registry) -> Self {
        let inner = Arc::new(Inner {
            config,
            shutdown,
            metrics: Metrics::new(registry),
            open: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            streams: Mutex::default(),
        });
        tokio::spawn(stall::sweep(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// Begins a streaming call. `subject` is what the log names it by.
    pub fn begin<T>(
        &self,
        method: &'static str,
        request: &Request<T>,
        subject: impl std::fmt::Display,
    ) -> Result<Call, Status> {
        let Inner { config, metrics, open, shutdown, .. } = &*self.0;
        metrics.opened(method);
        let others = open.fetch_add(1, Ordering::Relaxed);
        let subject = subject.to_string().chars().take(MAX_SUBJECT).collect::<String>();
        let connection = request.extensions().get::<Connection>();
        let peer = connection.map(|connection| connection.peer);
        let ends = connection.map_or(shutdown, |connection| &connection.ends).clone();
        let started = Instant::now();
        let deadline = timeout(request.metadata()).and_then(|timeout| started.checked_add(timeout));
        let (calls, sent) = (self.clone(), metrics.sent(method));
        let (items, bytes, ending) = (0, 0, None);
        let mut call =
            Call { calls, method, subject, peer, started, deadline, ends, sent, items, bytes, ending };
        if others >= config.max_streams {
            return Err(call.end(status::too_many_streams(config.max_streams)));
        }
        if call.ends.is_cancelled() {
            return Err(call.end(status::draining()));
        }
        Ok(call)
    }

    /// Answers a unary call. A call whose deadline has passed ends with `DEADLINE_EXCEEDED`, before its answer begins or
    /// while it runs.
    pub async fn unary<Q, A>(
        &self,
        method: &'static str,
        request: Request<Q>,
        answer: impl AsyncFnOnce(Q) -> Result<A, Failure>,
    ) -> Result<Response<A>, Status> {
        let started = Instant::now();
        let timeout = timeout(request.metadata());
        let answer = answer(request.into_inner());
        let answer = match timeout {
            None => answer.await,
            // `timeout` polls the answer first, so an answer that never waits would be sent although its deadline passed.
            Some(timeout) if started.elapsed() >= timeout => Err(status::deadline_exceeded()),
            Some(timeout) => tokio::time::timeout(timeout, answer)
                .await
                .unwrap_or_else(|_| Err(status::deadline_exceeded())),
        };
        let answer = answer.map(Response::new).map_err(Status::from);
        let code = code_name(answer.as_ref().err().map_or(Code::Ok, Status::code));
        self.0.metrics.answered(method, code);
        tracing::debug!(method, code, seconds = started.elapsed().as_secs_f64());
        answer
    }

    /// The counters of all calls.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}

/// A streaming call that has begun. Dropping it ends it: as cancelled, unless it has ended before.
#[derive(Debug)]
pub struct Call {
    calls: Calls,
    method: &'static str,
    subject: String,
    peer: Option<SocketAddr>,
    started: Instant,
    deadline: Option<Instant>,
    ends: CancellationToken,
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
        let (ends, deadline) = (self.ends.clone(), self.deadline);
        let passed = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let opened = tokio::select! {
            opened = open => opened.map_err(Into::into),
            () = passed => Err(status::deadline_exceeded()),
            () = ends.cancelled() => Err(status::draining()),
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
        let ends = self.ends.clone();
        self.serve_until(stream, Some(ends))
    }

    /// Like [`serve`](Self::serve), for a generator that ends by itself when the server drains, after last responses.
    pub fn serve_to_the_end<T: 'static, S>(self, stream: S) -> Responses<T>
    where
        S: Stream<Item = Result<Outgoing<T>, Failure>> + Send + 'static,
    {
        self.serve_until(stream, None)
    }

    fn serve_until<T: 'static, S>(self, stream: S, ends: Option<CancellationToken>) -> Responses<T>
    where
        S: Stream<Item = Result<Outgoing<T>, Failure>> + Send + 'static,
    {
        let inner = self.calls.0.clone();
        let id = inner.next_id.fetch_add(1, Ordering::Relaxed);
        let deadline = self.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        let ends = ends.map(|ends| Box::pin(ends.cancelled_owned()));
        let serving = Some(Serving { call: self, stream: Box::pin(stream) });
        let shared = Arc::new(Shared { stall: StallWatch::new(), serving: Mutex::new(serving) });
        let weak: Weak<dyn Evictable> = Arc::downgrade(&(shared.clone() as Arc<dyn Evictable>));
        inner.streams().insert(id, weak);
        Responses { shared, id, inner, deadline, ends, is_over: false }
    }

    /// Cancelled when the call must end.
    pub fn ends(&self) -> &CancellationToken {
        &self.ends
    }

    fn end(&mut self, failure: Failure) -> Status {
        let reason = failure.reason();
        self.ending = Some((reason.code(), reason.as_str_name()));
        failure.into()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Self { calls, method, subject, peer, started, items, bytes, ending, .. } = self;
        let (code, reason) = ending.unwrap_or((Code::Cancelled, "CLIENT_GONE"));
        let code = code_name(code);
        calls.0.open.fetch_sub(1, Ordering::Relaxed);
        calls.0.metrics.ended(method, code);
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(method, subject = ?subject, peer, items, bytes, seconds, code, reason, "stream ended");
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
    /// A batch: its encoded items, how many they are, and all other fields of the response.
    pub fn batch(items: Vec<Bytes>, count: usize, rest: &impl Message) -> Self {
        let bytes = items.iter().map(Bytes::len).sum();
        Self { response: Encoded::new(items, rest), items: count, bytes }
    }
}

/// A generator and its call.
struct Serving<T> {
    call: Call,
    stream: Pin<Box<dyn Stream<Item = Result<Outgoing<T>, Failure>> + Send>>,
}

/// What the responses of a call share with the task that evicts stalled streams.
struct Shared<T> {
    stall: Arc<StallWatch>,
    /// `None` when the stream is over.
    serving: Mutex<Option<Serving<T>>>,
}

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("stall", &self.stall).finish_non_exhaustive()
    }
}

impl<T> Shared<T> {
    fn serving(&self) -> MutexGuard<'_, Option<Serving<T>>> {
        // A generator that panicked is not polled again, because its task is gone.
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Evictable for Shared<T> {
    fn evict_if_stalled(&self, limit: Duration) {
        // A locked stream is being polled, so it is not stalled. Check under the lock, because a poll may just have ended.
        let Ok(mut serving) = self.serving.try_lock() else { return };
        let stalled = if self.stall.is_longer_than(limit) { serving.take() } else { None };
        drop(serving);
        if let Some(Serving { mut call, .. }) = stalled {
            call.end(status::stalled(limit));
        }
    }
}

/// The responses of a call.
#[derive(Debug)]
pub struct Responses<T> {
    shared: Arc<Shared<T>>,
    id: u64,
    inner: Arc<Inner>,
    deadline: Option<Pin<Box<Sleep>>>,
    ends: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    is_over: bool,
}

impl<T> Stream for Responses<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let shared = self.shared.clone();
        let mut serving = shared.serving();
        let waker = shared.stall.on_poll(context.waker());
        let context = &mut Context::from_waker(&waker);
        let Some(Serving { call, stream }) = &mut *serving else {
            self.is_over = true;
            return Poll::Ready(Some(Err(status::stalled(self.inner.config.stall).into())));
        };
        if let Some(failure) = self.interruption(context) {
            let status = call.end(failure);
            self.is_over = true;
            *serving = None;
            return Poll::Ready(Some(Err(status)));
        }
        // A generator that is always ready would keep its worker from all other tasks.
        ready!(pin!(tokio::task::consume_budget()).poll(context));
        let item = match ready!(stream.as_mut().poll_next(context)) {
            Some(Ok(Outgoing { response, items, bytes })) => {
                call.items += items as u64;
                call.bytes += bytes as u64;
                call.sent.add(items, bytes);
                shared.stall.on_response();
                return Poll::Ready(Some(Ok(response)));
            }
            Some(Err(failure)) => Some(Err(call.end(failure))),
            None => {
                call.ending = Some((Code::Ok, ""));
                None
            }
        };
        self.is_over = true;
        *serving = None;
        Poll::Ready(item)
    }
}

impl<T> Responses<T> {
    /// The reason for which the call must end now, if there is one.
    fn interruption(&mut self, context: &mut Context<'_>) -> Option<Failure> {
        let is_late =
            self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready());
        if is_late {
            return Some(status::deadline_exceeded());
        }
        let is_draining = self.ends.as_mut().is_some_and(|ends| ends.as_mut().poll(context).is_ready());
        is_draining.then(status::draining)
    }
}

impl<T> Drop for Responses<T> {
    fn drop(&mut self) {
        self.inner.streams().remove(&self.id);
        // Drop the generator now, even if the task that evicts stalled streams still holds a reference.
        let serving = self.shared.serving().take();
        drop(serving);
    }
}

/// The time that the caller allows: the header `grpc-timeout`, up to eight digits and a unit.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // `parse` alone would accept a sign.
    let is_amount = digits.len() <= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let amount = digits.parse::<u64>().ok().filter(|_| is_amount)?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
