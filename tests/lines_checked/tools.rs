//! Real tools as real processes work on a log while a writer runs and a client follows it, is cut and continues.
//!
//! A line that is written while a tool puts a copy in the place of the log is in no file that a reader could find
//! afterwards. So the writer holds still meanwhile where the test demands every line.

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use tokio::process::Command;

use crate::harness::Server;
use follower::{Follower, Judge};
use writer::{Opens, Writer};

mod edited;
mod follower;
mod rotated;
mod writer;

/// How often a tool works on the log.
const ROUNDS: usize = 8;

/// The log.
const LOG: &str = "app.log";

/// When the writer holds still while a tool works.
#[derive(Clone, Copy, Debug)]
enum Holds {
    Never,
    /// While no reader has the log open.
    WhileCut,
    Always,
}

/// How much the follower has read before a tool begins: enough to prove by content where it was.
const ENOUGH: usize = 100;

/// A log that a tool works on.
struct Site {
    server: Server,
    writer: Writer,
    follower: Follower,
    random: fastrand::Rng,
}

impl Site {
    /// `opens` says when the writer opens the log, which is called `LOG` and may be a link.
    async fn new(server: Server, opens: Opens) -> Self {
        let writer = Writer::start(server.log_file(LOG), opens);
        let mut follower = Follower::new(&server, LOG);
        follower.resume().await;
        follower.read_until(ENOUGH).await;
        Self { server, writer, follower, random: fastrand::Rng::with_seed(7) }
    }

    fn directory(&self) -> PathBuf {
        self.server.log_file("")
    }

    /// One piece of work on the log, with a follower that is cut before it or not.
    async fn round(&mut self, holds: Holds, command: Command) {
        if self.random.bool() {
            self.follower.cut();
        }
        let is_held = match holds {
            Holds::Never => false,
            Holds::WhileCut => self.follower.is_cut(),
            Holds::Always => true,
        };
        let held = if is_held { Some(self.writer.hold().await) } else { None };
        self.run(command).await;
        drop(held);
        self.pause().await;
        self.follower.resume().await;
        self.pause().await;
    }

    /// Runs a tool to its end, while the follower reads.
    async fn run(&mut self, mut command: Command) {
        let shown = format!("{command:?}");
        let mut output = std::pin::pin!(command.output());
        let output = loop {
            tokio::select! {
                output = &mut output => break output,
                () = self.follower.read() => {}
            }
        };
        let Output { status, stdout, stderr } = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
        let said = [stdout, stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        assert!(status.success(), "{shown}: {status}: {said:?}");
    }

    /// A random time, in which the follower reads.
    async fn pause(&mut self) {
        let time = Duration::from_millis(self.random.u64(..150));
        self.wait(time).await;
    }

    /// The follower reads for this long.
    async fn wait(&mut self, time: Duration) {
        let _ = tokio::time::timeout(time, async {
            loop {
                self.follower.read().await;
            }
        })
        .await;
    }

    /// Ends the writer, and judges all that the follower got.
    async fn end(mut self, judge: Judge) {
        let written = self.writer.end();
        self.follower.resume().await;
        self.follower.read_until(written).await;
        self.follower.judge(written, judge).await;
    }
}

/// A command in a directory.
fn command(program: &str, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory);
    command
}
