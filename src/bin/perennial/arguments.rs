//! The command line: its options, the requests they make, and the command that resumes a stream.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use perennial::{
    client::{Credentials, Token},
    proto::OnGap,
};

use crate::{
    login::{DEFAULT_NAME, DEFAULT_SERVER, Profile},
    time,
};

pub mod bench;
mod countdown;
pub mod guesses;
mod lines;
mod messages;
mod publish;
mod set_consumer;

pub use bench::Bench;
pub use countdown::{Countdown, CountdownVerb, Create, Watch};
pub use lines::Lines;
pub use messages::Messages;
pub use publish::{Publish, Source};
pub use set_consumer::SetConsumer;

/// The width of help on a terminal that has room for it: longer lines are harder to read.
const HELP_COLUMNS: usize = 80;

// In all help texts a paragraph is one line, so that clap wraps it at the width of the terminal.

/// The forms of D, for the help of each command that takes one.
const DURATION_FORMS: &str = "D is a duration: 500ms, 1s, 1h30m or 7d; a day has 24 hours.";

/// The forms of TIME and D, for the help of each command that takes both.
const TIME_FORMS: &str = "\
TIME is one of: now, yesterday, \"tomorrow 9am\", 18:00, \"18:00 Europe/Berlin\", 2026-11-28, \"2026-11-28 18:00\", \
2026-11-28T18:00:00Z, -24h, +90m, or Unix seconds as @1795456800. A day or a time of day without a zone is local.
D is a duration: 500ms, 1s, 1h30m or 7d; a day has 24 hours.";

/// The section of the options that every command takes.
const GLOBAL: &str = "Global options";

const AFTER_HELP: &str = "\
Examples:
  perennial countdown 10
  perennial lines logs/app.log -n 5 -f
  perennial publish orders.new hello
  perennial messages 'orders.>' --from yesterday

Data goes to stdout, everything else to stderr. json and ndjson use the field names of the contract's JSON form, with \
64-bit numbers as numbers. With both, an error is one object on a line of stderr that begins with {: code (the name of a \
gRPC code), reason, field, message, metadata and retryable.

raw prints the number, the line or the payload alone: each line with the line break that the file has, a payload of text \
and a newline, and a payload of bytes with nothing after it.

Exit codes:
    0  done, also when the reader of a pipe has gone
    1  another error
    2  wrong usage
  64+  a call failed: 64 plus its gRPC code (69 not found, 78 not reachable)
  130  Ctrl-C or SIGTERM

A stream that ends early prints the command that resumes it as the last line on stderr, unless the server would refuse \
that, too. Several files print one line each. A consumer that another reader took over (74) prints none. When several \
messages are published, the exit code is that of the first failure.";

const COUNTDOWN_EXAMPLES: &str = "\
Examples:
  perennial countdown 10
  perennial countdown 5m
  perennial countdown 18:00
  perennial countdown tomorrow 9am
  perennial countdown create launch 10m --on-end launches --text liftoff
  perennial countdown --name launch";

const LINES_EXAMPLES: &str = "\
Examples:
  perennial lines logs/app.log -n 20
  perennial lines logs/app.log -F --resume app.cursor
  perennial lines logs/a.log logs/b.log -f";

const TOPICS_HELP: &str = "\
Examples:
  perennial topics
  perennial topics 'orders.*'";

const FILES_HELP: &str = "\
Examples:
  perennial files
  perennial files logs/nginx";

const PURGE_HELP: &str = "\
Examples:
  perennial purge orders.new
  perennial purge orders.new --until-sequence 1000 --yes";

const CONSUMERS_HELP: &str = "\
A row shows the sequence after which the consumer continues, whether it has caught up with the log or the highest \
sequence of all topics, whether a reader is connected, the time of the last commit in UTC, and the name. A commit that cannot be read shows why; \
`perennial set-consumer` gives the consumer a new position.

Example:
  perennial -o json consumers";

