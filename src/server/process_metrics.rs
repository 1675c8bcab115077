//! The metrics of the process under their usual names, what holds its memory, and the version of the server.

use std::{fmt, sync::atomic::AtomicU64};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};
use tokio::runtime::Handle;

use crate::{
    countdown::shared::Countdowns,
    grpc::{App, call::Calls},
    lines::Files,
    messages::Log,
    supervised,
};

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Version {
    version: &'static str,
}

/// The metrics of the process, as they are when they are scraped.
#[derive(Debug)]
struct Process {
    started: f64,
    runtime: Handle,
}

/// Registers the metrics of the process. The registry adds no prefix. Call it on the runtime.
pub fn register(registry: &mut Registry) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let process = Process { started: now.as_secs_f64(), runtime: Handle::current() };
    registry.register_collector(Box::new(process));
    let build = Family::<Version, Gauge>::default();
    build.get_or_create(&Version { version: env!("CARGO_PKG_VERSION") }).set(1);
    registry.register("perennial_build_info", "The version of the server", build);
}

/// Registers what the server holds. The registry adds the prefix of this program.
pub fn register_held(app: &App, registry: &mut Registry) {
    let App { calls, log, countdowns, files, .. } = app.clone();
    registry.register("panics", "Faults of the program that ended a task or a thread", supervised::panics());
    registry.register_collector(Box::new(Held { calls, log, countdowns, files }));
}

/// The value of a line of `/proc/self/status`, in its unit.
fn status(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn put(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        if let Some(kib) = status("VmRSS") {
            put(encoder, "process_resident_memory_bytes", "Memory of the process", kib * 1024)?;
        }
        if let Some(threads) = status("Threads") {
            put(encoder, "process_threads", "Threads of the process", threads)?;
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            // One is of the listing itself.
            let open = u64::try_from(open.count().saturating_sub(1)).unwrap_or(u64::MAX);
            put(encoder, "process_open_fds", "Open file descriptors", open)?;
        }
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        put(encoder, "process_max_fds", "The limit of open file descriptors", most.unwrap_or(u64::MAX))?;
        let tasks = u64::try_from(self.runtime.metrics().num_alive_tasks()).unwrap_or(u64::MAX);
        put(encoder, "perennial_tasks", "Tasks of the runtime", tasks)?;
        let started = ConstGauge::new(self.started);
        let help = "When the process started, in Unix seconds";
        let name = "process_start_time_seconds";
        started.encode(encoder.encode_descriptor(name, help, None, started.metric_type())?)?;
        let seconds = cpu_seconds();
        let used = ConstCounter::new(seconds);
        let help = "Processor time of the process, in seconds";
        used.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, used.metric_type())?)
    }
}

/// The processor time of the process, from the ticks of 10 ms in `/proc/self/stat`.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the process, in parentheses, may have spaces.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let fields = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok());
    fields.map(f64::from).sum::<f64>() / 100.0
}

/// What the server holds in memory.
#[derive(Debug)]
struct Held {
    calls: Calls,
    log: Log,
    countdowns: Countdowns,
    files: Files,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Holder {
    holder: &'static str,
}

impl Collector for Held {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let Self { calls, log, countdowns, files } = self;
        let buffered = count(calls.buffered());
        let help = "Bytes of requests that are not complete and of answers that wait for their readers";
        put(&mut encoder, "requests_buffered_bytes", help, buffered)?;
        let help = "Open calls of all services, which --max-streams bounds";
        put(&mut encoder, "calls_open", help, count(calls.open()))?;
        let help = "Open connections; --max-connections also bounds those whose handshake is not over";
        put(&mut encoder, "connections_open", help, count(calls.connections()))?;
        let help = "Shared countdowns, which --max-countdowns bounds";
        put(&mut encoder, "countdowns", help, count(countdowns.count()))?;
        let help = "Files and directories that streams of files hold, which --max-watched bounds";
        put(&mut encoder, "files_watched", help, count(files.watched()))?;
        let (responses, connections) = calls.unsent();
        let memory = Family::<Holder, Gauge<u64, AtomicU64>>::default();
        let of_calls = [("requests", buffered), ("responses", responses), ("connections", connections)];
        for (holder, bytes) in log.memory().into_iter().chain(of_calls) {
            memory.get_or_create(&Holder { holder }).set(bytes);
        }
        let help = "Bytes of memory by what holds them, estimated where they are not counted";
        memory.encode(encoder.encode_descriptor("memory_bytes", help, None, memory.metric_type())?)
    }
}
