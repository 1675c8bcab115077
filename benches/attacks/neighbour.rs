//! The healthy client: a process of its own with a high priority, so that its figures are the server's.
//!
//! In the process of the attackers it would wait for their work, and would measure itself.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::Server;

/// The first argument of the process.
pub const ARGUMENT: &str = "--neighbour";

/// The pause between two checks.
const PAUSE: Duration = Duration::from_millis(2);

/// The priorities of the neighbour and of the attackers, if the system allows them: attackers are on other machines, and
/// must not take the processors from the server.
const PRIORITIES: (i32, i32) = (-10, 10);

/// What the neighbour saw.
pub struct Latencies {
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

/// A neighbour that runs.
pub struct Neighbour(Child);

impl Neighbour {
    /// Starts to check the health of a server.
    pub fn start(server: &Server) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([ARGUMENT, &server.address().to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It says when it is connected.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self(child)
    }

    /// Ends it, and gives what it saw.
    pub fn end(mut self) -> Latencies {
        drop(self.0.stdin.take());
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(self.0.wait().unwrap().success());
        let micros = text.split_whitespace().map(|micros| Duration::from_micros(micros.parse().unwrap()));
        let [p50, p99, max] = micros.collect::<Vec<_>>().try_into().unwrap();
        Latencies { p50, p99, max }
    }
}

/// Lets the attackers give way to the server.
pub fn yield_to_server() {
    let _ = rustix::process::setpriority_process(None, PRIORITIES.1);
}

/// The process of a neighbour: checks the health until its stdin ends, and prints the latencies in microseconds.
pub fn run(address: SocketAddr) {
    // It inherits that of the attackers.
    let _ = rustix::process::setpriority_process(None, PRIORITIES.0);
    let is_over = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut all = runtime.block_on(async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut client = HealthClient::new(endpoint.connect().await.unwrap());
        client.check(HealthCheckRequest::default()).await.unwrap();
        std::io::stdout().write_all(b".").unwrap();
        std::io::stdout().flush().unwrap();
        let mut all = Vec::new();
        while all.is_empty() || !is_over.is_finished() {
            let since = Instant::now();
            client.check(HealthCheckRequest::default()).await.unwrap();
            all.push(since.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
        all
    });
    all.sort();
    let at = |part: usize| all.get((all.len() * part / 100).min(all.len() - 1)).unwrap().as_micros();
    println!(" {} {} {}", at(50), at(99), at(100));
}
