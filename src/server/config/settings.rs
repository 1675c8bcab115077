//! The table of settings. Each is a flag, an environment variable and a key of the file, under the same name.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Command, CommandFactory, Parser};
use serde::Deserialize;

use super::{
    Config, Error,
    roots::{Root, Rule},
    value::{ClientAuth, LogFormat, Mode, Size, Span, TickRate, switch},
    variable,
};
use crate::{
    messages::retention,
    server::listen::Listen,
    web::origin::{Host, Origin},
};

const EXAMPLES: &str = "\
Examples:
  perenniald --demo
      Serve a demo log and a demo topic at 127.0.0.1:50051. `perennial countdown 5` is a first client.
  perenniald --root logs=/var/log --allow 'logs=*.log'
      Serve the .log files below /var/log, as logs/…
  perenniald --data /srv/perennial --retain 'orders.>=age:7d'
      Keep messages in /srv/perennial, and those of the topics below `orders` for a week.
  perenniald --listen 0.0.0.0:50051 --tls-cert cert.pem --tls-key key.pem --access access.toml --tokens tokens.toml
      Serve other machines, by TLS, and allow each caller what the rules in access.toml allow it.

Without --access, every client that is accepted can read, publish and purge.";

/// Serves time, files and messages as gRPC streams that continue exactly where they were cut
///
/// perenniald serves countdowns, the lines of files, and messages as gRPC streams. A client can cut a stream anywhere
/// and continue exactly where it stopped, also after a restart of the server.
///
/// Without a command, perenniald serves until SIGINT or SIGTERM. `perenniald log` inspects the log of messages, and
/// `perenniald token` makes tokens for clients.
///
/// Every setting is a flag, an environment variable and a key of the file given with --config. A flag wins over the
/// variable, and the variable over the file: --max-streams 100, PERENNIAL_MAX_STREAMS=100, max-streams = 100. TIME is
/// a duration such as 500ms, 20s, 1h30m or 7d. SIZE is a number of bytes, or a size such as 64KiB, 10MB or 1GiB.
#[derive(Debug, Parser)]
#[command(name = "perenniald", version, max_term_width = 110, after_help = EXAMPLES)]
pub struct Arguments {
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}

impl Arguments {
    /// The command line, with the variable and the default of each setting.
    pub fn full_command() -> Command {
        let defaults = Settings::defaults(&Config::with_data(PathBuf::new()));
        Self::command().mut_args(|argument| {
            let Some(flag) = argument.get_long().map(str::to_owned) else { return argument };
            let argument = argument.env(variable(&flag)).hide_env_values(true);
            let default = defaults.iter().find(|(name, _)| *name == flag).map(|(_, default)| default);
            let help = argument.get_help().map(ToString::to_string);
            match (help, default) {
                (Some(help), Some(default)) => argument.help(format!("{help} [default: {default}]")),
                _ => argument,
            }
        })
    }
}

