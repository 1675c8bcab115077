//! `perenniald log`, with the real binaries: on a log at rest, on one that is broken, and beside a running server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use harness::{Server, soon};
use perennial::proto::{PublishRequest, publish_request::Content};
use serde_json::Value;

/// Runs `perenniald log` over a data directory: its exit code, stdout and stderr.
fn log(data: &Path, arguments: &[&str], stdin: &[u8]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perenniald"));
    command.arg("log").args(arguments).arg("--data").arg(data);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn message(topic: &str, n: u8) -> PublishRequest {
    PublishRequest {
        topic: topic.into(),
        key: (n.is_multiple_of(2)).then(|| "a key".into()),
        headers: [("name".to_owned(), "\"ü\"".to_owned())].into(),
        content: Some(if n.is_multiple_of(3) {
            Content::Data(vec![n, 255])
        } else {
            Content::Text(format!("text {n}"))
        }),
        message_id: (n.is_multiple_of(5)).then(|| format!("id-{n}")),
        ttl: (n.is_multiple_of(7)).then_some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ..Default::default()
    }
}

async fn publish(server: &Server, count: u8) {
    let mut client = server.messages().await;
    for n in 1..=count {
        let topic = ["orders.eu", "orders.us", "state"][usize::from(n % 3)];
        soon("publish", client.publish(message(topic, n))).await.unwrap();
    }
}

fn segment(data: &Path) -> PathBuf {
    data.join("messages/00000000000000000001.log")
}

#[tokio::test]
async fn a_log_at_rest_is_verified_counted_exported_and_imported() {
    let mut server = Server::start();
    publish(&server, 40).await;
    let printed =
        server.client(&["messages", ">", "--from", "earliest", "--until-caught-up", "-o", "ndjson"]);
    let printed = { printed }.stdout(Stdio::piped()).output().unwrap().stdout;
    server.terminate();
    assert!(server.wait().success());
    let data = server.directory().join("data");

    let (code, out, err) = log(&data, &["verify"], b"");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("sound: 40 messages in 1 segments, "), "{out}");

    let (code, out, err) = log(&data, &["stats", "-o", "json", "--topics", "2"], b"");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let stats = serde_json::from_str::<Value>(&out).unwrap();
    let number = |name: &str| stats[name].as_u64().unwrap();
    assert_eq!((number("messages"), number("topics"), number("formatVersion")), (40, 3, 3));
    assert_eq!(
        (stats["first"]["sequence"].as_u64(), stats["last"]["sequence"].as_u64()),
        (Some(1), Some(40))
    );
    assert_eq!(stats["largestTopics"].as_array().unwrap().len(), 2);
    assert!(stats["createTime"].is_string() && number("diskBytes") >= number("bytes"));
    let (code, text, _) = log(&data, &["stats"], b"");
    assert!(code == 0 && text.contains("messages      40, "), "{text}");

    // The same as a reader gets, byte for byte.
    let (code, exported, err) = log(&data, &["export"], b"");
    assert_eq!((code, err.as_str()), (0, "perenniald: exporting 40 messages\n"));
    assert_eq!(exported, String::from_utf8(printed).unwrap());
    let (_, orders, _) = log(&data, &["export", "--topic", "orders.*", "--from-sequence", "11"], b"");
    assert_eq!(orders.lines().count(), 20);

    let new = server.directory().join("new");
    let (code, out, err) = log(&new, &["import", "-"], exported.as_bytes());
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(
        err.contains("imported 40 messages, sequences 1 to 40") && err.contains("cursors of the old one")
    );
    assert_eq!(log(&new, &["export"], b"").1, exported);
    assert_eq!(log(&new, &["verify"], b"").0, 0);
    let file = server.directory().join("file");
    assert_eq!(log(&new, &["export", "--output", file.to_str().unwrap()], b"").1, "");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o077, 0, "others can read the messages");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), exported);
    let (code, _, err) = log(&new, &["import", file.to_str().unwrap()], b"");
    assert!(code == 1 && err.contains("holds a log with 40 messages"), "{err}");
}

