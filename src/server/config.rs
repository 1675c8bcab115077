//! Settings: from flags, the environment and a file, in this order, to what each part of the server takes.
//!
//! [`Settings`] is the one table: each field is a flag, an environment variable and a key of the file. So are the rules
//! of the roots: `--deny logs=*.key` is `deny = ["logs=*.key"]`, and no table of its own.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};
use serde::Deserialize;

use super::accept;
use crate::{
    countdown, grpc, lines,
    messages::{self, SEGMENT_SIZES, retention},
};
use roots::{Root, Rule};
use value::{Size, Span, switch};

mod file;
mod roots;
mod value;

/// The name of the environment variable of a key.
const ENV_PREFIX: &str = "PERENNIAL_";

/// Streams that any program can call, cut anywhere, and continue exactly where they stopped.
///
/// Every setting is a flag, an environment variable and a key of the file, which win in this order:
/// --max-streams, PERENNIAL_MAX_STREAMS, max-streams. Durations are written as 500ms, 20s, 5m, 1h; sizes as 64KiB,
/// 1MiB or a number of bytes.
#[derive(Debug, Parser)]
#[command(name = "perenniald", version, max_term_width = 110)]
struct Arguments {
    /// Read settings from this TOML file
    #[arg(long, env = "PERENNIAL_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// What can be set, wherever it is set.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Settings {
    /// Where to listen [default: 127.0.0.1:50051]
    #[arg(long, env = "PERENNIAL_LISTEN", value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where messages are kept [default: $XDG_DATA_HOME/perennial, or perennial-demo with --demo]
    #[arg(long, env = "PERENNIAL_DATA", value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// A directory whose files can be read, as NAME/…; can be repeated
    #[arg(
        long,
        env = "PERENNIAL_ROOT",
        value_name = "NAME=DIR",
        value_delimiter = ',',
        help_heading = "Roots"
    )]
    root: Vec<Root>,
    /// Only files of a root that match this can be read: *.log at any depth, nginx/*.log from the root on, app/** all
    /// below; can be repeated
    #[arg(
        long,
        env = "PERENNIAL_ALLOW",
        value_name = "NAME=GLOB",
        value_delimiter = ',',
        help_heading = "Roots"
    )]
    allow: Vec<Rule>,
    /// No file of a root that matches this can be read, nor a link that leads to one; wins over --allow; A to Z match a
    /// to z; can be repeated
    #[arg(
        long,
        env = "PERENNIAL_DENY",
        value_name = "NAME=GLOB",
        value_delimiter = ',',
        help_heading = "Roots"
    )]
    deny: Vec<Rule>,
    /// No file of this root that has a second name, which may be outside, can be read; can be repeated
    #[arg(
        long,
        env = "PERENNIAL_NO_HARD_LINKS",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Roots"
    )]
    no_hard_links: Vec<String>,
    /// Links of this root by an absolute path are followed too, if it lies in the root's directory; can be repeated
    #[arg(
        long,
        env = "PERENNIAL_ABSOLUTE_LINKS",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Roots"
    )]
    absolute_links: Vec<String>,
    /// What is kept of the topics that match: age:7d, bytes:1GiB and count:1000 for each topic, total:20GiB for all of
    /// them, with spaces between, or last alone; the first rule that matches a topic holds, and without one all is
    /// kept; can be repeated
    #[arg(
        long,
        env = "PERENNIAL_RETAIN",
        value_name = "PATTERN=LIMITS",
        value_delimiter = ',',
        global = true,
        help_heading = "Retention"
    )]
    retain: Vec<retention::Rule>,
    /// How often rules are enforced: at 20s, what they remove is gone within a minute [default: 20s]
    #[arg(long, env = "PERENNIAL_RETENTION_INTERVAL", value_name = "TIME", help_heading = "Retention")]
    retention_interval: Option<Span>,
    /// Give each stream something to show: a root `demo` with a log that grows, a topic `demo.clock`
    #[arg(long, env = "PERENNIAL_DEMO", default_missing_value = "true", num_args = 0..=1, require_equals = true,
        value_parser = switch, global = true)]
    demo: Option<bool>,
    /// Serve metrics for Prometheus at http://ADDR/metrics
    #[arg(long, env = "PERENNIAL_METRICS", value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// What to log: error, warn, info, debug, or a filter of tracing [default: info]
    #[arg(long, env = "PERENNIAL_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// A longer line is split [default: 1MiB]
    #[arg(long, env = "PERENNIAL_MAX_LINE", value_name = "SIZE", help_heading = "Limits")]
    max_line: Option<Size>,
    /// How long a file that was renamed away must be quiet before its successor is read [default: 200ms]
    #[arg(long, env = "PERENNIAL_ROTATION_GRACE", value_name = "TIME", help_heading = "Limits")]
    rotation_grace: Option<Span>,
    /// How many rotated files of a path are kept open for readers that have not reached them [default: 256]
    #[arg(long, env = "PERENNIAL_MAX_ROTATED", value_name = "N", help_heading = "Limits")]
    max_rotated: Option<usize>,
    /// A response leaves when it has so much [default: 64KiB]
    #[arg(long, env = "PERENNIAL_MAX_RESPONSE", value_name = "SIZE", help_heading = "Limits")]
    max_response: Option<Size>,
    /// The largest message: payload, key and headers together [default: 1MiB]
    #[arg(long, env = "PERENNIAL_MAX_MESSAGE", value_name = "SIZE", help_heading = "Limits")]
    max_message: Option<Size>,
    /// The largest request that does not publish [default: 64KiB]
    #[arg(long, env = "PERENNIAL_MAX_REQUEST", value_name = "SIZE", help_heading = "Limits")]
    max_request: Option<Size>,
    /// The largest request that publishes [default: 4MiB]
    #[arg(long, env = "PERENNIAL_MAX_PUBLISH", value_name = "SIZE", help_heading = "Limits")]
    max_publish: Option<Size>,
    /// The most patterns of a subscription [default: 64]
    #[arg(long, env = "PERENNIAL_MAX_PATTERNS", value_name = "N", help_heading = "Limits")]
    max_patterns: Option<usize>,
    /// The most messages of a PublishStream that wait for their answers [default: 10000]
    #[arg(long, env = "PERENNIAL_PUBLISH_WINDOW", value_name = "N", help_heading = "Limits")]
    publish_window: Option<usize>,
    /// The most topics [default: 1000000]
    #[arg(long, env = "PERENNIAL_MAX_TOPICS", value_name = "N", help_heading = "Limits")]
    max_topics: Option<usize>,
    /// How long the id of a message is remembered [default: 2m]
    #[arg(long, env = "PERENNIAL_DEDUPE_WINDOW", value_name = "TIME", help_heading = "Limits")]
    dedupe_window: Option<Span>,
    /// How many ids of messages are remembered a topic [default: 100000]
    #[arg(long, env = "PERENNIAL_MAX_DEDUPE_IDS", value_name = "N", help_heading = "Limits")]
    max_dedupe_ids: Option<usize>,
    /// How many ids of messages are remembered in all: ten million take some 500 MB [default: 10000000]
    #[arg(long, env = "PERENNIAL_MAX_ALL_DEDUPE_IDS", value_name = "N", help_heading = "Limits")]
    max_all_dedupe_ids: Option<usize>,
    /// How much of the log is in a file: two of this size are reserved on the disk [default: 64MiB]
    #[arg(long, env = "PERENNIAL_SEGMENT", value_name = "SIZE", help_heading = "Limits")]
    segment: Option<Size>,
    /// The shortest interval of a countdown [default: 1ms]
    #[arg(long, env = "PERENNIAL_MIN_INTERVAL", value_name = "TIME", help_heading = "Limits")]
    min_interval: Option<Span>,
    /// The longest countdown [default: 87648h, ten years]
    #[arg(long, env = "PERENNIAL_MAX_LENGTH", value_name = "TIME", help_heading = "Limits")]
    max_length: Option<Span>,
    /// The most ticks a second of all countdowns that are open [default: 1000000]
    #[arg(long, env = "PERENNIAL_MAX_TICK_RATE", value_name = "N", help_heading = "Limits")]
    max_tick_rate: Option<u64>,
    /// The most shared countdowns [default: 100000]
    #[arg(long, env = "PERENNIAL_MAX_COUNTDOWNS", value_name = "N", help_heading = "Limits")]
    max_countdowns: Option<usize>,
    /// How long a shared countdown is kept once it has ended or was cancelled [default: 24h]
    #[arg(long, env = "PERENNIAL_KEEP_ENDED", value_name = "TIME", help_heading = "Limits")]
    keep_ended: Option<Span>,
    /// The most open streams [default: 100000]
    #[arg(long, env = "PERENNIAL_MAX_STREAMS", value_name = "N", help_heading = "Limits")]
    max_streams: Option<usize>,
    /// The most open streams of a connection [default: 256]
    #[arg(long, env = "PERENNIAL_MAX_STREAMS_PER_CONNECTION", value_name = "N", help_heading = "Limits")]
    max_streams_per_connection: Option<u32>,
    /// The most connections [default: 0.8 times the limit of descriptors]
    #[arg(long, env = "PERENNIAL_MAX_CONNECTIONS", value_name = "N", help_heading = "Limits")]
    max_connections: Option<usize>,
    /// End a stream whose reader takes nothing for so long though something waits [default: 5m]
    #[arg(long, env = "PERENNIAL_STALL", value_name = "TIME", help_heading = "Limits")]
    stall: Option<Span>,
    /// Close a connection that sends no request for so long after it was opened [default: 30s]
    #[arg(long, env = "PERENNIAL_FIRST_REQUEST", value_name = "TIME", help_heading = "Limits")]
    first_request: Option<Span>,
    /// Close a connection that has had no stream for so long [default: 5m]
    #[arg(long, env = "PERENNIAL_IDLE", value_name = "TIME", help_heading = "Limits")]
    idle: Option<Span>,
    /// Have the clients of a connection this old connect again, give or take 10 % [default: 1h]
    #[arg(long, env = "PERENNIAL_CONNECTION_AGE", value_name = "TIME", help_heading = "Limits")]
    connection_age: Option<Span>,
    /// Ask a quiet client so often whether it is there [default: 30s]
    #[arg(long, env = "PERENNIAL_PING_INTERVAL", value_name = "TIME", help_heading = "Limits")]
    ping_interval: Option<Span>,
    /// Close the connection of a client that does not answer for so long [default: 20s]
    #[arg(long, env = "PERENNIAL_PING_TIMEOUT", value_name = "TIME", help_heading = "Limits")]
    ping_timeout: Option<Span>,
    /// How long streams may take to end when the server is told to stop [default: 20s]
    #[arg(long, env = "PERENNIAL_DRAIN", value_name = "TIME", help_heading = "Limits")]
    drain: Option<Span>,
}

