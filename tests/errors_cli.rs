//! Errors as `perennial` reports them: sentences for people, and with `-o json` one object a line for programs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
};

use harness::{
    Server, append, free_port,
    output::{printed, run, stderr},
    wait,
};
use serde_json::{Value, json};

/// The exit code of a command that fails, and the errors on stderr.
fn errors(server: &Server, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = run(&mut server.client(arguments));
    assert!(output.stdout.is_empty(), "{arguments:?}");
    (output.status.code(), objects(&stderr(&output)))
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{text}"))).collect()
}

#[test]
fn with_json_an_error_is_one_object_with_all_its_facts() {
    let server = Server::start();
    let absent = ["lines", "logs/absent.log"];
    for format in ["json", "ndjson"] {
        let (code, errors) = errors(&server, &[&["-o", format][..], &absent].concat());
        assert_eq!((code, errors.len()), (Some(64 + 5), 1), "{errors:?}");
        let error = &errors[0];
        let keys = error.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(keys.len(), 6, "{error}");
        assert_eq!((&error["code"], &error["reason"]), (&json!("NOT_FOUND"), &json!("FILE_NOT_FOUND")));
        assert!(error["message"].as_str().unwrap().contains("logs/absent.log"), "{error}");
        assert_eq!(error["retryable"], false);
        assert!(error["metadata"].is_object() && error.get("field").is_some());
    }
    let text = stderr(&run(&mut server.client(&absent)));
    assert!(text.starts_with("error: ") && text.contains("(NotFound, FILE_NOT_FOUND"), "{text}");
}

#[test]
fn every_command_reports_its_errors_as_json() {
    let server = Server::start();
    let closed = format!("127.0.0.1:{}", free_port());
    for (arguments, code, expected) in [
        (
            &["countdown", "--name", "absent"][..],
            64 + 5,
            json!({"code": "NOT_FOUND", "reason": "COUNTDOWN_NOT_FOUND"}),
        ),
        (&["countdown", "get", "absent"], 64 + 5, json!({"code": "NOT_FOUND"})),
        (
            &["messages", "a", "--cursor", "C"],
            64 + 3,
            json!({"reason": "CURSOR_MALFORMED", "field": "cursor"}),
        ),
        (&["publish", "a b", "text"], 64 + 3, json!({"reason": "INVALID_FIELD", "field": "topic"})),
        (&["health", "--server", &closed], 64 + 14, json!({"code": "UNAVAILABLE", "retryable": true})),
        (&["publish", "a", "--file", "/no/such/file"], 1, json!({"code": "UNKNOWN", "reason": null})),
        (&["purge", "a"], 2, json!({"code": "INVALID_ARGUMENT", "field": "--yes"})),
        (&["delete-consumer", "absent"], 64 + 5, json!({"reason": "CONSUMER_NOT_FOUND"})),
        (&["lines", "logs/a", "--resume", "/no/such/file"], 1, json!({"code": "UNKNOWN"})),
    ] {
        let (exit, errors) = errors(&server, &[&["-o", "json"][..], arguments].concat());
        assert_eq!((exit, errors.len()), (Some(code), 1), "{arguments:?}: {errors:?}");
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&errors[0][field], value, "{arguments:?}: {}", errors[0]);
        }
    }
}

/// As a server that is killed before its first response.
#[test]
fn a_call_that_breaks_off_names_the_server_and_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        // Empty SETTINGS of HTTP/2, so that the connection is made and the call leaves.
        socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
        // The preface, the settings, and the beginning of the call.
        socket.read_exact(&mut [0; 150]).unwrap();
    });
    let output =
        run(Command::new(env!("CARGO_BIN_EXE_perennial")).args(["--server", &url, "countdown", "3"]));
    server.join().unwrap();
    let text = stderr(&output);
    assert!(text.starts_with(&format!("error: the call to {url} broke off: ")), "{text}");
}

#[test]
fn wrong_usage_is_reported_as_json_too() {
    let server = Server::start();
    for (arguments, field) in [
        (&["-o", "json", "lines"][..], json!("<ROOT/PATH>...")),
        (&["lines", "logs/a", "--limit", "x", "-ojson"], json!("--limit")),
        (&["lines", "logs/a", "--nonsense", "--output=ndjson"], json!("--nonsense")),
        (&["-o", "json", "nonsense"], Value::Null),
        (&["-o", "json"], Value::Null),
        (&["-o", "json", "countdown", "3", "--lateness"], Value::Null),
    ] {
        let (code, errors) = errors(&server, arguments);
        assert_eq!((code, errors.len()), (Some(2), 1), "{arguments:?}: {errors:?}");
        assert_eq!(errors[0]["code"], "INVALID_ARGUMENT");
        assert_eq!(errors[0]["field"], field, "{arguments:?}");
        assert!(!errors[0]["message"].as_str().unwrap().contains("Usage"), "{arguments:?}");
    }
    assert!(stderr(&run(&mut server.client(&["lines"]))).contains("Usage: perennial lines"));
    let help = printed(&server, &["-o", "json", "--help"]);
    assert!(help.contains("Usage: perennial"), "{help}");
}

#[test]
fn each_message_that_is_not_published_is_an_object() {
    let server = Server::start();
    let mut publish = server
        .client(&["-o", "ndjson", "publish", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = br#"{"topic":"a","text":"1"}
{"topic":"not a topic","text":"2"}
"#;
    publish.stdin.take().unwrap().write_all(lines).unwrap();
    let output = publish.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(64 + 3));
    let text = stderr(&output);
    let errors = objects(&text.lines().filter(|line| line.starts_with('{')).collect::<Vec<_>>().join("\n"));
    assert_eq!(errors.len(), 1, "{text}");
    assert_eq!((&errors[0]["reason"], &errors[0]["field"]), (&json!("INVALID_FIELD"), &json!("topic")));
    assert!(errors[0]["message"].as_str().unwrap().starts_with("line 2: "), "{text}");
}

/// Reads stderr to its end.
fn rest(child: &mut Child) -> Vec<String> {
    BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect()
}

#[test]
fn no_command_is_printed_where_resuming_cannot_help() {
    let server = Server::start();
    printed(&server, &["countdown", "create", "launch", "1h", "--interval", "50ms"]);
    let mut watch = server
        .client(&["-o", "raw", "countdown", "--name", "launch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(watch.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    printed(&server, &["countdown", "delete", "launch"]);
    let said = rest(&mut watch);
    assert_eq!(wait(&mut watch).code(), Some(64 + 5), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("--cursor")), "{said:?}");
}

#[test]
fn a_command_is_printed_where_resuming_can_help() {
    let server = Server::start();
    append(&server.log_file("app.log"), "1\n");
    let mut read = server
        .client(&["lines", "-f", "logs/app.log", "--heartbeat", "1s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(read.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "1\n");
    harness::signal(&read, rustix::process::Signal::INT);
    let said = rest(&mut read);
    assert_eq!(wait(&mut read).code(), Some(130), "{said:?}");
    assert!(said.last().unwrap().contains("--cursor"), "{said:?}");
}
