//! The rules of roots hold, against the real server: by any path, rotation or cursor.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at its first surprise")]

mod harness;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use futures::StreamExt;
use harness::{Server, append, server_command, soon, wait};
use perennial::{
    cursor,
    lines::{self, Files, Position, Root},
    proto::{ListFilesRequest, ListFilesResponse, ReadLinesRequest, line::Content},
};
use tonic::Code;
use tonic_types::StatusExt;

async fn list(server: &Server, path: &str) -> Result<ListFilesResponse, tonic::Status> {
    let request = ListFilesRequest { path: path.into(), ..Default::default() };
    Ok(server.lines().await.list_files(request).await?.into_inner())
}

async fn read(server: &Server, path: &str) -> Result<String, tonic::Status> {
    let request = ReadLinesRequest { path: path.into(), ..Default::default() };
    let mut stream = server.lines().await.read_lines(request).await?.into_inner();
    let mut text = String::new();
    while let Some(response) = stream.message().await? {
        for line in response.lines {
            let Some(Content::Text(line)) = line.content else { panic!("{line:?}") };
            text += &line;
        }
    }
    Ok(text)
}

/// Everything that a caller can see of an error, but for the path that it gave.
fn visible(status: &tonic::Status, path: &str) -> String {
    let details = status.get_error_details();
    format!("{:?} {} {details:?}", status.code(), status.message()).replace(path, "PATH")
}

/// As by `mv logs old; mkdir logs`, or a deployment that points a link elsewhere.
#[tokio::test]
async fn a_root_whose_path_leads_elsewhere_stays_the_one_that_was_opened_and_that_is_logged() {
    let server = Server::start();
    append(&server.log_file("app.log"), "1\n");
    let request = ReadLinesRequest { path: "logs/app.log".into(), follow: true, ..Default::default() };
    let mut follower = server.lines().await.read_lines(request).await.unwrap().into_inner();
    soon("the first lines", follower.message()).await.unwrap();
    let logs = server.directory().join("logs");
    let old = server.directory().join("old");
    fs::rename(&logs, &old).unwrap();
    fs::create_dir(&logs).unwrap();
    append(&logs.join("app.log"), "of another directory\n");
    // The follower is enough to notice it.
    let line = server.wait_for_log("does not lead to the directory that is served");
    assert!(line.contains(logs.to_str().unwrap()), "{line}");
    append(&old.join("app.log"), "2\n");
    assert_eq!(read(&server, "logs/app.log").await.unwrap(), "12");
    fs::remove_dir_all(&logs).unwrap();
    fs::rename(&old, &logs).unwrap();
    server.wait_for_log("leads to the directory that is served again");
}

fn tree(server: &Server) {
    append(&server.log_file("app.log"), "good\n");
    append(&server.log_file("notes.txt"), "secret\n");
    append(&server.log_file("private.log"), "secret\n");
    append(&server.directory().join("outside.log"), "secret\n");
    std::os::unix::fs::symlink("private.log", server.log_file("link.log")).unwrap();
    std::os::unix::fs::symlink("../outside.log", server.log_file("out.log")).unwrap();
    std::os::unix::fs::symlink(server.log_file("app.log"), server.log_file("absolute.log")).unwrap();
    std::fs::hard_link(server.directory().join("outside.log"), server.log_file("hard.log")).unwrap();
    std::fs::create_dir(server.log_file("dir.log")).unwrap();
    std::fs::create_dir(server.log_file("private")).unwrap();
    append(&server.log_file("private/app.log"), "secret\n");
}

#[tokio::test]
async fn denied_not_allowed_outside_and_missing_files_look_alike_and_are_not_listed() {
    let server =
        Server::start_with(&["--allow", "logs=*.log", "--deny", "logs=private*", "--no-hard-links=logs"]);
    tree(&server);
    assert_eq!(read(&server, "logs/app.log").await.unwrap(), "good");
    let missing = read(&server, "logs/none.log").await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let missing = visible(&missing, "logs/none.log");
    for path in
        ["notes.txt", "private.log", "link.log", "out.log", "absolute.log", "hard.log", "dir.log", "x/y.log"]
    {
        let path = format!("logs/{path}");
        assert_eq!(visible(&read(&server, &path).await.unwrap_err(), &path), missing, "{path}");
    }
    let files = list(&server, "").await.unwrap().files;
    assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["logs/app.log"]);
    assert!(files[0].growing && files[0].size == Some(5) && files[0].create_time.is_some());
    let missing = visible(&list(&server, "logs/none").await.unwrap_err(), "logs/none");
    assert_eq!(visible(&list(&server, "logs/private").await.unwrap_err(), "logs/private"), missing);
    assert_eq!(list(&server, "logs/..").await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn waiting_for_a_denied_file_looks_like_waiting_for_a_missing_one() {
    let server = Server::start_with(&["--deny", "logs=private*"]);
    tree(&server);
    for path in ["none.log", "private.log", "link.log", "out.log", "private/app.log", "private/none.log"] {
        let request = ReadLinesRequest {
            path: format!("logs/{path}"),
            follow: true,
            wait_for_create: true,
            heartbeat: Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 }),
            ..Default::default()
        };
        let mut stream = server.lines().await.read_lines(request).await.unwrap().into_inner();
        for _ in 0..3 {
            let response = soon(path, stream.message()).await.unwrap().unwrap();
            let seen = (response.lines, response.events, response.size, response.next_offset);
            assert_eq!(seen, (Vec::new(), Vec::new(), Some(0), Some(0)), "{path}");
            append(&server.log_file("private.log"), "secret\n");
        }
    }
}

