//! Debian's logrotate in eight configurations.

use std::{fs, path::Path, time::Duration};

use tokio::process::Command;

use super::{ENOUGH, Holds, LOG, Opens, ROUNDS, Site, command, follower::Judge};
use crate::harness::Server;

/// What a test configures.
struct Setup {
    /// The lines of logrotate's configuration besides those that all have.
    lines: &'static str,
    /// It has the writer open the log again.
    asks: bool,
    /// It copies the log, and may lose what is written meanwhile.
    copies: bool,
    /// Arguments of the server.
    arguments: &'static [&'static str],
    /// How long the follower reads between two rotations, at least.
    apart: Duration,
}

const CREATE: Setup =
    Setup { lines: "create", asks: true, copies: false, arguments: &[], apart: Duration::ZERO };

/// A server, and a log that logrotate is configured for.
async fn site(Setup { lines, asks, arguments, .. }: Setup) -> Site {
    let server = Server::start_with(arguments);
    fs::create_dir(server.log_file("old")).unwrap();
    let (log, flag) = (server.log_file(LOG), server.directory().join("reopen"));
    let ask = format!("postrotate\ntouch '{}'\nendscript", flag.display());
    let ask = if asks { ask.as_str() } else { "" };
    let text = format!("'{}' {{\nrotate 50\nmissingok\n{lines}\n{ask}\n}}\n", log.display());
    let configuration = server.directory().join("logrotate.conf");
    fs::write(&configuration, text).unwrap();
    fs::set_permissions(&configuration, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    Site::new(server, Opens::AskedBy(flag)).await
}

fn logrotate(directory: &Path) -> Command {
    command("logrotate", directory, &["--force", "--state", "state", "logrotate.conf"])
}

/// Rotates a log some times.
async fn rotate(setup: Setup) {
    let Setup { copies, apart, .. } = setup;
    let mut site = site(setup).await;
    for _ in 0..ROUNDS {
        let directory = site.server.directory().to_owned();
        let holds = if copies { Holds::WhileCut } else { Holds::Never };
        site.round(holds, logrotate(&directory)).await;
        site.wait(apart).await;
    }
    site.end(Judge { may_lose: copies, ..Judge::default() }).await;
}

#[tokio::test]
#[ignore = "needs logrotate"]
async fn create() {
    rotate(CREATE).await;
}

#[tokio::test]
#[ignore = "needs logrotate"]
async fn copytruncate() {
    rotate(Setup { lines: "copytruncate", asks: false, copies: true, ..CREATE }).await;
}

/// No reader has the log open when it is rotated, once or more often: all lines are in the copies.
#[tokio::test]
#[ignore = "needs logrotate"]
async fn copytruncate_while_no_reader_is_there() {
    for lines in ["copytruncate", "copytruncate\ndateext\ndateformat -%Y%m%d-%s"] {
        let is_dated = lines.contains("dateext");
        let mut site = site(Setup { lines, asks: false, copies: true, ..CREATE }).await;
        for round in 0..ROUNDS {
            // Enough for a proof by content.
            let count = site.follower.count();
            site.follower.read_until(count + 4 * ENOUGH).await;
            site.follower.cut();
            for _ in 0..=round % 3 {
                // Each copy has lines, and a date is good for a second.
                site.wait(Duration::from_millis(if is_dated { 1_050 } else { 20 })).await;
                let held = site.writer.hold().await;
                let directory = site.server.directory().to_owned();
                site.run(logrotate(&directory)).await;
                drop(held);
            }
            site.follower.resume().await;
        }
        site.end(Judge::default()).await;
    }
}

#[tokio::test]
#[ignore = "needs logrotate"]
async fn nocreate() {
    rotate(Setup { lines: "nocreate", ..CREATE }).await;
}

#[tokio::test]
#[ignore = "needs logrotate"]
async fn olddir() {
    rotate(Setup { lines: "create\nolddir old", arguments: &["--history", "logs=old/**"], ..CREATE }).await;
}

#[tokio::test]
#[ignore = "needs logrotate"]
async fn dateext() {
    // A name is good for a second.
    let apart = Duration::from_millis(1_050);
    rotate(Setup { lines: "create\ndateext\ndateformat -%Y%m%d-%s", apart, ..CREATE }).await;
}

#[tokio::test]
#[ignore = "needs logrotate"]
async fn extension() {
    rotate(Setup { lines: "create\nextension .log", ..CREATE }).await;
}

#[tokio::test]
#[ignore = "needs logrotate"]
async fn compress_with_delay() {
    // A file is compressed with the second rotation: its reader has left it by then.
    let apart = Duration::from_millis(500);
    rotate(Setup { lines: "create\ncompress\ndelaycompress", apart, ..CREATE }).await;
}

#[tokio::test]
#[ignore = "needs logrotate"]
async fn sharedscripts() {
    rotate(Setup { lines: "create\nsharedscripts", ..CREATE }).await;
}
