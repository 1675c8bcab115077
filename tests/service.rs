//! The server as a service of systemd: the sockets and the notifications of a service manager, played by the test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    pin::pin,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use harness::{PATIENCE, server_command, signal, soon, wait, within};
use perennial::{
    access::tokens,
    client::{Client, Credentials, Token},
    proto::{
        ErrorReason, MessagesRequest, PublishRequest, messages_request::Start, publish_request,
        stored_message,
    },
};
use rustix::process::Signal;
use tempfile::TempDir;

/// A service manager: it holds the socket, and is notified.
struct Manager {
    directory: TempDir,
    listener: TcpListener,
    notified: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::create_dir(directory.path().join("logs")).unwrap();
        let notified = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        notified.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { directory, listener: TcpListener::bind("127.0.0.1:0").unwrap(), notified }
    }

    fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    /// Starts the server as systemd does: the socket is its descriptor 3, and `LISTEN_PID` is its own process.
    fn start(&self, arguments: &[&str]) -> Child {
        let server = server_command(self.directory.path(), "127.0.0.1:1");
        // The shell becomes the server, so both have one process id.
        let mut command = Command::new("sh");
        command.args(["-c", "exec 3<&0 </dev/null; export LISTEN_PID=$$; exec \"$0\" \"$@\""]);
        command.arg(server.get_program()).args(server.get_args()).args(arguments);
        command.env("LISTEN_FDS", "1").env("NOTIFY_SOCKET", self.directory.path().join("notify"));
        command.env("PERENNIAL_LOG_FORMAT", "text").stdout(Stdio::null()).stderr(Stdio::null());
        let socket = OwnedFd::from(self.listener.try_clone().unwrap());
        command.stdin(Stdio::from(socket)).spawn().unwrap()
    }

    /// Waits for a notification, and returns it.
    fn wait_for(&self, line: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let mut bytes = [0; 4096];
        loop {
            let length = self.notified.recv(&mut bytes).unwrap_or_else(|_| panic!("no {line}"));
            let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
            if text.lines().any(|is| is == line) {
                return text;
            }
            assert!(Instant::now() < end, "no {line}");
        }
    }
}

fn end(child: &mut Child) {
    signal(child, Signal::TERM);
    assert!(wait(child).success());
}

fn message(text: String) -> PublishRequest {
    PublishRequest {
        topic: "a".into(),
        content: Some(publish_request::Content::Text(text)),
        ..Default::default()
    }
}