/// What the parts of the server take.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The data directory.
    pub data: PathBuf,
    /// The roots.
    pub roots: Vec<lines::Root>,
    /// Whether there is to be something to show.
    pub demo: bool,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// What to log.
    pub log: String,
    /// For countdowns.
    pub countdown: countdown::Limits,
    /// For lines.
    pub lines: lines::Options,
    /// For messages.
    pub messages: messages::Config,
    /// For requests.
    pub limits: grpc::Limits,
    /// For streams.
    pub calls: grpc::call::Config,
    /// For connections.
    pub connections: accept::Settings,
}

/// Why there is no configuration. Its text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of the command line, or a request for help or the version.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// Of an environment variable.
    #[error("the environment variable {variable}: {fault}")]
    Variable {
        /// Its name.
        variable: String,
        /// What, and what would work.
        fault: String,
    },
    /// The file cannot be read.
    #[error("the configuration {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("the configuration {}: {fault}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What, and what would work.
        fault: String,
    },
    /// A setting that no part of the server can take.
    #[error("{name} is {value}: {remedy}")]
    Value {
        /// As a flag.
        name: &'static str,
        /// As given.
        value: String,
        /// What would work.
        remedy: &'static str,
    },
    /// A rule for a root that is not there.
    #[error("{setting} names the root `{name}`, which is not there: {remedy}")]
    UnknownRoot {
        /// As a flag.
        setting: &'static str,
        /// As given.
        name: String,
        /// What would work.
        remedy: String,
    },
    /// There is no home to keep data in.
    #[error("there is no home directory to keep data in: give one with --data")]
    NoHome,
}

