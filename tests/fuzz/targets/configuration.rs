//! The configuration file: it is read, and what `config print` gives of it is read again as the same, or it is refused with
//! a text that names the file.

use std::{ffi::OsString, fs, path::PathBuf, sync::LazyLock};

use perennial::server::Config;
use tempfile::TempDir;

pub const WORDS: &[&str] = &[
    "listen = ",
    "root = ",
    "allow = ",
    "deny = ",
    "retain = ",
    "max-streams = ",
    "stall = ",
    "max-message = ",
    "socket-mode = ",
    "log-format = ",
    "max-tick-rate = ",
    "tls-cert = ",
    "access = ",
    "\"7d\"",
    "\"1MiB\"",
    "\"a=/b\"",
    "\"a=*.log\"",
    "\"orders.>=age:7d\"",
    "\"0.0.0.0:1\"",
    "\"unix:/a\"",
    "true",
    "-1",
    "0",
    "18446744073709551615",
];

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());

/// No command follows the settings.
#[derive(Debug, clap::Subcommand)]
enum Command {}

pub fn run(bytes: &[u8]) {
    let path = DIRECTORY.path().join("perennial.toml");
    match read(&path, bytes) {
        Ok(settings) => {
            let printed = settings.iter().map(|(_, line)| format!("{line}\n")).collect::<String>();
            let again = read(&path, printed.as_bytes());
            let again =
                again.unwrap_or_else(|error| panic!("what is printed is refused: {error}\n{printed}"));
            let values = |settings: &[(String, String)]| {
                settings.iter().map(|(value, _)| value.clone()).collect::<Vec<_>>()
            };
            assert_eq!(values(&settings), values(&again));
        }
        Err(error) => assert!(!error.trim().is_empty()),
    }
}

/// Each setting with its value, and the line that `config print` has of it.
fn read(path: &PathBuf, bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
    fs::write(path, bytes).unwrap();
    let arguments = ["perenniald".into(), OsString::from("--config"), path.into()];
    let (config, _) = Config::read_command::<Command>(arguments).map_err(|error| error.to_string())?;
    let settings = config.settings.iter();
    Ok(settings.map(|it| (format!("{} = {:?}", it.name, it.value), it.to_string())).collect())
}
