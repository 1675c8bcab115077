//! Backups beside a server that publishes, removes and erases messages, and that is killed: each of them, restored, has
//! everything that was acknowledged before it began, and nothing that was purged before.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use perennial::proto::{
    MessagesRequest, OnGap, PublishRequest, PurgeTopicRequest, messages_request, publish_request,
};
use tempfile::TempDir;
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    clients::{Clients, LIMIT, PUBLISHERS, Progress, read_afterwards},
    everything,
    harness::{PATIENCE, Server, soon, within},
    history::History,
    text,
};

fn log_command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perenniald"));
    command.arg("log").args(arguments).arg("--data").arg(data);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `perenniald log` over a data directory: its exit code, stdout and stderr.
fn log(data: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = log_command(data, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

async fn backup(server: &Server, to: &Path) -> String {
    let (data, to) = (server.directory().join("data"), to.to_str().unwrap().to_owned());
    let made = tokio::task::spawn_blocking(move || log(&data, &["backup", &to, "--verify"]));
    let (code, out, err) = within(LIMIT, "a backup", made).await.unwrap();
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("sound: "), "{out}");
    err
}

/// A server over what a backup restores.
fn restored(from: &Path, arguments: &[&str]) -> Server {
    let directory = TempDir::new().unwrap();
    std::fs::create_dir(directory.path().join("logs")).unwrap();
    let data = directory.path().join("data");
    let (code, _, err) = log(&data, &["restore", from.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = log(&data, &["verify"]);
    assert_eq!(code, 0, "{out}{err}");
    let server = Server::start_over_data(directory, None, arguments);
    let damaged = server.startup().iter().find(|line| line.contains("damaged") || line.contains("missing"));
    assert_eq!(damaged, None);
    server
}

fn files(directory: &Path) -> BTreeMap<String, PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

/// Whether a file below a directory has these bytes.
fn contains(directory: &Path, needle: &str) -> bool {
    files(directory).values().any(|path| {
        if path.is_dir() {
            return contains(path, needle);
        }
        memchr::memmem::find(&std::fs::read(path).unwrap(), needle.as_bytes()).is_some()
    })
}

/// What was acknowledged when a backup began, and what it has.
struct Made {
    acknowledged: Progress,
    server: Server,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_backup_under_load_and_kills_has_all_that_was_acknowledged_before_it_and_a_sound_history() {
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = Server::start_apart();
    let to = TempDir::new().unwrap();
    let clients = Clients::start(&server, &mut random).await;
    let mut progress = clients.progress.subscribe();
    within(LIMIT, "all clients", progress.wait_for(|now| !now.contains(&0))).await.unwrap();
    let mut backups = Vec::new();
    for round in 0..6 {
        let before = Clients::answers(&progress.borrow());
        let is_due = |now: &Progress| Clients::answers(now) >= before + 400;
        within(LIMIT, &format!("round {round}"), progress.wait_for(is_due)).await.unwrap();
        // One that is killed somewhere leaves the one before as it is, and the next one continues.
        let data = server.directory().join("data");
        let mut killed = log_command(&data, &["backup", to.path().to_str().unwrap()]).spawn().unwrap();
        tokio::time::sleep(Duration::from_micros(random.u64(..60_000))).await;
        killed.kill().unwrap();
        killed.wait().unwrap();
        let is_down = round % 3 == 2;
        if is_down {
            server.kill();
        }
        let acknowledged = *progress.borrow();
        backup(&server, to.path()).await;
        if is_down {
            server.restart();
        }
        backups.push(Made { acknowledged, server: restored(to.path(), &[]) });
    }
    let mut history = clients.stop().await;
    let all = read_afterwards(&server).await;
    for Made { acknowledged, server } in &backups {
        let mut of_backup = History::default();
        for (publisher, count) in acknowledged[..PUBLISHERS].iter().enumerate() {
            let of_publisher = history.acknowledged.iter().filter(|(id, ..)| id.publisher == publisher);
            of_backup.acknowledged.extend(of_publisher.take(usize::try_from(*count).unwrap()).cloned());
        }
        let reading = read_afterwards(server).await;
        let last = reading.messages.last().unwrap().sequence;
        let mut original = all.clone();
        original.reader = "of the original".into();
        original.messages.retain(|message| message.sequence <= last);
        of_backup.readings = vec![original, reading];
        println!("{of_backup}");
        of_backup.check();
    }
    history.readings.push(all);
    history.check();
}

/// Publishes messages of 20 KB under the topics `t.0` to `t.4`.
async fn publish_large(server: &Server, numbers: std::ops::Range<usize>) {
    let mut client = server.messages().await;
    for n in numbers {
        let message = text(&format!("t.{}", n % 5), &format!("{n} {}", "x".repeat(20_000)));
        soon("a publish", client.publish(message)).await.unwrap();
    }
}

#[tokio::test]
async fn a_backup_copies_only_what_has_changed_and_a_stopped_server_needs_none() {
    let mut server = Server::start_with(&["--segment", "1MiB"]);
    let to = TempDir::new().unwrap();
    publish_large(&server, 0..300).await;
    let first = backup(&server, to.path()).await;
    let inodes = |directory: &Path| {
        let files = files(&directory.join("messages")).into_iter();
        let segments = files.filter(|(_, path)| path.extension().is_some_and(|end| end == "log"));
        segments.map(|(name, path)| (name, path.metadata().unwrap().ino())).collect::<BTreeMap<_, _>>()
    };
    let before = inodes(to.path());
    assert!(before.len() >= 5, "{first}");
    publish_large(&server, 300..330).await;
    backup(&server, to.path()).await;
    let after = inodes(to.path());
    let kept = before.iter().filter(|(name, inode)| after.get(*name) == Some(inode)).count();
    // Some segments had no index yet, and the newest one has grown.
    assert!(kept >= before.len() - 3, "{before:?} {after:?}");
    server.terminate();
    assert!(server.wait().success());
    backup(&server, to.path()).await;
    let last = backup(&server, to.path()).await;
    assert!(last.contains(" 0 segments are new") || last.contains(" 1 segments are new"), "{last}");
    let copy = restored(to.path(), &[]);
    server.restart();
    assert_eq!(everything(&copy).await, everything(&server).await);
}

#[tokio::test]
async fn an_interrupted_backup_is_no_backup_and_the_next_run_continues_it() {
    let server = Server::start_with(&["--segment", "1MiB"]);
    publish_large(&server, 0..600).await;
    let (to, data) = (TempDir::new().unwrap(), server.directory().join("data"));
    let place = to.path().to_str().unwrap();
    let mut child = log_command(&data, &["backup", place]).spawn().unwrap();
    let record = to.path().join("messages.unfinished/backup.ndjson");
    let end = Instant::now() + PATIENCE;
    while std::fs::read_to_string(&record).map_or(0, |text| text.lines().count()) < 4 {
        assert!(Instant::now() < end && !to.path().join("messages").exists(), "it was not interrupted");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!to.path().join("messages").exists());
    let copied = files(&to.path().join("messages.unfinished"));
    let copied = copied.into_values().filter(|path| path.extension().is_some_and(|end| end == "log"));
    let inodes = copied.map(|path| path.metadata().unwrap().ino()).collect::<Vec<_>>();

    let new = server.directory().join("new");
    let (code, _, err) = log(&new, &["restore", place]);
    assert!(code == 1 && err.contains("was interrupted: run `log backup` again"), "{err}");
    backup(&server, to.path()).await;
    let whole = files(&to.path().join("messages"));
    let kept = whole.values().filter(|path| inodes.contains(&path.metadata().unwrap().ino())).count();
    assert!(kept >= 2 && kept <= inodes.len(), "{kept} of {inodes:?}");
    assert!(!to.path().join("messages.unfinished").exists());
    assert_eq!(everything(&restored(to.path(), &[])).await, everything(&server).await);
}

#[tokio::test]
async fn what_was_purged_is_not_in_a_later_backup_also_if_the_server_could_not_erase_it_yet() {
    const SECRET: &str = "correct horse battery staple";
    for is_killed in [false, true] {
        let mut server = Server::start_with(&["--segment", "1MiB"]);
        let to = TempDir::new().unwrap();
        publish_large(&server, 0..30).await;
        for n in 0..3 {
            let secret = text("secrets", &format!("{n} {SECRET}"));
            server.messages().await.publish(secret).await.unwrap();
        }
        publish_large(&server, 30..200).await;
        let secret = text("secrets", &format!("3 {SECRET}"));
        server.messages().await.publish(secret).await.unwrap();
        backup(&server, to.path()).await;
        assert!(contains(to.path(), SECRET));

        let purge = PurgeTopicRequest { topic: "secrets".into(), until_sequence: None };
        server.messages().await.purge_topic(purge).await.unwrap();
        if is_killed {
            server.kill();
        }
        backup(&server, to.path()).await;
        assert!(!contains(to.path(), SECRET), "killed: {is_killed}");
        let copy = restored(to.path(), &[]);
        if is_killed {
            server.restart();
        }
        assert_eq!(everything(&copy).await.len(), 200);
        let request = MessagesRequest {
            topics: vec!["secrets".into()],
            start: Some(messages_request::Start::FromSequence(1)),
            until_caught_up: true,
            ..Default::default()
        };
        let mut answers = Vec::new();
        for server in [&server, &copy] {
            let status = match server.messages().await.messages(request.clone()).await {
                Err(status) => status,
                Ok(stream) => { stream.into_inner() }.message().await.unwrap_err(),
            };
            let reason = status.get_error_details().error_info().unwrap().reason.clone();
            answers.push((status.code(), reason));
        }
        assert_eq!(answers[0], answers[1]);
        // A message with the same topic is kept, although the purge was of a log that had grown further.
        copy.messages().await.publish(text("secrets", "new")).await.unwrap();
        assert_eq!(everything(&copy).await.len(), 201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_beside_retention_compaction_and_purges_is_sound() {
    let arguments = ["--segment", "1MiB", "--retention-interval", "100ms", "--removal-delay", "0s"];
    let retain = ["--retain", "t.>=count:60", "--retain", "last.>=last"];
    let server = Server::start_with(&[&arguments[..], &retain[..]].concat());
    let mut client = server.messages().await;
    let purged = Arc::new(AtomicU64::new(0));
    let purged_by_writer = purged.clone();
    let writer = tokio::spawn(async move {
        for n in 0_u64.. {
            for (topic, size) in [("t.a", 20_000), ("last.a", 5_000), ("purged.a", 7_000), ("stays", 300)] {
                let content =
                    publish_request::Content::Text(format!("{n} {topic}-{n}- {}", "y".repeat(size)));
                let request =
                    PublishRequest { topic: topic.into(), content: Some(content), ..Default::default() };
                client.publish(request).await.unwrap();
            }
            if n % 20 == 19 {
                let purge = PurgeTopicRequest { topic: "purged.a".into(), until_sequence: None };
                client.purge_topic(purge).await.unwrap();
                purged_by_writer.store(n + 1, Ordering::Relaxed);
            }
        }
    });
    let to = TempDir::new().unwrap();
    let mut newest = 0;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let purged = purged.load(Ordering::Relaxed);
        backup(&server, to.path()).await;
        let mut lowest = u64::MAX;
        for path in files(&to.path().join("messages")).values() {
            let bytes = std::fs::read(path).unwrap();
            for at in memchr::memmem::find_iter(&bytes, "purged.a-") {
                let digits = bytes[at + "purged.a-".len()..].iter().take_while(|byte| byte.is_ascii_digit());
                let n = digits.fold(0, |n, digit| n * 10 + u64::from(digit - b'0'));
                lowest = lowest.min(n);
            }
        }
        assert!(lowest >= purged, "message {lowest} was purged with all below {purged}");
        let copy = restored(to.path(), &retain);
        let request = MessagesRequest {
            topics: vec!["stays".into()],
            start: Some(messages_request::Start::Earliest(true)),
            until_caught_up: true,
            ..Default::default()
        };
        let mut stream = copy.messages().await.messages(request).await.unwrap().into_inner();
        let mut expected = 0;
        while let Some(response) = soon("messages", stream.message()).await.unwrap() {
            assert!(response.events.is_empty(), "{:?}", response.events);
            for message in response.messages {
                let Some(perennial::proto::stored_message::Content::Text(text)) = message.content else {
                    panic!()
                };
                assert_eq!(text.split(' ').next(), Some(expected.to_string().as_str()));
                expected += 1;
            }
        }
        assert!(expected > newest, "{expected} after {newest}");
        newest = expected;
    }
    writer.abort();
}

#[tokio::test]
async fn cursors_up_to_a_backup_continue_and_later_ones_have_diverged() {
    let server = Server::start();
    let to = TempDir::new().unwrap();
    let publish = async |server: &Server, name: &str, count: usize| {
        for n in 0..count {
            server.messages().await.publish(text("a", &format!("{name}-{n}"))).await.unwrap();
        }
    };
    let request = |cursor: Option<String>| MessagesRequest {
        topics: vec!["a".into()],
        start: Some(messages_request::Start::Earliest(true)),
        until_caught_up: true,
        on_gap: OnGap::Fail.into(),
        cursor,
        ..Default::default()
    };
    let read = async |server: &Server, cursor: Option<String>| {
        let mut stream = server.messages().await.messages(request(cursor)).await?.into_inner();
        let (mut count, mut last) = (0, String::new());
        while let Some(response) = soon("a response", stream.message()).await? {
            count += response.messages.len();
            last = response.cursor;
        }
        Ok::<_, tonic::Status>((count, last))
    };
    publish(&server, "common", 20).await;
    let (count, valid) = read(&server, None).await.unwrap();
    assert_eq!(count, 20);
    backup(&server, to.path()).await;
    publish(&server, "later", 10).await;
    let (_, later) = read(&server, None).await.unwrap();

    let copy = restored(to.path(), &[]);
    assert_eq!(read(&copy, Some(valid.clone())).await.unwrap().0, 0);
    publish(&copy, "new", 30).await;
    assert_eq!(read(&copy, Some(valid)).await.unwrap().0, 30);
    let refused = read(&copy, Some(later)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    let info = refused.get_error_details().error_info().cloned().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["last_common"].as_str()), ("LOG_DIVERGED", "20"));
}

#[tokio::test]
async fn a_backup_that_was_changed_or_is_in_the_wrong_place_is_refused_by_name() {
    let server = Server::start();
    server.messages().await.publish(text("a", "hello")).await.unwrap();
    let (to, data) = (TempDir::new().unwrap(), server.directory().join("data"));
    let place = to.path().to_str().unwrap();
    let inside = data.join("backup");
    let (code, _, err) = log(&data, &["backup", inside.to_str().unwrap()]);
    assert!(code == 1 && err.contains("overlap"), "{err}");
    std::fs::write(to.path().join("thesis.txt"), "three years").unwrap();
    let (code, _, err) = log(&data, &["backup", place]);
    assert!(code == 1 && err.contains("holds files that are no backup"), "{err}");
    std::fs::remove_file(to.path().join("thesis.txt")).unwrap();
    let (code, _, err) = log(&data, &["restore", place]);
    assert!(code == 1 && err.contains("is in use by"), "{err}");
    let (code, _, err) = log(&server.directory().join("empty"), &["restore", place]);
    assert!(code == 1 && err.contains("no whole backup"), "{err}");
    backup(&server, to.path()).await;

    let other = Server::start();
    other.messages().await.publish(text("a", "hello")).await.unwrap();
    let (code, _, err) = log(&other.directory().join("data"), &["backup", place]);
    assert!(code == 1 && err.contains("holds the backup of another log"), "{err}");
    let new = server.directory().join("new");
    let (code, _, err) = log(&new, &["restore", place]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = log(&new, &["restore", place]);
    assert!(code == 1 && err.contains("holds a log"), "{err}");

    let segment = to.path().join("messages/00000000000000000001.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    let last = bytes.len() - 5;
    bytes[last] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let (code, _, err) = log(&server.directory().join("newer"), &["restore", place]);
    assert!(code == 1 && err.contains("00000000000000000001.log is missing or was changed"), "{err}");
    assert!(!server.directory().join("newer/messages").exists());
    // The next backup does not take it over.
    backup(&server, to.path()).await;
    assert_eq!(everything(&restored(to.path(), &[])).await.len(), 1);
}