#[tokio::test]
async fn a_byte_that_flips_is_named_by_file_and_sequence_and_costs_that_message_alone() {
    let mut server = Server::start();
    publish(&server, 10).await;
    server.terminate();
    assert!(server.wait().success());
    let data = server.directory().join("data");
    let mut bytes = std::fs::read(segment(&data)).unwrap();
    let at = memchr::memmem::find(&bytes, b"text 4").unwrap();
    bytes[at] ^= 1;
    std::fs::write(segment(&data), bytes).unwrap();

    let (code, out, _) = log(&data, &["verify"], b"");
    let named = format!("damage: {}: bytes ", segment(&data).display());
    assert!(code == 1 && out.starts_with(&named) && out.contains("sequence 4, "), "{code} {out}");
    assert!(out.contains("\ndamaged in 1 place: 9 messages"), "{out}");
    let (code, out, err) = log(&data, &["export"], b"");
    assert!(code == 1 && err.contains("sequence 4, ") && err.contains("exported 9 messages"), "{err}");
    assert_eq!(out.lines().count(), 9);
}

/// As by a backup that numbers its files, or an operator's mistake.
#[tokio::test]
async fn a_segment_with_another_name_is_named_and_its_messages_are_not_lost() {
    let mut server = Server::start();
    publish(&server, 20).await;
    server.terminate();
    server.wait();
    let data = server.directory().join("data");
    let (_, exported, _) = log(&data, &["export"], &[]);
    let other = data.join("messages/00000000000000000007.log");
    std::fs::rename(segment(&data), &other).unwrap();
    let (code, out, err) = log(&data, &["verify"], &[]);
    let found = format!("{}: the name says that sequences begin with 7, the header says 1", other.display());
    assert!(code == 1 && out.contains(&found), "{code} {out} {err}");
    let (_, again, _) = log(&data, &["export"], &[]);
    assert_eq!(again, exported, "the header counts");
    // A copy under another name beside it has no message that is not there already.
    std::fs::copy(&other, segment(&data)).unwrap();
    let (code, out, err) = log(&data, &["verify"], &[]);
    assert!(code == 1 && out.contains(&found), "{code} {out} {err}");
    assert_eq!(log(&data, &["export"], &[]).1, exported);
    server.restart();
    assert!(server.startup().iter().any(|line| line.contains("a wrong name")), "{:?}", server.startup());
    publish(&server, 1).await;
    let (_, more, _) = log(&data, &["export"], &[]);
    assert!(more.starts_with(&exported) && more.lines().count() == exported.lines().count() + 1, "{more}");
}

#[tokio::test]
async fn a_log_that_is_being_written_is_sound() {
    let server = Server::start_with(&["--segment", "1MiB"]);
    let data = server.directory().join("data");
    let mut client = server.messages().await;
    let writer = tokio::spawn(async move {
        for n in 0_u32.. {
            let text = Some(Content::Text("x".repeat(20_000)));
            let message =
                PublishRequest { topic: format!("t.{}", n % 5), content: text, ..Default::default() };
            client.publish(message).await.unwrap();
        }
    });
    for _ in 0..4 {
        let (data, rounds) = (data.clone(), ["verify", "stats", "export"]);
        let outputs = tokio::task::spawn_blocking(move || rounds.map(|round| log(&data, &[round], b"")));
        for (code, out, err) in outputs.await.unwrap() {
            assert_eq!(code, 0, "{out:.2000} {err:.2000}");
        }
    }
    writer.abort();
    let _ = writer.await;
    // A writer has to wait for the lock.
    let (code, _, err) = log(&data, &["import", "-"], b"");
    assert!(code == 1 && err.contains("is in use by process"), "{err}");
}

#[test]
fn what_is_wrong_is_told_with_its_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let (code, _, err) = log(&data, &["verify"], b"");
    assert!(code == 1 && err.contains("there is no log in") && err.contains("--data"), "{err}");
    assert!(!data.exists());
    let (code, _, err) = log(&data, &["import", "-"], b"{}\nnothing\n");
    assert!(code == 1 && err.contains("line 1: ") && err.contains("line 2: "), "{err}");
    assert!(!data.join("messages").exists() && !data.join("messages.import").exists());
    for wrong in
        [&["verify", "--colour"][..], &["export", "--topic", "a..b"], &["export", "--topic", "$x"], &[]]
    {
        assert_eq!(log(&data, wrong, b"").0, 2, "{wrong:?}");
    }
    let (code, help, _) = log(&data, &["verify", "--help"], b"");
    assert!(code == 0 && help.contains("Exit codes: 0 sound"), "{help}");
}
