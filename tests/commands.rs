//! The commands as people use them: their stdout, their stderr and their exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Command, Stdio},
};

use harness::{
    Server, append,
    output::{printed, run, stderr},
    signal, wait,
};

#[test]
fn a_countdown_prints_a_number_a_line() {
    let server = Server::start();
    assert_eq!(
        printed(&server, &["-o", "raw", "countdown", "3", "--interval", "20ms", "--burst"]),
        "3\n2\n1\n0\n"
    );
    let classic =
        ["-o", "raw", "countdown", "3", "--interval", "20ms", "--to", "1", "--wait-first", "--burst"];
    assert_eq!(printed(&server, &classic), "3\n2\n1\n");
    let objects = printed(&server, &["-o", "ndjson", "countdown", "1", "--interval", "20ms"]);
    let last: serde_json::Value = serde_json::from_str(objects.lines().last().unwrap()).unwrap();
    assert_eq!(last["remaining"], 0);
}

#[test]
fn raw_lines_are_the_file_to_the_byte() {
    let server = Server::start();
    let content = (0..5_000).map(|n| format!("line {n} — ünïcode\n")).collect::<String>();
    append(&server.log_file("app.log"), &content);
    assert_eq!(printed(&server, &["-o", "raw", "lines", "logs/app.log"]), content);
    assert_eq!(
        printed(&server, &["-o", "raw", "lines", "logs/app.log", "-n", "2"]),
        "line 4998 — ünïcode\nline 4999 — ünïcode\n"
    );
    assert_eq!(
        printed(&server, &["-o", "raw", "lines", "logs/app.log", "--from-line", "3", "--limit", "1"]),
        "line 2 — ünïcode\n"
    );
    assert!(printed(&server, &["files"]).contains("logs/app.log"));
}

