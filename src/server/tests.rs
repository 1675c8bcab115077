//! Tasks of the server after a panic.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

use super::*;

/// The test starts no command.
#[derive(Debug, clap::Subcommand)]
enum Command {
    Unused,
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_settings_are_read_again_does_not_end_the_reading() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("perennial.toml");
    std::fs::write(&path, "log = 'info'").unwrap();
    let arguments = ["perenniald".as_ref(), "--config".as_ref(), path.as_os_str()].map(ToOwned::to_owned);
    let (config, _) = Config::read_command::<Command>(arguments).unwrap();
    let (count, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let set_log = {
        let (count, seen) = (count.clone(), seen.clone());
        move |_: &str| {
            seen.notify_one();
            assert!(count.fetch_add(1, Ordering::Relaxed) > 0, "the first time it panics");
            Ok(())
        }
    };
    let reload = Reload { asked: Arc::new(Notify::new()), set_log: Arc::new(set_log) };
    let (mut registry, ending) = (Registry::default(), CancellationToken::new());
    let calls = Calls::new(config.calls, ending.clone(), &mut registry);
    let settings = reload::Follower::new(config.clone(), calls, reload.clone(), &mut registry);
    let pool = Pool::default();
    let files = Followed { tls: None, access: None, settings, config, reload: reload.clone(), pool };
    let tasks = TaskTracker::new();
    keep(&tasks, &ending, "files", move |is_again| files.clone().follow(is_again));
    for log in ["debug", "warn"] {
        std::fs::write(&path, format!("log = '{log}'")).unwrap();
        reload.asked.notify_one();
        // Reading the file takes real time, during which the paused clock may run far ahead.
        tokio::time::timeout(Duration::from_hours(24 * 365), seen.notified()).await.unwrap();
    }
    ending.cancel();
    tasks.close();
    tasks.wait().await;
    assert!(count.load(Ordering::Relaxed) >= 2);
}
