//! `-o raw`: the bytes of a file and of a payload, and none besides.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at its first surprise")]

mod harness;

use std::fs;

use harness::{Server, output::run, output::stderr};

/// The bytes that a command prints.
fn raw(server: &Server, arguments: &[&str]) -> Vec<u8> {
    let output = run(&mut server.client(&[&["-o", "raw"], arguments].concat()));
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    output.stdout
}

#[test]
fn raw_lines_are_the_bytes_of_the_file() {
    let server = Server::start();
    let log = server.log_file("app.log");
    for content in [
        &b"one\ntwo\n"[..],
        b"one\r\ntwo\nthree\r\n",
        b"no line break at the end",
        b"one\r\nno line break at the end\r",
        b"\xff\xfe\0\n\n\r\n\x1b[2J\n",
        b"\n",
        b"",
    ] {
        fs::write(&log, content).unwrap();
        assert_eq!(raw(&server, &["lines", "logs/app.log"]), content, "{content:?}");
    }
    fs::write(&log, b"one\r\ntwo\r\nthree").unwrap();
    assert_eq!(raw(&server, &["lines", "logs/app.log", "-n", "2"]), b"two\r\nthree");
    let long = [&b"x".repeat(5_000)[..], b"\r\nlast\r\n"].concat();
    fs::write(&log, &long).unwrap();
    assert_eq!(raw(&server, &["lines", "logs/app.log", "--max-line", "1000"]), long);
}

#[test]
fn a_raw_payload_of_bytes_is_exact_and_one_of_text_is_a_line() {
    let server = Server::start();
    let file = server.directory().join("payload");
    let bytes = b"\xff\0\x1b[2J\r\n\x80";
    fs::write(&file, bytes).unwrap();
    raw(&server, &["publish", "data", "--file", file.to_str().unwrap()]);
    raw(&server, &["publish", "text", "one line"]);
    raw(&server, &["publish", "text", ""]);
    let read = |topic: &str| raw(&server, &["messages", topic, "--from", "earliest", "--until-caught-up"]);
    assert_eq!(read("data"), bytes);
    assert_eq!(read("text"), b"one line\n\n");
    raw(&server, &["publish", "data", "--file", file.to_str().unwrap()]);
    assert_eq!(read("data"), bytes.repeat(2));
}
