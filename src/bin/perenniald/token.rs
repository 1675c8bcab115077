//! `perenniald token`: makes, lists and revokes the tokens of clients. A new token is printed once, on stdout.

use std::{io::Write, path::Path, process::ExitCode};

use clap::Subcommand;
use jiff::Timestamp;
use perennial::{
    access::tokens::{self, Entry},
    server::Config,
    units,
};

use crate::{FAILURE, USAGE, fail};

/// How to use the commands.
pub const HELP: &str = "Examples:\n  \
    perenniald token --tokens tokens.toml new billing --role reader --expires 90d > billing.token\n  \
    perenniald token --tokens tokens.toml revoke billing\n\n\
    The file has the hashes of tokens only. A server that runs notices a change
    within --reload-interval and a second, and at SIGHUP at once.";

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Make a token and print it; it is shown only now
    ///
    /// A second token of the same name is for a change without a gap: make the new one, use it, revoke the old one by its
    /// id.
    #[command(after_help = HELP)]
    New {
        /// The name by which rules know it, as token:NAME
        name: String,
        /// A role that rules know, as role:ROLE; can be repeated
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// Expire after this time, as 90d, or at this moment, as 2027-01-01T00:00:00Z [default: never]
        #[arg(long, value_name = "TIME", value_parser = expiry)]
        expires: Option<Timestamp>,
    },
    /// List the tokens: id, state, time of expiry, roles and name
    #[command(after_help = HELP)]
    List,
    /// Revoke the tokens with this name, or the one with this id, for good
    #[command(after_help = HELP)]
    Revoke {
        /// As `list` prints it
        #[arg(value_name = "NAME|ID")]
        which: String,
    },
}

fn expiry(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let after = units::parse_duration(text).map_err(|_| {
        format!("`{text}` is neither a duration, as 90d, nor a moment, as 2027-01-01T00:00:00Z")
    })?;
    let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
    let second = Timestamp::now().as_second().saturating_add(seconds);
    Timestamp::from_second(second).map_err(|_| format!("`{text}` is after the year 9999"))
}

/// Runs a command. Returns the exit code.
pub fn run(config: &Config, command: Command) -> ExitCode {
    let Some(path) = &config.tokens else {
        anstream::eprintln!("perenniald: there is no file of tokens: name one with --tokens FILE");
        return USAGE.into();
    };
    let done = match command {
        Command::New { name, roles, expires } => {
            tokens::add(path, &name, roles, expires).map(|secret| format!("{}\n", secret.expose()))
        }
        Command::List => tokens::list(path).map(|entries| table(&entries)),
        Command::Revoke { which } => tokens::revoke(path, &which).map(|count| {
            let plural = if count == 1 { "" } else { "s" };
            anstream::eprintln!("perenniald: revoked {count} token{plural}");
            String::new()
        }),
    };
    match done {
        Ok(text) => print(&text, path),
        Err(error @ (tokens::Error::Name(_) | tokens::Error::Past(_))) => fail(&error, USAGE),
        Err(error) => fail(&error, FAILURE),
    }
}

fn print(text: &str, path: &Path) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("perenniald: stdout: {error}; {} is changed all the same", path.display());
            FAILURE.into()
        }
    }
}

fn table(entries: &[Entry]) -> String {
    let now = Timestamp::now();
    let row = |entry: &Entry| {
        let state = match (entry.revoked, entry.expires) {
            (Some(_), _) => "revoked",
            (None, Some(expires)) if expires <= now => "expired",
            _ => "valid",
        };
        let expires = entry.expires.map_or_else(|| "never".into(), |expires| expires.to_string());
        let roles = if entry.roles.is_empty() { "-".into() } else { entry.roles.join(",") };
        format!("{}  {state:7}  {expires:20}  {roles}  {}\n", entry.id(), entry.name)
    };
    entries.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_expiry_is_a_duration_or_a_moment() {
        let day = Duration::from_secs(86_400).as_secs().cast_signed();
        let in_a_day = expiry("1d").map(Timestamp::as_second).unwrap_or_default();
        assert!((in_a_day - Timestamp::now().as_second() - day).abs() < 60);
        assert_eq!(
            expiry("2027-01-01T00:00:00Z").map(|it| it.to_string()),
            Ok("2027-01-01T00:00:00Z".into())
        );
        assert!(expiry("soon").is_err_and(|text| text.contains("90d")));
    }
}
