//! Tools that put another file in the place of a log, or write to it in place.

use std::{fs, os::unix::fs::symlink, time::Duration};

use super::{
    ENOUGH, Holds, LOG, Opens, ROUNDS, Site, command,
    follower::{Follower, Judge},
    writer::Writer,
};
use crate::harness::{Server, until};

const SED: &str = "sed -i '/no such line/d' app.log";

const SED_WITH_BACKUP: &str = "sed -i.bak '1,3d' app.log";

const TAIL: &str = "tail -n 100 app.log > g && mv g app.log";

/// By default vim creates another file, or saves in place.
const VIM: &str = "vim -u NONE -i NONE -n -es -c 'silent! 1delete' -c 'wq!' app.log";

/// More than the grace of a server.
const GRACE: Duration = Duration::from_millis(400);

/// Runs a shell command in the directory of the log some times.
async fn edit(script: &str, holds: Holds, judge: Judge) {
    let mut site = Site::new(Server::start(), Opens::EachTime).await;
    for _ in 0..ROUNDS {
        let directory = site.directory();
        site.round(holds, command("sh", &directory, &["-ec", script])).await;
        // A line that was written to the file before is read within the grace.
        site.wait(GRACE).await;
    }
    site.end(judge).await;
}

/// The writer holds still while a tool works: nothing is lost, and nothing comes again.
async fn continues(script: &str) {
    edit(script, Holds::Always, Judge::default()).await;
}

#[tokio::test]
async fn sed_in_place_continues_after_what_was_read() {
    continues(SED).await;
}

#[tokio::test]
async fn sed_in_place_with_a_backup_continues_after_what_was_read() {
    continues(SED_WITH_BACKUP).await;
}

#[tokio::test]
async fn the_tail_of_a_log_that_is_renamed_onto_it_continues_after_what_was_read() {
    // The head is gone, so that content alone proves nothing to a reader that was away.
    let mut site = Site::new(Server::start(), Opens::EachTime).await;
    for _ in 0..ROUNDS {
        let held = site.writer.hold().await;
        let directory = site.directory();
        site.run(command("sh", &directory, &["-ec", TAIL])).await;
        drop(held);
        site.wait(GRACE).await;
    }
    site.end(Judge::default()).await;
}

#[tokio::test]
#[ignore = "needs vim"]
async fn vim_saves_a_log_as_a_new_file_whose_lines_all_come_after_an_event() {
    edit(VIM, Holds::Always, Judge { may_repeat: true, ..Judge::default() }).await;
}

/// vim writes what it has read, and the lines that are written meanwhile are lost.
#[tokio::test]
#[ignore = "needs vim"]
async fn vim_saves_a_log_while_lines_are_written_and_nothing_is_lost_in_silence() {
    let in_place = VIM.replace("-c 'wq!'", "-c 'set backupcopy=yes' -c 'wq!'");
    for script in [VIM, &in_place] {
        println!("{script}");
        edit(script, Holds::Never, Judge { may_lose: true, may_repeat: true, overwrites: true }).await;
    }
}

/// A tool removes lines that are written while it works.
#[tokio::test]
async fn tools_that_work_while_lines_are_written_lose_nothing_in_silence() {
    for script in [SED, SED_WITH_BACKUP, TAIL] {
        println!("{script}");
        edit(script, Holds::WhileCut, Judge { may_lose: true, may_repeat: true, ..Judge::default() }).await;
    }
}

/// A writer writes elsewhere, and rsync brings the log up to date.
async fn copy_by_rsync(arguments: &[&str]) {
    let server = Server::start();
    let source = server.directory().join("source");
    fs::create_dir(&source).unwrap();
    let writer = Writer::start(source.join(LOG), Opens::EachTime);
    let mut follower = Follower::new(&server, LOG);
    follower.resume().await;
    let mut site = Site { follower, writer, random: fastrand::Rng::with_seed(7), server };
    let directory = site.server.directory().to_owned();
    let copy = || command("rsync", &directory, &[arguments, &["source/app.log", "logs/app.log"]].concat());
    let count = || fs::read_to_string(source.join(LOG)).unwrap_or_default().lines().count();
    until("lines to copy", async || count() >= ENOUGH).await;
    site.run(copy()).await;
    site.follower.read_until(ENOUGH).await;
    for _ in 0..ROUNDS {
        site.round(Holds::Never, copy()).await;
    }
    // What the writer wrote since is not in the copy yet.
    let held = site.writer.hold().await;
    site.run(copy()).await;
    let copied = fs::read_to_string(site.server.log_file(LOG)).unwrap().lines().count();
    drop(held);
    site.writer.end();
    site.follower.resume().await;
    site.follower.read_until(copied).await;
    site.follower.judge(copied, Judge::default()).await;
}

#[tokio::test]
#[ignore = "needs rsync"]
async fn rsync_continues_after_what_was_read() {
    copy_by_rsync(&["--times"]).await;
}

#[tokio::test]
#[ignore = "needs rsync"]
async fn rsync_with_backups_continues_after_what_was_read() {
    copy_by_rsync(&["--times", "--backup"]).await;
}

#[tokio::test]
#[ignore = "needs rsync"]
async fn rsync_in_place_continues_after_what_was_read() {
    copy_by_rsync(&["--times", "--inplace"]).await;
}

#[tokio::test]
async fn a_link_that_ln_points_to_the_next_file_is_followed() {
    let server = Server::start();
    fs::write(server.log_file("app-0.log"), "").unwrap();
    symlink("app-0.log", server.log_file(LOG)).unwrap();
    let flag = server.directory().join("reopen");
    let mut site = Site::new(server, Opens::AskedBy(flag.clone())).await;
    for round in 1..=ROUNDS {
        let script =
            format!("touch app-{round}.log; ln -sfn app-{round}.log app.log; touch '{}'", flag.display());
        let directory = site.directory();
        site.round(Holds::Never, command("sh", &directory, &["-ec", &script])).await;
    }
    site.end(Judge::default()).await;
}