#[test]
fn messages_published_from_stdin_are_read_back_in_order() {
    let server = Server::start();
    let mut publish = server
        .client(&["publish", "orders.new", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = (0..1_000).map(|n| format!("order {n}\n")).collect::<String>();
    publish.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(wait(&mut publish).success());
    let read = ["-o", "raw", "messages", "orders.>", "--from", "earliest", "--until-caught-up"];
    assert_eq!(printed(&server, &read), lines);
    let last = ["-o", "raw", "messages", "orders.*", "--last", "1", "--until-caught-up"];
    assert_eq!(printed(&server, &last), "order 999\n");
    let topics = printed(&server, &["topics"]);
    assert!(topics.contains("orders.new") && topics.contains("1000"), "{topics}");
}

#[test]
fn each_kind_of_error_has_its_exit_code() {
    let server = Server::start();
    let absent = run(&mut server.client(&["lines", "logs/absent.log"]));
    assert_eq!(absent.status.code(), Some(64 + 5), "{}", stderr(&absent));
    assert!(stderr(&absent).contains("logs/absent.log") && absent.stdout.is_empty());
    let usage = run(&mut server.client(&["lines"]));
    assert_eq!(usage.status.code(), Some(2), "{}", stderr(&usage));
    let wrong = run(&mut server.client(&["publish", "a b", "text"]));
    assert_eq!(wrong.status.code(), Some(64 + 3), "{}", stderr(&wrong));
    assert!(stderr(&wrong).contains("topic"), "{}", stderr(&wrong));
    let absent_server = format!("127.0.0.1:{}", harness::free_port());
    let alone = run(server.client(&["health"]).env("PERENNIAL_SERVER", &absent_server));
    assert_eq!(alone.status.code(), Some(64 + 14), "{}", stderr(&alone));
    assert!(stderr(&alone).contains(&absent_server), "{}", stderr(&alone));
    assert!(printed(&server, &["health"]).contains("SERVING"));
}

#[test]
fn a_server_that_cannot_be_reached_as_written_is_refused_by_flag_and_by_variable() {
    let server = Server::start();
    let port = server.address().port();
    for (address, reason) in [
        (format!("https://127.0.0.1:{port}/v1"), "path"),
        (format!("ftp://127.0.0.1:{port}"), "ftp"),
        (format!("http://127.0.0.1:{port}/v1"), "path"),
        (format!("http://user:secret@127.0.0.1:{port}"), "password"),
        (format!("127.0.0.1:{port}?x=1"), "query"),
        (String::new(), "empty"),
    ] {
        let flag = run(&mut server.client(&["health", "--server", &address]));
        let variable = run(server.client(&["health"]).env("PERENNIAL_SERVER", &address));
        for refused in [flag, variable] {
            let said = stderr(&refused);
            assert_eq!(refused.status.code(), Some(2), "{address}: {said}");
            assert!(said.contains(reason) && said.contains("try "), "{address}: {said}");
            assert!(!said.contains("secret") && refused.stdout.is_empty(), "{said}");
        }
    }
    for address in [format!("127.0.0.1:{port}"), format!("http://127.0.0.1:{port}")] {
        assert!(printed(&server, &["health", "--server", &address]).contains("SERVING"), "{address}");
    }
}

#[test]
fn an_absent_server_is_reported_with_one_piece_of_advice() {
    let server = Server::start();
    let address = format!("127.0.0.1:{}", harness::free_port());
    let absent = run(&mut server.client(&["health", "--server", &address]));
    assert_eq!(stderr(&absent).matches("perenniald").count(), 1, "{}", stderr(&absent));
}

#[test]
fn advice_names_commands_and_no_calls() {
    let server = Server::start();
    for (arguments, command) in [
        (&["lines", "logs/absent.log"][..], "perennial files"),
        (&["delete-consumer", "absent"], "perennial consumers"),
        (&["purge", "absent", "--yes"], "perennial topics"),
        (&["countdown", "get", "absent"], "perennial countdown list"),
    ] {
        for format in ["text", "json"] {
            let said = stderr(&run(&mut server.client(&[&["-o", format], arguments].concat())));
            assert!(said.contains(command) && !said.contains("List"), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn a_closed_pipe_is_quiet() {
    let server = Server::start();
    append(&server.log_file("big.log"), &"a line of a large file\n".repeat(500_000));
    let mut child = server
        .client(&["lines", "logs/big.log"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "a line of a large file\n");
    wait(&mut child);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "");
}

#[test]
fn ctrl_c_prints_the_command_that_resumes() {
    let server = Server::start();
    append(&server.log_file("app.log"), "1\n2\n");
    let mut child = server
        .client(&["-o", "raw", "lines", "logs/app.log", "-f", "-n", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "2\n");
    signal(&child, rustix::process::Signal::INT);
    assert_eq!(wait(&mut child).code(), Some(130));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let resume = stderr.lines().find(|line| line.contains("--cursor")).unwrap_or_else(|| panic!("{stderr}"));
    append(&server.log_file("app.log"), "3\n");
    let command = resume[resume.find("perennial").unwrap()..].replacen("perennial", "", 1);
    let arguments = command.split_whitespace().chain(["--limit", "1"]).collect::<Vec<_>>();
    assert_eq!(printed(&server, &arguments), "3\n");
}

#[test]
fn the_client_goes_on_by_itself_when_the_server_was_killed() {
    let mut server = Server::start();
    let mut child = server
        .client(&["-o", "raw", "messages", "a"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut said = BufReader::new(child.stderr.take().unwrap());
    // `new` begins when the subscription does; the server's log does not say when, so publish until one arrives.
    let mut line = String::new();
    let arrived = std::thread::scope(|scope| {
        let reader = scope.spawn(|| out.read_line(&mut line));
        let mut n = 0;
        while !reader.is_finished() {
            printed(&server, &["publish", "a", &format!("{n}")]);
            n += 1;
        }
        reader.join().unwrap().unwrap();
        n
    });
    let mut expected = line.trim().parse::<usize>().unwrap() + 1;
    server.kill();
    let mut words = String::new();
    said.read_line(&mut words).unwrap();
    assert!(!words.is_empty());
    server.restart();
    printed(&server, &["publish", "a", &format!("{arrived}")]);
    while expected <= arrived {
        line.clear();
        out.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), expected.to_string());
        expected += 1;
    }
    child.kill().unwrap();
    wait(&mut child);
}

/// Runs a command in a shell until it prints a line, and returns the line.
fn first_output(command: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_BIN_EXE_perennial")).parent().unwrap();
    let path = format!("{}:{}", path.display(), std::env::var("PATH").unwrap());
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec {command}")])
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _ = child.kill();
    wait(&mut child);
    line
}

#[test]
fn the_three_commands_of_the_demo_for_perennial_show_something() {
    let server = Server::start_with(&["--demo"]);
    let commands = server.commands("perennial");
    for command in commands {
        assert!(!first_output(&command).trim().is_empty(), "{command}");
    }
}

#[test]
#[ignore = "needs grpcurl"]
fn the_three_commands_of_the_demo_for_grpcurl_show_something() {
    let server = Server::start_with(&["--demo"]);
    let commands = server.commands("grpcurl");
    for command in commands {
        assert_eq!(first_output(&command).trim(), "{", "{command}");
    }
}
