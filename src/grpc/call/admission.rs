//! What a call holds from its headers to its end: a place among the open calls, its deadline, and bytes of the buffers.
//!
//! Everything here is counted before the request is decoded, so that a request that never ends is bounded like a stream.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Calls, Inner, Peer, log_limit::ConnectionLog};
use crate::{
    access::Identity,
    blocking::Owner,
    grpc::status::{self, Failure},
    stream::WakeGroup,
};

/// Calls with one answer may have this many places above the limit of streams, so that a server whose streams are all
/// open still answers health checks and stores the cursors of its readers.
const RESERVED_PLACES: usize = 1_000;

/// The connection of a request: an extension of the request.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The number of the connection: the owner of the work that its calls hand to the pool.
    pub number: Owner,
    /// The streams of this connection are woken together, so that their writes coalesce.
    pub wake_group: Option<WakeGroup>,
    /// The client.
    pub peer: Peer,
    /// Cancelled when the streams of the connection must end: it has reached its maximum age, or the server drains.
    pub ends: CancellationToken,
    /// The lines about the calls of the connection.
    pub log: Arc<ConnectionLog>,
    /// The lines about callers of the connection who were refused.
    pub audit: Arc<ConnectionLog>,
    /// The bytes that the server holds for the connection.
    pub buffers: Arc<Buffers>,
    /// The identities that the connection proves.
    pub identities: Arc<[Identity]>,
    /// Whether others can read what is sent: plain text from another machine.
    pub is_exposed: bool,
}

/// The admission of a call: an extension of its request. The call keeps its place until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Admission {
    /// When the headers of the call arrived.
    pub started: Instant,
    /// When the time that the caller allows is over.
    pub deadline: Option<Instant>,
    _place: Arc<Place>,
}

impl Calls {
    /// Admits a call whose headers have arrived. `timeout` is the time that the caller allows; `is_short`: the call has
    /// one answer.
    ///
    /// # Errors
    /// `TOO_MANY_STREAMS` at the limit of open calls.
    pub fn admit(&self, timeout: Option<Duration>, is_short: bool) -> Result<Admission, Failure> {
        let limit = self.0.config().max_streams;
        let reserved = if is_short { RESERVED_PLACES } else { 0 };
        let others = self.0.open.fetch_add(1, Ordering::Relaxed);
        let place = Arc::new(Place(self.0.clone()));
        if others >= limit.saturating_add(reserved) {
            return Err(status::too_many_streams(limit));
        }
        let started = Instant::now();
        let deadline = timeout.and_then(|timeout| started.checked_add(timeout));
        Ok(Admission { started, deadline, _place: place })
    }

    /// The number of open calls.
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// The bytes of requests that are not complete and of answers that wait.
    pub fn buffered(&self) -> usize {
        self.0.buffered.load(Ordering::Relaxed)
    }

    /// The number of open connections.
    pub fn connections(&self) -> usize {
        self.0.backlogs().len()
    }

    /// The bytes of responses that wait for their readers, and those that connections hold.
    pub fn unsent(&self) -> (u64, u64) {
        self.0.unsent.held()
    }

    /// What a new connection has in its requests' extensions.
    pub fn connection(&self, number: Owner, peer: Peer, ends: CancellationToken) -> Connection {
        let buffers = Buffers { used: AtomicUsize::new(0), calls: self.0.clone() };
        let log = Arc::new(ConnectionLog::new(peer, self.0.log_limit.clone()));
        let identities = match peer {
            Peer::Address(_) => Arc::default(),
            Peer::User { uid, gid, .. } => [Identity::Uid(uid), Identity::Gid(gid)].into(),
        };
        let (wake_group, buffers) = (WakeGroup::new(number), Arc::new(buffers));
        let audit = Arc::new(ConnectionLog::new(peer, self.0.audit_limit.clone()));
        Connection { number, wake_group, peer, ends, log, audit, buffers, identities, is_exposed: false }
    }
}

/// A place among the open calls.
#[derive(Debug)]
struct Place(Arc<Inner>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bytes that the server holds for a connection: requests that are not complete, and answers that wait.
#[derive(Debug)]
pub struct Buffers {
    used: AtomicUsize,
    calls: Arc<Inner>,
}

impl Buffers {
    /// A part of the buffers that holds no bytes yet.
    pub fn part(self: &Arc<Self>) -> Part {
        Part { buffers: self.clone(), bytes: 0 }
    }
}

/// The bytes of one request or answer. They are free again when it is dropped.
#[derive(Debug)]
pub struct Part {
    buffers: Arc<Buffers>,
    bytes: usize,
}

impl Part {
    /// Holds this many bytes from now on.
    ///
    /// # Errors
    /// `BUFFERS_FULL` if the connection or the server would hold more than it may. The part is then unchanged.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Failure> {
        let (connection, server) = (&self.buffers.used, &self.buffers.calls.buffered);
        let config = self.buffers.calls.config();
        if bytes <= self.bytes {
            connection.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            server.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
            return Ok(());
        }
        let more = bytes - self.bytes;
        if connection.fetch_add(more, Ordering::Relaxed) + more > config.max_buffered_per_connection {
            connection.fetch_sub(more, Ordering::Relaxed);
            return Err(status::buffers_full(config.max_buffered_per_connection, true));
        }
        if server.fetch_add(more, Ordering::Relaxed) + more > config.max_buffered {
            connection.fetch_sub(more, Ordering::Relaxed);
            server.fetch_sub(more, Ordering::Relaxed);
            return Err(status::buffers_full(config.max_buffered, false));
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.resize(0);
    }
}

/// The time of the header `grpc-timeout`: up to eight digits and a unit. `None` if it is malformed.
pub fn timeout(text: &str) -> Option<Duration> {
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
