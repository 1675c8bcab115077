//! `perennial countdown` and its commands for shared countdowns, as people and scripts use them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, ChildStdout, Stdio},
    sync::mpsc,
    thread,
};

use harness::{
    PATIENCE, Server,
    output::{printed, run, stderr},
    signal, wait,
};
use serde_json::Value;

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A command that prints one countdown, as an object.
fn object(server: &Server, arguments: &[&str]) -> Value {
    let all = objects(&printed(server, &[&["-o", "ndjson", "countdown"], arguments].concat()));
    assert_eq!(all.len(), 1, "{arguments:?}: {all:?}");
    all.into_iter().next().unwrap()
}

/// The exit code of a command that fails, and what it said.
fn refused(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(&mut server.client(&[&["countdown"], arguments].concat()));
    assert!(output.stdout.is_empty(), "{arguments:?}");
    (output.status.code(), stderr(&output))
}

/// A watcher, whose lines are read as they come.
struct Watcher {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

struct Lines(mpsc::Receiver<String>);

impl Lines {
    fn of(source: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        let lines = BufReader::new(source).lines().map_while(Result::ok);
        thread::spawn(move || lines.into_iter().try_for_each(|line| sender.send(line)));
        Self(receiver)
    }

    fn next(&self) -> String {
        self.0.recv_timeout(PATIENCE).expect("nothing more is printed")
    }

    fn until(&self, wanted: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let Ok(line) = self.0.recv_timeout(PATIENCE) else { panic!("no {wanted:?} in {seen:#?}") };
            if line.contains(wanted) {
                return line;
            }
            seen.push(line);
        }
    }
}

impl Watcher {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let mut child =
            server.client(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout: ChildStdout = child.stdout.take().unwrap();
        let stderr: ChildStderr = child.stderr.take().unwrap();
        Self { child, stdout: Lines::of(stdout), stderr: Lines::of(stderr) }
    }