impl Config {
    /// Reads flags, the environment, and the file that they name.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Error> {
        Ok(Self::read_as(Arguments::command(), arguments)?.0)
    }

    /// Reads a command, too, if one is given behind the flags.
    pub fn read_command<C: Subcommand>(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<(Self, Option<C>), Error> {
        let (config, matches) = Self::read_as(C::augment_subcommands(Arguments::command()), arguments)?;
        let command = matches.subcommand_name().map(|_| C::from_arg_matches(&matches)).transpose()?;
        Ok((config, command))
    }

    fn read_as(
        command: clap::Command,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<(Self, ArgMatches), Error> {
        let arguments = arguments.into_iter().collect::<Vec<_>>();
        let matches = command
            .try_get_matches_from(&arguments)
            .map_err(|error| of_variable(&error, &arguments).unwrap_or(Error::Arguments(error)))?;
        let Arguments { config, settings } = Arguments::from_arg_matches(&matches)?;
        let file = config.as_deref().map(file::read).transpose()?.unwrap_or_default();
        Ok((resolve(settings, file)?, matches))
    }
}

/// The fault of a flag that was not given is its variable's: whoever set that sees no flag.
fn of_variable(error: &clap::Error, arguments: &[OsString]) -> Option<Error> {
    let ContextValue::String(flag) = error.get(ContextKind::InvalidArg)? else { return None };
    let flag = flag.split(['[', '=', ' ']).next()?;
    let is_given = |argument: &OsString| argument.to_string_lossy().split('=').next() == Some(flag);
    let variable = variable(flag.strip_prefix("--")?);
    if arguments.iter().any(is_given) || std::env::var_os(&variable).is_none() {
        return None;
    }
    let text = error.to_string();
    let whole = || text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let fault = std::error::Error::source(error).map_or_else(whole, ToString::to_string);
    Some(Error::Variable { variable, fault })
}

/// The parts' own defaults, under the file, under flags and environment.
fn resolve(given: Settings, file: Settings) -> Result<Config, Error> {
    /// Sets what was given here or there.
    macro_rules! set {
        ($($target:expr => $field:ident),* $(,)?) => {
            $(if let Some(value) = given.$field.or(file.$field) { $target = value.into(); })*
        };
    }
    let demo = given.demo.or(file.demo).unwrap_or_default();
    let roots = roots::resolve(&given, &file)?;
    let mut config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
        data: match given.data.or(file.data) {
            Some(data) => data,
            None => default_data(demo).ok_or(Error::NoHome)?,
        },
        roots,
        demo,
        metrics: given.metrics.or(file.metrics),
        log: given.log.or(file.log).unwrap_or_else(|| "info".into()),
        countdown: countdown::Limits::default(),
        lines: lines::Options::default(),
        messages: messages::Config {
            retention: pick(&given.retain, &file.retain).to_vec(),
            ..messages::Config::default()
        },
        limits: grpc::Limits::default(),
        calls: grpc::call::Config::default(),
        connections: accept::Settings {
            max_connections: super::descriptors() / 10 * 8,
            ..Default::default()
        },
    };
    set! {
        config.listen => listen,
        config.lines.max_line_bytes => max_line,
        config.lines.rotation_grace => rotation_grace,
        config.lines.max_rotated => max_rotated,
        config.limits.batch_bytes => max_response,
        config.messages.max_message_bytes => max_message,
        config.limits.request_bytes => max_request,
        config.limits.publish_bytes => max_publish,
        config.limits.max_patterns => max_patterns,
        config.limits.publish_window => publish_window,
        config.messages.retention_interval => retention_interval,
        config.messages.max_topics => max_topics,
        config.messages.dedupe_window => dedupe_window,
        config.messages.max_dedupe_ids => max_dedupe_ids,
        config.messages.max_all_dedupe_ids => max_all_dedupe_ids,
        config.messages.segment_bytes => segment,
        config.countdown.min_interval => min_interval,
        config.countdown.max_length => max_length,
        config.countdown.max_countdowns => max_countdowns,
        config.countdown.keep_ended => keep_ended,
        config.countdown.rates => max_tick_rate,
        config.calls.max_streams => max_streams,
        config.connections.max_streams => max_streams_per_connection,
        config.connections.max_connections => max_connections,
        config.calls.stall => stall,
        config.connections.first_request => first_request,
        config.connections.idle => idle,
        config.connections.age => connection_age,
        config.connections.ping_interval => ping_interval,
        config.connections.ping_timeout => ping_timeout,
        config.connections.drain => drain,
    }
    check(&config)?;
    Ok(config)
}