const DELETE_CONSUMER_HELP: &str = "\
Example:
  perennial delete-consumer worker";

const HEALTH_HELP: &str = "\
The exit code is 0 only if the status is SERVING.

Examples:
  perennial health
  perennial health perennial.v1.MessageService";

const LOGIN_HELP: &str = "\
Examples:
  perennial login < billing.token
  perennial --server https://perennial.example --profile work login";

const BENCH_HELP: &str = "\
Examples:
  perennial bench pub --messages 100000 --size 256
  perennial bench sub bench.0
  perennial bench pubsub --subscribers 10 --rate 1000 --purge

p50, p99 and max are, for `publish`, the time until the acknowledgement, and for `deliver`, the age of a message when it \
arrives. At full speed the age is mostly waiting time in a queue, so give --rate to measure the delay of delivery. MB is \
1,000,000 bytes of payload. -o json prints one object per row. The messages stay in the topics bench.0, bench.1, … \
unless --purge is given. The exit code is 1 if a message was lost, refused or delivered twice.";

/// Time, files and messages as streams that can be cut anywhere and continue exactly where they stopped.
#[derive(Debug, Parser)]
#[command(name = "perennial", version, after_help = AFTER_HELP, arg_required_else_help = true)]
#[command(max_term_width = HELP_COLUMNS)]
pub struct Arguments {
    /// The server, as HOST, HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:PATH; the default port is 50051
    /// [default: that of the profile, or http://127.0.0.1:50051]
    #[arg(long, global = true, help_heading = GLOBAL, env = "PERENNIAL_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// Use the server and the token that `perennial login` has kept under this name [default: `default`, if it is there]
    #[arg(long, global = true, help_heading = GLOBAL, env = "PERENNIAL_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
    #[command(flatten)]
    pub tls: Tls,
    /// The output format
    #[arg(short, long, global = true, help_heading = GLOBAL, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    #[command(subcommand)]
    pub verb: Verb,
}

impl Arguments {
    /// Refuses combinations that clap's own rules do not cover.
    pub fn check(&self) -> Result<(), String> {
        match &self.verb {
            Verb::Countdown(it) => it.check(self.output),
            Verb::Lines(it) => it.check(self.output),
            Verb::Messages(it) => it.check(self.output),
            Verb::Publish(it) => it.check(),
            _ => Ok(()),
        }
    }

