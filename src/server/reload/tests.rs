//! Settings that change before they are followed, and while nothing follows them.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::PathBuf};

use prometheus_client::encoding::text::encode;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;

const INTERVAL: Duration = Duration::from_millis(5);

/// The test starts no command.
#[derive(Debug, clap::Subcommand)]
enum Command {
    Unused,
}

struct House {
    directory: TempDir,
    registry: Registry,
    follower: Follower,
}

impl House {
    /// A server that has read this file, and does not follow it yet.
    fn new(content: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("perennial.toml");
        fs::write(&path, content).unwrap();
        let arguments = ["perenniald".as_ref(), "--config".as_ref(), path.as_os_str()].map(ToOwned::to_owned);
        let (config, _) = Config::read_command::<Command>(arguments).unwrap();
        let mut registry = Registry::default();
        let calls = Calls::new(config.calls, CancellationToken::new(), &mut registry);
        let reload = Reload { asked: Arc::default(), set_log: Arc::new(|_| Ok(())) };
        let follower = Follower::new(config, calls, reload, &mut registry);
        Self { directory, registry, follower }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("perennial.toml")
    }

    /// Follows the file until this limit applies.
    async fn follow_until(&self, max_streams: usize) {
        let asked = Asked::default();
        let applies = async {
            while self.follower.calls.config().max_streams != max_streams {
                tokio::time::sleep(INTERVAL).await;
            }
        };
        let follows = async {
            tokio::select! {
                () = self.follower.clone().follow(INTERVAL, &asked) => {}
                () = applies => {}
            }
        };
        tokio::time::timeout(Duration::from_secs(60), follows).await.unwrap();
    }

    fn metric(&self, line: &str) -> bool {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text.lines().any(|known| known == line)
    }
}

#[tokio::test]
async fn a_change_during_the_start_or_while_the_task_is_started_again_is_not_lost() {
    let house = House::new("max-streams = 5");
    fs::write(house.file(), "max-streams = 6\nmax-topics = 7").unwrap();
    house.follow_until(6).await;
    // The task ends, as by a panic.
    fs::write(house.file(), "max-streams = 7\nmax-topics = 7").unwrap();
    house.follow_until(7).await;
    let read = house.follower.state.lock().await.read.clone();
    let value = |name: &str| read.iter().find(|setting| setting.name == name).unwrap().value.clone();
    assert_eq!((value("max-streams"), value("max-topics")), (Some("7".into()), Some("7".into())));
    assert!(house.metric("config_reloads_total{outcome=\"used\"} 2"));
}

#[tokio::test]
async fn a_file_that_has_not_changed_is_not_counted_and_one_that_is_refused_is_tried_again() {
    let house = House::new("max-streams = 5");
    let asked = Asked::default();
    let asks = async {
        asked.ask().await;
        assert!(!house.metric("config_reloads_total{outcome=\"used\"} 1"));
        fs::write(house.file(), "max-streams = 'many'").unwrap();
        for count in [1, 2] {
            asked.ask().await;
            assert!(house.metric(&format!("config_reloads_total{{outcome=\"refused\"}} {count}")));
            assert!(asked.faults().borrow().as_ref().unwrap().contains("perennial.toml"));
        }
        fs::write(house.file(), "max-streams = 6").unwrap();
        asked.ask().await;
        assert!(house.metric("config_reloads_total{outcome=\"used\"} 1"));
        assert_eq!(*asked.faults().borrow(), None);
    };
    tokio::select! {
        () = house.follower.clone().follow(Duration::from_secs(100_000), &asked) => {}
        () = asks => {}
    }
}
