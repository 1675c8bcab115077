//! What watches the files: events that are lost, watches that run out, and how few are needed. All with the real server.

use std::{fs, path::PathBuf, process::Command};

use perennial::proto::{LineGapReason, line_stream_event::Event};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    bed::append,
    harness::{Server, until},
    remote::Remote,
};

fn signal(server: &Server, signal: Signal) {
    let id = Pid::from_raw(server.id().try_into().unwrap()).unwrap();
    kill_process(id, signal).unwrap();
}

/// Stops all its threads: the signal alone only asks them to.
async fn stop(server: &Server) {
    signal(server, Signal::STOP);
    let is_stopped = |task: fs::DirEntry| {
        fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| stat.contains(") T "))
    };
    let tasks = || fs::read_dir(format!("/proc/{}/task", server.id())).unwrap().flatten();
    until("all threads are stopped", async || tasks().all(is_stopped)).await;
}

fn is_rotated(event: &Event) -> bool {
    matches!(event, Event::Rotated(_))
}

/// The file is put aside under the next number, and a new one begins with this line.
fn rotate(server: &Server, old: u32, first_line: &str) {
    for number in (1..=old).rev() {
        let name = |number: u32| server.log_file(&format!("app.log.{number}"));
        let _ = fs::rename(name(number), name(number + 1));
    }
    fs::rename(server.log_file("app.log"), server.log_file("app.log.1")).unwrap();
    append(&server.log_file("app.log"), format!("{first_line}\n"));
}

/// How much its instances of inotify watch, without those that watch nothing.
fn watches(server: &Server) -> Vec<usize> {
    let process = PathBuf::from(format!("/proc/{}", server.id()));
    let is_instance = |name: &std::ffi::OsStr| {
        fs::read_link(process.join("fd").join(name)).is_ok_and(|to| to.ends_with("anon_inode:inotify"))
    };
    let names = fs::read_dir(process.join("fd")).unwrap().map(|entry| entry.unwrap().file_name());
    let watches = |name: std::ffi::OsString| {
        let info = fs::read_to_string(process.join("fdinfo").join(name)).unwrap_or_default();
        info.lines().filter(|line| line.starts_with("inotify wd:")).count()
    };
    names.filter(|name| is_instance(name)).map(watches).filter(|watches| *watches > 0).collect()
}

/// How many descriptors lead to a file.
fn opened(server: &Server, name: &str) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap();
    let path = server.log_file(name);
    descriptors.filter(|it| fs::read_link(it.as_ref().unwrap().path()).is_ok_and(|to| to == path)).count()
}

#[tokio::test]
async fn files_that_came_and_went_before_the_server_opened_them_are_a_gap() {
    let server = Server::start();
    append(&server.log_file("app.log"), "1\n");
    let mut remote = Remote::follow(&server, "app.log").await;
    remote.read_until("1").await;
    stop(&server).await;
    rotate(&server, 0, "2");
    rotate(&server, 1, "3 is lost");
    rotate(&server, 2, "4");
    rotate(&server, 3, "5");
    fs::remove_file(server.log_file("app.log.2")).unwrap();
    signal(&server, Signal::CONT);
    remote.read_until("5").await;
    assert_eq!(remote.lines, ["1", "2", "4", "5"]);
    let reason = LineGapReason::Deleted;
    let gaps =
        remote.events.iter().filter(|event| matches!(event, Event::Gap(gap) if gap.reason() == reason));
    assert_eq!(gaps.count(), 1, "{:?}", remote.events);
    // The gap is reported where it is.
    assert!(
        matches!(remote.events[..], [Event::Rotated(_), Event::Gap(_), Event::Rotated(_), Event::Rotated(_)]),
        "{:?}",
        remote.events
    );
}

#[tokio::test]
async fn no_line_is_lost_and_none_comes_twice_when_the_queue_overflows() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit = limit.trim().parse::<usize>().unwrap();
    let server = Server::start();
    append(&server.log_file("app.log"), "1\n");
    let mut remote = Remote::follow(&server, "app.log").await;
    remote.read_until("1").await;
    stop(&server).await;
    // Two events each, and none like the one before it.
    let fill = |events: usize| {
        for n in 0..events / 2 {
            let other = server.log_file(&format!("app.log.other-{n}"));
            fs::write(&other, "").unwrap();
            fs::remove_file(other).unwrap();
        }
    };
    append(&server.log_file("app.log"), "2\n");
    fill(limit / 2);
    rotate(&server, 0, "3");
    fill(limit);
    rotate(&server, 1, "4");
    append(&server.log_file("app.log"), "5\n");
    signal(&server, Signal::CONT);
    server.wait_for_log("queue overflowed");
    remote.read_until("5").await;
    assert_eq!(remote.lines, ["1", "2", "3", "4", "5"]);
    assert_eq!((remote.events.len(), remote.events.iter().all(is_rotated)), (2, true), "{:?}", remote.events);
    // And it is watched as before.
    append(&server.log_file("app.log"), "6\n");
    rotate(&server, 2, "7");
    remote.read_until("7").await;
    assert_eq!(remote.lines[5..], ["6", "7"]);
}

