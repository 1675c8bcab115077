//! nats-server with JetStream in files, as a process, and what one asks of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use memchr::memmem;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    load::{Flow, Load, Messages},
    wire::{Connection, INBOX_ID, Msg},
};
use crate::{Result, directory, process::Process};

const LISTENING: &str = "Listening for client connections on ";

/// The one stream, as `nats stream add` makes it, and what it takes.
const STREAM: &str = "FEED";
const SUBJECTS: &str = super::load::ALL;

/// What an ordered consumer is, in nats.go: `js.go`, `orderedHeartbeatsInterval` and around it.
const HEARTBEAT: Duration = Duration::from_secs(5);
const ACK_WAIT: Duration = Duration::from_secs(22 * 3600);

/// How to get it.
const INSTALL: &str =
    "no nats-server: go install github.com/nats-io/nats-server/v2@latest, or set BENCH_NATS_SERVER";

/// The path of the server: from the environment, from `PATH`, or where Go installs it.
fn program() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("BENCH_NATS_SERVER").map(PathBuf::from) {
        return given.is_file().then_some(given);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let go = std::env::var_os("HOME").map(|home| PathBuf::from(home).join("go/bin"));
    let mut places = std::env::split_paths(&path).chain(go).map(|place| place.join("nats-server"));
    places.find(|file| file.is_file())
}

/// Why it can't run here, if it can't.
pub fn missing() -> Option<&'static str> {
    program().is_none().then_some(INSTALL)
}

/// Its name and version, as it prints them.
pub fn version() -> Result<String> {
    let printed = Command::new(program().ok_or(INSTALL)?).arg("--version").output()?;
    Ok(String::from_utf8(printed.stdout)?.trim().to_owned())
}

/// When a message is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Within two minutes of when it was acknowledged.
    Default,
    /// Before it is acknowledged.
    Always,
}

/// A running nats-server; dropping it ends it.
pub struct Server {
    process: Process,
    address: String,
    data: TempDir,
}

impl Server {
    /// Starts one, and makes the stream.
    pub async fn start(sync: Sync) -> Result<Self> {
        let server = Self::open(sync, directory()?)?;
        let config = json!({
            "name": STREAM, "subjects": [SUBJECTS], "storage": "file", "retention": "limits", "discard": "old",
            "num_replicas": 1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msg_size": -1,
        });
        ask(&mut server.connect().await?, &format!("STREAM.CREATE.{STREAM}"), &config).await?;
        Ok(server)
    }

    /// Starts one on data that are there already.
    pub fn open(sync: Sync, data: TempDir) -> Result<Self> {
        let config = data.path().join("nats.conf");
        let always = if sync == Sync::Always { ", sync_interval: always" } else { "" };
        let store = data.path().join("store");
        let settings = format!(
            "host: 127.0.0.1\nport: -1\njetstream {{ store_dir: {:?}{always} }}\n",
            store.display().to_string()
        );
        fs::write(&config, settings)?;
        let mut command = Command::new(program().ok_or(INSTALL)?);
        command.arg("-c").arg(config);
        let (process, address) = Process::start("nats-server", command, LISTENING)?;
        Ok(Self { process, address, data })
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where its data are.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Asks it to stop, waits until it has, and hands out its data.
    pub fn stop(self) -> Result<TempDir> {
        self.process.stop()?;
        Ok(self.data)
    }

    /// Kills it without a word, and hands out its data.
    pub fn kill(self) -> TempDir {
        drop(self.process);
        self.data
    }

    pub async fn connect(&self) -> Result<Connection> {
        Connection::open(&self.address).await
    }

    /// The last sequence of the stream.
    pub async fn head(&self) -> Result<u64> {
        let answer = ask(&mut self.connect().await?, &format!("STREAM.INFO.{STREAM}"), &json!({})).await?;
        Ok(answer.pointer("/state/last_seq").and_then(Value::as_u64).ok_or("no last_seq")?)
    }
}

/// Calls the API of JetStream.
async fn ask(connection: &mut Connection, call: &str, request: &Value) -> Result<Value> {
    let answer = connection.ask(format!("$JS.API.{call}").as_bytes(), request.to_string().as_bytes()).await?;
    let answer: Value = serde_json::from_slice(&answer)?;
    match answer.get("error") {
        Some(error) => Err(format!("{call}: {error}").into()),
        None => Ok(answer),
    }
}

/// The sequence in the answer to a published message.
fn sequence(answer: &[u8]) -> Result<u64> {
    const SEQUENCE: &[u8] = b"\"seq\":";
    let at = memmem::find(answer, SEQUENCE).map(|at| at + SEQUENCE.len());
    let digits = at.and_then(|at| answer.get(at..)).unwrap_or_default();
    leading(digits).ok_or_else(|| format!("not published: {}", String::from_utf8_lossy(answer)).into())
}

fn leading(digits: &[u8]) -> Option<u64> {
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(digits.get(..length)?).ok()?.parse().ok()
}

/// Publishes a load over one connection, and returns how many were acknowledged, each after the one before.
pub async fn publish(connection: &mut Connection, messages: &Messages, load: &Load) -> Result<u64> {
    let mut flow = Flow::new(load);
    while !flow.is_all_answered() {
        let numbers = flow.take();
        if !numbers.is_empty() {
            for number in numbers {
                let (topic, payload) = messages.nth(number);
                connection.request(&topic, &payload);
            }
            connection.flush().await?;
            continue;
        }
        let mut count = 0;
        let received = connection.receive(|msg| {
            if msg.id == INBOX_ID {
                count += 1;
                load.acknowledge(sequence(msg.payload)?)?;
            }
            Ok(())
        });
        tokio::select! {
            received = received => received?,
            () = flow.next_due() => {}
        }
        flow.answer(count);
    }
    Ok(flow.answered())
}

/// Publishes one after the other until a moment, and returns how long each took, in nanoseconds.
pub async fn publish_singly(
    connection: &mut Connection,
    messages: &Messages,
    first: u64,
    end: Instant,
) -> Result<Vec<i64>> {
    let (mut took, mut number, mut last) = (Vec::new(), first, 0);
    while Instant::now() < end {
        let (topic, payload): (Bytes, Bytes) = messages.nth(number);
        let start = Instant::now();
        let answered = sequence(&connection.ask(&topic, &payload).await?)?;
        took.push(i64::try_from(start.elapsed().as_nanos())?);
        if answered <= last {
            return Err(format!("sequence {answered} after {last}").into());
        }
        (last, number) = (answered, number + 1);
    }
    Ok(took)
}

/// Ordered consumers over one connection, as nats.go makes them: pushed, with flow control and a heartbeat, not
/// acknowledged.
pub struct Consumers {
    connection: Connection,
    /// What each has had last: of the stream, and of its own.
    last: Vec<(u64, u64)>,
    /// How many came since the last one began, and how many are left.
    received: u64,
    pending: u64,
}

impl Consumers {
    pub fn new(connection: Connection) -> Self {
        Self { connection, last: Vec::new(), received: 0, pending: u64::MAX }
    }