/// A list is as it was given, or as it stands in the file.
fn pick<'a, T>(given: &'a [T], file: &'a [T]) -> &'a [T] {
    if given.is_empty() { file } else { given }
}

/// What no part can work with.
fn check(config: &Config) -> Result<(), Error> {
    let Config { lines, messages, limits, countdown, calls, connections, .. } = config;
    let least = [
        ("--max-line", lines.max_line_bytes, 1024),
        ("--max-response", limits.batch_bytes, 1024),
        ("--max-message", messages.max_message_bytes, 1),
        ("--max-request", limits.request_bytes, 1024),
        ("--max-patterns", limits.max_patterns, 1),
        ("--publish-window", limits.publish_window, 1),
        ("--max-topics", messages.max_topics, 1),
        ("--max-all-dedupe-ids", messages.max_all_dedupe_ids, 1),
        ("--max-tick-rate", usize::try_from(countdown.rates.limit()).unwrap_or(usize::MAX), 1),
        ("--max-streams", calls.max_streams, 1),
        ("--max-streams-per-connection", usize::try_from(connections.max_streams).unwrap_or(usize::MAX), 1),
        ("--max-connections", connections.max_connections, 1),
    ];
    for (name, value, least) in least {
        if value < least {
            let remedy = if least == 1 { "it must be 1 or more" } else { "it must be 1KiB or more" };
            return Err(Error::Value { name, value: value.to_string(), remedy });
        }
    }
    if messages.max_message_bytes > MAX_MAX_MESSAGE_BYTES {
        let remedy = "it can be 16MiB at most: a message is held in memory as a whole";
        let value = messages.max_message_bytes.to_string();
        return Err(Error::Value { name: "--max-message", value, remedy });
    }
    if countdown.keep_ended > *messages::TTLS.end() {
        let remedy = "it can be 10 years at most";
        return Err(Error::Value {
            name: "--keep-ended",
            value: format!("{:?}", countdown.keep_ended),
            remedy,
        });
    }
    if !SEGMENT_SIZES.contains(&messages.segment_bytes) {
        let remedy = "from 1MiB to 1GiB is possible";
        return Err(Error::Value { name: "--segment", value: messages.segment_bytes.to_string(), remedy });
    }
    if limits.publish_bytes < messages.max_message_bytes + 1024 {
        let remedy = "it must be 1KiB larger than --max-message, or that one cannot be published";
        return Err(Error::Value { name: "--max-publish", value: limits.publish_bytes.to_string(), remedy });
    }
    let durations = [
        ("--retention-interval", messages.retention_interval),
        ("--min-interval", countdown.min_interval),
        ("--keep-ended", countdown.keep_ended),
        ("--stall", calls.stall),
        ("--first-request", connections.first_request),
        ("--idle", connections.idle),
        ("--connection-age", connections.age),
        ("--ping-interval", connections.ping_interval),
        ("--ping-timeout", connections.ping_timeout),
    ];
    for (name, value) in durations {
        if value < Duration::from_millis(1) {
            return Err(Error::Value { name, value: format!("{value:?}"), remedy: "it must be 1ms or more" });
        }
    }
    Ok(())
}

/// The most that `--max-message` can be.
const MAX_MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

fn default_data(demo: bool) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")))?;
    Some(home.join(if demo { "perennial-demo" } else { "perennial" }))
}

/// The environment variable of a flag.
pub fn variable(flag: &str) -> String {
    format!("{ENV_PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests;
