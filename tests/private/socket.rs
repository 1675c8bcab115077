//! A socket in the file system: only the accounts that its permissions name use the server.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{
    output::{run, stderr, stdout},
    server_command, signal, wait,
};

/// A directory with a root and the path of a socket.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("logs")).unwrap();
        Self(directory)
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("p.sock")
    }

    fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// A server that listens on the socket.
    fn start(&self, options: &[&str]) -> Running {
        let mut command = server_command(self.0.path(), &self.address());
        let mut child = command.args(options).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let line = lines.find(|line| line.contains("listening on "));
        assert!(line.is_some_and(|line| line.ends_with(&format!("listening on {}", self.address()))));
        // It would wait for a reader of its log.
        std::thread::spawn(move || lines.for_each(drop));
        Running(child)
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_perennial"));
        command.args(["--server", &self.address()]).args(arguments).stdin(Stdio::null());
        command
    }
}

#[test]
fn a_server_serves_on_an_address_and_on_a_socket_at_once() {
    let place = Place::new();
    let mut command = server_command(place.0.path(), "127.0.0.1:0");
    let mut child = command.args(["--listen", &place.address()]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut urls = Vec::new();
    while urls.len() < 2 {
        let line = lines.next().unwrap();
        urls.extend(line.split_once("listening on ").map(|(_, url)| url.to_owned()));
    }
    std::thread::spawn(move || lines.for_each(drop));
    let mut server = Running(child);
    assert!(urls[0].starts_with("http://127.0.0.1:") && urls[1] == place.address(), "{urls:?}");
    // The messages of one are those of the other.
    for (number, url) in urls.iter().chain(&urls).enumerate() {
        let mut command = Command::new(env!("CARGO_BIN_EXE_perennial"));
        command.args(["--server", url, "publish", "a", "x"]).stdin(Stdio::null());
        assert_eq!(stdout(&run(&mut command)), format!("{}\n", number + 1));
    }
    signal(&server.0, Signal::TERM);
    assert!(wait(&mut server.0).success() && !place.socket().exists());
}

/// A server, which is killed at the end of its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_socket_serves_all_that_an_address_serves_to_its_owner_alone() {
    let place = Place::new();
    let mut server = place.start(&[]);
    assert_eq!(mode(&place.socket()), 0o600);
    std::fs::write(place.0.path().join("logs/a"), "one\ntwo\n").unwrap();
    for (arguments, expected) in [
        (&["health"][..], "SERVING\n"),
        (&["lines", "logs/a"], "one\ntwo\n"),
        (&["-o", "raw", "countdown", "1", "--interval", "1ms", "--burst"], "1\n0\n"),
    ] {
        let output = run(&mut place.client(arguments));
        assert_eq!(stdout(&output), expected, "{}", stderr(&output));
    }
    signal(&server.0, Signal::TERM);
    assert_eq!(wait(&mut server.0).code(), Some(0));
    assert!(!place.socket().exists(), "it is removed");
    let absent = run(&mut place.client(&["health"]));
    assert_eq!(absent.status.code(), Some(64 + 14));
    assert!(stderr(&absent).contains("no socket is there"), "{}", stderr(&absent));
}

#[test]
fn a_socket_of_a_server_that_was_killed_is_replaced_and_one_in_use_is_not() {
    let place = Place::new();
    let mut killed = place.start(&["--socket-mode", "660"]);
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    assert!(place.socket().exists());
    let dead = run(&mut place.client(&["health"]));
    assert!(stderr(&dead).contains("start one with: perenniald"), "{}", stderr(&dead));

    let _server = place.start(&["--socket-mode", "660"]);
    assert_eq!(mode(&place.socket()), 0o660);
    let other = Place::new();
    let refused = run(&mut server_command(other.0.path(), &place.address()));
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("another process listens there"), "{}", stderr(&refused));
    assert_eq!(stdout(&run(&mut place.client(&["health"]))), "SERVING\n");
}

#[test]
fn a_stream_over_a_socket_resumes_after_a_restart() {
    let place = Place::new();
    let mut server = place.start(&[]);
    let mut client = place
        .client(&["-o", "raw", "countdown", "1000000", "--interval", "20ms", "--burst"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut numbers = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(numbers.next().unwrap(), "1000000");
    signal(&server.0, Signal::TERM);
    wait(&mut server.0);
    let seen =
        std::thread::spawn(move || numbers.take(20).map(|it| it.parse::<u32>().unwrap()).collect::<Vec<_>>());
    let _server = place.start(&[]);
    let seen = seen.join().unwrap();
    assert!(seen.len() == 20 && seen.windows(2).all(|pair| pair[0] == pair[1] + 1), "{seen:?}");
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn settings_of_a_socket_that_cannot_work_are_refused() {
    let place = Place::new();
    for (options, code, fault) in [
        (&["--socket-mode", "rw"][..], 2, "write 600, 660 or 666"),
        (&["--socket-mode", "1777"], 2, "write 600, 660 or 666"),
        (&["--tls-cert", "a", "--tls-key", "b"], 2, "has no TLS, and needs none"),
    ] {
        let output = run(server_command(place.0.path(), &place.address()).args(options));
        assert_eq!(output.status.code(), Some(code), "{options:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(fault), "{options:?}: {}", stderr(&output));
    }
    std::fs::write(place.socket(), "data").unwrap();
    let output = run(&mut server_command(place.0.path(), &place.address()));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("not a socket"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(place.socket()).unwrap(), "data");
}

#[test]
#[ignore = "needs grpcurl"]
fn grpcurl_calls_a_server_over_a_socket() {
    let place = Place::new();
    let _server = place.start(&[]);
    // Version 1.9.3 takes a path after -unix only as a URL.
    let url = format!("unix://{}", place.socket().display());
    for target in [&["-unix", &url][..], &[&place.address()]] {
        let mut grpcurl = Command::new("grpcurl");
        grpcurl
            .args(["-plaintext", "-d", r#"{"start": 1, "interval": "0.01s", "onLag": "ON_LAG_BURST"}"#])
            .args(target);
        let output = run(grpcurl.arg("perennial.v1.CountdownService/Countdown"));
        assert_eq!(stdout(&output).matches("\"remaining\"").count(), 2, "{target:?}: {}", stderr(&output));
    }
}
