//! Settings and the files that they name: checked, printed, and read again while the server runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use harness::{Server, soon};
use perennial::{
    access::tokens,
    client::{Client, Credentials, Token},
    proto::{ErrorReason, MessagesRequest, PublishRequest, ReadLinesRequest},
};
use rustix::process::Signal;
use tempfile::TempDir;

fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn settings_that_change_apply_or_ask_for_a_restart_and_wrong_ones_change_nothing() {
    let directory = TempDir::new().unwrap();
    let config = directory.path().join("perennial.toml");
    write(&config, "max-streams = 100\n");
    let arguments = ["--config", config.to_str().unwrap(), "--reload-interval", "20ms"];
    let server = Server::start_with(&arguments);
    let open = async |count: usize| {
        let mut streams = Vec::new();
        for _ in 0..count {
            let request = MessagesRequest { topics: vec!["a".into()], ..Default::default() };
            match server.messages().await.messages(request).await {
                Ok(stream) => streams.push(stream.into_inner()),
                Err(status) => return Err(status),
            }
        }
        Ok(streams)
    };
    drop(open(3).await.unwrap());
    write(&config, "max-streams = 1\nmax-topics = 7\n");
    let line = server.wait_for_log("restart the server to use it");
    assert!(line.contains("max-topics") && line.contains("1000000") && line.contains('7'), "{line}");
    let line = server.wait_for_log("a setting has changed, and applies now");
    assert!(line.contains("max-streams") && line.contains("100") && line.contains('1'), "{line}");
    assert!(open(3).await.unwrap_err().message().contains('1'));
    write(&config, "max-streams = \"many\"\n");
    let line = server.wait_for_log("the new settings cannot be used: the previous ones stay in use");
    assert!(line.contains("max-streams"), "{line}");
    assert!(open(3).await.is_err());
    write(&config, "max-streams = 50\nlog = \"debug\"\n");
    server.wait_for_log("max-streams");
    drop(open(3).await.unwrap());
    server.wait_for_log("DEBUG");
}

#[test]
fn config_print_gives_each_setting_its_value_and_its_source_as_a_file_and_check_finds_faults() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("perennial.toml");
    std::fs::write(
        &file,
        "stall = \"7s\"\nretain = [\"a=age:7d\"]\nsocket-mode = \"660\"\nlisten = \"unix:/run/p\"\n",
    )
    .unwrap();
    let run = |arguments: &[&str], file: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_perenniald"));
        command.args(["--config", file.to_str().unwrap()]).args(arguments).env("PERENNIAL_MAX_TOPICS", "70");
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, printed, err) = run(&["--max-streams", "5", "config", "print"], &file);
    assert_eq!(code, 0, "{err}");
    let path = file.display();
    for line in [
        "max-streams = 5  # command line".to_owned(),
        "max-topics = 70  # PERENNIAL_MAX_TOPICS".into(),
        format!("stall = \"7s\"  # {path}"),
        format!("retain = [\"a=age:7d\"]  # {path}"),
        format!("socket-mode = \"660\"  # {path}"),
        "idle = \"5m\"  # default".into(),
        "# tls-cert is not set".into(),
    ] {
        assert!(printed.lines().any(|is| is == line), "no {line} in\n{printed}");
    }
    // It is a file for --config that says the same.
    let again = directory.path().join("again.toml");
    std::fs::write(&again, &printed).unwrap();
    let values = |text: &str| {
        let lines = text.lines().map(|line| line.split("  #").next().unwrap().to_owned());
        lines.collect::<Vec<_>>()
    };
    let (code, printed_again, err) = run(&["config", "print"], &again);
    assert_eq!((code, values(&printed_again)), (0, values(&printed)), "{err}");
    assert_eq!(run(&["config", "check"], &file).0, 0);
    let (code, _, err) = run(&["config", "check", "--access", "rules.toml"], &file);
    assert!(
        code == 2 && err.contains("--access is a flag of the server: write it before the command"),
        "{err}"
    );
    std::fs::write(&file, "stall = \"soon\"\n").unwrap();
    let (code, _, err) = run(&["config", "check"], &file);
    assert!(code == 2 && err.contains("stall") && err.contains("soon"), "{err}");
}

