//! A server as a process of its own, what it costs, and the client that drives it: the same for all.

use std::{
    fs,
    future::ready,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tonic::{
    Request, Streaming,
    client::Grpc,
    codegen::http::{Uri, uri::PathAndQuery},
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::{Result, directory};

/// `USER_HZ`: the unit of CPU time in `/proc/PID/stat` on Linux, whatever the kernel's own.
const TICK: Duration = Duration::from_millis(10);

/// The windows of a client that reads: the loopback's answer to a fast network. Stream, connection.
pub const WIDE: (u32, u32) = (1 << 20, 16 << 20);

/// The windows that HTTP/2 itself starts with.
pub const NARROW: (u32, u32) = (65_535, 65_535);

/// The address line of each server's stderr.
const LISTENING: &str = "listening on ";

/// What marks an error there.
const ERRORS: [&str; 3] = [" ERROR ", "[ERR]", "[FTL]"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Perennial,
    Tonic,
    Aio,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Perennial => "perennial",
            Self::Tonic => "tonic, idiomatic",
            Self::Aio => "grpc.aio (Python)",
        }
    }

    /// Why it can't run here, if it can't.
    pub fn missing(self) -> Option<&'static str> {
        if self != Self::Aio {
            return None;
        }
        let mut check = Command::new(python());
        check.args(["-c", "import grpc, grpc_tools"]).stderr(Stdio::null());
        let found = check.status().is_ok_and(|status| status.success());
        (!found).then_some("no python3 with grpcio-tools: set BENCH_PYTHON")
    }
}