/// Declares all settings: those with a rule of their own in `special`, and under a heading of the help each those that
/// set one value of a part of the server. The part has the default, which the help prints, and `>=` is the least value.
macro_rules! settings {
    (
        special { $($special:tt)* }
        $($heading:literal { $(
            $(#[doc = $doc:literal])+
            $field:ident: $type:ident $value_name:literal => $($target:ident).+ $(>= $least:literal)?;
        )* })*
    ) => {
        /// The settings from one source.
        #[derive(Args, Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "kebab-case", default)]
        pub struct Settings {
            $($special)*
            $($(
                $(#[doc = $doc])+
                #[arg(long, value_name = $value_name, help_heading = $heading)]
                $field: Option<$type>,
            )*)*
        }

        impl Settings {
            /// Sets the values of the parts: from the first source, or else from the second.
            pub fn apply(first: &Self, second: &Self, config: &mut Config) {
                $($(
                    if let Some(value) = first.$field.or(second.$field) {
                        config.$($target).+ = value.into();
                    }
                )*)*
            }

            /// The default of each flag, as the help prints it.
            pub fn defaults(config: &Config) -> Vec<(String, String)> {
                let flag = |field: &str| field.replace('_', "-");
                vec![
                    ("listen".into(), config.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
                    ("log".into(), config.log.clone()),
                    $($((
                        flag(stringify!($field)),
                        <$type>::from(config.$($target).+.clone()).to_string(),
                    ),)*)*
                ]
            }

            /// Refuses a value that is too small for its part.
            pub fn check(config: &Config) -> Result<(), Error> {
                $($(
                    let least = None::<&'static str>$(.or(Some($least)))?;
                    check_least(stringify!($field), &<$type>::from(config.$($target).+.clone()), least)?;
                )*)*
                Ok(())
            }
        }
    };
}

settings! {
    special {
        /// Listen on IP:PORT or unix:PATH; can be repeated
        #[arg(long, value_name = "ADDR", value_delimiter = ',')]
        #[serde(deserialize_with = "one_or_more")]
        pub listen: Vec<Listen>,
        /// Keep messages, consumers and shared countdowns in this directory [default: $XDG_DATA_HOME/perennial, or
        /// perennial-demo with --demo]
        #[arg(long, value_name = "DIR", global = true)]
        pub data: Option<PathBuf>,
        /// Serve a demo: a root `demo` with a log that grows, and a topic `demo.clock`
        #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, value_parser = switch,
            global = true)]
        pub demo: Option<bool>,
        /// Speak plain text on an address that others can reach: they can read and change what is sent
        #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, value_parser = switch)]
        pub insecure: Option<bool>,
        /// Serve metrics for Prometheus at http://ADDR/metrics, and the probes /healthz and /readyz
        #[arg(long, value_name = "ADDR")]
        pub metrics: Option<SocketAddr>,
        /// Answer browsers also under this name; localhost and the address of --listen need none; can be repeated
        #[arg(long, value_name = "HOST", value_delimiter = ',', help_heading = "Browsers")]
        pub web_host: Vec<Host>,
        /// Let pages of this origin use the server, as in https://app.example.com; can be repeated
        #[arg(long, value_name = "ORIGIN", value_delimiter = ',', help_heading = "Browsers")]
        pub cors_origin: Vec<Origin>,
        /// Log this to stderr: error, warn, info, debug, or a filter such as perennial=debug
        #[arg(long, value_name = "FILTER")]
        pub log: Option<String>,
        /// Log lines of `text`, or objects of `json`; `auto`: text on a terminal, or else json [default: auto]
        #[arg(long, value_name = "text|json|auto")]
        pub log_format: Option<LogFormat>,
        /// Serve the files below this directory as NAME/…; can be repeated
        #[arg(long, value_name = "NAME=DIR", value_delimiter = ',', help_heading = "Files")]
        pub root: Vec<Root>,
        /// Serve only files of the root that match: *.log at any depth, nginx/*.log from the root on, app/** all below;
        /// can be repeated
        #[arg(long, value_name = "NAME=GLOB", value_delimiter = ',', help_heading = "Files")]
        pub allow: Vec<Rule>,
        /// Do not serve files of the root that match, nor links to them, nor their rotations; wins over --allow and
        /// ignores the case of A to Z; can be repeated
        #[arg(long, value_name = "NAME=GLOB", value_delimiter = ',', help_heading = "Files")]
        pub deny: Vec<Rule>,
        /// Look for rotated generations of the logs of the root also in files that match, relative to the root, as in
        /// logs=archive/**; of logs with the same name, that in a has those in archive/a; --deny wins; can be repeated
        #[arg(long, value_name = "NAME=GLOB", value_delimiter = ',', help_heading = "Files")]
        pub history: Vec<Rule>,
        /// Do not serve files of this root that have a second name, which may be outside the root; can be repeated
        #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Files")]
        pub no_hard_links: Vec<String>,
        /// Follow absolute links of this root, if they lead into its directory; can be repeated
        #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Files")]
        pub absolute_links: Vec<String>,
        /// Limit what is kept of the topics that match: age:7d, bytes:1GiB and count:1000 for each topic, total:20GiB
        /// for all of them, separated by spaces, or only `last`. The first rule that matches a topic applies. Topics
        /// without a rule are kept forever. Can be repeated
        #[arg(long, value_name = "PATTERN=LIMITS", value_delimiter = ',', global = true, help_heading = "Messages")]
        pub retain: Vec<retention::Rule>,
        /// Keep messages in a stream of NATS JetStream at nats://HOST:PORT,HOST:PORT or nats://…/NAMESPACE, which other
        /// servers can share, instead of the data directory; tls:// instead of nats:// requires TLS
        #[arg(long, value_name = "URL", help_heading = "Cluster", hide = cfg!(not(feature = "jetstream")))]
        pub messages: Option<String>,
        /// Use the credentials of NATS in this file, on which only the owner should have permissions
        #[arg(long, value_name = "FILE", help_heading = "Cluster", hide = cfg!(not(feature = "jetstream")))]
        pub messages_credentials: Option<PathBuf>,
        /// Trust the authorities in this PEM file for the cluster, instead of those of the system; this requires TLS
        #[arg(long, value_name = "FILE", help_heading = "Cluster", hide = cfg!(not(feature = "jetstream")))]
        pub messages_ca: Option<PathBuf>,
        /// Speak TLS with the certificate in this PEM file, which is followed by those that link it to an authority; it
        /// also needs --tls-key
        #[arg(long, value_name = "FILE", help_heading = "TLS")]
        pub tls_cert: Option<PathBuf>,
        /// Use the key in this PEM file, on which only the owner may have permissions
        #[arg(long, value_name = "FILE", help_heading = "TLS")]
        pub tls_key: Option<PathBuf>,
        /// Accept clients whose certificate is of an authority in this PEM file
        #[arg(long, value_name = "FILE", help_heading = "TLS")]
        pub tls_client_ca: Option<PathBuf>,
        /// With --tls-client-ca: `required` refuses clients without a certificate, `optional` accepts them [default:
        /// required]
        #[arg(long, value_name = "required|optional", help_heading = "TLS")]
        pub tls_client_auth: Option<ClientAuth>,
        /// Refuse the client certificates that the lists (CRL) in this PEM file revoke; each authority needs one
        #[arg(long, value_name = "FILE", help_heading = "TLS")]
        pub tls_crl: Option<PathBuf>,
        /// Allow only what the rules in this TOML file allow; without it, every client may do everything
        #[arg(long, value_name = "FILE", help_heading = "Access")]
        pub access: Option<PathBuf>,
        /// Accept the tokens whose hashes are in this file, which `perenniald token` writes, and on which only the owner
        /// may have permissions
        #[arg(long, value_name = "FILE", global = true, help_heading = "Access")]
        pub tokens: Option<PathBuf>,
        /// Close a connection above this number at once [default: 0.8 times the limit of descriptors]
        #[arg(long, value_name = "N", help_heading = "Streams and connections")]
        pub max_connections: Option<usize>,
        /// Close a connection of an address, of a network of IPv6 (a /64), or of an account by a socket in the file system,
        /// above this number at once [default: three quarters of --max-connections]
        #[arg(long, value_name = "N", help_heading = "Streams and connections")]
        pub max_connections_per_address: Option<usize>,
    }
    "Files" {
        /// Split a line that is longer than this
        max_line: Size "SIZE" => lines.max_line_bytes >= "1KiB";
        /// Read the successor of a renamed file after the renamed file was quiet for this long
        rotation_grace: Span "TIME" => lines.rotation_grace;
        /// Keep up to this many rotated files of a path open, for slow readers and for late lines
        max_rotated: usize "N" => lines.max_rotated;
        /// Hold up to this many files and directories for all streams of files (WatchFiles); a million need about 200 MB
        max_watched: usize "N" => lines.max_watched >= "1";
        /// Hold up to this many files and directories for a stream of files
        max_watched_per_stream: usize "N" => lines.max_watched_per_stream >= "1";
    }
    "Messages" {
        /// Enforce retention this often; with 20s, what a rule removes is gone within a minute
        retention_interval: Span "TIME" => messages.retention_interval >= "1ms";
        /// Overwrite what expired, was superseded or was removed by retention within this time; what was purged, within a
        /// minute
        erase_within: Span "TIME" => messages.erase_within >= "1ms";
        /// Remove nothing from the disk because of its age for this long after a start, and after the clock was set
        removal_delay: Span "TIME" => messages.removal_delay;
        /// Refuse a message whose payload, key and headers are together larger than this; up to 16MiB
        max_message: Size "SIZE" => messages.max_message_bytes >= "1B";
        /// Refuse a larger request that publishes
        max_publish: Size "SIZE" => requests.publish_bytes;
        /// Stop reading a PublishStream while more messages than this wait for their answers
        publish_window: usize "N" => requests.publish_window >= "1";
        /// Allow up to this many patterns in a subscription
        max_patterns: usize "N" => messages.max_patterns >= "1";
        /// Allow up to this many topics with messages
        max_topics: usize "N" => messages.max_topics >= "1";
        /// Allow up to this many consumers
        max_consumers: usize "N" => messages.max_consumers >= "1";
        /// Remember the id of a message for this long
        dedupe_window: Span "TIME" => messages.dedupe_window;
        /// Remember up to this many message ids per topic
        max_dedupe_ids: usize "N" => messages.max_dedupe_ids;
        /// Remember up to this many message ids in all; ten million need about 500 MB of memory
        max_all_dedupe_ids: usize "N" => messages.max_all_dedupe_ids >= "1";
        /// Begin a new file of the log at this size, from 1MiB to 1GiB; two files are reserved on the disk
        segment: Size "SIZE" => messages.segment_bytes;
    }
    "Countdowns" {
        /// Refuse a countdown with a shorter interval
        min_interval: Span "TIME" => countdown.min_interval >= "1ms";
        /// Refuse a longer countdown
        max_length: Span "TIME" => countdown.max_length;
        /// Allow up to this many ticks a second of all open countdowns together
        max_tick_rate: TickRate "N" => countdown.rates >= "1";
        /// Allow up to this many shared countdowns
        max_countdowns: usize "N" => countdown.max_countdowns;
        /// Delete a shared countdown this long after it has ended or was cancelled
        keep_ended: Span "TIME" => countdown.keep_ended >= "1ms";
    }
    "TLS" {
        /// Read the files of TLS and of access this often, and use them when they have changed; SIGHUP does so at once
        reload_interval: Span "TIME" => reload_interval >= "1ms";
        /// Close a new connection whose handshake is not complete after this long
        handshake: Span "TIME" => connections.handshake >= "1ms";
    }
    "Streams and connections" {
        /// Send a response when it has this size
        max_response: Size "SIZE" => requests.batch_bytes >= "1KiB";
        /// Refuse a larger request that does not publish
        max_request: Size "SIZE" => requests.request_bytes >= "1KiB";
        /// Give the socket of --listen unix:PATH these permissions, as chmod writes them
        socket_mode: Mode "MODE" => socket_mode;
        /// Allow up to this many open calls, and 1000 more of calls with one answer
        max_streams: usize "N" => calls.max_streams >= "1";
        /// Allow up to this many open streams per connection
        max_streams_per_connection: u32 "N" => connections.max_streams >= "1";
        /// Hold up to this many bytes of requests that are not complete and of answers that wait
        max_buffered: Size "SIZE" => calls.max_buffered;
        /// Hold up to this many of these bytes for a connection
        max_buffered_per_connection: Size "SIZE" => calls.max_buffered_per_connection;
        /// Hold up to this many bytes of responses that clients do not read; above it, the longest stalled streams and
        /// connections end
        max_unsent: Size "SIZE" => calls.max_unsent;
        /// End a call whose client takes nothing for this long while a response waits, or sends nothing before its
        /// request is complete
        stall: Span "TIME" => calls.stall >= "1ms";
        /// Close a new connection that sends no request for this long
        first_request: Span "TIME" => connections.first_request >= "1ms";
        /// Close a connection that has had no stream for this long
        idle: Span "TIME" => connections.idle >= "1ms";
        /// Ask the clients of a connection of this age, give or take 10 %, to connect again
        connection_age: Span "TIME" => connections.age >= "1ms";
        /// Ping a quiet client this often
        ping_interval: Span "TIME" => connections.ping_interval >= "1ms";
        /// Close the connection of a client that does not answer a ping for this long
        ping_timeout: Span "TIME" => connections.ping_timeout >= "1ms";
        /// End within this time when asked to stop; connections are cut after three quarters of it, or 5 s before its end
        drain: Span "TIME" => connections.drain;
    }
}

/// A value of the file that is one text, or a list of them.
fn one_or_more<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Listen>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Values {
        One(String),
        More(Vec<String>),
    }
    let texts = match Values::deserialize(deserializer)? {
        Values::One(text) => vec![text],
        Values::More(texts) => texts,
    };
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

fn check_least<T>(field: &str, value: &T, least: Option<&'static str>) -> Result<(), Error>
where
    T: std::str::FromStr<Err: std::fmt::Debug> + Ord + std::fmt::Display,
{
    let Some(least) = least else { return Ok(()) };
    #[expect(clippy::expect_used, reason = "a test reads the least value of each setting")]
    let bound = least.parse::<T>().expect("the least value has the form of a value");
    if *value >= bound {
        return Ok(());
    }
    let name = format!("--{}", field.replace('_', "-"));
    Err(Error::Value { name, value: value.to_string(), remedy: format!("it must be {least} or more") })
}