    /// Begins one more, of all messages that match, from the first one or from those to come.
    pub async fn add(&mut self, subject: &str, is_new: bool) -> Result<()> {
        self.last.push((0, 0));
        (self.received, self.pending) = (0, u64::MAX);
        let name = format!("ordered-{}-{}", self.connection.port(), self.last.len());
        let deliver = format!("_DELIVER.{name}");
        self.connection.subscribe(&deliver, self.last.len());
        let config = json!({
            "name": name, "deliver_subject": deliver, "deliver_policy": if is_new { "new" } else { "all" },
            "ack_policy": "none", "max_deliver": 1, "ack_wait": u64::try_from(ACK_WAIT.as_nanos())?,
            "replay_policy": "instant", "flow_control": true, "mem_storage": true, "num_replicas": 1,
            "idle_heartbeat": u64::try_from(HEARTBEAT.as_nanos())?, "filter_subject": subject,
        });
        let call = format!("CONSUMER.CREATE.{STREAM}.{name}.{subject}");
        let request = json!({ "stream_name": STREAM, "config": config, "action": "create" });
        let answer = self.call(&call, &request).await?;
        // A message that came before the answer knows better.
        if self.received == 0 {
            self.pending = answer.get("num_pending").and_then(Value::as_u64).ok_or("no num_pending")?;
        }
        Ok(())
    }

    /// Calls the API, and takes the messages that come before the answer.
    async fn call(&mut self, call: &str, request: &Value) -> Result<Value> {
        let subject = format!("$JS.API.{call}");
        self.connection.request(subject.as_bytes(), request.to_string().as_bytes());
        self.connection.flush().await?;
        loop {
            if let Some(answer) = self.receive().await? {
                let answer: Value = serde_json::from_slice(&answer)?;
                return match answer.get("error") {
                    Some(error) => Err(format!("{call}: {error}").into()),
                    None => Ok(answer),
                };
            }
        }
    }

    /// Reads until all together have received this number.
    pub async fn read(&mut self, messages: u64) -> Result<()> {
        while self.received < messages {
            self.receive().await?;
        }
        Ok(())
    }

    /// Reads the whole stream with one more consumer, and returns the number of messages.
    pub async fn replay(&mut self, subject: &str) -> Result<u64> {
        self.add(subject, false).await?;
        while self.pending > 0 {
            self.receive().await?;
        }
        self.connection.unsubscribe(self.last.len());
        self.connection.flush().await?;
        Ok(self.received)
    }

    /// Takes what comes; an answer to a request, if there is one, is handed out.
    async fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        let Self { connection, last, received, pending } = self;
        let mut answer = None;
        let take = |msg: Msg<'_>| {
            if msg.id == INBOX_ID {
                answer = Some(msg.payload.to_vec());
                return Ok(());
            }
            let place = Place::parse(msg.reply).ok_or("a message without its place")?;
            let last = last.get_mut(msg.id - 1).ok_or("a message of no publisher")?;
            if place.stream <= last.0 || place.own != last.1 + 1 {
                return Err("a message was lost, or came out of order".into());
            }
            *last = (place.stream, place.own);
            *received += 1;
            *pending = place.pending;
            Ok(())
        };
        connection.receive(take).await?;
        Ok(answer)
    }
}

/// The sequences of a message, by the subject that acknowledges it:
/// `$JS.ACK.stream.consumer.delivered.stream sequence.own sequence.time.pending`.
struct Place {
    stream: u64,
    own: u64,
    pending: u64,
}

impl Place {
    fn parse(reply: &[u8]) -> Option<Self> {
        let mut words = reply.rsplit(|byte| *byte == b'.');
        let pending = leading(words.next()?)?;
        let own = leading(words.nth(1)?)?;
        let stream = leading(words.next()?)?;
        Some(Self { stream, own, pending })
    }
}
