//! Every setting with its value and where that comes from, for `perenniald config` and for a reload.

use std::{fmt, path::PathBuf};

use clap::{ArgMatches, Args, parser::ValueSource};
use serde::Serialize;

use super::{Config, settings::Settings, variable};

/// Where the value of a setting comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// The command line.
    Flag,
    /// An environment variable.
    Variable(String),
    /// The file of `--config`.
    File(PathBuf),
    /// The default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path) => path.display().fmt(f),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting of a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// Its name in the file, and as a flag after `--`.
    pub name: String,
    /// Its value as the file has it; `None` if it is not set and has no default.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: Source,
}

impl Setting {
    /// Whether its value is not shown. No setting holds a secret now: they name the files that do.
    fn is_secret(&self) -> bool {
        ["secret", "password", "token"].iter().any(|end| self.name.ends_with(end))
    }
}

/// A line of a TOML file, with the source as a comment.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, source } = self;
        match value {
            Some(_) if self.is_secret() => write!(f, "# {name} is hidden  # {source}"),
            Some(value) => write!(f, "{name} = {value}  # {source}"),
            None => write!(f, "# {name} is not set"),
        }
    }
}

/// All settings, in the order of the help.
pub fn all(matches: &ArgMatches, file: Option<&(PathBuf, toml::Table)>, config: &Config) -> Vec<Setting> {
    let defaults = Settings::defaults(&Config::with_data(PathBuf::new()));
    let computed = [
        ("data", config.data.display().to_string()),
        ("log-format", "auto".into()),
        ("max-connections", config.connections.max_connections.to_string()),
        ("max-connections-per-address", config.connections.max_connections_per_address.to_string()),
        ("demo", "false".into()),
        ("insecure", "false".into()),
    ];
    let command = Settings::augment_args(clap::Command::new(""));
    let setting = |argument: &clap::Arg| {
        let name = argument.get_long()?.to_owned();
        let is_list = argument.get_value_delimiter().is_some();
        let given = || {
            let values = matches.get_raw(argument.get_id().as_str())?;
            let values = values.map(|value| value.to_string_lossy().into_owned()).collect::<Vec<_>>();
            // A switch without a value is on.
            let first = values.first().cloned().unwrap_or_else(|| "true".into());
            Some(if is_list { list(&values) } else { scalar(&name, &first) })
        };
        let (value, source) = match matches.value_source(argument.get_id().as_str()) {
            Some(ValueSource::CommandLine) => (given(), Source::Flag),
            Some(ValueSource::EnvVariable) => (given(), Source::Variable(variable(&name))),
            _ => {
                let in_file = file.and_then(|(path, table)| Some((path, table.get(&name)?)));
                let default = defaults.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
                let computed = || computed.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
                match (in_file, default.or_else(computed)) {
                    (Some((path, value)), _) => (Some(json(value)), Source::File(path.clone())),
                    (None, Some(value)) => (Some(scalar(&name, value)), Source::Default),
                    (None, None) => (None, Source::Default),
                }
            }
        };
        Some(Setting { name, value, source })
    };
    command.get_arguments().filter_map(setting).collect()
}

/// A value as the file has it: a number or a switch as it is, and everything else in quotes.
fn scalar(name: &str, text: &str) -> String {
    // The digits of a mode would be another number.
    let is_plain =
        name != "socket-mode" && (text.parse::<u64>().is_ok() || text == "true" || text == "false");
    if is_plain { text.into() } else { json(text) }
}

fn list(values: &[String]) -> String {
    json(values)
}

/// Texts, numbers, switches and lists of them look the same in JSON and in TOML.
fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
