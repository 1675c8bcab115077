//! `perennial lines`: several files, pipes, and (in [`resume`]) runs that are stopped, killed and started again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod filter;
mod fleet;
#[path = "../harness/mod.rs"]
mod harness;
mod history;
mod resume;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Output, Stdio},
};

use harness::{Server, append, signal, wait};
use rustix::process::Signal;

/// A running client.
struct Run {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Run {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let mut command = server.client(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Sends a signal, and returns the exit code, the rest of stdout, and stderr.
    fn end(mut self, how: Signal) -> (Option<i32>, String, String) {
        signal(&self.child, how);
        let (mut rest, mut said) = (String::new(), String::new());
        self.out.read_to_string(&mut rest).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (wait(&mut self.child).code(), rest, said)
    }
}

/// Runs to the end: the exit code, stdout, stderr.
fn ran(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = server.client(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn each_line_of_several_files_carries_the_name_of_its_file() {
    let server = Server::start();
    append(&server.log_file("a.log"), "1\n2\n");
    append(&server.log_file("b.log"), "3");
    let sorted = |arguments: &[&str]| {
        let (code, out, said) = ran(&server, arguments);
        assert_eq!((code, said.as_str()), (Some(0), ""));
        let mut lines = out.lines().map(str::to_owned).collect::<Vec<_>>();
        lines.sort();
        lines
    };
    let both = ["lines", "logs/a.log", "logs/b.log"];
    assert_eq!(sorted(&both), ["logs/a.log: 1", "logs/a.log: 2", "logs/b.log: 3"]);
    assert_eq!(sorted(&[&both[..], &["-n", "1"]].concat()), ["logs/a.log: 2", "logs/b.log: 3"]);
    assert_eq!(sorted(&[&both[..], &["--limit", "1"]].concat()), ["logs/a.log: 1", "logs/b.log: 3"]);
    assert_eq!(sorted(&[&both[..], &["-q"]].concat()), ["1", "2", "3"]);
    assert_eq!(sorted(&[&both[..], &["-o", "raw", "--no-names"]].concat()), ["1", "2", "3"]);
    assert_eq!(sorted(&["lines", "logs/b.log", "-H"]), ["logs/b.log: 3"]);
    let objects = sorted(&[&["-o", "ndjson"][..], &both].concat());
    assert_eq!(objects[0], r#"{"path":"logs/a.log","offset":0,"number":1,"text":"1"}"#);
    assert_eq!(ran(&server, &[&["-o", "raw"][..], &both].concat()).0, Some(2));
    assert_eq!(ran(&server, &["lines", "logs/a.log", "logs/a.log"]).0, Some(2));
}

#[test]
fn long_lines_of_two_files_are_not_mixed() {
    let server = Server::start();
    let long = |letter: &str| format!("{}\n", letter.repeat(20_000)).repeat(50);
    append(&server.log_file("a.log"), &long("a"));
    append(&server.log_file("b.log"), &long("b"));
    let (code, out, said) =
        ran(&server, &["lines", "logs/a.log", "logs/b.log", "-q", "--max-batch", "3", "--max-line", "999"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(out.lines().count(), 100);
    assert!(out.lines().all(|line| line == "a".repeat(20_000) || line == "b".repeat(20_000)));
}

#[test]
fn an_error_of_one_file_does_not_end_the_others() {
    let server = Server::start();
    append(&server.log_file("a.log"), "1\n");
    append(&server.log_file("b.log"), "2\n");
    let arguments = ["lines", "-f", "logs/a.log", "logs/absent.log", "logs/b.log", "-q", "--limit", "2"];
    let mut run = Run::start(&server, &arguments);
    let mut first = [run.line(), run.line()];
    first.sort();
    assert_eq!(first, ["1", "2"]);
    append(&server.log_file("b.log"), "3\n");
    assert_eq!(run.line(), "3");
    append(&server.log_file("a.log"), "4\n");
    assert_eq!(run.line(), "4");
    let mut said = String::new();
    run.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(wait(&mut run.child).code(), Some(64 + 5), "{said}");
    assert_eq!(said.matches("error:").count(), 1, "{said}");
    assert!(said.contains("logs/absent.log"), "{said}");
}

#[test]
fn ctrl_c_prints_a_command_a_file() {
    let server = Server::start();
    append(&server.log_file("a.log"), "1\n");
    append(&server.log_file("b.log"), "2\n");
    let mut run = Run::start(&server, &["lines", "-f", "logs/a.log", "logs/b.log"]);
    let mut first = [run.line(), run.line()];
    first.sort();
    assert_eq!(first, ["logs/a.log: 1", "logs/b.log: 2"]);
    let (code, _, said) = run.end(Signal::INT);
    assert_eq!(code, Some(130));
    let commands = said.lines().collect::<Vec<_>>();
    assert_eq!(commands.len(), 2, "{said}");
    append(&server.log_file("a.log"), "3\n");
    append(&server.log_file("b.log"), "4\n");
    for (command, expected) in commands.into_iter().zip(["logs/a.log: 3\n", "logs/b.log: 4\n"]) {
        let arguments = command.split_whitespace().skip(1).chain(["--limit", "1"]).collect::<Vec<_>>();
        assert_eq!(ran(&server, &arguments), (Some(0), expected.into(), String::new()), "{command}");
    }
}

#[test]
fn a_connection_of_several_files_is_reported_lost_once_and_resumed_once() {
    let mut server = Server::start();
    let names = ["a.log", "b.log", "c.log"];
    for name in names {
        append(&server.log_file(name), "1\n");
    }
    let arguments = ["lines", "-f", "-q", "logs/a.log", "logs/b.log", "logs/c.log"];
    let mut run = Run::start(&server, &arguments);
    for _ in names {
        assert_eq!(run.line(), "1");
    }
    server.kill();
    // A file that is gone when the server is back fails, and the others resume.
    fs::remove_file(server.log_file("b.log")).unwrap();
    server.restart();
    for name in ["a.log", "c.log"] {
        append(&server.log_file(name), "2\n");
        assert_eq!(run.line(), "2");
    }
    let mut said = BufReader::new(run.child.stderr.take().unwrap());
    let mut text = String::new();
    while !(text.contains("-- resumed --") && text.contains("error:")) {
        assert!(said.read_line(&mut text).unwrap() > 0, "{text}");
    }
    signal(&run.child, Signal::INT);
    said.read_to_string(&mut text).unwrap();
    assert_eq!(wait(&mut run.child).code(), Some(130), "{text}");
    assert_eq!(text.matches("connection lost").count(), 1, "{text}");
    assert_eq!(text.matches("-- resumed --").count(), 1, "{text}");
    assert!(text.contains("logs/b.log"), "{text}");
}

#[test]
fn ctrl_c_prints_no_command_for_a_file_that_has_reached_its_limit() {
    let server = Server::start();
    append(&server.log_file("a.log"), "1\n2\n");
    append(&server.log_file("b.log"), "3\n");
    let arguments = ["lines", "-f", "-q", "--limit", "2", "logs/a.log", "logs/b.log"];
    let mut run = Run::start(&server, &arguments);
    let mut lines = [run.line(), run.line(), run.line()];
    lines.sort();
    assert_eq!(lines, ["1", "2", "3"]);
    let (code, _, said) = run.end(Signal::INT);
    assert_eq!(code, Some(130));
    assert!(said.contains("lines logs/b.log -f --limit 1 ") && !said.contains("logs/a.log"), "{said}");
}

#[test]
fn a_quiet_stream_ends_when_its_pipe_has_no_reader() {
    let server = Server::start();
    append(&server.log_file("app.log"), "1\n");
    for arguments in [&["lines", "-f", "logs/app.log"][..], &["messages", "a"]] {
        let mut run = Run::start(&server, arguments);
        if arguments.contains(&"-f") {
            assert_eq!(run.line(), "1");
        }
        drop(run.out);
        assert_eq!(wait(&mut run.child).code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn more_files_than_a_connection_carries_are_read_at_once() {
    let server = Server::start_with(&["--max-streams-per-connection", "100"]);
    let names = (0..101).map(|n| format!("logs/{n}.log")).collect::<Vec<_>>();
    for name in &names {
        append(&server.log_file(name.strip_prefix("logs/").unwrap()), "1\n");
    }
    let arguments = ["lines", "-f", "-q"].into_iter().chain(names.iter().map(String::as_str));
    let mut run = Run::start(&server, &arguments.collect::<Vec<_>>());
    (0..names.len()).for_each(|_| assert_eq!(run.line(), "1"));
    assert_eq!(run.end(Signal::INT).0, Some(130));
}

#[test]
fn a_call_without_an_answer_ends_at_the_first_signal() {
    let server = Server::start();
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = mute.local_addr().unwrap().to_string();
    let run = Run::start(&server, &["files", "--server", &url]);
    let _connection = mute.accept().unwrap();
    assert_eq!(run.end(Signal::TERM).0, Some(130));
}

#[test]
fn long_lines_are_split_truncated_or_skipped() {
    let server = Server::start();
    append(&server.log_file("app.log"), &format!("short\n{}\nlast\n", "x".repeat(300)));
    let read =
        |what: &str| ran(&server, &["lines", "logs/app.log", "--max-line", "100", "--long-line", what]);
    assert_eq!(read("split").1, format!("short\n{}\nlast\n", "x".repeat(300)));
    assert_eq!(read("truncate").1, format!("short\n{}\nlast\n", "x".repeat(100)));
    let (code, out, said) = read("skip");
    assert_eq!((code, out.as_str()), (Some(0), "short\nlast\n"));
    assert_eq!(said, "-- line 2 skipped: longer than 100 bytes --\n");
}

#[test]
fn lines_end_where_the_delimiter_says() {
    let server = Server::start();
    append(&server.log_file("names"), "a\nb\0c\0d");
    let arguments = ["lines", "logs/names", "--delimiter", r"\0"];
    assert_eq!(ran(&server, &[&["-o", "raw"][..], &arguments].concat()).1, "a\nb\0c\0d");
    assert_eq!(ran(&server, &[&arguments[..], &["-n", "2"]].concat()).1, "c\nd\n");
}

#[test]
fn a_file_that_does_not_exist_yet_is_awaited() {
    let server = Server::start();
    append(&server.log_file("here.log"), "1\n");
    let mut run = Run::start(&server, &["lines", "-F", "logs/coming.log", "logs/here.log"]);
    assert_eq!(run.line(), "logs/here.log: 1");
    append(&server.log_file("coming.log"), "2\n");
    assert_eq!(run.line(), "logs/coming.log: 2");
    fs::rename(server.log_file("coming.log"), server.log_file("coming.log.1")).unwrap();
    append(&server.log_file("coming.log"), "3\n");
    assert_eq!(run.line(), "logs/coming.log: 3");
    let (code, _, said) = run.end(Signal::INT);
    assert_eq!(code, Some(130));
    assert!(said.contains("-- logs/coming.log: opened: "), "{said}");
    assert!(said.contains("-- logs/coming.log: rotated: "), "{said}");
    assert!(said.lines().last().unwrap().contains("lines logs/here.log -H -F --cursor "), "{said}");
}

#[test]
fn an_unfinished_line_is_shown_in_part() {
    let server = Server::start();
    append(&server.log_file("a.log"), "login: ");
    append(&server.log_file("b.log"), "");
    let flushed = ["lines", "-f", "--partial-flush", "20ms", "logs/a.log", "logs/b.log"];
    let mut run = Run::start(&server, &flushed);
    let mut part = [0; 19];
    run.out.read_exact(&mut part).unwrap();
    assert_eq!(&part, b"logs/a.log: login: ");
    append(&server.log_file("b.log"), "other\n");
    assert_eq!([run.line(), run.line()], ["", "logs/b.log: other"]);
    append(&server.log_file("a.log"), "root\n");
    assert_eq!(run.line(), "logs/a.log: root");
    assert_eq!(run.end(Signal::INT).0, Some(130));
}

#[test]
fn a_growing_file_is_listed_as_growing() {
    let server = Server::start();
    append(&server.log_file("app.log"), "1\n");
    let (_, out, _) = ran(&server, &["files"]);
    let fields = out.split_whitespace().collect::<Vec<_>>();
    assert_eq!((fields[0], &fields[3..]), ("2", &["growing", "logs/app.log"][..]), "{out}");
    assert!(fields[1].ends_with('Z') && fields[1].starts_with("20"), "{out}");
    let object: serde_json::Value =
        serde_json::from_str(&ran(&server, &["-o", "ndjson", "files"]).1).unwrap();
    assert_eq!((&object["growing"], &object["size"]), (&true.into(), &2.into()));
}
