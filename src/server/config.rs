//! Settings: from flags, the environment and a file, in this order, to the configuration of each part of the server.
//!
//! [`settings`] is the table of all settings, and the only place that names one. A part has its own defaults, and the
//! help prints them.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    ArgMatches, FromArgMatches, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{
    accept,
    listen::{Listen, SOCKET_MODE},
    tls,
};
use crate::{
    access, countdown, grpc, lines,
    messages::{self, SEGMENT_SIZES},
    units,
    web::origin::{Host, Origin, Origins},
};
pub use file::mark;
use settings::{Arguments, Settings};
pub use shown::{Setting, Source};
pub use value::LogFormat;

mod cluster;
mod file;
mod roots;
mod secure;
mod settings;
mod shown;
mod value;
mod variables;

/// The prefix of the environment variable of each setting.
const ENV_PREFIX: &str = "PERENNIAL_";

/// The largest value of `--max-message`: a message is held in memory as a whole.
const MAX_MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// The default of [`Config::reload_interval`]: reading a few small files costs little, and a certificate is renewed days
/// before it expires.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// The configuration of all parts of the server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; at least one.
    pub listen: Vec<Listen>,
    /// The permissions of a socket in the file system.
    pub socket_mode: u32,
    /// The files of TLS. Without them, the server speaks plain text.
    pub tls: Option<tls::Files>,
    /// The files that say who may do what. Without them, every client may do everything.
    pub access: Option<access::Files>,
    /// The file of tokens, which `perenniald token` changes.
    pub tokens: Option<PathBuf>,
    /// Whether the server may speak plain text on an address that others can reach.
    pub insecure: bool,
    /// How often files are read that can change while the server runs.
    pub reload_interval: Duration,
    /// The data directory.
    pub data: PathBuf,
    /// The directories whose files are served.
    pub roots: Vec<lines::Root>,
    /// Whether to serve the demo.
    pub demo: bool,
    /// The address of the metrics.
    pub metrics: Option<SocketAddr>,
    /// The filter of the log on stderr.
    pub log: String,
    /// The form of the log on stderr.
    pub log_format: LogFormat,
    /// The configuration of countdowns.
    pub countdown: countdown::Config,
    /// The options of lines.
    pub lines: lines::Options,
    /// The configuration of messages.
    pub messages: messages::Config,
    /// The cluster that keeps the messages, instead of the data directory.
    #[cfg(feature = "jetstream")]
    pub cluster: Option<messages::Servers>,
    /// The configuration of requests.
    pub requests: grpc::Config,
    /// The configuration of streams.
    pub calls: grpc::call::Config,
    /// The configuration of connections.
    pub connections: accept::Config,
    /// The names under which the server answers browsers.
    pub web_hosts: Vec<Host>,
    /// The origins whose pages may use the server.
    pub cors_origins: Vec<Origin>,
    /// Every setting, with its value and where that comes from.
    pub settings: Vec<Setting>,
    /// The file of settings.
    pub file: Option<PathBuf>,
    /// The mark of its content as it was read.
    pub file_mark: u64,
    /// The command line.
    arguments: Vec<OsString>,
}

/// Why there is no configuration. The message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong, or asks for help or the version.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// An environment variable is wrong.
    #[error("the environment variable {variable}: {fault}")]
    Variable {
        /// The name of the variable.
        variable: String,
        /// The fault, and a value that would work.
        fault: String,
    },
    /// The file cannot be read.
    #[error("the configuration {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// The content of the file is wrong.
    #[error("the configuration {}: {fault}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The fault, and a value that would work.
        fault: String,
    },
    /// No part of the server works with this value.
    #[error("{name} is {value}: {remedy}")]
    Value {
        /// The setting, as a flag.
        name: String,
        /// The value.
        value: String,
        /// What would work.
        remedy: String,
    },
    /// A setting has no effect without another one.
    #[error("{name} is set, which also needs {needed}")]
    Needs {
        /// The setting, as a flag.
        name: String,
        /// The other one.
        needed: String,
    },
    /// A rule names a root that is not configured.
    #[error("{setting} names the root `{name}`, which does not exist: {remedy}")]
    UnknownRoot {
        /// The setting, as a flag.
        setting: &'static str,
        /// The name of the root.
        name: String,
        /// What would work.
        remedy: String,
    },
    /// The default data directory is below the home directory.
    #[error("there is no home directory to keep data in: name a directory with --data")]
    NoHome,
}

