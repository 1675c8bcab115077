//! What systemd gives the server, and what the server reports to it. Without systemd all of this does nothing.
//!
//! - The sockets of a `.socket` unit: systemd holds them, also while the server restarts, so clients wait and are not refused.
//! - READY=1 once calls are served, RELOADING=1 while files are read again at SIGHUP, STOPPING=1 from the drain on. READY=1
//!   after RELOADING=1 means that all files were read, and are in use or refused; STATUS= names those that are refused.
//! - WATCHDOG=1 at half the interval that the unit asks for, as long as the runtime runs and the log answers. If one of them
//!   hangs, systemd restarts the server.

use std::{io, time::Duration};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};

use super::{
    Error,
    listen::{Listener, Removal},
};
use crate::messages::Log;

/// Up to this many characters of a fault are in a state.
const MAX_FAULT: usize = 200;

/// The sockets that systemd has passed. Call it on the runtime.
///
/// # Errors
/// [`Error::Inherited`], if one is no socket of TCP or of the file system that listens.
pub fn inherited() -> Result<Vec<Listener>, Error> {
    let mut passed = ListenFd::from_env();
    let all = (0..passed.len()).map(|index| take(&mut passed, index));
    all.collect::<Result<_, _>>().map_err(|source| Error::Inherited { source })
}

fn take(passed: &mut ListenFd, index: usize) -> io::Result<Listener> {
    let missing = || io::Error::other("it is neither of TCP nor of the file system");
    if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
        listener.set_nonblocking(true)?;
        return TcpListener::from_std(listener).map(Listener::Tcp);
    }
    let listener = passed.take_unix_listener(index)?.ok_or_else(missing)?;
    let path = listener.local_addr()?.as_pathname().map(Into::into).ok_or_else(missing)?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Unix(Removal::none(path), UnixListener::from_std(listener)?))
}

/// Reports a state. An error means that no service manager listens.
fn report(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be notified");
    }
}

/// Calls are served. `faults`: why files that were read again are refused.
pub fn ready(faults: &[String]) {
    report(&[NotifyState::Ready, NotifyState::Status(&serving(faults))]);
}

/// Files were read again by themselves.
pub fn status(faults: &[String]) {
    report(&[NotifyState::Status(&serving(faults))]);
}

/// One line. Each fault begins with the name of its file.
fn serving(faults: &[String]) -> String {
    let short = |fault: &String| {
        let line = fault.lines().next().unwrap_or_default();
        let cut = line.char_indices().nth(MAX_FAULT).map_or(line.len(), |(at, _)| at);
        line.get(..cut).unwrap_or_default().to_owned()
    };
    let faults = faults.iter().map(short).collect::<Vec<_>>().join("; ");
    if faults.is_empty() {
        "serving".into()
    } else {
        format!("serving; new files are refused, and the previous ones are in use: {faults}")
    }
}

/// Files are read again, until [`ready`] is called.
pub fn reloading() {
    // Without the time, systemd would not wait for the end of the reload.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        report(&[NotifyState::Reloading, now]);
    }
}

/// The server stops.
pub fn stopping() {
    report(&[NotifyState::Stopping, NotifyState::Status("stopping: streams end with their cursor")]);
}

/// Reports that the server is alive, until it is dropped, if the unit asks for that.
pub async fn watch(log: Log) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval((interval / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let log = log.clone();
        // It takes the lock of the state, which a panic or a hang elsewhere may hold. The disk is not asked: a restart does not
        // mend one that hangs.
        let answer = tokio::task::spawn_blocking(move || log.figures());
        if let Ok(Ok(_)) = tokio::time::timeout(interval / 2, answer).await {
            report(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("the log does not answer: the watchdog of the service manager is not reset");
        }
    }
}