#[tokio::test]
async fn systemd_is_told_of_the_start_reloads_and_the_stop_and_its_socket_is_used() {
    let manager = Manager::new();
    let config = manager.directory.path().join("perennial.toml");
    std::fs::write(&config, "log = \"info\"\n").unwrap();
    let mut child = manager.start(&["--config", config.to_str().unwrap()]);
    manager.wait_for("READY=1");
    let client = Client::new(&manager.url()).unwrap();
    soon("a publish", Box::pin(client.publish(message("1".into())))).await.unwrap();
    signal(&child, Signal::HUP);
    assert!(manager.wait_for("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.wait_for("READY=1");
    signal(&child, Signal::TERM);
    manager.wait_for("STOPPING=1");
    assert!(wait(&mut child).success());
    // The socket is still there, and clients wait in its queue.
    drop(std::net::TcpStream::connect(manager.listener.local_addr().unwrap()).unwrap());
}

/// Rules that allow one caller to publish, and many tokens of others: they take a while to read.
fn write_access(directory: &Path) -> (PathBuf, PathBuf, Token) {
    let [rules, file] = ["access.toml", "tokens.toml"].map(|name| directory.join(name));
    fs::write(&rules, "[[rule]]\nwho = [\"token:a\"]\nmay = [\"publish\"]\ntopics = [\"a\"]\n").unwrap();
    let others = (0..20_000).map(|n| {
        format!(
            "[[token]]\nname = \"n{n}\"\nhash = \"blake3:{n:064x}\"\ncreated = \"2026-01-01T00:00:00Z\"\n"
        )
    });
    fs::write(&file, others.collect::<String>()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let token = tokens::add(&file, "a", Vec::new(), None).unwrap();
    (rules, file, Token::Text(token.expose().into()))
}

#[tokio::test]
async fn a_reload_is_over_when_every_file_is_in_use_and_its_state_names_those_that_are_refused() {
    let manager = Manager::new();
    let directory = manager.directory.path();
    let (rules, tokens, token) = write_access(directory);
    let config = directory.join("perennial.toml");
    let content = format!("access = {rules:?}\ntokens = {tokens:?}\nreload-interval = \"1h\"\n");
    fs::write(&config, &content).unwrap();
    let mut child = manager.start(&["--config", config.to_str().unwrap()]);
    manager.wait_for("READY=1");
    let credentials = Credentials { token: Some(token), ..Credentials::default() };
    let client = Client::with_credentials(&manager.url(), credentials).unwrap();
    soon("a publish", Box::pin(client.publish(message("1".into())))).await.unwrap();
    let reload = || {
        signal(&child, Signal::HUP);
        manager.wait_for("RELOADING=1");
        manager.wait_for("READY=1")
    };
    tokens::revoke(&tokens, "a").unwrap();
    assert!(reload().contains("STATUS=serving\n"));
    let error = soon("an answer", Box::pin(client.publish(message("2".into())))).await.unwrap_err();
    assert_eq!(error.reason(), Some(ErrorReason::CredentialsRevoked.as_str_name()), "{error:?}");
    let good = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, good.replace("publish", "pubish")).unwrap();
    fs::write(&config, format!("{content}max-streams = \"many\"\n")).unwrap();
    let state = reload();
    let state = state.lines().find(|line| line.starts_with("STATUS=")).unwrap();
    for fault in ["are refused", "access.toml: line 3", "perennial.toml"] {
        assert!(state.contains(fault), "no {fault} in {state}");
    }
    fs::write(&rules, good).unwrap();
    fs::write(&config, content).unwrap();
    assert!(reload().contains("STATUS=serving\n"));
    end(&mut child);
}

#[test]
fn the_watchdog_is_reset_as_long_as_the_server_answers() {
    let manager = Manager::new();
    let mut command = server_command(manager.directory.path(), "127.0.0.1:0");
    command.env("NOTIFY_SOCKET", manager.directory.path().join("notify")).env("WATCHDOG_USEC", "400000");
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    for _ in 0..5 {
        manager.wait_for("WATCHDOG=1");
    }
    // A process that is stopped does not reset it.
    signal(&child, Signal::STOP);
    manager.notified.set_read_timeout(Some(Duration::from_millis(800))).unwrap();
    let mut bytes = [0; 4096];
    while manager.notified.recv(&mut bytes).is_ok() {}
    signal(&child, Signal::CONT);
    manager.notified.set_read_timeout(Some(PATIENCE)).unwrap();
    manager.wait_for("WATCHDOG=1");
    end(&mut child);
}

#[test]
fn a_socket_of_systemd_that_others_can_reach_needs_tls_too() {
    let mut manager = Manager::new();
    manager.listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let mut child = manager.start(&[]);
    assert_eq!(wait(&mut child).code(), Some(1));
    let mut child = manager.start(&["--insecure"]);
    manager.wait_for("READY=1");
    end(&mut child);
}

/// What a client saw.
#[derive(Default)]
struct Seen {
    /// The texts that were acknowledged, by their sequence.
    acknowledged: BTreeMap<i64, String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_load_with_100_clients_loses_and_doubles_nothing() {
    restarts(6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "50 restarts: a minute"]
async fn fifty_restarts_under_load_with_100_clients_lose_and_double_nothing() {
    restarts(50).await;
}

/// 50 clients publish, each message until it is acknowledged, and 50 read; systemd holds the socket meanwhile.
async fn restarts(count: usize) {
    const HALF: usize = 50;
    let manager = Manager::new();
    let mut child = manager.start(&[]);
    manager.wait_for("READY=1");
    let is_over = Arc::new(AtomicBool::new(false));
    let publishers = (0..HALF).map(|publisher| {
        let (url, is_over) = (manager.url(), is_over.clone());
        tokio::spawn(async move {
            let client = Client::new(&url).unwrap();
            let mut seen = Seen::default();
            for n in 0.. {
                let text = format!("{publisher}/{n}");
                let request = PublishRequest { message_id: Some(text.clone()), ..message(text.clone()) };
                let published = async {
                    loop {
                        match client.publish(request.clone()).await {
                            Ok(published) => return published.sequence.unwrap(),
                            Err(error) => assert!(error.is_retryable(), "{error:?}"),
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                };
                let sequence = within(Duration::from_secs(120), "an answer", published).await;
                assert!(seen.acknowledged.insert(sequence, text).is_none());
                if is_over.load(Ordering::Relaxed) {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            seen
        })
    });
    let publishers = publishers.collect::<Vec<_>>();
    let last = tokio::sync::watch::Sender::new(None::<i64>);
    let readers = (0..HALF).map(|_| {
        let (url, last) = (manager.url(), last.subscribe());
        tokio::spawn(read_until(url, last))
    });
    let readers = readers.collect::<Vec<_>>();
    for _ in 0..count {
        tokio::time::sleep(Duration::from_millis(300)).await;
        signal(&child, Signal::TERM);
        tokio::task::block_in_place(|| {
            assert!(wait(&mut child).success());
            child = manager.start(&[]);
            manager.wait_for("READY=1");
        });
    }
    is_over.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeMap::new();
    for publisher in publishers {
        acknowledged.extend(publisher.await.unwrap().acknowledged);
    }
    last.send_replace(acknowledged.keys().last().copied());
    println!("{} messages over {count} restarts", acknowledged.len());
    for reader in readers {
        let read = within(Duration::from_secs(120), "the last message", reader).await.unwrap();
        let lost =
            acknowledged.iter().filter(|(sequence, _)| !read.contains_key(sequence)).collect::<Vec<_>>();
        let unknown = read.iter().filter(|(sequence, text)| acknowledged.get(sequence) != Some(text));
        let unknown = unknown.collect::<Vec<_>>();
        assert!(lost.is_empty() && unknown.is_empty(), "lost: {lost:?}; not acknowledged: {unknown:?}");
    }
    end(&mut child);
}

/// Reads by the client, which resumes by itself, up to a sequence.
async fn read_until(url: String, last: tokio::sync::watch::Receiver<Option<i64>>) -> BTreeMap<i64, String> {
    let request = MessagesRequest {
        topics: vec!["a".into()],
        start: Some(Start::Earliest(true)),
        heartbeat: Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 }),
        ..Default::default()
    };
    let client = Client::new(&url).unwrap();
    let (mut request, mut read) = (request, BTreeMap::new());
    loop {
        let mut responses = pin!(client.messages(request.clone()).responses());
        while let Some(response) = within(Duration::from_secs(120), "a response", responses.next()).await {
            let Ok(response) = response else { break };
            assert!(response.events.is_empty(), "{:?}", response.events);
            for message in response.messages {
                let Some(stored_message::Content::Text(text)) = message.content else { panic!() };
                assert!(read.insert(message.sequence.unwrap(), text).is_none(), "it came twice");
            }
            // Messages come in the order of their sequence, so every earlier one has come, too.
            let newest = read.last_key_value().map(|(sequence, _)| *sequence);
            if last.borrow().is_some_and(|last| newest >= Some(last)) {
                return read;
            }
            request.cursor = Some(response.cursor);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