impl Config {
    /// Reads the flags, the environment, and the file that they name; and a command, if one follows the flags.
    pub fn read_command<C: Subcommand>(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<(Self, Option<C>), Error> {
        let (config, matches) = Self::read_as(Self::command::<C>(), arguments)?;
        let command = matches.subcommand_name().map(|_| C::from_arg_matches(&matches)).transpose()?;
        Ok((config, command))
    }

    /// The command line of the server, with commands.
    pub fn command<C: Subcommand>() -> clap::Command {
        let command = Arguments::full_command();
        // The documentation of the commands would replace that of the server.
        let (about, long_about) = (command.get_about().cloned(), command.get_long_about().cloned());
        C::augment_subcommands(command)
            .about(about.unwrap_or_default())
            .long_about(long_about.unwrap_or_default())
    }

    fn read_as(
        command: clap::Command,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<(Self, ArgMatches), Error> {
        let arguments = arguments.into_iter().collect::<Vec<_>>();
        let matches = command.try_get_matches_from(&arguments).map_err(|error| {
            of_variable(&error, &arguments).unwrap_or_else(|| Error::Arguments(with_place(error)))
        })?;
        let Arguments { config: path, settings } = Arguments::from_arg_matches(&matches)?;
        let file::Content { settings: file, table, mark } =
            path.as_deref().map(file::read).transpose()?.unwrap_or_default();
        let mut config = resolve(settings, file)?;
        let read = path.clone().map(|path| (path, table));
        config.settings = shown::all(&matches, read.as_ref(), &config);
        (config.file, config.file_mark, config.arguments) = (path, mark, arguments);
        Ok((config, matches))
    }

    /// Reads the same sources again.
    ///
    /// # Errors
    /// The fault of a source that has changed.
    pub fn read_again(&self) -> Result<Self, Error> {
        Ok(Self::read_as(Arguments::full_command(), self.arguments.clone())?.0)
    }

    /// Listens elsewhere than the settings say, on sockets that were bound before.
    ///
    /// # Errors
    /// [`Error::Value`], if it may not listen there.
    pub fn listens_at(self, listen: Vec<Listen>) -> Result<Self, Error> {
        let config = Self { listen, ..self };
        secure::check(&config)?;
        Ok(config)
    }

    /// The URLs of the server, for its clients; those of TCP first.
    pub fn urls(&self) -> Vec<String> {
        let url = |listen: &Listen| match listen {
            Listen::Address(address) if self.tls.is_some() => format!("https://{address}"),
            Listen::Address(address) => format!("http://{address}"),
            Listen::Path(_) => listen.to_string(),
        };
        let (tcp, paths) = self.listen.iter().partition::<Vec<_>, _>(|it| matches!(it, Listen::Address(_)));
        tcp.into_iter().chain(paths).map(url).collect()
    }

    /// The hosts and the origins by which the server knows requests of browsers.
    pub fn origins(&self) -> Origins {
        let listen = self.listen.iter().filter_map(|listen| match listen {
            Listen::Address(address) => Some(address.ip()),
            Listen::Path(_) => None,
        });
        let listen = listen.collect();
        Origins { listen, hosts: self.web_hosts.clone(), origins: self.cors_origins.clone() }
    }

    /// The defaults of all parts.
    fn with_data(data: PathBuf) -> Self {
        Self {
            listen: vec![Listen::Address(SocketAddr::from(([127, 0, 0, 1], 50051)))],
            socket_mode: SOCKET_MODE,
            tls: None,
            access: None,
            tokens: None,
            insecure: false,
            reload_interval: RELOAD_INTERVAL,
            data,
            roots: Vec::new(),
            demo: false,
            metrics: None,
            log: "info".into(),
            log_format: LogFormat::default(),
            countdown: countdown::Config::default(),
            lines: lines::Options::default(),
            messages: messages::Config::default(),
            #[cfg(feature = "jetstream")]
            cluster: None,
            requests: grpc::Config::default(),
            calls: grpc::call::Config::default(),
            connections: accept::Config::default(),
            web_hosts: Vec::new(),
            cors_origins: Vec::new(),
            settings: Vec::new(),
            file: None,
            file_mark: 0,
            arguments: Vec::new(),
        }
    }
}

/// The error of a variable, if clap names a flag that was not given: the operator who set a variable looks for its name.
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

/// The same error. If it is about a flag of the server after a command, it says where such a flag belongs.
fn with_place(mut error: clap::Error) -> clap::Error {
    let tip = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) if error.kind() == ErrorKind::UnknownArgument => {
            let server = Arguments::full_command();
            let is_of_server =
                server.get_arguments().any(|argument| argument.get_long() == flag.strip_prefix("--"));
            is_of_server.then(|| format!("{flag} is a flag of the server: write it before the command"))
        }
        _ => None,
    };
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// The defaults of the parts, overridden by the file, overridden by flags and environment.
fn resolve(given: Settings, file: Settings) -> Result<Config, Error> {
    let roots = roots::resolve(&given, &file)?;
    let demo = given.demo.or(file.demo).unwrap_or_default();
    let data = given.data.clone().or_else(|| file.data.clone()).or_else(|| default_data(demo));
    let mut config = Config { roots, demo, ..Config::with_data(data.ok_or(Error::NoHome)?) };
    Settings::apply(&given, &file, &mut config);
    let listen = pick(&given.listen, &file.listen);
    if !listen.is_empty() {
        config.listen = listen.to_vec();
    }
    config.tls = secure::files(&given, &file)?;
    secure::check_effects(&config)?;
    config.tokens = given.tokens.clone().or_else(|| file.tokens.clone());
    config.access = secure::access(&given, &file, config.tokens.clone());
    config.insecure = given.insecure.or(file.insecure).unwrap_or_default();
    config.connections.may_be_exposed = config.insecure;
    config.metrics = given.metrics.or(file.metrics);
    config.web_hosts = pick(&given.web_host, &file.web_host).to_vec();
    config.cors_origins = pick(&given.cors_origin, &file.cors_origin).to_vec();
    config.messages.retention = pick(&given.retain, &file.retain).to_vec();
    #[cfg(not(feature = "jetstream"))]
    cluster::refuse(&given, &file)?;
    #[cfg(feature = "jetstream")]
    {
        config.cluster = cluster::servers(&given, &file, &config.messages.retention)?;
    }
    config.connections.max_connections =
        given.max_connections.or(file.max_connections).unwrap_or_else(|| super::descriptors() / 10 * 8);
    let per_address = given.max_connections_per_address.or(file.max_connections_per_address);
    config.connections.max_connections_per_address =
        per_address.unwrap_or_else(|| three_quarters(config.connections.max_connections));
    if let Some(log) = given.log.or(file.log) {
        config.log = log;
    }
    config.log_format = given.log_format.or(file.log_format).unwrap_or_default();
    check(&config)?;
    Ok(config)
}

/// One address cannot take all connections, and a proxy can have most of them.
fn three_quarters(connections: usize) -> usize {
    connections - connections / 4
}

/// A list from the flags replaces that of the file.
fn pick<'a, T>(given: &'a [T], file: &'a [T]) -> &'a [T] {
    if given.is_empty() { file } else { given }
}

/// Refuses values that no part works with.
fn check(config: &Config) -> Result<(), Error> {
    Settings::check(config)?;
    secure::check(config)?;
    let Config { messages, requests, countdown, connections, .. } = config;
    let fault = |name: &str, value: String, remedy: &str| {
        Err(Error::Value { name: name.into(), value, remedy: remedy.into() })
    };
    let size = |bytes: usize| units::size_text(bytes as u64);
    if connections.max_connections == 0 {
        return fault("--max-connections", "0".into(), "it must be 1 or more");
    }
    if connections.max_connections_per_address == 0 {
        return fault("--max-connections-per-address", "0".into(), "it must be 1 or more");
    }
    if messages.max_message_bytes > MAX_MAX_MESSAGE_BYTES {
        let remedy = "it can be 16MiB at most, because a message is held in memory as a whole";
        return fault("--max-message", size(messages.max_message_bytes), remedy);
    }
    if countdown.keep_ended > *messages::TTLS.end() {
        return fault(
            "--keep-ended",
            units::duration_text(countdown.keep_ended),
            "it can be 10 years at most",
        );
    }
    if !SEGMENT_SIZES.contains(&messages.segment_bytes) {
        return fault("--segment", size(messages.segment_bytes), "it can be from 1MiB to 1GiB");
    }
    if requests.publish_bytes < messages.max_message_bytes + 1024 {
        let remedy =
            "it must be 1KiB larger than --max-message, so that the largest message can be published";
        return fault("--max-publish", size(requests.publish_bytes), remedy);
    }
    Ok(())
}

fn default_data(demo: bool) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")))?;
    Some(home.join(if demo { "perennial-demo" } else { "perennial" }))
}

/// Environment variables that may be misspelled settings: a text for each.
pub fn misspelled_variables() -> Vec<String> {
    variables::misspelled(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
}

/// The environment variable of a flag.
pub fn variable(flag: &str) -> String {
    format!("{ENV_PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests;
