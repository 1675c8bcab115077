//! Panics that would otherwise go unnoticed: each is logged and counted, and tasks that must not end are started again.

use std::{panic::AssertUnwindSafe, sync::LazyLock, time::Duration};

use futures::FutureExt;
use prometheus_client::metrics::counter::Counter;

/// The pause before a task is started again, so that one that panics at once takes little of the processor.
const PAUSE: Duration = Duration::from_secs(1);

static PANICS: LazyLock<Counter> = LazyLock::new(Counter::default);

/// The number of panics of this process, once [`report`] was called.
pub fn panics() -> Counter {
    PANICS.clone()
}

/// Has each panic of the process logged and counted, instead of written to stderr as text. Call it once, before threads are
/// started.
pub fn report() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.inc();
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current().name().map(str::to_owned);
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        tracing::error!(place, thread, text, "panic: this is a fault of the program, please report it");
    }));
}

/// Starts a task on this runtime that must go on until it ends by itself, as [`run`] does.
pub fn spawn<F>(name: &'static str, start: impl FnMut(bool) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(run(name, start));
}

/// Runs what must go on until it ends by itself. After a panic it is started again; `start` gets whether that is so.
pub async fn run<F>(name: &'static str, mut start: impl FnMut(bool) -> F + Send)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut is_again = false;
    while AssertUnwindSafe(start(is_again)).catch_unwind().await.is_err() {
        tracing::error!(name, "a task of the server panicked, and is started again");
        is_again = true;
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_started_again_until_it_ends_by_itself() {
        let (sender, mut starts) = tokio::sync::mpsc::unbounded_channel();
        let mut count = 0;
        spawn("test", move |is_again| {
            count += 1;
            let (sender, number) = (sender.clone(), count);
            async move {
                sender.send((number, is_again)).unwrap();
                tokio::task::yield_now().await;
                assert!(number >= 3, "it panics twice");
            }
        });
        let mut seen = Vec::new();
        while let Some(start) = starts.recv().await {
            seen.push(start);
        }
        assert_eq!(seen, [(1, false), (2, true), (3, true)]);
    }
}