/// After an overflow the files that came meanwhile are looked for by their names: another log's are not among them.
#[tokio::test]
async fn no_line_of_another_log_comes_when_the_queue_overflows() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit = limit.trim().parse::<usize>().unwrap();
    let server = Server::start();
    let pairs = [("node1", "node10"), ("task.stdout.1", "task.stdout.10"), ("access", "access-20")];
    let mut remotes = Vec::new();
    for (name, _) in pairs {
        append(&server.log_file(name), "1\n");
        let mut remote = Remote::follow(&server, name).await;
        remote.read_until("1").await;
        remotes.push(remote);
    }
    stop(&server).await;
    for n in 0..limit / 2 {
        let other = server.log_file(&format!("other-{n}"));
        fs::write(&other, "").unwrap();
        fs::remove_file(other).unwrap();
    }
    for (name, other) in pairs {
        append(&server.log_file(name), "2\n");
        fs::rename(server.log_file(name), server.log_file(&format!("{name}.1"))).unwrap();
        append(&server.log_file(other), "foreign\n");
        append(&server.log_file(&format!("{other}.1")), "foreign\n");
        append(&server.log_file(name), "3\n");
    }
    signal(&server, Signal::CONT);
    server.wait_for_log("queue overflowed");
    for remote in &mut remotes {
        remote.read_until("3").await;
        assert_eq!((&remote.lines[..], remote.events.len()), (&["1", "2", "3"].map(String::from)[..], 1));
    }
}

/// A server in a namespace with a limit of its own.
fn limited(limit: &str) -> Server {
    let script = format!("echo 0 > /proc/sys/user/{limit} && exec \"$@\"");
    Server::start_by(&["unshare", "--user", "--map-root-user", "sh", "-c", &script, "sh"])
}

/// Lines are written, some late, and the file is rotated: all of them come, in order.
async fn loses_nothing(server: &Server) {
    append(&server.log_file("app.log"), "0\n");
    let mut remote = Remote::follow(server, "app.log").await;
    remote.read_until("0").await;
    for round in 1..4 {
        append(&server.log_file("app.log"), format!("{round} before\n"));
        rotate(server, round, &format!("{round} new"));
        append(&server.log_file("app.log.1"), format!("{round} late\n"));
        if round > 1 {
            remote.read_until(&format!("{round} new")).await;
        }
    }
    let rounds = (1..4).flat_map(|round| ["before", "late", "new"].map(|what| format!("{round} {what}")));
    assert_eq!(remote.lines[1..], rounds.collect::<Vec<_>>());
    assert!(remote.events.iter().all(is_rotated), "{:?}", remote.events);
}

#[tokio::test]
#[ignore = "needs user namespaces"]
async fn with_no_watch_left_files_are_polled_and_nothing_is_lost() {
    let server = limited("max_inotify_watches");
    loses_nothing(&server).await;
    server.wait_for_log("no watch: this file is polled");
}

#[tokio::test]
#[ignore = "needs user namespaces"]
async fn with_no_instance_left_files_are_polled_and_nothing_is_lost() {
    let server = limited("max_inotify_instances");
    let says = |line: &String| line.contains("no inotify: followed files are polled");
    assert!(server.startup().iter().any(says), "{:?}", server.startup());
    loses_nothing(&server).await;
}

#[tokio::test]
#[ignore = "needs to mount"]
async fn a_directory_that_is_mounted_over_is_another_one_and_comes_back_without_replay() {
    let server = Server::start_by(&["unshare", "--user", "--map-root-user", "--mount"]);
    let directory = server.log_file("mounted");
    fs::create_dir(&directory).unwrap();
    append(&directory.join("app.log"), "1\n");
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.id(), directory.join("app.log").display()));
    let id = server.id().to_string();
    let run = |command: &[&str]| {
        let nsenter = ["--target", &id, "--user", "--mount", "--preserve-credentials"];
        let status = Command::new("nsenter").args(nsenter).args(command).arg(&directory).status();
        assert!(status.unwrap().success(), "{command:?}");
    };
    let mut remote = Remote::follow(&server, "mounted/app.log").await;
    remote.read_until("1").await;
    run(&["mount", "-t", "tmpfs", "none"]);
    remote.wait_for_event("deleted", |event| matches!(event, Event::Deleted(_))).await;
    append(&inside, "2\n");
    remote.read_until("2").await;
    append(&inside, "3\n");
    remote.read_until("3").await;
    run(&["umount", "--lazy"]);
    append(&directory.join("app.log"), "4\n");
    remote.read_until("4").await;
    assert_eq!(remote.lines, ["1", "2", "3", "4"], "{:?}", remote.events);
}

#[tokio::test]
async fn a_thousand_followers_of_one_file_cost_one_watch() {
    let server = Server::start();
    append(&server.log_file("app.log"), "1\n");
    let mut all = Vec::new();
    for _ in 0..10 {
        let client = server.lines().await;
        for _ in 0..100 {
            all.push(Remote::follow_by(client.clone(), "app.log").await);
        }
    }
    read_all_until(&mut all, "1").await;
    assert_eq!(watches(&server), [1]);
    assert_eq!(opened(&server, "app.log"), 1);
    append(&server.log_file("app.log"), "2\n");
    read_all_until(&mut all, "2").await;
    drop(all);
    until("nothing is watched", async || watches(&server).is_empty() && opened(&server, "app.log") == 0)
        .await;
}

/// Reads all at once: what one that waits its turn has not read takes up the window of its connection, and then those before
/// it get nothing.
async fn read_all_until(all: &mut [Remote], line: &str) {
    futures::future::join_all(all.iter_mut().map(|remote| remote.read_until(line))).await;
}
