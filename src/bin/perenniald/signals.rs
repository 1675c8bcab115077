//! Signals, on a thread of their own: a disk that hangs may hold every other thread, and the process must end all the same.
//!
//! After the first SIGINT or SIGTERM the server stops in order. A second one ends the process at once, and so does the end
//! of the time that the server has to stop.

use std::{
    io,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, oneshot},
};

use crate::FAILURE;

/// The process may take this long to end, however short the drain is: the log has to be closed.
const MIN_LIMIT: Duration = Duration::from_secs(2);

/// How long the last line on stderr may take: its reader may hang, too.
const LAST_LINE: Duration = Duration::from_millis(200);

/// Handles signals from now on. The receiver gets the first one that asks the server to stop, and `reload` is notified of
/// each SIGHUP.
pub fn handle(drain: Duration, reload: Arc<Notify>) -> io::Result<oneshot::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let stop =
        Stop { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? };
    let hangup = signal(SignalKind::hangup())?;
    // The handler stays: a write above the limit of a file's size fails as on a full disk, and does not end the process.
    drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
    drop(entered);
    let (sender, receiver) = oneshot::channel();
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                () = forward_hangups(hangup, &reload) => {}
                () = stop.end_process(sender, drain.max(MIN_LIMIT)) => {}
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(run)?;
    Ok(receiver)
}

/// The signals that stop the server.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Reports the first signal, and ends the process at the second one or after the limit.
    async fn end_process(mut self, stopping: oneshot::Sender<()>, limit: Duration) {
        self.received().await;
        let end = Instant::now() + limit;
        let _ = stopping.send(());
        match tokio::time::timeout_at(end.into(), self.received()).await {
            Ok(()) => exit("stopped at once by a second signal".into()),
            Err(_) => exit(format!(
                "not stopped after {limit:?}: a disk may hang; the process ends, and the log is recovered at the next start"
            )),
        }
    }
}

/// Operators and service managers send SIGHUP to have files read again. Without a handler it would end the process.
async fn forward_hangups(mut hangup: Signal, reload: &Notify) {
    while hangup.recv().await.is_some() {
        reload.notify_one();
    }
}

/// Ends the process without waiting for any thread.
fn exit(reason: String) -> ! {
    let (printed, done) = mpsc::channel();
    std::thread::spawn(move || {
        anstream::eprintln!("perenniald: {reason}");
        let _ = printed.send(());
    });
    let _ = done.recv_timeout(LAST_LINE);
    std::process::exit(FAILURE.into());
}
