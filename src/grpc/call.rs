//! What all streams share, and the only wrapper round one: quota, deadline, end on shutdown, end of a stalled reader,
//! metrics, and one line in the log when it is over.
//!
//! A stream ends once, in one of these ways, and is counted once: it is through; its generator fails; its deadline
//! passes; the server drains; its reader stalls; or its client goes away, and it is dropped. A reader that takes
//! nothing is not polled either, so one task looks at all streams now and then, and takes the generator, and all that
//! it holds, out of a stalled one; what is left tells the client why, should it ever read on.

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

use futures::Stream;
use prometheus_client::registry::Registry;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Request, Response, Status, metadata::MetadataMap};

use self::stall::{Stallable, Waiting};
use super::{
    metrics::{Metrics, Sent, code_name},
    status::{self, Failure},
};

mod stall;

/// The default of [`Settings::max_streams`]: about 1 GiB of idle streams.
const MAX_STREAMS: usize = 100_000;

/// The default of [`Settings::stall`]: longer than a laptop's lid is closed between two meetings' rooms.
const STALL: Duration = Duration::from_secs(300);

/// What of a request the log repeats, in characters.
const MAX_SUBJECT: usize = 200;

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most streams that are open at once.
    pub max_streams: usize,
    /// How long a reader may take nothing though something waits.
    pub stall: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_streams: MAX_STREAMS, stall: STALL }
    }
}

/// The connection that a request came by: an extension of the request.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Tells it from the others of this server; not 0.
    pub number: u64,
    /// Its other end.
    pub peer: SocketAddr,
    /// Is cancelled when its streams are to end: it is old, or the server drains.
    pub ends: CancellationToken,
}

