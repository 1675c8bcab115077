//! A limit on the lines that clients can make the server log, with a count of the lines that were left out.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Peer;

/// The lines about calls of one connection: as many as can end together, and then some a second.
const OF_A_CONNECTION: (u32, u32) = (256, 10);

/// The lines about calls of all connections.
const OF_THE_SERVER: (u32, u32) = (10_000, 1_000);

/// A limit on lines.
#[derive(Debug)]
pub struct LogLimit {
    /// Up to this many lines at once.
    burst: u32,
    per_second: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many lines may be logged at `since`.
    lines: u32,
    since: Instant,
    left_out: u64,
}

impl LogLimit {
    /// Up to `burst` lines at once, and then `per_second`, which is at least 1.
    pub fn new(burst: u32, per_second: u32) -> Self {
        let state = State { lines: burst, since: Instant::now(), left_out: 0 };
        Self { burst, per_second, state: Mutex::new(state) }
    }

    /// The limit on lines about calls of all connections.
    pub fn of_the_server() -> Self {
        Self::new(OF_THE_SERVER.0, OF_THE_SERVER.1)
    }

    /// Counts a line. If it may be logged, returns how many were left out before it since the last one.
    pub fn admit(&self) -> Option<u64> {
        let mut state = self.state();
        let elapsed = state.since.elapsed();
        let more = elapsed.as_millis().saturating_mul(self.per_second.into()) / 1_000;
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        if more > 0 {
            state.lines = state.lines.saturating_add(more).min(self.burst);
            state.since += Duration::from_millis(u64::from(more) * 1_000 / u64::from(self.per_second.max(1)));
        }
        if state.lines == 0 {
            state.left_out += 1;
            return None;
        }
        state.lines -= 1;
        Some(std::mem::take(&mut state.left_out))
    }

    /// Counts lines that were left out elsewhere.
    fn leave_out(&self, lines: u64) {
        self.state().left_out += lines;
    }

    /// The lines that were left out and not counted in a line yet.
    fn take_left_out(&self) -> u64 {
        std::mem::take(&mut self.state().left_out)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lines about the calls of one connection, which count for the server, too.
#[derive(Debug)]
pub struct ConnectionLog {
    peer: Peer,
    own: LogLimit,
    server: Arc<LogLimit>,
}

impl ConnectionLog {
    /// For a new connection.
    pub fn new(peer: Peer, server: Arc<LogLimit>) -> Self {
        Self { peer, own: LogLimit::new(OF_A_CONNECTION.0, OF_A_CONNECTION.1), server }
    }

    /// Counts a line. If it may be logged, returns how many were left out before it since the last one.
    pub fn admit(&self) -> Option<u64> {
        let own = self.own.admit()?;
        let server = self.server.admit();
        if server.is_none() {
            self.server.leave_out(own);
        }
        Some(own + server?)
    }
}

impl Drop for ConnectionLog {
    fn drop(&mut self) {
        let left_out = self.own.take_left_out();
        if left_out == 0 {
            return;
        }
        match self.server.admit() {
            Some(others) => {
                let left_out = left_out + others;
                tracing::info!(peer = %self.peer, left_out, "lines about calls were left out");
            }
            // The server has counted this line, too, which is about no stream.
            None => self.server.leave_out(left_out - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_over_the_limit_are_counted_and_left_out() {
        let limit = LogLimit::new(3, 2);
        let many = (0..10).map(|_| limit.admit()).collect::<Vec<_>>();
        assert_eq!(many.iter().flatten().count(), 3);
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(limit.admit(), None);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(limit.admit(), Some(8));
        assert_eq!(limit.admit(), None);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!((0..10).filter_map(|_| limit.admit()).collect::<Vec<_>>(), [1, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_connection_leaves_out_is_not_forgotten_by_the_server() {
        let server = Arc::new(LogLimit::new(300, 1));
        let peer = Peer::User { uid: 1, gid: 1, process: None };
        let logged = |log: &ConnectionLog, lines| (0..lines).filter_map(|_| log.admit()).count();
        let first = ConnectionLog::new(peer, server.clone());
        assert_eq!(logged(&first, 1_000), 256);
        let second = ConnectionLog::new(peer, server.clone());
        assert_eq!(logged(&second, 100), 44);
        drop((first, second));
        // 744 of the first connection, and 56 of the second, for which the server had no line.
        assert_eq!(server.take_left_out(), 800);
    }
}
