//! Permits: whether the caller of an open stream may still have it.
//!
//! When the rules or tokens change, and when credentials expire, a stream whose caller may no longer have it ends with the
//! reason, after the batch that is being sent: its last cursor resumes, if the caller gets the right again. [`Ends`] also
//! ends it when its connection must end.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    Inner,
    audit::{About, AllowedTopics, RefusedMessages},
    guard::Allowed,
};
use crate::{
    access::{Access, Caller, FilesOf, Need, Part, Refused, Target, Verb, quota::StreamQuota},
    grpc::status::{self, Failure},
    pem,
};

/// How often it is checked whether credentials have expired.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// The streams that are checked before others run.
const SLICE: usize = 256;

/// When a stream must end although its generator goes on, and why.
#[derive(Clone, Debug)]
pub struct Ends {
    token: CancellationToken,
    /// The cause, if it is not that the connection must end.
    cause: Option<Arc<OnceLock<Failure>>>,
}

impl Ends {
    /// With the connection alone.
    pub fn with_connection(token: CancellationToken) -> Self {
        Self { token, cause: None }
    }

    /// Also when the caller may no longer have the stream.
    pub(super) fn with_permit(connection: &CancellationToken) -> Self {
        Self { token: connection.child_token(), cause: Some(Arc::default()) }
    }

    /// Returns whether this is the first cause, which counts.
    pub(super) fn end(&self, cause: Failure) -> bool {
        let is_first = self.cause.as_ref().is_some_and(|known| known.set(cause).is_ok());
        self.token.cancel();
        is_first
    }

    /// Whether the caller may no longer have the stream.
    pub(super) fn are_withdrawn(&self) -> bool {
        self.cause.as_ref().is_some_and(|cause| cause.get().is_some())
    }

    /// Whether the stream must end now.
    pub fn are_now(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until the stream must end. Returns the reason.
    pub async fn reached(&self) -> Failure {
        self.token.cancelled().await;
        self.failure()
    }

    /// Ends when the stream must.
    pub fn owned(&self) -> WaitForCancellationFutureOwned {
        self.token.clone().cancelled_owned()
    }

    /// Why the stream must end.
    pub fn failure(&self) -> Failure {
        self.cause.as_ref().and_then(|cause| cause.get().cloned()).unwrap_or_else(status::draining)
    }
}

/// The permit of an open stream.
#[derive(Debug)]
pub struct Permit {
    /// With the rights that it has now.
    caller: Mutex<Caller>,
    needs: Vec<Need<'static>>,
    /// The part of what it asks for that the stream yields.
    part: Yields,
    ends: Ends,
    about: About,
}

impl Permit {
    /// The caller, with the rights that it has now.
    pub fn caller(&self) -> Caller {
        self.current().clone()
    }