/// What all calls of a server share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    shutdown: CancellationToken,
    metrics: Metrics,
    open: AtomicUsize,
    next_id: AtomicU64,
    streams: Mutex<HashMap<u64, Weak<dyn Stallable>>>,
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, HashMap<u64, Weak<dyn Stallable>>> {
        // Every change of the map is one call: a panic elsewhere leaves it whole.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// To be called on the runtime that serves the calls: the search for stalled streams runs there, until
    /// `shutdown`.
    pub fn new(settings: Settings, shutdown: CancellationToken, registry: &mut Registry) -> Self {
        let shared = Arc::new(Shared {
            settings,
            shutdown,
            metrics: Metrics::new(registry),
            open: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            streams: Mutex::default(),
        });
        tokio::spawn(stall::sweep(Arc::downgrade(&shared)));
        Self(shared)
    }

    /// Begins a streaming call. `subject` says what it is about.
    pub fn begin<T>(
        &self,
        method: &'static str,
        request: &Request<T>,
        subject: impl std::fmt::Display,
    ) -> Result<Call, Status> {
        let Shared { settings, metrics, open, shutdown, .. } = &*self.0;
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
        if others >= settings.max_streams {
            return Err(call.end(status::too_many_streams(settings.max_streams)));
        }
        if call.ends.is_cancelled() {
            return Err(call.end(status::draining()));
        }
        Ok(call)
    }

    /// Answers a unary call, within the time that its caller gives it.
    pub async fn unary<T>(
        &self,
        method: &'static str,
        timeout: Option<Duration>,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Response<T>, Status> {
        let started = Instant::now();
        let answer = match timeout {
            None => answer.await,
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

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}

/// A streaming call that has begun. Dropping it is its end: as cancelled, if it did not end otherwise before.
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
    /// Waits for a generator to be opened, no longer than the deadline and the server allow.
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

    /// Serves a generator until it, or the call, is over.
    pub fn serve<T: 'static, S>(self, stream: S) -> Responses<T>
    where
        S: Stream<Item = Result<Served<T>, Failure>> + Send + 'static,
    {
        let ends = self.ends.clone();
        self.serve_until(stream, Some(ends))
    }

    /// As [`serve`](Self::serve), for a generator that ends by itself when the server drains, and has a last word.
    pub fn serve_to_the_end<T: 'static, S>(self, stream: S) -> Responses<T>
    where
        S: Stream<Item = Result<Served<T>, Failure>> + Send + 'static,
    {
        self.serve_until(stream, None)
    }

    fn serve_until<T: 'static, S>(self, stream: S, ends: Option<CancellationToken>) -> Responses<T>
    where
        S: Stream<Item = Result<Served<T>, Failure>> + Send + 'static,
    {
        let shared = self.calls.0.clone();
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let deadline = self.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        let ends = ends.map(|ends| Box::pin(ends.cancelled_owned()));
        let serving = Some(Serving { call: self, stream: Box::pin(stream) });
        let slot = Arc::new(Slot { waiting: Waiting::new(), serving: Mutex::new(serving) });
        let weak: Weak<dyn Stallable> = Arc::downgrade(&(slot.clone() as Arc<dyn Stallable>));
        shared.streams().insert(id, weak);
        Responses { slot, id, shared, deadline, ends, is_over: false }
    }

    /// Is cancelled when the call is to end.
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

/// A response, and what it counts for.
#[derive(Debug)]
pub struct Served<T> {
    /// What the client gets.
    pub response: T,
    /// How many ticks, lines, messages or results.
    pub items: usize,
    /// How many bytes they have.
    pub bytes: usize,
}

/// A generator, and its call.
struct Serving<T> {
    call: Call,
    stream: Pin<Box<dyn Stream<Item = Result<Served<T>, Failure>> + Send>>,
}

struct Slot<T> {
    waiting: Arc<Waiting>,
    /// None when it is over.
    serving: Mutex<Option<Serving<T>>>,
}

impl<T> std::fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl<T> Slot<T> {
    fn serving(&self) -> MutexGuard<'_, Option<Serving<T>>> {
        // A generator that panicked is not polled again: its task is gone.
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Stallable for Slot<T> {
    fn end_if_stalled(&self, stall: Duration) {
        // Locked, it is being polled, and so it is not stalled. Looked at under the lock: it may just have been.
        let Ok(mut serving) = self.serving.try_lock() else { return };
        let stalled = if self.waiting.is_longer_than(stall) { serving.take() } else { None };
        drop(serving);
        if let Some(Serving { mut call, .. }) = stalled {
            call.end(status::stalled(stall));
        }
    }
}

/// The responses of a call.
#[derive(Debug)]
pub struct Responses<T> {
    slot: Arc<Slot<T>>,
    id: u64,
    shared: Arc<Shared>,
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
        let slot = self.slot.clone();
        let mut serving = slot.serving();
        let waker = slot.waiting.is_polled_by(context.waker());
        let context = &mut Context::from_waker(&waker);
        let Some(Serving { call, stream }) = &mut *serving else {
            self.is_over = true;
            return Poll::Ready(Some(Err(status::stalled(self.shared.settings.stall).into())));
        };
        if let Some(failure) = self.is_cut(context) {
            let status = call.end(failure);
            self.is_over = true;
            *serving = None;
            return Poll::Ready(Some(Err(status)));
        }
        // A generator that always has something would keep its worker from everybody else.
        ready!(pin!(tokio::task::consume_budget()).poll(context));
        let item = match ready!(stream.as_mut().poll_next(context)) {
            Some(Ok(Served { response, items, bytes })) => {
                call.items += items as u64;
                call.bytes += bytes as u64;
                call.sent.add(items, bytes);
                slot.waiting.has_given();
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
    /// What ends the call from outside.
    fn is_cut(&mut self, context: &mut Context<'_>) -> Option<Failure> {
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
        self.shared.streams().remove(&self.id);
        // At once, and not when the search for stalled streams lets go of it.
        let serving = self.slot.serving().take();
        drop(serving);
    }
}

/// The time that the caller gives a call: the header `grpc-timeout`, at most eight digits and a unit.
pub fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // Parsing alone would take a sign.
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