    fn code(&mut self) -> Option<i32> {
        wait(&mut self.child).code()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_countdown_prints_numbers_and_their_lateness() {
    let server = Server::start();
    let own = ["-o", "raw", "countdown", "2", "--interval", "20ms", "--burst"];
    assert_eq!(printed(&server, &own), "2\n1\n0\n");
    let late = printed(&server, &["countdown", "1", "--interval", "20ms", "--burst", "--lateness"]);
    for (line, number) in late.lines().zip(["1  sent ", "0  sent "]) {
        assert!(line.starts_with(number) && line.contains(" ms late, arrived "), "{late}");
    }
    let until = printed(&server, &["-o", "raw", "countdown", "--until", "+1s", "--interval", "100ms"]);
    assert!(until.ends_with("1\n0\n"), "{until}");
}

#[test]
fn a_duration_counts_its_seconds_or_its_intervals() {
    let server = Server::start();
    let first = |arguments: &[&str]| {
        printed(&server, &[&["-o", "raw", "countdown", "--limit", "1"], arguments].concat())
    };
    assert_eq!(first(&["5m"]), "300\n");
    assert_eq!(first(&["1h30m"]), "5400\n");
    assert_eq!(first(&["1h", "30m"]), "5400\n");
    assert_eq!(first(&["90s", "--interval", "500ms"]), "180\n");
    assert_eq!(first(&["7"]), "7\n");
    let all = printed(&server, &["-o", "raw", "countdown", "60ms", "--interval", "20ms", "--burst"]);
    assert_eq!(all, "3\n2\n1\n0\n");
}

#[test]
fn a_time_of_day_counts_towards_the_next_such_moment() {
    let server = Server::start();
    let seconds_left = |arguments: &[&str]| {
        let text = printed(&server, &[&["-o", "raw", "countdown", "--limit", "1"], arguments].concat());
        text.trim().parse::<i64>().unwrap()
    };
    let day = 24 * 60 * 60;
    // A day with a step of an hour is the longest.
    for time in [&["00:00"][..], &["12:00", "Europe/Berlin"], &["9am"]] {
        assert!((0..=day + 3_600).contains(&seconds_left(time)), "{time:?}");
    }
    assert!(seconds_left(&["tomorrow", "11:59pm"]) >= day - 3_600);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((0..=1_000).contains(&seconds_left(&[&format!("@{}", now + 1_000)])));
}

#[test]
fn an_ambiguous_count_is_refused_with_a_remedy() {
    let server = Server::start();
    for (arguments, remedy) in [
        (&["5:00"][..], "05:00"),
        (&["1500ms"], "--interval 500ms"),
        (&["5m", "--to", "1"], "write a number"),
        (&["18:00", "--align"], "not with a time"),
        (&["yesterday"], "in the past"),
        (&["99999999999"], "@99999999999"),
    ] {
        let (code, said) = refused(&server, arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(remedy), "{arguments:?}: {said}");
    }
}

#[test]
fn wrong_usage_is_refused_without_a_call() {
    let server = Server::start();
    for arguments in [
        &["10", "--name", "launch"][..],
        &["lst"],
        &["10", "list"],
        &["create", "launch"],
        &["create", "launch", "1m", "--text", "x"],
        &["extend", "launch", "soon"],
    ] {
        let (code, said) = refused(&server, arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
    }
}

#[test]
fn a_shared_countdown_is_created_changed_and_deleted() {
    let server = Server::start();
    let made =
        object(&server, &["create", "launch", "10m", "--interval", "500ms", "--to", "1", "--step", "2"]);
    assert_eq!(made["name"], "launch");
    assert_eq!(made["state"], "COUNTDOWN_STATE_RUNNING");
    assert_eq!((&made["interval"], &made["to"], &made["step"]), (&"0.5s".into(), &1.into(), &2.into()));
    assert_eq!(made["totalDuration"], "600s");
    assert!(made["endTime"].is_string() && made["onEnd"].is_null());

    let paused = object(&server, &["pause", "launch", "--version", &made["version"].to_string()]);
    assert_eq!(paused["state"], "COUNTDOWN_STATE_PAUSED");
    assert!(paused["endTime"].is_null() && paused["version"].as_i64() > made["version"].as_i64());
    let shorter = object(&server, &["extend", "launch", "-30s"]);
    assert_eq!(shorter["totalDuration"], "570s");
    let longer = object(&server, &["extend", "launch", "1m"]);
    assert_eq!(longer["totalDuration"], "630s");
    assert_eq!(object(&server, &["resume", "launch"])["state"], "COUNTDOWN_STATE_RUNNING");

    let line = printed(&server, &["countdown", "get", "launch"]);
    let words = line.split_whitespace().collect::<Vec<_>>();
    assert_eq!((words[0], *words.last().unwrap()), ("running", "launch"), "{line}");
    assert!(line.contains("10m ") && line.contains('Z') && line.contains("version"), "{line}");

    assert_eq!(object(&server, &["cancel", "launch"])["state"], "COUNTDOWN_STATE_CANCELLED");
    assert_eq!(printed(&server, &["countdown", "delete", "launch"]), "");
    assert_eq!(printed(&server, &["countdown", "list"]), "");
}

#[test]
fn shared_countdowns_are_listed_by_name() {
    let server = Server::start();
    for name in ["b", "a.1", "c"] {
        assert_eq!(printed(&server, &["-o", "raw", "countdown", "create", name, "1h"]), format!("{name}\n"));
    }
    assert_eq!(printed(&server, &["-o", "raw", "countdown", "list"]), "a.1\nb\nc\n");
    let all = objects(&printed(&server, &["countdown", "-o", "ndjson", "list"]));
    assert!(all.iter().all(|it| it["state"] == "COUNTDOWN_STATE_RUNNING"), "{all:?}");
    assert_eq!(printed(&server, &["countdown", "list"]).lines().count(), 3);
}

#[test]
fn errors_of_shared_countdowns_have_their_exit_codes() {
    let server = Server::start();
    for arguments in
        [&["get", "absent"][..], &["pause", "absent"], &["delete", "absent"], &["--name", "absent"]]
    {
        let (code, said) = refused(&server, arguments);
        assert_eq!(code, Some(64 + 5), "{arguments:?}: {said}");
        assert!(said.contains("COUNTDOWN_NOT_FOUND"), "{said}");
    }
    let made = object(&server, &["create", "launch", "1h", "--request-id", "one"]);
    let (code, said) = refused(&server, &["create", "launch", "1h"]);
    assert_eq!(code, Some(64 + 6), "{said}");
    assert!(said.contains("COUNTDOWN_EXISTS"), "{said}");
    let again = run(&mut server.client(&["countdown", "create", "launch", "1h", "--request-id", "one"]));
    assert!(again.status.success() && stderr(&again).contains("existed already"), "{}", stderr(&again));

    object(&server, &["pause", "launch"]);
    let version = made["version"].to_string();
    let (code, said) = refused(&server, &["resume", "launch", "--version", &version]);
    assert_eq!(code, Some(64 + 10), "{said}");
    assert!(said.contains("VERSION_MISMATCH"), "{said}");
    object(&server, &["cancel", "launch"]);
    let (code, said) = refused(&server, &["resume", "launch"]);
    assert_eq!(code, Some(64 + 9), "{said}");
    assert!(said.contains("COUNTDOWN_OVER"), "{said}");
}

#[test]
fn a_watcher_prints_numbers_and_reports_changes() {
    let server = Server::start();
    object(&server, &["create", "launch", "1h", "--interval", "50ms"]);
    let mut watcher = Watcher::start(&server, &["countdown", "--name", "launch"]);
    watcher.stderr.until("launch is running");
    let first = watcher.stdout.next().parse::<i32>().unwrap();
    assert!(watcher.stdout.next().parse::<i32>().unwrap() < first);
    object(&server, &["pause", "launch"]);
    watcher.stderr.until("paused");
    object(&server, &["extend", "launch", "90s"]);
    watcher.stderr.until("extended by 1m 30s");
    object(&server, &["extend", "launch", "-30s"]);
    watcher.stderr.until("shortened by 30s");
    object(&server, &["resume", "launch"]);
    watcher.stderr.until("resumed");
    object(&server, &["cancel", "launch"]);
    watcher.stderr.until("cancelled");
    assert_eq!(watcher.code(), Some(0));
    // A watcher that comes later gets the state.
    let late = run(&mut server.client(&["countdown", "--name", "launch"]));
    assert!(late.status.success() && late.stdout.is_empty());
    assert!(stderr(&late).contains("launch was cancelled"), "{}", stderr(&late));
}

#[test]
fn a_watcher_prints_changes_as_objects() {
    let server = Server::start();
    let made = object(&server, &["create", "launch", "1h", "--interval", "50ms"]);
    let mut watcher = Watcher::start(&server, &["-o", "ndjson", "countdown", "--name", "launch"]);
    let next = |key: &str| {
        let line = watcher.stdout.until(&format!("\"{key}\":"));
        serde_json::from_str::<Value>(&line).unwrap()[key].clone()
    };
    let countdown = next("countdown");
    assert_eq!((&countdown["name"], &countdown["version"]), (&made["name"], &made["version"]));
    let tick = serde_json::from_str::<Value>(&watcher.stdout.until("remainingDuration")).unwrap();
    assert_eq!(tick["state"], "COUNTDOWN_STATE_RUNNING");
    assert_eq!((&tick["version"], &tick["endTime"]), (&made["version"], &made["endTime"]));
    object(&server, &["pause", "launch"]);
    let changed = next("changed");
    assert_eq!(changed["change"], "COUNTDOWN_CHANGE_PAUSED");
    assert_eq!(changed["previousVersion"], made["version"]);
    assert_eq!(next("countdown")["state"], "COUNTDOWN_STATE_PAUSED");
    object(&server, &["cancel", "launch"]);
    assert_eq!(next("changed")["change"], "COUNTDOWN_CHANGE_CANCELLED");
    assert_eq!(watcher.code(), Some(0));
}

#[test]
fn a_countdown_that_ends_publishes_its_message_and_ends_its_watchers() {
    let server = Server::start();
    let file = server.directory().join("bytes");
    std::fs::write(&file, [0xff]).unwrap();
    let make = |name: &str, message: &[&str]| {
        let create = ["create", name, "--from", "3", "--interval", "100ms", "--on-end", name];
        object(&server, &[&create, message].concat())
    };
    let text = make("text", &["--text", "it is over", "--key", "k", "--header", "a=b"]);
    assert_eq!(text["onEnd"]["headers"]["a"], "b");
    make("data", &["--data-file", file.to_str().unwrap()]);
    let mut watcher = Watcher::start(&server, &["-o", "raw", "countdown", "--name", "text"]);
    watcher.stderr.until("ended at");
    assert_eq!(watcher.code(), Some(0));
    for name in ["text", "data"] {
        let read = ["-o", "ndjson", "messages", name, "--from", "earliest", "--limit", "1"];
        let message = &objects(&printed(&server, &read))[0];
        assert_eq!(message["headers"]["countdown"], name);
        if name == "text" {
            assert_eq!((&message["text"], &message["key"]), (&"it is over".into(), &"k".into()));
            assert_eq!(message["headers"]["a"], "b");
        } else {
            assert_eq!(message["data"], "/w==");
        }
    }
}

#[test]
fn ctrl_c_prints_the_command_that_resumes_watching() {
    let server = Server::start();
    object(&server, &["create", "launch", "1h", "--interval", "50ms"]);
    let mut watcher = Watcher::start(&server, &["-o", "raw", "countdown", "--name", "launch"]);
    let last = watcher.stdout.next().parse::<i32>().unwrap();
    signal(&watcher.child, rustix::process::Signal::INT);
    assert_eq!(watcher.code(), Some(130));
    let command = watcher.stderr.until("--cursor");
    assert!(command.starts_with("perennial -o raw countdown --name launch --cursor "), "{command}");
    let words = command.split_whitespace().skip(1).chain(["--limit", "1"]).collect::<Vec<_>>();
    assert!(printed(&server, &words).trim().parse::<i32>().unwrap() < last);

    // Of another countdown, or of one that was deleted and made again.
    object(&server, &["create", "other", "1h"]);
    let cursor = *command.split_whitespace().collect::<Vec<_>>().last().unwrap();
    let other = refused(&server, &["--name", "other", "--cursor", cursor]);
    assert_eq!(other.0, Some(64 + 9), "{}", other.1);
    assert!(other.1.contains("CURSOR_MISMATCH"), "{}", other.1);
    printed(&server, &["countdown", "delete", "launch"]);
    object(&server, &["create", "launch", "1h"]);
    let again = refused(&server, &["--name", "launch", "--cursor", cursor]);
    assert_eq!(again.0, Some(64 + 9), "{}", again.1);
}

#[test]
fn a_watcher_resumes_by_itself_after_the_server_was_killed() {
    let mut server = Server::start();
    let made = object(&server, &["create", "launch", "1h", "--interval", "50ms"]);
    let watcher = Watcher::start(&server, &["-o", "ndjson", "countdown", "--name", "launch"]);
    watcher.stdout.until("remainingDuration");
    server.kill();
    watcher.stderr.until("connection lost");
    server.restart();
    watcher.stderr.until("resumed");
    assert_eq!(object(&server, &["get", "launch"])["endTime"], made["endTime"]);
    object(&server, &["pause", "launch"]);
    watcher.stdout.until("COUNTDOWN_CHANGE_PAUSED");
}

#[test]
fn a_countdown_that_is_deleted_ends_its_watchers_with_an_error() {
    let server = Server::start();
    object(&server, &["create", "launch", "1h"]);
    let mut watcher = Watcher::start(&server, &["countdown", "--name", "launch"]);
    watcher.stderr.until("launch is running");
    printed(&server, &["countdown", "delete", "launch"]);
    watcher.stderr.until("COUNTDOWN_NOT_FOUND");
    assert_eq!(watcher.code(), Some(64 + 5));
}