    fn current(&self) -> MutexGuard<'_, Caller> {
        // Each change is one assignment, so a panic elsewhere leaves it whole.
        self.caller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the stream and records it in the audit log, with the needs that are not covered.
    fn end(&self, cause: &Failure, needs: &[Need<'_>]) {
        if self.ends.end(cause.clone()) {
            self.about.ended(&self.caller(), needs, cause);
        }
    }

    /// Records in the audit log that the stream publishes to a topic, if that is not `known`.
    pub fn allowed_topic(&self, known: &mut AllowedTopics, topic: &str) {
        self.about.allowed_topic(&self.current(), known, topic);
    }

    /// Records in the audit log that messages were refused.
    pub fn refused_messages(&self, refused: &RefusedMessages) {
        self.about.refused_messages(&self.current(), refused);
    }

    /// The part of what it asks for that the stream yields.
    pub fn topics(&self) -> &Part {
        &self.part.topics
    }

    /// Ends the stream if its caller may no longer have it, by the rules and tokens in use now.
    fn check(&self, access: &Access) {
        // It was counted when it ended.
        if self.ends.are_now() {
            return;
        }
        match access.again(&self.caller()) {
            Err(refused) => self.end(&access.refuse(refused).into(), &self.needs),
            Ok(caller) => {
                let checked = crate::grpc::access::check(access, &caller, &self.needs)
                    .map_err(|denied| (denied.failure(&caller), denied.need));
                let part = Yields::of(&self.needs, &caller);
                *self.current() = caller;
                match checked {
                    Err((failure, need)) => self.end(&failure, std::slice::from_ref(need)),
                    Ok(()) if part != self.part => {
                        self.ends.end(status::access_changed());
                    }
                    Ok(()) => {}
                }
            }
        }
    }

    fn check_expiry(&self, access: &Access, now: i64) {
        if self.current().expires().is_some_and(|expires| now >= expires) && !self.ends.are_now() {
            self.end(&access.refuse(Refused::Expired).into(), &self.needs);
        }
    }
}

/// What a stream was decided by when it was opened: if the caller gets another part, the stream ends and can resume.
#[derive(Debug, Eq, PartialEq)]
struct Yields {
    /// The part of the patterns of a subscription.
    topics: Part,
    /// The files that its caller may read, for a stream of lines, which continues in older generations, that lie elsewhere;
    /// or list, for a stream of files.
    files: FilesOf,
}

impl Yields {
    fn of(needs: &[Need<'_>], caller: &Caller) -> Self {
        let pattern = |need: &Need<'_>| match &need.target {
            Target::Part(pattern) => Some(pattern.to_string()),
            _ => None,
        };
        let topics = caller.rights().readable(&needs.iter().filter_map(pattern).collect::<Vec<_>>());
        let of_files = needs.iter().find(|need| matches!(need.verb, Verb::Read | Verb::List));
        let files = of_files.map(|need| caller.rights().files_of(need.verb)).unwrap_or_default();
        Self { topics, files }
    }
}

/// The permits of the open streams.
#[derive(Debug, Default)]
pub struct Permits {
    open: Mutex<HashMap<u64, Arc<Permit>>>,
    next_id: AtomicU64,
}

impl Permits {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Permit>>> {
        // Each change is one call, so a panic elsewhere leaves it whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Permit>> {
        self.open().values().cloned().collect()
    }
}

/// Keeps a permit among those that are checked, until it is dropped.
#[derive(Debug)]
pub struct Permitted {
    /// The permit.
    pub permit: Arc<Permit>,
    id: u64,
    inner: Arc<Inner>,
    /// The stream counts among the quotas of its caller.
    _quota: StreamQuota,
}

impl Permitted {
    /// Of a stream whose caller has what it needs.
    pub(super) fn new(
        inner: &Arc<Inner>,
        access: &Access,
        allowed: Allowed<'_>,
        connection: &CancellationToken,
    ) -> Result<(Self, Ends), Failure> {
        let Allowed { caller, needs, about } = allowed;
        let quota = caller.quotas().open_stream();
        let quota = quota
            .map_err(|exceeded| status::quota_exceeded(&caller, access.exceed(exceeded)))
            .inspect_err(|failure| about.refused(&caller, &needs, failure))?;
        let ends = Ends::with_permit(connection);
        let needs = needs.into_iter().map(Need::into_owned).collect::<Vec<_>>();
        let part = Yields::of(&needs, &caller);
        let permit = Arc::new(Permit { caller: Mutex::new(caller), needs, part, ends: ends.clone(), about });
        let id = inner.permits.next_id.fetch_add(1, Ordering::Relaxed);
        inner.permits.open().insert(id, permit.clone());
        // The rules may have changed since it was decided, before this permit was among those that are checked.
        if !access.is_decided_by_current(&permit.current()) {
            permit.check(access);
        }
        Ok((Self { permit, id, inner: inner.clone(), _quota: quota }, ends))
    }
}

impl Drop for Permitted {
    fn drop(&mut self) {
        self.inner.permits.open().remove(&self.id);
    }
}

/// Checks the permits when the rules or tokens change, and whether credentials have expired, until all calls are gone.
/// `is_again`: it has ended by a panic, and may have missed a change.
pub(super) async fn watch(inner: Weak<Inner>, access: Arc<Access>, is_again: bool) {
    let mut changes = access.changes();
    if is_again {
        changes.mark_changed();
    }
    loop {
        let has_changed = tokio::time::timeout(EXPIRY_INTERVAL, changes.changed()).await.is_ok();
        let Some(inner) = inner.upgrade() else { return };
        let (permits, now) = (inner.permits.all(), pem::now());
        drop(inner);
        for slice in permits.chunks(SLICE) {
            for permit in slice {
                if has_changed {
                    permit.check(&access);
                }
                permit.check_expiry(&access, now);
            }
            tokio::task::yield_now().await;
        }
    }
}