/// The Python to run what is written in it.
pub fn python() -> PathBuf {
    std::env::var_os("BENCH_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

/// Our server: of this build, unless the environment names another one to compare it with.
fn ours() -> PathBuf {
    std::env::var_os("BENCH_PERENNIALD")
        .map_or_else(|| env!("CARGO_BIN_EXE_perenniald").into(), PathBuf::from)
}

/// A process that serves; dropping it ends it.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts it; also yields what follows `mark` on the first line of its stderr that has it: where it listens.
    pub fn start(name: &str, mut command: Command, mark: &str) -> Result<(Self, String)> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Self { child: command.spawn()? };
        let mut lines = BufReader::new(process.child.stderr.take().ok_or("no stderr")?).lines();
        let mut printed = Vec::new();
        let address = loop {
            let Some(line) = lines.next().transpose()? else {
                return Err(format!("{name} did not start: {}", printed.join("\n")).into());
            };
            if let Some((_, address)) = line.split_once(mark) {
                break address.trim().to_owned();
            }
            printed.push(line);
        };
        // Read on, so that the server does not block on a full pipe. Its errors show why a scenario fails.
        let errors = lines.map_while(io::Result::ok).filter(|line| ERRORS.iter().any(|e| line.contains(e)));
        thread::spawn(move || errors.for_each(|error| eprintln!("{error}")));
        Ok((process, address))
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All CPU time so far, of user and system.
    pub fn cpu(&self) -> Result<Duration> {
        cpu(&self.id().to_string())
    }

    /// The resident memory in bytes.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("it stopped with {status}").into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All CPU time so far, of user and system, of a process: its number, or `self`.
pub fn cpu(process: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold spaces; utime and stime are the 14th and the 15th field.
    let (_, rest) = stat.rsplit_once(')').ok_or("stat without a name")?;
    let ticks: u32 = rest.split_whitespace().skip(11).take(2).map_while(|n| n.parse::<u32>().ok()).sum();
    Ok(TICK * ticks)
}

/// A running server that speaks gRPC; dropping it ends it.
#[derive(Debug)]
pub struct Server {
    process: Process,
    address: String,
    data: TempDir,
}

impl Server {
    /// Starts a server; ours may read the files of `root`, as `logs/…`.
    pub fn start(kind: Kind, root: &Path) -> Result<Self> {
        Self::open(kind, root, directory()?)
    }

    /// Starts an empty server with more arguments.
    pub fn start_with(kind: Kind, arguments: &[&str]) -> Result<Self> {
        Self::run(kind, Path::new("."), directory()?, arguments)
    }

    /// Starts a server on data that are there already.
    pub fn open(kind: Kind, root: &Path, data: TempDir) -> Result<Self> {
        Self::run(kind, root, data, &[])
    }

    fn run(kind: Kind, root: &Path, data: TempDir, arguments: &[&str]) -> Result<Self> {
        let command = match kind {
            Kind::Perennial => {
                let mut command = Command::new(ours());
                command.args(["--listen", "127.0.0.1:0", "--data"]).arg(data.path());
                command.arg("--root").arg(format!("logs={}", root.display()));
                command.args(arguments);
                command
            }
            Kind::Tonic => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("peer");
                command
            }
            Kind::Aio => {
                let mut command = Command::new(python());
                command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compare/aio.py"));
                command
            }
        };
        let (process, address) = Process::start(kind.name(), command, LISTENING)?;
        Ok(Self { process, address, data })
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

    /// Where its data are.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The process it is.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// A connection of its own.
    pub async fn connect(&self, (stream, connection): (u32, u32)) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(self.address.clone())?
            .initial_stream_window_size(stream)
            .initial_connection_window_size(connection)
            .tcp_nodelay(true);
        Ok(endpoint.connect().await?)
    }

    /// Connections with windows that don't hold up a reader.
    pub async fn connections(&self, count: usize) -> Result<Vec<Channel>> {
        let mut channels = Vec::with_capacity(count);
        for _ in 0..count {
            channels.push(self.connect(WIDE).await?);
        }
        Ok(channels)
    }

    /// A connection with wide windows, and its socket, by which it can be cut in the middle of a frame.
    pub async fn connect_to_cut(&self) -> Result<(Channel, std::net::TcpStream)> {
        let address = self.address.strip_prefix("http://").ok_or("no address")?;
        let socket = TcpStream::connect(address).await?.into_std()?;
        socket.set_nodelay(true)?;
        let handle = socket.try_clone()?;
        let mut socket = Some(TokioIo::new(TcpStream::from_std(socket)?));
        // There is one socket to connect with; a channel that lost it must not make a new one by itself.
        let connector =
            service_fn(move |_: Uri| ready(socket.take().ok_or_else(|| io::Error::other("it was cut"))));
        let endpoint = Endpoint::from_shared(self.address.clone())?
            .initial_stream_window_size(WIDE.0)
            .initial_connection_window_size(WIDE.1);
        Ok((endpoint.connect_with_connector(connector).await?, handle))
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where it listens: `http://…`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How many inotify instances the process has, and how many watches they hold.
    pub fn watches(&self) -> Result<(usize, usize)> {
        let process = PathBuf::from(format!("/proc/{}", self.id()));
        let (mut instances, mut watches) = (0, 0);
        for descriptor in fs::read_dir(process.join("fd"))? {
            let descriptor = descriptor?;
            // A descriptor that was closed meanwhile does not count.
            if fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == "anon_inode:inotify")
            {
                let info = fs::read_to_string(process.join("fdinfo").join(descriptor.file_name()))?;
                instances += 1;
                watches += info.lines().filter(|line| line.starts_with("inotify wd:")).count();
            }
        }
        Ok((instances, watches))
    }

    /// All CPU time so far, of user and system.
    pub fn cpu(&self) -> Result<Duration> {
        self.process.cpu()
    }

    /// The resident memory in bytes.
    pub fn memory(&self) -> Result<u64> {
        self.process.memory()
    }
}

/// Calls a server-streaming method.
pub async fn call<Q, R>(channel: &Channel, method: &'static str, request: Q) -> Result<Streaming<R>>
where
    Q: Message + Send + Sync + 'static,
    R: Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let method = PathAndQuery::from_static(method);
    let codec = ProstCodec::<Q, R>::default();
    Ok(grpc.server_streaming(Request::new(request), method, codec).await?.into_inner())
}
