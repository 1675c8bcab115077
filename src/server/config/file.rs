//! The configuration file: a TOML table whose keys are the names of the flags.

use std::path::Path;

use clap::Args;

use super::{Error, settings::Settings};
use crate::watched;

/// An unknown key suggests a known one if they are at least this similar.
const SIMILAR: f64 = 0.8;

/// A file that was read.
#[derive(Default)]
pub struct Content {
    pub settings: Settings,
    /// The file as it is.
    pub table: toml::Table,
    /// That of [`mark`] of the bytes.
    pub mark: u64,
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Content, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
    let settings = parse(&text).map_err(|fault| Error::Content { path: path.into(), fault })?;
    Ok(Content { settings, table: text.parse().unwrap_or_default(), mark: mark(Some(text.as_bytes())) })
}

/// A number that is another one for another content; `None`: the file cannot be read.
pub fn mark(content: Option<&[u8]>) -> u64 {
    watched::mark(&content)
}

/// Reads the text of a file. The error names the fault and a value that would work.
pub fn parse(text: &str) -> Result<Settings, String> {
    let table = text.parse::<toml::Table>().map_err(|error| error.to_string())?;
    let known = known_keys();
    if let Some(key) = table.keys().find(|key| !known.contains(key)) {
        if table.get(key).is_some_and(toml::Value::is_table) {
            return Err(format!("there is no table `[{key}]`: all settings are at the top of the file."));
        }
        let is_of = |line: &str| {
            line.split('=').next().is_some_and(|name| name.trim().trim_matches(['"', '\'']) == key)
        };
        let line = text.lines().position(is_of);
        let line = line.map(|line| format!("line {}: ", line + 1)).unwrap_or_default();
        let nearest = known.iter().map(|known| (strsim::jaro_winkler(key, known), known));
        let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > SIMILAR);
        let remedy = nearest.map(|(_, known)| format!(" Did you mean `{known}`?")).unwrap_or_default();
        return Err(format!("{line}there is no setting `{key}`.{remedy} `perenniald --help` lists them."));
    }
    toml::from_str(text).map_err(|error| error.to_string())
}

/// The keys of the file: all flags but `--config`.
fn known_keys() -> Vec<String> {
    let command = Settings::augment_args(clap::Command::new(""));
    command.get_arguments().filter_map(|argument| argument.get_long()).map(str::to_owned).collect()
}
