//! Drives the real binaries over real sockets: a server in a directory of its own, on a port of its own.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use perennial::proto::{
    countdown_service_client::CountdownServiceClient, line_service_client::LineServiceClient,
    message_service_client::MessageServiceClient,
};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

pub mod mount;
pub mod output;

/// How long a test waits for something that should happen at once: long, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How long a start may take: an unoptimised server may have a log to check.
const START_PATIENCE: Duration = Duration::from_secs(180);

/// What the server prints before its URL.
const LISTENING: &str = "perenniald: listening on ";

/// A server, its data directory, and one root named `logs`.
pub struct Server {
    child: Child,
    address: SocketAddr,
    arguments: Vec<String>,
    directory: TempDir,
    stderr: mpsc::Receiver<String>,
    startup: Vec<String>,
}

impl Server {
    /// Starts a server with the default settings.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further arguments.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_over(directory(), "127.0.0.1:0", arguments)
    }

    /// Starts a server that listens on this address.
    pub fn start_with_listen(listen: &str, arguments: &[&str]) -> Self {
        Self::start_over(directory(), listen, arguments)
    }

    /// Starts a server whose directory is in this one.
    pub fn start_in(parent: &Path) -> Self {
        Self::start_in_with(parent, &[])
    }

    /// The same, with further arguments.
    pub fn start_in_with(parent: &Path, arguments: &[&str]) -> Self {
        Self::start_over(directory_in(parent), "127.0.0.1:0", arguments)
    }

    /// Starts a server over a directory that has `data` and `logs` in it: by this program, or by today's.
    pub fn start_over_data(directory: TempDir, program: Option<&Path>, arguments: &[&str]) -> Self {
        let mut command = command_of(program.unwrap_or(today()), directory.path(), "127.0.0.1:0");
        command.args(arguments);
        let arguments = arguments.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (child, address, stderr, startup) = spawn_command(command);
        Self { child, address, arguments, directory, stderr, startup }
    }

    /// Starts a server at an IP address of its own, so that while it is down nothing else can take its port.
    pub fn start_apart() -> Self {
        let [_, a, b, c] = std::process::id().to_be_bytes();
        Self::start_over(directory(), &format!("127.{}.{b}.{c}:0", a.wrapping_add(1)), &[])
    }

    fn start_over(directory: TempDir, listen: &str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (child, address, stderr, startup) = spawn(directory.path(), listen, &arguments);
        Self { child, address, arguments, directory, stderr, startup }
    }

    /// Starts a server by a wrapper: a command that executes its last arguments in its own process.
    pub fn start_by(wrapper: &[&str]) -> Self {
        let directory = directory();
        let server = server_command(directory.path(), "127.0.0.1:0");
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(server.get_program()).args(server.get_args());
        command.env("NO_COLOR", "1").env("PERENNIAL_LOG_FORMAT", "text");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let (child, address, stderr, startup) = spawn_command(command);
        Self { child, address, arguments: Vec::new(), directory, stderr, startup }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, at the same address and over the same data.
    pub fn restart(&mut self) {
        let (child, address, stderr, startup) =
            spawn(self.directory.path(), &self.address.to_string(), &self.arguments);
        (self.child, self.address, self.stderr, self.startup) = (child, address, stderr, startup);
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        signal(&self.child, rustix::process::Signal::TERM);
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The three commands for a program that the demo's start-up text gives.
    pub fn commands(&self, program: &str) -> [String; 3] {
        let is_program = |word: &str| word.rsplit('/').next() == Some(program);
        std::array::from_fn(|_| {
            loop {
                let line =
                    self.stderr.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no command for {program}"));
                let command = line.trim().to_owned();
                if command.split_whitespace().next().is_some_and(is_program) {
                    return command;
                }
            }
        })
    }

    /// The lines on stderr up to the one with the URL.
    pub fn startup(&self) -> &[String] {
        &self.startup
    }

    /// The next line on stderr that contains `needle`.
    pub fn wait_for_log(&self, needle: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self
                .stderr
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("the server never printed {needle:?}"));
            if line.contains(needle) {
                return line;
            }
        }
    }

    /// All further lines on stderr, after the process has ended.
    pub fn rest_of_log(&self) -> Vec<String> {
        self.stderr.iter().collect()
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A file below the root `logs`.
    pub fn log_file(&self, name: &str) -> PathBuf {
        self.directory.path().join("logs").join(name)
    }

    /// A new connection.
    pub async fn connect(&self) -> Channel {
        Endpoint::from_shared(self.url()).unwrap().connect().await.unwrap()
    }

    pub async fn countdown(&self) -> CountdownServiceClient<Channel> {
        CountdownServiceClient::new(self.connect().await)
    }

    pub async fn lines(&self) -> LineServiceClient<Channel> {
        LineServiceClient::new(self.connect().await)
    }

    pub async fn messages(&self) -> MessageServiceClient<Channel> {
        MessageServiceClient::new(self.connect().await)
    }

    /// The bundled client, with its server set.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_perennial"));
        command.args(arguments).env("PERENNIAL_SERVER", self.url()).stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Spawned = (Child, SocketAddr, mpsc::Receiver<String>, Vec<String>);

/// Where a server may keep its data and find its root.
fn directory() -> TempDir {
    directory_in(&std::env::temp_dir())
}

fn directory_in(parent: &Path) -> TempDir {
    let directory = TempDir::new_in(parent).unwrap();
    std::fs::create_dir(directory.path().join("logs")).unwrap();
    directory
}

fn spawn(directory: &Path, listen: &str, arguments: &[String]) -> Spawned {
    let mut command = server_command(directory, listen);
    command.args(arguments);
    spawn_command(command)
}

fn spawn_command(mut command: Command) -> Spawned {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut startup = Vec::new();
    let end = Instant::now() + START_PATIENCE;
    let address = loop {
        let left = end.saturating_duration_since(Instant::now());
        let line = receiver.recv_timeout(left).unwrap_or_else(|_| panic!("no start: {startup:#?}"));
        let url = line.strip_prefix(LISTENING).and_then(|url| url.trim().split_once("://"));
        let address = url.map(|(_, address)| address.parse().unwrap());
        startup.push(line);
        if let Some(address) = address {
            break address;
        }
    };
    (child, address, receiver, startup)
}

/// `perenniald` over the data and the root in a directory.
pub fn server_command(directory: &Path, listen: &str) -> Command {
    command_of(today(), directory, listen)
}

/// The server of this build.
fn today() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_perenniald"))
}

fn command_of(program: &Path, directory: &Path, listen: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--listen", listen])
        .arg("--data")
        .arg(directory.join("data"))
        .arg("--root")
        .arg(format!("logs={}", directory.join("logs").display()))
        .env("NO_COLOR", "1")
        .env("PERENNIAL_LOG_FORMAT", "text")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Sends a signal to a process.
pub fn signal(child: &Child, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, signal).unwrap();
}

/// Waits for a process to end, within [`PATIENCE`] and the server's drain.
pub fn wait(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + 2 * PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < end, "the process does not end");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for a future, within [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(PATIENCE, what, future).await
}

/// Waits for a future, up to a limit.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(limit, future).await;
    result.unwrap_or_else(|_| panic!("{what}: nothing within {limit:?}"))
}

/// Polls a condition until it holds, within [`PATIENCE`].
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Appends to a file in one write.
pub fn append(path: &Path, text: &str) {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