    /// The readings of local times that daylight saving skips or repeats.
    pub fn notes(&self) -> Vec<&str> {
        match &self.verb {
            Verb::Countdown(it) => it.note().into_iter().collect(),
            Verb::Messages(it) => it.notes().collect(),
            Verb::SetConsumer(it) => it.note().into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// How to reach the server: by the options, and what they leave out by the profile, if it is of this server.
    ///
    /// # Errors
    /// The profile cannot be used.
    pub fn reach(&self) -> Result<(Profile, Credentials), String> {
        let name = self.profile.as_deref();
        let path = Profile::path(name.unwrap_or(DEFAULT_NAME));
        // Without a home directory there is no profile.
        let kept = match (path, name) {
            (Ok(path), _) if !matches!(self.verb, Verb::Login) => Profile::read(&path)?,
            (Err(text), Some(_)) => return Err(text),
            _ => None,
        };
        if let (None, Some(name), false) = (&kept, name, matches!(self.verb, Verb::Login)) {
            return Err(format!(
                "there is no profile `{name}`: make it with `perennial login --profile {name}`"
            ));
        }
        let of_profile = kept.as_ref().map(|kept| kept.server.clone());
        let server = self.server.clone().or(of_profile).unwrap_or_else(|| DEFAULT_SERVER.into());
        // Its token must go to no other server.
        let kept = kept.filter(|kept| kept.server == server);
        if let (None, Some(name), false) = (&kept, name, matches!(self.verb, Verb::Login)) {
            return Err(format!("the profile `{name}` is not of {server}: leave out --server, or --profile"));
        }
        let kept = kept.unwrap_or_default();
        let Tls { ca, cert, cert_key, server_name, .. } = self.tls.clone();
        let token = self.tls.token().or_else(|| kept.token.map(Token::Text));
        let profile = Profile {
            server,
            ca: ca.or(kept.ca),
            cert: cert.or(kept.cert),
            cert_key: cert_key.or(kept.cert_key),
            server_name: server_name.or(kept.server_name),
            ..Profile::default()
        };
        let Profile { ca, cert, cert_key, server_name, .. } = profile.clone();
        Ok((profile, Credentials { ca, certificate: cert, key: cert_key, server_name, token }))
    }

    /// The words of a resuming command up to the subcommand. `is_given`: whether an option is on the command line.
    pub fn prefix(&self, is_given: impl Fn(&str) -> bool) -> Vec<String> {
        let mut words = vec!["perennial".to_owned()];
        for (name, value) in [("server", &self.server), ("profile", &self.profile)] {
            push(&mut words, &format!("--{name}"), value.as_ref().filter(|_| is_given(name)));
        }
        for (name, value) in self.tls.values() {
            if let Some(value) = value.filter(|_| is_given(name)) {
                words.extend([format!("--{}", name.replace('_', "-")), value]);
            }
        }
        push(&mut words, "-o", (self.output != Format::Text).then(|| name(&self.output)));
        words
    }
}

/// The section of the options of TLS.
const TLS: &str = "TLS, for https://";

/// The names of the options that say where the server is and how to reach it.
pub const REACHES: [&str; 7] = ["server", "profile", "ca", "cert", "cert_key", "server_name", "token_file"];

/// The variable that may hold a token. It is no option, because others can read the arguments of a process.
const TOKEN_VARIABLE: &str = "PERENNIAL_TOKEN";

/// The options of TLS.
#[derive(Args, Clone, Debug, Default)]
pub struct Tls {
    /// Trust only the authorities in this PEM file [default: those of the system]
    #[arg(long, global = true, help_heading = TLS, env = "PERENNIAL_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Show the server the certificate in this PEM file
    #[arg(long, global = true, help_heading = TLS, env = "PERENNIAL_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The key of the certificate, in a PEM file on which only its owner has permissions [default: in the file of --cert]
    #[arg(long, global = true, help_heading = TLS, env = "PERENNIAL_CERT_KEY", value_name = "FILE")]
    pub cert_key: Option<PathBuf>,
    /// The name in the server's certificate [default: the host in --server]
    #[arg(long, global = true, help_heading = TLS, env = "PERENNIAL_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<String>,
    /// Show the server the token in this file, on which only its owner has permissions [default: the token in the variable
    /// PERENNIAL_TOKEN]
    #[arg(long, global = true, help_heading = GLOBAL, env = "PERENNIAL_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl Tls {
    /// The token, if the caller gives one.
    fn token(&self) -> Option<Token> {
        let of_environment = || std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        self.token_file.clone().map(Token::File).or_else(|| of_environment().map(Token::Text))
    }

    fn values(&self) -> [(&'static str, Option<String>); 5] {
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        [
            ("ca", text(&self.ca)),
            ("cert", text(&self.cert)),
            ("cert_key", text(&self.cert_key)),
            ("server_name", self.server_name.clone()),
            ("token_file", text(&self.token_file)),
        ]
    }
}

/// How items are printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// Text for people
    #[default]
    Text,
    /// One indented JSON object per item
    Json,
    /// One JSON object per line
    Ndjson,
    /// The number, line or payload alone: a text payload as one line, bytes and the lines of a file exactly
    Raw,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Count down, or manage shared countdowns
    #[command(args = guesses::of_countdown())]
    #[command(after_help = format!("{COUNTDOWN_EXAMPLES}\n\n{TIME_FORMS}"))]
    Countdown(Countdown),
    /// Print the lines of files, and follow them
    #[command(args = guesses::of_lines())]
    #[command(after_help = format!("{LINES_EXAMPLES}\n\n{DURATION_FORMS}"))]
    Lines(Lines),
    /// Print the messages of topics, and new ones as they are published
    #[command(args = guesses::of_messages())]
    Messages(Messages),
    /// Publish a message, each line of stdin, or files
    Publish(Publish),
    /// Write completions of shells and manual pages into a directory
    #[command(hide = true, after_help = "Example:\n  perennial generate /tmp/perennial")]
    Generate {
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// List the files that can be read
    #[command(after_help = FILES_HELP)]
    Files {
        /// Only below this root or directory [default: all roots]
        #[arg(value_name = "ROOT[/PATH]")]
        path: Option<String>,
    },
    /// List the topics
    #[command(after_help = TOPICS_HELP)]
    Topics {
        /// Only topics that match this pattern [default: all]
        pattern: Option<String>,
    },
    /// Remove the messages of a topic, for good
    #[command(after_help = PURGE_HELP)]
    Purge(Purge),
    /// List the consumers and their positions
    #[command(after_help = CONSUMERS_HELP)]
    Consumers,
    /// Set the position of a consumer, forward or back
    SetConsumer(SetConsumer),
    /// Delete a consumer and its position, for good
    #[command(after_help = DELETE_CONSUMER_HELP)]
    DeleteConsumer {
        /// The consumer, as `perennial consumers` lists it
        name: String,
    },
    /// Keep a token for a server, so that later commands show it
    ///
    /// The token is read from stdin, or asked for on a terminal. It is kept in the directory `perennial` of the
    /// configuration ($XDG_CONFIG_HOME or ~/.config), with --server and the options of TLS, and shown to no other server.
    #[command(after_help = LOGIN_HELP)]
    Login,
    /// Measure publishing and delivery
    #[command(subcommand, after_help = BENCH_HELP)]
    Bench(Bench),
    /// Report whether the server is serving
    #[command(after_help = HEALTH_HELP)]
    Health {
        /// One service, by its full name [default: the server as a whole]
        service: Option<String>,
    },
}

#[derive(Args, Debug)]
pub struct Purge {
    /// The topic
    pub topic: String,
    /// Remove the messages up to and including sequence N [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub until_sequence: Option<i64>,
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,
}

/// The reaction to data that is gone and would come next.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Gap {
    /// End with an error
    Fail,
    /// Report the gap and continue after it
    Skip,
}

fn on_gap(gap: Option<Gap>) -> OnGap {
    match gap {
        None => OnGap::Unspecified,
        Some(Gap::Fail) => OnGap::Fail,
        Some(Gap::Skip) => OnGap::Skip,
    }
}

/// The options of all three streams.
#[derive(Args, Debug, Default, PartialEq)]
pub struct Batching {
    /// End after N items [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub limit: Option<i64>,
    /// Receive at most N items in a response [default: about 64 KiB of items]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub max_batch: Option<i32>,
    /// Receive an empty response after each D without items [default: 15s]
    #[arg(long, value_name = "D", value_parser = time::duration)]
    pub heartbeat: Option<SignedDuration>,
    /// Continue after the response with this cursor
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

impl Batching {
    fn heartbeat(&self) -> Option<prost_types::Duration> {
        self.heartbeat.map(time::to_proto)
    }

    fn push(&self, words: &mut Vec<String>, delivered: i64, cursor: &str) {
        self.push_rest(words, delivered);
        push(words, "--cursor", Some(cursor));
    }

    fn push_rest(&self, words: &mut Vec<String>, delivered: i64) {
        // A stream that reached its limit has ended and needs no command, so at least one item is left.
        push(words, "--limit", self.limit.map(|limit| limit.saturating_sub(delivered).max(1)));
        push(words, "--max-batch", self.max_batch);
        push(words, "--heartbeat", self.heartbeat.map(time::written));
    }
}

fn push(words: &mut Vec<String>, option: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        words.extend([option.to_owned(), value.to_string()]);
    }
}

fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests;