/// Runs `config check` with further settings.
fn check(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perenniald"));
    let output = command.args(arguments).args(["config", "check"]).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn private(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn config_check_reads_every_file_as_a_start_does_and_reports_each_fault_by_its_setting() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let [rules, tokens, cert, key] = ["access.toml", "tokens.toml", "cert.pem", "key.pem"].map(path);
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    fs::write(&cert, signed.cert.pem()).unwrap();
    private(Path::new(&key), &signed.signing_key.serialize_pem());
    fs::write(&rules, "[[rule]]\nwho = [\"token:a\"]\nmay = [\"administer\"]\n").unwrap();
    tokens::add(Path::new(&tokens), "a", Vec::new(), None).unwrap();
    let data = path("data");
    let root = format!("logs={}", directory.path().display());
    let all =
        ["--data", &data, "--access", &rules, "--tokens", &tokens, "--tls-cert", &cert, "--tls-key", &key];
    let all = [&all[..], &["--root", &root]].concat();
    assert_eq!(check(&all), (Some(0), String::new()));
    assert!(!Path::new(&data).exists(), "it changes nothing");
    let (code, text) = check(&["--tokens", &tokens]);
    assert!(code == Some(2) && text.contains("--tokens is set, which also needs --access FILE"), "{text}");

    // Every fault is reported at once.
    let keys = "[jwt]\nissuer = \"i\"\naudience = \"a\"\nalgorithms = [\"ES256\"]\nkeys = \"jwks.json\"\n";
    fs::write(&rules, format!("[[rule]]\nwho = [\"token:a\"]\nmay = [\"administr\"]\n{keys}")).unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&cert, "no certificate").unwrap();
    fs::remove_file(&key).unwrap();
    let gone = format!("gone={}", path("gone"));
    let (code, text) = check(&[&all[..], &["--root", &gone]].concat());
    assert_eq!(code, Some(2), "{text}");
    for (setting, fault) in [
        ("--tls-cert", "cert.pem"),
        ("--tls-key", "key.pem"),
        ("--access", "administr"),
        ("--access", "jwks.json"),
        ("--tokens", "chmod 600"),
        ("--root", "the root `gone`"),
    ] {
        let is_it =
            |line: &str| line.starts_with(&format!("perenniald: {setting}: ")) && line.contains(fault);
        assert!(text.lines().any(is_it), "no {setting} with {fault} in\n{text}");
    }
    // The files are good, and do not belong together; the keys of an issuer are none.
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    fs::write(&cert, other.cert.pem()).unwrap();
    private(Path::new(&key), &signed.signing_key.serialize_pem());
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&rules, format!("[[rule]]\nwho = [\"token:a\"]\nmay = [\"administer\"]\n{keys}")).unwrap();
    fs::write(path("jwks.json"), "{}").unwrap();
    let (code, text) = check(&all);
    assert!(code == Some(2) && text.contains("--tls-cert: ") && text.contains("does not belong"), "{text}");
    assert!(text.contains("--access: ") && text.contains("jwks.json") && text.lines().count() == 2, "{text}");
}

/// A caller that publishes with this token.
async fn publishes(server: &Server, token: &str) -> Option<String> {
    let credentials = Credentials { token: Some(Token::Text(token.into())), ..Credentials::default() };
    let client = Client::with_credentials(&server.url(), credentials).unwrap();
    let request = PublishRequest { topic: "a.b".into(), ..PublishRequest::default() };
    let error = soon("an answer", Box::pin(client.publish(request))).await.err();
    error.map(|error| error.reason().unwrap_or("another").to_owned())
}

#[tokio::test]
async fn at_sighup_rules_and_tokens_are_read_and_the_log_says_what_has_changed() {
    let directory = TempDir::new().unwrap();
    let [rules, tokens] = ["access.toml", "tokens.toml"].map(|name| directory.path().join(name));
    let rule = |who: &str| format!("[[rule]]\nwho = [\"{who}\"]\nmay = [\"publish\"]\ntopics = [\"a.>\"]\n");
    write(&rules, &rule("token:old"));
    let old = tokens::add(&tokens, "old", Vec::new(), None).unwrap();
    let (rules_path, tokens_path) = (rules.display().to_string(), tokens.display().to_string());
    let server =
        Server::start_with(&["--access", &rules_path, "--tokens", &tokens_path, "--reload-interval", "1h"]);
    let hangup = || {
        let id = rustix::process::Pid::from_raw(server.id().cast_signed()).unwrap();
        rustix::process::kill_process(id, Signal::HUP).unwrap();
    };
    hangup();
    server.wait_for_log("the files of access were read again: none has changed");
    assert_eq!(publishes(&server, old.expose()).await, None);
    let new = tokens::add(&tokens, "new", Vec::new(), None).unwrap();
    tokens::revoke(&tokens, "old").unwrap();
    write(&rules, &(rule("token:old") + &rule("token:new")));
    let unknown = ErrorReason::CredentialsInvalid.as_str_name();
    assert_eq!(publishes(&server, new.expose()).await.as_deref(), Some(unknown), "it is not read yet");
    hangup();
    let line = server.wait_for_log("the files of access are in use");
    for part in ["added=\"rule[1]\"", "tokens_made=\"new\"", "tokens_revoked=\"old\""] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    let revoked = ErrorReason::CredentialsRevoked.as_str_name();
    assert_eq!(publishes(&server, old.expose()).await.as_deref(), Some(revoked));
    assert_eq!(publishes(&server, new.expose()).await, None);
    write(&rules, &rule("token:new"));
    hangup();
    let line = server.wait_for_log("the files of access are in use");
    assert!(line.contains("removed=\"rule[0]\"") && !line.contains("tokens_"), "{line}");
}

#[tokio::test]
async fn shorter_stalls_and_less_room_for_what_is_not_taken_apply_to_streams_that_are_open() {
    let directory = TempDir::new().unwrap();
    let config = directory.path().join("perennial.toml");
    write(&config, "stall = \"1h\"\n");
    let arguments = ["--config", config.to_str().unwrap(), "--reload-interval", "20ms"];
    let server = Server::start_with(&arguments);
    let lines = (0..60_000).map(|n| format!("line {n} {}\n", "x".repeat(60))).collect::<String>();
    fs::write(server.log_file("big.log"), lines).unwrap();
    let request = ReadLinesRequest { path: "logs/big.log".into(), ..Default::default() };
    let mut client = server.lines().await;
    // They read nothing, and each holds more than the window of HTTP/2.
    let mut open = async |count: usize| {
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(client.read_lines(request.clone()).await.unwrap().into_inner());
        }
        streams
    };
    let stalled = open(1).await;
    write(&config, "stall = \"300ms\"\n");
    server.wait_for_log("reason=\"STALLED\"");
    drop(stalled);
    write(&config, "stall = \"1h\"\n");
    server.wait_for_log("applies now");
    let many = open(10).await;
    write(&config, "stall = \"1h\"\nmax-unsent = \"100KiB\"\n");
    server.wait_for_log("reason=\"STALLED\"");
    drop(many);
}