#[tokio::test]
async fn absolute_links_and_hard_links_are_followed_as_the_file_of_settings_says() {
    let directory = tempfile::tempdir().unwrap();
    let settings = directory.path().join("perennial.toml");
    std::fs::write(&settings, "absolute-links = ['logs']\ndeny = ['logs=*.{txt,key}', 'logs=/private*']\n")
        .unwrap();
    let server = Server::start_with(&["--config", settings.to_str().unwrap()]);
    tree(&server);
    let files = list(&server, "logs").await.unwrap().files;
    let paths = files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>();
    assert_eq!(paths, ["logs/absolute.log", "logs/app.log", "logs/hard.log"]);
    assert_eq!(read(&server, "logs/absolute.log").await.unwrap(), "good");
    assert_eq!(read(&server, "logs/out.log").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_follower_of_an_allowed_file_gets_its_rotated_lines_though_only_its_own_name_is_allowed() {
    let server = Server::start_with(&["--allow", "logs=*.log"]);
    append(&server.log_file("app.log"), "1\n");
    let request = ReadLinesRequest { path: "logs/app.log".into(), follow: true, ..Default::default() };
    let mut client = server.lines().await;
    let mut stream = client.read_lines(request.clone()).await.unwrap().into_inner();
    let first = soon("a line", stream.message()).await.unwrap().unwrap();
    assert_eq!(first.lines.len(), 1);
    drop(stream);
    append(&server.log_file("app.log"), "2\n");
    std::fs::rename(server.log_file("app.log"), server.log_file("app.log.1")).unwrap();
    append(&server.log_file("app.log"), "3\n");
    let resumed = ReadLinesRequest { cursor: Some(first.cursor), limit: Some(2), ..request };
    let mut stream = client.read_lines(resumed).await.unwrap().into_inner();
    let mut lines = Vec::new();
    while let Some(response) = soon("lines", stream.message()).await.unwrap() {
        lines.extend(response.lines.into_iter().map(|line| line.content.unwrap()));
    }
    assert_eq!(lines, ["2", "3"].map(|line| Content::Text(line.into())));
    assert_eq!(read(&server, "logs/app.log.1").await.unwrap_err().code(), Code::NotFound);
}

/// Follows a file from a cursor, or from its head, until this line comes. All lines, and the last cursor.
async fn follow_until(
    server: &Server,
    name: &str,
    cursor: Option<String>,
    last: &str,
) -> Result<(Vec<String>, String), tonic::Status> {
    let request =
        ReadLinesRequest { path: format!("logs/{name}"), follow: true, cursor, ..Default::default() };
    let mut stream = server.lines().await.read_lines(request).await?.into_inner();
    let mut lines = Vec::new();
    loop {
        let response = soon(last, stream.message()).await?.unwrap();
        for line in response.lines {
            let Some(Content::Text(line)) = line.content else { panic!("{line:?}") };
            lines.push(line);
        }
        if lines.iter().any(|line| line == last) {
            return Ok((lines, response.cursor));
        }
    }
}

#[tokio::test]
async fn a_resumed_file_never_continues_in_another_one_whose_name_only_begins_like_its_own() {
    let pairs = [
        ("node1", "node10"),
        ("task.stdout.1", "task.stdout.10"),
        ("app.log.1234", "app.log.12345"),
        ("access", "access-20"),
        ("access", "access-7"),
        ("job", "job-2024"),
    ];
    for arguments in [vec!["--allow", "logs=/node1"], vec!["--deny", "logs=node10"], vec![]] {
        let is_alone = !arguments.is_empty();
        for (name, other) in pairs.into_iter().take(if is_alone { 1 } else { pairs.len() }) {
            let server = Server::start_with(&arguments);
            append(&server.log_file(name), "1\n");
            let (_, cursor) = follow_until(&server, name, None, "1").await.unwrap();
            append(&server.log_file(name), "2\n");
            fs::rename(server.log_file(name), server.log_file(&format!("{name}.1"))).unwrap();
            append(&server.log_file(other), "foreign\n");
            append(&server.log_file(name), "3\n");
            append(&server.log_file(&format!("{other}.1")), "foreign\n");
            let (lines, _) = follow_until(&server, name, Some(cursor), "3").await.unwrap();
            assert_eq!(lines, ["2", "3"], "{name} {other}");
            if is_alone {
                assert_eq!(read(&server, "logs/node10").await.unwrap_err().code(), Code::NotFound);
            }
        }
    }
}

/// A position after the last line of a file, read without any rules.
async fn position(server: &Server, name: &str) -> Position {
    let root = Root::new("logs", server.log_file(""));
    let files = Files::new(vec![root], lines::Options::default()).unwrap();
    let query = lines::Query {
        path: format!("logs/{name}"),
        may_read: lines::MayRead::default(),
        start: lines::Start::Head,
        history: false,
        follow: false,
        wait_for_create: false,
        on_gap: lines::OnGap::Fail,
        rules: lines::Rules::default(),
        patterns: perennial::lines::Patterns::default(),
        partial_flush: None,
        batching: perennial::stream::Batching { max_items: 1, ..perennial::stream::Batching::default() },
    };
    let mut batches = std::pin::pin!(files.open(query).await.unwrap());
    batches.next().await.unwrap().unwrap().position
}

/// The position of another file, forged into a cursor of the file that is asked for.
fn forge(own: &Position, other: &Position) -> [String; 2] {
    let json = |position| serde_json::to_value(position).unwrap();
    let (own, mut forged) = (json(own), json(other));
    forged["path"] = own["path"].clone();
    let mut in_detour = own;
    in_detour["resume_at"] = serde_json::json!([forged["identity"], forged["checkpoint"]]);
    [forged, in_detour].map(|forged| {
        let position = serde_json::from_value::<Position>(forged).unwrap();
        cursor::encode(&position)
    })
}

#[tokio::test]
async fn a_forged_cursor_never_gives_a_byte_of_a_file_that_the_rules_refuse() {
    let names = [
        "node10",
        "node1-20",
        "node1.log",
        "node1x.old",
        "node1.1.2",
        "node1.key.1",
        "node1.key.old",
        "node1.key-20261123",
        "node1.key.2.gz",
        "node1.1.key",
        "node1-20261123.key",
        "20261123-node1.key",
        "node1.key",
        "private/node1",
        "private/node1.1",
    ];
    let server =
        Server::start_with(&["--allow", "logs=/node1", "--allow", "logs=*.key*", "--deny", "logs=*.key"]);
    fs::create_dir(server.log_file("private")).unwrap();
    append(&server.log_file("node1"), "");
    for name in names {
        append(&server.log_file(name), "secret 1\nsecret 2\n");
    }
    let own = position(&server, "node1").await;
    for name in names {
        append(&server.log_file("node1"), "own\n");
        for cursor in forge(&own, &position(&server, name).await) {
            match follow_until(&server, "node1", Some(cursor), "own").await {
                Ok((lines, _)) => assert!(lines.iter().all(|line| line == "own"), "{name}: {lines:?}"),
                Err(status) => assert_eq!(status.code(), Code::OutOfRange, "{name}: {status:?}"),
            }
        }
        let refused = read(&server, &format!("logs/{name}")).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{name}");
    }
    let listed = list(&server, "").await.unwrap().files;
    assert_eq!(listed.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["logs/node1"]);
}

/// The error text of a server that does not start.
fn refusal(directory: &Path, change: impl FnOnce(&mut Command) -> &mut Command) -> String {
    let mut command = server_command(directory, "127.0.0.1:0");
    let mut child = change(&mut command).stderr(Stdio::piped()).spawn().unwrap();
    let status = wait(&mut child);
    let text = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert_eq!(status.code(), Some(2), "{text}");
    text
}

#[test]
fn a_wrong_rule_keeps_the_server_from_starting_with_an_error_that_names_its_setting_and_what_would_work() {
    let directory = tempfile::tempdir().unwrap();
    let text = refusal(directory.path(), |command| command.args(["--deny", "log=*.key"]));
    assert!(
        text.contains("--deny names the root `log`, which does not exist: write one of `logs`"),
        "{text}"
    );
    let text = refusal(directory.path(), |command| command.args(["--allow", "logs=[a"]));
    assert!(text.contains("--allow <NAME=GLOB>") && text.contains("`[a` is no glob: "), "{text}");
    let text = refusal(directory.path(), |command| command.env("PERENNIAL_DENY", "logs=../secret"));
    assert!(text.contains("the environment variable PERENNIAL_DENY: ") && text.contains("`..`"), "{text}");
    let settings = directory.path().join("wrong.toml");
    std::fs::write(&settings, "stall = '5s'\nallow = ['*.log']\n").unwrap();
    let text = refusal(directory.path(), |command| command.arg("--config").arg(&settings));
    assert!(text.contains("wrong.toml") && text.contains("line 2") && text.contains("NAME=GLOB"), "{text}");
}
