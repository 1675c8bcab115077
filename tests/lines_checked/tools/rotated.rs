//! Debian's logrotate in eight configurations.

use std::{fs, time::Duration};

use super::{Holds, LOG, Opens, ROUNDS, Site, command, follower::Judge};
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

/// Rotates a log some times.
async fn rotate(Setup { lines, asks, copies, arguments, apart }: Setup) {
    let server = Server::start_with(arguments);
    fs::create_dir(server.log_file("old")).unwrap();
    let (log, flag) = (server.log_file(LOG), server.directory().join("reopen"));
    let ask = format!("postrotate\ntouch '{}'\nendscript", flag.display());
    let ask = if asks { ask.as_str() } else { "" };
    let text = format!("'{}' {{\nrotate 50\nmissingok\n{lines}\n{ask}\n}}\n", log.display());
    let configuration = server.directory().join("logrotate.conf");
    fs::write(&configuration, text).unwrap();
    fs::set_permissions(&configuration, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let mut site = Site::new(server, Opens::AskedBy(flag)).await;
    for _ in 0..ROUNDS {
        let arguments = ["--force", "--state", "state", "logrotate.conf"];
        let directory = site.server.directory().to_owned();
        let holds = if copies { Holds::WhileCut } else { Holds::Never };
        site.round(holds, command("logrotate", &directory, &arguments)).await;
        site.wait(apart).await;
    }
    site.end(Judge { may_lose: copies, may_repeat: false }).await;
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
