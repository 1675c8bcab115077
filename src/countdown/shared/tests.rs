//! Shared countdowns over a real log, in virtual time.
#![expect(clippy::unwrap_used, reason = "a test")]

use super::*;

const SECOND: i128 = 1_000_000_000;

fn spec() -> Spec {
    let (target, interval) = (Target::For(Duration::from_secs(60)), Duration::from_secs(1));
    Spec { target, to: 0, step: 1, interval, on_end: None, request_id: None }
}

#[tokio::test]
async fn a_name_that_is_forgotten_is_free_at_once_though_the_log_forgets_later() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), messages::Options::default()).unwrap().0;
    let clock = Clock::manual();
    let opened = Countdowns::open(log.clone(), clock.clone(), Limits::default()).await;
    let (countdowns, work) = opened.unwrap();
    let work = tokio::spawn(work);
    let (first, _) = countdowns.create("a", spec()).await.unwrap();
    countdowns.cancel("a", None).await.unwrap();
    // The log has a clock of its own.
    clock.step(2 * 24 * 3600 * SECOND);
    let is_forgotten = async {
        while countdowns.get("a").is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, is_forgotten).await.unwrap();
    let second = tokio::time::timeout(limit, countdowns.create("a", spec())).await.unwrap();
    assert!(second.unwrap().0.version > first.version);
    assert!(!countdowns.get("a").unwrap().record.is_over());
    work.abort();
    log.close().await;
}
